"""Durability, in one place: whole files or none, a journal, a lock and a manifest.

Every file that must survive a crash is written under a temporary name in the folder where it will stand (or in the
run's staging folder on the same file system), flushed, synced, renamed, and its folder synced. The lock is an operating
system lock on the run folder itself: it dies with its process and leaves no file behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from batchscore.errors import BusyError, DataError, OutputError, printable, storage_error

MANIFEST = "_SUCCESS"
STAGING = ".staging"
HOLDER = "holder.json"
_CHUNK = 1 << 20


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create ``folder`` and its parents; it is no error if it is there.

    Raises:
        OutputError: it cannot be created, or the name is taken by something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise OutputError(
            f"Cannot create the folder {printable(folder)}: {reason}. Name another --output."
        ) from error


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the name ``path`` once the block has ended without an error.

    Raises:
        StorageError: the disk is full, a permission is missing, or the like; nothing is then at ``path`` that was not.
    """
    temporary = path.with_name(f".{path.name[:100]}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error("Writing", path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole small file, atomically."""
    with atomic_write(path) as file:
        file.write(content)


def to_json(value: Any) -> bytes:
    """Indented UTF-8 JSON with a final newline; NaN is an error, so that every reader can read it."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(
        "utf-8", "backslashreplace"
    )


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read as a stream."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(staged: Path, final: Path) -> None:
    """Sync a finished file and rename it to its final name, then sync both folders."""
    try:
        descriptor = os.open(staged, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        final.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(final)
        sync_folder(final.parent)
    except OSError as error:
        raise storage_error("Putting in place", final, error) from error


class Journal:
    """An append-only list of JSON objects, one a line; an entry counts once its line is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries, whole = self._read()
        try:
            self._file = path.open("ab")
            self._file.truncate(whole)
        except OSError as error:
            raise storage_error("Opening", path, error) from error

    def _read(self) -> tuple[list[dict[str, Any]], int]:
        """Return the whole entries and the bytes they take; a torn last line is what a kill left."""
        entries: list[dict[str, Any]] = []
        whole = 0
        if self._path.exists():
            with self._path.open("rb") as file:
                for line in file:
                    try:
                        entry = json.loads(line) if line.endswith(b"\n") else None
                    except ValueError:
                        entry = None
                    if not isinstance(entry, dict):
                        break
                    entries.append(entry)
                    whole += len(line)
        return entries, whole

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one entry and make it durable."""
        try:
            self._file.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise storage_error("Writing", self._path, error) from error
        self.entries.append(dict(entry))

    def close(self) -> None:
        """Release the file."""
        with contextlib.suppress(OSError):
            self._file.close()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the exclusive lock of a run folder, or leave at once.

    Raises:
        BusyError: another process holds it; the message names that process.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise storage_error("Locking", folder, error) from error
            raise BusyError(
                f"Another run holds {printable(folder)} ({_holder(folder)}). Wait for it, or name another --output."
            ) from None
        yield
    finally:
        os.close(descriptor)


def note_holder(folder: Path) -> None:
    """Write who holds the lock, for the message of whoever is turned away."""
    holder = {"pid": os.getpid(), "host": socket.gethostname()}
    write_bytes(folder / STAGING / HOLDER, to_json(holder))


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / STAGING / HOLDER).read_bytes())
        return f"process {int(holder['pid'])} on {printable(holder['host'])}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has not told its number yet"


def files_below(folder: Path) -> list[str]:
    """Every file below ``folder`` as a sorted posix path, the staging folder and the manifest left out.

    Links count as files and are not followed.
    """
    found: list[str] = []
    for root, folders, files in os.walk(folder):
        here = Path(root)
        if here == folder and STAGING in folders:
            folders.remove(STAGING)
        links = [name for name in folders if (here / name).is_symlink()]
        found += [(here / name).relative_to(folder).as_posix() for name in [*files, *links]]
    return sorted(name for name in found if name != MANIFEST)


def write_manifest(folder: Path, hashes: Mapping[str, str]) -> None:
    """Write ``_SUCCESS``: one ``SHA-256, two spaces, path`` line a file, as ``sha256sum -c`` reads it."""
    lines = [f"{digest}  {_escape(name)}\n" for name, digest in sorted(hashes.items())]
    write_bytes(folder / MANIFEST, "".join(lines).encode("utf-8", "surrogateescape"))


def read_manifest(folder: Path) -> dict[str, str]:
    """Path → SHA-256 of every file that ``_SUCCESS`` lists.

    Raises:
        DataError: it is not there or damaged.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise DataError(
            f"{printable(path)} cannot be read ({os.strerror(error.errno or 0)}): the run has not finished."
        ) from error
    hashes: dict[str, str] = {}
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        digest, separator, name = line[:64], line[64:66], line[66:]
        if separator != "  " or not name or set(digest) - set("0123456789abcdef") or len(digest) != 64:
            raise DataError(f"{printable(path)}, line {number}: damaged. Score again with --force.")
        hashes[_unescape(name)] = digest
    if not text.endswith("\n"):
        raise DataError(f"{printable(path)}: cut short. Score again with --force.")
    return hashes


def _escape(name: str) -> str:
    return name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _unescape(name: str) -> str:
    return "\\".join(piece.replace("\\n", "\n").replace("\\r", "\r") for piece in name.split("\\\\"))


def damaged_files(folder: Path, hashes: Mapping[str, str]) -> list[str]:
    """Compare a folder with its manifest; returns one sentence a difference, none when all is as it was written."""
    present = set(files_below(folder))
    problems = [f"{printable(name)}: missing" for name in sorted(set(hashes) - present)]
    problems += [f"{printable(name)}: not in the manifest" for name in sorted(present - set(hashes))]
    for name in sorted(present & set(hashes)):
        path = folder / name
        if not stat.S_ISREG(path.lstat().st_mode):
            problems.append(f"{printable(name)}: not a regular file")
        elif sha256_of(path) != hashes[name]:
            problems.append(f"{printable(name)}: its bytes are not those that were written")
    return problems


def remove_tree(folder: Path) -> None:
    """Remove a folder of our own making; it is no error if it is not there."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise storage_error("Removing", folder, error) from error
