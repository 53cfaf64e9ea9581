"""Which given labels are worth checking first: confident learning (Northcutt, Jiang and Chuang 2021, JAIR 70).

The ranking is good: flipped labels come first. The count overestimates wrong labels, despite its name: it includes every
confident mistake of the model. :mod:`batchscore.evaluation.wrong_labels` estimates how many are wrong, if the data allow it.

cleanlab's ``LabelInspector`` does the estimate in two passes and constant memory, without storing every row's quality. Its
thresholds are running means of floats, so both passes go over the parts in plan order, each part as one batch, and small parts
that are staged together as one. cleanlab takes seconds to import, and is imported when first needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.evaluation.tally import ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHIFT = 8
_BINS = (int(np.float32(1).view(np.int32)) >> _SHIFT) + 2


def label_quality(given: NDArray[np.integer[Any]], probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """The self-confidence of each row's label: the probability of the given label, cleanlab's default score.

    ``given[n]`` (negative without a known label) and ``probabilities[n, C]`` give float32 ``[n]``, NaN without a label
    or prediction.
    """
    quality = np.asarray(probabilities, dtype=np.float32)[np.arange(len(given)), np.maximum(given, 0)]
    return np.where(np.asarray(given) >= 0, quality, np.float32(np.nan))


class QualityRanking(ABC):
    """Labelled rows counted by their label quality, and the quality under which a mismatch is an issue."""

    def __init__(self) -> None:
        self._rows = np.zeros(_BINS, dtype=np.int64)
        self._mismatches = np.zeros(_BINS, dtype=np.int64)

    @property
    @abstractmethod
    def n_issues(self) -> int:
        """The number of labelled rows whose label the model confidently disagrees with."""

    def _count(self, quality: NDArray[np.float32], is_mismatch: NDArray[np.bool_]) -> None:
        """Add labelled rows by their quality."""
        bins = _bin(quality)
        np.add.at(self._rows, bins, 1)  # a part has far fewer rows than there are bins
        np.add.at(self._mismatches, bins[is_mismatch], 1)

    @property
    def threshold(self) -> float:
        """A mismatch with a lower quality than this is an issue.

        ``LabelInspector.get_label_issues`` takes the ``n_issues`` rows of lowest quality, ties in row order. Here qualities
        equal in 15 bits of their mantissa (to 3 in 100,000) are ties, and a group of ties is all in or all out, never
        beyond ``n_issues``: the result does not depend on the row order.
        """
        if self.n_issues == 0:
            return 0.0
        fitting = int(np.searchsorted(np.cumsum(self._rows), self.n_issues, side="right"))
        return float(np.array(min(fitting, _BINS - 1) << _SHIFT, dtype=np.int32).view(np.float32))

    def is_label_issue(self, quality: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which *mismatches* are issues, by their ``quality[n]``, after both passes; NaN is not.

        A row whose prediction is its given label is never an issue, as in cleanlab's ``find_label_issues``.
        """
        return np.asarray(quality, dtype=np.float32) < np.float32(self.threshold)

    def summary(self) -> dict[str, Any]:
        """``labelled`` rows, ``estimated_wrong_labels`` (cleanlab's), ``flagged`` mismatches, ``accuracy`` and that without them."""
        labelled, mismatches = int(self._rows.sum()), int(self._mismatches.sum())
        flagged = int(self._mismatches[: _bin(np.array([self.threshold], dtype=np.float32))[0]].sum())
        return {
            "labelled": labelled,
            "estimated_wrong_labels": self.n_issues,
            "flagged": flagged,
            "accuracy": ratio(labelled - mismatches, labelled),
            "accuracy_without_flagged": ratio(labelled - mismatches, labelled - flagged),
        }


class LabelIssues(QualityRanking):
    """Two passes over the labelled rows, then a threshold.

    ``update_thresholds`` for every part, then ``quality`` for every part, then ``is_label_issue`` and ``summary``.
    """

    def __init__(self, n_labels: int) -> None:
        from cleanlab.experimental.label_issues_batched import LabelInspector

        super().__init__()
        self._inspector: Any = LabelInspector(num_class=n_labels, store_results=False, verbose=False)

    def update_thresholds(self, given: NDArray[np.integer[Any]], probabilities: NDArray[np.float32]) -> None:
        """First pass: learn the model's mean confidence in each given label."""
        rows = _usable(given, probabilities)
        if rows.any():
            self._inspector.update_confident_thresholds(given[rows], probabilities[rows].astype(np.float64))

    def quality(
        self,
        given: NDArray[np.integer[Any]],
        probabilities: NDArray[np.float32],
        predicted: NDArray[np.integer[Any]] | None = None,
    ) -> NDArray[np.float32]:
        """Second pass: count confident disagreements, and return :func:`label_quality`, float32 ``[n]``.

        ``predicted[n]`` tells which rows are mismatches where a threshold may decide against the likeliest label.
        """
        quality, rows = label_quality(given, probabilities), _usable(given, probabilities)
        if rows.any():
            known = probabilities[rows].astype(np.float64)
            self._inspector.score_label_quality(given[rows], known)
            found = known.argmax(axis=1) if predicted is None else predicted[rows]
            self._count(quality[rows], found != given[rows])
        return quality

    @property
    def n_issues(self) -> int:
        """Cleanlab's count of confident disagreements, off the diagonal."""
        return int(self._inspector.get_num_issues()) if self._inspector.examples_processed_quality else 0


def _usable(given: NDArray[np.integer[Any]], probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray((given >= 0) & ~np.isnan(probabilities).any(axis=1))


def _bin(quality: NDArray[np.float32]) -> NDArray[np.int64]:
    return (np.ascontiguousarray(np.abs(quality)).view(np.int32) >> _SHIFT).astype(np.int64)
