"""Standard input as a file: a run reads its inputs several times, so the stream is kept on disk until the run ends."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from batchscore.errors import NoInputError, UsageError, shown_as, storage_error
from batchscore.system.own_paths import OwnPath

ARGUMENT = "-"
"""The INPUT that stands for it."""
NAME = "stdin"
"""Its name, before the suffix of its format."""
_AT_ONCE = 1 << 20


@contextlib.contextmanager
def kept_in(folder: OwnPath) -> Iterator[Path]:
    """Write standard input to a file in a folder; it is removed in the end.

    Raises:
        UsageError: it is a terminal.
        NoInputError: it is empty.
        StorageError: it cannot be read, or the file cannot be written.
    """
    stream = _stream()
    place = folder / NAME
    try:
        _copy(stream, place)
        if not place.stat().st_size:
            raise NoInputError("Standard input (INPUT -) is empty. Did what was to write it fail?")
        with shown_as(place.path, "standard input"):
            yield place.path
    finally:
        place.unlink(missing_ok=True)


def _stream() -> IO[bytes]:
    if sys.stdin is None or sys.stdin.closed:
        raise NoInputError("Standard input (INPUT -) is closed.")
    if sys.stdin.isatty():
        raise UsageError(
            "INPUT - reads standard input, which is a terminal here. Pipe a file into it, or name the file."
        )
    return sys.stdin.buffer


def _copy(stream: IO[bytes], path: OwnPath) -> None:
    try:
        out = path.open_fresh()
    except OSError as error:
        raise storage_error("Writing", path, error) from error
    with out:
        while data := _read(stream):
            try:
                out.write(data)
            except OSError as error:
                raise storage_error("Writing", path, error) from error


def _read(stream: IO[bytes]) -> bytes:
    try:
        return stream.read(_AT_ONCE)
    except OSError as error:
        raise storage_error("Reading", "standard input", error) from error
