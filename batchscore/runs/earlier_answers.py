"""What an earlier run predicted and was given, read from its files as text, by the task of the model: one place picks it.

Arrays are those of the task (:mod:`batchscore.evaluation.tasks`); a given label that is not known is as one that is missing,
but for single labels, where it is ``NOT_KNOWN``.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchscore.formats.answers import answers_of
from batchscore.formats.output_columns import OutputColumns
from batchscore.model.label_sets import ColumnsReader, items_of
from batchscore.model.labels import is_missing, label_key
from batchscore.model.numbers import NO_NUMBER, number_of
from batchscore.records import ColumnChoice, Status, Task

NOT_KNOWN = -2
"""The earlier label of a row whose file had no label column, or whose value's meaning was not recorded."""

Column = Sequence[str | None]
Texts = Mapping[str, Column]


class EarlierAnswers(abc.ABC):
    """Reads the files of an earlier run whose model has the same task and labels."""

    row_shape: tuple[int, ...] = ()
    """Shape of one row of an array."""
    predicted_type: Any
    given_type: Any
    not_predicted: float
    not_given: float

    def __init__(self, task: Task, labels: Sequence[str], called: OutputColumns) -> None:
        self.labels = tuple(labels)
        answers = answers_of(task, labels)
        names = called.added_names(answers)
        self.prediction = names[answers.prediction]
        """Name of the column with the prediction."""
        self.status = names["status"]
        self.columns: tuple[str, ...] = (self.prediction,)
        """Every added column that is read; the first holds strings, which is what reading JSON asks of it."""

    def none_predicted(self, rows: int) -> NDArray[Any]:
        """Predictions of rows that have none."""
        return np.full((rows, *self.row_shape), self.not_predicted, dtype=self.predicted_type)

    def none_given(self, rows: int) -> NDArray[Any]:
        """Given labels of rows whose earlier ones are not known."""
        return np.full((rows, *self.row_shape), self.not_given, dtype=self.given_type)

    @abc.abstractmethod
    def predicted(self, texts: Texts) -> NDArray[Any]:
        """What was predicted; raises :class:`KeyError` with a value that cannot be meant."""

    @abc.abstractmethod
    def given(self, texts: Texts, columns: ColumnChoice, meanings: Mapping[str, str]) -> NDArray[Any]:
        """What was given, of a file with label ``columns``; ``meanings``: the key of a value → its label."""


class _OneLabel(EarlierAnswers):
    predicted_type = given_type = np.int32
    not_predicted, not_given = -1, NOT_KNOWN

    def predicted(self, texts: Texts) -> NDArray[Any]:
        index: dict[str | None, int] = {label: number for number, label in enumerate(self.labels)}
        index |= {None: -1, "": -1}
        return np.array([index[label] for label in texts[self.prediction]], dtype=np.int32)

    def given(self, texts: Texts, columns: ColumnChoice, meanings: Mapping[str, str]) -> NDArray[Any]:
        (name,) = columns.given
        labels = self.labels
        index = {key: labels.index(label) if label in labels else -1 for key, label in meanings.items()}
        found = (-1 if is_missing(text) else index.get(label_key(text), NOT_KNOWN) for text in texts[name])
        return np.fromiter(found, np.int32, len(texts[name]))


class _SeveralLabels(EarlierAnswers):
    predicted_type = given_type = np.int8
    not_predicted = not_given = -1

    def __init__(self, task: Task, labels: Sequence[str], called: OutputColumns) -> None:
        super().__init__(task, labels, called)
        self.row_shape = (len(labels),)
        self.columns = (self.status, self.prediction)
        self._index = {label: number for number, label in enumerate(labels)}

    def predicted(self, texts: Texts) -> NDArray[Any]:
        found = self.none_predicted(len(texts[self.prediction]))
        for row, (cell, status) in enumerate(zip(texts[self.prediction], texts[self.status], strict=True)):
            if status == Status.OK.text:
                found[row] = 0
                found[row, [self._index[item] for item in items_of(cell) or ()]] = 1
        return found

    def given(self, texts: Texts, columns: ColumnChoice, meanings: Mapping[str, str]) -> NDArray[Any]:
        if columns.labels:
            cells = list(zip(*(texts[name] for name in columns.labels), strict=True))
            return np.maximum(ColumnsReader(len(self.labels)).indices(cells, len(cells)), -1)
        (name,) = columns.given
        found = self.none_given(len(texts[name]))
        for row, cell in enumerate(texts[name]):
            items = items_of(cell)
            known = [meanings.get(label_key(item)) for item in items or ()]
            if items is not None and all(label is not None for label in known):
                found[row] = 0
                found[row, [self._index[label] for label in known if label in self._index]] = 1
        return found


class _OneValue(EarlierAnswers):
    predicted_type, given_type = np.float32, np.float64
    not_predicted = not_given = math.nan

    def __init__(self, task: Task, labels: Sequence[str], called: OutputColumns) -> None:
        super().__init__(task, labels, called)
        self.columns = (self.status, self.prediction)

    def predicted(self, texts: Texts) -> NDArray[Any]:
        values = [number_of(text, {}) for text in texts[self.prediction]]
        if NO_NUMBER in values:
            raise KeyError(texts[self.prediction][values.index(NO_NUMBER)])
        return np.array(values, dtype=np.float32)

    def given(self, texts: Texts, columns: ColumnChoice, meanings: Mapping[str, str]) -> NDArray[Any]:
        (name,) = columns.given
        mapped = {key: number_of(text, {}) for key, text in meanings.items()}
        values = np.array([number_of(text, mapped) for text in texts[name]], dtype=np.float64)
        return np.where(np.isfinite(values), values, math.nan)


_KINDS: Mapping[Task, type[EarlierAnswers]] = {
    Task.SINGLE_LABEL: _OneLabel,
    Task.MULTI_LABEL: _SeveralLabels,
    Task.REGRESSION: _OneValue,
}


def earlier_answers_of(task: Task, labels: Sequence[str], called: OutputColumns) -> EarlierAnswers:
    """How the files of an earlier run are read; ``called`` tells what its columns are called."""
    return _KINDS[task](task, labels, called)
