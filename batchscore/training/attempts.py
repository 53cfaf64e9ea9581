"""One training of the job: fitted, saved, and examined as the scorer will run it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from batchscore.system.storage import remove_tree
from batchscore.training.base_model import load_tokenizer, save_classifier
from batchscore.training.examination import Examination, examine, open_saved
from batchscore.training.saved_units import in_its_unit
from batchscore.training.tokenized_rows import TokenizedRows, fit_rows

if TYPE_CHECKING:
    from batchscore.model.bundle import Bundle
    from batchscore.training.context import TrainingContext
    from batchscore.training.outcome import Fitted
    from batchscore.training.settings import Hyperparameters, TrainSettings
    from batchscore.training.splits import Split, TrainingData


class Attempt(NamedTuple):
    """A trained classifier in its folder."""

    fitted: Fitted
    saved: Bundle
    """Still without temperature and canaries."""
    examination: Examination


class Material(NamedTuple):
    """What every training of a job is made of."""

    base: Bundle
    data: TrainingData
    settings: TrainSettings
    plan: Hyperparameters
    over: Callable[[int, TrainingContext], AbstractContextManager[TrainingContext]]
    """A context with a bar for so many rows."""


def attempt(
    material: Material,
    splits: tuple[TokenizedRows, TokenizedRows],
    measured: Split,
    n_selection: int,
    folder: Path,
    context: TrainingContext,
) -> Attempt:
    """Train by ``material.plan`` on the first split, watched on the second, save to ``folder``, and examine on ``measured``.

    The first ``n_selection`` of the measured rows chose something. Checkpoints go to ``context.folder``.
    """
    base, data = material.base, material.data
    fitted = fit_rows(base, data.goal, material.plan, splits, context)
    remove_tree(folder)
    save_classifier(fitted.model, load_tokenizer(base), base, folder)
    saved = in_its_unit(open_saved(folder, base), fitted.standard, base)
    threshold = material.settings.threshold
    return Attempt(fitted, saved, examine(saved, measured, n_selection, context, threshold, data.train.texts))
