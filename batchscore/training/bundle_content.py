"""Parts of ``batchscore.json`` that a training writes."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.model.held_out import KEY as HELD_OUT
from batchscore.records import Task
from batchscore.training.base_model import BUILTIN_HUB_ID
from batchscore.training.sampling import spread
from batchscore.version import __version__

if TYPE_CHECKING:
    from batchscore.records import Text
    from batchscore.training.examination import Examination
    from batchscore.training.settings import TrainSettings
    from batchscore.training.splits import Goal, TrainingData

_PACKAGES = ("torch", "transformers", "datasets", "tokenizers", "numpy", "scipy", "scikit-learn")


def task_facts(goal: Goal, examination: Examination) -> dict[str, Any]:
    """Labels, and what other tasks than one label a text have besides."""
    facts: dict[str, Any] = {"labels": list(goal.labels)}
    if goal.task != Task.SINGLE_LABEL:
        facts["task"] = goal.task.value
    if examination.thresholds:
        facts["thresholds"] = dict(zip(goal.labels, examination.thresholds, strict=True))
    if examination.held_out is not None:
        facts[HELD_OUT] = examination.held_out.to_json()
    return facts


def versions() -> dict[str, str]:
    """The versions of this program, of Python and of the libraries that a training depends on."""
    return {
        "batchscore": __version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in _PACKAGES},
    }


def calibration_texts(data: TrainingData, canaries: Sequence[Text]) -> dict[str, list[Text]]:
    """Texts for ``batchscore export``, evenly spread: training rows for calibration, evaluation rows for comparison."""
    held_out = [text for text in dict.fromkeys(data.evaluation.texts) if text not in set(canaries)]
    return {"texts": spread(list(dict.fromkeys(data.train.texts)), 128), "held_out": spread(held_out, 200)}


def hub_id(settings: TrainSettings) -> str | None:
    """The hub id of the base model; ``None`` for a local folder."""
    if settings.takes_builtin:
        return BUILTIN_HUB_ID
    return None if Path(settings.base_name).is_dir() else settings.base_name
