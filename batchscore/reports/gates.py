"""What became of quality gates, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchscore.evaluation.metrics import Section, named
from batchscore.reports.formats import number, percent, points, shown


def gate_name(metric: str) -> str:
    """What a gate is called on a page; the label in ``recall_<LABEL>`` stays as it is."""
    known = named(metric)
    return shown(metric if known is None or known.section is Section.LABELS else metric.replace("_", " "))


def is_share(metric: str) -> bool:
    """Whether the value of a gate is written as a percentage; so is that of a metric which another version wrote."""
    known = named(metric)
    return known is None or known.is_share


def gate_value(metric: str, value: float | None) -> str:
    """The value or limit of a gate as it is usually said."""
    text = percent(value, 2) if is_share(metric) else number(value)
    return text.replace(".00%", "%")


def gate_sentence(gate: Mapping[str, Any]) -> str:
    """What became of one gate: ``accuracy is 83.10%, 1.9 points under its limit of 85%``."""
    metric, value, margin = gate["metric"], gate["value"], gate["margin"]
    if value is None or margin is None:
        return shown(gate["reason"], 300)
    size = points(margin) if is_share(metric) else number(abs(margin))
    is_under = (gate["direction"] == "at least") != gate["passed"]
    side = "under" if is_under else "over"
    limit = gate_value(metric, gate["limit"])
    return f"{gate_name(metric)} is {gate_value(metric, value)}, {size} {side} its limit of {limit}"
