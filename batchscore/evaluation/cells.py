"""Counts of any finite numbers in bounded memory, without a range told beforehand and whatever the order of rows.

A float64's bits, read as an integer, are in the order of the numbers. Numbers that share all but the last ``shift`` of these
bits share a *cell*: a cell has a width relative to its numbers (at a shift of 44, 0.4 % at most). Cells start at a shift of 0,
one for each number; whenever there are more than ``most``, the shift grows until there are not. How many cells there
are at a shift only grows with more rows, so the final shift is the smallest at which all rows fit, in any order of rows and
merges: the same counts, bit by bit.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.errors import DataError
from batchscore.evaluation.tally import Counts, Tally

if TYPE_CHECKING:
    from numpy.typing import NDArray

Keys = Counts
_WAITING = 4
_MAGNITUDE = np.int64(2**63 - 1)
_LARGEST = int(np.float64(np.finfo(np.float64).max).view(np.int64))


def keys_of(values: NDArray[np.floating[Any]]) -> Keys:
    """Integers in the order of finite ``values``, of the same shape; 0.0 and -0.0 are one.

    >>> keys_of(np.array([-1.0, -0.0, 0.0, 1.0])).tolist()
    [-4607182418800017408, 0, 0, 4607182418800017408]
    """
    bits = np.ascontiguousarray(values, dtype=np.float64).view(np.int64)
    return np.where(bits >= 0, bits, -(bits & _MAGNITUDE))


def values_of(keys: Keys) -> NDArray[np.float64]:
    """The inverse of :func:`keys_of`; keys beyond the largest float give that."""
    size = np.minimum(np.abs(keys), _LARGEST)
    return np.copysign(np.ascontiguousarray(size).view(np.float64), keys.astype(np.float64))


@dataclasses.dataclass(slots=True)
class Cells(Tally):
    """Counts of points with ``d`` coordinates, in at most ``most`` cells."""

    most: int
    keys: Keys
    """``[m, d]``: each cell's key, shifted; in order."""
    counts: Counts
    """``[m]``."""
    shift: int = 0
    bits: Keys = dataclasses.field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    """``[d]``: the bits that any key has, unshifted: below the lowest of them, a cell holds a single number."""
    _waiting: list[Keys] = dataclasses.field(default_factory=list)
    """Points that are not in cells yet, ``[n, d]`` each; fewer than four times ``most``."""

    @classmethod
    def empty(cls, most: int, dimensions: int = 1) -> Self:
        """No rows yet."""
        keys = np.zeros((0, dimensions), dtype=np.int64)
        return cls(most, keys, np.zeros(0, dtype=np.int64), 0, np.zeros(dimensions, dtype=np.int64))

    def add(self, *coordinates: NDArray[np.floating[Any]]) -> None:
        """Add ``n`` points by their finite coordinates, each ``[n]``."""
        keys = np.stack([keys_of(each) for each in coordinates], axis=1)
        self.bits = self.bits | np.bitwise_or.reduce(np.abs(keys), axis=0, initial=0)
        self._waiting.append(keys)
        if sum(map(len, self._waiting)) >= _WAITING * self.most:  # sorting once for many parts
            self.settle()

    def merge(self, other: Self) -> None:
        """Add the points of ``other``."""
        self.settle()
        other.settle()
        shift = max(self.shift, other.shift)
        self.bits = self.bits | other.bits
        own, its = self.keys >> (shift - self.shift), other.keys >> (shift - other.shift)
        self.shift = shift
        self._fit(np.concatenate([own, its]), np.concatenate([self.counts, other.counts]))

    def settle(self) -> None:
        """Put the points that wait into cells."""
        if self._waiting:
            waiting = np.concatenate(self._waiting) >> self.shift
            self._waiting = []
            ones = np.ones(len(waiting), dtype=np.int64)
            self._fit(np.concatenate([self.keys, waiting]), np.concatenate([self.counts, ones]))

    def _fit(self, keys: Keys, counts: Counts) -> None:
        keys, counts = _summed(keys, counts)
        if len(keys) > self.most:  # the smallest shift that fits, by bisection
            more = bisect.bisect_left(
                range(64 - self.shift),
                x=True,
                key=lambda by: len(_summed(keys >> by, counts)[0]) <= self.most,
            )
            self.shift += more
            keys, counts = _summed(keys >> more, counts)
        self.keys, self.counts = keys, counts

    @property
    def is_exact(self) -> list[bool]:
        """``[d]``: whether each cell holds a single number in that coordinate."""
        self.settle()
        lowest = [int(bits) & -int(bits) for bits in self.bits]
        return [self.shift == 0 or not bit or bit >> self.shift > 0 for bit in lowest]

    def to_state(self) -> dict[str, Any]:
        """The cells as JSON values."""
        self.settle()
        return {
            "shift": self.shift,
            "bits": self.bits.tolist(),
            "keys": self.keys.tolist(),
            "counts": self.counts.tolist(),
        }

    def load_state(self, state: Mapping[str, Any]) -> Self:
        """Load the cells of ``state``; raises :class:`DataError` if they cannot be read."""
        try:
            self.shift = int(state["shift"])
            self.bits = np.array(state["bits"], dtype=np.int64).reshape(self.bits.shape)
            self.counts = np.array(state["counts"], dtype=np.int64)
            self.keys = np.array(state["keys"], dtype=np.int64).reshape(len(self.counts), len(self.bits))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the stored cells cannot be read ({error}); run the scoring again") from error
        return self

    def axis(self, number: int = 0) -> Axis:
        """The cells of one coordinate alone."""
        self.settle()
        keys, counts = _summed(self.keys[:, [number]], self.counts)
        return Axis(self.shift, keys[:, 0], counts, is_exact=self.is_exact[number])


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """Counts of numbers by cell, in order: ``keys[m]``, shifted, and ``counts[m]``."""

    shift: int
    keys: Keys
    counts: Counts
    is_exact: bool = False
    """Whether each cell holds a single number."""

    @property
    def lows(self) -> NDArray[np.float64]:
        """``[m]``: the end of each cell that is nearer to minus infinity."""
        return values_of(self.keys << self.shift)

    @property
    def highs(self) -> NDArray[np.float64]:
        """``[m]``: the largest number in each cell, or of the cell if it is not known."""
        if self.is_exact:
            return self.lows
        return values_of((self.keys << self.shift) + (1 << self.shift) - 1)

    def coarser(self, shift: int) -> Axis:
        """The same numbers in the cells of a larger shift."""
        keys, counts = _summed((self.keys >> (shift - self.shift))[:, None], self.counts)
        return Axis(shift, keys[:, 0], counts, is_exact=self.is_exact and shift == self.shift)

    def within(self, most: int) -> Axis:
        """The same numbers at the smallest shift with at most so many cells."""
        shift = self.shift
        while len(self.coarser(shift).keys) > most:
            shift += 1
        return self.coarser(shift)

    def quantile(self, share: float) -> float:
        """A number that at least this share of all are at most as large as: the end of a cell."""
        place = int(np.searchsorted(np.cumsum(self.counts), share * int(self.counts.sum()), side="left"))
        return float(self.highs[min(place, len(self.keys) - 1)])

    def mirrored(self) -> Axis:
        """The numbers with their signs changed, by their cells' lows."""
        return Axis(0, keys_of(-self.lows)[::-1], self.counts[::-1], is_exact=True)

    def between(self, edges: NDArray[np.float64]) -> tuple[list[float], list[int]]:
        """Ascending edges, and the rows between each two of them (from the first on, below the second).

        An edge inside of a cell is moved to where the cell begins, so that the counts are true; edges that fall together
        are one. Rows below the first and from the last edge on are not counted.
        """
        lows, highs = self.lows, self.highs
        place = np.searchsorted(lows, edges, side="right") - 1
        held = np.maximum(place, 0)
        is_inside = (place >= 0) & (edges > lows[held]) & (edges <= highs[held])
        cut = np.unique(np.where(is_inside, lows[held], edges))
        below = np.concatenate([[0], np.cumsum(self.counts)])[np.searchsorted(lows, cut, side="left")]
        return cut.tolist(), np.diff(below).tolist()

    def to_json(self) -> dict[str, Any]:
        """``shift``, ``lows`` (each cell's first number) and ``counts``; :meth:`from_json` is the inverse."""
        return {"shift": self.shift, "lows": self.lows.tolist(), "counts": self.counts.tolist()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Raises ``KeyError``, ``TypeError`` or ``ValueError`` if it cannot be read."""
        shift = int(stored["shift"])
        keys = keys_of(np.array(stored["lows"], dtype=np.float64)) >> shift
        counts = np.array(stored["counts"], dtype=np.int64)
        if len(keys) != len(counts) or not 0 <= shift < 64:
            raise ValueError("cells and counts differ")
        return cls(shift, keys, counts)


def _summed(keys: Keys, counts: Counts) -> tuple[Keys, Counts]:
    """Equal rows of ``keys[m, d]`` put together, in order."""
    if not len(keys):
        return keys, counts
    order = _order(keys)
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.concatenate([[True], (keys[1:] != keys[:-1]).any(axis=1)]))
    return keys[starts], np.add.reduceat(counts, starts)


def _order(keys: Keys) -> NDArray[np.intp]:
    """The places of the rows in ascending order; pairs of 32 bits are sorted as one number, in half the time."""
    if keys.shape[1] == 2 and int(np.abs(keys).max()) < 2**31:
        return np.argsort((keys[:, 0] << 32) + keys[:, 1] + 2**31)
    return np.lexsort(keys.T[::-1])
