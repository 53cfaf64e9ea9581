"""Given values in, what each row was given out, by task: the one place in the trainer that picks how values are read."""

from __future__ import annotations

import abc
import collections
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchscore.errors import DataError, UsageError, printable
from batchscore.model.label_sets import ColumnsReader, is_list, items_of
from batchscore.model.labels import is_missing, label_key
from batchscore.model.numbers import NO_NUMBER, number_of
from batchscore.records import UNLABELLED, Task
from batchscore.training.labels import LabelTable, label_table, names_of
from batchscore.training.splits import Goal, Label

if TYPE_CHECKING:
    from batchscore.training.settings import TrainSettings

AUTO = "auto"
TASKS: Mapping[str, Task] = {
    "single-label": Task.SINGLE_LABEL,
    "multi-label": Task.MULTI_LABEL,
    "regression": Task.REGRESSION,
}
"""By the value of ``--task``."""
VALUE = "value"
"""The name of a regression's output, if its column has none that says more."""
_NAMELESS = frozenset({"", "label", "labels", "target"})
_JOINT = ";"


class Reading(abc.ABC):
    """How the values of a training are read."""

    goal: Goal

    @abc.abstractmethod
    def label(self, value: Any) -> Label | None:
        """What a row with this value was given; None if it is no label's, or no number."""

    def is_missing(self, value: Any) -> bool:
        """Whether a row with this value was given nothing."""
        return is_missing(value)


def task_of(wanted: str, values: Sequence[Any], *, has_columns: bool) -> Task:
    """The task: as asked for, else by the form of the training rows' values; numbers are classes.

    Several labels at once are lists, or texts with ``;`` whose pieces all occur more than once.

    Raises:
        DataError: both could be meant.
    """
    if wanted != AUTO:
        return TASKS[wanted]
    if has_columns:
        return Task.MULTI_LABEL
    given = [value for value in values if not is_missing(value)]
    lists = sum(
        isinstance(items_of(value), list) and is_list(value) and _JOINT not in str(value) for value in given
    )
    lists += sum(isinstance(value, list | tuple) and _JOINT in str(value) for value in given)
    if given and lists == len(given):
        return Task.MULTI_LABEL
    joined = [value for value in given if isinstance(value, str) and _JOINT in value]
    if not lists and not joined:
        return Task.SINGLE_LABEL
    cells = collections.Counter(
        label_key(item) for value in given for item in {*map(label_key, items_of(value) or ())}
    )
    pieces = {label_key(item) for value in joined for item in items_of(value) or ()}
    if not lists and all(cells[piece] > 1 for piece in pieces):
        return Task.MULTI_LABEL
    raise DataError(
        f"{len(joined) + lists} of {len(given)} values in the label column hold several pieces, and it cannot be told whether "
        "each is a label: say --task multi-label (a text may have several labels at once) or --task single-label."
    )


def reading_of(
    task: Task, values: Sequence[Any], class_names: Sequence[str] | None, column: str, settings: TrainSettings
) -> Reading:
    """How the values of the training rows, from a ``column``, are read.

    Raises:
        DataError: fewer labels than the task needs, or no numbers.
        UsageError: options that do not go with the task.
    """
    if settings.threshold is not None and task != Task.MULTI_LABEL:
        raise UsageError("--threshold is for several labels at once (--task multi-label).")
    if task == Task.SINGLE_LABEL:
        return _OneLabel(label_table(values, class_names, settings.label_names))
    if settings.check_labels:
        raise UsageError("--check-labels is for one label a text. Leave it out.")
    if task == Task.REGRESSION:
        return _OneNumber(values, column, settings.label_names)
    if settings.label_columns:
        return _LabelColumns(settings.label_columns, settings.label_names)
    return _LabelSets(values, class_names, settings.label_names)


def label_columns(settings: TrainSettings) -> tuple[str, ...]:
    """``--label-columns`` in the order of the names of their labels."""
    return tuple(column for _, column in sorted(_named_columns(settings.label_columns, settings.label_names)))


def _named_columns(columns: Iterable[str], given: Mapping[str, str]) -> list[tuple[str, str]]:
    """Label and column."""
    names = {label_key(value): name for value, name in given.items()}
    return [(names.get(label_key(column), column), column) for column in columns]


class _OneLabel(Reading):
    def __init__(self, table: LabelTable) -> None:
        self._table = table
        self.goal = Goal(Task.SINGLE_LABEL, table.names)

    def label(self, value: Any) -> int | None:
        return self._table.index(value)


class _LabelSets(Reading):
    """Lists, or texts with ``;``."""

    def __init__(
        self, values: Sequence[Any], class_names: Sequence[str] | None, given: Mapping[str, str]
    ) -> None:
        cells = [items_of(value) for value in values]
        items = [item for cell in cells for item in cell or () if not is_missing(item)]
        self._index = names_of(items, class_names, given)
        names = tuple(sorted({*self._index.values()}))
        rows = sum(cell is not None for cell in cells)
        if len(names) < 2 or len(names) > rows:
            raise DataError(
                f"The label column has {len(names)} different labels in {rows} rows; --task multi-label needs two or more, and "
                "not more than rows. Name another column with --label-column."
            )
        self.goal = Goal(Task.MULTI_LABEL, names)

    def is_missing(self, value: Any) -> bool:
        return items_of(value) is None

    def label(self, value: Any) -> tuple[int, ...] | None:
        keys = [label_key(item) for item in items_of(value) or ()]
        if any(key not in self._index for key in keys):
            return None
        found = {self._index[key] for key in keys}
        return tuple(int(name in found) for name in self.goal.labels)


class _LabelColumns(Reading):
    """A column of 0 and 1 for each label."""

    def __init__(self, columns: Sequence[str], given: Mapping[str, str]) -> None:
        names = tuple(sorted(name for name, _ in _named_columns(columns, given)))
        if len({name.casefold() for name in names}) < 2 or len({name.casefold() for name in names}) < len(
            names
        ):
            raise UsageError("--label-columns needs two columns or more, all with different names.")
        self._reader = ColumnsReader(len(names))
        self.goal = Goal(Task.MULTI_LABEL, names)

    def _flags(self, value: Any) -> list[int]:
        flags: list[int] = self._reader.indices([value], 1)[0].tolist()
        return flags

    def is_missing(self, value: Any) -> bool:
        return self._flags(value)[0] == UNLABELLED

    def label(self, value: Any) -> tuple[int, ...] | None:
        flags = self._flags(value)
        return tuple(flags) if min(flags) >= 0 else None


class _OneNumber(Reading):
    def __init__(self, values: Sequence[Any], column: str, given: Mapping[str, str]) -> None:
        if given:
            raise UsageError("--label-name names labels, and --task regression has none. Leave it out.")
        numbers = {
            each for value in values if (each := self.label(value)) is not None and not math.isnan(each)
        }
        if len(numbers) < 2:
            raise DataError(
                f"The column {printable(column)} has {len(numbers)} different numbers; --task regression needs two or more. Name "
                "another column with --label-column."
            )
        name = column if column.strip().casefold() not in _NAMELESS and column.isprintable() else VALUE
        self.goal = Goal(Task.REGRESSION, (name,))

    def label(self, value: Any) -> float | None:
        number = number_of(value, {})
        return None if number == NO_NUMBER else number
