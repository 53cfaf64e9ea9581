"""Coverage and accuracy if only predictions above a probability were accepted without review."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.significance import wilson
from batchscore.evaluation.tally import Counts, ExactSums, Tally, exact_mean, exact_sums, exact_zeros, ratio

if TYPE_CHECKING:
    from batchscore.evaluation.outcomes import RowOutcomes

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99)
"""Compared as float32, the type of a probability, so that a probability of 0.9 reaches 0.9."""


@dataclasses.dataclass(slots=True)
class Coverage(Tally):
    """Rows by how many thresholds their probability reaches (0 to 11); every field is ``[12]``."""

    scored: Counts
    evaluated: Counts
    correct: Counts
    probability: ExactSums
    """Of the predicted label, summed over scored rows."""

    @classmethod
    def empty(cls) -> Self:
        """No rows yet."""
        n = len(THRESHOLDS) + 1
        scored, evaluated, correct = (np.zeros(n, dtype=np.int64) for _ in range(3))
        return cls(scored, evaluated, correct, exact_zeros(n))

    def update(self, outcomes: RowOutcomes) -> None:
        """Add the scored rows among ``outcomes``."""
        reached = np.searchsorted(np.array(THRESHOLDS, dtype=np.float32), outcomes.top, side="right")
        n = len(THRESHOLDS) + 1
        self.scored += np.bincount(reached[outcomes.scored], minlength=n)
        self.evaluated += np.bincount(reached[outcomes.evaluated], minlength=n)
        self.correct += np.bincount(reached[outcomes.correct], minlength=n)
        self.probability += exact_sums(outcomes.top[outcomes.scored], reached[outcomes.scored], n)

    def summary(self) -> list[dict[str, Any]]:
        """For each threshold: ``threshold``, ``rows`` and ``share`` accepted, ``evaluated`` rows and their ``accuracy``.

        ``expected_accuracy`` is the mean probability of the accepted rows.
        """
        scored, evaluated, correct, probability = (
            np.cumsum(counts[::-1])[::-1]
            for counts in (self.scored, self.evaluated, self.correct, self.probability)
        )
        table = []
        for k, threshold in enumerate(THRESHOLDS, start=1):
            accuracy = wilson(int(correct[k]), int(evaluated[k]))
            table.append(
                {
                    "threshold": threshold,
                    "rows": int(scored[k]),
                    "share": ratio(scored[k], scored[0]),
                    "evaluated": int(evaluated[k]),
                    "accuracy": accuracy.to_json() if accuracy else None,
                    "expected_accuracy": exact_mean(probability[k], int(scored[k])),
                }
            )
        return table
