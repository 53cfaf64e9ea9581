"""A finished bundle to a model hub, when asked for: the only thing here that sends anything anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batchscore.errors import StorageError, printable


def push_to_hub(bundle: Path, repo: str) -> str:
    """Upload the folder to ``repo`` (made, and private, if it is not there) and return where it is now.

    The token is found as ``huggingface_hub`` finds it (``hf auth login``, ``HF_TOKEN``); ``HF_ENDPOINT`` is another hub.

    Raises:
        StorageError: the hub refused it or cannot be reached; the bundle itself is complete.
    """
    from huggingface_hub import HfApi

    api: Any = HfApi()
    try:
        name = api.create_repo(repo, repo_type="model", private=True, exist_ok=True).repo_id
        done = api.upload_folder(
            repo_id=name, folder_path=bundle, repo_type="model", commit_message="A bundle of batchscore"
        )
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise StorageError(
            f"{printable(bundle)} is complete, but could not be sent to {printable(repo)} ({printable(reason)}). Log in with "
            f"`hf auth login`, then: hf upload {printable(repo)} {printable(bundle)}"
        ) from error
    return str(getattr(done, "commit_url", repo))
