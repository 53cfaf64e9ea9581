"""Given numbers, for models with one output."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchscore.errors import UsageError, printable
from batchscore.model.labels import NO_LABEL, OTHERS, Meaning, counted, is_missing, label_key, shown_value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NUMBERS, WHOLE_NUMBERS = "numbers", "whole numbers"
"""How values are read: as numbers, all of them whole or not."""
NO_NUMBER = math.inf
"""``given`` of a row whose value is no number."""
_MOST, _LISTED, _SHOWN = 1000, 100, 8


def number_map(label_map: Mapping[str, str]) -> dict[str, float]:
    """``--label-map``: what values are as numbers, by their keys; NaN if they are none (``n/a=``).

    Raises:
        UsageError: a value is mapped to something else than a number.
    """
    found: dict[str, float] = {}
    for value, text in label_map.items():
        number = math.nan if text == NO_LABEL else number_of(text, {})
        if number == NO_NUMBER or not value:
            said = f"{value}={text}" if value else text
            raise UsageError(
                f"--label-map {printable(said)}: this model gives numbers, so that a value means a number (good=4) or nothing (n/a=)."
            )
        found[label_key(value)] = number
    return found


def number_of(value: Any, mapped: Mapping[str, float]) -> float:
    """A given value as a number: NaN for null, NaN and blank, ``NO_NUMBER`` for what is none (infinity included).

    >>> [number_of(value, {"good": 4.0}) for value in ("3.5", 2, " Good ", "3,5", "inf", "")]
    [3.5, 2.0, 4.0, inf, inf, nan]
    """
    if is_missing(value):
        return math.nan
    if mapped and (key := label_key(value)) in mapped:
        return mapped[key]
    if isinstance(value, str) and "_" in value:  # float() takes 1_000
        return NO_NUMBER
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return NO_NUMBER
    if isinstance(value, str) and math.isnan(number):
        return math.nan
    return number if math.isfinite(number) else NO_NUMBER


class NumbersReader:
    """Reads numbers."""

    def __init__(self, mapped: Mapping[str, float]) -> None:
        self._mapped = mapped

    def indices(self, labels: Sequence[Any] | None, rows: int) -> NDArray[np.float64]:
        """Float64 ``[rows]``: NaN is unlabelled, +inf is no number."""
        import numpy as np

        if labels is None:
            return np.full(rows, np.nan)
        found = (number_of(value, self._mapped) for value in labels)
        return np.fromiter(found, dtype=np.float64, count=rows)


class NumbersSurvey:
    """Counts the numbers in a column of one file, and what is none."""

    counts_from_0 = False

    def __init__(self, mapped: Mapping[str, float]) -> None:
        self._mapped = mapped
        self._numbers = 0
        self._are_whole = True
        self._unknown: collections.Counter[str] = collections.Counter()

    def update(self, values: Iterable[Any]) -> None:
        """Count some values."""
        self.count(counted(values))

    def count(self, values: Iterable[tuple[Any, int]]) -> None:
        """Count values of so many rows each."""
        for value, rows in values:
            number = number_of(value, self._mapped)
            if number == NO_NUMBER:
                self._note_unknown(value, rows)
            elif not math.isnan(number):
                self._numbers += rows
                self._are_whole = self._are_whole and number.is_integer()

    def _note_unknown(self, value: Any, rows: int) -> None:
        key = printable(str(value).strip())[:100]
        self._unknown[key if key in self._unknown or len(self._unknown) < _MOST else OTHERS] += rows

    def meaning(self, *, counts_from_0: bool = False) -> Meaning | None:  # noqa: ARG002
        """As numbers; None if no value is one."""
        if self._unknown and not self._numbers:
            return None
        reading = WHOLE_NUMBERS if self._are_whole else NUMBERS
        values = {value: f"{number:g}" for value, number in self._mapped.items() if not math.isnan(number)}
        none = {value: NO_LABEL for value, number in self._mapped.items() if math.isnan(number)}
        return Meaning(reading, self._numbers, dict(list((values | none).items())[:_LISTED]), self._listed())

    def _listed(self) -> dict[str, int]:
        most = sorted(self._unknown.items(), key=lambda pair: (-pair[1], pair[0]))
        listed = dict(sorted([pair for pair in most if pair[0] != OTHERS][:_LISTED]))
        rest = self._unknown.total() - sum(listed.values())
        return listed | ({OTHERS: rest} if rest else {})

    def problem(self, column: str) -> str:
        """Which values are no numbers."""
        shown = ", ".join(shown_value(value) for value in sorted(self._unknown)[:_SHOWN])
        more = f" and {len(self._unknown) - _SHOWN} more" if len(self._unknown) > _SHOWN else ""
        return (
            f"none of the values in its label column {printable(column)} ({shown}{more}) is a number, and this model gives "
            "numbers. Say what they mean: --label-map GIVEN=NUMBER; or name another --label-column; or score without labels: "
            "--no-labels"
        )
