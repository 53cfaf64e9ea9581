"""What a classifier's head gives: its task, its labels in the order of the logits, and how logits become answers.

As ``pipeline("text-classification")`` of transformers decides it: the ``problem_type`` of ``config.json``; else one output is
a sigmoid, several are a softmax.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.evaluation import apply_temperature
from batchscore.records import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Activation(enum.StrEnum):
    """The function from logits to answers."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NONE = "none"


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """A task and its labels; a regression has one output, whose name is its only label."""

    task: Task
    labels: tuple[str, ...]
    activation: Activation

    def answers(self, logits: NDArray[np.floating[Any]], temperature: float = 1.0) -> NDArray[np.float32]:
        """Answers ``[n, C]`` float32 of ``logits[n, C]``: probabilities, or the values of a regression.

        Computed in float64 from ``logits / temperature`` and rounded once. NaN stays NaN.
        """
        if self.activation == Activation.SOFTMAX:
            return apply_temperature(logits, temperature)
        values = np.asarray(logits, dtype=np.float64) / temperature
        if self.activation == Activation.SIGMOID:
            values = sigmoid(values)
        return values.astype(np.float32)


def sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``1 / (1 + exp(-x))``, safe for any finite x."""
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1 / (1 + small), small / (1 + small)), dtype=np.float64)


def head_of(config: Mapping[str, Any], labels: tuple[str, ...]) -> Head:
    """The head that ``config.json`` describes."""
    kind = config.get("problem_type")
    if kind == "multi_label_classification":
        return Head(Task.MULTI_LABEL, labels, Activation.SIGMOID)
    if kind == "regression":
        return Head(Task.REGRESSION, labels, Activation.NONE)
    if len(labels) == 1:
        return Head(Task.REGRESSION, labels, Activation.SIGMOID)
    return Head(Task.SINGLE_LABEL, labels, Activation.SOFTMAX)
