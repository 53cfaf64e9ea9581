"""Nights as one page, and the same numbers as JSON."""

from __future__ import annotations

import collections
import datetime
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batchscore.evaluation.gates import Direction
from batchscore.evaluation.metrics import ESTIMATES, FOLLOWED, HEADLINES, Better, Metric
from batchscore.records import Task
from batchscore.reports import plots
from batchscore.reports.answers import Answer, Level, Link, Verdict
from batchscore.reports.charts import draw
from batchscore.reports.formats import day, moment, rows, shown, text_of
from batchscore.reports.night_reasons import followed, metric_text, reason_of
from batchscore.reports.nights import Night, Nights, State, Stretch, stretches
from batchscore.reports.nights_calendar import STATE_WORDS, weeks, years
from batchscore.reports.pages import render
from batchscore.reports.run_charts import Figure
from batchscore.reports.tables import Cell, Table

_RECENT = 31
"""Nights in the table that is open at first."""
_MAX_DOTS = 70
"""Up to this many nights, each is a dot."""
_MOST_STRETCHES = 3
_MAX_LINES = 1000
"""Nights in the longest table of the page."""
_MOST_NAMED = 3
_DAY = datetime.timedelta(days=1)
_TALLY = STATE_WORDS | {
    State.USUAL: "with gates passed",
    State.UNGATED: "without a gate",
    State.SKIPPED: "with nothing to score",
    State.EMPTY: "without a scored row",
    State.GATE: "with a failed gate",
    State.ROWS: "with failed rows",
    State.NO_INPUT: "without input",
    State.MISSING: "without a run",
}
_LEVELS = {
    State.USUAL: Level.GOOD,
    State.UNGATED: Level.PLAIN,
    State.SKIPPED: Level.PLAIN,
    State.UNUSUAL: Level.LOOK,
    State.EMPTY: Level.LOOK,
}


def trend_json(nights: Nights) -> dict[str, Any]:
    """Everything about the nights as JSON values.

    ``first`` and ``last`` of those shown, ``until``, ``states`` (number of nights in each), ``stretches`` worth a look,
    ``gaps`` of more than a hundred days, every night, and the runs that are not shown: ``earlier`` and ``misdated``.
    """
    shown = nights.shown
    return {
        "first": shown[0].date.isoformat() if shown else None,
        "last": shown[-1].date.isoformat() if shown else None,
        "until": nights.until.isoformat(),
        "states": {state.value: nights.count(state) for state in State},
        "stretches": [stretch.to_json() for stretch in nights.stretches],
        "gaps": [gap.to_json() for gap in nights.gaps],
        "nights": [night.to_json() | {"reason": reason_of(night)} for night in shown],
        "earlier": [night.to_json() for night in nights.earlier],
        "misdated": [night.to_json() for night in nights.misdated],
    }


def render_trend(
    nights: Nights, links: Mapping[str, str], written: str, files: Mapping[str, str] | None = None
) -> str:
    """The page of ``nights``.

    ``links``: path of a night → URL of its page; ``written``: now as ISO time; ``files``: name → URL of the files beside the page.
    """
    shown = nights.shown
    lines = _lines(shown, links)
    bad = [line for line, night in zip(lines, shown, strict=True) if night.state.is_bad]
    squares = years(shown, links)
    return render(
        "trend_page.html",
        files=files,
        beside=[*(files or {}).items()],
        title=f"{len(shown):,} nights",
        verdict=judge(nights),
        period=f"{day(shown[0].date)} to {day(shown[-1].date)}" if shown else "",
        written=moment(written),
        years=squares,
        weeks=weeks(squares),
        legend=[
            (state.value, words)
            for state, words in STATE_WORDS.items()
            if any(n.state is state for n in shown)
        ],
        gaps=[
            f"{_dates(gap)}: no run for {gap.nights:,} nights, which are not drawn." for gap in nights.gaps
        ],
        figures=list(_figures(shown)),
        recent=_table(lines[-_RECENT:]),
        bad=_table(bad) if bad else None,
        all=_table(lines) if len(lines) > _RECENT else None,
    )


_TO_BAD = Link("bad", "See those nights")


def judge(nights: Nights) -> Verdict:
    """The verdict on the last night and those before it; days since then without a run come first."""
    last, missing = nights.last, nights.missing_at_the_end
    if last is None:
        return Verdict(Level.BAD, f"There is no run up to {day(nights.until)}.", tuple(_not_shown(nights)))
    level = _LEVELS.get(last.state, Level.BAD)
    bad = nights.stretches
    answers = [
        Answer(
            "The last night that left anything" if missing else "The last night", _last_night(last), level
        ),
        Answer("Worth a look", _worst(bad, nights.shown), Level.LOOK if bad else level, (_TO_BAD,)),
        Answer("All nights", _tally(nights)),
        *_gate_advice(nights.shown),
        *_several_tasks(nights.shown),
        *_not_shown(nights),
    ]
    headline = f"{day(last.date)}: {_last_words(last)}."
    if missing == 1 and nights.is_open:
        level = max(level, Level.LOOK, key=list(Level).index)
        headline = f"No run yet on {day(nights.until)}. The last one, {headline}"
    elif missing:
        level = Level.BAD
        headline = (
            f"No run since {day(last.date)}: {missing:,} night{' is' if missing == 1 else 's are'} missing."
        )
    elif (before := _nights_in_same_state(nights.shown)) and last.state.is_bad:
        headline = f"{headline[:-1]}, as on the {f'{before} nights' if before > 1 else 'night'} before."
    return Verdict(level, headline, tuple(answers))


def _nights_in_same_state(nights: Sequence[Night]) -> int:
    """How many nights in a row before the last have its state."""
    states = [night.state for night in reversed(nights)]
    return next((k for k, state in enumerate(states) if state is not states[0]), len(states)) - 1


def _gate_advice(nights: Sequence[Night]) -> Iterator[Answer]:
    """How to set a gate, if the last run had none."""
    last = next((night for night in reversed(nights) if night.values), None)
    if last is not None and last.state is State.UNGATED:
        yield Answer(
            "Is that good enough?",
            "Nobody has said what is: no gate on quality is set. Set one in the nightly command: "
            f"{Direction.of(HEADLINES[last.task].quality).option} {HEADLINES[last.task].quality.name}=X.",
        )


def _several_tasks(nights: Sequence[Night]) -> Iterator[Answer]:
    """A warning if the runs are of models of different kinds."""
    count = collections.Counter(night.task for night in nights if night.values)
    if len(count) > 1:
        kinds = ", ".join(f"{rows_of} of models with {_KINDS[task]}" for task, rows_of in count.most_common())
        text = f"Yes: {kinds}. What has the same name is not compared between them; better keep them in folders of their own."
        yield Answer("Are these different models?", text, Level.LOOK)


_KINDS = {
    Task.SINGLE_LABEL: "one label a text",
    Task.MULTI_LABEL: "several labels a text",
    Task.REGRESSION: "a number a text",
}


def _not_shown(nights: Nights) -> Iterator[Answer]:
    """Runs that the calendar leaves out, and why."""
    if misdated := nights.misdated:
        named = [
            f"{shown(night.path or '.')} ({night.date.isoformat()})" for night in misdated[-_MOST_NAMED:]
        ]
        more = f" and {len(misdated) - len(named):,} more" if len(misdated) > len(named) else ""
        text = f"{', '.join(reversed(named))}{more}: after {day(nights.until)}, or before 1970. They are not counted."
        yield Answer("Runs with a date that cannot be meant", text, Level.LOOK)
    if earlier := nights.earlier:
        first, last = (day(night.date) for night in (earlier[0], earlier[-1]))
        period = first if first == last else f"{first} to {last}"
        yield Answer("Earlier runs", f"{len(earlier):,}, {period}: in report.json, and not drawn here.")


def _last_words(night: Night) -> str:
    if night.state is State.GATE:
        names = ", ".join(shown(metric) for metric in night.failed_gates)
        return f"a quality gate failed ({names})"
    if night.state is State.UNUSUAL:
        return f"out of the ordinary in {', '.join(followed(name).words for name in night.unusual)}"
    if night.state in _ENDS:
        return _ENDS[night.state]
    usual = "it ran as usual" if night.is_compared else "it ran"
    return (
        f"{usual} and passed its gates"
        if night.state is State.USUAL
        else f"{usual}; no gate on quality is set"
    )


_ENDS = {
    State.UNFINISHED: "the run did not finish",
    State.REFUSED: "the run was refused",
    State.NO_INPUT: "there was no input",
    State.MISSING: "no run",
    State.ROWS: "rows could not be scored",
    State.EMPTY: "it ran, but not one row was scored",
    State.SKIPPED: "there was nothing to score",
}


def _last_night(night: Night) -> str:
    if not night.values:
        return f"{shown(night.path or '.')}: {reason_of(night)}."
    counts = night.counts
    text = f"{counts['scored']:,} of {rows(counts['read'])} scored"
    if counts.get("unknown_label"):
        text += f", {counts['unknown_label']:,} with a label that the model does not know"
    metric = night.headline
    if metric is None:
        return f"{text}."
    value = night.values[metric.name]
    told = f"{text}; {metric.words} {text_of(metric.unit, value.value)}"
    if value.low is None or value.high is None:
        return f"{told}."
    return f"{told} ({text_of(metric.unit, value.low)} to {text_of(metric.unit, value.high)})."


def _worst(bad: Sequence[Stretch], nights: Sequence[Night]) -> str:
    """The longest stretches, the latest of equal ones first, each with its reason."""
    if not bad:
        is_gated = all(night.state in {State.USUAL, State.SKIPPED} for night in nights)
        return (
            "Nothing: every night passed its gates."
            if is_gated
            else "Nothing that could be seen without a gate."
        )
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
    """The first unusual metric, with its worst and its usual value; else the states of the nights."""
    inside = [night for night in nights if stretch.first <= night.date <= stretch.last]
    usual = [night for night in nights if not night.state.is_bad]
    for metric in FOLLOWED:
        values = [
            n.values[metric.name].value
            for n in inside
            if metric.name in (*n.unusual, *n.failed_gates) and metric.name in n.values
        ]
        habit = [n.values[metric.name].value for n in usual if metric.name in n.values]
        if values and metric.better is not Better.NEITHER:
            worst = min(values) if metric.better is Better.MORE else max(values)
            tail = f", usually {metric_text(metric, statistics.median(habit))}" if habit else ""
            if not any(metric.name in n.unusual for n in inside):  # a usual value that fails its gate
                tail = f", its gate {metric_text(metric, next(n.limits[metric.name] for n in inside if metric.name in n.limits))}"
            return f"{metric.words} {metric_text(metric, worst)}{tail}"
    found = dict.fromkeys(STATE_WORDS[night.state] for night in inside if night.state.is_bad)
    return ", ".join(found) or STATE_WORDS[State.MISSING]  # the days of a gap are not nights


def _tally(nights: Nights) -> str:
    tally = {words: nights.count(state) for state, words in _TALLY.items()}
    return ", ".join(f"{count:,} {words}" for words, count in tally.items() if count) + "."


def _figures(nights: Sequence[Night]) -> Iterator[Figure]:
    """A chart for each metric that at least one night has."""
    for metric in FOLLOWED:
        having = [night for night in nights if metric.name in night.values]
        if metric.estimate_of and any(metric.estimate_of in night.values for night in nights):
            continue  # drawn in the chart of the actual value
        if having:
            yield _figure(metric, nights, having)


def _figure(metric: Metric, nights: Sequence[Night], having: Sequence[Night]) -> Figure:
    other = ESTIMATES.get(metric.name, "")
    lines = [_point(night, metric.name, other) for night in nights]
    usual = statistics.median(night.values[metric.name].value for night in having)
    latest, low, high = having[-1], *_range(metric, having)
    caption = f"Last {metric_text(metric, latest.values[metric.name].value)}, usually {metric_text(metric, usual)}, from {low} to {high}."
    limits = [night.limits[metric.name] for night in having if metric.name in night.limits]
    caption += f" Its gate (dashed): {metric_text(metric, limits[-1])}." if limits else ""
    caption += f" Dotted: {followed(other).words}." if other and any(line["other"] for line in lines) else ""
    title = metric.words[0].upper() + metric.words[1:]
    svg = draw(
        title,
        caption,
        plots.trend,
        lines,
        dots=[dot for night in having if (dot := _dot(night, metric, len(having)))],
        gaps=[{"date": n.date, "is_bad": _is_bad_gap(n)} for n in nights if not n.values],
        stretches=[(s.first, s.last) for s in stretches(nights) if s.nights > 1],
        is_share=metric.is_share,
        from_zero=metric.better is not Better.MORE,
    )
    return Figure(title, caption, svg)


def _range(metric: Metric, having: Sequence[Night]) -> tuple[str, str]:
    values = [night.values[metric.name].value for night in having]
    return metric_text(metric, min(values)), metric_text(metric, max(values))


def _point(night: Night, name: str, other: str) -> dict[str, Any]:
    value, estimate = night.values.get(name), night.values.get(other)
    return {
        "date": night.date,
        "value": value.value if value else None,
        "low": value.low if value else None,
        "high": value.high if value else None,
        "other": estimate.value if estimate else None,
        "limit": night.limits.get(name),
    }


def _is_bad_gap(night: Night) -> bool:
    """Whether a night without numbers has a run that did not finish, and not just none."""
    return night.state not in {State.MISSING, State.SKIPPED}


def _dot(night: Night, metric: Metric, nights: int) -> dict[str, Any] | None:
    is_bad = metric.name in (*night.unusual, *night.failed_gates)
    if not is_bad and nights > _MAX_DOTS:
        return None
    return {"date": night.date, "value": night.values[metric.name].value, "is_bad": is_bad}


_COLUMNS = tuple(metric for metric in FOLLOWED if metric.is_column)


def _lines(
    nights: Sequence[Night], links: Mapping[str, str]
) -> list[tuple[Cell, Cell, Cell, dict[str, Cell]]]:
    """For each night its date, state, reason, and numbers by name."""
    return [
        (
            Cell(night.date.isoformat(), link=links.get(night.path, "")),
            Cell(STATE_WORDS[night.state], _LEVELS.get(night.state, Level.BAD).value),
            Cell(reason_of(night)),
            {
                metric.name: Cell(
                    metric_text(metric, night.values[metric.name].value),
                    "bad" if metric.name in (*night.unusual, *night.failed_gates) else "",
                )
                for metric in _COLUMNS
                if metric.name in night.values
            },
        )
        for night in nights
    ]


def _table(lines: Sequence[tuple[Cell, Cell, Cell, dict[str, Cell]]]) -> Table:
    """The latest nights first, at most a thousand; columns that no night has are left out."""
    surplus, lines = len(lines) - _MAX_LINES, lines[-_MAX_LINES:]
    columns = [metric for metric in _COLUMNS if any(metric.name in numbers for *_, numbers in lines)]
    return Table(
        ["night", "state", "reason", *(metric.words for metric in columns)],
        [
            [date, state, reason, *(numbers.get(metric.name, Cell("")) for metric in columns)]
            for date, state, reason, numbers in reversed(lines)
        ],
        words=3,
        note=f"{surplus:,} more are in report.json." if surplus > 0 else "",
    )
