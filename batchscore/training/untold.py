"""How the values of two splits are read where a teacher may say what rows without labels are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from batchscore.errors import DataError, UsageError, printable
from batchscore.model.labels import is_missing, label_key
from batchscore.records import Task
from batchscore.training.label_reading import Reading, reading_of, task_of

if TYPE_CHECKING:
    from batchscore.training.settings import TrainSettings
    from batchscore.training.splits import Goal, Label

_LISTED = 20


class Given(Protocol):
    """The values of one split."""

    labels: list[Any]
    class_names: tuple[str, ...] | None
    column: str


class Readings(NamedTuple):
    """How the values of each split are read."""

    train: Reading
    evaluation: Reading
    goal: Goal
    untold: tuple[str, ...]
    """Splits without any label."""

    def fifth_of(self, data: str) -> str:
        """Where evaluation rows come from that are cut off the training rows."""
        return f"a fifth of {printable(data)}" + ("" if self.untold else ", cut by label")


def readings_of(
    train: Given, evaluation: Given | None, settings: TrainSettings, taught: Goal | None
) -> Readings:
    """The labels are those of the training rows; where these have none, the teacher's (``taught``).

    Raises:
        DataError: fewer labels than the task needs, no numbers, or evaluation rows with labels that are not the teacher's.
        UsageError: options that do not go with the task, or with rows without labels.
    """
    untold = tuple(
        name
        for name, given in (("train", train), ("evaluation", evaluation or train))
        if taught is not None and all(map(is_missing, given.labels))
    )
    _refuse_options(settings, untold)
    if taught is None or "train" not in untold:
        task = task_of(settings.task, train.labels, has_columns=bool(settings.label_columns))
        reading = reading_of(task, train.labels, train.class_names, train.column, settings)
        return Readings(reading, _Untold(reading.goal) if untold else reading, reading.goal, untold)
    if settings.threshold is not None and taught.task != Task.MULTI_LABEL:
        raise UsageError("--threshold is for several labels at once (--task multi-label).")
    reading = _Untold(taught)
    if evaluation is None or "evaluation" in untold:
        return Readings(reading, reading, taught, untold)
    own = reading_of(taught.task, evaluation.labels, evaluation.class_names, evaluation.column, settings)
    return Readings(reading, _InOrder(own, taught), taught, untold)


def _refuse_options(settings: TrainSettings, untold: Sequence[str]) -> None:
    """Raise for options that are about given labels, where there are none."""
    options = {
        "--check-labels": settings.check_labels and "train" in untold,
        "--corrections": settings.corrections is not None and untold,
        "--label-name": settings.label_names and len(untold) > 1,
    }
    if given := [name for name, is_given in options.items() if is_given]:
        whose = "--data" if "train" in untold else "--eval-data"
        raise UsageError(
            f"{given[0]} is about given labels, and {whose} has none. Name their column with --label-column, or leave "
            f"{given[0]} out."
        )


def same_labels(mine: Sequence[str], others: Sequence[str]) -> list[int | None]:
    """For each label of mine the place of that name among the others; None where there is none.

    As anywhere, neither case nor the form of a number counts, unless two of the others differ in that alone.

    >>> same_labels(("NEGATIVE", "POSITIVE"), ("positive", "negative")), same_labels(("a", "b"), ("b",))
    ([1, 0], [None, 0])
    """
    exact = {label: place for place, label in enumerate(others)}
    by_key = {label_key(label): place for label, place in exact.items()}
    is_plain = len(by_key) == len(exact)
    return [exact.get(label, by_key.get(label_key(label)) if is_plain else None) for label in mine]


def listed(labels: Sequence[str]) -> str:
    """Labels for a message."""
    more = f" and {len(labels) - _LISTED} more" if len(labels) > _LISTED else ""
    return printable(", ".join(labels[:_LISTED])) + more


class _Untold(Reading):
    """Rows without labels, until a teacher is asked."""

    def __init__(self, goal: Goal) -> None:
        self.goal = goal

    def is_missing(self, value: Any) -> bool:  # noqa: ARG002
        return False

    def label(self, value: Any) -> Label:  # noqa: ARG002
        if self.goal.task == Task.MULTI_LABEL:
            return (0,) * len(self.goal.labels)
        return 0.0 if self.goal.task == Task.REGRESSION else 0


class _InOrder(Reading):
    """What another reading says, with the labels in the order of the teacher's."""

    def __init__(self, own: Reading, goal: Goal) -> None:
        self._own, self.goal = own, goal
        self._places: list[int] = []
        if goal.task == Task.REGRESSION:
            return
        places = same_labels(own.goal.labels, goal.labels)
        if None in places:
            raise DataError(
                f"The evaluation rows have the labels {listed(own.goal.labels)}, and the teacher has {listed(goal.labels)}. See "
                "--label-name."
            )
        self._places = [place for place in places if place is not None]

    def is_missing(self, value: Any) -> bool:
        return self._own.is_missing(value)

    def label(self, value: Any) -> Label | None:
        found = self._own.label(value)
        if isinstance(found, tuple):
            flags = [0] * len(self.goal.labels)
            for place, flag in zip(self._places, found, strict=True):
                flags[place] = flag
            return tuple(flags)
        return self._places[found] if isinstance(found, int) else found
