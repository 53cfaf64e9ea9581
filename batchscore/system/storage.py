"""Durable storage: atomic writes, a journal, a lock and a manifest.

Every file that must survive a crash is written under a temporary name in its final folder (or in the run's staging folder
on the same file system), flushed, synced, renamed, and its folder synced. The lock is an operating system lock on the run
folder itself: it is released with its process and leaves no file behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from batchscore.errors import BusyError, DataError, OutputError, printable, storage_error
from batchscore.system.documents import DocumentError, read_json, read_regular

MANIFEST = "_SUCCESS"
STAGING = ".staging"
HOLDER = "holder.json"
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP}
"""Errors of file systems that do not sync folders (some network shares); PostgreSQL ignores them too."""


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path, advice: str = "Name another --output.") -> list[Path]:
    """Create ``folder`` and its parents, durably; it may exist already. Returns the folders that were missing, innermost first.

    Raises:
        OutputError: it cannot be created, or the name is taken; the message ends with ``advice``.
        StorageError: the disk is full or failing.
    """
    try:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for each in missing:
            sync_folder(each.parent)
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise storage_error("Creating", folder, error) from error
        reason = os.strerror(error.errno or 0)
        raise OutputError(f"Cannot create the folder {printable(folder)}: {reason}. {advice}") from error
    return missing


def sync_tree(folder: Path) -> None:
    """Make every file and folder below ``folder`` durable."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            sync_folder(path)
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)


@contextlib.contextmanager
def failing(folder: Path) -> Iterator[None]:
    """Turn an ``OSError`` in this block into a :class:`StorageError` about its file, or ``folder`` if it names none.

    Raises:
        StorageError: the block raised an ``OSError``.
    """
    try:
        yield
    except BrokenPipeError:  # from the terminal
        raise
    except OSError as error:
        raise storage_error("Reading or writing", error.filename or folder, error) from error


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that is renamed to ``path`` if the block ends without an error.

    Raises:
        StorageError: the disk is full, a permission is missing, or the like; ``path`` is then unchanged.
    """
    short = hashlib.sha256(os.fsencode(path.name)).hexdigest()[
        :16
    ]  # the name may already have the maximum length
    temporary = path.with_name(f".{short}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # left by a kill; links are not followed
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise storage_error("Writing", path, error) from error
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole small file, atomically."""
    with atomic_write(path) as file:
        file.write(content)


def to_json(value: Any) -> bytes:
    """Indented UTF-8 JSON with a final newline; NaN is an error, as it is not JSON."""
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
        make_folder(final.parent)
        staged.replace(final)
        sync_folder(final.parent)
    except OSError as error:
        raise storage_error("Putting in place", final, error) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the exclusive lock of a folder, or fail at once.

    The folder is created if missing, and removed again, with the parents created for it, if it is left empty.

    Raises:
        BusyError: another process holds it; the message names that process.
        OutputError: the folder cannot be created or opened.
    """
    made: list[Path] = []
    descriptor = None
    try:
        while descriptor is None:
            made += make_folder(folder)
            descriptor = _lock(folder)
        yield
    finally:
        if descriptor is not None:
            if made and _is_at(folder, descriptor):
                with contextlib.suppress(OSError):  # until one is not empty
                    for each in made:
                        each.rmdir()
            os.close(descriptor)


def _lock(folder: Path) -> int | None:
    """Lock ``folder``; ``None`` if its holder removed it in the meantime."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(
            f"Cannot open the folder {printable(folder)}: {error.strerror}. Name another --output."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(folder, descriptor):
            return descriptor
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
            raise storage_error("Locking", folder, error) from error
        raise BusyError(
            f"Another run holds {printable(folder)} ({_holder(folder)}). Wait for it, or name another --output."
        ) from None


def _is_at(folder: Path, descriptor: int) -> bool:
    """Whether the open folder is still the one at that path."""
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def note_holder(folder: Path) -> None:
    """Write who holds the lock, for other processes' messages where the system does not tell."""
    holder = {"pid": os.getpid(), "host": socket.gethostname()}
    write_bytes(folder / STAGING / HOLDER, to_json(holder))


def _holder(folder: Path) -> str:
    """Who holds the lock: from ``/proc/locks``, else from the holder's note."""
    try:
        facts = folder.stat()
        inode = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
        locks = [line.split() for line in Path("/proc/locks").read_text("ascii").splitlines()]
        return next(f"process {lock[4]}" for lock in locks if lock[1:2] == ["FLOCK"] and lock[5:6] == [inode])
    except (OSError, StopIteration):
        pass
    try:
        holder = read_json(folder / STAGING / HOLDER)
        return f"process {int(holder['pid'])} on {printable(holder['host'])}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has not told its number yet"


def files_below(folder: Path) -> list[str]:
    """Every file below ``folder`` as a sorted POSIX path, without the staging folder and the manifest.

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


def manifest(hashes: Mapping[str, str]) -> bytes:
    """The bytes of ``_SUCCESS``: a line per file, in the format of ``sha256sum -c``."""
    lines = []
    for name, digest in sorted(hashes.items()):
        escaped = _escape(name)
        mark = "\\" if escaped != name else ""
        lines.append(f"{mark}{digest}  {escaped}\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def read_manifest(folder: Path) -> dict[str, str]:
    """Path → SHA-256 of every file that ``_SUCCESS`` lists.

    Raises:
        DataError: it is missing or damaged.
    """
    path = folder / MANIFEST
    try:
        text = read_regular(path).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise DataError(
            f"{printable(path)} cannot be read ({os.strerror(error.errno or 0)}): the run has not finished."
        ) from error
    except DocumentError as error:
        raise DataError(f"{printable(path)}: {error}. Score again with --force.") from None
    hashes: dict[str, str] = {}
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        if (entry := _manifest_entry(line)) is None:
            raise DataError(f"{printable(path)}, line {number}: damaged. Score again with --force.")
        hashes[entry[0]] = entry[1]
    if not text.endswith("\n"):
        raise DataError(f"{printable(path)}: cut short. Score again with --force.")
    return hashes


def names_in_manifest(folder: Path) -> set[str]:
    """The files that ``_SUCCESS`` lists, ignoring damaged lines; none if it is missing."""
    try:
        text = read_regular(folder / MANIFEST).decode("utf-8", "surrogateescape")
    except (FileNotFoundError, DocumentError):
        return set()
    return {entry[0] for line in text.split("\n")[:-1] if (entry := _manifest_entry(line)) is not None}


def _manifest_entry(line: str) -> tuple[str, str] | None:
    """Name and digest; ``None`` for an invalid line, such as a name outside the folder."""
    match = re.fullmatch(r"(\\?)([0-9a-f]{64})  ([^\0]+)", line)
    if match is None:
        return None
    mark, digest, name = match.groups()
    name = _unescape(name) if mark else name
    path = PurePosixPath(name)
    return None if path.is_absolute() or ".." in path.parts else (name, digest)


def _escape(name: str) -> str:
    return name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _unescape(name: str) -> str:
    return "\\".join(piece.replace("\\n", "\n").replace("\\r", "\r") for piece in name.split("\\\\"))


def damaged_files(folder: Path, hashes: Mapping[str, str]) -> list[str]:
    """Compare a folder with its manifest; returns one sentence per difference."""
    present = set(files_below(folder))
    problems = [f"{printable(name)}: missing" for name in sorted(set(hashes) - present)]
    problems += [f"{printable(name)}: not in the manifest" for name in sorted(present - set(hashes))]
    for name in sorted(present & set(hashes)):
        if problem := damage(folder / name, hashes[name]):
            problems.append(f"{printable(name)}: {problem}")
    return problems


def damage(path: Path, digest: str) -> str:
    """What is wrong with a file that should have this SHA-256; empty if nothing. Links are not followed."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return "not a regular file"
        return "" if sha256_of(path) == digest else "its bytes are not those that were written"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def remove_file(folder: Path, name: str) -> None:
    """Remove a file of an earlier run below ``folder``, and folders that become empty.

    Targets of links outside ``folder`` are left alone.
    """
    path = folder / name
    if not path.parent.resolve().is_relative_to(folder.resolve()) or not os.path.lexists(path):
        return
    if path.is_dir() and not path.is_symlink():  # replaced by a folder with the same name
        return
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # until one is not empty
        for parent in path.parents[: len(PurePosixPath(name).parents) - 1]:
            parent.rmdir()


def remove_tree(folder: Path) -> None:
    """Remove a folder that we created; it may be missing."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise storage_error("Removing", folder, error) from error


def refuse_long_names(folder: Path, names: Iterable[str]) -> None:
    """Refuse names that are too long for the file system, before any work is done.

    Raises:
        OutputError: a name or its full path has too many bytes.
    """
    longest_name, longest_path = (os.pathconf(folder, limit) for limit in ("PC_NAME_MAX", "PC_PATH_MAX"))
    for name in names:
        sizes = [len(os.fsencode(piece)) for piece in PurePosixPath(name).parts]
        if max(sizes) > longest_name or len(os.fsencode(folder.resolve() / name)) >= longest_path:
            raise OutputError(
                f"{printable(name)}: too long for a file below {printable(folder)}, where a name has at most "
                f"{longest_name} bytes and a path {longest_path}. Rename the input, or leave --output-format alone."
            )
