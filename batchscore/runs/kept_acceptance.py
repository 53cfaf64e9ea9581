"""What ``--accept-on`` chose at the first start of a run, which the run keeps.

More labels may come for the other run (``batchscore evaluate``), from which other thresholds would follow. A night that is begun
again, or called again when it has finished, is still the same night.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from batchscore.runs import shapes
from batchscore.runs.accepting import acceptance_of, accepting_of
from batchscore.runs.folder import ACCEPTING, DAMAGE, STAGING, is_finished, output_of, read_run
from batchscore.system.documents import checked
from batchscore.system.journal import read_checked, write_checked

if TYPE_CHECKING:
    from batchscore.config import Acceptance, ScoreSettings
    from batchscore.model.bundle import Bundle


def kept_acceptance(settings: ScoreSettings, bundle: Bundle) -> Acceptance | None:
    """What this run chose before, if the same was asked for; None if it has not."""
    wanted = (settings.accept, settings.accept_confidence, source_of(settings))
    for model, found in _kept(settings):
        if model == bundle.fingerprint and (found.precision, found.confidence, found.source) == wanted:
            return found
    return None


def source_of(settings: ScoreSettings) -> str:
    """The run of ``--accept-on``, however its path was written."""
    return "" if settings.accept_on is None else str(settings.accept_on.resolve())


def keep_acceptance(settings: ScoreSettings, bundle: Bundle) -> None:
    """Note in the staging folder what was chosen on the rows of another run; those of a bundle do not change."""
    if settings.accept_on is None or settings.accepting is None:
        return
    noted = {"model": bundle.fingerprint, "accepting": _listed(settings.accepting)}
    path = output_of(settings) / STAGING / ACCEPTING
    if read_checked(path) != noted:
        write_checked(path, noted)


def _listed(found: Acceptance) -> dict[str, object]:
    """As JSON has it."""
    fields = dataclasses.asdict(found).items()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields}


def _kept(settings: ScoreSettings) -> Iterator[tuple[str, Acceptance]]:
    output = output_of(settings)
    with contextlib.suppress(*DAMAGE):
        if (noted := read_checked(output / STAGING / ACCEPTING)) is not None:
            noted = checked(noted, shapes.ACCEPTING)
            yield noted["model"], acceptance_of(noted["accepting"])
    with contextlib.suppress(*DAMAGE):
        if (
            is_finished(output)
            and not settings.force
            and (found := accepting_of(run := read_run(output))) is not None
        ):
            yield run.model["fingerprint"], found
