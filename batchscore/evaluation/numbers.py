"""The rows of one update of a regression: given numbers, predicted values, and which rows can be evaluated."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.outcomes import RowOutcomes
from batchscore.records import UNKNOWN_LABEL, UNLABELLED, Predictions, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, slots=True)
class Numbers:
    """``n`` rows with one number each."""

    rows: RowOutcomes
    """Correct: within the tolerance, if there is one. ``top`` is NaN: a regression says nothing of how sure it is."""
    given: NDArray[np.float64]
    """``[n]``: 0 without a known number."""
    value: NDArray[np.float64]
    """``[n]``: 0 where not scored."""

    @classmethod
    def of(cls, given: NDArray[np.floating[Any]], predictions: Predictions, tolerance: float | None) -> Self:
        """Compute the masks. Raises ``ValueError`` if the arrays do not belong together, or a scored value is not finite."""
        numbers = np.asarray(given, dtype=np.float64)
        values = np.asarray(predictions.predicted, dtype=np.float64)
        scored = np.asarray(predictions.status) == Status.OK
        _check(numbers, values, predictions, scored)
        is_known = np.isfinite(numbers)
        evaluated = scored & is_known
        kind = np.where(is_known, 0, np.where(np.isnan(numbers), UNLABELLED, UNKNOWN_LABEL)).astype(np.int64)
        numbers, values = np.where(is_known, numbers, 0.0), np.where(scored, values, 0.0)
        is_near = np.zeros(len(values), dtype=np.bool_)
        if tolerance is not None:
            is_near = np.abs(values - numbers) <= tolerance
        rows = RowOutcomes(
            given=kind,
            status=np.asarray(predictions.status),
            n_tokens=np.asarray(predictions.n_tokens, dtype=np.int64),
            truncated=np.asarray(predictions.truncated, dtype=np.bool_),
            scored=scored,
            evaluated=evaluated,
            correct=evaluated & is_near,
            top=np.full(len(values), np.nan, dtype=np.float32),
        )
        return cls(rows, numbers, values)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def error(self) -> NDArray[np.float64]:
        """``[m]``: value - given of the evaluated rows."""
        return (self.value - self.given)[self.rows.evaluated]


def _check(
    given: NDArray[np.float64],
    values: NDArray[np.float64],
    predictions: Predictions,
    scored: NDArray[np.bool_],
) -> None:
    n = len(values)
    lengths = (given, predictions.status, predictions.n_tokens, predictions.truncated)
    if given.ndim != 1 or any(len(column) != n for column in lengths):
        raise ValueError(f"columns of one update differ: {n} values, given {given.shape}")
    if not np.isfinite(values[scored]).all():
        raise ValueError("a scored row has a value that is not a finite number")
