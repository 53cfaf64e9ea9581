"""Upload a finished bundle to a model hub, when asked for: the only code here that sends data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batchscore.errors import StorageError, printable


def push_to_hub(bundle: Path, repo: str) -> str:
    """Upload the folder to ``repo`` (created as private if missing) and return its address.

    The token is found by ``huggingface_hub`` (``hf auth login``, ``HF_TOKEN``); ``HF_ENDPOINT`` sets another hub.

    Raises:
        StorageError: the hub refused it or is unreachable; the bundle itself is complete.
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
