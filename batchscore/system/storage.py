"""Durable storage: atomic writes and a manifest.

Every file that must survive a crash is written under a temporary name in its final folder (or in the run's staging folder
on the same file system), flushed, synced, renamed, and its folder synced. No link below a folder that the user named is
followed (:mod:`batchscore.system.own_paths`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import IO, Any

from batchscore.errors import DataError, NotOursError, OutputError, printable, storage_error
from batchscore.system.documents import DocumentError, read_regular
from batchscore.system.own_paths import AnyPath, OwnPath, own, own_folder

MANIFEST = "_SUCCESS"
STAGING = ".staging"
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
_SYNCED_AT_ONCE = 8
_LONGEST_TICK = 0.05
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP}
"""Errors of file systems that do not sync folders (some network shares); PostgreSQL ignores them too."""


def sync_folder(folder: AnyPath) -> None:
    """Make the names in ``folder`` durable."""
    try:
        own_folder(folder).sync()
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def make_folder(folder: AnyPath, advice: str = "Name another --output.") -> list[OwnPath]:
    """Create ``folder`` and its parents, durably; it may exist already. Returns the folders that were missing, innermost first.

    Raises:
        OutputError: it cannot be created, or the name is taken; the message ends with ``advice``.
        StorageError: the disk is full or failing.
    """
    place = own_folder(folder)
    try:
        above = _make_root(place.root)
        return [*reversed(_make_own(place)), *above]
    except NotOursError as error:
        raise storage_error("Creating", place, error) from error
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise storage_error("Creating", place, error) from error
        reason = os.strerror(error.errno or 0)
        raise OutputError(f"Cannot create the folder {printable(place)}: {reason}. {advice}") from error


def _make_root(root: Path) -> list[OwnPath]:
    missing = [each for each in (root, *root.parents) if not each.exists()]
    root.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)
    return [OwnPath(each) for each in missing]


def _make_own(place: OwnPath) -> list[OwnPath]:
    """Make a folder of our own and those above it, up to ``root``; returns those that were missing, outermost first."""
    if not place.parts or place.is_folder():
        return []
    missing = _make_own(place.parent)
    if not place.mkdir():
        return missing
    sync_folder(place.parent)
    return [*missing, place]


def sync_tree(folder: AnyPath) -> None:
    """Make every file and folder below ``folder`` durable."""
    place = own_folder(folder)
    for entry in sorted(place.walk(), reverse=True):
        if entry.is_folder:
            sync_folder(place / entry.name)
        elif entry.is_file:
            (place / entry.name).sync()
    sync_folder(place)


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
def atomic_write(path: AnyPath, *, syncs_folder: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file that is renamed to ``path`` if the block ends without an error.

    Of several files in one folder the name of each is durable after one :func:`sync_folder`, for which ``syncs_folder`` can wait.

    Raises:
        OutputError: a link lies in the place of a folder of ours.
        StorageError: the disk is full, a permission is missing, or the like; ``path`` is then unchanged.
    """
    final = own(path)
    short = hashlib.sha256(os.fsencode(final.name)).hexdigest()[
        :16
    ]  # the name may already have the maximum length
    temporary = final.with_name(f".{short}.tmp")
    try:
        with temporary.open_fresh() as file:  # in the place of one that a kill left
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(final)
        if syncs_folder:
            sync_folder(final.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise storage_error("Writing", final, error) from error
        raise


def write_bytes(path: AnyPath, content: bytes) -> None:
    """Write a whole small file, atomically."""
    with atomic_write(path) as file:
        file.write(content)


def to_json(value: Any) -> bytes:
    """Indented UTF-8 JSON with a final newline; NaN is an error, as it is not JSON."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(
        "utf-8", "backslashreplace"
    )


def open_file(path: AnyPath) -> io.BufferedReader:
    """Open a file for reading; a link to one only where the user named it."""
    return path.open_read() if isinstance(path, OwnPath) else path.open("rb")


def sha256_of(path: AnyPath) -> str:
    """SHA-256 (hex) of a file's bytes, read as a stream."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(staged: AnyPath, final: AnyPath) -> None:
    """Sync a finished file and rename it to its final name, then sync both folders."""
    publish_all(own(staged).parent, own(final).parent, [(own(staged).name, own(final).name)])


def publish_all(staged: OwnPath, final: OwnPath, names: Sequence[tuple[str, str]]) -> None:
    """Sync finished files, rename each from below ``staged`` to its name below ``final``, then sync the folders they came to.

    No file has its final name before all are durable.
    """
    with staged.held():
        sync_files([(staged / name, final / last) for name, last in names])
        made: set[OwnPath] = set()
        for name, last in names:
            target = final / last
            try:
                if target.parent not in made:
                    make_folder(target.parent)
                    made.add(target.parent)
                (staged / name).replace(target)
            except OSError as error:
                raise storage_error("Putting in place", target, error) from error
        for folder in sorted(made):
            try:
                sync_folder(folder)
            except OSError as error:
                raise storage_error("Putting in place", folder, error) from error


def await_clock(*paths: OwnPath) -> None:
    """Wait until what is written next has a later ctime than these files have: the clock of a file system may tick every 10 ms.

    After 50 ms it is not waited for any longer: a share may have another clock.
    """
    newest = max((path.stat().st_ctime_ns for path in paths), default=0)
    end = time.monotonic() + _LONGEST_TICK
    while _file_clock() <= newest and time.monotonic() < end:
        time.sleep(0.001)


def _file_clock() -> int:
    """What Linux takes a ctime from, in nanoseconds."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_REALTIME_COARSE", time.CLOCK_REALTIME))


def sync_files(files: Sequence[tuple[OwnPath, OwnPath]]) -> None:
    """Make the bytes of files durable, several at a time, so that the disk writes them together; each with its name in errors."""
    if len(files) < _SYNCED_AT_ONCE:
        for path, named in files:
            _sync_file(path, named)
        return
    with ThreadPoolExecutor(_SYNCED_AT_ONCE, "sync") as pool:
        for done in [
            pool.submit(_sync_each, files[first::_SYNCED_AT_ONCE]) for first in range(_SYNCED_AT_ONCE)
        ]:
            done.result()


def _sync_each(files: Sequence[tuple[OwnPath, OwnPath]]) -> None:
    for path, named in files:
        _sync_file(path, named)


def _sync_file(path: OwnPath, named: OwnPath) -> None:
    try:
        path.sync_file()
    except OSError as error:
        raise storage_error("Putting in place", named, error) from error


@contextlib.contextmanager
def building(path: AnyPath) -> Iterator[IO[bytes]]:
    """Open a file for writing in a folder that is thrown away if what is built there is not finished: nothing is durable yet.

    Raises:
        OutputError: a link lies in the place of a folder of ours.
        StorageError: the disk is full, a permission is missing, or the like.
    """
    try:
        with _open_built(own(path)) as file:
            yield file
    except OSError as error:
        raise storage_error("Writing", path, error) from error


def _open_built(path: OwnPath) -> IO[bytes]:
    """As :meth:`OwnPath.open_fresh`, in a folder where there is rarely anything to be removed."""
    try:
        return path.open_new()
    except FileExistsError:
        return path.open_fresh()


def files_below(folder: AnyPath) -> list[str]:
    """Every file below ``folder``, which may be missing, as a sorted POSIX path, without the staging folder and the manifest.

    Links count as files and are not followed.
    """
    found: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        entries = own_folder(folder).walk(without={STAGING, MANIFEST})
        found = [entry.name for entry in entries if not entry.is_folder]
    return sorted(found)


def manifest(hashes: Mapping[str, str]) -> bytes:
    """The bytes of ``_SUCCESS``: a line per file, in the format of ``sha256sum -c``."""
    lines = []
    for name, digest in sorted(hashes.items()):
        escaped = _escape(name)
        mark = "\\" if escaped != name else ""
        lines.append(f"{mark}{digest}  {escaped}\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def read_manifest(folder: AnyPath) -> dict[str, str]:
    """Path → SHA-256 of every file that ``_SUCCESS`` lists.

    Raises:
        DataError: it is missing or damaged.
    """
    path = own_folder(folder) / MANIFEST
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


def hashes_in_manifest(folder: AnyPath) -> dict[str, str]:
    """The same, ignoring damaged lines; nothing if it is missing."""
    try:
        text = read_regular(own_folder(folder) / MANIFEST).decode("utf-8", "surrogateescape")
    except (FileNotFoundError, DocumentError):
        return {}
    return dict(entry for line in text.split("\n")[:-1] if (entry := _manifest_entry(line)) is not None)


def names_in_manifest(folder: AnyPath) -> set[str]:
    """The files that ``_SUCCESS`` lists, ignoring damaged lines; none if it is missing."""
    return set(hashes_in_manifest(folder))


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


def damaged_files(folder: AnyPath, hashes: Mapping[str, str]) -> list[str]:
    """Compare a folder with its manifest; returns one sentence per difference."""
    place = own_folder(folder)
    present = set(files_below(place))
    problems = [f"{printable(name)}: missing" for name in sorted(set(hashes) - present)]
    problems += [f"{printable(name)}: not in the manifest" for name in sorted(present - set(hashes))]
    for name in sorted(present & set(hashes)):
        if problem := damage(place / name, hashes[name]):
            problems.append(f"{printable(name)}: {problem}")
    return problems


def damage(path: AnyPath, digest: str) -> str:
    """What is wrong with a file that should have this SHA-256; empty if nothing. Links are not followed."""
    try:
        return "" if sha256_of(own(path)) == digest else "its bytes are not those that were written"
    except (NotOursError, IsADirectoryError):
        return "not a regular file"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def remove_file(folder: AnyPath, name: str) -> None:
    """Remove a file of an earlier run below ``folder``, and folders that become empty.

    What lies behind a link in ``folder`` is left alone.
    """
    try:
        path = own_folder(folder) / name
        if path.is_folder():  # replaced by a folder with the same name
            return
        path.unlink()
    except (ValueError, FileNotFoundError, NotADirectoryError, NotOursError):  # out of the folder, or gone
        return
    with contextlib.suppress(OSError):  # until one is not empty
        for _ in PurePosixPath(name).parts[1:]:
            path = path.parent
            path.rmdir()


def remove_tree(folder: AnyPath) -> None:
    """Remove a folder that we created, or a link in its place; it may be missing."""
    try:
        own(folder).remove_tree()
    except OSError as error:
        raise storage_error("Removing", folder, error) from error
