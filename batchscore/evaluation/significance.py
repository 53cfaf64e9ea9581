"""Intervals and tests on counts, without scipy.

All functions take counts and return plain floats. Two-sided 95 % unless stated otherwise.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Z95 = 1.959963984540054
"""The 97.5 % point of the standard normal distribution."""


class Estimate(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """``{"value": ..., "low": ..., "high": ...}``."""
        return {"value": float(self.value), "low": float(self.low), "high": float(self.high)}


def wilson(successes: int, rows: int) -> Estimate | None:
    """A proportion with its Wilson score interval (Wilson 1927, JASA 22:209-212); None without rows.

    >>> [round(x, 4) for x in wilson(8, 10)]
    [0.8, 0.4902, 0.9433]
    """
    if rows == 0:
        return None
    share = successes / rows
    centre = share + Z95**2 / (2 * rows)
    spread = Z95 * math.sqrt(share * (1 - share) / rows + Z95**2 / (4 * rows**2))
    scale = 1 + Z95**2 / rows
    low = 0.0 if successes == 0 else max(0.0, (centre - spread) / scale)
    high = 1.0 if successes == rows else min(1.0, (centre + spread) / scale)
    return Estimate(share, low, high)


def two_proportion_p(wrong: int, rows: int, wrong_rest: int, rows_rest: int) -> float:
    """One-sided p-value that a group errs more often than the rest: pooled z test for two proportions.

    1 if undefined (no rows on one side, no errors, or only errors).
    """
    if not rows or not rows_rest:
        return 1.0
    pooled = (wrong + wrong_rest) / (rows + rows_rest)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / rows + 1 / rows_rest))
    if spread == 0:
        return 1.0
    z = (wrong / rows - wrong_rest / rows_rest) / spread
    return 0.5 * math.erfc(z / math.sqrt(2))


def fisher_p(wrong: int, rows: int, wrong_rest: int, rows_rest: int) -> float:
    """The same by Fisher's exact test: P(X >= ``wrong``), X hypergeometric with the margins fixed."""
    total, total_wrong = rows + rows_rest, wrong + wrong_rest
    first = (
        _log_choose(total_wrong, wrong)
        + _log_choose(total - total_wrong, rows - wrong)
        - _log_choose(total, rows)
    )
    k = np.arange(wrong, min(total_wrong, rows), dtype=np.float64)
    ratios = (total_wrong - k) * (rows - k) / ((k + 1) * (total - total_wrong - rows + k + 1))
    return min(1.0, math.exp(first) * (1.0 + float(np.cumprod(ratios).sum())))


def worse_p(wrong: int, rows: int, wrong_rest: int, rows_rest: int) -> float:
    """:func:`two_proportion_p`, or :func:`fisher_p` if a cell of the 2x2 table expects fewer than 5 rows (Cochran)."""
    if not rows or not rows_rest:
        return 1.0
    total, total_wrong = rows + rows_rest, wrong + wrong_rest
    smallest = min(rows, rows_rest) * min(total_wrong, total - total_wrong) / total
    test = fisher_p if smallest < 5 else two_proportion_p
    return test(wrong, rows, wrong_rest, rows_rest)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple tests (Holm 1979): compare each with 0.05.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def mcnemar_p(fixed: int, broken: int) -> float:
    """McNemar's exact two-sided p-value: twice the smaller tail of Binomial(fixed + broken, 1/2), at most 1.

    The largest term is computed in log space, the others by ratios of neighbours; terms more than ten standard
    deviations away add less than 1e-40 of it and are left out.

    >>> round(mcnemar_p(1, 5), 6)
    0.21875
    """
    n, k = fixed + broken, min(fixed, broken)
    if fixed == broken:
        return 1.0
    terms = min(k, 10 * math.isqrt(n) + 50)
    i = k - np.arange(terms, dtype=np.float64)
    tail = 1.0 + float(np.cumprod(i / (n - i + 1)).sum())
    return min(1.0, 2 * tail * math.exp(_log_choose(n, k) - n * math.log(2)))


def paired_difference(fixed: int, broken: int, rows: int) -> Estimate | None:
    """Change of a proportion on the same rows, (fixed - broken) / rows; None without rows.

    Interval: adjusted Wald of Bonett and Price (2012, J. Educ. Behav. Stat. 37:479-488), one row added to each kind of
    change.
    """
    if rows == 0:
        return None
    better, worse = (fixed + 1) / (rows + 2), (broken + 1) / (rows + 2)
    centre = better - worse
    spread = Z95 * math.sqrt((better + worse - centre**2) / (rows + 2))
    return Estimate((fixed - broken) / rows, max(-1.0, centre - spread), min(1.0, centre + spread))


def proportion_difference(right: int, rows: int, right_after: int, rows_after: int) -> Estimate | None:
    """Change of a proportion between two independent samples; None without rows on a side.

    Interval: hybrid score, from the Wilson intervals of both (Newcombe 1998, Statistics in Medicine 17:873-890, method 10).

    >>> [round(x, 4) for x in proportion_difference(48, 80, 56, 70)]
    [0.2, 0.0524, 0.3339]
    """
    before, after = wilson(right, rows), wilson(right_after, rows_after)
    if before is None or after is None:
        return None
    change = after.value - before.value
    low = change - math.hypot(after.value - after.low, before.high - before.value)
    high = change + math.hypot(after.high - after.value, before.value - before.low)
    return Estimate(change, max(-1.0, low), min(1.0, high))


def binomial_tail(rows: int, at_most: int, share: float) -> float:
    """P(X <= ``at_most``), X binomial of ``rows`` with ``share``: exact, from terms in log space; 0 < ``share`` < 1.

    >>> round(binomial_tail(10, 1, 0.1), 6)
    0.736099
    """
    if at_most >= rows:
        return 1.0
    if at_most < 0:
        return 0.0
    k = np.arange(1, at_most + 1, dtype=np.float64)
    steps = np.log((rows - k + 1) / k) + (math.log(share) - math.log1p(-share))
    terms = rows * math.log1p(-share) + np.concatenate([[0.0], np.cumsum(steps)])
    most = float(terms.max())
    return min(1.0, math.exp(most) * math.fsum(np.exp(terms - most)))


def clopper_pearson(successes: int, rows: int, error: float = 0.05) -> Estimate | None:
    """A proportion with its exact interval (Clopper and Pearson 1934, Biometrika 26:404-413); None without rows.

    Each side is missed with a probability of at most ``error / 2``.

    >>> [round(x, 4) for x in clopper_pearson(8, 10)]
    [0.8, 0.4439, 0.9748]
    """
    if rows == 0:
        return None
    low = 1 - most_share(rows, rows - successes, error / 2)
    return Estimate(successes / rows, low, most_share(rows, successes, error / 2))


def most_share(rows: int, successes: int, error: float) -> float:
    """The largest share for which no more than ``successes`` have a probability of ``error`` or more; by bisection."""
    if successes == rows:
        return 1.0
    low, high = successes / rows, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if binomial_tail(rows, successes, middle) > error else (low, middle)
    return high


def chi_square_99(degrees: int, among: int = 1) -> float:
    """The 99 % point of chi-square, by Wilson and Hilferty (1931); within 1 % for 2 degrees or more, 2 % for one.

    That of the largest ``among`` so many, by Bonferroni's correction.
    """
    if degrees == 0:
        return 0.0
    z = 2.3263478740408408 if among == 1 else statistics.NormalDist().inv_cdf(1 - 0.01 / among)
    return float(degrees * (1 - 2 / (9 * degrees) + z * math.sqrt(2 / (9 * degrees))) ** 3)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def student_95(degrees: int) -> float:
    """The 97.5 % point of Student's t: exact for one and two degrees, else within 0.1 %.

    By Cornish and Fisher's expansion (Abramowitz and Stegun 1964, *Handbook of Mathematical Functions*, 26.7.5).

    >>> [round(student_95(degrees), 2) for degrees in (1, 2, 3, 10, 1000)]
    [12.71, 4.3, 3.18, 2.23, 1.96]
    """
    if degrees <= 2:
        return (12.706204736432095, 4.302652729911275)[degrees - 1]
    z = Z95
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / float(degrees) ** (k + 1) for k, term in enumerate(terms))


def student_p(t: float, degrees: int) -> float:
    """The two-sided p-value of Student's t, by Wallace's normal approximation (1959, Ann. Math. Stat. 30:1124-1130).

    >>> round(student_p(2.228, 10), 3)
    0.05
    """
    scale = (8 * degrees + 1) / (8 * degrees + 3)
    return math.erfc(scale * math.sqrt(degrees * math.log1p(t * t / degrees) / 2))


def mean_interval(mean: float, spread: float, rows: int) -> tuple[float, float] | None:
    """The 95 % interval of a mean of ``rows`` values whose standard deviation is ``spread``: Student's t; None for one row."""
    if rows < 2:
        return None
    half = student_95(rows - 1) * spread / math.sqrt(rows)
    return mean - half, mean + half


def correlation_interval(value: float, rows: int, *, is_of_ranks: bool = False) -> tuple[float, float] | None:
    """The 95 % interval of a correlation: Fisher's z, of ranks with Bonett and Wright's variance (2000, Psychometrika 65:23-28).

    None for fewer than four rows.
    """
    if rows < 4:
        return None
    if abs(value) >= 1:
        return value, value
    half = Z95 * math.sqrt((1 + value**2 / 2 if is_of_ranks else 1) / (rows - 3))
    return math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)
