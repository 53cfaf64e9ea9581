"""Reliability: how often predictions are right at each confidence, the reference for later disagreements.

Bins have equal width in log-odds, as a good model is confident of most rows: one of the 15 equal-width bins of the
calibration error would hold nearly all rows, and not separate 0.95 from 0.999.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.tally import Counts, ExactSums, Tally, exact_mean, exact_sums, exact_zeros

if TYPE_CHECKING:
    from batchscore.evaluation.outcomes import RowOutcomes

EDGES = (0.0, *(round(1 / (1 + math.exp(-half / 2)), 6) for half in range(-6, 19)))
"""Lower edges of the bins, compared as float32: log-odds of -3, -2.5, ..., 9, and everything below in the first."""


@dataclasses.dataclass(slots=True)
class Reliability(Tally):
    """Tally of the evaluated rows by the probability of the predicted label; every field is ``[26]``."""

    rows: Counts
    correct: Counts
    probability: ExactSums

    @classmethod
    def empty(cls) -> Self:
        """No rows yet."""
        n = len(EDGES)
        return cls(np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), exact_zeros(n))

    def update(self, outcomes: RowOutcomes) -> None:
        """Add the evaluated rows among ``outcomes``."""
        n, edges = len(EDGES), np.array(EDGES, dtype=np.float32)
        top = outcomes.top[outcomes.evaluated]
        bins = np.searchsorted(edges, top, side="right") - 1
        self.rows += np.bincount(bins, minlength=n)
        self.correct += np.bincount(bins[outcomes.correct[outcomes.evaluated]], minlength=n)
        self.probability += exact_sums(top, bins, n)

    def summary(self) -> dict[str, Any]:
        """``edges`` (lower ones), ``rows``, ``correct`` and ``mean_probability`` (None without rows), ``[26]`` each."""
        pairs = zip(self.probability, self.rows, strict=True)
        return {
            "edges": list(EDGES),
            "rows": self.rows.tolist(),
            "correct": self.correct.tolist(),
            "mean_probability": [exact_mean(total, int(rows)) for total, rows in pairs],
        }
