"""How a training went: the curve, its best epoch, and when to stop waiting for a better one. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Fitted:
    """A trained classifier, and how its training went."""

    model: Any
    curve: tuple[dict[str, float], ...]
    """One entry an epoch: ``epoch``, ``loss`` (training), ``eval_loss``, ``eval_accuracy``."""
    best_epoch: float
    precision: str


def best_of(curve: Sequence[dict[str, float]]) -> int:
    """Position of the epoch of highest accuracy, the first of equals; -1 of an empty curve."""
    if not curve:
        return -1
    return max(range(len(curve)), key=lambda k: (curve[k]["eval_accuracy"], -k))


def is_exhausted(curve: Sequence[dict[str, float]], patience: int | None) -> bool:
    """Whether ``patience`` epochs brought nothing better than the best before them."""
    return patience is not None and len(curve) - 1 - best_of(curve) >= patience and bool(curve)


def told(entry: dict[str, float], epochs: float) -> str:
    """A line of the curve, for people."""
    return (
        f"epoch {entry['epoch']:g} of {epochs:g}: accuracy {entry['eval_accuracy']:.4f}, "
        f"loss {entry['eval_loss']:.4f}"
    )
