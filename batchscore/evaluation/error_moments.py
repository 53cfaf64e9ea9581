"""How far predicted values are off: exact sums of errors and of the products that correlations need."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.evaluation.significance import Estimate, correlation_interval, mean_interval
from batchscore.evaluation.tally import ExactSums, Tally, exact_zeros
from batchscore.evaluation.wide_sums import (
    WIDE_BITS,
    quotient,
    wide_mean,
    wide_products,
    wide_root,
    wide_sums,
)

if TYPE_CHECKING:
    from batchscore.evaluation.numbers import Numbers

_SUMS = 7


@dataclasses.dataclass(slots=True)
class ErrorMoments(Tally):
    """Tally of the evaluated rows: their given numbers g, values v and errors e = v - g (rounded once)."""

    rows: int = 0
    sums: ExactSums = dataclasses.field(default_factory=lambda: exact_zeros(_SUMS))
    """``[7]``: wide sums of e, its absolute value, g, v, g^2, v^2 and g v."""
    squared_error: ExactSums = dataclasses.field(default_factory=lambda: exact_zeros(1))
    """``[1]``: wide sum of e^2."""

    def update(self, numbers: Numbers) -> None:
        """Add the evaluated rows among ``numbers``."""
        rows = numbers.rows.evaluated
        given, value, error = numbers.given[rows], numbers.value[rows], numbers.error
        self.rows += len(error)
        terms = (*map(wide_sums, (error, np.abs(error), given, value)),)
        products = (*(wide_products(*pair) for pair in ((given, given), (value, value), (given, value))),)
        self.sums += np.concatenate([*terms, *products])
        self.squared_error += wide_products(error, error)

    def summary(self) -> dict[str, Any]:
        """``mae`` {value, low, high}, ``rmse``, ``bias``, ``r2``, ``pearson`` {value, low, high}, and means of both sides.

        ``bias`` is the mean of value - given. ``r2`` is that of ``sklearn.metrics.r2_score``, None if only one number was given;
        ``pearson`` None too if only one value was predicted. Intervals are left out where rows are too few. Needs evaluated
        rows.
        """
        error, absolute, given, value = self.sums[:4]
        return {
            "mae": mean_json(int(absolute), int(self.squared_error[0]), self.rows),
            "rmse": wide_root(self.squared_error[0], self.rows),
            "bias": wide_mean(error, self.rows),
            "r2": self._r2(),
            "pearson": self._pearson(),
            "mean_given": wide_mean(given, self.rows),
            "mean_value": wide_mean(value, self.rows),
            "spread_given": wide_root(self._scatter(2, 2, 4), self.rows**2 << WIDE_BITS),
        }

    def _scatter(self, left: int, right: int, product: int) -> int:
        """The covariance times ``rows`` squared, in units of 2**-4800: rows * sum of x y - sum of x * sum of y."""
        return int(self.rows * int(self.sums[product]) << WIDE_BITS) - int(self.sums[left]) * int(
            self.sums[right]
        )

    def _r2(self) -> float | None:
        spread = self._scatter(2, 2, 4)
        if not spread:
            return None
        return 1 - quotient(self.rows * int(self.squared_error[0]) << WIDE_BITS, spread)

    def _pearson(self) -> dict[str, float] | None:
        both, spreads = self._scatter(2, 3, 6), self._scatter(2, 2, 4) * self._scatter(3, 3, 5)
        if not spreads:
            return None
        value = math.sqrt(both * both / spreads)
        return correlation_json(-value if both < 0 else value, self.rows)


def mean_json(total: int, squares: int, rows: int) -> dict[str, float]:
    """The mean of terms that are not negative, with its interval, from their wide sum and that of their squares."""
    mean = wide_mean(total, rows) or 0.0
    within = mean_interval(mean, spread_of(total, squares, rows), rows)
    return {"value": mean} if within is None else Estimate(mean, max(0.0, within[0]), within[1]).to_json()


def spread_of(total: int, squares: int, rows: int) -> float:
    """The standard deviation of ``rows`` terms (n - 1), from their wide sum and that of their squares; 0 for one row."""
    if rows < 2:
        return 0.0
    scatter = (rows * squares << WIDE_BITS) - total * total
    return wide_root(max(0, scatter), rows * (rows - 1) << WIDE_BITS) or 0.0


def correlation_json(value: float, rows: int, *, is_of_ranks: bool = False) -> dict[str, float]:
    """``{value, low, high}`` of a correlation; the value alone where rows are too few."""
    value = max(-1.0, min(1.0, value))
    within = correlation_interval(value, rows, is_of_ranks=is_of_ranks)
    return {"value": value} if within is None else {"value": value, "low": within[0], "high": within[1]}
