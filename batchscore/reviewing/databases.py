"""SQLite files of a review: opened alike, and their errors told as ours."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from batchscore.errors import BatchscoreError, BusyError, DataError, StorageError, printable
from batchscore.system.own_paths import OwnPath

_WAIT_SECONDS = 10.0
"""How long one process waits for the commit of another, which takes milliseconds."""
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def connect(path: OwnPath) -> sqlite3.Connection:
    """Open a database that is there, in a folder of :func:`~batchscore.reviewing.places.prepare`; transactions are our own to begin.

    One connection is used by one thread at a time.
    """
    with telling(path):
        connection = sqlite3.connect(
            f"{path.path.absolute().as_uri()}?mode=rw",
            timeout=_WAIT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection


@contextlib.contextmanager
def telling(path: OwnPath) -> Iterator[None]:
    """Turn what SQLite refuses in this block into one of our errors.

    Raises:
        DataError: the file is damaged, or no database.
        BusyError: another process has held it for seconds.
        StorageError: anything else: no space, no permission, a failing disk.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _told(path, error) from error


def _told(path: OwnPath, error: sqlite3.DatabaseError) -> BatchscoreError:
    name = printable(path)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _DAMAGED:
        return DataError(
            f"{name} is damaged ({printable(error)}). Put it right from a backup, or move it away and begin anew."
        )
    if code in _BUSY:
        return BusyError(f"Another process holds {name}. Wait for it, and try again.")
    return StorageError(
        f"Reading or writing {name} failed: {printable(error)}. Free the cause (space, permission, connection) and try again: "
        "what was confirmed is kept."
    )
