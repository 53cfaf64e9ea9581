"""Train a head on cached states: a plain loop, as an epoch takes less time than ``Trainer`` needs to set up.

It follows the defaults of ``Trainer``: AdamW without weight decay on biases and norms, gradients clipped at 1, a linear
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
from batchscore.training.features import head_only
from batchscore.training.outcome import Fitted, best_of, epoch_line, is_exhausted
from batchscore.training.sampling import epoch_order, step_seed

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from batchscore.training.context import TrainingContext
    from batchscore.training.objectives import Objective
    from batchscore.training.settings import Hyperparameters

    Logits = Callable[[torch.Tensor], torch.Tensor]

CHECKPOINT = "head.safetensors"
_EVAL_ROWS = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class StoredRows:
    """``[CLS]`` states ``[n, H]`` float32 with the target of each row."""

    states: NDArray[np.float32]
    targets: NDArray[Any]

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> StoredRows:
        """The rows at these positions."""
        return StoredRows(self.states[np.asarray(rows)], self.targets[np.asarray(rows)])


@dataclasses.dataclass(slots=True)
class _TrainingState:
    """The progress of a training, as saved in its checkpoint."""

    step: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    curve: list[dict[str, float]] = dataclasses.field(default_factory=list)


def fit_head(
    model: Any,
    rows: tuple[StoredRows, StoredRows],
    plan: Hyperparameters,
    objective: Objective,
    context: TrainingContext,
) -> Fitted:
    """Train the unfrozen weights on the first rows, evaluate on the second after each epoch, and keep the best.

    Resumes from the checkpoint in ``context.folder`` if there is one.
    """
    with head_only(model) as logits:
        loop = _Loop(model, logits, rows, plan, objective)
        state = loop.restore(context.folder / CHECKPOINT)
        saved = time.monotonic()
        while state.step < loop.last_step and not is_exhausted(state.curve, plan.early_stopping):
            loop.step(state)
            if state.step % loop.epoch_steps == 0 or state.step == loop.last_step:
                loop.end_epoch(state)
                context.tell(epoch_line(state.curve[-1], plan.epochs))
            if time.monotonic() - saved >= context.save_seconds:
                loop.save(state, context.folder / CHECKPOINT)
                saved = time.monotonic()
        loop.save(state, context.folder / CHECKPOINT)
        loop.load_best()
    best = state.curve[best_of(state.curve)]["epoch"]
    return Fitted(model, tuple(state.curve), best, "fp32")


class _Loop:
    """The tensors of one training."""

    def __init__(
        self,
        model: Any,
        logits: Logits,
        rows: tuple[StoredRows, StoredRows],
        plan: Hyperparameters,
        objective: Objective,
    ) -> None:
        import torch

        self._torch, self._model, self._logits, self._plan = torch, model, logits, plan
        self._device = next(model.parameters()).device
        (self._states, self._labels), self._evaluation = (self._tensors(each) for each in rows)
        self._objective = objective
        self._size = plan.batch_size * plan.gradient_accumulation
        self.epoch_steps = math.ceil(len(self._labels) / self._size)
        self.last_step = math.ceil(plan.epochs * self.epoch_steps)
        self._warmup_steps = math.ceil(plan.warmup * self.last_step)
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
        return states, self._torch.from_numpy(rows.targets).to(self._device)

    def step(self, state: _TrainingState) -> None:
        """One batch."""
        epoch, batch = divmod(state.step, self.epoch_steps)
        if self._order[0] != epoch:
            self._order = epoch, epoch_order(len(self._labels), self._plan.seed, epoch)
        rows = self._torch.from_numpy(self._order[1][batch * self._size : (batch + 1) * self._size])
        self._torch.manual_seed(step_seed(self._plan.seed, state.step))
        for group in self._optimizer.param_groups:
            group["lr"] = self._plan.learning_rate * self._lr_factor(state.step)
        self._model.train()
        loss = self._loss(self._logits(self._states[rows]), self._labels[rows], is_weighted=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._torch.nn.utils.clip_grad_norm_(self._trained.values(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        state.step += 1
        state.loss_sum += loss.item()
        state.loss_steps += 1

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor, *, is_weighted: bool) -> torch.Tensor:
        """The mean of the objective over the rows."""
        return self._objective.loss(logits, targets, is_weighted=is_weighted) / len(targets)

    def _lr_factor(self, step: int) -> float:
        """The factor of the learning rate: linear warm-up, then linear decay to 0."""
        if step < self._warmup_steps:
            return step / self._warmup_steps
        return (self.last_step - step) / max(1, self.last_step - self._warmup_steps)

    def end_epoch(self, state: _TrainingState) -> None:
        """Evaluate, and keep the weights of the best epoch."""
        states, labels = self._evaluation
        self._model.eval()
        with self._torch.inference_mode():
            logits = self._torch.cat([self._logits(chunk) for chunk in self._torch.split(states, _EVAL_ROWS)])
            loss = self._loss(logits, labels, is_weighted=False).item()
            score = self._objective.score(logits.cpu().numpy(), labels.cpu().numpy())
        entry = {
            "epoch": state.step / self.epoch_steps,
            "loss": state.loss_sum / state.loss_steps,
            "eval_loss": loss,
            **{f"eval_{name}": value for name, value in score.items()},
        }
        state.curve.append(entry)
        state.loss_sum, state.loss_steps = 0.0, 0
        if best_of(state.curve) == len(state.curve) - 1:
            self._best = {name: each.detach().clone() for name, each in self._trained.items()}

    def load_best(self) -> None:
        """Load the weights of the best epoch into the model."""
        with self._torch.no_grad():
            for name, each in self._trained.items():
                each.copy_(self._best[name])

    def save(self, state: _TrainingState, path: Path) -> None:
        """Save current and best weights, the optimizer's moments and the progress in one file."""
        from safetensors.torch import save

        tensors = {f"now.{name}": each.detach() for name, each in self._trained.items()}
        tensors |= {f"best.{name}": each for name, each in self._best.items()}
        for name, each in self._trained.items():
            moments = self._optimizer.state[each]
            tensors |= {f"{kind}.{name}": moments[kind] for kind in moments}
        content = save(tensors, {"stand": json.dumps(dataclasses.asdict(state))})
        with atomic_write(path) as file:
            file.write(content)

    def restore(self, path: Path) -> _TrainingState:
        """Restore a checkpoint; without one, start from the beginning."""
        if not path.exists():
            return _TrainingState()
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file, self._torch.no_grad():
            tensors = {name: file.get_tensor(name).to(self._device) for name in file.keys()}  # noqa: SIM118
            state = _TrainingState(**json.loads(file.metadata()["stand"]))
            for name, each in self._trained.items():
                each.copy_(tensors[f"now.{name}"])
                self._best[name] = tensors[f"best.{name}"]
                kinds = ("step", "exp_avg", "exp_avg_sq")
                self._optimizer.state[each] = {
                    kind: tensors[f"{kind}.{name}"] for kind in kinds if f"{kind}.{name}" in tensors
                }
        return state


def _is_decayed(name: str) -> bool:
    return not name.endswith("bias") and "norm" not in name.lower()
