"""The distributions of a run that drift is measured on, by the task of its model.

Single-label: predicted labels, probability of the predicted one (20 bins). Multi-label: predicted labels, labels in a row, and
the probability of each label (20 bins), of which the one that drifted most is told. Regression: values, in the 20 groups
that hold as many of the earlier run's each, as far as its cells allow. All: ``n_tokens`` (14 bins), truncated or not.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from batchscore.errors import DataError
from batchscore.evaluation.cells import Axis
from batchscore.evaluation.drift import Drift, DriftReport, compare, ks
from batchscore.evaluation.histograms import KINDS, PROBABILITY_BINS, TOKEN_EDGES
from batchscore.evaluation.label_histograms import MOST_LABELS
from batchscore.records import Task

NO_LABEL = ""
"""Rows without any label, among the predicted labels of a multi-label model: no label's name is empty."""
_GROUPS = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Distributions(ABC):
    """Scored rows by bin; what all tasks have."""

    n_tokens: tuple[int, ...]
    truncated: tuple[int, int]

    @staticmethod
    def from_metrics(metrics: Mapping[str, Any]) -> Distributions:
        """Read them from the ``metrics()`` of an evaluation, or from ``metrics.json``.

        Raises :class:`DataError` if they are missing or have other bins than this version.
        """
        try:
            kind = _KINDS[Task(metrics.get("task", Task.SINGLE_LABEL))]
            histograms = metrics["histograms"]
            n_tokens, truncated = histograms["n_tokens"], histograms["truncated"]
            edges, counts = list(n_tokens.get("edges", ())), tuple(map(int, n_tokens["counts"]))
            found = kind.of(histograms, counts, (int(truncated["no"]), int(truncated["yes"])))
            is_known = edges == list(TOKEN_EDGES) and len(counts) == len(TOKEN_EDGES) and found.has_our_bins
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"the metrics hold no histograms to compare with ({error!r}); score that run again"
            ) from error
        if not is_known:
            raise DataError(
                "the metrics were counted in other bins, by another version; score that run again"
            )
        return found

    @classmethod
    @abstractmethod
    def of(cls, histograms: Mapping[str, Any], n_tokens: tuple[int, ...], truncated: tuple[int, int]) -> Self:
        """Read what the task has besides."""

    @property
    @abstractmethod
    def has_our_bins(self) -> bool:
        """Whether they were counted in the bins of this version."""

    @abstractmethod
    def since(self, baseline: Self) -> list[Drift]:
        """The drift of what the task has besides."""


@dataclasses.dataclass(frozen=True, slots=True)
class LabelDistributions(Distributions):
    """Those of single labels."""

    predicted_labels: Mapping[str, int]
    probability: tuple[int, ...]

    @classmethod
    def of(cls, histograms: Mapping[str, Any], n_tokens: tuple[int, ...], truncated: tuple[int, int]) -> Self:
        """Read them from ``histograms``."""
        probability = histograms["probability"]
        of_all = (sum(map(int, kinds)) for kinds in zip(*(probability[k] for k in KINDS), strict=True))
        return cls(n_tokens, truncated, _counts(histograms["predicted_labels"]), tuple(of_all))

    @property
    def has_our_bins(self) -> bool:
        """Whether they were counted in the bins of this version."""
        return len(self.probability) == PROBABILITY_BINS

    def since(self, baseline: Self) -> list[Drift]:
        """The drift of each."""
        return [
            compare(
                "predicted_labels",
                *_by_name(baseline.predicted_labels, self.predicted_labels),
                is_ordered=False,
            ),
            compare("probability", baseline.probability, self.probability),
        ]


@dataclasses.dataclass(frozen=True, slots=True)
class LabelSetDistributions(Distributions):
    """Those of several labels."""

    predicted_labels: Mapping[str, int]
    """With :data:`NO_LABEL`."""
    labels_per_row: tuple[int, ...]
    label_probability: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, histograms: Mapping[str, Any], n_tokens: tuple[int, ...], truncated: tuple[int, int]) -> Self:
        """Read them from ``histograms``."""
        per_row = tuple(map(int, histograms["labels_per_row"]))
        return cls(
            n_tokens,
            truncated,
            {NO_LABEL: per_row[0], **_counts(histograms["predicted_labels"])},
            per_row,
            {str(label): tuple(map(int, bins)) for label, bins in histograms["label_probability"].items()},
        )

    @property
    def has_our_bins(self) -> bool:
        """Whether they were counted in the bins of this version."""
        widths = {len(bins) for bins in self.label_probability.values()}
        return len(self.labels_per_row) == MOST_LABELS + 1 and widths <= {PROBABILITY_BINS}

    def since(self, baseline: Self) -> list[Drift]:
        """The drift of each."""
        return [
            compare(
                "predicted_labels",
                *_by_name(baseline.predicted_labels, self.predicted_labels),
                is_ordered=False,
            ),
            compare("labels_per_row", baseline.labels_per_row, self.labels_per_row),
            self._worst_label(baseline),
        ]

    def _worst_label(self, baseline: Self) -> Drift:
        """The probability of the label that drifted most."""
        none = (0,) * PROBABILITY_BINS
        labels = sorted({*baseline.label_probability, *self.label_probability})
        drifts = [
            dataclasses.replace(
                compare(
                    "probability",
                    baseline.label_probability.get(label, none),
                    self.label_probability.get(label, none),
                    among=len(labels),
                ),
                label=label,
            )
            for label in labels
        ]
        return max(drifts, key=lambda drift: drift.psi if drift.psi is not None else -1.0)


@dataclasses.dataclass(frozen=True, slots=True)
class ValueDistributions(Distributions):
    """Those of a regression."""

    value: Axis

    @classmethod
    def of(cls, histograms: Mapping[str, Any], n_tokens: tuple[int, ...], truncated: tuple[int, int]) -> Self:
        """Read them from ``histograms``."""
        return cls(n_tokens, truncated, Axis.from_json(histograms["value"]))

    @property
    def has_our_bins(self) -> bool:
        """Whether they were counted in the bins of this version."""
        return True  # cells of any shift are made equal

    def since(self, baseline: Self) -> list[Drift]:
        """The drift of each."""
        before, after = _aligned(baseline.value, self.value)
        if not before.sum() or not after.sum():
            return [compare("value", before, after)]
        ends = np.searchsorted(np.cumsum(before), np.arange(1, _GROUPS) * before.sum() / _GROUPS)
        starts = np.unique(np.concatenate([[0], ends + 1]))
        starts = starts[starts < len(before)]
        grouped = (np.add.reduceat(counts, starts) for counts in (before, after))
        return [dataclasses.replace(compare("value", *grouped), ks=ks(before, after))]


_KINDS: Mapping[Task, type[Distributions]] = {
    Task.SINGLE_LABEL: LabelDistributions,
    Task.MULTI_LABEL: LabelSetDistributions,
    Task.REGRESSION: ValueDistributions,
}


def measure_drift(baseline: Distributions, current: Distributions) -> DriftReport:
    """Compare two runs of one task; labels are matched by name, a missing one counts 0.

    Raises ``ValueError`` for runs of different tasks.
    """
    if type(baseline) is not type(current):
        raise ValueError("the runs are of models with different tasks")
    drifts = current.since(baseline)
    drifts += [
        compare("n_tokens", baseline.n_tokens, current.n_tokens),
        compare("truncated", baseline.truncated, current.truncated),
    ]
    return DriftReport(tuple(drifts))


def _counts(stored: Mapping[str, Any]) -> dict[str, int]:
    return {str(label): int(rows) for label, rows in stored.items()}


def _by_name(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[list[int], list[int]]:
    names = sorted({*before, *after})
    return [before.get(name, 0) for name in names], [after.get(name, 0) for name in names]


def _aligned(before: Axis, after: Axis) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The counts of both in the cells of either, at the larger shift."""
    shift = max(before.shift, after.shift)
    axes = [axis.coarser(shift) for axis in (before, after)]
    keys = np.union1d(axes[0].keys, axes[1].keys)
    counts = [np.zeros(len(keys), dtype=np.int64) for _ in axes]
    for axis, held in zip(axes, counts, strict=True):
        held[np.searchsorted(keys, axis.keys)] = axis.counts
    return counts[0], counts[1]
