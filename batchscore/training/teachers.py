"""Saved models that teach: opened, refused where they do not go with the data, and asked once.

They are loaded and answer as in a run of the scorer: in the fastest precision that agrees, a plain folder held against plain
transformers, long texts by the policy of each. Their answers lie in the work folder, part by part, so that a stopped training
asks for nothing twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore.config import ComputeSettings
from batchscore.errors import DataError, ModelError, UsageError, printable
from batchscore.model.heads import are_generic
from batchscore.model.loading import Models, ModelSettings, load_model
from batchscore.model.references import RowsToScore
from batchscore.model.thresholds import thresholds_of
from batchscore.records import Status, Task
from batchscore.system.journal import read_checked, write_checked
from batchscore.system.storage import atomic_write, make_folder
from batchscore.training.examination import answers_of
from batchscore.training.label_reading import TASKS, VALUE
from batchscore.training.splits import Goal
from batchscore.training.untold import listed, same_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.model.bundle import Bundle
    from batchscore.model.scoring import Model
    from batchscore.records import Predictions, Text
    from batchscore.training.context import TrainingContext
    from batchscore.training.settings import TrainSettings

_PART_ROWS = 512
_COMPUTE = "compute.json"
_NAMES = {task: name for name, task in TASKS.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Teacher:
    """One of the models that are asked."""

    name: str
    """As it was given."""
    bundle: Bundle
    settings: ModelSettings

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Of several labels, from which probability it predicts each."""
        return thresholds_of(self.bundle, {})

    def load(self, folder: Path, texts: Sequence[Any] = ()) -> Model:
        """Load it to answer these texts, in what was chosen when the training began.

        Raises:
            ModelError: it cannot be loaded, or its canaries disagree.
        """
        make_folder(folder)
        recorded = read_checked(folder / _COMPUTE)
        rows = RowsToScore(len(texts), lambda: texts)
        model, compute = load_model(self.bundle, self.settings, recorded or {}, rows)
        if recorded is None:
            write_checked(folder / _COMPUTE, compute)
        return model


def open_teachers(settings: TrainSettings) -> tuple[Teacher, ...]:
    """Open the folders, and refuse those that do not go together or with the task that was asked for.

    Raises:
        ModelError: there is no such folder, or it is no classifier.
        UsageError: teachers that differ in their task or labels, or were trained on another number of texts a row.
    """
    found: list[Teacher] = []
    for name in settings.teachers:
        refuse_missing(name)
        bundle = Models().open(name, None).for_texts(are_pairs=settings.text_pair_column is not None)
        compute = ComputeSettings(precision=settings.precision)
        found.append(Teacher(name, bundle, ModelSettings(compute, _long_text(bundle), settings.missing_pair)))
    for teacher in found:
        wanted = TASKS.get(settings.task, teacher.bundle.task)
        refuse_other(teacher, Goal(wanted, teacher.bundle.labels), "--task")
        refuse_other(teacher, Goal(found[0].bundle.task, found[0].bundle.labels), printable(found[0].name))
    return tuple(found)


def refuse_missing(name: str) -> None:
    """Refuse a teacher that is no folder.

    Raises:
        ModelError: says so.
    """
    if not Path(name).is_dir():
        raise ModelError(
            f"There is no folder {printable(name)} (--teacher). Give the folder of a saved model."
        )


def _long_text(bundle: Bundle) -> str:
    """Two texts a row are cut longest first, whatever the teacher does with one."""
    return "head" if bundle.takes_pairs else bundle.long_text


def taught_goal(teachers: Sequence[Teacher]) -> Goal | None:
    """What the teachers say of a text; None without any."""
    if not teachers:
        return None
    bundle = teachers[0].bundle
    if bundle.task == Task.REGRESSION and are_generic(bundle.labels):
        return Goal(bundle.task, (VALUE,))
    return Goal(bundle.task, bundle.labels)


def refuse_other(teacher: Teacher, goal: Goal, whose: str) -> None:
    """Refuse a teacher of another task or with other labels than ``whose`` goal it is.

    Raises:
        UsageError: names both.
    """
    bundle = teacher.bundle
    if bundle.task != goal.task:
        raise UsageError(
            f"--teacher {printable(teacher.name)} is a {_NAMES[bundle.task]} model, and {whose} is {_NAMES[goal.task]}. Say "
            f"--task {_NAMES[bundle.task]} if the data are that too, or take another teacher."
        )
    if goal.task == Task.REGRESSION:
        return
    if len(bundle.labels) != len(goal.labels) or None in same_labels(goal.labels, bundle.labels):
        raise UsageError(
            f"--teacher {printable(teacher.name)} has the labels {listed(bundle.labels)}, and {whose} has {listed(goal.labels)}. "
            "They must have the same names: see --label-name for the data's, and for those of a model batchscore adopt MODEL "
            "--rename-label OLD=NEW."
        )


class Questions(NamedTuple):
    """The texts that teachers are asked about."""

    texts: Sequence[Text]
    places: Sequence[str]
    """Of the first ones, which must have an answer."""


def ask(
    teacher: Teacher, goal: Goal, questions: Questions, folder: Path, context: TrainingContext
) -> NDArray[np.float32]:
    """The answers of a teacher to the texts, ``[n, C]`` in the order of the goal's labels; NaN where it cannot score one.

    Raises:
        DataError: it cannot score one that must have an answer.
        ModelError: see :meth:`Teacher.load`.
    """
    make_folder(folder)
    texts, model, parts = questions.texts, None, []
    for start in range(0, len(texts), _PART_ROWS):
        path, some = folder / f"{start:09d}.npy", texts[start : start + _PART_ROWS]
        if path.exists():
            context.progress.add(len(some), counted=False)
        else:
            model = model or teacher.load(folder, texts)
            found = answers_of(model, some, context.progress)
            _refuse_unanswered(teacher, found, questions.places[start : start + _PART_ROWS])
            with atomic_write(path) as file:
                np.save(file, found.probabilities, allow_pickle=False)
        parts.append(np.load(path, allow_pickle=False))
    answers = np.concatenate(parts)
    if goal.task == Task.REGRESSION:
        return np.asarray(answers, dtype=np.float32)
    return np.asarray(answers[:, _columns(teacher, goal)], dtype=np.float32)


def _refuse_unanswered(teacher: Teacher, found: Predictions, places: Sequence[str]) -> None:
    """Raise if the teacher cannot score one of the first rows, which are at these places."""
    reasons = dict(found.failures)
    for row in np.flatnonzero(found.status[: len(places)] != Status.OK).tolist():
        reason = reasons.get(row, Status(int(found.status[row])).text)
        raise DataError(
            f"{printable(places[row])}: --teacher {printable(teacher.name)} cannot score this text ({printable(reason)}). Take "
            "that row out, or shorten its text."
        )


def _columns(teacher: Teacher, goal: Goal) -> list[int]:
    """For each label of the goal the teacher's output of that name."""
    return [place for place in same_labels(goal.labels, teacher.bundle.labels) if place is not None]


def thresholds_for(teachers: Sequence[Teacher], goal: Goal) -> tuple[float, ...]:
    """The mean of the teachers' thresholds, in the order of the goal's labels; none but for several labels at once."""
    if goal.task != Task.MULTI_LABEL:
        return ()
    each = [np.array(teacher.thresholds)[_columns(teacher, goal)] for teacher in teachers]
    return tuple(np.mean(each, axis=0).tolist())
