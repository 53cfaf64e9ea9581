"""Storage as a protocol: named bytes that are listed, read, and written whole, on conditions; a folder is one, a bucket another.

A write is whole or did not happen. :meth:`Store.create` succeeds for one of many who try at once, and :meth:`Store.replace` only where
nobody wrote since a version was seen: locks and ledgers are made of these two.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from batchscore.errors import NotOursError, storage_error
from batchscore.system.own_paths import Entry, OwnPath
from batchscore.system.storage import atomic_write, make_folder, remove_file, sync_folder

Content = bytes | OwnPath
"""What is written: bytes, or those of a file of ours."""
_TEMPORARY = ".new-"


class Version(NamedTuple):
    """By what a store tells one content of a name from another; it means nothing elsewhere."""

    e_tag: str | None
    number: str | None = None


class Stored(NamedTuple):
    """What a store has under one name."""

    name: str
    """POSIX path below the place that the store was opened for."""
    size: int
    """Bytes."""
    version: Version
    modified: datetime.datetime
    """When it was written, by the store's clock."""


class ChangedError(OSError):
    """Somebody else wrote this name, or removed it, since its version was seen."""


class ReadStore(Protocol):
    """Named bytes below one place, whose ``str`` is for messages.

    Names are POSIX paths. Besides what is told below, each raises :class:`~batchscore.errors.StorageError` where the store fails.
    """

    def list(self, below: str = "") -> Iterator[Stored]:
        """All names below a folder, sorted; none if there is no such folder."""
        ...

    def open(self, name: str, version: Version | None = None) -> contextlib.AbstractContextManager[IO[bytes]]:
        """The bytes of a name, as a stream; with a ``version`` those alone.

        Raises:
            FileNotFoundError: there is none.
            ChangedError: it has another version.
        """
        ...


class Store(ReadStore, Protocol):
    """The same, to be written too."""

    def put(self, name: str, content: Content) -> Version:
        """Write, in the place of what has that name."""
        ...

    def create(self, name: str, content: Content) -> Version:
        """Write a name that is free. If it holds the same bytes already that is success, as the answer of an earlier try may be lost.

        Raises:
            FileExistsError: it holds other bytes.
        """
        ...

    def replace(self, name: str, content: Content, version: Version) -> Version:
        """Write in the place of this version; the same bytes are success as for :meth:`create`.

        Raises:
            ChangedError: it has another version.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove a name, which may be missing."""
        ...


def bytes_of(store: ReadStore, name: str, version: Version | None = None) -> bytes:
    """All bytes of a small object."""
    with store.open(name, version) as file:
        return file.read()


def size_of(content: Content) -> int:
    """Bytes."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


@contextlib.contextmanager
def opened(content: Content) -> Iterator[IO[bytes]]:
    """The bytes to write, as a stream."""
    import io

    with io.BytesIO(content) if isinstance(content, bytes) else content.open_read() as file:
        yield file


class FolderStore:
    """The protocol over a folder: the reference that a bucket is held against, and a store on a shared disk.

    Conditions are checked under the lock of the folder, so they hold among those who write through it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = OwnPath(folder)

    def __str__(self) -> str:
        return str(self._folder)

    def list(self, below: str = "") -> Iterator[Stored]:
        """As the protocol says."""
        place = self._folder / below if below else self._folder
        found: list[Entry] = []
        with contextlib.suppress(FileNotFoundError):
            found = [entry for entry in place.walk() if entry.is_file]
        for entry in sorted(found):
            name = f"{below}/{entry.name}" if below else entry.name
            if not name.rpartition("/")[2].startswith(_TEMPORARY):
                yield _stored(name, entry.facts)

    @contextlib.contextmanager
    def open(self, name: str, version: Version | None = None) -> Iterator[IO[bytes]]:
        """As the protocol says."""
        with (self._folder / name).open_read() as file:
            if version is not None and _stored(name, os.fstat(file.fileno())).version != version:
                raise ChangedError(f"{name} was written since")
            yield file

    def put(self, name: str, content: Content) -> Version:
        """As the protocol says."""
        path = self._folder / name
        make_folder(path.parent)
        with opened(content) as source, atomic_write(path) as out:
            while block := source.read(1 << 20):
                out.write(block)
        return _stored(name, path.stat()).version

    def create(self, name: str, content: Content) -> Version:
        """As the protocol says."""
        path = self._folder / name
        make_folder(path.parent)
        temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}")
        with opened(content) as source, temporary.open_new() as out:
            while block := source.read(1 << 20):
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        try:
            temporary.link_to(path)
            sync_folder(path.parent)
        except FileExistsError:
            if not self._holds(name, content):
                raise
        except NotOursError as error:
            raise storage_error("Writing", path, error) from error
        finally:
            temporary.unlink(missing_ok=True)
        return _stored(name, path.stat()).version

    def replace(self, name: str, content: Content, version: Version) -> Version:
        """As the protocol says."""
        path = self._folder / name
        with self._exclusive():
            if not path.exists() or _stored(name, path.stat()).version != version:
                if path.exists() and self._holds(name, content):
                    return _stored(name, path.stat()).version
                raise ChangedError(f"{name} was written since")
            return self.put(name, content)

    def delete(self, name: str) -> None:
        """As the protocol says."""
        remove_file(self._folder, name)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        make_folder(self._folder)
        with self._folder.handle() as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)  # goes with the handle
            yield

    def _holds(self, name: str, content: Content) -> bool:
        with self.open(name) as there, opened(content) as ours:
            return same_bytes(there, ours)


def same_bytes(first: IO[bytes], second: IO[bytes]) -> bool:
    """Whether two streams have the same bytes from here on."""
    while True:
        block = first.read(1 << 20)
        if block != second.read(1 << 20):  # both give all that is asked for, until they end
            return False
        if not block:
            return True


def _stored(name: str, facts: os.stat_result) -> Stored:
    version = Version(f"{facts.st_ino}-{facts.st_mtime_ns}-{facts.st_size}")
    modified = datetime.datetime.fromtimestamp(facts.st_mtime, datetime.UTC)
    return Stored(name, facts.st_size, version, modified)
