"""What rows were given, by the task of the model: the one place that picks how label columns are read.

A *survey* sees all values of a file once, while it is planned, and says what they mean or why that cannot be told; a *reader*
turns the values of a part into the array of the task (:mod:`batchscore.evaluation.tasks`).
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from batchscore.model.label_sets import ColumnsReader, ColumnsSurvey, SetsReader, SetsSurvey
from batchscore.model.labels import GivenLabels, LabelNames, LabelValues, Meaning
from batchscore.model.numbers import NumbersReader, NumbersSurvey, number_map
from batchscore.records import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.model.bundle import Bundle
    from batchscore.records import ColumnChoice, InputFile


class Survey(Protocol):
    """Counts the values of one file, in bounded memory."""

    @property
    def counts_from_0(self) -> bool:
        """Whether 0 is among numbers that may be ids."""

    def update(self, values: Iterable[Any]) -> None:
        """Count some values."""

    def count(self, values: Iterable[tuple[Any, int]]) -> None:
        """Count values of so many rows each; the same as to update with each so often."""

    def meaning(self, *, counts_from_0: bool = False) -> Meaning | None:
        """How the values are read, or None if that cannot be told."""

    def problem(self, column: str) -> str:
        """Why it cannot be told, and which option tells it."""


class Reader(Protocol):
    """Reads the values of one file."""

    def indices(self, labels: Sequence[Any] | None, rows: int) -> NDArray[Any]:
        """What ``rows`` rows were given; nothing, if ``labels`` is None."""


class Given(abc.ABC):
    """How the values of a run are read."""

    more_names: frozenset[str] = frozenset()
    """Names of label columns besides the usual ones, without case and separators."""
    has_label_columns = False
    """Whether each label may have a column of its own."""
    needs_names = True
    """Whether values can only be read if the model's labels have names."""

    @abc.abstractmethod
    def survey(self, columns: ColumnChoice, class_names: Sequence[str]) -> Survey:
        """A survey of one file."""

    @abc.abstractmethod
    def reader(self, file: InputFile) -> Reader:
        """The reader of a file that was surveyed."""


class _OneLabel(Given):
    def __init__(self, labels: Sequence[str], label_map: Mapping[str, str]) -> None:
        self._names = LabelNames(labels, label_map)

    def survey(self, columns: ColumnChoice, class_names: Sequence[str]) -> Survey:  # noqa: ARG002
        return LabelValues(self._names, class_names)

    def reader(self, file: InputFile) -> Reader:
        return GivenLabels(self._names, file.label_reading, file.class_names)


class _SeveralLabels(Given):
    more_names = frozenset({"tags", "categories", "topics", "genres", "classes", "emotions"})
    has_label_columns = True

    def __init__(self, labels: Sequence[str], label_map: Mapping[str, str]) -> None:
        self._names = LabelNames(labels, label_map, one_of_them=False)

    def survey(self, columns: ColumnChoice, class_names: Sequence[str]) -> Survey:
        if columns.labels:
            return ColumnsSurvey(self._names.labels, columns.labels)
        return SetsSurvey(self._names, class_names)

    def reader(self, file: InputFile) -> Reader:
        if file.columns.labels:
            return ColumnsReader(len(self._names.labels))
        return SetsReader(self._names, file.label_reading, file.class_names)


class _OneNumber(Given):
    more_names = frozenset({"score", "rating", "stars", "value", "similarity", "grade"})
    needs_names = False

    def __init__(self, labels: Sequence[str], label_map: Mapping[str, str]) -> None:  # noqa: ARG002
        self._map = number_map(label_map)

    def survey(self, columns: ColumnChoice, class_names: Sequence[str]) -> Survey:  # noqa: ARG002
        return NumbersSurvey(self._map)

    def reader(self, file: InputFile) -> Reader:  # noqa: ARG002
        return NumbersReader(self._map)


class Answering(Protocol):
    """What has a task and labels: a bundle, or what is known of one."""

    @property
    def task(self) -> Task:
        """What the model says of a text."""

    @property
    def labels(self) -> Sequence[str]:
        """In the order of their index."""


_KINDS: Mapping[Task, Any] = {
    Task.SINGLE_LABEL: _OneLabel,
    Task.MULTI_LABEL: _SeveralLabels,
    Task.REGRESSION: _OneNumber,
}


def given_of(model: Answering, label_map: Mapping[str, str]) -> Given:
    """How the given values of a run are read.

    Raises:
        UsageError: ``label_map`` names what the model does not have.
    """
    found: Given = _KINDS[model.task](model.labels, label_map)
    return found


def label_column_names(task: Task) -> frozenset[str]:
    """Names of label columns of a task besides the usual ones, without case and separators."""
    names: frozenset[str] = _KINDS[task].more_names
    return names


def uses_labels(bundle: Bundle, label_map: Mapping[str, str]) -> bool:
    """Whether given values are used; not if labels are matched by name, and those of the model are ``LABEL_0`` and so on."""
    return not (_KINDS[bundle.task].needs_names and bundle.has_generic_labels) or bool(label_map)
