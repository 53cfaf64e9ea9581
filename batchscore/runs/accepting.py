"""``--accept``: the columns of a run that decides, and what is refused because it means nothing or was scored otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from batchscore.config import Acceptance
from batchscore.errors import UsageError
from batchscore.formats.answers import Answers, answers_of
from batchscore.records import Task

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings
    from batchscore.model.bundle import Bundle
    from batchscore.runs.folder import RunFolder


def answers_of_run(bundle: Bundle, settings: ScoreSettings) -> Answers:
    """The columns of tonight's run."""
    accepting = settings.accepting
    return answers_of(bundle.task, bundle.labels, accepting.thresholds if accepting else None)


def accepting_of(run: RunFolder) -> Acceptance | None:
    """What an earlier run accepted; None if it did not decide. Raises one of ``DAMAGE`` if its ``run.json`` is damaged."""
    told = run.options.get("accepting")
    return None if told is None else acceptance_of(told)


def acceptance_of(told: Mapping[str, Any]) -> Acceptance:
    """What was written of it; raises one of ``DAMAGE`` where something else was."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in told.items()
    }
    return Acceptance(**fields)


def answers_of_earlier(run: RunFolder) -> Answers:
    """The columns of an earlier run; raises as :func:`accepting_of`."""
    accepting = accepting_of(run)
    return answers_of(
        Task(run.metrics.get("task", Task.SINGLE_LABEL)),
        run.model["labels"],
        accepting.thresholds if accepting else None,
    )


def refuse_unacceptable(settings: ScoreSettings, bundle: Bundle) -> None:
    """Refuse ``--accept`` where it means nothing, before anything is read for it.

    Raises:
        UsageError: says why.
    """
    if settings.accept is None:
        if settings.accept_on is not None:
            raise UsageError("--accept-on says on which rows --accept chooses, and there is no --accept.")
        return
    if bundle.task != Task.SINGLE_LABEL:
        raise UsageError("--accept is for models with one label a row, and this one is none.")
    if settings.thresholds:
        raise UsageError(
            "--accept and --threshold: both decide, and what --accept promises is of the likeliest label of each row. Leave one "
            "of them out."
        )
    if settings.accept_on is not None and settings.accept_on.resolve() == settings.output.resolve():
        raise UsageError("--accept-on is the --output itself; name the folder of an earlier run.")


def refuse_other_precision(settings: ScoreSettings, compute: Mapping[str, Any]) -> None:
    """Refuse to score in another precision than the calibration rows were scored in.

    Raises:
        UsageError: names both, and what helps.
    """
    found = settings.accepting
    if found is not None and compute["precision"] != found.computed_in:
        raise UsageError(
            f"--accept: its calibration rows were scored in {found.computed_in}, and tonight's are in {compute['precision']}, so "
            f"that nothing could be promised of them. Add --precision {found.computed_in}, or name a labelled run in "
            f"{compute['precision']} with --accept-on RUN_DIR."
        )
