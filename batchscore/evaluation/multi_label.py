"""All metrics of scored rows of a multi-label model, in one mergeable object."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.accumulation import Accumulation
from batchscore.evaluation.counts import RowCounts
from batchscore.evaluation.coverage import Coverage
from batchscore.evaluation.decisions import Decisions
from batchscore.evaluation.label_calibration import LabelCalibration
from batchscore.evaluation.label_histograms import LabelHistograms
from batchscore.evaluation.label_sets import LabelSets
from batchscore.evaluation.ranking import Ranking, areas_json, macro
from batchscore.evaluation.set_quality import SetQuality
from batchscore.evaluation.slices import Slices
from batchscore.records import THRESHOLD, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.records import Predictions

_CURVES = 12
"""Labels with a precision-recall curve: those with the most rows."""


class MultiLabelEvaluation(Accumulation):
    """Evaluate rows part by part, as :class:`Evaluation` does, where each may have any number of labels.

    ``thresholds``: for each label the least probability at which it was predicted, 0.5 if not told. ``calibration_error``
    and ``temperature`` as there. Memory is constant: about 1 MB a label, plus 200 slices a column.
    """

    STATE_FORMAT = 2

    def __init__(
        self,
        labels: Sequence[str],
        thresholds: Sequence[float] = (),
        calibration_error: float | None = None,
        temperature: float | None = None,
    ) -> None:
        self.labels = tuple(labels)
        n_labels = len(self.labels)
        self.thresholds = tuple(map(float, thresholds)) or (THRESHOLD,) * n_labels
        if not n_labels or len(self.thresholds) != n_labels:
            raise ValueError(f"{n_labels} labels and {len(self.thresholds)} thresholds")
        self.calibration_error = calibration_error
        self.temperature = temperature
        self.counts = RowCounts()
        self.quality = SetQuality.empty(n_labels)
        self.ranking = Ranking.empty(n_labels)
        self.calibration = LabelCalibration.empty(n_labels)
        self.uncalibrated = LabelCalibration.empty(n_labels)
        self.coverage = Coverage.empty()
        self.decisions = Decisions()
        self.histograms = LabelHistograms.empty(n_labels)
        self.slices = Slices()

    def update(
        self,
        given: NDArray[np.integer[Any]],
        predictions: Predictions,
        *,
        slices: Mapping[str, Sequence[object] | str] | None = None,
        rejects: int = 0,
    ) -> None:
        """Add the rows of one part (or any other subset).

        ``given[n, C]``: 1 where a row has the label, else 0; a whole row of -1 without labels, of -2 if its value is no set of
        labels. ``slices`` and ``rejects`` as in :meth:`Evaluation.update`. Raises ``ValueError`` if the arrays do not belong
        together.
        """
        sets = LabelSets.of(given, predictions, len(self.labels))
        self.counts.update(sets.rows, rejects)
        self.coverage.update(sets.rows)
        expected = dataclasses.replace(sets.rows, top=sets.expected_right.astype(np.float32))
        self.slices.update(expected, slices or {})
        rows = sets.rows.evaluated
        self.ranking.add(sets.given[rows], sets.probabilities[rows])
        for tally in (self.quality, self.calibration, self.decisions, self.histograms):
            tally.update(sets)
        if self.temperature is not None:
            self.uncalibrated.update(sets.before(self.temperature))

    @property
    def _basis(self) -> dict[str, Any]:
        return {
            "labels": list(self.labels),
            "thresholds": list(self.thresholds),
            "calibration_error": self.calibration_error,
            "temperature": self.temperature,
        }

    @classmethod
    def _of_state(cls, state: Mapping[str, Any]) -> Self:
        return cls(state["labels"], state["thresholds"], state["calibration_error"], state["temperature"])

    def metrics(self) -> dict[str, Any]:
        """Everything as JSON values: plain numbers, None where undefined, never NaN; keys always in this order.

        ``task``; ``labels``; ``counts`` (:class:`RowCounts`; ``correct``: rows with all labels right); ``quality``, None
        without evaluated rows: what :meth:`SetQuality.summary` has, ``roc_auc`` and ``average_precision`` {value,
        error_bound} (mean over labels), ``per_label`` {label: what :meth:`SetQuality.per_label` has, ``roc_auc``,
        ``average_precision``, ``ece``, ``threshold``}, ``taken_for`` [{missing, extra, rows}] (at most 30),
        ``precision_recall`` {label: {recall, precision}} of the twelve labels of most rows; ``calibration`` {ece, bins,
        temperature, before: {ece, bins} or None}, of all decisions together; ``coverage`` as for single labels, by the confidence in a
        row's least sure decision, its ``accuracy`` that all labels are right; ``expected_hamming_loss``
        (:meth:`Decisions.summary`); ``histograms`` (:meth:`LabelHistograms.summary`); ``slices`` [{column, value, rows,
        evaluated, accuracy (all labels right), expected_right (share of decisions), p_value, worse}].
        """
        is_evaluated = self.counts.evaluated > 0
        return {
            "task": Task.MULTI_LABEL.value,
            "labels": list(self.labels),
            "counts": self.counts.summary(),
            "quality": self._quality() if is_evaluated else None,
            "calibration": self._calibration() if is_evaluated else None,
            "coverage": [_without_estimate(row) for row in self.coverage.summary()],
            "expected_hamming_loss": self.decisions.summary(
                self.calibration_error, self.quality.hamming_loss
            ),
            "histograms": self.histograms.summary(self.labels),
            "slices": [_renamed(entry) for entry in self.slices.summary()],
        }

    def _calibration(self) -> dict[str, Any]:
        before = self.uncalibrated.summary() if self.temperature is not None else None
        return {**self.calibration.summary(), "temperature": self.temperature, "before": before}

    def _quality(self) -> dict[str, Any]:
        roc_auc, average_precision = self.ranking.roc_auc(), self.ranking.average_precision()
        over_labels = areas_json([macro(roc_auc), macro(average_precision)])
        columns = zip(
            self.quality.per_label(),
            areas_json(roc_auc),
            areas_json(average_precision),
            self.calibration.errors(),
            self.thresholds,
            strict=True,
        )
        tables = [
            {**row, "roc_auc": auc, "average_precision": ap, "ece": ece, "threshold": threshold}
            for row, auc, ap, ece, threshold in columns
        ]
        return {
            **self.quality.summary(),
            "roc_auc": over_labels[0],
            "average_precision": over_labels[1],
            "per_label": dict(zip(self.labels, tables, strict=True)),
            "taken_for": [
                {"missing": self.labels[missing], "extra": self.labels[extra], "rows": rows}
                for missing, extra, rows in self.quality.pairs()
            ],
            "precision_recall": self._curves(),
        }

    def _curves(self) -> dict[str, dict[str, list[float]]]:
        support = self.quality.given
        chosen = sorted(sorted(range(len(self.labels)), key=lambda label: -support[label])[:_CURVES])
        curves = {label: self.ranking.curve(label) for label in chosen}
        return {
            self.labels[k]: {"recall": recall, "precision": precision}
            for k, (recall, precision) in curves.items()
        }


def _without_estimate(row: Mapping[str, Any]) -> dict[str, Any]:
    """Without the expected accuracy: how often all labels are right does not follow from the least sure one."""
    return {key: value for key, value in row.items() if key != "expected_accuracy"}


def _renamed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A slice's mean confidence under its name here: the expected share of right decisions."""
    return {("expected_right" if key == "expected_accuracy" else key): value for key, value in entry.items()}
