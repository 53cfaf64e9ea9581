"""The rows of one update: given labels, predictions, and which rows can be evaluated."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.temperature import undo_temperature
from batchscore.records import Predictions, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROUNDING = 1e-6
"""A probability may exceed [0, 1] by this much; it is clipped."""


@dataclasses.dataclass(frozen=True, slots=True)
class RowOutcomes:
    """What all tasks know of ``n`` rows. Those with status ``ok`` are *scored*; if they also have a known label, *evaluated*."""

    given: NDArray[np.int64]
    """``[n]``: 0 or more with a known label, -1 without one, -2 if its value is unknown."""
    status: NDArray[np.int8]
    n_tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    scored: NDArray[np.bool_]
    evaluated: NDArray[np.bool_]
    correct: NDArray[np.bool_]
    """``[n]``: evaluated, and predicted as given."""
    top: NDArray[np.float32]
    """``[n]``: the model's confidence that it is correct; NaN where not scored."""

    def __len__(self) -> int:
        return len(self.status)


@dataclasses.dataclass(frozen=True, slots=True)
class Outcomes(RowOutcomes):
    """``n`` rows with one of ``C`` labels each: ``given`` is its index, ``top`` the probability of the predicted one."""

    predicted: NDArray[np.int64]
    """``[n]``: -1 where not scored."""
    probabilities: NDArray[np.float32]
    """``[n, C]``; NaN where not scored."""

    @classmethod
    def of(cls, given: NDArray[np.integer[Any]], predictions: Predictions, n_labels: int) -> Self:
        """Compute the masks. Raises ``ValueError`` if the arrays do not belong together."""
        labels, predicted = (
            np.asarray(given, dtype=np.int64),
            np.asarray(predictions.predicted, dtype=np.int64),
        )
        probabilities = np.clip(np.asarray(predictions.probabilities, dtype=np.float32), 0, 1)
        _check(labels, predicted, predictions, n_labels)
        scored = (np.asarray(predictions.status) == Status.OK) & (predicted >= 0)
        top = probabilities[np.arange(len(predicted)), np.maximum(predicted, 0)]
        evaluated = scored & (labels >= 0)
        return cls(
            given=labels,
            predicted=predicted,
            probabilities=probabilities,
            status=np.asarray(predictions.status),
            n_tokens=np.asarray(predictions.n_tokens, dtype=np.int64),
            truncated=np.asarray(predictions.truncated, dtype=np.bool_),
            scored=scored,
            evaluated=evaluated,
            correct=evaluated & (labels == predicted),
            top=np.where(scored, top, np.float32(np.nan)),
        )

    def before(self, temperature: float) -> Self:
        """The same rows with ``top`` before temperature scaling."""
        top = np.full(len(self), np.nan, dtype=np.float32)
        rows, chosen = np.flatnonzero(self.scored), self.predicted[self.scored]
        top[rows] = undo_temperature(self.probabilities[rows], temperature)[np.arange(len(rows)), chosen]
        return dataclasses.replace(self, top=top)


def _check(
    given: NDArray[np.int64], predicted: NDArray[np.int64], predictions: Predictions, n_labels: int
) -> None:
    n = len(predicted)
    lengths = (given, predictions.status, predictions.n_tokens, predictions.truncated)
    if any(len(column) != n for column in lengths) or predictions.probabilities.shape != (n, n_labels):
        raise ValueError(
            f"columns of one update differ: {n} predictions, probabilities {predictions.probabilities.shape}"
        )
    if n and (max(given.max(), predicted.max()) >= n_labels or predicted.min() < -1):
        raise ValueError(f"a label index is outside the {n_labels} labels")
    probabilities = predictions.probabilities[np.asarray(predictions.status) == Status.OK]
    if probabilities.size and not (probabilities.min() >= -ROUNDING and probabilities.max() <= 1 + ROUNDING):
        raise ValueError("a scored row has a probability that is not between 0 and 1")
