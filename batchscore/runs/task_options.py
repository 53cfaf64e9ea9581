"""Options that only some tasks have a use for: refused for the others, and resolved for a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from batchscore.errors import UsageError, printable
from batchscore.model.numbers import WHOLE_NUMBERS
from batchscore.model.thresholds import thresholds_of
from batchscore.records import Task

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings
    from batchscore.model.bundle import Bundle
    from batchscore.runs.planning import Plan

_PROBABILITIES: Mapping[Task, tuple[str, ...]] = {
    Task.SINGLE_LABEL: ("all", "top", "none"),
    Task.MULTI_LABEL: ("all", "none"),
    Task.REGRESSION: ("all",),
}
_WHY = {
    Task.MULTI_LABEL: "of several labels at once none is the top one.",
    Task.REGRESSION: "it gives a number, and no probabilities.",
}
HALF = 0.5
"""Between whole numbers, a value within this of the given one is rounded to it."""


def refuse_foreign_options(settings: ScoreSettings, bundle: Bundle) -> None:
    """Refuse options that mean nothing for the task of the model.

    Raises:
        UsageError: names the option, and the models that it is for.
    """
    thresholds_of(bundle, settings.thresholds)
    _refuse_below(settings, bundle)
    if settings.read.label_columns and bundle.task != Task.MULTI_LABEL:
        raise UsageError("--label-columns is for models with several labels at once, and this one has none.")
    if settings.keep_columns and settings.drop_columns:
        raise UsageError("--keep-columns and --drop-columns are two ways to say the same; give one of them.")
    if settings.probabilities not in _PROBABILITIES[bundle.task]:
        raise UsageError(
            f"--probabilities {settings.probabilities} is not for this model: {_WHY[bundle.task]} Choose one of "
            f"{', '.join(_PROBABILITIES[bundle.task])}."
        )
    if settings.tolerance is not None and bundle.task != Task.REGRESSION:
        raise UsageError("--tolerance is for models that give a number, and this one gives labels.")


def _refuse_below(settings: ScoreSettings, bundle: Bundle) -> None:
    if settings.below is None:
        return
    if bundle.task != Task.SINGLE_LABEL:
        raise UsageError("--below is for models with one label a row, and this one is none.")
    if not settings.thresholds:
        raise UsageError(
            "--below says what happens below a --threshold, and there is none: add for example "
            f"--threshold {printable(bundle.labels[-1])}=0.8"
        )


def tolerance_of(bundle: Bundle, plan: Plan, settings: ScoreSettings) -> float | None:
    """How far a value may be from the given one: as asked for, or half a unit if all given ones are whole; None if any may."""
    if bundle.task != Task.REGRESSION or settings.tolerance is not None:
        return settings.tolerance
    labelled = [file for file in plan.files if file.labelled]
    are_whole = all(file.label_reading == WHOLE_NUMBERS for file in labelled)
    return HALF if labelled and are_whole else None
