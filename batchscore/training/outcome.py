"""The result of a training: the curve, its best epoch, and early stopping. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from batchscore.training.objectives import AS_IT_IS, Standard

MEASURES = {"eval_accuracy": "accuracy", "eval_average_precision": "average precision", "eval_r2": "R²"}
"""Key in the curve → name, of the measure that chooses the best epoch."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fitted:
    """A trained classifier with its training curve."""

    model: Any
    curve: tuple[dict[str, float], ...]
    """One entry an epoch: ``epoch``, ``loss`` (training), ``eval_loss``, and the measure of the task, such as ``eval_accuracy``."""
    best_epoch: float
    precision: str
    standard: Standard = AS_IT_IS
    """What its outputs are still to be multiplied by and added to."""


def measure_of(entry: Mapping[str, float]) -> str | None:
    """The key of the measure in an entry of the curve; None if it is no entry of an epoch's end."""
    return next((key for key in MEASURES if key in entry), None)


def score_of(entry: Mapping[str, float]) -> float:
    """The measure by which epochs are compared; more is better."""
    return entry[measure_of(entry) or ""]


def best_of(curve: Sequence[dict[str, float]]) -> int:
    """Index of the epoch with the highest score, the first of equals; -1 for an empty curve."""
    if not curve:
        return -1
    return max(range(len(curve)), key=lambda k: (score_of(curve[k]), -k))


def is_exhausted(curve: Sequence[dict[str, float]], patience: int | None) -> bool:
    """Whether the last ``patience`` epochs brought no better score."""
    return patience is not None and len(curve) - 1 - best_of(curve) >= patience and bool(curve)


def epoch_line(entry: dict[str, float], epochs: float) -> str:
    """A line of the curve, for people."""
    name = MEASURES[measure_of(entry) or ""]
    return (
        f"epoch {entry['epoch']:g} of {epochs:g}: {name} {score_of(entry):.4f}, loss {entry['eval_loss']:.4f}"
    )
