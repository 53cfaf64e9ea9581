"""How good the predicted sets of labels are: F1, exact matches, Hamming loss, each with what its interval needs."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.quality import LOG_LOSS_EPS
from batchscore.evaluation.significance import Z95, Estimate, wilson
from batchscore.evaluation.tally import Counts, ExactSums, Tally, exact_mean, exact_sums, exact_zeros, ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.evaluation.label_sets import LabelSets

MOST_MOMENTS = 256
"""With more labels, macro F1 has no interval: its moments would take more than 2 MB."""
MOST_PAIRS = 512
"""With more labels, it is not counted which labels are taken for which."""
_PAIRS_TOLD = 30


@dataclasses.dataclass(slots=True)
class SetQuality(Tally):
    """Tally of the evaluated rows of a multi-label model."""

    rows: int
    correct: int
    """Rows whose labels are all right."""
    given: Counts
    """``[C]``: rows that have the label."""
    predicted: Counts
    both: Counts
    """``[C]``: rows that have it and for which it is predicted."""
    row_moments: Counts
    """``[3]``: sums over rows of a^2, a b and b^2, where a = 2 (labels both given and predicted), b = labels given + predicted."""
    moments: Counts
    """``[2C, 2C]``: sums over rows of the products of a and b of single labels (first all a, then all b); empty with many labels."""
    taken_for: Counts
    """``[C, C]``: rows that lack a given label (first index) and have another one too many; empty with many labels."""
    log_loss: ExactSums
    """``[1]``: sum over rows of the mean over labels of -ln(probability of what was given)."""
    squared_error: ExactSums
    """``[C]``: sum over rows of (probability - given) squared."""

    @classmethod
    def empty(cls, n_labels: int) -> Self:
        """No rows yet."""
        moments = 2 * n_labels if n_labels <= MOST_MOMENTS else 0
        pairs = n_labels if n_labels <= MOST_PAIRS else 0
        given, predicted, both = (np.zeros(n_labels, dtype=np.int64) for _ in range(3))
        return cls(
            rows=0,
            correct=0,
            given=given,
            predicted=predicted,
            both=both,
            row_moments=np.zeros(3, dtype=np.int64),
            moments=np.zeros((moments, moments), dtype=np.int64),
            taken_for=np.zeros((pairs, pairs), dtype=np.int64),
            log_loss=exact_zeros(1),
            squared_error=exact_zeros(n_labels),
        )

    def update(self, sets: LabelSets) -> None:
        """Add the evaluated rows among ``sets``."""
        rows = sets.rows.evaluated
        given, predicted = sets.given[rows].astype(np.int64), sets.predicted[rows].astype(np.int64)
        both, either = given * predicted, given + predicted
        self.rows += len(given)
        self.correct += int(sets.rows.correct.sum())
        self.given += given.sum(axis=0)
        self.predicted += predicted.sum(axis=0)
        self.both += both.sum(axis=0)
        a, b = 2 * both.sum(axis=1), either.sum(axis=1)
        self.row_moments += np.array([(a * a).sum(), (a * b).sum(), (b * b).sum()])
        if self.moments.size:
            self.moments += _products(np.hstack([2 * both, either]), np.hstack([2 * both, either]))
        if self.taken_for.size:
            self.taken_for += _products(given - both, predicted - both)
        self._losses(given, sets.probabilities[rows].astype(np.float64))

    def _losses(self, given: NDArray[np.int64], probabilities: NDArray[np.float64]) -> None:
        n_labels = given.shape[1]
        loss = np.zeros(len(given))
        for label in range(n_labels):
            p, is_given = np.ascontiguousarray(probabilities[:, label]), given[:, label]
            likelihood = np.clip(np.where(is_given > 0, p, 1 - p), LOG_LOSS_EPS, 1 - LOG_LOSS_EPS)
            loss -= np.log(likelihood)
            error = p - is_given
            self.squared_error[label] += exact_sums(error * error)[0]
        self.log_loss += exact_sums(loss / n_labels)

    @property
    def subset_accuracy(self) -> Estimate | None:
        """Share of rows whose labels are all right, with its Wilson interval."""
        return wilson(self.correct, self.rows)

    @property
    def hamming_loss(self) -> float | None:
        """Share of wrong decisions."""
        wrong = int((self.given + self.predicted - 2 * self.both).sum())
        return ratio(wrong, self.rows * len(self.given))

    @property
    def micro_f1(self) -> Estimate | None:
        """F1 of all decisions together, 2 TP / (2 TP + FP + FN); None if no label was given or predicted.

        Interval: delta method for a ratio of sums over rows (Cochran 1977, *Sampling Techniques*, 6.4), as the labels of
        a row depend on each other: with a = 2 TP and b = 2 TP + FP + FN of each row, the variance is the sum of (a - F b)^2
        over the squared sum of b.
        """
        a, b = 2 * int(self.both.sum()), int((self.given + self.predicted).sum())
        if not b:
            return None
        value = a / b
        aa, ab, bb = (int(moment) for moment in self.row_moments)
        return _bounded(value, (aa - 2 * value * ab + value * value * bb) / b**2)

    def macro_f1(self) -> Estimate | float | None:
        """Mean F1 of the labels that were given or predicted at least once; None if none was.

        Interval: the same method, with the mean of (a - F b) / (sum of b) over labels for each row. Only the value with more
        than 256 labels.
        """
        sums = (self.given + self.predicted).astype(np.float64)
        seen = sums > 0
        if not seen.any():
            return None
        f1 = 2 * self.both[seen] / sums[seen]
        value = math.fsum(f1) / len(f1)
        if not self.moments.size:
            return value
        slopes = np.zeros((2, len(seen)))
        slopes[0, seen], slopes[1, seen] = 1 / sums[seen], -f1 / sums[seen]
        weights = slopes.ravel() / len(f1)
        return _bounded(value, float((self.moments * weights[:, None] * weights).sum()))

    def per_label(self) -> list[dict[str, Any]]:
        """``precision``, ``recall``, ``f1`` (None where undefined), ``support``, ``predicted``, ``missing``, ``extra`` and ``brier_score_loss``."""
        return [
            {
                "precision": ratio(both, predicted),
                "recall": ratio(both, given),
                "f1": ratio(2 * both, given + predicted),
                "support": int(given),
                "predicted": int(predicted),
                "missing": int(given - both),
                "extra": int(predicted - both),
                "brier_score_loss": exact_mean(error, self.rows),
            }
            for given, predicted, both, error in zip(
                self.given, self.predicted, self.both, self.squared_error, strict=True
            )
        ]

    def pairs(self) -> list[tuple[int, int, int]]:
        """The most frequent (missing label, extra label, rows with both), at most 30, most frequent first."""
        if not self.taken_for.size:
            return []
        order = np.argsort(-self.taken_for, axis=None, kind="stable")[:_PAIRS_TOLD]
        places = zip(*np.unravel_index(order, self.taken_for.shape), strict=True)
        return [(int(m), int(e), int(self.taken_for[m, e])) for m, e in places if self.taken_for[m, e]]

    def summary(self) -> dict[str, Any]:
        """``subset_accuracy``, ``micro_f1``, ``macro_f1``, ``hamming_loss``, ``log_loss``, ``brier_score_loss`` and ``labels_per_row``.

        ``log_loss`` and ``brier_score_loss`` are means over rows and labels; ``labels_per_row`` the mean number of labels
        ``given`` and ``predicted``. Needs evaluated rows.
        """
        decisions = self.rows * len(self.given)
        macro, subset, micro = self.macro_f1(), self.subset_accuracy, self.micro_f1
        return {
            "subset_accuracy": subset.to_json() if subset else None,
            "micro_f1": micro.to_json() if micro else None,
            "macro_f1": macro.to_json() if isinstance(macro, Estimate) else macro,
            "hamming_loss": self.hamming_loss,
            "log_loss": exact_mean(self.log_loss[0], self.rows),
            "brier_score_loss": exact_mean(sum(self.squared_error), decisions),
            "labels_per_row": {
                "given": ratio(int(self.given.sum()), self.rows),
                "predicted": ratio(int(self.predicted.sum()), self.rows),
            },
        }


def _products(left: NDArray[np.int64], right: NDArray[np.int64]) -> Counts:
    """``left.T @ right`` of small integers: float64 is exact below 2**53, and far faster."""
    return np.rint(left.T.astype(np.float64) @ right.astype(np.float64)).astype(np.int64)


def _bounded(value: float, variance: float) -> Estimate:
    spread = Z95 * math.sqrt(max(0.0, variance))
    return Estimate(value, max(0.0, value - spread), min(1.0, value + spread))
