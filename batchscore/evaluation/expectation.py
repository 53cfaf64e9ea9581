"""Expected accuracy from the model's own probabilities: needs no labels."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.evaluation.significance import Z95, Estimate, wilson
from batchscore.evaluation.tally import ExactSums, Tally, exact_mean, exact_sums, exact_value, exact_zeros

if TYPE_CHECKING:
    from batchscore.evaluation.outcomes import RowOutcomes


@dataclasses.dataclass(slots=True)
class Expectation(Tally):
    """Sums over the probabilities ``p`` of predicted labels, of all scored rows and of the evaluated ones."""

    rows: int = 0
    probability: ExactSums = dataclasses.field(default_factory=lambda: exact_zeros(1))
    variance: ExactSums = dataclasses.field(default_factory=lambda: exact_zeros(1))
    """``[1]``: sum of p (1 - p)."""
    evaluated: int = 0
    evaluated_probability: ExactSums = dataclasses.field(default_factory=lambda: exact_zeros(1))
    correct: int = 0

    def update(self, outcomes: RowOutcomes) -> None:
        """Add the scored rows among ``outcomes``."""
        top = outcomes.top[outcomes.scored].astype(np.float64)
        self.rows += len(top)
        self.probability += exact_sums(top)
        self.variance += exact_sums(top * (1 - top))
        self.evaluated += int(outcomes.evaluated.sum())
        self.evaluated_probability += exact_sums(outcomes.top[outcomes.evaluated])
        self.correct += int(outcomes.correct.sum())

    def estimate(self, calibration_error: float | None) -> Estimate | None:
        """Mean probability of the predicted labels; None without scored rows.

        If the probabilities are calibrated, the number of right predictions is Poisson-binomial with variance sum p (1 - p);
        the interval is 1.96 of its standard deviations, widened on both sides by ``calibration_error`` (an ECE on
        labelled rows), which bounds the gap between mean probability and accuracy there.
        """
        if self.rows == 0:
            return None
        value = exact_value(self.probability[0]) / self.rows
        spread = Z95 * math.sqrt(exact_value(self.variance[0])) / self.rows + (calibration_error or 0.0)
        return Estimate(value, max(0.0, value - spread), min(1.0, value + spread))

    def summary(self, calibration_error: float | None) -> dict[str, Any] | None:
        """The estimate with ``rows`` and ``calibration_error``; under ``evaluated``, expected beside observed accuracy."""
        estimate, observed = self.estimate(calibration_error), wilson(self.correct, self.evaluated)
        if estimate is None:
            return None
        beside = observed and {
            "rows": self.evaluated,
            "expected": exact_mean(self.evaluated_probability[0], self.evaluated),
            "observed": observed.to_json(),
        }
        return {
            **estimate.to_json(),
            "rows": self.rows,
            "calibration_error": calibration_error,
            "evaluated": beside,
        }
