"""Accuracy, F1, Matthews' correlation, log loss and Brier score."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.significance import Z95, Estimate, wilson
from batchscore.evaluation.tally import Counts, ExactSums, Tally, exact_mean, exact_sums, exact_zeros, ratio

if TYPE_CHECKING:
    from batchscore.evaluation.outcomes import Outcomes

LOG_LOSS_EPS = float(np.finfo(np.float64).eps)
"""Probabilities are clipped to [eps, 1 - eps] before the logarithm, as ``sklearn.metrics.log_loss`` does for float64."""


@dataclasses.dataclass(slots=True)
class Quality(Tally):
    """Tally of the evaluated rows."""

    confusion: Counts
    """``[C, C]``: rows by given label (first index) and predicted label (second)."""
    log_loss: ExactSums
    """``[1]``: sum of -ln(probability of the given label)."""
    squared_error: ExactSums
    """``[C]``: for each label, sum of (its probability - 1 if it is the given one, else 0) squared."""

    @classmethod
    def empty(cls, n_labels: int) -> Self:
        """No rows yet."""
        return cls(np.zeros((n_labels, n_labels), dtype=np.int64), exact_zeros(1), exact_zeros(n_labels))

    def update(self, outcomes: Outcomes) -> None:
        """Add the evaluated rows among ``outcomes``."""
        rows = outcomes.evaluated
        given, n_labels = outcomes.given[rows], len(self.confusion)
        probabilities = outcomes.probabilities[rows].astype(np.float64)
        cells = np.bincount(given * n_labels + outcomes.predicted[rows], minlength=n_labels**2)
        self.confusion += cells.reshape(n_labels, n_labels)
        likelihood = np.clip(probabilities[np.arange(len(given)), given], LOG_LOSS_EPS, 1 - LOG_LOSS_EPS)
        self.log_loss += exact_sums(-np.log(likelihood))
        for label in range(n_labels):
            error = np.ascontiguousarray(probabilities[:, label]) - (given == label)
            self.squared_error[label] += exact_sums(error * error)[0]

    @property
    def rows(self) -> int:
        """Evaluated rows so far."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> Estimate | None:
        """Share of evaluated rows whose prediction is the given label, with its Wilson interval."""
        return wilson(int(np.trace(self.confusion)), self.rows)

    def summary(self) -> dict[str, Any]:
        """``accuracy``, ``macro_f1``, ``matthews``, ``log_loss``, ``brier_score_loss``, ``brier_sum``; needs evaluated rows.

        ``brier_sum`` is the mean over rows of the squared errors summed over all labels (0 to 2; Brier 1950).
        ``brier_score_loss`` is scikit-learn's: for two labels the mean squared error of the second one's probability (0 to
        1, half of the sum), for more the sum.
        """
        rows, is_binary = self.rows, len(self.confusion) == 2
        accuracy, f1, correlation = self.accuracy, macro_f1(self.confusion), matthews(self.confusion)
        return {
            "accuracy": accuracy.to_json() if accuracy else None,
            "macro_f1": f1.to_json() if f1 else None,
            "matthews": correlation.to_json() if correlation else None,
            "log_loss": exact_mean(self.log_loss[0], rows),
            "brier_score_loss": exact_mean(
                self.squared_error[1] if is_binary else sum(self.squared_error), rows
            ),
            "brier_sum": exact_mean(sum(self.squared_error), rows),
        }


def per_label(confusion: Counts) -> list[dict[str, Any]]:
    """``precision``, ``recall``, ``f1`` and ``support`` of each label; None where its denominator is 0."""
    right, given, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return [
        {
            "precision": ratio(right[label], predicted[label]),
            "recall": ratio(right[label], given[label]),
            "f1": ratio(2 * right[label], given[label] + predicted[label]),
            "support": int(given[label]),
        }
        for label in range(len(confusion))
    ]


def macro_f1(confusion: Counts) -> Estimate | None:
    """Mean F1 of the labels that were given or predicted at least once; None without rows.

    Interval: delta method on the multinomial confusion matrix (Takahashi, Yamamoto, Kuchiba and Koyama 2022, Applied
    Intelligence 52:4961-4972). With s_i = row i + column i of the proportions p, F_i = 2 p_ii / s_i, the mean's slope
    in p_ii is 2 (1 - F_i) / s_i and in p_ij -(F_i / s_i + F_j / s_j), each over the number of labels; the variance is
    (sum p g^2 - (sum p g)^2) / rows. It is 0, and the interval a point, if every prediction is right.
    """
    rows = int(confusion.sum())
    if rows == 0:
        return None
    p = confusion / rows
    margins = p.sum(axis=0) + p.sum(axis=1)
    seen = margins > 0
    margins = np.where(seen, margins, 1.0)
    f1 = 2 * np.diag(p) / margins
    slopes = -((f1 / margins)[:, None] + (f1 / margins)[None, :])
    np.fill_diagonal(slopes, 2 * (1 - f1) / margins)
    slopes /= seen.sum()
    variance = max(0.0, float((p * slopes**2).sum() - (p * slopes).sum() ** 2) / rows)
    value, spread = float(f1.sum() / seen.sum()), Z95 * math.sqrt(variance)
    return Estimate(value, max(0.0, value - spread), min(1.0, value + spread))


def matthews(confusion: Counts) -> Estimate | None:
    """Matthews' correlation coefficient of given and predicted labels, -1 to 1; None without rows.

    For any number of labels (Gorodkin 2004, Computational Biology and Chemistry 28:367-374), as
    in ``sklearn.metrics.matthews_corrcoef``: with the proportions p, their rows r and columns c, it is N / sqrt(A B),
    N = sum p_ii - sum r_i c_i, A = 1 - sum r_i^2, B = 1 - sum c_i^2. If only one label was given, or only one
    predicted, it is undefined: 0, with the interval -1 to 1.

    Interval: delta method as for :func:`macro_f1` (for two labels: Itaya, Tamura, Hayashi and Yamamoto 2024, arXiv
    2405.12622). The slope in p_ij is ([i = j] - c_i - r_j) / sqrt(A B) + value * (r_i / A + c_j / B).

    >>> matthews(np.array([[2, 1], [1, 2]])).value
    0.3333333333333333
    """
    rows = int(confusion.sum())
    if rows == 0:
        return None
    given, predicted = confusion.sum(axis=1).tolist(), confusion.sum(axis=0).tolist()
    agreement = rows * int(np.trace(confusion)) - sum(g * p for g, p in zip(given, predicted, strict=True))
    spread_given, spread_predicted = (rows**2 - sum(n * n for n in counts) for counts in (given, predicted))
    if not spread_given or not spread_predicted:
        return Estimate(0.0, -1.0, 1.0)
    scale = math.sqrt(spread_given * spread_predicted)
    value = max(-1.0, min(1.0, agreement / scale))
    p, r, c = confusion / rows, np.array(given) / rows, np.array(predicted) / rows
    slopes = (np.eye(len(p)) - c[:, None] - r[None, :]) * (rows**2 / scale)
    slopes += value * rows**2 * (r[:, None] / spread_given + c[None, :] / spread_predicted)
    slopes -= (p * slopes).sum()  # a difference of squares would be off by 1e-8 if every prediction is right
    spread = Z95 * math.sqrt(float((p * slopes**2).sum()) / rows)
    return Estimate(value, max(-1.0, value - spread), min(1.0, value + spread))
