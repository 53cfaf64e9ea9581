"""What one call of the trainer was asked for, and what each recipe makes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Recipe(NamedTuple):
    """How a kind of training goes where nothing else was asked for."""

    learning_rate: float
    batch_size: int
    """Rows in a step."""
    warmup: float
    """Share of the steps in which the learning rate rises."""
    epochs: tuple[tuple[int, int], ...]
    """``(rows, epochs)``: with fewer training rows than this, so many epochs; the first that fits counts."""
    is_whole: bool
    """Whether all layers are trained, or the head alone."""


_ANY = 2**63
RECIPES = {
    "full": Recipe(5e-5, 16, 0.1, ((200, 10), (4000, 4), (_ANY, 3)), is_whole=True),
    "head": Recipe(2e-3, 4, 0.0, ((_ANY, 1),), is_whole=False),
}
WEIGHT_DECAY = 0.01


@dataclasses.dataclass(frozen=True, slots=True)
class TrainSettings:
    """Everything one call of the trainer was asked for; ``None`` is what the recipe says."""

    data: str
    """A file, a folder, ``builtin`` or the name of a hub data set."""
    output: Path
    eval_data: str | None = None
    base_model: str = "builtin"
    revision: str | None = None
    recipe: str = "full"
    limit: int | None = None
    """Rows of a split at the most, after shuffling."""
    seed: int = 42
    epochs: float | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    max_length: int = 512
    """Tokens of a text at the most, special ones included."""
    text_column: str | None = None
    label_column: str | None = None
    label_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Given value → label name; values with one name become one label."""
    pooling: str | None = None
    """What the head sees, ``first`` or ``mean``; ``None`` is what recipe and base model suggest."""
    long_text: str = "head"
    force: bool = False

    def resolved(self, rows: int, pooling: str) -> Hyperparameters:
        """The numbers that a training on ``rows`` rows uses, with the ``pooling`` that the base model allows."""
        recipe = RECIPES[self.recipe]
        epochs = next(epochs for below, epochs in recipe.epochs if rows < below)
        return Hyperparameters(
            recipe=self.recipe,
            pooling=pooling,
            epochs=float(self.epochs if self.epochs is not None else epochs),
            learning_rate=self.learning_rate if self.learning_rate is not None else recipe.learning_rate,
            batch_size=self.batch_size or recipe.batch_size,
            warmup=recipe.warmup,
            weight_decay=WEIGHT_DECAY,
            seed=self.seed,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The numbers of one training, none of them open."""

    recipe: str
    pooling: str
    epochs: float
    learning_rate: float
    batch_size: int
    warmup: float
    weight_decay: float
    seed: int

    @property
    def is_whole(self) -> bool:
        """Whether all layers are trained."""
        return RECIPES[self.recipe].is_whole

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self)
