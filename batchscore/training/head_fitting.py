"""A head trained on stored states: a plain loop, since an epoch is over before ``Trainer`` has set one up.

What ``Trainer`` does by default is done here: AdamW without decay of biases and norms, gradients clipped at 1, a linear
schedule, evaluation after each epoch, the best epoch kept.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.system.storage import atomic_write
from batchscore.training.features import fed_by_states
from batchscore.training.outcome import Fitted, best_of, is_exhausted, told
from batchscore.training.sampling import draw_seed, epoch_order

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from batchscore.training.context import TrainingContext
    from batchscore.training.settings import Hyperparameters

    Logits = Callable[[torch.Tensor], torch.Tensor]

CHECKPOINT = "head.safetensors"
_EVAL_ROWS = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class StoredRows:
    """First-token states ``[n, H]`` float32 with the label of each row."""

    states: NDArray[np.float32]
    labels: Sequence[int]

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> StoredRows:
        """The rows at these positions."""
        return StoredRows(self.states[np.asarray(rows)], [self.labels[row] for row in rows])


@dataclasses.dataclass(slots=True)
class _Stand:
    """How far a training has come."""

    step: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    curve: list[dict[str, float]] = dataclasses.field(default_factory=list)


def fit_head(
    model: Any,
    rows: tuple[StoredRows, StoredRows],
    plan: Hyperparameters,
    weights: Sequence[float] | None,
    context: TrainingContext,
) -> Fitted:
    """Train what of ``model`` is not frozen on the first rows; measure on the second after each epoch; keep the best.

    ``weights`` are those of the labels in the loss. Goes on from the checkpoint in ``context.folder`` if there is one.
    """
    with fed_by_states(model) as logits:
        loop = _Loop(model, logits, rows, plan, weights)
        stand = loop.restore(context.folder / CHECKPOINT)
        saved = time.monotonic()
        while stand.step < loop.last_step and not is_exhausted(stand.curve, plan.early_stopping):
            loop.step(stand)
            if stand.step % loop.epoch_steps == 0 or stand.step == loop.last_step:
                loop.end_epoch(stand)
                context.tell(told(stand.curve[-1], plan.epochs))
            if time.monotonic() - saved >= context.save_seconds:
                loop.save(stand, context.folder / CHECKPOINT)
                saved = time.monotonic()
        loop.save(stand, context.folder / CHECKPOINT)
        loop.take_best()
    best = stand.curve[best_of(stand.curve)]["epoch"]
    return Fitted(model, tuple(stand.curve), best, "fp32")


class _Loop:
    """The tensors of one training."""

    def __init__(
        self,
        model: Any,
        logits: Logits,
        rows: tuple[StoredRows, StoredRows],
        plan: Hyperparameters,
        weights: Sequence[float] | None,
    ) -> None:
        import torch

        self._torch, self._model, self._logits, self._plan = torch, model, logits, plan
        self._device = next(model.parameters()).device
        (self._states, self._labels), self._evaluation = (self._tensors(each) for each in rows)
        self._weights = torch.tensor(weights, device=self._device) if weights else None
        self._size = plan.batch_size * plan.gradient_accumulation
        self.epoch_steps = math.ceil(len(self._labels) / self._size)
        self.last_step = math.ceil(plan.epochs * self.epoch_steps)
        self._warm_steps = math.ceil(plan.warmup * self.last_step)
        self._trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self._best = {name: each.detach().clone() for name, each in self._trained.items()}
        decayed = [each for name, each in self._trained.items() if _is_decayed(name)]
        others = [each for name, each in self._trained.items() if not _is_decayed(name)]
        groups = [
            {"params": params, "weight_decay": decay}
            for params, decay in ((decayed, plan.weight_decay), (others, 0.0))
        ]
        self._optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=plan.learning_rate, fused=True
        )
        self._order: tuple[int, NDArray[np.int64]] = -1, np.zeros(0, dtype=np.int64)

    def _tensors(self, rows: StoredRows) -> tuple[torch.Tensor, torch.Tensor]:
        states = self._torch.from_numpy(rows.states).to(self._device)
        return states, self._torch.tensor(rows.labels, device=self._device)

    def step(self, stand: _Stand) -> None:
        """One batch."""
        epoch, batch = divmod(stand.step, self.epoch_steps)
        if self._order[0] != epoch:
            self._order = epoch, epoch_order(len(self._labels), self._plan.seed, epoch)
        rows = self._torch.from_numpy(self._order[1][batch * self._size : (batch + 1) * self._size])
        self._torch.manual_seed(draw_seed(self._plan.seed, stand.step))
        for group in self._optimizer.param_groups:
            group["lr"] = self._plan.learning_rate * self._share(stand.step)
        self._model.train()
        loss = self._loss(self._logits(self._states[rows]), self._labels[rows], self._weights)
        loss.backward()  # type: ignore[no-untyped-call]
        self._torch.nn.utils.clip_grad_norm_(self._trained.values(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        stand.step += 1
        stand.loss_sum += loss.item()
        stand.loss_steps += 1

    def _loss(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Cross entropy, a mean over rows; weights of labels scale their rows and not the mean."""
        total = self._torch.nn.functional.cross_entropy(logits, labels, weight=weights, reduction="sum")
        return total / len(labels)

    def _share(self, step: int) -> float:
        """Of the learning rate: up in a line, then down to nothing."""
        if step < self._warm_steps:
            return step / self._warm_steps
        return (self.last_step - step) / max(1, self.last_step - self._warm_steps)

    def end_epoch(self, stand: _Stand) -> None:
        """Measure, and remember the weights of the best epoch."""
        states, labels = self._evaluation
        self._model.eval()
        with self._torch.inference_mode():
            logits = self._torch.cat([self._logits(piece) for piece in self._torch.split(states, _EVAL_ROWS)])
            loss = self._loss(logits, labels).item()
            accuracy = (logits.argmax(dim=1) == labels).double().mean().item()
        entry = {
            "epoch": stand.step / self.epoch_steps,
            "loss": stand.loss_sum / stand.loss_steps,
            "eval_loss": loss,
            "eval_accuracy": accuracy,
        }
        stand.curve.append(entry)
        stand.loss_sum, stand.loss_steps = 0.0, 0
        if best_of(stand.curve) == len(stand.curve) - 1:
            self._best = {name: each.detach().clone() for name, each in self._trained.items()}

    def take_best(self) -> None:
        """Give the model the weights of its best epoch."""
        with self._torch.no_grad():
            for name, each in self._trained.items():
                each.copy_(self._best[name])

    def save(self, stand: _Stand, path: Path) -> None:
        """Weights, those of the best epoch, the optimizer's moments and the stand, in one file."""
        from safetensors.torch import save

        tensors = {f"now.{name}": each.detach() for name, each in self._trained.items()}
        tensors |= {f"best.{name}": each for name, each in self._best.items()}
        for name, each in self._trained.items():
            moments = self._optimizer.state[each]
            tensors |= {f"{kind}.{name}": moments[kind] for kind in moments}
        content = save(tensors, {"stand": json.dumps(dataclasses.asdict(stand))})
        with atomic_write(path) as file:
            file.write(content)

    def restore(self, path: Path) -> _Stand:
        """Take over from a checkpoint; the beginning if there is none."""
        if not path.exists():
            return _Stand()
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file, self._torch.no_grad():
            tensors = {name: file.get_tensor(name).to(self._device) for name in file.keys()}  # noqa: SIM118
            stand = _Stand(**json.loads(file.metadata()["stand"]))
            for name, each in self._trained.items():
                each.copy_(tensors[f"now.{name}"])
                self._best[name] = tensors[f"best.{name}"]
                kinds = ("step", "exp_avg", "exp_avg_sq")
                self._optimizer.state[each] = {
                    kind: tensors[f"{kind}.{name}"] for kind in kinds if f"{kind}.{name}" in tensors
                }
        return stand


def _is_decayed(name: str) -> bool:
    return not name.endswith("bias") and "norm" not in name.lower()
