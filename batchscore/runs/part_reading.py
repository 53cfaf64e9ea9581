"""Parts read again by their position, in whichever order and process.

A file stays open for the next part of it: one that follows costs nothing to find. Where it is dear to begin in the midst of a file
(a compressed one is unpacked from its start, a row group decoded), a part further on is reached by reading on: each of several
processes that share a file then reads it once, not once for each part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from batchscore.errors import DataError, printable
from batchscore.formats.digests import digest_of
from batchscore.formats.format import format_of
from batchscore.formats.reading import read
from batchscore.formats.source import source_of
from batchscore.records import Position

if TYPE_CHECKING:
    from batchscore.config import ReadSettings
    from batchscore.records import InputFile, Part, Rows


class PartReader:
    """Reads parts of the files of a plan; used by one thread."""

    def __init__(self, files: Sequence[InputFile], settings: ReadSettings) -> None:
        self._files, self._settings = files, settings
        self._stream: Iterator[Rows] | None = None
        self._file, self._row = -1, 0
        """Where the stream is."""

    def read(self, part: Part) -> Rows:
        """The rows of a part.

        Raises:
            DataError: they are not those that were planned.
            StorageError: the file cannot be read.
        """
        file = self._files[part.file]
        is_begun = self._stream is None or not self._leads_to(part, file)
        if is_begun:
            self._begin(part.file, part.start)
        rows = self._planned(part)
        if rows is None and is_begun and file.rejects and part.start.row:
            self._begin(
                part.file, Position()
            )  # it may begin amid damage, which is known to who comes from before
            rows = self._planned(part)
        if rows is None:
            raise DataError(
                f"{printable(file.path)} changed while it was being read (row {part.start.row}). Write it under another "
                "name, rename it when it is whole, and run the same command again."
            )
        return rows

    def _begin(self, number: int, start: Position) -> None:
        file = self._files[number]
        self._stream = read(source_of(file), file.layout, file.columns, self._settings, start)
        self._file, self._row = number, start.row

    def _planned(self, part: Part) -> Rows | None:
        """The part, read on from where the stream is; None if it is not as it was planned."""
        stream, self._stream = self._stream, None  # not to be used again after an error
        assert stream is not None  # noqa: S101 - as the caller knows
        rows = next(stream, None)
        while rows is not None and rows.start.row < part.start.row:
            rows = next(stream, None)
        if rows is None:
            return None
        end = rows.start.row + rows.rows_in
        rows = rows.head(part.rows)
        if rows.start != part.start or digest_of(rows) != part.digest:
            return None
        self._stream, self._row = stream, end
        return rows

    def _leads_to(self, part: Part, file: InputFile) -> bool:
        """Whether the open stream comes to a part in less than it takes to begin there."""
        if part.file != self._file:
            return False
        most = math.inf if file.compression else format_of(file.format).rows_read_on
        return 0 <= part.start.row - self._row <= most
