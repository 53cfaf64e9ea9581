"""The rows of a regression that are furthest off: a list to check, without a claim that their given numbers are wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FarOff:
    """Ranks labelled rows by how far they are off; the passes are those of :class:`LabelIssues`."""

    def __init__(self, tolerance: float | None = None) -> None:
        self._tolerance = tolerance
        self._labelled = self._mismatches = 0

    def update_thresholds(self, given: NDArray[np.floating[Any]], probabilities: NDArray[np.float32]) -> None:
        """First pass: there is nothing to learn."""

    def quality(
        self,
        given: NDArray[np.floating[Any]],
        probabilities: NDArray[np.float32],
        predicted: NDArray[np.floating[Any]] | None = None,  # noqa: ARG002 - the same values
    ) -> NDArray[np.float32]:
        """Second pass: ``-abs(value - given)``, float32 ``[n]``, NaN without a known number or a value."""
        numbers, values = np.asarray(given, dtype=np.float64), probabilities[:, 0].astype(np.float64)
        is_known = np.isfinite(numbers) & ~np.isnan(values)
        off = np.abs(np.where(is_known, values - np.where(is_known, numbers, 0.0), np.nan))
        self._labelled += int(is_known.sum())
        if self._tolerance is not None:
            self._mismatches += int((off > self._tolerance).sum())
        with np.errstate(over="ignore"):
            return (-off).astype(np.float32)

    def is_label_issue(self, quality: NDArray[np.float32]) -> NDArray[np.bool_]:
        """None is: how far off a value is does not tell whether the model or the given number is wrong."""
        return np.zeros(len(quality), dtype=np.bool_)

    def summary(self) -> dict[str, Any]:
        """``labelled`` rows, the ``tolerance``, and the rows that are further off (``beyond``); None without one."""
        beyond = None if self._tolerance is None else self._mismatches
        return {"labelled": self._labelled, "tolerance": self._tolerance, "beyond": beyond}
