"""A small hyperparameter search on held-out training rows.

Every trial trains to its last epoch and is evaluated then, on the held-out rows; the evaluation split is not used.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.system.journal import read_checked, write_checked
from batchscore.training.outcome import score_of

if TYPE_CHECKING:
    from batchscore.training.context import Tell
    from batchscore.training.settings import Hyperparameters, TrainSettings

HELD_OUT_SHARE = 0.2
MOST_ROWS = {"head": 5000, "full": 1000}
"""Training rows that a search uses."""
_RATES = {"head": (5e-4, 2e-3, 8e-3), "full": (2e-5, 5e-5, 1e-4)}
_EPOCHS = {"head": (1.0, 5.0, 20.0), "full": (2.0, 4.0)}
_SAVED = "trials.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """Hyperparameters with their result on the held-out rows."""

    pooling: str
    learning_rate: float
    epochs: float
    accuracy: float
    """Or what else the task is judged by (:func:`batchscore.training.outcome.score_of`)."""
    loss: float


def candidates(
    plan: Hyperparameters, settings: TrainSettings, poolings: Sequence[str]
) -> list[Hyperparameters]:
    """Every combination of the hyperparameters that the user did not set."""
    rates = (plan.learning_rate,) if settings.learning_rate is not None else _RATES[plan.recipe]
    epochs = (plan.epochs,) if settings.epochs is not None else _EPOCHS[plan.recipe]
    return [
        dataclasses.replace(plan, pooling=pooling, learning_rate=rate, epochs=count, early_stopping=None)
        for pooling, rate, count in itertools.product(poolings, rates, epochs)
    ]


def search(
    plans: Sequence[Hyperparameters],
    attempt: Callable[[int, Hyperparameters], dict[str, float]],
    folder: Path,
    tell: Tell,
) -> list[Trial]:
    """Run a trial of every plan; ``attempt`` returns the last entry of its curve. Trials saved in ``folder`` are reused."""
    saved: list[dict[str, Any]] = read_checked(folder / _SAVED) or []
    trials = [Trial(**each) for each in saved]
    tell(_HEADER)
    for trial in trials:
        tell(_row(trial))
    for number, plan in enumerate(plans[len(trials) :], start=len(trials)):
        last = attempt(number, plan)
        trials.append(Trial(plan.pooling, plan.learning_rate, plan.epochs, score_of(last), last["eval_loss"]))
        tell(_row(trials[-1]))
        write_checked(folder / _SAVED, [dataclasses.asdict(trial) for trial in trials])
    return trials


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The most accurate trial; among equals the one with the lowest loss, then the first."""
    return min(trials, key=lambda trial: (-trial.accuracy, trial.loss))


_HEADER = "tune: pooling  learning rate  epochs  accuracy  loss"


def _row(trial: Trial) -> str:
    return f"tune: {trial.pooling:7}  {trial.learning_rate:13g}  {trial.epochs:6g}  {trial.accuracy:8.4f}  {trial.loss:.4f}"
