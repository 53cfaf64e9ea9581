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
from batchscore.evaluation.tally import ratio


class Direction(enum.Enum):
    """Which side of the limit is good."""

    AT_LEAST = "at least"
    AT_MOST = "at most"

    @property
    def option(self) -> str:
        """The option that makes such a gate."""
        return "--fail-below" if self is Direction.AT_LEAST else "--fail-above"


_AT_LEAST = ("accuracy", "macro_f1", "roc_auc", "average_precision", "expected_accuracy")
_SHARES_OF_ROWS = (
    "null_text",
    "empty_text",
    "failed",
    "rejects",
    "truncated",
    "unlabelled",
    "unknown_label",
)
_AT_MOST_SHARES = ("ece", *_SHARES_OF_ROWS)
_AT_MOST_NUMBERS = ("log_loss", "brier", "drift")
"""Not shares: their limit may be over 1."""
_PER_LABEL = ("precision", "recall", "f1")
METRICS = (*_AT_LEAST, *_AT_MOST_SHARES, *_AT_MOST_NUMBERS)
_NEEDS_BASELINE = "no earlier run with scored rows was compared; give one with --baseline"
_NEEDS_LABELS = "no row has both a known label and a prediction"
_NEEDS_ROWS = "no row was scored"
_UNDEFINED = "undefined for these rows, such as a label that never occurs"


@dataclass(frozen=True, slots=True)
class Gate:
    """A metric and the limit that it must keep."""

    metric: str
    limit: float
    direction: Direction

    def __str__(self) -> str:
        return f"{self.metric} {self.direction.value} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class GateResult:
    """What became of a gate."""

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
    """Whether a gate on ``metric`` judges predictions; others judge the rows that came, or how these changed."""
    return metric not in _SHARES_OF_ROWS and metric != "drift"


def parse_gate(text: str, labels: Sequence[str] | None = None, direction: Direction | None = None) -> Gate:
    """Read ``METRIC=X``, X a number or a percentage, such as ``accuracy=0.85``, ``null_text=1%``, ``recall_NEG=0.8``.

    Without ``labels`` (the model is not open yet) the label of ``precision_…``, ``recall_…`` and ``f1_…`` is not
    checked; ``direction`` is the side that the option means, any side if None. Raises :class:`UsageError` for an unknown
    metric, one whose good side is the other, or a limit that cannot be meant.

    >>> parse_gate("null_text=1%")
    Gate(metric='null_text', limit=0.01, direction=<Direction.AT_MOST: 'at most'>)
    """
    metric, equals, limit = text.rpartition("=")
    if not equals:
        raise UsageError(f"the gate {printable(text)!r} is not METRIC=X, such as accuracy=0.85")
    metric = metric.strip()
    is_per_label = _check_metric(metric, labels)
    value = _parse_limit(text, limit.strip(), is_share=metric not in _AT_MOST_NUMBERS)
    is_at_least = is_per_label or metric in _AT_LEAST
    good = Direction.AT_LEAST if is_at_least else Direction.AT_MOST
    if direction not in (None, good):
        better = "more" if is_at_least else "less"
        raise UsageError(f"of {printable(metric)} {better} is better; write {good.option} {printable(text)}")
    return Gate(metric, value, good)


def parse_gates(
    below: Iterable[str], above: Iterable[str], labels: Sequence[str] | None = None
) -> list[Gate]:
    """The gates of ``--fail-below`` and ``--fail-above``, in this order; raises as :func:`parse_gate`."""
    sides = ((below, Direction.AT_LEAST), (above, Direction.AT_MOST))
    return [parse_gate(text, labels, side) for texts, side in sides for text in texts]


def flat_metrics(metrics: Mapping[str, Any], drift: float | None = None) -> dict[str, float | None]:
    """The metrics that gates know, by flat name, from ``Evaluation.metrics()`` and ``DriftReport.value``.

    ``null_text``, ``empty_text``, ``failed``, ``rejects``, ``truncated``, ``unlabelled`` and ``unknown_label`` are
    shares of the rows read.
    """
    counts, quality, expected = (
        metrics["counts"],
        metrics["quality"] or {},
        metrics["expected_accuracy"] or {},
    )
    flat: dict[str, float | None] = {
        name: (quality.get(name) or {}).get("value")
        for name in ("accuracy", "macro_f1", "roc_auc", "average_precision")
    }
    flat["expected_accuracy"] = expected.get("value")
    flat["ece"] = (metrics["calibration"] or {}).get("ece")
    flat.update({name: ratio(counts[name], counts["read"]) for name in _SHARES_OF_ROWS})
    flat.update(log_loss=quality.get("log_loss"), brier=quality.get("brier_score_loss"), drift=drift)
    per_label = quality.get("per_label") or {}
    for label in metrics["labels"]:
        flat.update({f"{name}_{label}": per_label.get(label, {}).get(name) for name in _PER_LABEL})
    return flat


def evaluate_gates(gates: Iterable[Gate], flat: Mapping[str, float | None]) -> list[GateResult]:
    """Hold each gate against :func:`flat_metrics`; one whose metric could not be computed fails and says why."""
    return [_evaluate(gate, flat) for gate in gates]


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
    if metric == "drift":
        return _NEEDS_BASELINE
    if flat.get("expected_accuracy") is None:
        return _NEEDS_ROWS
    return _NEEDS_LABELS if flat.get("accuracy") is None else _UNDEFINED


def _check_metric(metric: str, labels: Sequence[str] | None) -> bool:
    """Whether the metric is one of a label; raises for one that does not exist."""
    if metric in METRICS:
        return False
    if labels is None:
        name, _, label = metric.partition("_")
        if name in _PER_LABEL and label:
            return True
        raise _unknown(metric, [*METRICS, *(f"{name}_<LABEL>" for name in _PER_LABEL)])
    known = [f"{name}_{label}" for name in _PER_LABEL for label in labels]
    if metric in known:
        return True
    raise _unknown(metric, [*METRICS, *known])


def _unknown(metric: str, known: Sequence[str]) -> UsageError:
    close = difflib.get_close_matches(metric, known, n=1)
    hint = f" Did you mean {printable(close[0])!r}?" if close else ""
    return UsageError(f"no metric is named {printable(metric)!r}.{hint} Known: {printable(', '.join(known))}")


def _parse_limit(text: str, limit: str, is_share: bool) -> float:
    percent = limit.endswith("%")
    try:
        number = decimal.Decimal(limit.removesuffix("%"))
    except decimal.InvalidOperation as error:
        raise UsageError(
            f"the limit of the gate {printable(text)!r} is not a number or a percentage"
        ) from error
    value = float(number / 100 if percent else number)
    if not 0 <= value < math.inf:
        raise UsageError(f"the limit of the gate {printable(text)!r} must be 0 or more, and finite")
    if is_share and value > 1:
        hint = "" if percent else f"; did you mean {printable(limit)}%?"
        raise UsageError(f"the limit of the gate {printable(text)!r} is a share, at most 1{hint}")
    return value
