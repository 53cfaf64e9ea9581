"""How well a label's probability ranks the rows: ROC-AUC and average precision, one label against the rest.

Both need the order of all rows, which does not fit in constant memory. So rows are counted in bins of equal *relative*
width: a bin is the leading bits of the float32 p (p <= 0.5) or 1 - p (p > 0.5), so that 0.0001 and 0.0002, or 0.9998 and
0.9999, fall far apart. Rows in one bin are treated as ties; the resulting error is bounded from the same counts
(``error_bound``), and is 0 in bins that hold a single float32 value, as those near 1 do. Memory is constant: 56,323 bins a label up to 32 labels, fewer above.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from batchscore.evaluation.tally import Counts, Tally

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.evaluation.outcomes import Outcomes

CURVE_POINTS = 50
_MANTISSA = 23
_LOWEST = 127 - 33
"""Biased exponent of 2**-33: smaller probabilities share one bin."""
_LOWEST_REST = 127 - 24
"""Biased exponent of 2**-24, the smallest 1 - p > 0 in float32 for p > 0.5."""


class Area(NamedTuple):
    """An area under a curve, and a bound on its error."""

    value: float
    error_bound: float


@dataclasses.dataclass(slots=True)
class Ranking(Tally):
    """Tally of the evaluated rows: ``counts[C, 2, B]``, by label, whether it is the given one, and bin."""

    counts: Counts

    @classmethod
    def empty(cls, n_labels: int) -> Self:
        """No rows yet."""
        return cls(np.zeros((n_labels, 2, n_bins(_bits(n_labels))), dtype=np.int64))

    def update(self, outcomes: Outcomes) -> None:
        """Add the evaluated rows among ``outcomes``."""
        given = outcomes.given[outcomes.evaluated]
        probabilities = outcomes.probabilities[outcomes.evaluated]
        self.add(given[:, None] == np.arange(len(self.counts)), probabilities)

    def add(self, is_given: NDArray[np.bool_], probabilities: NDArray[np.float32]) -> None:
        """Add rows by whether they have each label, and its probability (both ``[n, C]``)."""
        bits = _bits(len(self.counts))
        for label, counts in enumerate(self.counts):
            bins = bin_of(probabilities[:, label], bits)
            np.add.at(counts, (is_given[:, label].astype(np.int64), bins), 1)

    def roc_auc(self) -> list[Area | None]:
        """Area under the ROC curve of each label; None without both positives and negatives."""
        is_exact = is_single_valued(_bits(len(self.counts)))
        return [roc_auc(negatives, positives, is_exact) for negatives, positives in self.counts]

    def average_precision(self) -> list[Area | None]:
        """Average precision of each label; None without rows of that label."""
        is_exact = is_single_valued(_bits(len(self.counts)))
        return [average_precision(negatives, positives, is_exact) for negatives, positives in self.counts]

    def curves(self) -> list[tuple[list[float], list[float]]]:
        """The precision-recall curve of each label, see :func:`precision_recall`."""
        return [self.curve(label) for label in range(len(self.counts))]

    def curve(self, label: int) -> tuple[list[float], list[float]]:
        """That of one label."""
        return precision_recall(*self.counts[label])


def macro(areas: list[Area | None]) -> Area | None:
    """Mean over the labels that have a value, also of the error bounds; None if none has."""
    known = [area for area in areas if area is not None]
    if not known:
        return None
    return Area(
        math.fsum(a.value for a in known) / len(known), math.fsum(a.error_bound for a in known) / len(known)
    )


def areas_json(areas: Iterable[Area | None]) -> list[dict[str, float] | None]:
    """Each as ``{"value": ..., "error_bound": ...}``, or None."""
    return [None if area is None else area._asdict() for area in areas]


def n_bins(bits: int) -> int:
    """Number of bins with ``bits`` bits of the mantissa: 32 octaves below 0.5, 23 above, and both ends.

    >>> n_bins(10)
    56323
    """
    return (32 << bits) + (23 << bits) + 3


def bin_of(probabilities: NDArray[np.float32], bits: int) -> NDArray[np.int64]:
    """The bin of each float32 probability; monotone in the probability.

    >>> bin_of(np.array([0, 0.5, 1], dtype=np.float32), 10).tolist()
    [0, 32769, 56322]
    """
    p = np.ascontiguousarray(probabilities, dtype=np.float32)
    shift = _MANTISSA - bits
    low = (p.view(np.int32) >> shift).astype(np.int64) - (_LOWEST << bits) + 1
    rest = ((np.float32(1) - p).view(np.int32) >> shift).astype(np.int64) - (_LOWEST_REST << bits) + 1
    return np.where(p <= 0.5, np.maximum(low, 0), n_bins(bits) - 1 - np.maximum(rest, 0))


def is_single_valued(bits: int) -> NDArray[np.bool_]:
    """``[B]``: whether the bin holds a single float32 value, so that its rows are true ties.

    These are 0.5, 1, and, for p > 0.5, octaves of 1 - p with no more steps of 2**-24 than bins.
    """
    is_single = np.zeros(n_bins(bits), dtype=np.bool_)
    is_single[-1 - ((bits + 1) << bits) :] = True
    is_single[(32 << bits) + 1] = True
    return is_single


def roc_auc(negatives: Counts, positives: Counts, is_exact: NDArray[np.bool_] | bool = False) -> Area | None:
    """Area under the ROC curve from counts by bin (both ``[B]``, in order of probability).

    The share of (positive, negative) pairs in the right order, a tied pair counting one half (Mann and Whitney 1947).
    The true value of a pair in one bin is between 0 and 1, so the error is at most half the share of such pairs, except
    in bins that are ``is_exact``.

    >>> roc_auc(np.array([2, 0]), np.array([1, 1]))
    Area(value=0.75, error_bound=0.25)
    """
    pairs = float(negatives.sum()) * float(positives.sum())
    if pairs == 0:
        return None
    below = (np.cumsum(negatives) - negatives).astype(np.float64)
    tied = positives * negatives.astype(np.float64)
    value = float((positives * below + tied / 2).sum()) / pairs
    return Area(value, float(np.where(is_exact, 0.0, tied).sum()) / 2 / pairs)


def average_precision(
    negatives: Counts, positives: Counts, is_exact: NDArray[np.bool_] | bool = False
) -> Area | None:
    """Average precision from counts by bin: sum over thresholds of the recall gained times the precision there.

    Let T and F be the rows of each kind above a bin that holds m positives and k negatives. Taken as ties they add
    m (T+m) / (T+m+F+k). Whatever their order, they add at most m (T+m) / (T+m+F), and at least, with all k
    negatives first, the sum of (T+i) / (T+i+F+k) for i = 1..m, which is no less than m - (F+k) ln(1 + m / (T+F+k)).
    Bins that are ``is_exact`` are true ties and add no error.
    """
    if positives.sum() == 0:
        return None
    order = np.flatnonzero(positives + negatives)[::-1]
    m, k = positives[order].astype(np.float64), negatives[order].astype(np.float64)
    above, wrong = np.cumsum(m) - m, np.cumsum(k) - k
    first = above + wrong + k
    tied = m * (above + m) / (first + m)
    most = m * (above + m) / np.maximum(above + m + wrong, 1)
    least = m - (wrong + k) * np.log1p(m / np.maximum(first, 1))
    is_open = ~np.broadcast_to(is_exact, positives.shape)[order]
    bound = max(float((most - tied)[is_open].sum()), float((tied - least)[is_open].sum()), 0.0)
    total = float(m.sum())
    return Area(float(tied.sum()) / total, bound / total)


def precision_recall(negatives: Counts, positives: Counts) -> tuple[list[float], list[float]]:
    """Recall and precision at up to 51 thresholds, highest first; both empty without positives.

    The first threshold is the highest probability; the others are where recall reaches 2 %, 4 % and so on.

    >>> precision_recall(np.array([2, 0]), np.array([1, 1]))
    ([0.5, 1.0], [1.0, 0.5])
    """
    total = int(positives.sum())
    if not total:
        return [], []
    order = np.flatnonzero(positives + negatives)[::-1]
    right, wrong = np.cumsum(positives[order]), np.cumsum(negatives[order])
    steps = -(-np.arange(1, CURVE_POINTS + 1) * total // CURVE_POINTS)  # rounded up
    at = np.unique(np.concatenate(([0], np.searchsorted(right, steps))))
    return (right[at] / total).tolist(), (right[at] / (right[at] + wrong[at])).tolist()


def _bits(n_labels: int) -> int:
    return max(4, 10 - max(0, math.ceil(math.log2(n_labels / 32))))
