"""Expected Hamming loss from a multi-label model's own probabilities: needs no labels."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.evaluation.label_sets import mean_of_columns
from batchscore.evaluation.significance import Z95, Estimate
from batchscore.evaluation.tally import ExactSums, Tally, exact_mean, exact_sums, exact_value, exact_zeros

if TYPE_CHECKING:
    from batchscore.evaluation.label_sets import LabelSets


@dataclasses.dataclass(slots=True)
class Decisions(Tally):
    """Sums over rows of the expected share of wrong decisions, of all scored rows and of the evaluated ones."""

    rows: int = 0
    doubt: ExactSums = dataclasses.field(default_factory=lambda: exact_zeros(1))
    """``[1]``: sum of the mean over labels of 1 - confidence."""
    variance: ExactSums = dataclasses.field(default_factory=lambda: exact_zeros(1))
    """``[1]``: sum of the squared mean over labels of sqrt(p (1 - p)): the largest variance that a row can have."""
    evaluated: int = 0
    evaluated_doubt: ExactSums = dataclasses.field(default_factory=lambda: exact_zeros(1))

    def update(self, sets: LabelSets) -> None:
        """Add the scored rows among ``sets``."""
        scored = sets.rows.scored
        p = sets.probabilities[scored].astype(np.float64)
        doubt = 1 - sets.expected_right
        self.rows += len(p)
        self.doubt += exact_sums(doubt[scored])
        self.variance += exact_sums(mean_of_columns(np.sqrt(p * (1 - p))) ** 2)
        self.evaluated += int(sets.rows.evaluated.sum())
        self.evaluated_doubt += exact_sums(doubt[sets.rows.evaluated])

    def estimate(self, calibration_error: float | None) -> Estimate | None:
        """Mean of 1 - confidence over all decisions; None without scored rows.

        It needs calibrated probabilities, and no independence of labels: the interval allows for any dependence within a row,
        and is widened on both sides by ``calibration_error`` (an ECE on labelled rows).
        """
        if self.rows == 0:
            return None
        value = exact_value(self.doubt[0]) / self.rows
        spread = Z95 * math.sqrt(exact_value(self.variance[0])) / self.rows + (calibration_error or 0.0)
        return Estimate(value, max(0.0, value - spread), min(1.0, value + spread))

    def summary(self, calibration_error: float | None, observed: float | None) -> dict[str, Any] | None:
        """The estimate with ``rows`` and ``calibration_error``; under ``evaluated``, expected beside ``observed`` Hamming loss."""
        estimate = self.estimate(calibration_error)
        if estimate is None:
            return None
        beside = None
        if self.evaluated:
            expected = exact_mean(self.evaluated_doubt[0], self.evaluated)
            beside = {"rows": self.evaluated, "expected": expected, "observed": observed}
        return {
            **estimate.to_json(),
            "rows": self.rows,
            "calibration_error": calibration_error,
            "evaluated": beside,
        }
