"""The first pass over a sheet: which row is the header, which columns are used, and what must not be scored."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from batchscore.errors import DataError, UsageError, printable
from batchscore.formats.headers import refuse_more_header
from batchscore.formats.known_names import TEXT, is_identifier, name_key
from batchscore.formats.source import Source
from batchscore.formats.workbook.sheet import MOST_ROWS, NUMBER, Cell, Merge, Row, address, letters
from batchscore.formats.workbook.shown import PRECISE, is_rounded

_LOG = logging.getLogger(__name__)
HEADER_SEARCH_ROWS = 30
"""Rows searched for a header, for advice."""


class Survey:
    """The first pass over a sheet: header, used columns, long numbers."""

    def __init__(self, skip_lines: int, header_lines: int, *, has_header: bool) -> None:
        self._skip, self._header_lines, self._has_header = skip_lines, header_lines, has_header
        self._header: Row | None = None
        self._following: Row | None = None
        self._used: dict[int, int] = {}
        """Column → the first row in which it has a value."""
        self._head: list[Row] = []
        self._rounded: dict[int, tuple[int, int]] = {}
        """Column → how many numbers are longer than Excel keeps them, and the row of the first."""
        self._rows, self._last = 0, 0
        self.first_row = 0
        """The number of the first row below the header."""

    def add(self, row: Row) -> None:
        """Look at a row."""
        if len(self._head) < HEADER_SEARCH_ROWS:
            self._head.append(row)
        if row.number <= self._skip:
            return
        if self._header is None:
            self._header = row
            self.first_row = row.number + self._header_lines if self._has_header else row.number
        if row.number < self.first_row:
            return
        self._following = self._following or row
        self._rows, self._last = self._rows + 1, row.number
        for column, cell in row.cells.items():
            if cell.text:
                self._used.setdefault(column, row.number)
                if cell.kind == NUMBER and len(cell.text) > PRECISE and is_rounded(cell.text):
                    count, first = self._rounded.get(column, (0, row.number))
                    self._rounded[column] = count + 1, first

    def names(self, given: Sequence[str]) -> dict[int, str]:
        """The name of each column that has one or has values, by its place.

        Raises:
            DataError: a column with values has no name, or the header has more lines.
        """
        if self._header is None:
            return {}
        if not self._has_header:
            return self._numbered(given)
        cells = self._header.cells
        found = {column: cell.text for column, cell in cells.items() if cell.text.strip()}
        columns = sorted({*found, *self._used})
        unnamed = [column for column in columns[1:] if column not in found]  # an index has no name
        if unnamed or not found:
            column = unnamed[0] if unnamed else columns[0]
            raise DataError(
                f"row {self._header.number} was taken for the header, but column {letters(column)} has no name there and values "
                f"below, the first in {address(column, self._used[column])}. {self._advice()}"
            )
        if self._following is not None:
            fields = [_text(self._following.cells.get(column)) for column in columns]
            place = f"row {self._following.number}"
            refuse_more_header(fields, place, len(columns), self._header_lines)
        return {column: found.get(column, "") for column in columns}

    def _numbered(self, given: Sequence[str]) -> dict[int, str]:
        columns = sorted(self._used)
        if given and len(given) != len(columns):
            raise UsageError(
                f"--column-names has {len(given)} names, but {len(columns)} columns have values."
            )
        first = [cell.text for cell in (self._header.cells if self._header else {}).values()]
        if any(name_key(cell) in TEXT for cell in first) and all(map(is_identifier, first)):
            raise DataError("its first row is a header. Leave --no-header out.")
        if self._rows >= MOST_ROWS:
            raise DataError("the sheet is full, and has no row for names of columns.")
        names = given or (["text"] if len(columns) == 1 else [f"column_{k + 1}" for k in range(len(columns))])
        return dict(zip(columns, names, strict=True))

    def _advice(self) -> str:
        return header_advice(self._head) or (
            "Give it a name, or clear it. If the header stands further down: --skip-lines N (rows above it)."
        )

    def refuse_merged(self, merges: Sequence[Merge]) -> None:
        """Refuse cells merged over several rows of the table: only the first of them has a value.

        Raises:
            DataError: names the range.
        """
        for merge in merges:
            columns = range(merge.first_column, merge.last_column + 1)
            is_below = merge.last_row >= self.first_row and merge.first_row < self._last
            if is_below and any(column in self._used for column in columns):
                place = f"{address(merge.first_column, merge.first_row)}:{address(merge.last_column, merge.last_row)}"
                raise DataError(
                    f"{place} is merged into one cell, so that only the first of its rows has a value. Unmerge it and fill in "
                    "each row."
                )

    def warn_of_rounded(self, source: Source) -> None:
        """Warn of numbers that Excel may have rounded: ids of more than 15 digits."""
        for column, (count, first) in self._rounded.items():
            _LOG.warning(
                "%s: %d numbers in column %s have more than %d digits, the first in %s. Excel puts zeros in the place of the rest; "
                "if they are ids, store them as text.",
                printable(source.path),
                count,
                letters(column),
                PRECISE,
                address(column, first),
            )


def header_advice(head: Sequence[Row]) -> str:
    """The option that helps if a later row than the first looks like the header; empty if none does. No cell is shown."""
    for row in head[1:]:
        names = [cell.text for cell in row.cells.values() if cell.text.strip()]
        if any(name_key(cell) in TEXT for cell in names) and all(map(is_identifier, names)):
            return f"Row {row.number} looks like the header: --skip-lines {row.number - 1}"
    return ""


def _text(cell: Cell | None) -> str:
    return cell.text if cell is not None else ""
