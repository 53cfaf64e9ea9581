"""The files of a data set on the hub, as a store that is read: ``hf://datasets/OWNER/NAME[@REVISION]``, at one commit."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from batchscore.addresses import Address
from batchscore.errors import NoInputError, StorageError, printable
from batchscore.system.stores import ChangedError, Stored, Version

_EARLIEST = "1970-01-01T00:00:00+00:00"


class HubStore:
    """The part of :class:`~batchscore.system.stores.Store` that reads; the version of a file is the commit and its content's id."""

    def __init__(self, place: Address) -> None:
        self.place = place
        owner, _, name = place.key.partition("/")
        name, _, revision = name.partition("@")
        self._repository, self._revision = f"{owner}/{name}", revision or None

    def __str__(self) -> str:
        return str(self.place)

    def list(self, below: str = "") -> Iterator[Stored]:
        """All files below a folder, sorted."""
        start = f"{below}/" if below else ""
        yield from (each for each in self._files if each.name.startswith(start))

    @contextlib.contextmanager
    def open(self, name: str, version: Version | None = None) -> Iterator[IO[bytes]]:
        """The bytes of a file at the commit that was listed.

        Raises:
            FileNotFoundError: there is none.
            ChangedError: it is not that ``version``.
        """
        found = next((each for each in self._files if each.name == name), None)
        if found is None:
            raise FileNotFoundError(name)
        if version is not None and version != found.version:
            raise ChangedError(name)
        hub, commit = importlib.import_module("huggingface_hub"), self._commit
        with self._failing(f"Reading {printable(name)}"):
            path = hub.hf_hub_download(self._repository, name, repo_type="dataset", revision=commit)
        with Path(path).open("rb") as file:
            yield file

    @functools.cached_property
    def _commit(self) -> str:
        hub = importlib.import_module("huggingface_hub")
        with self._failing("Finding the commit"):
            return str(hub.HfApi().dataset_info(self._repository, revision=self._revision).sha)

    @functools.cached_property
    def _files(self) -> Sequence[Stored]:
        hub, commit = importlib.import_module("huggingface_hub"), self._commit
        with self._failing("Listing the files"):
            tree = hub.HfApi().list_repo_tree(
                self._repository, recursive=True, revision=commit, repo_type="dataset"
            )
            return sorted(self._stored(each) for each in tree if hasattr(each, "size"))

    def _stored(self, file: Any) -> Stored:
        import datetime

        version = Version(f"{self._commit}:{file.blob_id}")
        return Stored(str(file.path), int(file.size), version, datetime.datetime.fromisoformat(_EARLIEST))

    @contextlib.contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        hub_errors = importlib.import_module("huggingface_hub.errors")
        try:
            yield
        except (
            hub_errors.RepositoryNotFoundError,
            hub_errors.RevisionNotFoundError,
            hub_errors.EntryNotFoundError,
        ):
            raise NoInputError(
                f"{printable(self.place)}: there is no such data set, revision or file, or it is not open to you."
            ) from None
        except Exception as error:  # noqa: BLE001 - whatever the client's transport raises; what is said may hold a token
            raise StorageError(
                f"{what} of {printable(self.place)} failed ({type(error).__name__}). Is the hub reachable?"
            ) from None
