"""Which file of a drop folder was being scored when a call died, recorded on disk.

Scoring a file can kill the whole call: memory runs out and the system ends every process of the unit, or the machine goes
down. Nobody is left to set the file aside, and it would come first again, every night. So a mark is written durably before
a file is scored and removed afterwards, whatever the outcome; a mark that is still there means that a call died. Where the
process that scores alone lacked memory, the mark is left there too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchscore.errors import OutputError, StorageError, printable, storage_error
from batchscore.system.documents import DocumentError, checked
from batchscore.system.journal import read_checked, write_checked
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import sync_folder

_LOG = logging.getLogger(__name__)
MAX_DEATHS = 3
"""After so many calls died, a file is not tried again. More than one, since a call may be killed for other reasons."""
_NAME = ".attempts.json"
_MARKS = {str: {"name": str, "deaths": int, "parts": int, "with_room?": int}}


@dataclasses.dataclass
class Mark:
    """What the block that scores a file tells."""

    died: bool = False


class Attempts:
    """The marks of one inbox, in one small file; the caller holds the inbox's lock."""

    def __init__(self, inbox: Path) -> None:
        self._path = OwnPath(inbox) / _NAME
        try:
            saved = read_checked(self._path)
        except OSError as error:
            raise storage_error("Reading", self._path, error) from error
        self._written: dict[str, Any] = _marks_in(saved)
        self._marks: dict[str, Any] = dict(self._written)
        self._drop_missing_files()

    def _drop_missing_files(self) -> None:
        """Drop the marks of files that are gone: one that comes back starts at zero."""
        names = {digest: mark["name"] for digest, mark in self._marks.items()}
        for digest, name in names.items():
            if not self._path.with_name(name).exists():
                del self._marks[digest]

    def deaths(self, sha256: str, parts: int = 0) -> int:
        """How many calls in a row died on this content without progress; ``parts`` are staged now."""
        mark = self._marks.get(sha256)
        return mark["deaths"] if mark and parts <= mark["parts"] else 0

    def deaths_with_room(self, sha256: str, parts: int = 0) -> int:
        """How many of them had all the memory that a file may need."""
        return int(self._marks[sha256].get("with_room") or 0) if self.deaths(sha256, parts) else 0

    def deaths_of_name(self, name: str) -> int:
        """The same by the file's name, before its content is hashed."""
        return max((mark["deaths"] for mark in self._marks.values() if mark["name"] == name), default=0)

    @contextlib.contextmanager
    def marked(self, name: str, sha256: str, parts: int, *, has_room: bool = True) -> Iterator[Mark]:
        """Keep the mark while the block scores the file, and afterwards if the block says that it died.

        Raises:
            StorageError, OutputError: the mark cannot be written.
        """
        before = self._marks.get(sha256)
        with_room = self.deaths_with_room(sha256, parts) + has_room
        deaths = self.deaths(sha256, parts) + 1
        self._marks[sha256] = {"name": name, "deaths": deaths, "parts": parts, "with_room": with_room}
        mark = Mark()
        try:
            self._write()
            yield mark
        except BaseException:  # stopped by a signal, for example: not a death
            self._marks.pop(sha256)
            if before is not None:
                self._marks[sha256] = before
            raise
        if not mark.died:
            self._marks.pop(sha256)

    def close(self) -> None:
        """Save the marks; those of all files but the last are saved already.

        A mark that cannot be removed counts as one death too many, which is no reason to fail.
        """
        self._drop_missing_files()
        with contextlib.suppress(StorageError, OutputError):
            if self._marks != self._written:
                self._write()

    def _write(self) -> None:
        try:
            if self._marks:
                write_checked(self._path, self._marks)
            else:
                self._path.unlink(missing_ok=True)
                sync_folder(self._path.parent)
        except OSError as error:
            raise storage_error("Writing", self._path, error) from error
        self._written = dict(self._marks)


def _marks_in(saved: Any) -> dict[str, Any]:
    """The marks that were saved; none if they cannot be meant, so that each file starts at zero."""
    try:
        marks: dict[str, Any] = checked(saved or {}, _MARKS)
        return marks
    except DocumentError as error:
        _LOG.warning("%s: the marks are damaged, and count no more", printable(error))
        return {}
