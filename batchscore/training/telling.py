"""What the trainer says of its data and its plan before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from batchscore.errors import printable
from batchscore.records import Task
from batchscore.training.base_model import kept_layers
from batchscore.training.corrections import lines_of
from batchscore.training.hygiene import hygiene_lines
from batchscore.training.splits import counted

if TYPE_CHECKING:
    from batchscore.model.bundle import Bundle
    from batchscore.training.context import Tell
    from batchscore.training.settings import Hyperparameters
    from batchscore.training.splits import TrainingData

_TOLD_LABELS = 20


def tell_data(data: TrainingData, hygiene: Mapping[str, Any], tell: Tell) -> None:
    """The rows of both splits, and what is odd about them."""
    for split, reasons in data.left_out.items():
        for reason, count in reasons.items():
            tell(f"left out of the {split} rows: {count} with {reason.replace('_', ' ')}")
    for line in lines_of(data.corrections or {}):
        tell(line)
    tell(
        f"{len(data.train)} rows to train on, {len(data.evaluation)} to evaluate on ({data.source}); {_counted(data)}"
    )
    for line in hygiene_lines(hygiene, {"train": len(data.train), "evaluation": len(data.evaluation)}):
        tell(line)


def _counted(data: TrainingData) -> str:
    """Labels with their numbers of training rows, or what numbers there are."""
    found = counted(data.goal, data.train.labels)
    if values := found.get("values"):
        facts = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        return printable(f"{data.labels[0]} is a number: {facts}")
    counts = [f"{name} {count}" for name, count in found["labels"].items()]
    more = f" and {len(counts) - _TOLD_LABELS} more" if len(counts) > _TOLD_LABELS else ""
    several = "several labels a text: " if data.goal.task == Task.MULTI_LABEL else "labels "
    return several + printable(", ".join(counts[:_TOLD_LABELS])) + more


def tell_plan(plan: Hyperparameters, base: Bundle, tell: Tell) -> None:
    """The settings, as far as they are not the user's own."""
    if plan.student_layers is not None:
        layers = kept_layers(base, plan.student_layers)
        tell(f"of the base model's {layers['of']} layers {', '.join(map(str, layers['kept']))} are kept")
    tell(
        f"recipe {plan.recipe}, pooling {plan.pooling}: {plan.epochs:g} epochs at {plan.learning_rate:g}, batches of "
        f"{plan.batch_size * plan.gradient_accumulation}, texts cut at {base.max_length} tokens"
    )
