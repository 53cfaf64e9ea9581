"""The one figure of a run that stands where only one can stand, by task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


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


def headline_of(metrics: Mapping[str, Any]) -> Headline:
    """The figure of a ``metrics.json``, of earlier versions too, and of a run that has none yet (``{}``).

    >>> str(headline_of({"task": "regression", "quality": {"mae": {"value": 0.5, "low": 0.4, "high": 0.6}}}))
    'mean absolute error 0.5000 (0.4000 to 0.6000, 95 % interval)'
    """
    from batchscore.evaluation.metrics import (  # not before a command knows that it has a run
        HEADLINES,
        task_of,
    )

    metric = HEADLINES[task_of(metrics)].quality
    return Headline(metric.name, metric.words, (metrics.get("quality") or {}).get(metric.name))
