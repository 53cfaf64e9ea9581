"""Which given sets of labels are worth checking first: confident learning, one label against its absence at a time.

As ``cleanlab.multilabel_classification`` does it (Thyagarajan, Snorrason, Northcutt and Mueller 2022, arXiv:2211.13895), in two passes and
constant memory. All sums are exact, so nothing depends on the order of rows or parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.evaluation.label_issues import QualityRanking
from batchscore.evaluation.tally import exact_mean, exact_sums, exact_zeros

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_ALPHA = 0.8
"""Weight of the next lower score in the moving average: cleanlab's default."""


def label_set_quality(
    given: NDArray[np.integer[Any]], probabilities: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The quality of each row's labels, float32 ``[n]``: cleanlab's default score of several labels.

    The self-confidence of a label is its probability where it is given, else 1 - that. Sorted downwards, they are averaged
    with exponential weights, so that the lowest counts 0.8, the next 0.16 and so on. ``given[n, C]`` (a row of -1 or -2
    without known labels) and ``probabilities[n, C]``; NaN without labels or prediction.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    confidence = -np.sort(-np.where(np.asarray(given) > 0, p, 1 - p), axis=1)
    average = confidence[:, 0]
    for column in range(1, confidence.shape[1]):
        average = _ALPHA * confidence[:, column] + (1 - _ALPHA) * average
    return np.where(np.asarray(given)[:, 0] >= 0, average, np.nan).astype(np.float32)


class LabelSetIssues(QualityRanking):
    """Two passes over the labelled rows, then a threshold, as :class:`LabelIssues` has them.

    A row counts as an issue if the model confidently gives another answer to one of its labels. An answer (the label, or its
    absence) is confident if its probability is at least the mean of that probability where the answer was given; of two
    confident ones the more probable counts. As in cleanlab's ``find_label_issues``, it must be the more probable one too.
    """

    def __init__(self, n_labels: int, thresholds: Sequence[float] = ()) -> None:
        super().__init__()
        self._limits = np.array(thresholds or [0.5] * n_labels, dtype=np.float64)
        self._rows_by_answer = np.zeros((2, n_labels), dtype=np.int64)
        self._confidence = exact_zeros(2 * n_labels).reshape(2, n_labels)
        self._issues = 0

    def update_thresholds(self, given: NDArray[np.integer[Any]], probabilities: NDArray[np.float32]) -> None:
        """First pass: learn the model's mean confidence in the presence and absence of each label."""
        rows = _usable(given, probabilities)
        for label in range(len(self._limits)):
            has_it = np.asarray(given)[rows, label].astype(np.int64)
            p = probabilities[rows, label].astype(np.float64)
            self._rows_by_answer[:, label] += np.bincount(has_it, minlength=2)
            self._confidence[:, label] += exact_sums(np.where(has_it > 0, p, 1 - p), has_it, 2)

    def quality(
        self,
        given: NDArray[np.integer[Any]],
        probabilities: NDArray[np.float32],
        predicted: NDArray[np.integer[Any]] | None = None,  # noqa: ARG002 - the thresholds tell
    ) -> NDArray[np.float32]:
        """Second pass: count confident disagreements, and return :func:`label_set_quality`, float32 ``[n]``."""
        quality, rows = label_set_quality(given, probabilities), _usable(given, probabilities)
        labels, p = np.asarray(given)[rows] > 0, probabilities[rows].astype(np.float64)
        absent, present = (
            np.array([self._mean(answer, label) for label in range(len(self._limits))]) for answer in (0, 1)
        )
        is_present, is_absent = p >= present, 1 - p >= absent
        answer = np.where(is_present & is_absent, p > 0.5, is_present)
        is_other = ((is_present | is_absent) & (answer != labels)) & ((p > 0.5) != labels)
        self._issues += int(is_other.any(axis=1).sum())
        self._count(quality[rows], ((p >= self._limits.astype(np.float32)) != labels).any(axis=1))
        return quality

    def _mean(self, answer: int, label: int) -> float:
        """The mean confidence in an answer where it is given; infinite if it never is, so that nothing reaches it."""
        mean = exact_mean(self._confidence[answer, label], int(self._rows_by_answer[answer, label]))
        return np.inf if mean is None else mean

    @property
    def n_issues(self) -> int:
        """The number of labelled rows with a confident disagreement."""
        return self._issues


def _usable(given: NDArray[np.integer[Any]], probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray((np.asarray(given)[:, 0] >= 0) & ~np.isnan(probabilities).any(axis=1))
