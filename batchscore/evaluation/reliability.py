"""How often predictions were right at each confidence: what a model's disagreements are held against later.

The bins are of equal width in log-odds, since a good model is sure of most rows: of the 15 bins of equal width that
the calibration error has, one would hold nearly all of them, and 0.95 and 0.999 would look alike.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.tally import Counts, ExactSums, Tally, exact_mean, exact_sums, exact_zeros

if TYPE_CHECKING:
    from batchscore.evaluation.outcomes import Outcomes

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

    def update(self, outcomes: Outcomes) -> None:
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
