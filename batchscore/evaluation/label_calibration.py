"""Calibration of each label's own probability: whether 0.9 for a label means that nine rows in ten have it."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.calibration import BINS
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
    from batchscore.evaluation.label_sets import LabelSets


@dataclasses.dataclass(slots=True)
class LabelCalibration(Tally):
    """Tally of the evaluated rows by label and its probability, in 15 bins of equal width; every field is ``[C, 15]``."""

    rows: Counts
    positives: Counts
    """Rows that have the label."""
    probability: ExactSums

    @classmethod
    def empty(cls, n_labels: int) -> Self:
        """No rows yet."""
        rows, positives = (np.zeros((n_labels, BINS), dtype=np.int64) for _ in range(2))
        return cls(rows, positives, exact_zeros(n_labels * BINS).reshape(n_labels, BINS))

    def update(self, sets: LabelSets) -> None:
        """Add the evaluated rows among ``sets``."""
        rows = sets.rows.evaluated
        for label in range(len(self.rows)):
            p, has_it = sets.probabilities[rows, label].astype(np.float64), sets.given[rows, label]
            bins = np.clip(np.ceil(p * BINS).astype(np.int64) - 1, 0, BINS - 1)
            self.rows[label] += np.bincount(bins, minlength=BINS)
            self.positives[label] += np.bincount(bins[has_it], minlength=BINS)
            self.probability[label] += exact_sums(p, bins, BINS)

    def errors(self) -> list[float | None]:
        """The expected calibration error of each label (binary: Guo et al. 2017 with the label's own probability)."""
        return [_ece(*each) for each in zip(self.rows, self.positives, self.probability, strict=True)]

    def summary(self) -> dict[str, Any]:
        """``ece`` of all decisions together and its ``bins``, as :meth:`Calibration.summary` has them.

        ``accuracy`` of a bin is the share of its decisions where the label was given.
        """
        rows, positives = self.rows.sum(axis=0), self.positives.sum(axis=0)
        probability = self.probability.sum(axis=0)
        return {
            "ece": _ece(rows, positives, probability),
            "bins": [
                {
                    "low": k / BINS,
                    "high": (k + 1) / BINS,
                    "rows": int(rows[k]),
                    "mean_probability": exact_mean(probability[k], int(rows[k])),
                    "accuracy": ratio(positives[k], rows[k]),
                }
                for k in range(BINS)
            ],
        }


def _ece(rows: Counts, positives: Counts, probability: ExactSums) -> float | None:
    total = int(rows.sum())
    if not total:
        return None
    gaps = (
        exact_value(expected) - int(right) for expected, right in zip(probability, positives, strict=True)
    )
    return math.fsum(abs(gap) for gap in gaps) / total
