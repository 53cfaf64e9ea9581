"""The one figure of a run that stands where only one can stand, by task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from batchscore.records import Task


class Headline(NamedTuple):
    """A figure of ``quality``, which has its interval."""

    key: str
    words: str
    value: Mapping[str, float] | None
    """{value, low, high}, or None without evaluated rows."""

    def __str__(self) -> str:
        """In words, with its interval; empty without evaluated rows."""
        if self.value is None:
            return ""
        if "low" not in self.value:  # one row has no interval
            return f"{self.words} {self.value['value']:.4f}"
        interval = f"{self.value['low']:.4f} to {self.value['high']:.4f}, 95 % interval"
        return f"{self.words} {self.value['value']:.4f} ({interval})"


_FIGURES: Mapping[Task, tuple[str, str]] = {
    Task.SINGLE_LABEL: ("accuracy", "accuracy"),
    Task.MULTI_LABEL: ("micro_f1", "micro F1"),
    Task.REGRESSION: ("mae", "mean absolute error"),
}


def headline_of(metrics: Mapping[str, Any]) -> Headline:
    """The figure of a ``metrics.json``, of earlier versions too, and of a run that has none yet (``{}``).

    >>> str(headline_of({"task": "regression", "quality": {"mae": {"value": 0.5, "low": 0.4, "high": 0.6}}}))
    'mean absolute error 0.5000 (0.4000 to 0.6000, 95 % interval)'
    """
    key, words = _FIGURES[Task(metrics.get("task", Task.SINGLE_LABEL))]
    return Headline(key, words, (metrics.get("quality") or {}).get(key))
