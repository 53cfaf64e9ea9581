"""What was accepted tonight, and whether the promise stands by the labels that came along."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.acceptance import is_accepted
from batchscore.evaluation.significance import clopper_pearson, most_share
from batchscore.evaluation.tally import Counts, Tally, ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.config import Acceptance
    from batchscore.records import Predictions


@dataclasses.dataclass(slots=True)
class AcceptedRows(Tally):
    """Rows by predicted label; every array is ``[C]``."""

    rows: int
    """All of them, those without a prediction too, which are for people."""
    accepted: Counts
    evaluated: Counts
    """Accepted ones with a known label."""
    right: Counts

    @classmethod
    def empty(cls, n_labels: int) -> Self:
        """No rows yet."""
        return cls(0, *(np.zeros(n_labels, dtype=np.int64) for _ in range(3)))

    def update(
        self, given: NDArray[np.integer[Any]], predictions: Predictions, thresholds: Sequence[float | None]
    ) -> None:
        """Add ``n`` rows: given labels (negative if unknown) and predictions."""
        predicted = np.asarray(predictions.predicted, dtype=np.int64)
        best = predictions.probabilities[np.arange(len(predicted)), np.maximum(predicted, 0)]
        accepted = is_accepted(thresholds, predicted, best)
        known = accepted & (given >= 0)
        n_labels = len(self.accepted)
        self.rows += len(predicted)
        self.accepted += np.bincount(predicted[accepted], minlength=n_labels)
        self.evaluated += np.bincount(predicted[known], minlength=n_labels)
        self.right += np.bincount(predicted[known & (predicted == given)], minlength=n_labels)

    def summary(self, labels: Sequence[str], promise: Acceptance) -> dict[str, Any]:
        """The entry ``acceptance`` of the metrics, as JSON values.

        ``precision`` and ``confidence`` of the promise, ``calibration`` (where its rows come from); ``rows``, ``accepted``,
        ``review``, ``share`` accepted; ``evaluated`` accepted rows, ``right`` ones, ``accepted_precision`` {value, low, high} (exact, 95 %)
        and ``bound`` (see :meth:`_bound`), both None without any; ``per_label`` {label: {threshold, calibration {rows, accepted,
        right}, accepted, evaluated, right, precision {value, low, high}}}.
        """
        accepted, evaluated, right = (int(each.sum()) for each in (self.accepted, self.evaluated, self.right))
        precision = clopper_pearson(right, evaluated)
        return {
            "precision": promise.precision,
            "confidence": promise.confidence,
            "calibration": {
                "from": promise.source,
                "rows": sum(promise.rows),
                "computed_in": promise.computed_in,
            },
            "rows": self.rows,
            "accepted": accepted,
            "review": self.rows - accepted,
            "share": ratio(accepted, self.rows),
            "evaluated": evaluated,
            "right": right,
            "accepted_precision": precision.to_json() if precision else None,
            "bound": self._bound(1 - promise.confidence),
            "per_label": {label: self._of_label(k, promise) for k, label in enumerate(labels)},
        }

    def _bound(self, error: float) -> float | None:
        """The most that the worst label's precision can be, or that of all together, as far as chance allows; None without labels.

        An exact upper bound for each label with evaluated rows and for all rows, each with its part of ``error``
        (Bonferroni), and the least of them: where the promise stands, it is below the promised precision no more often than that.
        """
        groups = [
            *zip(self.right.tolist(), self.evaluated.tolist(), strict=True),
            (int(self.right.sum()), int(self.evaluated.sum())),
        ]
        tested = [(right, rows) for right, rows in groups if rows]
        return min((most_share(rows, right, error / len(tested)) for right, rows in tested), default=None)

    def _of_label(self, k: int, promise: Acceptance) -> dict[str, Any]:
        right, evaluated = int(self.right[k]), int(self.evaluated[k])
        precision = clopper_pearson(right, evaluated)
        chosen_on = {"rows": promise.rows[k], "accepted": promise.accepted[k], "right": promise.right[k]}
        return {
            "threshold": promise.thresholds[k],
            "calibration": chosen_on,
            "accepted": int(self.accepted[k]),
            "evaluated": evaluated,
            "right": right,
            "precision": precision.to_json() if precision else None,
        }
