"""Spearman's rank correlation from counts by cell, with a bound on its error.

The ranks of all rows do not fit in constant memory. Rows that share a cell of :mod:`cells` in one coordinate are taken as
ties there: each gets the mean of their true ranks. So a true rank is that mean plus a deviation whose mean in the cell is
0, and whose variance in a cell of k rows is at most that of k ranks in a row, (k^2 - 1) / 12. With R the mean ranks, d the
deviations of the two coordinates x and y, and V their variances, it follows that

    cov(true x, true y) = cov(R_x, R_y) + E[R_x d_y] + E[d_x R_y] + E[d_x d_y],
    |E[R_x d_y]| <= sqrt(mean variance of R_x among the rows of a cell of y * V_dy)   and so on (Cauchy and Schwarz),
    V(true x) between V(R_x) and V(R_x) + V_dx,

which bounds the true correlation. Both deviations are 0 where each cell holds a single number.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.evaluation.cells import Cells


class Correlation(NamedTuple):
    """A rank correlation, and a bound on its error."""

    value: float
    error_bound: float


class _Ranks(NamedTuple):
    """One coordinate: the cell of each point ``[m]``, its mean rank (centred, as a share of all rows), and their variances."""

    cell: NDArray[np.int64]
    rank: NDArray[np.float64]
    variance: float
    deviation: float
    """Largest variance of the true ranks about the mean ones."""


def spearman(cells: Cells) -> Correlation | None:
    """Spearman's correlation of the two coordinates; None if one of them has a single number, or without rows."""
    cells.settle()
    x, y = (_ranks(cells, axis) for axis in (0, 1))
    if not x.variance or not y.variance:
        return None
    weights = cells.counts / int(cells.counts.sum())
    covariance = float((weights * x.rank * y.rank).sum())
    value = covariance / math.sqrt(x.variance * y.variance)
    slack = math.sqrt(_within(weights, x.rank, y.cell) * y.deviation)
    slack += math.sqrt(_within(weights, y.rank, x.cell) * x.deviation)
    slack += math.sqrt(x.deviation * y.deviation)
    largest = math.sqrt((x.variance + x.deviation) * (y.variance + y.deviation))
    scales = (math.sqrt(x.variance * y.variance), largest)
    ends = [(covariance + side) / scale for side in (-slack, slack) for scale in scales]
    low, high = max(-1.0, min(ends)), min(1.0, max(ends))
    value = max(-1.0, min(1.0, value))
    return Correlation(value, max(0.0, value - low, high - value))


def _ranks(cells: Cells, axis: int) -> _Ranks:
    is_exact = cells.is_exact[axis]
    rows = max(1, int(cells.counts.sum()))
    _, cell = np.unique(cells.keys[:, axis], return_inverse=True)
    held = np.bincount(cell, weights=cells.counts)
    middle = (np.cumsum(held) - held / 2 - rows / 2) / rows
    variance = float((held * middle**2).sum()) / rows
    deviation = 0.0 if is_exact else float((held * (held**2 - 1)).sum()) / 12 / rows**3
    return _Ranks(cell, middle[cell], variance, deviation)


def _within(weights: NDArray[np.float64], rank: NDArray[np.float64], cell: NDArray[np.int64]) -> float:
    """The mean variance of ``rank`` among the rows of each cell of the other coordinate."""
    held = np.bincount(cell, weights=weights)
    mean = np.bincount(cell, weights=weights * rank) / held
    return max(0.0, float((weights * (rank - mean[cell]) ** 2).sum()))
