"""From answers to predictions, by the task of a model: the likeliest label, every label beyond its threshold, the value."""

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
) -> NDArray[Any]:
    """The predictions of ``answers[n, C]`` in the array of the task (:mod:`batchscore.evaluation.tasks`).

    Rows that are not ``scored[n]`` have none. ``thresholds`` are those of a multi-label model, one a label (none: 0.5
    each), and are compared as float32, so that a probability which is written as 0.7 is not below a threshold of 0.7.
    """
    return _DECISIONS[task](answers, scored, np.asarray(thresholds or [THRESHOLD], dtype=np.float32))


def _likeliest(
    answers: NDArray[np.float32], scored: NDArray[np.bool_], _: NDArray[np.float32]
) -> NDArray[np.int32]:
    predicted = np.full(len(scored), -1, dtype=np.int32)
    predicted[scored] = answers[scored].argmax(axis=1)
    return predicted


def _beyond_thresholds(
    answers: NDArray[np.float32], scored: NDArray[np.bool_], thresholds: NDArray[np.float32]
) -> NDArray[np.int8]:
    predicted = np.full(answers.shape, -1, dtype=np.int8)
    predicted[scored] = answers[scored] >= thresholds
    return predicted


def _values(
    answers: NDArray[np.float32], scored: NDArray[np.bool_], _: NDArray[np.float32]
) -> NDArray[np.float32]:
    return np.where(scored, answers[:, 0], np.float32(np.nan))


_DECISIONS: Mapping[Task, Callable[..., NDArray[Any]]] = {
    Task.SINGLE_LABEL: _likeliest,
    Task.MULTI_LABEL: _beyond_thresholds,
    Task.REGRESSION: _values,
}
