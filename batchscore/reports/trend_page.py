"""The nights in a folder as one page, ``report.html``, with the same numbers for programs in ``report.json`` beside it."""

from __future__ import annotations

import calendar
import dataclasses
import datetime
import os
import statistics
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchscore.errors import NoInputError, OutputError, UsageError, printable
from batchscore.reports.charts import draw
from batchscore.reports.formats import day, number, percent, rows, shown
from batchscore.reports.nights import METRICS, Metric, Night, State, Stretch, is_run, read_nights, stretches
from batchscore.reports.pages import render
from batchscore.reports.run_charts import Figure
from batchscore.reports.tables import Cell, Table
from batchscore.reports.verdict import Answer, Level, Verdict
from batchscore.storage import make_folder, to_json, write_bytes

_RECENT = 14
"""Nights in the table that is open from the start."""
_MOST_DOTS = 70
"""Up to this many nights, each is a dot."""
_MOST_STRETCHES = 3
_DAY = datetime.timedelta(days=1)
_WORDS = {
    State.USUAL: "as usual",
    State.UNUSUAL: "out of the ordinary",
    State.GATE: "gate failed",
    State.ROWS: "rows failed",
    State.UNFINISHED: "unfinished",
    State.MISSING: "no run",
}
_TALLY = _WORDS | {
    State.GATE: "with a failed gate",
    State.ROWS: "with failed rows",
    State.MISSING: "without a run",
}
_LEVELS = {State.USUAL: Level.GOOD, State.UNUSUAL: Level.LOOK}


@dataclasses.dataclass(frozen=True, slots=True)
class Trend:
    """What :func:`write_trend` wrote."""

    page: Path
    data: Path
    nights: int
    headline: str


def write_trend(folder: Path, output: Path | None = None) -> Trend:
    """Write the page of the nights below ``folder`` and its JSON beside it.

    ``output`` names the page; without it that is ``folder/report.html``.

    Raises:
        NoInputError: ``folder`` is not there, or no run is below it.
        UsageError: the page would be written over a run's own.
    """
    page = output or folder / "report.html"
    data = page.with_suffix(".json")
    if not folder.is_dir():
        raise NoInputError(f"There is no folder {printable(folder)}. Name the folder that holds the runs.")
    if is_run(page.parent):
        raise UsageError(
            f"{printable(page.parent)} is itself a run. Name the folder above it, or another place with --output."
        )
    if page == data or page.is_dir():
        raise OutputError(
            f"--output {printable(page)} is no name for a page. Name a file such as report.html."
        )
    nights = read_nights(folder)
    if not nights:
        raise NoInputError(
            f"No run is below {printable(folder)}. Name the folder that holds the folders of runs."
        )
    make_folder(page.parent)
    verdict = judge(nights)
    write_bytes(data, to_json(trend_json(nights, verdict.headline)))
    write_bytes(page, render_trend(nights, _links(nights, folder, page.parent)).encode())
    return Trend(page, data, sum(night.state is not State.MISSING for night in nights), verdict.headline)


def trend_json(nights: Sequence[Night], headline: str) -> dict[str, Any]:
    """``headline``, ``first``, ``last``, ``states`` (nights of each), ``stretches`` worth a look, and every night."""
    return {
        "headline": headline,
        "first": nights[0].date.isoformat(),
        "last": nights[-1].date.isoformat(),
        "states": {state.value: sum(night.state is state for night in nights) for state in State},
        "stretches": [stretch.to_json() for stretch in stretches(nights)],
        "nights": [night.to_json() for night in nights],
    }


def render_trend(nights: Sequence[Night], links: Mapping[str, str]) -> str:
    """The page of ``nights``; ``links`` has the address of each one's page by its path."""
    lines = _lines(nights, links)
    bad = [line for line in lines if line[1].mark != "good"]
    years = _years(nights, links)
    return render(
        "trend_page.html",
        title=f"{len(nights)} nights",
        verdict=judge(nights),
        period=f"{day(nights[0].date)} to {day(nights[-1].date)}",
        years=years,
        weeks=_weeks(years),
        legend=[
            (state.value, words) for state, words in _WORDS.items() if any(n.state is state for n in nights)
        ],
        figures=list(_figures(nights)),
        recent=_table(lines[-_RECENT:]),
        bad=_table(bad) if bad else None,
        all=_table(lines) if len(lines) > _RECENT else None,
    )


def judge(nights: Sequence[Night]) -> Verdict:
    """What the last night and those before it come to."""
    last = nights[-1]
    level = _LEVELS.get(last.state, Level.BAD)
    bad = stretches(nights)
    answers = (
        Answer("The last night", _last_night(last), level),
        Answer("Worth a look", _worst(bad, nights), Level.LOOK if bad else Level.GOOD),
        Answer("All nights", _tally(nights)),
    )
    return Verdict(level, f"{day(last.date)}: {_last_words(last)}.", answers)


def _last_words(night: Night) -> str:
    if night.state is State.GATE:
        names = ", ".join(shown(metric) for metric in night.failed_gates)
        return f"a quality gate failed ({names})"
    if night.state is State.UNUSUAL:
        return f"out of the ordinary in {', '.join(_metric(name).words for name in night.unusual)}"
    if night.state is State.UNFINISHED:
        return "the run did not finish"
    return "it ran as usual" if night.state is State.USUAL else _WORDS[night.state]


def _last_night(night: Night) -> str:
    if not night.values:
        return f"{shown(night.path)}: {shown(night.problem, 200)}."
    counts = night.counts
    text = f"{counts['scored']:,} of {rows(counts['read'])} scored"
    for name in ("accuracy", "expected_accuracy"):
        if name in night.values:
            value = night.values[name]
            return f"{text}; {_metric(name).words} {percent(value.value)} ({percent(value.low)} to {percent(value.high)})."
    return f"{text}."


def _worst(bad: Sequence[Stretch], nights: Sequence[Night]) -> str:
    """The longest stretches, the latest of equal ones first, each with what was worst in it."""
    if not bad:
        return "Nothing: every night ran as usual."
    chosen = sorted(bad, key=lambda stretch: (stretch.nights, stretch.last), reverse=True)[:_MOST_STRETCHES]
    texts = [f"{_dates(stretch)} ({_why(stretch, nights)})" for stretch in chosen]
    more = len(bad) - len(chosen)
    return f"{'; '.join(texts)}{f'; and {more} more' if more else ''}."


def _dates(stretch: Stretch) -> str:
    if stretch.first == stretch.last:
        return day(stretch.first)
    is_one_month = (stretch.first.year, stretch.first.month) == (stretch.last.year, stretch.last.month)
    first = str(stretch.first.day) if is_one_month else day(stretch.first)
    return f"{first} to {day(stretch.last)}"


def _why(stretch: Stretch, nights: Sequence[Night]) -> str:
    """The first metric that got out of the ordinary, at its worst and as usual; else what became of the nights."""
    inside = [night for night in nights if stretch.first <= night.date <= stretch.last]
    usual = [night for night in nights if night.state is State.USUAL]
    for metric in METRICS:
        values = [
            n.values[metric.name].value
            for n in inside
            if metric.name in (*n.unusual, *n.failed_gates) and metric.name in n.values
        ]
        habit = [n.values[metric.name].value for n in usual if metric.name in n.values]
        if values and metric.worse:
            worst = max(values) if metric.worse > 0 else min(values)
            tail = f", usually {_say(metric, statistics.median(habit))}" if habit else ""
            if not any(
                metric.name in n.unusual for n in inside
            ):  # as usual, but not good enough for its gate
                tail = f", its gate {_say(metric, next(n.limits[metric.name] for n in inside if metric.name in n.limits))}"
            return f"{metric.words} {_say(metric, worst)}{tail}"
    return ", ".join(dict.fromkeys(_WORDS[night.state] for night in inside if night.state.is_bad))


def _say(metric: Metric, value: float | None) -> str:
    if metric.is_share:
        return percent(value)
    return number(round(value) if metric.worse == 0 and value is not None else value)


def _tally(nights: Sequence[Night]) -> str:
    tally = {words: sum(night.state is state for night in nights) for state, words in _TALLY.items()}
    return ", ".join(f"{count:,} {words}" for words, count in tally.items() if count) + "."


def _metric(name: str) -> Metric:
    return next(metric for metric in METRICS if metric.name == name)


def _links(nights: Sequence[Night], folder: Path, start: Path) -> dict[str, str]:
    """The address of each finished night's page, relative to the folder ``start`` and quoted."""
    base = os.path.relpath(folder.resolve(), start.resolve())
    return {
        night.path: urllib.parse.quote(os.fsencode(os.path.normpath(f"{base}/{night.path}/report.html")))
        for night in nights
        if night.values
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
    """The squares of one year: a column a week, a row a weekday below the row of month names."""

    number: int
    months: list[tuple[int, str]]
    """Column and name of each month that begins among the squares."""
    days: list[Day]


def _years(nights: Sequence[Night], links: Mapping[str, str]) -> list[Year]:
    """The calendar of all nights; of several on one day the worst is shown."""
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


def _weeks(years: Sequence[Year]) -> int:
    """How many columns the calendar has."""
    return max(day.column for year in years for day in year.days)


def _day(night: Night, column: int, links: Mapping[str, str]) -> Day:
    value = night.values.get("accuracy") or night.values.get("expected_accuracy")
    tail = f", {percent(value.value)}" if value else ""
    title = f"{day(night.date)}: {_WORDS[night.state]}{tail}"
    return Day(night.date.isoweekday() + 1, column, night.state, title, links.get(night.path, ""))


def _figures(nights: Sequence[Night]) -> Iterator[Figure]:
    """A chart of each metric that at least one night has."""
    for metric in METRICS:
        followed = [night for night in nights if metric.name in night.values]
        if metric.name == "expected_accuracy" and any("accuracy" in night.values for night in nights):
            continue  # drawn beside the truth
        if followed:
            yield _figure(metric, nights, followed)


def _figure(metric: Metric, nights: Sequence[Night], followed: Sequence[Night]) -> Figure:
    other = "expected_accuracy" if metric.name == "accuracy" else ""
    lines = [_point(night, metric.name, other) for night in nights]
    usual = statistics.median(night.values[metric.name].value for night in followed)
    latest, low, high = followed[-1], *_range(metric, followed)
    caption = f"Last {_say(metric, latest.values[metric.name].value)}, usually {_say(metric, usual)}, from {low} to {high}."
    limits = [night.limits[metric.name] for night in followed if metric.name in night.limits]
    caption += f" Its gate (dashed): {_say(metric, limits[-1])}." if limits else ""
    caption += (
        " Dotted: expected accuracy, an estimate." if other and any(line["other"] for line in lines) else ""
    )
    data = {
        "nights": lines,
        "dots": [dot for night in followed if (dot := _dot(night, metric, len(followed)))],
        "gaps": [{"t": _at(n), "kind": n.state.value} for n in nights if not n.values],
        "stretches": [
            {"from": _noon(s.first) - _HALF_DAY, "to": _noon(s.last) + _HALF_DAY}
            for s in stretches(nights)
            if s.nights > 1
        ],
    }
    params = {
        "first": _noon(nights[0].date) - _HALF_DAY,
        "last": _noon(nights[-1].date) + _HALF_DAY,
        "from_zero": int(metric.worse >= 0),
    }
    title = metric.words[0].upper() + metric.words[1:]
    svg = draw("trend_share" if metric.is_share else "trend_number", title, caption, data, params)
    return Figure(title, caption, svg)


_HALF_DAY = 12 * 3600 * 1000


def _range(metric: Metric, followed: Sequence[Night]) -> tuple[str, str]:
    values = [night.values[metric.name].value for night in followed]
    return _say(metric, min(values)), _say(metric, max(values))


def _point(night: Night, name: str, other: str) -> dict[str, Any]:
    value, estimate = night.values.get(name), night.values.get(other)
    return {
        "t": _at(night),
        "value": value.value if value else None,
        "low": value.low if value else None,
        "high": value.high if value else None,
        "other": estimate.value if estimate else None,
        "limit": night.limits.get(name),
    }


def _dot(night: Night, metric: Metric, nights: int) -> dict[str, Any] | None:
    is_bad = metric.name in (*night.unusual, *night.failed_gates)
    if not is_bad and nights > _MOST_DOTS:
        return None
    return {"t": _at(night), "value": night.values[metric.name].value, "kind": "bad" if is_bad else "usual"}


def _at(night: Night) -> int:
    return _noon(night.date)


def _noon(date: datetime.date) -> int:
    """Milliseconds UTC of the middle of a day."""
    return (date - datetime.date(1970, 1, 1)).days * 2 * _HALF_DAY + _HALF_DAY


_COLUMNS = ("accuracy", "expected_accuracy", "ece", "drift", "rows", "rows_per_second")


def _lines(
    nights: Sequence[Night], links: Mapping[str, str]
) -> list[tuple[Cell, Cell, Cell, dict[str, Cell]]]:
    """Of each night: its date, what became of it, why, and its numbers by name."""
    return [
        (
            Cell(night.date.isoformat(), link=links.get(night.path, "")),
            Cell(_WORDS[night.state], _LEVELS.get(night.state, Level.BAD).value),
            Cell(_reason(night)),
            {
                name: Cell(
                    _say(_metric(name), night.values[name].value),
                    "bad" if name in (*night.unusual, *night.failed_gates) else "",
                )
                for name in _COLUMNS
                if name in night.values
            },
        )
        for night in nights
    ]


def _reason(night: Night) -> str:
    names = dict.fromkeys([*night.failed_gates, *night.unusual])
    return ", ".join(shown(name.replace("_", " "), 40) for name in names) or shown(night.problem, 60)


def _table(lines: Sequence[tuple[Cell, Cell, Cell, dict[str, Cell]]]) -> Table:
    """The latest night first; columns that no night has are left out."""
    names = [name for name in _COLUMNS if any(name in numbers for *_, numbers in lines)]
    has_reasons = any(reason.text for _, _, reason, _ in lines)
    return Table(
        ["night", "", *(["what"] if has_reasons else []), *(_metric(name).words for name in names)],
        [
            [
                date,
                state,
                *([reason] if has_reasons else []),
                *(numbers.get(name, Cell("")) for name in names),
            ]
            for date, state, reason, numbers in reversed(lines)
        ],
        words=3 if has_reasons else 2,
    )
