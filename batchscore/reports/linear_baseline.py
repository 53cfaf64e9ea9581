"""What a linear model says of the same rows as a trained one (:mod:`batchscore.training.linear_baseline`), in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from batchscore.records import Task


class _Told(NamedTuple):
    """The measure of a task: its name, its keys in a comparison, and whether more is better."""

    name: str
    key: str
    more_is_better: bool = True


_TOLD: Mapping[Task, _Told] = {
    Task.SINGLE_LABEL: _Told("accuracy", "accuracy"),
    Task.MULTI_LABEL: _Told("micro F1", "micro_f1"),
    Task.REGRESSION: _Told("mean absolute error", "mae", more_is_better=False),
}


def is_better_than_linear(task: Task, compared: Mapping[str, Any]) -> bool:
    """Whether the trained model is better than the linear one by more than chance: the 95 % interval of the change leaves out 0."""
    told = _TOLD[task]
    change = compared[f"{told.key}_change"] or {}
    if "low" not in change:
        return False
    return bool(change["low"] > 0 if told.more_is_better else change["high"] < 0)


def linear_line(task: Task, compared: Mapping[str, Any]) -> str:
    """The comparison in a sentence."""
    said = change_in_words(task, compared, "of a linear model on words", "of this one")
    if compared[f"{_TOLD[task].key}_change"] is None or is_better_than_linear(task, compared):
        return said
    return f"{said}. It is not better than the linear model by more than chance"


def change_in_words(task: Task, compared: Mapping[str, Any], before_name: str, after_name: str) -> str:
    """How two models differ on the same rows, each under what is said behind its figure."""
    told = _TOLD[task]
    before, after, change = (compared[f"{told.key}_{each}"] for each in ("before", "after", "change"))
    if before is None or after is None or change is None:
        return f"no evaluation row compares the figure {before_name} with that {after_name}"
    within = f" ({change['low']:+.4f} to {change['high']:+.4f}, 95 % interval)" if "low" in change else ""
    rows = "rows that chose nothing" if compared["is_held_out"] else "rows, which training watched too"
    against = " against the teacher's answers" if compared.get("is_against_teacher") else ""
    said = f"{told.name}{against} {_value(before):.4f} {before_name}, {_value(after):.4f} {after_name}: "
    return f"{said}{change['value']:+.4f}{within} on {compared['evaluated']} {rows}"


def _value(found: Any) -> float:
    return float(found["value"] if isinstance(found, Mapping) else found)
