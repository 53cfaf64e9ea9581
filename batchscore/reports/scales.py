"""Axes of the charts: where a number lies, and ticks at round numbers whose labels do not touch."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Callable, Iterator, Sequence

FONT = 12
"""Pixels of the labels, in a chart as wide as :data:`batchscore.reports.marks.WIDTH`."""
_MOST = 7
"""Steps between ticks."""
_GAP = 8
"""Pixels between labels at least."""
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_EQUAL = 1e-9
"""Ends that differ by less than this, relative to their size, are one number."""
_LEAST = 1e-290
"""The same for ends near zero: far smaller numbers have no digits."""

LabelOf = Callable[[float, float], str]
"""The label of a tick, given the step between ticks."""


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """From ``low`` to ``high``, with labelled ticks in between."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    title: str = ""

    def share(self, value: float) -> float:
        """How far ``value`` is on the way from ``low`` (0) to ``high`` (1)."""
        return (value - self.low) / (self.high - self.low)


def text_width(text: str, size: float = FONT) -> float:
    """Pixels of a text of digits at most, in the widest of the usual fonts."""
    return sum(0.95 if char in "%MW" else 0.66 for char in text) * size


def share_label(value: float, step: float) -> str:
    """A share as a percentage.

    >>> share_label(0.9, 0.1), share_label(0.995, 0.005), share_label(1.0, 0.005)
    ('90%', '99.5%', '100%')
    """
    return f"{_fixed(value * 100, step * 100)}%"


def number_label(value: float, step: float) -> str:
    """A number, thousands with a letter.

    >>> number_label(1500, 500), number_label(-0.5, 0.5), number_label(2e-9, 1e-9), number_label(2e6, 1e6)
    ('1.5k', '−0.5', '2e-09', '2M')
    """  # noqa: RUF002
    unit, letter = next((each for each in _UNITS if abs(value) >= each[0]), (1.0, ""))
    text = _fixed(abs(value) / unit, step / unit) + letter
    return f"−{text}" if value < 0 else text  # noqa: RUF001


def _fixed(value: float, step: float) -> str:
    """As many decimals as tell neighbours apart, without zeros at the end; far from 1 with an exponent."""
    decimals = max(0, -math.floor(math.log10(step) + _EQUAL))
    if abs(value) >= 1e15 or decimals > 6:
        return f"{value:.{max(1, math.ceil(math.log10(max(abs(value) / step, 1))) + 1)}g}"
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def axis(
    low: float, high: float, title: str = "", label: LabelOf = number_label, *, nice: bool = False
) -> Axis:
    """An axis for the numbers from ``low`` to ``high``; a ``nice`` one begins and ends at a tick."""
    if high - low <= max(_EQUAL * max(abs(low), abs(high)), _LEAST):
        low, high = _widened(low, label)
    step = _step(high - low, _MOST)
    if nice:
        low, high = math.floor(low / step + _EQUAL) * step, math.ceil(high / step - _EQUAL) * step
    return Axis(low, high, tuple((value, label(value, step)) for value in _multiples(step, low, high)), title)


def _widened(value: float, label: LabelOf) -> tuple[float, float]:
    """Two ends around a single number; those of a share are shares."""
    half = abs(value) / 10 or 0.5
    low, high = value - half, value + half
    return (max(low, 0.0), min(high, 1.0)) if label is share_label else (low, high)


def across(low: float, high: float, title: str, label: LabelOf = number_label, *, room: float = 320) -> Axis:
    """The same for a horizontal axis of ``room`` pixels: as many ticks as there is room for labels beside each other."""
    found = axis(low, high, title, label)
    for most in range(_MOST, 0, -1):
        step = _step(found.high - found.low, most)
        ticks = [(value, label(value, step)) for value in _multiples(step, found.low, found.high)]
        found = dataclasses.replace(found, ticks=tuple(ticks))
        if _fit(found, room):
            break
    return found


def counts(most: float, title: str = "rows") -> Axis:
    """A vertical axis for counts, from zero; no tick is between whole numbers."""
    step = max(1.0, _step(max(most, 1), _MOST))
    high = math.ceil(most / step - _EQUAL) * step or step
    return Axis(0, high, tuple((v, number_label(v, step)) for v in _multiples(step, 0, high)), title)


def days(first: datetime.date, last: datetime.date, room: float = 320) -> Axis:
    """From the morning of the first day to the evening of the last; a day is its ordinal, at noon."""
    low, high = first.toordinal() - 0.5, last.toordinal() + 0.5
    found = Axis(low, high, ())
    for dates, name in _day_steps(first, last):
        if len(dates) <= _MOST + 1:
            labels = (_day_label(date, name) for date in dates)
            found = Axis(
                low, high, tuple(zip((float(date.toordinal()) for date in dates), labels, strict=True))
            )
            if _fit(found, room):
                break
    return found


def _day_steps(first: datetime.date, last: datetime.date) -> Iterator[tuple[list[datetime.date], str]]:
    """Days to be labelled, from every one to every hundredth year, and how; weeks begin on Mondays."""
    for step in (1, 2, 3, 4, 7, 14):
        start = first.toordinal() + (1 - first.toordinal()) % step
        yield [datetime.date.fromordinal(n) for n in range(start, last.toordinal() + 1, step)], "day"
    years = range(first.year, last.year + 1)
    starts = (datetime.date(year, month, 1) for year in years for month in range(1, 13))
    months = [date for date in starts if first <= date <= last]
    for step in (1, 3, 6):
        yield [date for date in months if (date.month - 1) % step == 0], "month"
    for step in (1, 2, 5, 10, 20, 50, 100):
        yield [date for date in months if date.month == 1 and date.year % step == 0], "month"


def _day_label(date: datetime.date, name: str) -> str:
    """``9 Nov``; of months ``Nov``, and the year for its first."""
    if name == "day":
        return f"{date.day} {date:%b}"
    return f"{date:%b}" if date.month > 1 else str(date.year)


def _step(span: float, most: int) -> float:
    """The smallest of 1, 2 or 5 times a power of ten that goes at most ``most`` times into ``span``."""
    power = math.floor(math.log10(span / most))
    return next(
        step
        for exponent in (power, power + 1)
        for digit in (1, 2, 5)
        if span <= most * (step := float(f"{digit}e{exponent}")) * (1 + _EQUAL)
    )


def _multiples(step: float, low: float, high: float) -> Sequence[float]:
    """Those within the ends, each the float nearest to it."""
    first, last = math.ceil(low / step - _EQUAL), math.floor(high / step + _EQUAL)
    digit, exponent = (int(part) for part in f"{step:.0e}".split("e"))
    return [float(f"{k * digit}e{exponent}") for k in range(first, last + 1)]


def _fit(found: Axis, room: float) -> bool:
    """Whether no label touches the next one, on an axis of ``room`` pixels."""
    pairs = zip(found.ticks, found.ticks[1:], strict=False)
    return all(
        room * (found.share(right) - found.share(left)) >= (text_width(a) + text_width(b)) / 2 + _GAP
        for (left, a), (right, b) in pairs
    )
