"""Exact sums of any finite floats, also of products: integers in units of 2**-2400, which add up in any order.

:mod:`tally` rounds terms between 0 and 64 to 2**-40, which suits probabilities. The values of a regression have any size and
sign, and differences of their sums would lose what rounding leaves. A float64 is an integer of 53 bits times a power of
two, so terms are added by their exponent, each half of the 53 bits apart: nothing is rounded until the end.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.evaluation.tally import exact_zeros

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.evaluation.tally import ExactSums

WIDE_BITS = 2400
"""Even, and more than the least bit of a product of two float64: 2**-2148, less 106 for its lower half and 53 for its own bits."""
_BITS, _LOW_BITS = 53, 26
_CHUNK = 1 << 24
_GUARD = 128
_SPLIT = float(2**27 + 1)


def wide_sums(
    values: NDArray[np.floating[Any]], bins: NDArray[np.int64] | None = None, n_bins: int = 1
) -> ExactSums:
    """Sum finite ``values[n]`` by bin, exactly: an object array ``[n_bins]`` of integers in units of 2**-2400.

    >>> [wide_value(total) for total in wide_sums(np.array([1e300, 1e-300, -1e300]))]
    [1e-300]
    """
    mantissas, exponents = np.frexp(np.asarray(values, dtype=np.float64))
    return _sums(mantissas, exponents, bins, n_bins)


def wide_products(
    left: NDArray[np.floating[Any]],
    right: NDArray[np.floating[Any]],
    bins: NDArray[np.int64] | None = None,
    n_bins: int = 1,
) -> ExactSums:
    """Sum the products of finite ``left[n]`` and ``right[n]``, each exact: its rounding error is added too (Dekker 1971)."""
    a, exponents_a = np.frexp(np.asarray(left, dtype=np.float64))
    b, exponents_b = np.frexp(np.asarray(right, dtype=np.float64))
    product, exponents = a * b, exponents_a + exponents_b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    error = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    total = _sums(*_shifted(product, exponents), bins, n_bins)
    total += _sums(*_shifted(error, exponents), bins, n_bins)
    return total


def _halves(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each value as a sum of two of 26 bits (Veltkamp)."""
    scaled = values * _SPLIT
    high = scaled - (scaled - values)
    return high, values - high


def _shifted(
    values: NDArray[np.float64], exponents: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    mantissas, more = np.frexp(values)
    return mantissas, exponents + more


def _sums(
    mantissas: NDArray[np.float64],
    exponents: NDArray[np.int32],
    bins: NDArray[np.int64] | None,
    n_bins: int,
) -> ExactSums:
    """Sums of ``mantissas * 2**exponents``; the halves of 2**24 integers of 53 bits stay exact in float64."""
    totals = exact_zeros(n_bins)
    for start in range(0, len(mantissas), _CHUNK):
        part = slice(start, start + _CHUNK)
        whole = np.ldexp(mantissas[part], _BITS).astype(np.int64)
        sizes, place = np.unique(exponents[part], return_inverse=True)
        index = place * n_bins + (0 if bins is None else bins[part])
        cells = len(sizes) * n_bins
        high = np.bincount(index, weights=whole >> _LOW_BITS, minlength=cells)
        low = np.bincount(index, weights=whole & ((1 << _LOW_BITS) - 1), minlength=cells)
        for cell in np.flatnonzero((high != 0) | (low != 0)):
            size, place_of_bin = divmod(int(cell), n_bins)
            total = (int(high[cell]) << _LOW_BITS) + int(low[cell])
            totals[place_of_bin] += total << (WIDE_BITS - _BITS + int(sizes[size]))
    return totals


def wide_value(total: int) -> float:
    """A sum as a float, rounded once; the largest float where it is larger."""
    return quotient(int(total), 1 << WIDE_BITS)


def wide_mean(total: int, rows: int) -> float | None:
    """The mean of ``rows`` terms from their sum, rounded once; None without rows."""
    return quotient(int(total), rows << WIDE_BITS) if rows else None


def wide_root(total: int, rows: int) -> float | None:
    """The square root of the mean of ``rows`` terms that are not negative; None without rows.

    >>> wide_root(wide_products(np.array([3.0, 4.0]), np.array([3.0, 4.0]))[0], 1)
    5.0
    """
    if not rows:
        return None
    return quotient(math.isqrt((int(total) << 2 * _GUARD) // rows), 1 << (WIDE_BITS // 2 + _GUARD))


def quotient(part: int, whole: int) -> float:
    """``part / whole`` rounded once; the largest float, with its sign, where it is larger. ``whole`` is positive."""
    try:
        return part / whole
    except OverflowError:
        return -sys.float_info.max if part < 0 else sys.float_info.max
