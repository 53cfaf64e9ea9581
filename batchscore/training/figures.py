"""The figures of a bundle's evaluation for people: which of its metrics are told, under which names. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_NAMES = {
    "accuracy": "accuracy",
    "agreement": "agreement with the teacher",
    "difference": "mean absolute difference from the teacher",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "subset_accuracy": "all labels right",
    "hamming_loss": "Hamming loss",
    "average_precision": "mean average precision",
    "mae": "mean absolute error",
    "rmse": "root mean square error",
    "r2": "R²",
    "spearman": "Spearman's correlation",
    "pearson": "Pearson's correlation",
    "bias": "mean error",
    "log_loss": "log loss",
    "brier_score_loss": "Brier score loss",
    "calibration_error": "calibration error",
}
_FIRST = ("accuracy", "micro_f1", "mae", "agreement", "difference")
"""The figure told first, of each task."""
_SECOND = {"micro_f1": ("macro_f1", "subset_accuracy"), "mae": ("rmse", "r2", "spearman")}


class Figure(NamedTuple):
    """A figure with its interval as text, empty if there is none."""

    key: str
    name: str
    value: float
    interval: str


def headlines(metrics: Mapping[str, Any]) -> list[Figure]:
    """What is told first of a training, the most important figure first."""
    first = next(key for key in _FIRST if key in metrics)
    return [figure for key in (first, *_SECOND.get(first, ())) if (figure := _figure(key, metrics[key]))]


def figures(metrics: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float]]]:
    """All figures in order: name and ``value`` (with ``low`` and ``high`` if there is an interval)."""
    held_out = metrics.get("accuracy_held_out")
    rows: list[tuple[str, Any]] = []
    for key, name in _NAMES.items():
        if (value := _value(metrics.get(key))) is not None:
            rows.append((name, value))
        if key == "accuracy" and held_out:
            rows.append((f"accuracy, the {held_out['rows']} rows that did not choose the epoch", held_out))
    others = metrics.get("held_out") or {}
    for key, name in _NAMES.items() if others else ():
        if (value := _value(others.get(key))) is not None:
            rows.append((f"{name}, the {others['rows']} rows that chose nothing", value))
    return rows


def _figure(key: str, found: Any) -> Figure | None:
    value = _value(found)
    if value is None:
        return None
    interval = f" ({value['low']:.4f} to {value['high']:.4f}, 95 % interval)" if "low" in value else ""
    return Figure(key, _NAMES[key], value["value"], interval)


def _value(found: Any) -> Mapping[str, float] | None:
    """A metric as ``value``, with an interval where it has one."""
    if isinstance(found, Mapping):
        has_interval = found.get("low") is not None and found.get("high") is not None
        return found if has_interval else {"value": found["value"]}
    return None if found is None else {"value": found}
