"""Mergeable tallies: all sums are integers, which add up in any order.

A sum of floats depends on the order of its terms, so no sum is a float. Each term is rounded to a multiple of
2**-40 and added as an integer (:func:`exact_sums`): any split of the rows into parts, and any order of merging them,
gives the same integers and so bit-identical results. The rounding moves a mean by at most 2**-41 (4.6e-13); a float32
of at least 2**-16 is not rounded at all.
"""

from __future__ import annotations

import base64
import dataclasses
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from batchscore.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Counts: TypeAlias = "NDArray[np.int64]"
ExactSums: TypeAlias = "NDArray[np.object_]"
"""Python integers, each a sum in units of 2**-40."""

FIXED_BITS = 40
_LOW_BITS = 20
_CHUNK = 1 << 24
_INLINE = 1024
"""Arrays up to this size are stored as a list; larger ones are compressed."""


def exact_sums(
    values: NDArray[np.floating[Any]], bins: NDArray[np.int64] | None = None, n_bins: int = 1
) -> ExactSums:
    """Sum ``values[n]`` (0 <= value < 64) by bin, as integers in units of 2**-40: an object array ``[n_bins]``.

    The integers are split in two halves that are exact in float64: 2**24 rows of less than 2**26 stay under 2**53.

    >>> [total / 2**40 for total in exact_sums(np.array([0.5, 0.25, 2.0]), np.array([0, 0, 1]), 2)]
    [0.75, 2.0]
    """
    totals = exact_zeros(n_bins)
    for start in range(0, len(values), _CHUNK):
        part = np.asarray(values[start : start + _CHUNK], dtype=np.float64)
        index = np.zeros(len(part), dtype=np.int64) if bins is None else bins[start : start + _CHUNK]
        fixed = np.rint(np.ldexp(part, FIXED_BITS)).astype(np.int64)
        high = np.bincount(index, weights=fixed >> _LOW_BITS, minlength=n_bins)
        low = np.bincount(index, weights=fixed & ((1 << _LOW_BITS) - 1), minlength=n_bins)
        totals += [(int(h) << _LOW_BITS) + int(rest) for h, rest in zip(high, low, strict=True)]
    return totals


def exact_zeros(n: int) -> ExactSums:
    """``n`` exact sums of nothing."""
    return np.array([0] * n, dtype=object)


def exact_value(total: int) -> float:
    """An exact sum as a float, rounded once."""
    return int(total) / (1 << FIXED_BITS)


def exact_mean(total: int, rows: int) -> float | None:
    """The mean of ``rows`` terms from their exact sum, rounded once; None without rows."""
    return int(total) / (rows << FIXED_BITS) if rows else None


def ratio(part: float, whole: float) -> float | None:
    """``part / whole`` as a plain float; None if undefined."""
    return float(part) / float(whole) if whole else None


@dataclasses.dataclass(slots=True)
class Tally:
    """A record of integers, int64 arrays and exact sums that adds up field by field."""

    def merge(self, other: Self) -> None:
        """Add the rows of ``other``."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def to_state(self) -> dict[str, Any]:
        """Every field as JSON values; :meth:`load_state` is the inverse."""
        return {field.name: _pack(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def load_state(self, state: Mapping[str, Any]) -> Self:
        """Load the numbers of ``state``, which must have the shapes of this (empty) tally.

        Raises :class:`DataError` if they do not.
        """
        try:
            for field in dataclasses.fields(self):
                setattr(self, field.name, _unpack(state[field.name], getattr(self, field.name)))
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise DataError(
                f"the stored {type(self).__name__} cannot be read ({error}); run the scoring again"
            ) from error
        return self


def _pack(value: int | NDArray[Any]) -> Any:
    if not isinstance(value, np.ndarray):
        return int(value)
    if value.dtype == object or value.size <= _INLINE:
        return value.tolist()
    return base64.b64encode(zlib.compress(value.astype("<i8").tobytes())).decode("ascii")


def _unpack(stored: Any, like: int | NDArray[Any]) -> Any:
    if not isinstance(like, np.ndarray):
        return int(stored)
    if isinstance(stored, str):
        raw = zlib.decompressobj().decompress(base64.b64decode(stored, validate=True), like.nbytes + 1)
        return np.frombuffer(raw, dtype="<i8").astype(np.int64).reshape(like.shape)
    array = np.array(stored, dtype=like.dtype)
    if array.shape != like.shape:
        raise ValueError(f"shape {array.shape}, expected {like.shape}")
    return array
