"""What a classifier's head gives: its task, its labels in the order of the logits, and how logits become answers.

As ``pipeline("text-classification")`` of transformers decides it: the ``problem_type`` of ``config.json``; else one output is
a sigmoid, several are a softmax. A function that was saved with the model comes first: ``function_to_apply`` in
``config.json``, which ``pipeline`` has a place for but never comes to, or the activation of a CrossEncoder
(sentence-transformers). "None" with several outputs means a softmax nevertheless, as there ``pipeline`` gives probabilities
too and the order is the same.

=========================  =========================  =========================
saved function             one output                 several outputs
=========================  =========================  =========================
none                       sigmoid                    softmax
sigmoid                    sigmoid                    sigmoid, several labels
softmax                    refused                    softmax
"none", ``Identity``       the logit itself           softmax
=========================  =========================  =========================
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.errors import ModelError, printable
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

    def changes(
        self, found: NDArray[np.floating[Any]], expected: NDArray[np.floating[Any]]
    ) -> NDArray[np.float64]:
        """How far answers ``[n, C]`` are from those expected, float64 ``[n, C]``; values relative to 1 plus their size."""
        difference = np.abs(found.astype(np.float64) - expected)
        return difference / (1 + np.abs(expected)) if self.activation == Activation.NONE else difference


def sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``1 / (1 + exp(-x))``, safe for any finite x."""
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1 / (1 + small), small / (1 + small)), dtype=np.float64)


_MULTI_LABEL, _REGRESSION, _SINGLE_LABEL = (
    "multi_label_classification",
    "regression",
    "single_label_classification",
)
_MOST_LABELS = 1_000_000
_GENERIC = re.compile(r"LABEL_\d+")
_SAVED = {
    "sigmoid": Activation.SIGMOID,
    "softmax": Activation.SOFTMAX,
    "none": Activation.NONE,
    "torch.nn.modules.activation.Sigmoid": Activation.SIGMOID,
    "torch.nn.modules.activation.Softmax": Activation.SOFTMAX,
    "torch.nn.modules.linear.Identity": Activation.NONE,
}
"""Functions by the names under which they are saved; other than these are refused."""


def head_of(config: Mapping[str, Any], path: Path, cross_encoder: Mapping[str, Any] | None = None) -> Head:
    """The head that the configuration at ``path`` describes; ``cross_encoder`` is ``config_sentence_transformers.json``.

    Raises:
        ModelError: labels that cannot be meant, an unknown function, or one that contradicts ``problem_type``.
    """
    labels, kind = labels_of(config, path), config.get("problem_type")
    saved = _saved_activation(config, cross_encoder or {}, path)
    if kind not in {None, _MULTI_LABEL, _REGRESSION, _SINGLE_LABEL}:
        raise ModelError(
            f"{printable(path)}: problem_type is {printable(kind)}, which transformers does not know."
        )
    if kind == _SINGLE_LABEL and len(labels) == 1:
        raise ModelError(f"{printable(path)}: problem_type is {kind}, which needs more than one label.")
    if kind == _REGRESSION and len(labels) > 1:
        raise ModelError(
            f"{printable(path)}: a regression with {len(labels)} outputs, which is not supported. Use a model with one."
        )
    head = _head(kind, labels, saved)
    if saved is not None and kind is not None and head != _head(kind, labels, None):
        raise ModelError(
            f"{printable(path)}: problem_type is {kind}, but the function saved with the model is {saved}. Remove the one "
            "that is wrong from its configuration."
        )
    if head.activation == Activation.SOFTMAX and len(labels) == 1:
        raise ModelError(
            f"{printable(path)}: a softmax of one output is always 1. Use a model with two labels."
        )
    return head


def _head(kind: str | None, labels: tuple[str, ...], saved: Activation | None) -> Head:
    if kind == _MULTI_LABEL:
        return Head(Task.MULTI_LABEL, labels, Activation.SIGMOID)
    if len(labels) == 1:
        default = Activation.NONE if kind == _REGRESSION else Activation.SIGMOID
        return Head(Task.REGRESSION, labels, saved or default)
    if saved == Activation.SIGMOID:
        return Head(Task.MULTI_LABEL, labels, Activation.SIGMOID)
    return Head(Task.SINGLE_LABEL, labels, Activation.SOFTMAX)


def head_warning(config: Mapping[str, Any], head: Head) -> str | None:
    """What to say if ``pipeline`` of transformers would apply another function than the one saved with the model."""
    usual = _head(config.get("problem_type"), head.labels, None).activation
    if head.activation == usual:
        return None
    return (
        f"the function saved with the model is used, {head.activation}; transformers' own pipeline would take {usual}, "
        "unless it is called with function_to_apply"
    )


def _saved_activation(
    config: Mapping[str, Any], cross_encoder: Mapping[str, Any], path: Path
) -> Activation | None:
    """The function saved with the model, by the places where sentence-transformers and others look for it, in order."""
    recent = config.get("sentence_transformers")
    places = (
        (recent if isinstance(recent, dict) else {}, "activation_fn"),
        (config, "sbert_ce_default_activation_function"),
        (cross_encoder, "activation_fn"),
        (config, "function_to_apply"),
    )
    name = next((name for facts, key in places if (name := facts.get(key)) is not None), None)
    if name is None:
        return None
    if not isinstance(name, str) or name not in _SAVED:
        raise ModelError(
            f"{printable(path)}: the function {printable(name)[:100]} that was saved with the model is none of "
            f"{', '.join(_SAVED)}. Use a model with one of these."
        )
    return _SAVED[name]


# -------------------------------------------------------------------------------------------------------------- labels


def labels_of(config: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """The labels of the configuration at ``path``, in the order of the logits.

    ``id2label``; where it is absent or says only ``LABEL_0``…, the names in ``label2id``; else ``LABEL_0``… for as many as
    ``num_labels`` (two if that is absent too), as in transformers.

    Raises:
        ModelError: they do not count from 0, contradict each other, are empty or alike.
    """
    names, back = config.get("id2label"), config.get("label2id")
    if not isinstance(names, dict | None) or not isinstance(back, dict | None):
        raise ModelError(f"{printable(path)}: id2label or label2id is no JSON object.")
    given = _names_of(names, path) if names is not None else None
    reverse = _names_in(back or {})
    if given is None:
        labels = reverse or _generic(config, path)
    elif are_generic(given) and reverse and len(reverse) == len(given):
        labels = reverse
    else:
        labels = given
    if given is not None and back and not are_generic(tuple(map(str, back))) and reverse != labels:
        raise ModelError(
            f"{printable(path)}: id2label and label2id disagree. Remove the one that is wrong, or fetch the model again."
        )
    _refuse_odd(labels, path)
    return labels


def are_generic(labels: Sequence[str]) -> bool:
    """Whether the labels are just ``LABEL_0``…, which say nothing about their meaning."""
    return all(_GENERIC.fullmatch(label) for label in labels)


def _names_of(names: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    if set(names) != {str(index) for index in range(len(names))}:
        raise ModelError(f"{printable(path)}: id2label does not count from 0.")
    return tuple(str(names[str(index)]) for index in range(len(names)))


def _names_in(back: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of ``label2id`` in order; None if its ids are not 0, 1 and so on."""
    by_id = {str(value): str(name) for name, value in back.items()}
    if not by_id or set(by_id) != {str(index) for index in range(len(back))}:
        return None
    return tuple(by_id[str(index)] for index in range(len(by_id)))


def _generic(config: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    count = config.get("num_labels", 2)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MOST_LABELS:
        raise ModelError(
            f"{printable(path)}: num_labels is {printable(count)[:100]}, not a number of labels."
        )
    return tuple(f"LABEL_{index}" for index in range(count))


def _refuse_odd(labels: tuple[str, ...], path: Path) -> None:
    if not labels:
        raise ModelError(
            f"{printable(path)}: id2label is empty; a classifier needs labels. Fetch the model again."
        )
    if not all(label.strip() and label.isprintable() for label in labels):
        raise ModelError(f"{printable(path)}: a label is empty or holds control characters.")
    if len(set(labels)) < len(labels):
        raise ModelError(
            f"{printable(path)}: {len(labels)} labels ({printable(', '.join(labels[:9]))}) that are not all different."
        )
