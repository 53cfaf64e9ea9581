"""Calibration: whether predictions with a probability of 0.9 are right nine times out of ten."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.tally import (
    Counts,
    ExactSums,
    Tally,
    exact_mean,
    exact_sums,
    exact_value,
    exact_zeros,
    ratio,
)

if TYPE_CHECKING:
    from batchscore.evaluation.outcomes import RowOutcomes

BINS = 15
"""Of equal width over (0, 1], as in Guo et al. 2017; bin k is (k/15, (k+1)/15]."""


@dataclasses.dataclass(slots=True)
class Calibration(Tally):
    """Tally of the evaluated rows by the probability of the predicted label; every field is ``[15]``."""

    rows: Counts
    correct: Counts
    probability: ExactSums

    @classmethod
    def empty(cls) -> Self:
        """No rows yet."""
        return cls(np.zeros(BINS, dtype=np.int64), np.zeros(BINS, dtype=np.int64), exact_zeros(BINS))

    def update(self, outcomes: RowOutcomes) -> None:
        """Add the evaluated rows among ``outcomes``."""
        top = outcomes.top[outcomes.evaluated].astype(np.float64)
        bins = np.clip(np.ceil(top * BINS).astype(np.int64) - 1, 0, BINS - 1)
        self.rows += np.bincount(bins, minlength=BINS)
        self.correct += np.bincount(bins[outcomes.correct[outcomes.evaluated]], minlength=BINS)
        self.probability += exact_sums(top, bins, BINS)

    @property
    def ece(self) -> float | None:
        """Expected calibration error: mean over rows of |accuracy - mean probability| of their bin; None without rows."""
        rows = int(self.rows.sum())
        if rows == 0:
            return None
        gaps = (
            exact_value(total) - int(right)
            for total, right in zip(self.probability, self.correct, strict=True)
        )
        return math.fsum(abs(gap) for gap in gaps) / rows

    def summary(self) -> dict[str, Any]:
        """``ece`` and ``bins``, each with ``low``, ``high``, ``rows``, ``mean_probability`` and ``accuracy``."""
        return {
            "ece": self.ece,
            "bins": [
                {
                    "low": k / BINS,
                    "high": (k + 1) / BINS,
                    "rows": int(self.rows[k]),
                    "mean_probability": exact_mean(self.probability[k], int(self.rows[k])),
                    "accuracy": ratio(self.correct[k], self.rows[k]),
                }
                for k in range(BINS)
            ],
        }
