"""What one call of the trainer was asked for, and what each recipe makes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from batchscore.config import ReadSettings
from batchscore.errors import UsageError


class Recipe(NamedTuple):
    """How a kind of training goes where nothing else was asked for."""

    learning_rate: float
    narrow_learning_rate: float
    """The same where the encoder's states have fewer than 512 elements, as MiniLM's do: smaller models take larger steps."""
    batch_size: int
    """Rows in a step."""
    warmup: float
    """Share of the steps in which the learning rate rises."""
    epochs: Mapping[str, tuple[tuple[int, int], ...]]
    """By pooling ``(rows, epochs)``: with fewer training rows than this, so many epochs; the first that fits counts."""
    is_whole: bool
    """Whether layers of the encoder are trained, or the head alone."""


_ANY = 2**63
_FULL = ((200, 10), (4000, 4), (_ANY, 3))
RECIPES = {
    "full": Recipe(5e-5, 1e-4, 16, 0.1, {"first": _FULL, "mean": _FULL}, is_whole=True),
    "head": Recipe(
        2e-3, 2e-3, 4, 0.0, {"first": ((_ANY, 1),), "mean": ((4000, 8), (_ANY, 4))}, is_whole=False
    ),
}
WEIGHT_DECAY = 0.01
_NARROW_BELOW = 512
"""Elements of a token's state."""


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
    read: ReadSettings = dataclasses.field(default_factory=ReadSettings)
    """How files are read, but for the columns."""
    label_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Given value → label name; values with one name become one label."""
    pooling: str | None = None
    """What the head sees, ``first`` or ``mean``; ``None`` is what recipe and base model suggest."""
    long_text: str = "head"
    group_column: str | None = None
    """Rows with one value here are never cut apart."""
    class_weights: str = "none"
    train_layers: int | None = None
    """Encoder layers, from the top, that ``full`` trains; ``None`` is all of them, and the embeddings."""
    early_stopping: int | None = None
    """Epochs without a better accuracy after which training ends."""
    gradient_accumulation: int = 1
    """Batches in a step."""
    gradient_checkpointing: bool = False
    precision: str = "auto"
    check_labels: bool = False
    tune: bool = False
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant together."""
        if self.recipe == "head" and (self.train_layers is not None or self.gradient_checkpointing):
            raise UsageError(
                "--train-layers and --gradient-checkpointing are for --recipe full; head trains no layer of the encoder."
            )

    def resolved(self, rows: int, pooling: str, width: int) -> Hyperparameters:
        """The numbers that a training on ``rows`` rows uses, with the ``pooling`` and the ``width`` of the base model."""
        recipe = RECIPES[self.recipe]
        usual = recipe.learning_rate if width >= _NARROW_BELOW else recipe.narrow_learning_rate
        epochs = next(epochs for below, epochs in recipe.epochs[pooling] if rows < below)
        return Hyperparameters(
            recipe=self.recipe,
            pooling=pooling,
            epochs=float(self.epochs if self.epochs is not None else epochs),
            learning_rate=self.learning_rate if self.learning_rate is not None else usual,
            batch_size=self.batch_size or recipe.batch_size,
            warmup=recipe.warmup,
            weight_decay=WEIGHT_DECAY,
            seed=self.seed,
            class_weights=self.class_weights,
            train_layers=self.train_layers,
            early_stopping=self.early_stopping,
            gradient_accumulation=self.gradient_accumulation,
            gradient_checkpointing=self.gradient_checkpointing,
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
    class_weights: str = "none"
    train_layers: int | None = None
    early_stopping: int | None = None
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether layers of the encoder are trained, or the head alone."""
        return RECIPES[self.recipe].is_whole

    @property
    def chooses(self) -> bool:
        """Whether evaluation rows have a say in what comes out: the best of several epochs is kept."""
        return self.epochs > 1

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self)
