"""What more labels would bring (:mod:`batchscore.training.learning_curve`), in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from batchscore.records import Task


class _Measure(NamedTuple):
    """How a mean loss is told."""

    name: str
    is_share: bool = True
    """Whether it is told as the share that is right, in percent."""


MEASURES: Mapping[Task, _Measure] = {
    Task.SINGLE_LABEL: _Measure("accuracy"),
    Task.MULTI_LABEL: _Measure("labels right"),
    Task.REGRESSION: _Measure("mean absolute error", is_share=False),
}


def curve_lines(task: Task, curve: Mapping[str, Any]) -> list[str]:
    """The sizes that were trained, and what so many more rows would bring."""
    measure = MEASURES[task]
    points = ", ".join(
        f"{rows} rows {_told(measure, loss)}"
        for rows, loss in zip(curve["rows"], curve["losses"], strict=True)
    )
    lines = [f"{measure.name} by training rows, on {curve['evaluated']} evaluation rows: {points}"]
    for step in curve["more"]:
        gain = step["gain"]
        value, low, high = (_change(measure, gain[name]) for name in ("value", "low", "high"))
        unit = " points" if measure.is_share else ""
        lines.append(f"{step['rows']} more labels: about {value}{unit} ({low} to {high}, 95 % interval)")
    return lines


def _told(measure: _Measure, loss: float) -> str:
    return f"{100 * (1 - loss):.1f} %" if measure.is_share else f"{loss:.4g}"


def _change(measure: _Measure, gain: float) -> str:
    """A gain: points of percent, or by how much an error becomes smaller."""
    return f"{100 * gain:+.1f}" if measure.is_share else f"{-gain:+.3g}"
