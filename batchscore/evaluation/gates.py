"""Quality gates: ``--fail-below METRIC=X`` and ``--fail-above METRIC=X``."""

from __future__ import annotations

import decimal
import difflib
import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchscore.errors import UsageError, printable
from batchscore.evaluation.metrics import (
    GATED,
    HEADLINES,
    LABEL_METRICS,
    Better,
    Metric,
    Section,
    Unit,
    gated,
    in_section,
    named,
    of_labels,
    task_of,
)
from batchscore.records import Task


class Direction(enum.Enum):
    """Which side of the limit is good."""

    AT_LEAST = "at least"
    AT_MOST = "at most"

    @property
    def option(self) -> str:
        """The option for such a gate."""
        return "--fail-below" if self is Direction.AT_LEAST else "--fail-above"

    @classmethod
    def of(cls, metric: Metric) -> Direction:
        """The good side of a metric."""
        return cls.AT_LEAST if metric.better is Better.MORE else cls.AT_MOST


PROMISE = "accepted_precision_bound"
"""The metric that tells whether the promise of ``--accept`` still stands."""
_NEEDS_BASELINE = "no earlier run with scored rows was compared; give one with --baseline"
_NEEDS_ACCEPTED = "no accepted row has a known label"
_NEEDS_LABELS = "no row has both a known label and a prediction"
_NEEDS_ROWS = "no row was scored"
_UNDEFINED = "undefined for these rows, such as a label that never occurs"
_MODELS = {
    Task.SINGLE_LABEL: "a model with one label a text",
    Task.MULTI_LABEL: "a model with several labels a text",
    Task.REGRESSION: "a model that gives a number",
}


@dataclass(frozen=True, slots=True)
class Gate:
    """A metric and its limit."""

    metric: str
    limit: float
    direction: Direction

    def __str__(self) -> str:
        return f"{self.metric} {self.direction.value} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class GateResult:
    """The result of checking a gate."""

    gate: Gate
    value: float | None
    is_passed: bool
    margin: float | None
    """Distance to the limit, negative on the wrong side; None if the metric could not be computed."""
    reason: str

    def to_json(self) -> dict[str, Any]:
        """``metric``, ``direction``, ``limit``, ``value``, ``passed``, ``margin``, ``reason``."""
        return {
            "metric": self.gate.metric,
            "direction": self.gate.direction.value,
            "limit": self.gate.limit,
            "value": self.value,
            "passed": self.is_passed,
            "margin": self.margin,
            "reason": self.reason,
        }


def is_of_quality(metric: str) -> bool:
    """Whether a gate on ``metric`` is about predictions; others are about the input rows, or their drift."""
    known = named(metric)
    return known is None or known.is_of_quality


def needs_baseline(metric: str) -> bool:
    """Whether ``metric`` compares with an earlier run."""
    known = named(metric)
    return known is not None and known.needs_baseline


def needs_decisions(metric: str) -> bool:
    """Whether ``metric`` is about what was accepted."""
    known = named(metric)
    return known is not None and known.needs_decisions


def promise_gate(metrics: Mapping[str, Any], others: Iterable[Gate] = ()) -> list[Gate]:
    """The gate that ``--accept`` brings along, where accepted rows have labels and no other one is on the same metric.

    It fails when labels say, beyond chance, that less is right than was promised.
    """
    accepted = metrics.get("acceptance") or {}
    if not accepted.get("evaluated") or any(gate.metric == PROMISE for gate in others):
        return []
    return [Gate(PROMISE, accepted["precision"], Direction.AT_LEAST)]


def parse_gate(
    text: str,
    labels: Sequence[str] | None = None,
    direction: Direction | None = None,
    task: Task = Task.SINGLE_LABEL,
) -> Gate:
    """Parse ``METRIC=X``, X a number or a percentage, such as ``accuracy=0.85``, ``null_text=1%``, ``recall_NEG=0.8``.

    Without ``labels`` (the model is not open yet) neither its ``task`` nor the label of ``precision_…``, ``recall_…`` and
    ``f1_…`` is checked; ``direction`` is that of the option, None for any. Raises :class:`UsageError` for an unknown metric, the wrong
    direction, or an impossible limit.

    >>> parse_gate("null_text=1%")
    Gate(metric='null_text', limit=0.01, direction=<Direction.AT_MOST: 'at most'>)
    """
    name, equals, limit = text.rpartition("=")
    if not equals:
        raise UsageError(f"the gate {printable(text)!r} is not METRIC=X, such as accuracy=0.85")
    metric = _gate_metric(name.strip(), labels, task)
    value = _parse_limit(text, limit.strip(), metric)
    good = Direction.of(metric)
    if direction not in (None, good):
        better = "more" if good is Direction.AT_LEAST else "less"
        raise UsageError(
            f"of {printable(metric.name)} {better} is better; write {good.option} {printable(text)}"
        )
    return Gate(metric.name, value, good)


def parse_gates(
    below: Iterable[str],
    above: Iterable[str],
    labels: Sequence[str] | None = None,
    task: Task = Task.SINGLE_LABEL,
) -> list[Gate]:
    """The gates of ``--fail-below`` and ``--fail-above``, in this order; raises as :func:`parse_gate`."""
    sides = ((below, Direction.AT_LEAST), (above, Direction.AT_MOST))
    return [parse_gate(text, labels, side, task) for texts, side in sides for text in texts]


def flat_metrics(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """The metrics that gates can use, by name, from ``metrics.json``; None if one could not be computed.

    ``null_text``, ``empty_text``, ``failed``, ``rejects``, ``truncated``, ``unlabelled`` and ``unknown_label`` are
    shares of the rows read.
    """
    task = task_of(metrics)
    every = (*gated(task), *of_labels(metrics["labels"], task))
    values = {each.name: each.read(metrics, {}) for each in every}
    return {name: None if value is None else value.value for name, value in values.items()}


def evaluate_gates(
    gates: Iterable[Gate], flat: Mapping[str, float | None], *, is_first: bool = False
) -> list[GateResult]:
    """Check each gate against :func:`flat_metrics`; a metric that could not be computed fails its gate, with a reason.

    ``is_first``: there is no earlier run yet to compare with, and need not be; a gate that compares then passes.
    """
    return [_first(gate, flat) if is_first else _evaluate(gate, flat) for gate in gates]


def _first(gate: Gate, flat: Mapping[str, float | None]) -> GateResult:
    if needs_baseline(gate.metric) and flat.get(gate.metric) is None:
        return GateResult(
            gate, None, True, None, f"{gate.metric}: there is no earlier run yet to compare with"
        )
    return _evaluate(gate, flat)


def _evaluate(gate: Gate, flat: Mapping[str, float | None]) -> GateResult:
    if gate.metric not in flat:
        raise _unknown(gate.metric, list(flat))
    value = flat[gate.metric]
    if value is None:
        return GateResult(
            gate, None, False, None, f"{gate.metric} could not be computed: {_why(gate.metric, flat)}"
        )
    margin = value - gate.limit if gate.direction is Direction.AT_LEAST else gate.limit - value
    side = "inside" if margin >= 0 else "outside"
    reason = f"{gate.metric} is {value:.6g}, {abs(margin):.3g} {side} the limit ({gate.direction.value} {gate.limit:g})"
    return GateResult(gate, value, margin >= 0, margin, reason)


def _why(metric: str, flat: Mapping[str, float | None]) -> str:
    if needs_baseline(metric):
        return _NEEDS_BASELINE
    if needs_decisions(metric):
        return _NEEDS_ROWS if metric == "accepted" else _NEEDS_ACCEPTED
    headline = next((each for each in HEADLINES.values() if each.quality.name in flat), None)
    if headline is None or (headline.estimate is not None and flat.get(headline.estimate.name) is None):
        return _NEEDS_ROWS
    is_measured = any(
        flat.get(each.name) is not None
        for each in in_section(Section.QUALITY)
        if each.needs_labels and each not in headline.metrics[1:]
    )
    return _UNDEFINED if is_measured else _NEEDS_LABELS


def _gate_metric(name: str, labels: Sequence[str] | None, task: Task) -> Metric:
    """The metric of a gate; raises for one that gates do not support."""
    of_any = [*GATED] if labels is None else [*gated(task), *of_labels(labels, task)]
    found = named(name) if labels is None else next((each for each in of_any if each.name == name), None)
    if found is not None and found.is_gated:
        return found
    known = [each.name for each in of_any]
    of_no_label = [f"{kind}_<LABEL>" for kind in LABEL_METRICS] if labels is None else []
    if (
        found is None
        and labels is not None
        and (other := named(name)) is not None
        and task not in other.tasks
    ):
        raise UsageError(
            f"{printable(name)} is not measured of {_MODELS[task]}. Known: {printable(', '.join(known))}"
        )
    raise _unknown(name, [*known, *of_no_label])


def _unknown(metric: str, known: Sequence[str]) -> UsageError:
    close = difflib.get_close_matches(metric, known, n=1)
    hint = f" Did you mean {printable(close[0])!r}?" if close else ""
    return UsageError(f"no metric is named {printable(metric)!r}.{hint} Known: {printable(', '.join(known))}")


def _parse_limit(text: str, limit: str, metric: Metric) -> float:
    percent = limit.endswith("%")
    if percent and metric.unit is Unit.VALUE:
        raise UsageError(
            f"the limit of the gate {printable(text)!r} is in the unit of the model's values: write it without %"
        )
    try:
        number = decimal.Decimal(limit.removesuffix("%"))
    except decimal.InvalidOperation as error:
        raise UsageError(
            f"the limit of the gate {printable(text)!r} is not a number or a percentage"
        ) from error
    value = float(number / 100 if percent else number)
    least, most = metric.limits
    if not (least <= value < math.inf and value > -math.inf):
        bound = f"{least:g} or more, and " if least > -math.inf else ""
        raise UsageError(f"the limit of the gate {printable(text)!r} must be {bound}finite")
    if value > most:
        hint = "" if percent else f"; did you mean {printable(limit)}%?"
        what = "is a share, at most 1" if metric.is_share else f"must be at most {most:g}"
        raise UsageError(f"the limit of the gate {printable(text)!r} {what}{hint}")
    return value
