"""Settings of one call of the trainer, and the defaults of each recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from batchscore.config import ReadSettings
from batchscore.errors import UsageError

if TYPE_CHECKING:
    from batchscore.training.corrections import Corrections


class Recipe(NamedTuple):
    """The defaults of a kind of training."""

    learning_rate: float
    narrow_learning_rate: float
    """The same for hidden sizes below 512, such as MiniLM's: smaller models take larger steps."""
    batch_size: int
    """Rows in a step."""
    warmup: float
    """Share of the steps in which the learning rate rises."""
    epochs: Mapping[str, tuple[tuple[int, int], ...]]
    """By pooling, pairs ``(rows, epochs)``: the first with more ``rows`` than training rows applies."""
    trains_encoder: bool
    """Whether layers of the encoder are trained, or the head alone."""


_ANY = 2**63
_FULL = ((200, 10), (4000, 4), (_ANY, 3))
RECIPES = {
    "full": Recipe(5e-5, 1e-4, 16, 0.1, {"first": _FULL, "mean": _FULL}, trains_encoder=True),
    "head": Recipe(
        2e-3, 2e-3, 4, 0.0, {"first": ((_ANY, 1),), "mean": ((4000, 8), (_ANY, 4))}, trains_encoder=False
    ),
}
_BUILTIN = "builtin"
WEIGHT_DECAY = 0.01
_NARROW_BELOW = 512
"""Hidden size."""


@dataclasses.dataclass(frozen=True, slots=True)
class TrainSettings:
    """Settings of one call of the trainer; ``None`` is the recipe's default."""

    data: str
    """A file, a folder, ``builtin`` or the name of a hub data set."""
    output: Path
    eval_data: str | None = None
    base_model: str | None = None
    """``builtin``, a folder or a hub id; ``None``: see :attr:`base_name`."""
    revision: str | None = None
    recipe: str = "full"
    limit: int | None = None
    """Maximum rows of a split, after shuffling."""
    seed: int = 42
    epochs: float | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    max_length: int = 512
    """Maximum tokens of a text, special ones included."""
    text_column: str | None = None
    label_column: str | None = None
    text_pair_column: str | None = None
    """The column of second texts; ``None``: a row is one text."""
    missing_pair: str = "skip"
    """Whether a row without its second text is left out (``skip``), or has an ``empty`` one; kept in the bundle."""
    label_columns: tuple[str, ...] = ()
    """Columns of 0 and 1, one for each of several labels."""
    task: str = "auto"
    """``single-label``, ``multi-label`` or ``regression``; ``auto`` tells the first two apart by the label column."""
    threshold: float | None = None
    """Of several labels, from which probability each is predicted; ``None``: what is best for each on the validation rows."""
    read: ReadSettings = dataclasses.field(default_factory=ReadSettings)
    """How files are read, except the columns."""
    label_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Given value → label name; values with the same name become one label."""
    pooling: str | None = None
    """Input of the head, ``first`` (``[CLS]``) or ``mean``; ``None`` depends on recipe and base model."""
    long_text: str = "head"
    group_column: str | None = None
    """Rows with the same value here stay in one split."""
    class_weights: str = "none"
    hard_labels: bool = False
    """Whether given labels are learned alone, however few there are (:mod:`~batchscore.training.soft_labels`)."""
    train_layers: int | None = None
    """Top encoder layers that ``full`` trains; ``None`` is all of them and the embeddings."""
    early_stopping: int | None = None
    """Epochs without a better accuracy after which training stops."""
    gradient_accumulation: int = 1
    """Batches in a step."""
    gradient_checkpointing: bool = False
    precision: str = "auto"
    check_labels: bool = False
    tune: bool = False
    learning_curve: bool = False
    """Whether smaller trainings tell what more labels would bring."""
    unlabelled: str | None = None
    """Texts without labels, which improve the model: as ``data``."""
    minutes: float | None = None
    """About so long the unlabelled texts are learned from; ``None``: as many as :data:`~batchscore.training.unlabelled.MOST_TEXTS`."""
    teachers: tuple[str, ...] = ()
    """Folders of models whose answers are learned."""
    teacher_temperature: float | None = None
    student_layers: int | None = None
    """Layers of the base model that are kept; ``None`` is all of them."""
    resume: bool = False
    force: bool = False
    corrections: Corrections | None = None
    """What a review found of the labels."""
    sign: Path | None = None
    """A private key that the bundle is signed with."""

    @property
    def base_name(self) -> str:
        """The base model: as asked for; else the teacher that fewer layers are to be kept of, if there is one alone; else ``builtin``."""
        if self.base_model is not None:
            return self.base_model
        return self.teachers[0] if self.starts_from_teacher else _BUILTIN

    @property
    def takes_builtin(self) -> bool:
        """Whether the base model is the encoder that the extra ``demo`` brings."""
        return not self.starts_from_teacher and self.base_name == _BUILTIN

    @property
    def starts_from_teacher(self) -> bool:
        """Whether a teacher is the base model without having been named as that."""
        return self.base_model is None and self.student_layers is not None and len(self.teachers) == 1

    def __post_init__(self) -> None:
        """Refuse contradictory settings."""
        if self.label_columns and (self.label_column or self.task not in ("auto", "multi-label")):
            raise UsageError(
                "--label-columns is for several labels at once (--task multi-label), instead of a --label-column."
            )
        if self.recipe == "head" and (self.train_layers is not None or self.gradient_checkpointing):
            raise UsageError(
                "--train-layers and --gradient-checkpointing are for --recipe full; head trains no layer of the encoder."
            )
        if self.minutes is not None and self.unlabelled is None:
            raise UsageError(
                "--minutes is how long the texts of --unlabelled are learned from; give both, or neither."
            )
        self._refuse_without_teacher()
        if self.text_pair_column is None and self.missing_pair != "skip":
            raise UsageError(
                "--missing-pair is for two texts a row: name the second one with --text-pair-column."
            )
        if self.text_pair_column is not None and self.long_text != "head":
            raise UsageError(
                f"--long-text {self.long_text} is for one text a row; two are cut longest first. Leave it out."
            )
        if self.text_pair_column is not None and "builtin" in (self.data, self.eval_data):
            raise UsageError("The sample reviews have one text a row; leave out --text-pair-column.")

    def _refuse_without_teacher(self) -> None:
        if not self.teachers and self.teacher_temperature is not None:
            raise UsageError("--teacher-temperature is for the answers of a --teacher, which is missing.")
        if self.teachers and self.minutes is not None:
            raise UsageError(
                "--minutes is for --unlabelled without a --teacher, which is asked about all texts."
            )
        if self.teachers and self.class_weights != "none":
            raise UsageError(
                "--class-weights counts given labels, and a --teacher says how likely each label is. Leave it out."
            )
        if self.teachers and self.hard_labels:
            raise UsageError(
                "--hard-labels learns the given labels alone, and a --teacher adds its answers to them. Leave one of them out."
            )
        if self.teachers and self.learning_curve:
            raise UsageError(
                "--learning-curve is about given labels, and a --teacher has an answer to every text. Leave one of them out."
            )

    def resolved(self, rows: int, pooling: str, hidden_size: int) -> Hyperparameters:
        """The hyperparameters for ``rows`` training rows, the ``pooling``, and the base model's ``hidden_size``."""
        recipe = RECIPES[self.recipe]
        learning_rate = recipe.learning_rate if hidden_size >= _NARROW_BELOW else recipe.narrow_learning_rate
        epochs = next(epochs for below, epochs in recipe.epochs[pooling] if rows < below)
        return Hyperparameters(
            recipe=self.recipe,
            pooling=pooling,
            epochs=float(self.epochs if self.epochs is not None else epochs),
            learning_rate=self.learning_rate if self.learning_rate is not None else learning_rate,
            batch_size=self.batch_size or recipe.batch_size,
            warmup=recipe.warmup,
            weight_decay=WEIGHT_DECAY,
            seed=self.seed,
            class_weights=self.class_weights,
            soft_labels=not self.hard_labels,
            train_layers=self.train_layers,
            early_stopping=self.early_stopping,
            gradient_accumulation=self.gradient_accumulation,
            gradient_checkpointing=self.gradient_checkpointing,
            student_layers=self.student_layers,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The hyperparameters of one training, all resolved."""

    recipe: str
    pooling: str
    epochs: float
    learning_rate: float
    batch_size: int
    warmup: float
    weight_decay: float
    seed: int
    class_weights: str = "none"
    soft_labels: bool = False
    """Whether few labels are to be learned with doubt; of a training that was done, whether they were."""
    train_layers: int | None = None
    early_stopping: int | None = None
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False
    student_layers: int | None = None
    teacher_temperature: float | None = None

    @property
    def trains_encoder(self) -> bool:
        """Whether layers of the encoder are trained, or the head alone."""
        return RECIPES[self.recipe].trains_encoder

    @property
    def selects_epoch(self) -> bool:
        """Whether the validation split selects the best of several epochs."""
        return self.epochs > 1

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self)
