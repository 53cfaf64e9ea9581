"""The rows of one update of a multi-label model: given and predicted labels, each 0 or 1."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.outcomes import ROUNDING, RowOutcomes
from batchscore.evaluation.temperature import undo_sigmoid_temperature
from batchscore.records import Predictions, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, slots=True)
class LabelSets:
    """``n`` rows and ``C`` labels. A *decision* is whether one row has one label: there are ``n * C``."""

    rows: RowOutcomes
    """Correct: every decision of the row is right. ``top``: confidence in the least sure decision of the row."""
    given: NDArray[np.bool_]
    """``[n, C]``; False where there is no known label."""
    predicted: NDArray[np.bool_]
    """``[n, C]``; False where not scored."""
    probabilities: NDArray[np.float32]
    """``[n, C]``; NaN where not scored."""

    @classmethod
    def of(cls, given: NDArray[np.integer[Any]], predictions: Predictions, n_labels: int) -> Self:
        """Compute the masks. Raises ``ValueError`` if the arrays do not belong together."""
        labels, predicted = (np.asarray(each, dtype=np.int8) for each in (given, predictions.predicted))
        _check(labels, predicted, predictions, n_labels)
        probabilities = np.clip(np.asarray(predictions.probabilities, dtype=np.float32), 0, 1)
        status = np.asarray(predictions.status)
        kind = labels.min(axis=1).astype(np.int64)  # 0 or 1 where there is a known label, else -1 or -2
        scored = (status == Status.OK) & (predicted.min(axis=1) >= 0)
        evaluated = scored & (kind >= 0)
        confidence = np.where(predicted > 0, probabilities, np.float32(1) - probabilities)
        rows = RowOutcomes(
            given=kind,
            status=status,
            n_tokens=np.asarray(predictions.n_tokens, dtype=np.int64),
            truncated=np.asarray(predictions.truncated, dtype=np.bool_),
            scored=scored,
            evaluated=evaluated,
            correct=evaluated & (labels == predicted).all(axis=1),
            top=np.where(scored, confidence.min(axis=1), np.float32(np.nan)),
        )
        return cls(rows, labels > 0, (predicted > 0) & scored[:, None], probabilities)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """``[n, C]``: the probability of each decision; NaN where not scored."""
        return np.where(self.predicted, self.probabilities, np.float32(1) - self.probabilities)

    @property
    def expected_right(self) -> NDArray[np.float64]:
        """``[n]``: the mean confidence in the row's decisions; NaN where not scored."""
        return mean_of_columns(self.confidence.astype(np.float64))

    def before(self, temperature: float) -> Self:
        """The same rows with the probabilities before temperature scaling."""
        return dataclasses.replace(
            self, probabilities=undo_sigmoid_temperature(self.probabilities, temperature)
        )


def mean_of_columns(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each row of ``values[n, C]``: float64 ``[n]``, added column by column, so that it depends on nothing else."""
    total = np.zeros(len(values))
    for column in range(values.shape[1]):
        total += values[:, column]
    return np.asarray(total / values.shape[1])


def _check(
    given: NDArray[np.int8], predicted: NDArray[np.int8], predictions: Predictions, n_labels: int
) -> None:
    n = len(predicted)
    shapes = (given.shape, predicted.shape, predictions.probabilities.shape)
    lengths = (predictions.status, predictions.n_tokens, predictions.truncated)
    if any(shape != (n, n_labels) for shape in shapes) or any(len(column) != n for column in lengths):
        raise ValueError(
            f"columns of one update differ: {n} predictions of {n_labels} labels, arrays {shapes}"
        )
    for name, values, least in (("given", given, -2), ("predicted", predicted, -1)):
        if n and (values.max() > 1 or values.min() < least):
            raise ValueError(f"a {name} label is neither 0 nor 1")
        is_mixed = (values.min(axis=1) < 0) & (values.min(axis=1) != values.max(axis=1))
        if is_mixed.any():
            raise ValueError(f"a row has {name} labels that are known in part")
    probabilities = predictions.probabilities[np.asarray(predictions.status) == Status.OK]
    if probabilities.size and not (probabilities.min() >= -ROUNDING and probabilities.max() <= 1 + ROUNDING):
        raise ValueError("a scored row has a probability that is not between 0 and 1")
