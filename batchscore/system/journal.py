"""JSON that shows when it is damaged: a journal, line by line, and a file of one value."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from batchscore.errors import storage_error
from batchscore.system.documents import DocumentError, Shape, checked, parse_json, read_regular
from batchscore.system.own_paths import AnyPath, own
from batchscore.system.storage import atomic_write, sync_folder, write_bytes

_ANY: Shape = {str: object}


class Journal:
    """An append-only list of JSON objects, one per line after its checksum; only complete lines count.

    An entry of another ``shape`` was not written by us: it and all behind it do not count.
    """

    def __init__(self, path: AnyPath, shape: Shape = _ANY) -> None:
        self._path, self._shape = own(path), shape
        try:
            self.entries, whole = self._read()
            self._give_own_bytes()
            self._file = self._path.open_append()
            self._file.truncate(whole)
            sync_folder(self._path.parent)
        except OSError as error:
            raise storage_error("Opening", self._path, error) from error

    def _read(self) -> tuple[list[dict[str, Any]], int]:
        """Return the complete entries and their size in bytes; a torn last line was left by a kill."""
        entries: list[dict[str, Any]] = []
        whole = 0
        with contextlib.suppress(FileNotFoundError), self._path.open_read() as file:
            for line in file:
                entry = line[9:-1]
                if line != _journal_line(entry):
                    break
                try:
                    entries.append(checked(parse_json(entry), self._shape))
                except DocumentError:
                    break
                whole += len(line)
        return entries, whole

    def _give_own_bytes(self) -> None:
        """Put a copy in the place of a file that has another name too, by which somebody may know it: what is appended is ours."""
        if self._path.exists() and self._path.stat().st_nlink > 1:
            with self._path.open_read() as file, atomic_write(self._path) as out:
                shutil.copyfileobj(file, out)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one entry and make it durable."""
        self.extend([entry], is_durable=True)

    def extend(self, entries: Sequence[Mapping[str, Any]], *, is_durable: bool) -> None:
        """Add entries, which outlive a kill of this process, and if they are durable the machine's too."""
        try:
            self._file.writelines(map(checked_line, entries))
            self._file.flush()
            if is_durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise storage_error("Writing", self._path, error) from error
        self.entries.extend(map(dict, entries))

    def close(self) -> None:
        """Release the file."""
        with contextlib.suppress(OSError):
            self._file.close()


def write_checked(path: AnyPath, value: Any) -> None:
    """Write a JSON value after its checksum, atomically, for :func:`read_checked`."""
    write_bytes(path, checked_line(value))


def read_checked(path: AnyPath) -> Any:
    """The value that :func:`write_checked` wrote; ``None`` if the file is missing or damaged."""
    try:
        line = read_regular(own(path))
        return parse_json(line[9:]) if line == _journal_line(line[9:-1]) else None
    except (FileNotFoundError, DocumentError):
        return None


def checked_line(value: Any) -> bytes:
    """A JSON value as a line of a journal."""
    return _journal_line(json.dumps(value, separators=(",", ":"), allow_nan=False).encode())


def checked_entry(line: bytes) -> bytes | None:
    """The JSON in a line of a journal; None if it is damaged."""
    return line[9:-1] if line == _journal_line(line[9:-1]) else None


def _journal_line(entry: bytes) -> bytes:
    r"""A line of the journal: CRC-32 and entry.

    >>> _journal_line(b'{"part":0}')
    b'5838bcb9 {"part":0}\n'
    """
    return b"%08x %b\n" % (zlib.crc32(entry), entry)
