"""A classifier and encoded rows in, the trained classifier out, by Hugging Face ``Trainer``."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from batchscore.backends.torch_backend import faster_precisions

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import NDArray

    from batchscore.tokenization import Tokenizer
    from batchscore.training.data import Split
    from batchscore.training.settings import Hyperparameters

_LENGTH_MULTIPLE = 32
"""Tokens; few shapes make a CPU faster (see ``batching``)."""
_EVAL_ROWS = 32


class Progress(Protocol):
    """Something that is told how many rows are done."""

    def add(self, amount: int, *, counted: bool = True) -> None:
        """Note ``amount`` rows more."""

    def close(self) -> None:
        """There is no more to come."""


Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Fitted:
    """A trained classifier, and how its training went."""

    model: Any
    curve: tuple[dict[str, float], ...]
    """One entry an epoch: ``epoch``, ``loss`` (training), ``eval_loss``, ``eval_accuracy``."""
    best_epoch: float
    precision: str


def encode(split: Split, tokenizer: Tokenizer, long_text: str) -> Dataset:
    """Token ids of a split as the scorer would make them: ``input_ids``, ``attention_mask``, ``label``, ``length``.

    Under ``windows`` a text is trained on by its head.
    """
    import datasets

    cut = "head" if long_text == "windows" else long_text
    input_ids = tokenizer.encode(split.texts, cut).input_ids
    return datasets.Dataset.from_dict(
        {
            "input_ids": input_ids,
            "attention_mask": [np.ones(len(ids), dtype=np.int8) for ids in input_ids],
            "label": split.labels,
            "length": [len(ids) for ids in input_ids],
        }
    )


def fit(
    model: Any,
    tokenizer: Any,
    splits: tuple[Dataset, Dataset],
    plan: Hyperparameters,
    where: tuple[Path, str],
    watch: tuple[Progress, Tell],
) -> Fitted:
    """Train on the first split; after each epoch measure on the second, and keep the best epoch.

    ``where`` is the folder for checkpoints and the device; ``watch`` is told how it goes.
    """
    from transformers import DataCollatorWithPadding, Trainer
    from transformers.trainer_callback import PrinterCallback

    folder, device = where
    train, evaluation = splits
    precision = _precision(device, plan)
    multiple = (
        _LENGTH_MULTIPLE if plan.is_whole and not tokenizer.model_max_length % _LENGTH_MULTIPLE else None
    )
    trainer = Trainer(
        model=model,
        args=_arguments(folder, plan, device, precision),
        train_dataset=train,
        eval_dataset=evaluation.select(np.argsort(-np.array(evaluation["length"]), kind="stable")),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer, padding="longest", pad_to_multiple_of=multiple),
        compute_metrics=_accuracy,
        callbacks=[_callback(*watch, rows=len(train), plan=plan)],
    )
    trainer.remove_callback(PrinterCallback)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    curve = _curve(trainer.state.log_history)
    best = max(curve, key=lambda entry: entry["eval_accuracy"]) if curve else {"epoch": plan.epochs}
    return Fitted(trainer.model, curve, best["epoch"], precision)


def _precision(device: str, plan: Hyperparameters) -> str:
    """``bf16`` where a product is measured to be clearly faster in it; a frozen base stays in float32."""
    return "bf16" if plan.is_whole and "bf16" in faster_precisions(device) else "fp32"


def _arguments(folder: Path, plan: Hyperparameters, device: str, precision: str) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=plan.epochs,
        learning_rate=plan.learning_rate,
        per_device_train_batch_size=plan.batch_size,
        per_device_eval_batch_size=_EVAL_ROWS,
        warmup_steps=plan.warmup,
        weight_decay=plan.weight_decay,
        seed=plan.seed,
        data_seed=plan.seed,
        bf16=precision == "bf16",
        use_cpu=device == "cpu",
        train_sampling_strategy="group_by_length" if plan.is_whole else "random",
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        save_total_limit=1,
        save_only_model=True,
        dataloader_pin_memory=device != "cpu",
        report_to="none",
        disable_tqdm=True,
        log_level="error",
    )


def _accuracy(prediction: Any) -> dict[str, float]:
    logits: NDArray[np.float32] = prediction.predictions
    return {"accuracy": float((logits.argmax(axis=-1) == prediction.label_ids).mean())}


def _callback(progress: Progress, tell: Tell, *, rows: int, plan: Hyperparameters) -> Any:
    """What ``Trainer`` calls as it goes: rows to ``progress``, one line an epoch to ``tell``."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        done = 0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            now = min(round((state.epoch or 0.0) * rows), round(plan.epochs * rows))
            progress.add(now - self.done)
            self.done = now

        def on_evaluate(self, args: Any, state: Any, control: Any, **facts: Any) -> None:  # noqa: ARG002
            metrics = facts["metrics"]
            epoch, accuracy, loss = state.epoch, metrics["eval_accuracy"], metrics["eval_loss"]
            tell(f"epoch {epoch:g} of {plan.epochs:g}: accuracy {accuracy:.4f}, loss {loss:.4f}")

    return Watch()


def _curve(history: list[dict[str, float]]) -> tuple[dict[str, float], ...]:
    """The log of ``Trainer``, one entry an epoch."""
    epochs: dict[float, dict[str, float]] = {}
    for entry in history:
        kept: dict[str, float] = {
            name: entry[name] for name in ("loss", "eval_loss", "eval_accuracy") if name in entry
        }
        if kept:
            epochs.setdefault(entry["epoch"], {"epoch": entry["epoch"]}).update(kept)
    return tuple(entry for entry in epochs.values() if "eval_accuracy" in entry)
