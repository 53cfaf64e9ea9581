"""Results of quality gates, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchscore.evaluation.metrics import Section, Unit, named
from batchscore.reports.formats import percent, points, shown, text_of


def gate_name(metric: str) -> str:
    """A gate's name on a page; the label in ``recall_<LABEL>`` is unchanged."""
    known = named(metric)
    return shown(metric if known is None or known.section is Section.LABELS else metric.replace("_", " "))


def unit_of(metric: str) -> Unit:
    """How a gate's value is shown; that of an unknown metric, from another version, is a percentage."""
    known = named(metric)
    return Unit.SHARE if known is None else known.unit


def is_share(metric: str) -> bool:
    """Whether a gate's value is shown as a percentage."""
    return unit_of(metric) is Unit.SHARE


def gate_value(metric: str, value: float | None) -> str:
    """The value or limit of a gate as text."""
    text = percent(value, 2) if is_share(metric) else text_of(unit_of(metric), value)
    return text.replace(".00%", "%")


def gate_sentence(gate: Mapping[str, Any]) -> str:
    """The result of one gate: ``accuracy is 83.10%, 1.9 points under its limit of 85%``."""
    metric, value, margin = gate["metric"], gate["value"], gate["margin"]
    if value is None or margin is None:
        return shown(gate["reason"] or f"{metric} could not be measured", 300)
    size = points(margin) if is_share(metric) else text_of(unit_of(metric), abs(margin))
    is_under = (gate["direction"] == "at least") != gate["passed"]
    side = "under" if is_under else "over"
    limit = gate_value(metric, gate["limit"])
    return f"{gate_name(metric)} is {gate_value(metric, value)}, {size} {side} its limit of {limit}"
