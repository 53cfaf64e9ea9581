"""Compare two runs of a multi-label model over the same rows: which rows were fixed and broken, and which labels changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.comparison import Comparison
from batchscore.evaluation.slice_changes import SliceChanges
from batchscore.evaluation.tally import Counts, Tally, ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.evaluation.slices import Columns

    Sets = NDArray[np.integer[Any]]


def numbered(*arrays: Sets) -> list[NDArray[np.int64]]:
    """Every distinct set of labels in ``arrays``, each ``[n, C]``, as a number of its own, ``[n]``; a row below 0 as its first entry.

    >>> [each.tolist() for each in numbered(np.array([[0, 1], [-1, -1]]), np.array([[0, 1], [0, 0]]))]
    [[1, -1], [1, 0]]
    """
    stacked = np.ascontiguousarray(np.concatenate(arrays), dtype=np.int8)
    _, number = np.unique(np.maximum(stacked, 0), axis=0, return_inverse=True)
    codes = np.where(stacked[:, 0] < 0, stacked[:, 0], number.reshape(-1)).astype(np.int64)
    return np.split(codes, np.cumsum([len(array) for array in arrays])[:-1])


@dataclass(slots=True)
class LabelSetComparison(Tally):
    """Tally of matched rows (the caller pairs them up)."""

    rows: Comparison
    """Rows as a whole: right if all labels are."""
    added: Counts
    """``[C]``: rows where the label is predicted now, and was not before."""
    removed: Counts
    decisions_fixed: Counts
    """``[C]``: evaluated rows whose label was wrongly predicted or lacking before, and is right now."""
    decisions_broken: Counts

    @classmethod
    def empty(cls, n_labels: int) -> Self:
        """No rows yet."""
        return cls(Comparison.empty(1), *(np.zeros(n_labels, dtype=np.int64) for _ in range(4)))

    def merge(self, other: Self) -> None:
        """Add the rows of ``other``."""
        self.rows.merge(other.rows)
        for name in ("added", "removed", "decisions_fixed", "decisions_broken"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def update(self, given: Sets, before: Sets, after: Sets, given_before: Sets | None = None) -> None:
        """Add ``n`` rows, each array ``[n, C]``: given labels (-1 or -2 if unknown) and predictions of both runs (-1 if none).

        ``given_before``: given labels in the earlier run, likewise.
        """
        given, before, after = (np.asarray(each, dtype=np.int8) for each in (given, before, after))
        labels_before = np.full_like(given, -1) if given_before is None else np.asarray(given_before)
        self.rows.count(*numbered(given, before, after, labels_before))
        both = (before[:, 0] >= 0) & (after[:, 0] >= 0)
        old, new = before[both] > 0, after[both] > 0
        self.added += (new & ~old).sum(axis=0)
        self.removed += (old & ~new).sum(axis=0)
        is_known = given[both, 0] >= 0
        truth, old, new = given[both][is_known] > 0, old[is_known], new[is_known]
        self.decisions_fixed += ((old != truth) & (new == truth)).sum(axis=0)
        self.decisions_broken += ((old == truth) & (new != truth)).sum(axis=0)

    def summary(self, labels: Sequence[str]) -> dict[str, Any]:
        """JSON values: what :meth:`Comparison.summary` has, with rows right if all their labels are.

        ``changes`` is {label: {added, removed, fixed, broken}}; ``hamming_change`` the change of the Hamming loss, None
        without evaluated rows.
        """
        found = self.rows.summary([])
        fixed, broken = int(self.decisions_fixed.sum()), int(self.decisions_broken.sum())
        columns = (self.added, self.removed, self.decisions_fixed, self.decisions_broken)
        names = ("added", "removed", "fixed", "broken")
        return found | {
            "hamming_change": ratio(broken - fixed, self.rows.evaluated * len(labels)),
            "changes": {
                label: dict(zip(names, (int(column[k]) for column in columns), strict=True))
                for k, label in enumerate(labels)
            },
        }


class LabelSetSliceChanges(SliceChanges):
    """As :class:`SliceChanges`, from sets of labels ``[n, C]``."""

    def update(
        self,
        given: Sets,
        before: Sets,
        after: Sets,
        lengths: tuple[NDArray[np.bool_], NDArray[np.integer[Any]]],
        columns: Columns,
    ) -> None:
        """Add ``n`` rows as :meth:`LabelSetComparison.update` takes them."""
        labels, old, new = numbered(given, before, after)
        SliceChanges.update(self, labels, old, new, lengths, columns)
