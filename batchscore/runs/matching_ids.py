"""Rows found by their ids, which match as values: ``7`` and ``7.0`` are one number.

An id matches as it is written, else as a whole number without its decimals: many tools turn an integer column with gaps into floats. Leading
zeros are part of an id, ``07`` is another text than ``7``, unless it is asked that they match where nothing else does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from batchscore.runs.id_table import ABSENT, AMBIGUOUS, IdTable
from batchscore.system.own_paths import AnyPath

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Finder = Callable[[Sequence[str | None]], NDArray[np.int64]]

__all__ = ["ABSENT", "AMBIGUOUS", "UNCLEAR", "MatchingIds"]

UNCLEAR = -4
"""The result for an id that several ids of the rows could be, which differ only by how a number is written."""

_WHOLE_NUMBER = re.compile(r"(0|-?[1-9][0-9]*)(?:\.0+)?")
_PADDED_NUMBER = re.compile(r"(-?)0*([0-9]+)(?:\.0+)?")
_FLOAT_MARK, _VALUE_MARK = "\0", "\1"


class MatchingIds:
    """``add`` the ids of all rows, ``seal`` once, then ``find``. ``folder`` must be empty and belongs to this."""

    def __init__(self, folder: AnyPath, rows: int, *, drops_zeros: bool = False) -> None:
        """``rows``: their expected number; ``drops_zeros``: ``007`` matches ``7`` where no id of the rows differs only by that."""
        self._table, self._drops_zeros = IdTable(folder, rows), drops_zeros

    def add(self, ids: Sequence[str | None], places: NDArray[np.int64]) -> None:
        """Add the place (0 or more) of each id that is neither None nor empty."""
        self._table.add(ids, places)
        self._table.add([_as_float(each) for each in ids], places)
        if self._drops_zeros:
            self._table.add([_as_value(each) for each in ids], places)

    def seal(self) -> None:
        """No more are added."""
        self._table.seal()

    def find(self, ids: Sequence[str | None]) -> NDArray[np.int64]:
        """The place of each id, int64 ``[n]``: ``ABSENT`` if no row has it, ``AMBIGUOUS`` if several have.

        Where leading zeros are dropped, ``UNCLEAR`` if several have ids that it could be.
        """
        found = self._table.find(ids)
        self._fill(found, ids, self._by_number)
        if self._drops_zeros:
            self._fill(found, ids, lambda rest: self._table.find([_as_value(each) for each in rest]))
        return found

    def _fill(self, found: NDArray[np.int64], ids: Sequence[str | None], find: _Finder) -> None:
        missing = np.flatnonzero(found == ABSENT)
        places = find([ids[int(at)] for at in missing])
        found[missing] = np.where(places == AMBIGUOUS, UNCLEAR, places) if self._drops_zeros else places

    def _by_number(self, ids: Sequence[str | None]) -> NDArray[np.int64]:
        numbers = [whole_number(each) for each in ids]
        as_integer = self._table.find(numbers)
        as_float = self._table.find([number and _FLOAT_MARK + number for number in numbers])
        is_in_both = (as_integer != ABSENT) & (as_float != ABSENT)
        return np.where(is_in_both, AMBIGUOUS, np.where(as_integer != ABSENT, as_integer, as_float))


def whole_number(text: str | None) -> str | None:
    """A whole number without its decimals; None for other text, including numbers with leading zeros.

    >>> [whole_number(text) for text in ("7", "7.0", "-7.00", "07", "7.5", "1e3")]
    ['7', '7', '-7', None, None, None]
    """
    match = _WHOLE_NUMBER.fullmatch(text or "")
    return match and match[1]


def _as_float(text: str | None) -> str | None:
    """A second key for a whole number written as a float, besides its text; None for any other text."""
    number = whole_number(text)
    return None if number is None or number == text else _FLOAT_MARK + number


def _as_value(text: str | None) -> str | None:
    """A key that a whole number has however many zeros it begins with; None for other text.

    >>> _as_value("007") == _as_value("7.0") == _as_value("7"), _as_value("7a")
    (True, None)
    """
    match = _PADDED_NUMBER.fullmatch(text or "")
    return match and _VALUE_MARK + match[1] + match[2]
