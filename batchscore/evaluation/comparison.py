"""Compare two runs over the same rows: what was fixed, what was broken, and whether that is significant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.significance import mcnemar_p, paired_difference, wilson
from batchscore.evaluation.tally import Counts, Tally

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(slots=True)
class Comparison(Tally):
    """Tally of matched rows (the caller pairs them up)."""

    changes: Counts
    """``[C, C]``: rows predicted in both runs, by the label before (first index) and after (second)."""
    compared: int = 0
    """Matched rows with a prediction in both runs."""
    changed: int = 0
    """Those of them whose prediction differs."""
    not_compared: int = 0
    """Matched rows without a prediction in one of the runs."""
    evaluated: int = 0
    right_before: int = 0
    right_after: int = 0
    fixed: int = 0
    broken: int = 0
    both_wrong_changed: int = 0
    """Wrong in both runs, with different labels."""
    labels_compared: int = 0
    """Evaluated rows whose given label in the earlier run is known."""
    relabelled: int = 0
    """Those of them whose label differs."""

    @classmethod
    def empty(cls, n_labels: int) -> Self:
        """No rows yet."""
        return cls(np.zeros((n_labels, n_labels), dtype=np.int64))

    def update(
        self,
        given: NDArray[np.integer[Any]],
        before: NDArray[np.integer[Any]],
        after: NDArray[np.integer[Any]],
        given_before: NDArray[np.integer[Any]] | None = None,
    ) -> None:
        """Add ``n`` rows: given labels (negative if unknown) and predictions of both runs (-1 if none).

        ``given_before``: given labels in the earlier run, negative if unknown.
        """
        self.count(given, before, after, given_before)
        both, n_labels = (before >= 0) & (after >= 0), len(self.changes)
        cells = np.bincount(before[both].astype(np.int64) * n_labels + after[both], minlength=n_labels**2)
        self.changes += cells.reshape(n_labels, n_labels)

    def count(
        self,
        given: NDArray[np.integer[Any]],
        before: NDArray[np.integer[Any]],
        after: NDArray[np.integer[Any]],
        given_before: NDArray[np.integer[Any]] | None = None,
    ) -> None:
        """Add rows to all but ``changes``; any numbers of 0 or more, equal where labels are equal."""
        both = (before >= 0) & (after >= 0)
        labels, old, new = given[both], before[both], after[both]
        known, was_right, is_right = labels >= 0, old == labels, new == labels
        labels_before = np.full(len(labels), -1) if given_before is None else given_before[both]
        has_both_labels = known & (labels_before >= 0)
        self.compared += len(labels)
        self.changed += int((old != new).sum())
        self.not_compared += int((~both).sum())
        self.evaluated += int(known.sum())
        self.right_before += int((known & was_right).sum())
        self.right_after += int((known & is_right).sum())
        self.fixed += int((known & ~was_right & is_right).sum())
        self.broken += int((known & was_right & ~is_right).sum())
        self.both_wrong_changed += int((known & ~was_right & ~is_right & (old != new)).sum())
        self.labels_compared += int(has_both_labels.sum())
        self.relabelled += int((has_both_labels & (labels_before != labels)).sum())

    def summary(self, labels: Sequence[str]) -> dict[str, Any]:
        """JSON values; those about accuracy are None without evaluated rows.

        ``rows`` compared, ``not_compared``, ``changed`` predictions, ``evaluated`` rows, ``fixed``, ``broken``,
        ``both_wrong_changed``, ``relabelled`` rows (evaluated ones whose given label changed; None if no label of the earlier
        run is known), ``accuracy_before`` and ``accuracy_after`` {value, low, high}, ``accuracy_change``
        {value, low, high} (paired, Bonett and Price), ``p_value`` (McNemar, exact, two-sided), ``changes`` {labels,
        counts: before x after}.
        """
        before, after = (wilson(right, self.evaluated) for right in (self.right_before, self.right_after))
        change = paired_difference(self.fixed, self.broken, self.evaluated)
        return {
            "rows": self.compared,
            "not_compared": self.not_compared,
            "changed": self.changed,
            "evaluated": self.evaluated,
            "fixed": self.fixed,
            "broken": self.broken,
            "both_wrong_changed": self.both_wrong_changed,
            "relabelled": self.relabelled if self.labels_compared else None,
            "accuracy_before": before.to_json() if before else None,
            "accuracy_after": after.to_json() if after else None,
            "accuracy_change": change.to_json() if change else None,
            "p_value": mcnemar_p(self.fixed, self.broken) if self.evaluated else None,
            "changes": {"labels": list(labels), "counts": self.changes.tolist()},
        }
