"""Compare two runs of a multi-label model over the same rows: which rows were fixed and broken, and which labels changed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.comparison import Comparison
from batchscore.evaluation.significance import Z95, Estimate
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
    sums: Counts
    """``[4]``: sums over evaluated rows of a and b before, and of a and b after, as in :class:`SetQuality`."""
    moments: Counts
    """``[4, 4]``: of their products."""

    @classmethod
    def empty(cls, n_labels: int) -> Self:
        """No rows yet."""
        shapes = (n_labels, n_labels, n_labels, n_labels, 4, (4, 4))
        return cls(Comparison.empty(1), *(np.zeros(shape, dtype=np.int64) for shape in shapes))

    def merge(self, other: Self) -> None:
        """Add the rows of ``other``."""
        self.rows.merge(other.rows)
        for field in dataclasses.fields(self)[1:]:
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

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
        terms = [
            term.astype(np.int64)
            for labels in (old, new)
            for term in (2 * (labels & truth).sum(axis=1), labels.sum(axis=1) + truth.sum(axis=1))
        ]
        table = np.stack(terms, axis=1)
        self.sums += table.sum(axis=0)
        self.moments += table.T @ table

    def micro_f1(self) -> dict[str, Any]:
        """``micro_f1_before``, ``micro_f1_after``, ``micro_f1_change`` {value, low, high}; None where undefined.

        The change is paired: with a and b of each row and the totals A and B, the variance is the sum over rows of the square of
        (a - F b) / B now less the same before (delta method; each sum to 0).
        """
        a, b, a_now, b_now = (int(total) for total in self.sums)
        before, after = ratio(a, b), ratio(a_now, b_now)
        change = None
        if before is not None and after is not None:
            slopes = np.array([-1 / b, before / b, 1 / b_now, -after / b_now])
            variance = float((self.moments * slopes[:, None] * slopes).sum())
            spread = Z95 * math.sqrt(max(0.0, variance))
            value = after - before
            change = Estimate(value, max(-1.0, value - spread), min(1.0, value + spread)).to_json()
        return {"micro_f1_before": before, "micro_f1_after": after, "micro_f1_change": change}

    def summary(self, labels: Sequence[str]) -> dict[str, Any]:
        """JSON values: what :meth:`Comparison.summary` has, with rows right if all their labels are.

        Those of :meth:`micro_f1`; ``changes`` is {label: {added, removed, fixed, broken}}; ``hamming_change`` the change of the Hamming loss, None
        without evaluated rows.
        """
        found = self.rows.summary([])
        fixed, broken = int(self.decisions_fixed.sum()), int(self.decisions_broken.sum())
        columns = (self.added, self.removed, self.decisions_fixed, self.decisions_broken)
        names = ("added", "removed", "fixed", "broken")
        return found | {
            **self.micro_f1(),
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
