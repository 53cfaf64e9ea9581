"""What teachers say of the texts becomes what a student learns: knowledge distillation (Hinton et al. 2015, arXiv:1503.02531).

The target of a text is the mean of the teachers' calibrated probabilities; of a labelled row half of that and half its given label.
Both the target and the student are softened by one temperature, so that the probabilities that are learned are the same at each, and
only how much the unlikely labels count is another. Of numbers, the target is the mean of the teachers' and the given one.

Evaluation rows keep their given labels, and texts that are the same as one of them are not learned. Where they have none, the student
is held against what the teachers predict: agreement, which is no accuracy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.config import TEACHER_TEMPERATURE
from batchscore.errors import UsageError
from batchscore.model.decisions import decided
from batchscore.model.tokenization import Tokenizer
from batchscore.records import Task
from batchscore.training.objectives import softened
from batchscore.training.splits import TrainingData
from batchscore.training.teachers import Questions, Teacher, ask, refuse_other, thresholds_for
from batchscore.training.tokenized_rows import TokenizedRows, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from batchscore.model.bundle import Bundle
    from batchscore.records import Text
    from batchscore.training.context import TrainingContext
    from batchscore.training.settings import Hyperparameters, TrainSettings
    from batchscore.training.splits import Label
    from batchscore.training.unlabelled import Unlabelled

    Over = Callable[[int, TrainingContext], AbstractContextManager[TrainingContext]]

SHARE = 0.5
"""Of the target of a labelled row, what is the teachers'; the rest is the given label."""
_FOLDER = "teachers"


@dataclasses.dataclass(frozen=True, slots=True)
class Teaching:
    """The teachers of a training, and the texts that only they have an answer to."""

    teachers: tuple[Teacher, ...]
    unlabelled: Unlabelled | None
    temperature: float | None
    """None for numbers, which have none."""

    @property
    def texts(self) -> list[Text]:
        """Those without labels."""
        return [] if self.unlabelled is None else self.unlabelled.texts

    def facts(self) -> dict[str, Any]:
        """What the student depends on, as JSON values."""
        return {
            "teachers": [teacher.bundle.fingerprint for teacher in self.teachers],
            "unlabelled": None if self.unlabelled is None else self.unlabelled.facts,
        }

    def adapted(self, plan: Hyperparameters) -> Hyperparameters:
        """The hyperparameters with the temperature that is learned at."""
        return dataclasses.replace(plan, teacher_temperature=self.temperature)

    def lesson(self, data: TrainingData, over: Over, context: TrainingContext) -> Lesson:
        """Ask the teachers.

        Raises:
            DataError: one cannot score a row of the data.
            ModelError: one cannot be loaded, or its canaries disagree.
        """
        own = [*data.train.texts, *data.evaluation.texts]
        questions = Questions([*own, *self.texts], _places(data))
        if data.untold:
            context.tell(
                f"no labels ({' and '.join(data.untold)} rows): they are the teacher's"
                + (
                    ", and accuracy while training is agreement with it"
                    if "evaluation" in data.untold
                    else ""
                )
            )
        answers = []
        with over(len(questions.texts) * len(self.teachers), context) as watched:
            for number, teacher in enumerate(self.teachers):
                for warning in teacher.bundle.warnings:
                    context.tell(warning)
                answers.append(ask(teacher, data.goal, questions, folder_of(number, context), watched))
        mean = np.asarray(np.mean(answers, axis=0, dtype=np.float64))
        thresholds = thresholds_for(self.teachers, data.goal)
        scored = np.asarray(np.isfinite(mean).all(axis=1))
        single = np.asarray(mean, dtype=np.float32)
        predicted = decided(data.goal.task, single, scored, thresholds)
        return Lesson(self, _told(data, predicted), mean, predicted, scored)


def folder_of(number: int, context: TrainingContext) -> Path:
    """Where the answers of a teacher are kept."""
    return context.folder / _FOLDER / str(number)


def teaching_of(
    settings: TrainSettings,
    data: TrainingData,
    teachers: tuple[Teacher, ...],
    unlabelled: Unlabelled | None,
) -> Teaching | None:
    """The teachers with the texts that they are to be asked about; None without teachers.

    Raises:
        UsageError: a teacher does not go with the data.
    """
    if not teachers:
        return None
    for teacher in teachers:
        refuse_other(teacher, data.goal, "--data")
    if data.goal.task != Task.REGRESSION:
        temperature = settings.teacher_temperature or TEACHER_TEMPERATURE
    elif settings.teacher_temperature is None:
        temperature = None
    else:
        raise UsageError("--teacher-temperature is for probabilities, and this teacher gives numbers.")
    return Teaching(teachers, unlabelled, temperature)


def _places(data: TrainingData) -> list[str]:
    """Where the rows of both splits are from; those of texts without labels are not told."""
    return [
        split.places[row] if split.places else f"{name}, row {row}"
        for name, split in (("train", data.train), ("evaluation", data.evaluation))
        for row in range(len(split))
    ]


def _told(data: TrainingData, predicted: NDArray[Any]) -> TrainingData:
    """The data with what the teachers predict where there are no labels."""
    labels, n_train = _labels(predicted), len(data.train)
    train, evaluation = data.train, data.evaluation
    if "train" in data.untold:
        train = dataclasses.replace(train, labels=labels[:n_train])
    if "evaluation" in data.untold:
        evaluation = dataclasses.replace(evaluation, labels=labels[n_train : n_train + len(evaluation)])
    return dataclasses.replace(data, train=train, evaluation=evaluation)


def _labels(predicted: NDArray[Any]) -> list[Label]:
    """Predictions as labels of rows."""
    if predicted.ndim == 2:
        return [tuple(row) for row in predicted.tolist()]
    return [float(each) if predicted.dtype.kind == "f" else int(each) for each in predicted.tolist()]


@dataclasses.dataclass(frozen=True, slots=True)
class Lesson:
    """What the teachers say of all texts: the training rows, the evaluation rows, those without labels."""

    teaching: Teaching
    data: TrainingData
    """With the teachers' labels where there are no others."""
    answers: NDArray[np.float64]
    """``[n, C]``: the mean of their probabilities, or numbers ``[n, 1]``; NaN where one of them cannot score a text."""
    decisions: NDArray[Any]
    """What they predict of each."""
    scored: NDArray[np.bool_]
    """``[n]``: which have an answer."""

    @property
    def predicted(self) -> NDArray[Any]:
        """What they predict of the evaluation rows."""
        n_train = len(self.data.train)
        return self.decisions[n_train : n_train + len(self.data.evaluation)]

    @property
    def texts(self) -> list[Text]:
        """All texts that are learned."""
        return [*self.data.train.texts, *self.teaching.texts]

    def rows(self, base: Bundle) -> tuple[TokenizedRows, dict[str, Any]]:
        """The rows that the student learns, with their targets, and what is to be said of them, as JSON values.

        Texts without labels that cannot be tokenised, or scored by a teacher, are left out.
        """
        n_train, texts = len(self.data.train), self.texts
        encodings = Tokenizer(base).encode(texts, base.long_text)
        places = [*range(n_train), *range(n_train + len(self.data.evaluation), len(self.answers))]
        usable = [
            row for row, place in enumerate(places) if self.scored[place] and row not in encodings.failures
        ]
        labels, soft = self._targets(np.array([places[row] for row in usable]), n_train)
        rows = rows_of("taught", encodings, usable, labels, soft)
        return rows, self._facts(len(usable) - n_train)

    def _facts(self, learned: int) -> dict[str, Any]:
        unlabelled, is_told = self.teaching.unlabelled, "train" in self.data.untold
        return {
            "teachers": [
                {
                    "name": teacher.name,
                    "fingerprint": teacher.bundle.fingerprint,
                    "long_text": teacher.settings.long_text,
                }
                for teacher in self.teaching.teachers
            ],
            "temperature": self.teaching.temperature,
            "labelled": 0 if is_told else len(self.data.train),
            "without_label": len(self.data.train) if is_told else 0,
            "share": SHARE,
            "unlabelled": None if unlabelled is None else {**unlabelled.facts, "learned": learned},
        }

    def _targets(
        self, places: NDArray[np.int64], n_train: int
    ) -> tuple[list[Label], NDArray[np.float32] | None]:
        """A label for each row, and how likely each label is; of numbers the label alone is what is learned."""
        goal, answers = self.data.goal, self.answers[places]
        labels = [*self.data.train.labels, *_labels(self.decisions[places[n_train:]])]
        if goal.task == Task.REGRESSION:
            mixed = answers[:, 0]
            if "train" not in self.data.untold:
                mixed[:n_train] = SHARE * mixed[:n_train] + (1 - SHARE) * np.array(self.data.train.labels)
            return mixed.tolist(), None
        if "train" not in self.data.untold:
            given = _as_probabilities(self.data.train.labels, len(goal.labels))
            answers[:n_train] = SHARE * answers[:n_train] + (1 - SHARE) * given
        return labels, softened(goal.task, answers, self.teaching.temperature or 1.0)


def _as_probabilities(labels: Sequence[Any], n_labels: int) -> NDArray[np.float64]:
    """Labels as ``[n, C]``: 1 where a row has the label, else 0."""
    if labels and isinstance(labels[0], tuple):
        return np.array(labels, dtype=np.float64)
    return np.eye(n_labels)[np.array(labels, dtype=np.int64)]
