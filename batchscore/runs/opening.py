"""What a run needs before its plan: the night it is for, standard input, and inputs, model and baseline, all hashed.

Options that contradict each other, the model or the folder are refused here.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from batchscore.errors import NoInputError, NothingToDoError, TakenError, UsageError, printable
from batchscore.evaluation import Gate, needs_baseline, needs_decisions, parse_gates
from batchscore.formats.inputs import FoundFile, find_files
from batchscore.formats.standard_input import ARGUMENT, kept_in
from batchscore.model.bundle import Bundle
from batchscore.model.loading import Models, needs_torch
from batchscore.runs.accepting import refuse_unacceptable
from batchscore.runs.chosen_baseline import Chosen, choose_baseline
from batchscore.runs.dates import date_of_run
from batchscore.runs.folder import STAGING, foreign_names, is_finished, output_of, refuse_links
from batchscore.runs.reuse import Source, find_source
from batchscore.runs.task_options import refuse_foreign_options
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import make_folder

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings

_LOG = logging.getLogger(__name__)


def night_of(settings: ScoreSettings) -> datetime.date | None:
    """The date that the run is for, if it is known before the run has finished.

    Raises:
        UsageError: the folder's date differs from ``--date``.
    """
    found = date_of_run(settings.output)
    if settings.date is not None and found not in (None, settings.date):
        raise UsageError(
            f"--date {settings.date} but --output {printable(settings.output)} is the folder of {found}. Leave --date "
            "out, or name another --output."
        )
    return settings.date or found


class Opened(NamedTuple):
    """Inputs, model and baseline of a run, all hashed."""

    found: list[FoundFile]
    bundle: Bundle
    chosen: Chosen
    """The earlier run to compare with, if there is one."""
    source: Source | None
    """Where answers are taken from."""


@contextlib.contextmanager
def standard_input(settings: ScoreSettings) -> Iterator[Path | None]:
    """Standard input in a file of the run's staging folder, if it is an input; ``None`` if it is not.

    It is read anew by each start: with other bytes the run is another one.
    """
    if ARGUMENT not in settings.inputs:
        yield None
        return
    with contextlib.ExitStack() as stack:
        if settings.dry_run:
            folder = OwnPath(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        else:
            output = output_of(settings)
            refuse_foreign(output)
            folder = output / STAGING
            make_folder(folder)
            stack.callback(_remove_if_empty, folder)
        try:
            yield stack.enter_context(kept_in(folder))
        except NoInputError as error:
            raise NothingToDoError(str(error)) if settings.skip_empty else error from None


def _remove_if_empty(folder: OwnPath) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def refuse_foreign(output: OwnPath) -> None:
    """Refuse a folder that holds something else than a run, or a link in the place of a file of one.

    Raises:
        TakenError: it holds something else.
        NotOursError: names the link, or the pipe or the like.
    """
    foreign = foreign_names(output)
    if foreign and not is_finished(output) and not (output / STAGING).exists():
        raise TakenError(
            f"{printable(output)} holds something that is no run ({printable(min(foreign))}). Name another --output."
        )
    refuse_links(output)


def open_inputs(
    settings: ScoreSettings,
    models: Models,
    stdin: Path | None = None,
    want: Callable[..., None] = lambda *_: None,
) -> Opened:
    """Find and hash the inputs, open the model and the baseline, and refuse what does not go together; ``want`` imports ahead.

    Raises:
        BatchscoreError: see :mod:`batchscore.errors` for the kinds.
    """
    try:
        found = find_files(settings.inputs, settings.read.format, settings.output, stdin)
    except NoInputError as error:
        raise NothingToDoError(str(error)) if settings.skip_empty else error from None
    is_open = settings.force or not is_finished(settings.output)  # otherwise there is likely nothing to score
    is_here = settings.engine == "local"  # elsewhere other processes have the model
    if is_open and is_here and needs_torch(settings.compute.backend, settings.compute.precision):
        want("torch")
    bundle = models.open(settings.model, settings.revision, settings.trust)
    bundle = bundle.for_texts(are_pairs=settings.read.text_pair_column is not None)
    refuse_foreign_options(settings, bundle)
    refuse_unacceptable(settings, bundle)
    _refuse_misplaced(settings, bundle)
    _refuse_gates(parse_gates(settings.fail_below, settings.fail_above, bundle.labels, bundle.task), settings)
    chosen = choose_baseline(settings, [file.name for file in found], bundle)
    for warning in bundle.warnings:
        _LOG.warning("%s", warning)
    return Opened(found, bundle, chosen, find_source(settings, bundle, found))


def _refuse_misplaced(settings: ScoreSettings, bundle: Bundle) -> None:
    """Refuse what is only for one text a row, or only for two."""
    long_text = settings.long_text or bundle.long_text
    if bundle.takes_pairs and long_text != "head":
        raise UsageError(
            f"--long-text {long_text} is for one text a row; two are cut longest first. Say --long-text head."
        )
    if settings.missing_pair is not None and not bundle.takes_pairs:
        raise UsageError(
            "--missing-pair is for two texts a row: name the second one with --text-pair-column."
        )


def _refuse_gates(gates: list[Gate], settings: ScoreSettings) -> None:
    decided = [gate.metric for gate in gates if needs_decisions(gate.metric)]
    if settings.accept is None and decided:
        raise UsageError(f"A gate on {decided[0]} is about what was accepted: add --accept precision=0.98.")
    compared = [gate.metric for gate in gates if needs_baseline(gate.metric)]
    if settings.baseline is None and compared:
        raise UsageError(
            f"A gate on {compared[0]} needs an earlier run to compare with: add --baseline RUN_DIR, or --baseline latest."
        )
