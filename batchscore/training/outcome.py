"""The result of a training: the curve, its best epoch, and early stopping. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Fitted:
    """A trained classifier with its training curve."""

    model: Any
    curve: tuple[dict[str, float], ...]
    """One entry an epoch: ``epoch``, ``loss`` (training), ``eval_loss``, ``eval_accuracy``."""
    best_epoch: float
    precision: str


def best_of(curve: Sequence[dict[str, float]]) -> int:
    """Index of the epoch with the highest accuracy, the first of equals; -1 for an empty curve."""
    if not curve:
        return -1
    return max(range(len(curve)), key=lambda k: (curve[k]["eval_accuracy"], -k))


def is_exhausted(curve: Sequence[dict[str, float]], patience: int | None) -> bool:
    """Whether the last ``patience`` epochs brought no better accuracy."""
    return patience is not None and len(curve) - 1 - best_of(curve) >= patience and bool(curve)


def epoch_line(entry: dict[str, float], epochs: float) -> str:
    """A line of the curve, for people."""
    return (
        f"epoch {entry['epoch']:g} of {epochs:g}: accuracy {entry['eval_accuracy']:.4f}, "
        f"loss {entry['eval_loss']:.4f}"
    )
