"""The lock of a folder: one run at a time.

It is an operating system lock on the folder itself: it is released with its process and leaves no file behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from batchscore.errors import BusyError, NotOursError, OutputError, printable, storage_error
from batchscore.system.documents import read_json
from batchscore.system.own_paths import AnyPath, OwnPath, own_folder
from batchscore.system.storage import (
    STAGING,
    make_folder,
    to_json,
    write_bytes,
)

HOLDER = "holder.json"


@contextlib.contextmanager
def locked(folder: AnyPath) -> Iterator[None]:
    """Hold the exclusive lock of a folder, or fail at once.

    The folder is created if missing, and removed again, with the parents created for it, if it is left empty.

    Raises:
        BusyError: another process holds it; the message names that process.
        OutputError: the folder cannot be created or opened.
    """
    made: list[OwnPath] = []
    place, descriptor = own_folder(folder), None
    try:
        while descriptor is None:
            made += make_folder(place)
            descriptor = _lock(place)
        yield
    finally:
        if descriptor is not None:
            if made and _is_at(place, descriptor):
                with contextlib.suppress(OSError):  # until one is not empty
                    for each in made:
                        each.rmdir()
            os.close(descriptor)


def _lock(folder: OwnPath) -> int | None:
    """Lock ``folder``; ``None`` if its holder removed it in the meantime."""
    try:
        with folder.handle() as handle:
            descriptor = os.dup(handle)
    except FileNotFoundError:
        return None
    except NotOursError as error:
        raise storage_error("Opening", folder, error) from error
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


def _is_at(folder: OwnPath, descriptor: int) -> bool:
    """Whether the open folder is still the one at that path."""
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def note_holder(folder: AnyPath) -> None:
    """Write who holds the lock, for other processes' messages where the system does not tell."""
    holder = {"pid": os.getpid(), "host": socket.gethostname()}
    write_bytes(own_folder(folder) / STAGING / HOLDER, to_json(holder))


def _holder(folder: OwnPath) -> str:
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
