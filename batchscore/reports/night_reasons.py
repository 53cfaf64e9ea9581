"""Why a night of the trend is in its state, in words: each night has a reason, good or bad."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from batchscore.evaluation.metrics import FOLLOWED, Better, Metric, Unit
from batchscore.reports.answers import LEFT_OUT
from batchscore.reports.formats import number, rows, shown, text_of
from batchscore.reports.gates import gate_value
from batchscore.reports.nights import Night, State

_MOST_NAMED = 2
_PROBLEM = 160
"""Maximum characters of why a night has no numbers."""


def reason_of(night: Night) -> str:
    """Why a night is in its state, in one line of words; never empty.

    >>> import datetime
    >>> reason_of(Night(datetime.date(2026, 11, 26), State.ROWS, counts={"failed": 3, "rejects": 1}))
    '3 rows could not be scored; 1 not readable'
    """
    told = _REASONS.get(night.state, _problem)(night)
    more = "; ".join([*_left_out(night), *_later_labels(night)])
    return f"{told}; {more}" if more else told


def followed(name: str) -> Metric:
    """The metric of this name, one of those that the trend follows."""
    return next(metric for metric in FOLLOWED if metric.name == name)


def metric_text(metric: Metric, value: float | None) -> str:
    """The value of a metric as the trend shows it: a count without decimals."""
    is_count = metric.unit is Unit.NUMBER and metric.better is Better.NEITHER
    return number(round(value)) if is_count and value is not None else text_of(metric.unit, value)


def _problem(night: Night) -> str:
    return shown(night.problem, _PROBLEM) if night.problem.strip() else "nothing was noted"


def _failed_gates(night: Night) -> str:
    gates = list(night.gate_reasons or night.failed_gates)
    return _named([shown(each, _PROBLEM) for each in gates])


def _unusual(night: Night) -> str:
    return _named([_against_usual(followed(name), night) for name in night.unusual])


def _against_usual(metric: Metric, night: Night) -> str:
    usual = night.usual.get(metric.name)
    tail = f", usually {metric_text(metric, usual)}" if usual is not None else ""
    return f"{metric.words} {metric_text(metric, night.values[metric.name].value)}{tail}"


def _failed_rows(night: Night) -> str:
    return f"{rows(night.counts.get('failed', 0))} could not be scored"


def _empty(night: Night) -> str:
    read = night.counts.get("read", 0)
    return f"none of {rows(read)} was scored" if read else "the input holds no row"


def _usual(night: Night) -> str:
    metric = night.headline
    if metric is None or metric.name not in night.limits:
        return "its gates passed"
    value = metric_text(metric, night.values[metric.name].value)
    return f"{metric.words} {value}, its gate {gate_value(metric.name, night.limits[metric.name])}"


_REASONS: Mapping[State, Callable[[Night], str]] = {
    State.GATE: _failed_gates,
    State.UNUSUAL: _unusual,
    State.ROWS: _failed_rows,
    State.EMPTY: _empty,
    State.USUAL: _usual,
    State.UNGATED: lambda _: "no gate on quality is set",
}


def _named(texts: list[str]) -> str:
    more = len(texts) - _MOST_NAMED
    named = "; ".join(texts[:_MOST_NAMED])
    return f"{named}; and {more} more" if more > 0 else named


def _later_labels(night: Night) -> Iterator[str]:
    """How many rows have labels by now, where some came later."""
    if (labels := night.labels) is not None:
        of = f" of {night.counts['read']:,}" if night.counts.get("read") else ""
        yield f"{labels.rows:,}{of} rows have labels by now"


def _left_out(night: Night) -> Iterator[str]:
    """Rows that could not be read, and those whose label the model does not know; of an empty night all that were not scored."""
    for name, words in LEFT_OUT.items():
        is_told = name == "rejects" or (night.state is State.EMPTY and name != "failed")
        if is_told and (count := night.counts.get(name)):
            yield f"{count:,} {words}"
    if unknown := night.counts.get("unknown_label"):
        yield f"{unknown:,} with an unknown label"
