"""A student held against its teachers: how often they agree, who is right more often, and how much faster it is."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.evaluation.significance import mean_interval, wilson
from batchscore.records import Task
from batchscore.reports.teaching import teaching_lines
from batchscore.training.context import NoProgress
from batchscore.training.examination import answers_of, model_of
from batchscore.training.linear_baseline import paired
from batchscore.training.results import results_of
from batchscore.training.teaching import folder_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.model.scoring import Model
    from batchscore.records import Text
    from batchscore.training.attempts import Attempt
    from batchscore.training.context import TrainingContext
    from batchscore.training.examination import Examination
    from batchscore.training.teaching import Lesson

TIMED_ROWS = 64
"""Evaluation rows that both score."""
_WARM_ROWS, _ROUNDS = 4, 3
_LONGEST = 60.0
"""Seconds after which no other round begins."""


def held_against_teachers(
    lesson: Lesson,
    taught: Mapping[str, Any],
    made: Attempt,
    n_selection: int,
    context: TrainingContext,
) -> tuple[Examination, dict[str, Any]]:
    """The examination, without an accuracy where the evaluation rows have no labels, and what is to be said besides ``taught``.

    JSON values: ``agreement`` (:func:`agreement_of`) on the rows that chose nothing (``is_held_out``), or on all if there are no
    others; ``comparison`` with the teachers' errors on them, None without given labels; ``speed`` (:func:`speed_of`).
    ``n_selection`` rows selected the epoch.
    """
    _, saved, examination = made
    task, is_told = lesson.data.goal.task, "evaluation" in lesson.data.untold
    count = len(lesson.data.evaluation)
    if is_told and examination.n_chosen == count:
        examination = dataclasses.replace(examination, n_chosen=n_selection)
    is_held_out = examination.n_chosen < count
    rows = slice(examination.n_chosen if is_held_out else 0, None)
    agreement = agreement_of(task, lesson.predicted[rows], examination.predicted[rows])
    results = results_of(saved.head)
    facts = {
        **taught,
        "agreement": agreement,
        "is_held_out": is_held_out,
        "comparison": None if is_told else paired(lesson.data, examination, lesson.predicted, results),
        "speed": speed_of(lesson, made, context),
    }
    for line in teaching_lines(task, facts):
        context.tell(line)
    if not is_told:
        return examination, facts
    name = "difference" if task == Task.REGRESSION else "agreement"
    metrics = {"rows": agreement["rows"], name: {k: v for k, v in agreement.items() if k != "rows"}}
    return dataclasses.replace(examination, metrics=metrics, held_out=None), facts


def agreement_of(task: Task, taught: NDArray[Any], predicted: NDArray[Any]) -> dict[str, float]:
    """The share of rows with the same label, or labels, or the mean absolute difference of numbers: ``value``, ``low``, ``high``, ``rows``."""
    rows = len(taught)
    if task != Task.REGRESSION:
        is_same = taught == predicted
        same = int((is_same if is_same.ndim == 1 else is_same.all(axis=1)).sum())
        found = wilson(same, rows)
        return {"rows": rows, **(found.to_json() if found else {"value": 0.0})}
    off = np.abs(taught.astype(np.float64) - predicted)
    interval = mean_interval(float(off.mean()), float(off.std(ddof=1)), rows) if rows > 1 else None
    within = {} if interval is None else {"low": float(interval[0]), "high": float(interval[1])}
    return {"rows": rows, "value": float(off.mean()), **within}


def speed_of(lesson: Lesson, made: Attempt, context: TrainingContext) -> dict[str, Any]:
    """How many ``times`` as fast the student scores the same ``rows``, each by its own policy for long texts; teachers one after the other.

    ``teacher_seconds`` and ``student_seconds`` are CPU seconds (``clock``: "CPU"), or those that pass where the device is another
    ("device"). Both score in turns, after a few rows that count for nothing; of the rounds the fastest counts.
    """
    texts = lesson.data.evaluation.texts[:TIMED_ROWS]
    teachers = [
        teacher.load(folder_of(number, context), texts)
        for number, teacher in enumerate(lesson.teaching.teachers)
    ]
    as_in_a_run = dataclasses.replace(context, precision=made.examination.precision)
    taught = model_of(made.saved, as_in_a_run, is_ours=made.examination.is_ours)
    taught = dataclasses.replace(taught, workers=teachers[0].workers)
    sides = {"teacher": teachers, "student": [taught]}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for models in sides.values():
        _seconds(models, texts[:_WARM_ROWS], context)
    started = time.monotonic()
    for number in range(_ROUNDS):
        if number and time.monotonic() - started > _LONGEST:
            break
        for name, models in sides.items():
            found[name].append(_seconds(models, texts, context))
    teacher, student = min(found["teacher"]), min(found["student"])
    return {
        "times": teacher / max(student, 1e-9),
        "teacher_seconds": teacher,
        "student_seconds": student,
        "clock": "CPU" if context.device == "cpu" else "device",
        "rows": len(texts),
    }


def _seconds(models: list[Model], texts: Sequence[Text], context: TrainingContext) -> float:
    clock = time.process_time if context.device == "cpu" else time.perf_counter
    started = clock()
    for model in models:
        answers_of(model, texts, NoProgress())
    return clock() - started
