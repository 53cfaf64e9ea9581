"""Hugging Face ``Trainer`` whose resumed trainings end exactly as uninterrupted ones.

Row order and dropout are functions of seed, epoch and step; checkpoints are atomic. The loss is ours: it is the objective
of the task, and accumulated batches are weighted by their rows.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import Trainer

from batchscore.model.backends.plain import logits_of
from batchscore.training.checkpoints import keep
from batchscore.training.sampling import epoch_order, grouped_by_length, step_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.training.objectives import Objective
    from batchscore.training.settings import Hyperparameters
    from batchscore.training.trainable_encoder import TrainableEncoder


class ResumableTrainer(Trainer):
    """``Trainer`` by a plan, with an objective; without ``pads`` rows of one length go through the model together.

    ``encoder`` computes the logits in place of the model that it is made of.
    """

    def __init__(
        self,
        plan: Hyperparameters,
        objective: Objective,
        *,
        pads: bool = True,
        encoder: TrainableEncoder | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.plan = plan
        self.losses: dict[str, list[float]] = {}
        """Sum of losses and rows of each epoch."""
        self.lengths = np.array(options["train_dataset"]["length"])
        self.model_accepts_loss_kwargs = True  # so that compute_loss gets the number of rows of a step
        self._objective, self._pads, self._encoder = objective, pads, encoder
        self._last_batch, self._seed = (-1, 0), 0

    @property
    def epoch(self) -> int:
        """The epoch that the next step belongs to."""
        batches = math.ceil(len(self.lengths) / self.args.train_batch_size)
        return int(self.state.global_step // math.ceil(batches / self.plan.gradient_accumulation))

    def order(self) -> NDArray[np.int64]:
        """The rows of this epoch."""
        if self.plan.trains_encoder:
            return grouped_by_length(self.lengths, self.args.train_batch_size, self.plan.seed, self.epoch)
        return epoch_order(len(self.lengths), self.plan.seed, self.epoch)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:  # noqa: ARG002 - there is one
        return _Order(self)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """One batch, seeded by its step."""
        step = self.state.global_step
        self._last_batch = step, self._last_batch[1] + 1 if self._last_batch[0] == step else 0
        self._seed = step_seed(self.plan.seed, step * self.plan.gradient_accumulation + self._last_batch[1])
        torch.manual_seed(self._seed)
        rows = len(inputs["labels"])
        loss = super().training_step(model, inputs, num_items_in_batch)
        sums = self.losses.setdefault(str(self.epoch), [0.0, 0.0])
        sums[0] += loss.item() * float(num_items_in_batch)
        sums[1] += rows
        return loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean of the objective over the rows of the step."""
        labels = inputs["labels"]
        given = {name: value for name, value in inputs.items() if name != "labels"}
        logits = self._logits(model, given).float()
        total = self._objective.loss(logits, labels, is_weighted=model.training)
        loss = total / (len(labels) if num_items_in_batch is None else num_items_in_batch)
        return (loss, {"logits": logits}) if return_outputs else loss

    def _logits(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if self._encoder is not None:
            return self._encoder(**inputs, seed=self._seed if model.training else None)
        return logits_of(model(**inputs)) if self._pads else _unpadded(model, inputs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        keep(Path(str(self.args.output_dir)), self.state, self.losses)

    def _save_rng_state(self, output_dir: str) -> None:
        """Nothing to save: the seed is a function of the step."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to load."""


def _unpadded(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Logits ``[b, C]`` of rows of which only those of one length go through the model together, without padding."""
    mask = inputs["attention_mask"].bool()
    taken = inspect.signature(model.forward).parameters
    inputs = {name: value for name, value in inputs.items() if name != "attention_mask" or name in taken}
    lengths = mask.sum(dim=1)
    logits: list[Any] = [None] * len(mask)
    for length in sorted(set(lengths.tolist())):
        rows = (lengths == length).nonzero().flatten()
        kept = {name: value[rows][mask[rows]].view(len(rows), length) for name, value in inputs.items()}
        for row, each in zip(rows.tolist(), logits_of(model(**kept)), strict=True):
            logits[row] = each
    return torch.stack(logits)


class _Order(torch.utils.data.Sampler[int]):
    """The rows of the trainer's current epoch."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self._trainer = trainer

    def __len__(self) -> int:
        return len(self._trainer.lengths)

    def __iter__(self) -> Iterator[int]:
        return (int(row) for row in self._trainer.order())
