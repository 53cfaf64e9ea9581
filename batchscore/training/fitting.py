"""A classifier and encoded rows in, the trained classifier out, by Hugging Face ``Trainer``.

All randomness is a function of seed, epoch and step (see ``sampling``), and checkpoints are atomic, so a killed training
resumes to exactly the weights of an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.system.storage import make_folder, remove_tree
from batchscore.training import checkpoints
from batchscore.training.checkpoints import (
    CHECKPOINTS,
    UNFINISHED,
    curve_of,
    evaluated_steps,
    history_of,
    is_finished,
    load_weights,
    losses_of,
    newest_in,
)
from batchscore.training.outcome import Fitted, best_of, epoch_line, is_exhausted

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import NDArray

    from batchscore.training.context import TrainingContext
    from batchscore.training.objectives import Objective
    from batchscore.training.settings import Hyperparameters
    from batchscore.training.trainable_encoder import TrainableEncoder

_LENGTH_MULTIPLE = 32
"""Tokens; a CPU is faster with few shapes (see ``batching``)."""
_EVAL_ROWS = 32


def dataset_of(
    input_ids: Sequence[NDArray[np.int32]],
    targets: NDArray[Any],
    token_type_ids: Sequence[Sequence[int] | NDArray[np.int8]] | None = None,
) -> Dataset:
    """A data set for ``Trainer``: ``input_ids``, ``attention_mask``, ``label``, ``length``, and ``token_type_ids`` if given."""
    import datasets

    return datasets.Dataset.from_dict(
        {
            **({} if token_type_ids is None else {"token_type_ids": token_type_ids}),
            "input_ids": input_ids,
            "attention_mask": [np.ones(len(ids), dtype=np.int8) for ids in input_ids],
            "label": targets.tolist(),
            "length": [len(ids) for ids in input_ids],
        }
    )


def fit(
    model: Any,
    tokenizer: Any,
    splits: tuple[Dataset, Dataset],
    plan: Hyperparameters,
    objective: Objective,
    context: TrainingContext,
) -> Fitted:
    """Train on the first split, evaluate on the second after each epoch, and keep the best epoch.

    Resumes from the newest checkpoint in ``context.folder``.
    """
    folder = context.folder / CHECKPOINTS
    remove_tree(folder / UNFINISHED)
    make_folder(folder)
    precision = context.precision if plan.trains_encoder else "fp32"
    trainer = _trainer(model, tokenizer, splits, plan, objective, context, precision)
    newest = newest_in(folder)
    if newest is not None:
        trainer.losses = losses_of(newest)
    if newest is None or not is_finished(newest, plan):
        with warnings.catch_warnings(), _fast_attention(model, context.device, precision):
            warnings.simplefilter("ignore")
            trainer.train(resume_from_checkpoint=str(newest) if newest else None)
        newest = newest_in(folder)
    curve = curve_of(history_of(newest), trainer.losses) if newest else ()
    best = max(best_of(curve), 0)
    if newest is not None:
        load_weights(model, folder / f"checkpoint-{evaluated_steps(history_of(newest))[best]}")
    return Fitted(model, curve, curve[best]["epoch"] if curve else plan.epochs, precision)


def _fast_attention(model: Any, device: str, precision: str) -> contextlib.AbstractContextManager[None]:
    from batchscore.training.attention import matmul_attention

    return matmul_attention(model) if _is_bf16_on_cpu(device, precision) else contextlib.nullcontext()


def _is_bf16_on_cpu(device: str, precision: str) -> bool:
    return device == "cpu" and precision == "bf16"


def _encoder(model: Any, plan: Hyperparameters, device: str, precision: str) -> TrainableEncoder | None:
    """What computes a step faster than transformers, where there is such."""
    import torch

    from batchscore.training.trainable_encoder import trainable_encoder_of

    if plan.gradient_checkpointing or not _is_bf16_on_cpu(device, precision):
        return None
    return trainable_encoder_of(model, torch.bfloat16)


def _trainer(
    model: Any,
    tokenizer: Any,
    splits: tuple[Dataset, Dataset],
    plan: Hyperparameters,
    objective: Objective,
    context: TrainingContext,
    precision: str,
) -> Any:
    from transformers import DataCollatorWithPadding
    from transformers.trainer_callback import PrinterCallback

    from batchscore.training.resumable_trainer import ResumableTrainer

    if plan.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    train, evaluation = splits
    is_multiple = plan.trains_encoder and not tokenizer.model_max_length % _LENGTH_MULTIPLE
    pads = context.padding_mode in ("right", "left")
    collate = DataCollatorWithPadding(
        tokenizer, padding="longest", pad_to_multiple_of=_LENGTH_MULTIPLE if is_multiple else None
    )
    trainer = ResumableTrainer(
        plan,
        objective,
        pads=pads,
        encoder=_encoder(model, plan, context.device, precision) if pads else None,
        model=model,
        args=_arguments(context.folder / CHECKPOINTS / UNFINISHED, plan, context.device, precision),
        train_dataset=train,
        eval_dataset=evaluation.select(np.argsort(-np.array(evaluation["length"]), kind="stable")),
        processing_class=tokenizer,
        data_collator=collate if pads else _with_mask(collate, tokenizer.padding_side),
        compute_metrics=lambda found: objective.score(found.predictions, found.label_ids),
        callbacks=[_callback(context, rows=len(train), plan=plan)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _with_mask(collate: Callable[..., Any], side: str) -> Callable[..., Any]:
    """A collator that says what is padding also for a model that takes no mask."""

    def collated(rows: Sequence[Mapping[str, Any]]) -> Any:
        batch = collate(rows)
        width = batch["input_ids"].shape[1]
        lengths = np.array([len(row["input_ids"]) for row in rows])[:, None]
        places = np.arange(width)
        mask = places >= width - lengths if side == "left" else places < lengths
        batch["attention_mask"] = batch["input_ids"].new_tensor(mask)
        return batch

    return collated


def _arguments(folder: Path, plan: Hyperparameters, device: str, precision: str) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=plan.epochs,
        learning_rate=plan.learning_rate,
        per_device_train_batch_size=plan.batch_size,
        per_device_eval_batch_size=_EVAL_ROWS,
        gradient_accumulation_steps=plan.gradient_accumulation,
        warmup_steps=plan.warmup,
        weight_decay=plan.weight_decay,
        seed=plan.seed,
        data_seed=plan.seed,
        bf16=precision == "bf16",
        use_cpu=device == "cpu",
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="no",
        dataloader_pin_memory=device != "cpu",
        report_to="none",
        disable_tqdm=True,
        log_level="error",
    )


def _callback(context: TrainingContext, *, rows: int, plan: Hyperparameters) -> Any:
    """The callback of ``Trainer``: rows to the progress bar, one line an epoch, a checkpoint when due."""
    from transformers import TrainerCallback

    class Callback(TrainerCallback):
        done = 0
        saved, saving, cost = 0.0, 0.0, 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            self.saved = time.monotonic()
            self.done = self._rows(state)
            context.progress.add(self.done, counted=False)

        def _rows(self, state: Any) -> int:
            return min(round((state.epoch or 0.0) * rows), round(plan.epochs * rows))

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            now = self._rows(state)
            context.progress.add(now - self.done)
            self.done = now
            ends_epoch = (
                math.isclose(state.epoch % 1.0, 0.0, abs_tol=1e-9) or state.global_step >= state.max_steps
            )
            interval = max(context.save_seconds, self.cost / checkpoints.SAVE_SHARE)
            self.saving = time.monotonic()
            if not ends_epoch and self.saving - self.saved >= interval:
                control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            self.saved = time.monotonic()
            self.cost = self.saved - self.saving

        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            curve = curve_of(state.log_history, {})
            context.tell(epoch_line(curve[-1], plan.epochs))
            self.saving = time.monotonic()
            if is_exhausted(curve, plan.early_stopping):
                control.should_training_stop = True

    return Callback()
