"""Checkpoints of ``Trainer``, complete before they get their final name, and the log stored in them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.system.documents import read_json
from batchscore.system.storage import remove_tree, sync_folder, sync_tree
from batchscore.training.outcome import best_of, is_exhausted, measure_of

if TYPE_CHECKING:
    from batchscore.training.settings import Hyperparameters

CHECKPOINTS, UNFINISHED = "checkpoints", "unfinished"
SAVE_SHARE = 0.05
"""The largest share of the time spent on checkpoints."""
_LOSSES = "losses.json"
_STEP = re.compile(r"checkpoint-(\d+)")


def keep(unfinished: Path, state: Any, losses: dict[str, list[float]]) -> None:
    """Move a just written checkpoint to its final name, and remove those no longer needed."""
    name = f"checkpoint-{state.global_step}"
    (unfinished / name / _LOSSES).write_text(json.dumps(losses), encoding="utf-8")
    (unfinished / name / "training_args.bin").unlink(missing_ok=True)
    sync_tree(unfinished / name)
    folder = unfinished.parent
    remove_tree(folder / name)
    (unfinished / name).rename(folder / name)
    sync_folder(folder)
    steps = evaluated_steps(state.log_history)
    best = best_of(curve_of(state.log_history, {}))
    needed = {name} | ({f"checkpoint-{steps[best]}"} if steps else set())
    for old in folder.glob("checkpoint-*"):
        if old.name not in needed:
            shutil.rmtree(old, ignore_errors=True)


def newest_in(folder: Path) -> Path | None:
    """The checkpoint to resume from."""
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _STEP.fullmatch(path.name))]
    return max(found)[1] if found else None


def history_of(checkpoint: Path) -> list[dict[str, float]]:
    """The log of ``Trainer`` up to the checkpoint."""
    found: list[dict[str, float]] = _state(checkpoint)["log_history"]
    return found


def _state(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = read_json(checkpoint / "trainer_state.json", is_finite=False)
    return state


def losses_of(checkpoint: Path) -> dict[str, list[float]]:
    """The sum of losses and the rows, by epoch."""
    found: dict[str, list[float]] = read_json(checkpoint / _LOSSES)
    return found


def is_finished(checkpoint: Path, plan: Hyperparameters) -> bool:
    """Whether training ended at this checkpoint."""
    state = _state(checkpoint)
    curve = curve_of(state["log_history"], {})
    return bool(state["global_step"] >= state["max_steps"]) or is_exhausted(curve, plan.early_stopping)


def load_weights(model: Any, checkpoint: Path) -> None:
    """Load the weights of a checkpoint."""
    from safetensors.torch import load_model

    load_model(model, checkpoint / "model.safetensors", device=str(next(model.parameters()).device))


def evaluated_steps(history: Sequence[dict[str, float]]) -> list[int]:
    """The step at the end of each epoch."""
    return [int(entry["step"]) for entry in history if measure_of(entry)]


def curve_of(
    history: Sequence[dict[str, float]], losses: dict[str, list[float]]
) -> tuple[dict[str, float], ...]:
    """One entry an epoch: the log of ``Trainer``, with our own mean training loss."""
    entries = [entry for entry in history if measure_of(entry)]
    return tuple(
        {
            "epoch": entry["epoch"],
            **({"loss": losses[str(k)][0] / losses[str(k)][1]} if str(k) in losses else {}),
            "eval_loss": entry["eval_loss"],
            **{key: entry[key] for key in [measure_of(entry)] if key},
        }
        for k, entry in enumerate(entries)
    )
