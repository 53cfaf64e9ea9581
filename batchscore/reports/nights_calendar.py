"""The nights of a trend as a calendar: one row per weekday, one column per week, one square per night."""

from __future__ import annotations

import calendar
import dataclasses
import datetime
from collections.abc import Mapping, Sequence

from batchscore.reports.formats import day, text_of
from batchscore.reports.nights import Night, State

_DAY = datetime.timedelta(days=1)
STATE_WORDS = {
    State.USUAL: "gates passed",
    State.UNGATED: "no gate set",
    State.SKIPPED: "nothing to score",
    State.UNUSUAL: "out of the ordinary",
    State.EMPTY: "no row scored",
    State.GATE: "gate failed",
    State.ROWS: "rows failed",
    State.REFUSED: "refused",
    State.UNFINISHED: "unfinished",
    State.NO_INPUT: "no input",
    State.MISSING: "no run",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Day:
    """One square of the calendar."""

    row: int
    column: int
    state: State
    title: str
    link: str


@dataclasses.dataclass(frozen=True, slots=True)
class Year:
    """The squares of one year: one column per week, one row per weekday below the row of month names."""

    number: int
    months: list[tuple[int, str]]
    """Column and name of each month that begins among the squares."""
    days: list[Day]


def years(nights: Sequence[Night], links: Mapping[str, str]) -> list[Year]:
    """The calendar of all nights; if a day has several, the worst is shown."""
    if not nights:
        return []
    worst: dict[datetime.date, Night] = {}
    order = list(State)
    for night in nights:
        if night.date not in worst or order.index(night.state) < order.index(worst[night.date].state):
            worst[night.date] = night
    spans = []
    for year in range(nights[0].date.year, nights[-1].date.year + 1):
        first = max(nights[0].date, datetime.date(year, 1, 1))
        last = min(nights[-1].date, datetime.date(year, 12, 31))
        spans.append([first + k * _DAY for k in range((last - first).days + 1)])
    start = min(_week(dates[0]) for dates in spans) - 1
    return [
        Year(
            dates[0].year,
            [(_week(d) - start, calendar.month_abbr[d.month]) for d in dates if d.day == 1],
            [_day(worst[date], _week(date) - start, links) for date in dates],
        )
        for dates in spans
    ]


def _week(date: datetime.date) -> int:
    """The week of the year, from 0; weeks start on Monday."""
    return (date.timetuple().tm_yday - 1 + datetime.date(date.year, 1, 1).weekday()) // 7


def weeks(years: Sequence[Year]) -> int:
    """Number of columns of the calendar."""
    return max((day.column for year in years for day in year.days), default=1)


def _day(night: Night, column: int, links: Mapping[str, str]) -> Day:
    metric = night.headline
    tail = f", {text_of(metric.unit, night.values[metric.name].value)}" if metric else ""
    title = f"{day(night.date)}: {STATE_WORDS[night.state]}{tail}"
    return Day(night.date.isoweekday() + 1, column, night.state, title, links.get(night.path, ""))
