"""All metrics of scored rows with one label each, in one mergeable object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from batchscore.evaluation.accumulation import Accumulation
from batchscore.evaluation.calibration import Calibration
from batchscore.evaluation.counts import RowCounts
from batchscore.evaluation.coverage import Coverage
from batchscore.evaluation.expectation import Expectation
from batchscore.evaluation.histograms import Histograms
from batchscore.evaluation.outcomes import Outcomes
from batchscore.evaluation.quality import Quality, per_label
from batchscore.evaluation.ranking import Ranking, areas_json, macro
from batchscore.evaluation.reliability import Reliability
from batchscore.evaluation.slices import Slices

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from batchscore.records import Predictions

_CURVES = 4
"""Labels with a precision-recall curve: those with the most rows."""


class Evaluation(Accumulation):
    """Evaluate rows part by part, in any order and on any machine; the result equals that of one pass, bit by bit.

    ``labels`` are the model's, in the order of their index. ``calibration_error`` is an ECE on labelled rows (the
    model's validation set); it widens the interval of the expected accuracy. ``temperature`` is the one that the
    probabilities were calibrated with; None if it cannot be undone (means over windows). Memory is constant: about 1 MB a label, plus
    200 slices a column.
    """

    STATE_FORMAT = 4

    def __init__(
        self, labels: Sequence[str], calibration_error: float | None = None, temperature: float | None = None
    ) -> None:
        self.labels = tuple(labels)
        self.calibration_error = calibration_error
        self.temperature = temperature
        n_labels = len(self.labels)
        if n_labels < 2:
            raise ValueError("an evaluation needs two labels or more")
        self.counts = RowCounts()
        self.quality = Quality.empty(n_labels)
        self.ranking = Ranking.empty(n_labels)
        self.calibration = Calibration.empty()
        self.uncalibrated = Calibration.empty()
        self.reliability = Reliability.empty()
        self.coverage = Coverage.empty()
        self.expectation = Expectation()
        self.histograms = Histograms.empty(n_labels)
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

        ``given[n]``: index of each row's label, -1 if it has none, -2 if its value is not a label.
        ``slices``: columns to break the accuracy down by, one value a row, or one string for all rows
        (``{"file": "a.csv"}``). ``rejects``: rows of the part that could not be read. Raises ``ValueError`` if the
        arrays do not belong together.
        """
        outcomes = Outcomes.of(given, predictions, len(self.labels))
        self.counts.update(outcomes, rejects)
        self.slices.update(outcomes, slices or {})
        for tally in (
            self.quality,
            self.ranking,
            self.calibration,
            self.reliability,
            self.coverage,
            self.expectation,
            self.histograms,
        ):
            tally.update(outcomes)
        if self.temperature is not None:
            self.uncalibrated.update(outcomes.before(self.temperature))

    @property
    def _basis(self) -> dict[str, Any]:
        return {
            "labels": list(self.labels),
            "calibration_error": self.calibration_error,
            "temperature": self.temperature,
        }

    def metrics(self) -> dict[str, Any]:
        """Everything as JSON values: plain numbers, None where undefined, never NaN; keys always in this order.

        ``labels``; ``counts`` (:class:`RowCounts`); ``quality``, None without evaluated rows: ``accuracy``, ``macro_f1``
        and ``matthews`` {value, low, high}, ``log_loss``, ``brier_score_loss``, ``brier_sum``, ``roc_auc`` and
        ``average_precision`` {value, error_bound} (mean over labels, each against the rest), ``per_label`` {label:
        {precision, recall, f1, support, roc_auc, average_precision}}, ``confusion_matrix`` {labels, counts: given x
        predicted}, ``precision_recall`` {label: {recall, precision}} of the four labels of most rows; ``calibration``
        {ece, bins, temperature, before: {ece, bins} or None} and ``reliability`` {edges, rows, correct, mean_probability}, None
        likewise; ``coverage`` [{threshold, rows, share, evaluated,
        accuracy, expected_accuracy}]; ``expected_accuracy`` {value, low, high, rows, calibration_error, evaluated: {rows, expected,
        observed} or None}, None without scored rows; ``histograms`` {probability, n_tokens, predicted_labels,
        truncated}; ``slices`` [{column, value, rows, evaluated, accuracy, expected_accuracy, p_value, worse}].
        """
        is_evaluated = self.counts.evaluated > 0
        return {
            "labels": list(self.labels),
            "counts": self.counts.summary(),
            "quality": self._quality() if is_evaluated else None,
            "calibration": self._calibration() if is_evaluated else None,
            "reliability": self.reliability.summary() if is_evaluated else None,
            "coverage": self.coverage.summary(),
            "expected_accuracy": self.expectation.summary(self.calibration_error),
            "histograms": self.histograms.summary(self.labels),
            "slices": self.slices.summary(),
        }

    def _calibration(self) -> dict[str, Any]:
        before = self.uncalibrated.summary() if self.temperature is not None else None
        return {**self.calibration.summary(), "temperature": self.temperature, "before": before}

    def _curves(self) -> dict[str, dict[str, list[float]]]:
        support = self.quality.confusion.sum(axis=1)
        chosen = sorted(sorted(range(len(self.labels)), key=lambda label: -support[label])[:_CURVES])
        curves = self.ranking.curves()
        return {self.labels[k]: {"recall": curves[k][0], "precision": curves[k][1]} for k in chosen}

    def _quality(self) -> dict[str, Any]:
        roc_auc, average_precision = self.ranking.roc_auc(), self.ranking.average_precision()
        rows = zip(
            per_label(self.quality.confusion), areas_json(roc_auc), areas_json(average_precision), strict=True
        )
        tables = [{**row, "roc_auc": auc, "average_precision": ap} for row, auc, ap in rows]
        over_labels = areas_json([macro(roc_auc), macro(average_precision)])
        return {
            **self.quality.summary(),
            "roc_auc": over_labels[0],
            "average_precision": over_labels[1],
            "per_label": dict(zip(self.labels, tables, strict=True)),
            "confusion_matrix": {"labels": list(self.labels), "counts": self.quality.confusion.tolist()},
            "precision_recall": self._curves(),
        }

    @classmethod
    def _of_state(cls, state: Mapping[str, Any]) -> Self:
        return cls(state["labels"], state["calibration_error"], state["temperature"])
