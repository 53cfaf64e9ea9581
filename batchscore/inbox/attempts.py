"""Which file of a drop folder was being scored when a call died, told by a mark on the disk.

A file can take the whole call with it: memory runs out and the system ends every process of the unit, or the machine
goes. Nobody is then left to set the file aside, and it would be the first again, every night. So its mark is made durable
before it is scored and taken back when it has been, whatever became of it; a mark that is found tells of a call that died.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchscore.errors import StorageError, storage_error
from batchscore.system.storage import read_checked, sync_folder, write_checked

MOST_DEATHS = 3
"""So many calls may die with a file; then it is not tried again. A kill at a bad moment is no reason yet."""
_NAME = ".attempts.json"


class Attempts:
    """The marks of one inbox, in one small file; who holds the inbox has them to itself."""

    def __init__(self, inbox: Path) -> None:
        self._path = inbox / _NAME
        try:
            saved = read_checked(self._path)
        except OSError as error:
            raise storage_error("Reading", self._path, error) from error
        self._written: dict[str, Any] = saved or {}
        self._marks: dict[str, Any] = dict(self._written)
        self._forget_the_gone()

    def _forget_the_gone(self) -> None:
        """A file that was moved starts anew if it comes again."""
        names = {digest: mark["name"] for digest, mark in self._marks.items()}
        for digest, name in names.items():
            if not os.path.lexists(self._path.with_name(name)):
                del self._marks[digest]

    def deaths(self, sha256: str, parts: int = 0) -> int:
        """How many calls died with this content, ``parts`` of it being staged now; only those in a row without progress."""
        mark = self._marks.get(sha256)
        return mark["deaths"] if mark and parts <= mark["parts"] else 0

    def deaths_of_name(self, name: str) -> int:
        """The same by the name of the file, as long as nobody has read it."""
        return max((mark["deaths"] for mark in self._marks.values() if mark["name"] == name), default=0)

    @contextlib.contextmanager
    def noted(self, name: str, sha256: str, parts: int) -> Iterator[None]:
        """Hold the mark while the block scores the file.

        Raises:
            StorageError: the mark cannot be written.
        """
        before = self._marks.get(sha256)
        self._marks[sha256] = {"name": name, "deaths": self.deaths(sha256, parts) + 1, "parts": parts}
        try:
            self._write()
            yield
        except BaseException:  # stopped by a signal, say: nobody died
            self._marks.pop(sha256)
            if before is not None:
                self._marks[sha256] = before
            raise
        self._marks.pop(sha256)

    def close(self) -> None:
        """Make durable what holds now; of each file but the last that has happened on the way.

        A mark that cannot be taken back counts for one death too many, which is no reason to fail.
        """
        self._forget_the_gone()
        with contextlib.suppress(StorageError):
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
