"""The rows of a sheet, one at a time, each with its cells as they are shown."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from batchscore.errors import DataError
from batchscore.formats.workbook.package import (
    MOST_CHARS,
    Package,
    SharedStrings,
    Sheet,
    Text,
    damage,
    local,
    parser,
    unescaped,
)
from batchscore.formats.workbook.shown import shown

MOST_ROWS = 1_048_576
MOST_COLUMNS = 16_384
NUMBER, BOOLEAN, ERROR, TEXT = "n", "b", "e", ""
"""Kinds of cells; a day is a number with a format."""
_PLACE = re.compile(r"([A-Z]{1,3})([1-9]\d{0,6})")
_MOST_MERGES = 100_000


class Cell(NamedTuple):
    """A cell with a value: as it is shown, and what it holds where that is no text."""

    text: str
    kind: str = TEXT
    raw: str = ""
    format: int | str = 0
    """The number of a built-in number format, or its code."""


class Row(NamedTuple):
    """A row of a sheet: its number, from 1 on, and its cells by column, from 0 on; cells without a value are left out."""

    number: int
    cells: dict[int, Cell]


class Merge(NamedTuple):
    """A merged range over several rows, ends included; columns count from 0."""

    first_column: int
    first_row: int
    last_column: int
    last_row: int


def address(column: int, row: int) -> str:
    """The address of a cell.

    >>> address(0, 1), address(27, 12)
    ('A1', 'AB12')
    """
    return f"{letters(column)}{row}"


def letters(column: int) -> str:
    """The letters of a column, counted from 0.

    >>> letters(0), letters(25), letters(26), letters(16_383)
    ('A', 'Z', 'AA', 'XFD')
    """
    found = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        found = chr(ord("A") + rest) + found
    return found


def place_of(text: str) -> tuple[int, int]:
    """Column, from 0 on, and row of an address.

    Raises:
        EOFError: it is none.
    """
    match = _PLACE.fullmatch(text.replace("$", ""))
    if match is None:
        raise EOFError("a cell has no address")
    column = 0
    for letter in match[1]:
        column = column * 26 + ord(letter) - ord("A") + 1
    row = int(match[2])
    if row > MOST_ROWS or column > MOST_COLUMNS:
        raise EOFError("a cell lies outside a sheet")
    return column - 1, row


class UncalculatedError(DataError):
    """A formula has no result; the message is the address of its cell."""


def rows_of(package: Package, sheet: Sheet, merges: list[Merge] | None = None) -> Iterator[Row]:
    """Yield the rows that have a value, in order; ``merges`` gets the ranges merged over several rows.

    Raises:
        EOFError: the sheet is damaged.
        UncalculatedError: a formula has no result.
    """
    with contextlib.closing(package.stream(sheet.part)) as chunks, package.strings() as strings:
        reader = _Reader(package, strings, merges if merges is not None else [])
        with damage():
            for data in chunks:
                reader.feed(data)
                yield from reader.taken()
            reader.feed(b"", is_end=True)
            yield from reader.taken()


def has_values(package: Package, sheet: Sheet) -> bool:
    """Whether any cell of a sheet has something in it, read no further than the first."""
    found = False

    def start(name: str, _: dict[str, str]) -> None:
        nonlocal found
        found = found or local(name) in {"v", "is", "f"}

    made = parser(start)
    with contextlib.closing(package.stream(sheet.part)) as chunks, damage():
        for data in chunks:
            made.Parse(data)
            if found:
                return True
    return False


class _Reader:
    """Turns the XML of a sheet into rows."""

    def __init__(self, package: Package, strings: SharedStrings, merges: list[Merge]) -> None:
        self._formats, self._from_1904 = package.formats, package.counts_from_1904
        self._is_uncalculated, self._strings, self._merges = package.is_uncalculated, strings, merges
        self._rows: list[Row] = []
        self._number = 0
        self._cells: dict[int, Cell] = {}
        self._column = -1
        self._facts: dict[str, str] = {}
        self._has_formula = False
        self._value: list[str] | None = None
        """Pieces of the value; ``None`` outside it."""
        self._raw: str | None = None
        self._inline = Text()
        self._starts: dict[str, Callable[[dict[str, str]], None]] = {
            "row": self._start_row,
            "c": self._start_cell,
            "v": self._start_value,
            "f": self._start_formula,
            "mergeCell": self._merge,
        }
        self._ends: dict[str, Callable[[], None]] = {
            "row": self._end_row,
            "c": self._end_cell,
            "v": self._end_value,
        }
        self._parser = parser(self._start, self._end, self._text)

    def feed(self, data: bytes, *, is_end: bool = False) -> None:
        """Parse a piece of the sheet."""
        try:
            self._parser.Parse(data, is_end)
        except ValueError as error:
            raise EOFError("a number in it is none") from error

    def taken(self) -> list[Row]:
        """The rows that are complete, once."""
        rows, self._rows = self._rows, []
        return rows

    def _start(self, name: str, facts: dict[str, str]) -> None:
        plain = local(name)
        if (begin := self._starts.get(plain)) is not None:
            begin(facts)
        else:
            self._inline.start(plain)

    def _end(self, name: str) -> None:
        plain = local(name)
        if (finish := self._ends.get(plain)) is not None:
            finish()
        else:
            self._inline.end(plain)

    def _text(self, data: str) -> None:
        if self._value is not None:
            self._value.append(data)
        else:
            self._inline.add(data)

    def _start_row(self, facts: dict[str, str]) -> None:
        number = int(facts["r"]) if "r" in facts else self._number + 1
        if not self._number < number <= MOST_ROWS:
            raise EOFError("its rows are not in order")
        self._number, self._cells, self._column = number, {}, -1

    def _end_row(self) -> None:
        if any(cell.text for cell in self._cells.values()):
            self._rows.append(Row(self._number, self._cells))

    def _start_cell(self, facts: dict[str, str]) -> None:
        column, row = place_of(facts["r"]) if "r" in facts else (self._column + 1, self._number)
        if row != self._number or column in self._cells or column >= MOST_COLUMNS:
            raise EOFError("its cells are not in order")
        self._column, self._facts = column, facts
        self._has_formula, self._raw = False, None

    def _start_value(self, _: dict[str, str]) -> None:
        self._value = []

    def _end_value(self) -> None:
        self._raw = "".join(self._value or ())
        if len(self._raw) > MOST_CHARS:
            raise EOFError(f"a value has more than {MOST_CHARS:,} characters")
        self._value = None

    def _start_formula(self, _: dict[str, str]) -> None:
        self._has_formula = True

    def _end_cell(self) -> None:
        kind, inline = self._facts.get("t", "n"), self._inline.take()
        if self._has_formula and (
            self._is_uncalculated or self._raw is None or (not self._raw and kind != "str")
        ):
            raise UncalculatedError(address(self._column, self._number))
        raw = inline if kind == "inlineStr" else self._raw
        if raw is not None and (cell := self._cell(kind, raw)) is not None:
            self._cells[self._column] = cell

    def _cell(self, kind: str, raw: str) -> Cell | None:
        if kind == "s":
            return Cell(self._strings.get(int(raw) if raw.strip().isdecimal() else -1))
        if kind in {"str", "inlineStr"}:
            return Cell(unescaped(raw))
        raw = raw.strip()
        if not raw:
            return None
        if kind == "b":
            return Cell("TRUE" if raw in {"1", "true"} else "FALSE", BOOLEAN, raw)
        if kind == "e":
            return Cell(raw, ERROR, raw)
        if kind == "d":  # a day in ISO 8601, as it is
            return Cell(raw)
        style = self._facts.get("s", "0")
        at = int(style) if style.isdecimal() else 0
        code = self._formats[at] if at < len(self._formats) else 0
        return Cell(shown(raw, code, from_1904=self._from_1904), NUMBER, raw, code)

    def _merge(self, facts: dict[str, str]) -> None:
        first, _, last = facts.get("ref", "").partition(":")
        if last and len(self._merges) < _MOST_MERGES:
            (first_column, first_row), (last_column, last_row) = place_of(first), place_of(last)
            if last_row > first_row:
                self._merges.append(Merge(first_column, first_row, last_column, last_row))
