"""What a training minimises and by what the best epoch is chosen, by task: the one place in the trainer that picks it.

Of ``n`` rows and ``C`` labels, *targets* are int64 ``[n]`` (the label's index), 0 and 1 float32 ``[n, C]`` (several labels), or
float32 ``[n]`` (numbers, standardised: the training rows have mean 0 and spread 1, which suits the learning rates that
classifiers have). *Soft* targets of one label a row are float32 ``[n, C]`` that sum to 1: how likely each label is.
"""

from __future__ import annotations

import abc
import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore.records import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from batchscore.training.splits import Label

STRATA = 5
"""Of numbers: as many groups of equal size."""


class Standard(NamedTuple):
    """Numbers are ``scale * target + shift``."""

    scale: float = 1.0
    shift: float = 0.0


AS_IT_IS = Standard()


@dataclasses.dataclass(frozen=True, slots=True)
class Objective(abc.ABC):
    """The objective of one training."""

    weights: tuple[float, ...] | None = None
    """Class weights: a label's (single-label), or those of rows with each label and then of rows without (multi-label)."""
    standard: Standard = AS_IT_IS

    @abc.abstractmethod
    def targets(self, labels: Sequence[Label]) -> NDArray[Any]:
        """The targets of rows with these labels."""

    @abc.abstractmethod
    def loss(self, logits: Tensor, targets: Tensor, *, is_weighted: bool) -> Tensor:
        """The sum of the losses of rows; class weights scale rows but not the denominator of their mean."""

    @abc.abstractmethod
    def score(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> dict[str, float]:
        """The measure that chooses the best epoch, more is better, under its name."""


class _OneLabel(Objective):
    def targets(self, labels: Sequence[Label]) -> NDArray[np.int64]:
        return np.array(labels, dtype=np.int64)

    def loss(self, logits: Tensor, targets: Tensor, *, is_weighted: bool) -> Tensor:
        import torch

        weights = torch.tensor(self.weights, device=logits.device) if is_weighted and self.weights else None
        return torch.nn.functional.cross_entropy(logits, targets, weight=weights, reduction="sum")

    def score(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> dict[str, float]:
        return {"accuracy": float((logits.argmax(axis=-1) == targets).mean())}


class _SeveralLabels(Objective):
    """Binary cross entropy, the mean over labels."""

    def targets(self, labels: Sequence[Label]) -> NDArray[np.float32]:
        return np.array(labels, dtype=np.float32)

    def loss(self, logits: Tensor, targets: Tensor, *, is_weighted: bool) -> Tensor:
        import torch

        targets = targets.to(logits.dtype)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        if is_weighted and self.weights:
            present, absent = torch.tensor(self.weights, device=logits.device).view(2, -1)
            losses = losses * torch.where(targets > 0, present, absent)
        return losses.mean(dim=1).sum()

    def score(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> dict[str, float]:
        """The mean over labels of their average precision, which needs no thresholds."""
        found = [average_precision(logits[:, k], targets[:, k]) for k in range(targets.shape[1])]
        known = [each for each in found if each is not None]
        return {"average_precision": float(np.mean(known)) if known else 0.0}


class _OneNumber(Objective):
    """Squared error of standardised numbers."""

    def targets(self, labels: Sequence[Label]) -> NDArray[np.float32]:
        values = np.array(labels, dtype=np.float64)
        return ((values - self.standard.shift) / self.standard.scale).astype(np.float32)

    def loss(self, logits: Tensor, targets: Tensor, *, is_weighted: bool) -> Tensor:  # noqa: ARG002
        return (logits[:, 0] - targets.to(logits.dtype)).square().sum()

    def score(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> dict[str, float]:
        wanted = targets.astype(np.float64)
        spread = float(np.square(wanted - wanted.mean()).sum())
        error = float(np.square(logits[:, 0] - wanted).sum())
        return {"r2": 1 - error / spread if spread else -error}


_KINDS: Mapping[Task, type[Objective]] = {
    Task.SINGLE_LABEL: _OneLabel,
    Task.MULTI_LABEL: _SeveralLabels,
    Task.REGRESSION: _OneNumber,
}


def objective_of(
    task: Task, labels: Sequence[Label], n_labels: int, class_weights: str, *, has_bias: bool
) -> Objective:
    """The objective for training rows with these labels; numbers are centred only if the last layer has a bias to undo it."""
    weights = tuple(balanced_weights(task, labels, n_labels)) if class_weights == "balanced" else None
    return _KINDS[task](weights, standard_of(labels, has_bias) if task == Task.REGRESSION else AS_IT_IS)


@dataclasses.dataclass(frozen=True, slots=True)
class _AtTemperature(Objective):
    """Another objective with logits divided by a temperature; its targets are softened by the same (:func:`softened`).

    The loss times the square of the temperature has gradients of the same size at each (Hinton et al. 2015, arXiv:1503.02531).
    Rows that only evaluate have neither.
    """

    inner: Objective = dataclasses.field(kw_only=True)
    temperature: float = 1.0

    def targets(self, labels: Sequence[Label]) -> NDArray[Any]:
        return self.inner.targets(labels)

    def loss(self, logits: Tensor, targets: Tensor, *, is_weighted: bool) -> Tensor:
        if not is_weighted:
            return self.inner.loss(logits, targets, is_weighted=False)
        return self.inner.loss(logits / self.temperature, targets, is_weighted=True) * self.temperature**2

    def score(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> dict[str, float]:
        return self.inner.score(logits, targets)


def at_temperature(objective: Objective, temperature: float) -> Objective:
    """The same objective, learned with logits that are divided by a temperature."""
    return _AtTemperature(objective.weights, objective.standard, inner=objective, temperature=temperature)


def softened(task: Task, probabilities: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float32]:
    """What probabilities ``[n, C]`` become if their logits are divided by a temperature; float32 ``[n, C]``.

    >>> softened(Task.SINGLE_LABEL, np.array([[0.8, 0.2]]), 2.0).round(4).tolist()
    [[0.6667, 0.3333]]
    """
    flat = np.asarray(probabilities, dtype=np.float64) ** (1 / temperature)
    if task == Task.MULTI_LABEL:
        others = (1 - np.asarray(probabilities, dtype=np.float64)) ** (1 / temperature)
        return np.asarray(flat / (flat + others), dtype=np.float32)
    return np.asarray(flat / flat.sum(axis=1, keepdims=True), dtype=np.float32)


def standard_of(values: Sequence[Any], has_bias: bool) -> Standard:
    """The spread and the mean of numbers; without a bias their root mean square and 0."""
    numbers = np.array(values, dtype=np.float64)
    shift = float(numbers.mean()) if has_bias else 0.0
    scale = float(np.sqrt(np.square(numbers - shift).mean()))
    return Standard(scale or 1.0, shift)


def balanced_weights(task: Task, labels: Sequence[Any], n_labels: int) -> list[float]:
    """Class weights by which all labels weigh the same, their mean over the rows 1; none for numbers.

    One label: ``rows / (labels * rows of the label)``. Several: ``rows / (2 * rows)`` with each label, then without. What has no
    rows has weight 1.
    """
    if task == Task.REGRESSION:
        return []
    rows = len(labels)
    if task == Task.MULTI_LABEL:
        present = np.array(labels, dtype=np.int64).reshape(rows, n_labels).sum(axis=0)
        return [rows / (2 * count) if count else 1.0 for count in (*present, *(rows - present))]
    counts = collections.Counter(labels)
    return [rows / (len(counts) * counts[k]) if counts[k] else 1.0 for k in range(n_labels)]


def strata_of(task: Task, labels: Sequence[Any]) -> list[int]:
    """A group for each row, by which a cut of the rows keeps the shares of labels.

    The label; of several labels the rarest one that the row has (-1: none); of numbers their fifth.
    """
    if task == Task.SINGLE_LABEL:
        return list(labels)
    if task == Task.REGRESSION:
        order = np.argsort(np.argsort(np.array(labels, dtype=np.float64), kind="stable"), kind="stable")
        return [int(rank) * STRATA // len(labels) for rank in order]
    each = np.array(labels, dtype=np.int64)
    rarest_first = np.argsort(each.sum(axis=0), kind="stable")
    return [next((int(k) for k in rarest_first if row[k]), -1) for row in each]


def average_precision(scores: NDArray[Any], present: NDArray[Any]) -> float | None:
    """Average precision of one label, as scikit-learn defines it; None if no row has it."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(present[order] > 0)
    if not len(hits) or not hits[-1]:
        return None
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # the last of equals
    precision, recall = hits[ends] / (ends + 1), hits[ends] / hits[-1]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def best_thresholds(probabilities: NDArray[np.float32], given: NDArray[Any]) -> list[float]:
    """For each label the threshold with the best F1 on rows ``[n, C]``; 0.5 where no row, or each, has the label.

    Halfway between neighbouring probabilities, rounded to four digits; among equals the one nearest to 0.5.
    """
    return [
        _best_threshold(probabilities[:, k].astype(np.float64), given[:, k] > 0)
        for k in range(given.shape[1])
    ]


def _best_threshold(scores: NDArray[np.float64], present: NDArray[np.bool_]) -> float:
    if not present.any() or present.all():
        return 0.5
    distinct = np.unique(scores)
    halfway = np.unique(np.round(np.append((distinct[1:] + distinct[:-1]) / 2, 0.5), 4))
    candidates = halfway[(halfway > 0) & (halfway < 1)]
    counts = [
        np.searchsorted(np.sort(some), candidates.astype(np.float32))
        for some in (scores[present], scores[~present])
    ]
    hits, extra = present.sum() - counts[0], (~present).sum() - counts[1]
    f1 = 2 * hits / (hits + extra + present.sum())
    best = candidates[f1 >= f1.max()]
    return float(best[np.abs(best - 0.5).argmin()])
