"""From answers to predictions, by the task of a model: the likeliest label (or none), every label beyond its threshold, the value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.records import THRESHOLD, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray


def decided(
    task: Task,
    answers: NDArray[np.float32],
    scored: NDArray[np.bool_],
    thresholds: Sequence[float] = (),
    below: str = "next",
) -> NDArray[Any]:
    """The predictions of ``answers[n, C]`` in the array of the task (:mod:`batchscore.evaluation.tasks`).

    Rows that are not ``scored[n]`` have none. ``thresholds``, one a label, are compared as float32, so that a probability which
    is written as 0.7 is not below a threshold of 0.7. Without any, a multi-label model has 0.5 for each. With one label a row,
    a likeliest label that is ``below`` its own gives way to the ``next`` one that is not, or to none (``abstain``: -1).
    """
    return _DECISIONS[task](answers, scored, np.asarray(thresholds, dtype=np.float32), below)


def undecided(task: Task, predicted: NDArray[Any], scored: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``[n]``: the ``scored[n]`` rows for which :func:`decided` found no label; several labels may well be none."""
    return scored & (predicted < 0) if task == Task.SINGLE_LABEL else np.zeros(len(scored), dtype=np.bool_)


def _likeliest(
    answers: NDArray[np.float32], scored: NDArray[np.bool_], thresholds: NDArray[np.float32], below: str
) -> NDArray[np.int32]:
    predicted = np.full(len(scored), -1, dtype=np.int32)
    found = answers[scored]
    if len(thresholds) == 0:
        predicted[scored] = found.argmax(axis=1)
        return predicted
    reached = found >= thresholds
    if below == "next":  # a label that is below its threshold is no candidate
        found = np.where(reached, found, np.float32(-1))
    rows, best = np.arange(len(found)), found.argmax(axis=1)
    predicted[scored] = np.where(reached[rows, best], best, -1)
    return predicted


def _beyond_thresholds(
    answers: NDArray[np.float32], scored: NDArray[np.bool_], thresholds: NDArray[np.float32], _: str
) -> NDArray[np.int8]:
    predicted = np.full(answers.shape, -1, dtype=np.int8)
    predicted[scored] = answers[scored] >= (thresholds if len(thresholds) else np.float32(THRESHOLD))
    return predicted


def _values(
    answers: NDArray[np.float32], scored: NDArray[np.bool_], _: NDArray[np.float32], __: str
) -> NDArray[np.float32]:
    return np.where(scored, answers[:, 0], np.float32(np.nan))


_DECISIONS: Mapping[Task, Callable[..., NDArray[Any]]] = {
    Task.SINGLE_LABEL: _likeliest,
    Task.MULTI_LABEL: _beyond_thresholds,
    Task.REGRESSION: _values,
}
