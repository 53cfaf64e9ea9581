"""What the evaluation rows say of a trained classifier, by task: the one place in the trainer that picks it."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.evaluation import Basis, fit_temperature, measures_of
from batchscore.model.canaries import CANARY_TOLERANCE
from batchscore.model.decisions import decided
from batchscore.records import Status, Task
from batchscore.training.objectives import best_thresholds, strata_of
from batchscore.training.splits import named

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.model.heads import Head
    from batchscore.records import Predictions
    from batchscore.training.splits import Label

_HELD_OUT_MULTI = ("micro_f1", "macro_f1", "subset_accuracy", "hamming_loss")
_NUMBERS = ("mae", "rmse", "r2", "spearman", "pearson", "bias")


class Results(abc.ABC):
    """How scored rows of a task are judged."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def given(self, labels: Sequence[Label]) -> NDArray[Any]:
        """The array of the task (:mod:`batchscore.evaluation.tasks`)."""
        return np.array(labels)

    @abc.abstractmethod
    def without(self, given: NDArray[Any], rows: NDArray[np.bool_]) -> NDArray[Any]:
        """The same with these rows unlabelled."""

    @abc.abstractmethod
    def temperature(self, logits: NDArray[np.float32], given: NDArray[Any]) -> float:
        """The temperature that calibrates the answers to these rows."""

    def thresholds(
        self,
        answers: NDArray[np.float32],  # noqa: ARG002
        given: NDArray[Any],  # noqa: ARG002
        wanted: float | None,  # noqa: ARG002
    ) -> tuple[float, ...]:
        """From which probability each label is predicted; none but for several labels at once."""
        return ()

    def decide(self, predictions: Predictions, thresholds: Sequence[float]) -> Predictions:
        """The same answers with other thresholds."""
        scored = predictions.status == Status.OK
        predicted = decided(self.head.task, predictions.probabilities, scored, thresholds)
        return dataclasses.replace(predictions, predicted=predicted)

    @abc.abstractmethod
    def wrong(self, given: NDArray[Any], predictions: Predictions) -> NDArray[np.int64]:
        """Rows whose prediction differs from what they were given; of numbers all, the furthest off first."""

    @abc.abstractmethod
    def are_clear(self, answers: NDArray[np.float32], thresholds: Sequence[float]) -> NDArray[np.bool_]:
        """Rows whose prediction a lower precision would not change."""

    def order(self, labels: Sequence[Label]) -> NDArray[Any]:
        """By which canaries are spread: the stratum of each row."""
        return np.array(strata_of(self.head.task, labels))

    @abc.abstractmethod
    def said(self, answers: NDArray[np.float32], predicted: Any) -> tuple[str, float | None]:
        """One row's prediction for people, and its probability."""

    def shown(self, label: Label) -> str:
        """What a row was given, for people."""
        return _text(named(label, self.head.labels))

    @abc.abstractmethod
    def metrics(self, whole: Mapping[str, Any], held_out: Mapping[str, Any], rows: int) -> dict[str, Any]:
        """What the bundle keeps of two evaluations: of all rows, and of the ``rows`` that chose nothing."""

    def basis(self, thresholds: Sequence[float]) -> Basis:
        """What rows are measured by."""
        return Basis(self.head.task, self.head.labels, thresholds=tuple(thresholds))

    def measured(
        self,
        given: NDArray[Any],
        predictions: Sequence[Predictions],
        n_chosen: int,
        thresholds: Sequence[float],
    ) -> dict[str, Any]:
        """:meth:`metrics` of all rows and of those from ``n_chosen`` on."""
        make = measures_of(self.head.task).evaluation
        whole, held_out = make(self.basis(thresholds)), make(self.basis(thresholds))
        row = 0
        for part in predictions:
            some = given[row : row + len(part.status)]
            row += len(some)
            whole.update(some, part)
            held_out.update(self.without(some, np.arange(row - len(some), row) < n_chosen), part)
        return self.metrics(whole.metrics(), held_out.metrics(), max(row - n_chosen, 0))


class _OneLabel(Results):
    def without(self, given: NDArray[Any], rows: NDArray[np.bool_]) -> NDArray[Any]:
        return np.where(rows, -1, given)

    def temperature(self, logits: NDArray[np.float32], given: NDArray[Any]) -> float:
        return fit_temperature(logits, given)

    def wrong(self, given: NDArray[Any], predictions: Predictions) -> NDArray[np.int64]:
        return np.flatnonzero(predictions.predicted != given)

    def are_clear(self, answers: NDArray[np.float32], thresholds: Sequence[float]) -> NDArray[np.bool_]:  # noqa: ARG002
        top = np.sort(answers, axis=1)
        clear: NDArray[np.bool_] = top[:, -1] - top[:, -2] > 2 * CANARY_TOLERANCE
        return clear

    def said(self, answers: NDArray[np.float32], predicted: Any) -> tuple[str, float | None]:
        return self.head.labels[int(predicted)], float(answers.max())

    def metrics(self, whole: Mapping[str, Any], held_out: Mapping[str, Any], rows: int) -> dict[str, Any]:
        quality, accuracy = whole["quality"], held_out["quality"] and held_out["quality"]["accuracy"]
        return {
            "accuracy": quality["accuracy"],
            "accuracy_held_out": {**accuracy, "rows": rows} if accuracy else None,
            "macro_f1": quality["macro_f1"],
            "log_loss": quality["log_loss"],
            "brier_score_loss": quality["brier_score_loss"],
            "calibration_error": whole["calibration"]["ece"],
            "reliability": held_out["reliability"],
            "per_label": quality["per_label"],
            "confusion_matrix": quality["confusion_matrix"],
        }


class _SeveralLabels(Results):
    def given(self, labels: Sequence[Label]) -> NDArray[np.int8]:
        return np.array(labels, dtype=np.int8)

    def without(self, given: NDArray[Any], rows: NDArray[np.bool_]) -> NDArray[Any]:
        return np.where(rows[:, None], np.int8(-1), given)

    def temperature(self, logits: NDArray[np.float32], given: NDArray[Any]) -> float:
        """One for all labels: a sigmoid is a softmax beside a logit of 0."""
        pairs = np.stack([np.zeros(logits.size), logits.astype(np.float64).ravel()], axis=1)
        return fit_temperature(pairs, given.ravel().astype(np.int64))

    def thresholds(
        self, answers: NDArray[np.float32], given: NDArray[Any], wanted: float | None
    ) -> tuple[float, ...]:
        if wanted is not None:
            return (wanted,) * len(self.head.labels)
        return tuple(best_thresholds(answers, given))

    def wrong(self, given: NDArray[Any], predictions: Predictions) -> NDArray[np.int64]:
        return np.flatnonzero((predictions.predicted != given).any(axis=1))

    def are_clear(self, answers: NDArray[np.float32], thresholds: Sequence[float]) -> NDArray[np.bool_]:
        clear: NDArray[np.bool_] = (np.abs(answers - np.array(thresholds)) > CANARY_TOLERANCE).all(axis=1)
        return clear

    def said(self, answers: NDArray[np.float32], predicted: Any) -> tuple[str, float | None]:
        names = [name for name, is_one in zip(self.head.labels, predicted, strict=True) if is_one == 1]
        return _text(names), float(np.maximum(answers, 1 - answers).min())

    def metrics(self, whole: Mapping[str, Any], held_out: Mapping[str, Any], rows: int) -> dict[str, Any]:
        quality, others = whole["quality"], held_out["quality"]
        return {
            **{name: quality[name] for name in (*_HELD_OUT_MULTI, "average_precision", "log_loss")},
            "held_out": {"rows": rows, **{name: others[name] for name in _HELD_OUT_MULTI}}
            if others
            else None,
            "calibration_error": whole["calibration"]["ece"],
            "per_label": quality["per_label"],
        }


class _OneNumber(Results):
    def given(self, labels: Sequence[Label]) -> NDArray[np.float64]:
        return np.array(labels, dtype=np.float64)

    def without(self, given: NDArray[Any], rows: NDArray[np.bool_]) -> NDArray[Any]:
        return np.where(rows, np.nan, given)

    def temperature(self, logits: NDArray[np.float32], given: NDArray[Any]) -> float:  # noqa: ARG002
        """Numbers have none."""
        return 1.0

    def wrong(self, given: NDArray[Any], predictions: Predictions) -> NDArray[np.int64]:
        error = np.abs(predictions.predicted - given)
        return np.argsort(-error, kind="stable")

    def are_clear(self, answers: NDArray[np.float32], thresholds: Sequence[float]) -> NDArray[np.bool_]:  # noqa: ARG002
        return np.ones(len(answers), dtype=bool)

    def said(self, answers: NDArray[np.float32], predicted: Any) -> tuple[str, float | None]:  # noqa: ARG002
        return f"{float(predicted):.4g}", None

    def metrics(self, whole: Mapping[str, Any], held_out: Mapping[str, Any], rows: int) -> dict[str, Any]:
        quality, others = whole["quality"], held_out["quality"]
        return {
            **{name: quality[name] for name in _NUMBERS},
            "held_out": {"rows": rows, **{name: others[name] for name in _NUMBERS}} if others else None,
        }


_KINDS: Mapping[Task, type[Results]] = {
    Task.SINGLE_LABEL: _OneLabel,
    Task.MULTI_LABEL: _SeveralLabels,
    Task.REGRESSION: _OneNumber,
}


def results_of(head: Head) -> Results:
    """How the rows of a classifier with this head are judged."""
    return _KINDS[head.task](head)


def _text(value: str | float | Sequence[str]) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else ", ".join(value) or "no label"


def row_losses(task: Task, labels: Sequence[Label], predicted: NDArray[Any]) -> NDArray[np.float64]:
    """The loss of each row: 1 for a wrong label, the share of wrong ones among several, how far off a number is."""
    given = np.array(labels)
    if task == Task.REGRESSION:
        return np.asarray(np.abs(predicted.astype(np.float64) - given), dtype=np.float64)
    wrong = predicted != given
    return np.asarray(wrong if wrong.ndim == 1 else wrong.mean(axis=1), dtype=np.float64)
