"""The run that this one is compared with: as named, or for ``--baseline latest`` the one that came last, chosen once.

What was chosen at the first start is kept, in the staging folder and then in ``run.json``: a resumed run, and one that is repeated
after later nights, compare with the same one as the first time, and so give the same bytes.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from batchscore.config import LATEST
from batchscore.errors import DataError, NoInputError, UsageError, printable
from batchscore.runs import shapes
from batchscore.runs.baselines import Baseline, open_baseline
from batchscore.runs.folder import CHOSEN, DAMAGE, STAGING, is_finished, output_of, read_facts
from batchscore.runs.latest import latest_run, runs_folder
from batchscore.system.documents import checked
from batchscore.system.journal import read_checked, write_checked
from batchscore.system.terminal import NOTICE

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings
    from batchscore.model.bundle import Bundle
    from batchscore.system.own_paths import OwnPath

_LOG = logging.getLogger(__name__)


class Chosen(NamedTuple):
    """The earlier run, opened, and how it counts for the fingerprint."""

    baseline: Baseline | None = None
    content: str | None = None
    """:attr:`Baseline.fingerprint`, also where the run is not opened again, as this one has finished."""
    is_latest: bool = False
    """Whether it was not named, but is the one that came last."""


def choose_baseline(settings: ScoreSettings, names: Collection[str], bundle: Bundle) -> Chosen:
    """Open the earlier run that ``settings`` name, or the latest one of inputs with these ``names``.

    Raises:
        BatchscoreError: as :func:`open_baseline`; of the latest run only what is the user's to mend.
    """
    if settings.baseline is None:
        return Chosen()
    if isinstance(settings.baseline, Path):
        if settings.baseline.resolve() == settings.output.resolve():
            raise UsageError("--baseline is the --output itself; name the folder of an earlier run.")
        baseline = open_baseline(settings.baseline, bundle.labels, bundle.task)
        return Chosen(baseline, baseline.fingerprint)
    return _latest(settings, names, bundle)


def _latest(settings: ScoreSettings, names: Collection[str], bundle: Bundle) -> Chosen:
    output = output_of(settings)
    is_done = is_finished(output) and not settings.force
    kept = _kept_in_staging(output, names, bundle) or _kept_in_run(output, names, bundle)
    if is_done:  # nothing is compared again, so what was chosen may be gone
        return Chosen(None, kept["content"] if kept else None, is_latest=True)
    path = Path(kept["path"]) if kept and kept["path"] else None
    if path is not None and not is_finished(path):
        _LOG.warning(
            "--baseline latest was %s at the first start, which is gone; another is looked for",
            printable(path),
        )
        kept = None
    if kept is None:
        path = latest_run(settings.output, names, bundle.labels, bundle.task, night=settings.date)
    return _opened(path, settings, bundle)


def _opened(path: Path | None, settings: ScoreSettings, bundle: Bundle) -> Chosen:
    where = printable(runs_folder(settings.output))
    if path is None:
        _LOG.log(
            NOTICE, "--baseline latest: none yet of these files and labels in %s; nothing is compared", where
        )
        return Chosen(is_latest=True)
    try:
        baseline = open_baseline(path.absolute(), bundle.labels, bundle.task)
    except (DataError, NoInputError) as error:
        return not_compared(error)
    _LOG.log(NOTICE, "--baseline latest: compared with %s", printable(path))
    return Chosen(baseline, baseline.fingerprint, is_latest=True)


def not_compared(reason: Exception) -> Chosen:
    """What remains of a latest run that cannot be compared with: nobody named it, so that is told and no night refused."""
    _LOG.warning("--baseline latest: nothing is compared. %s", reason)
    return Chosen(is_latest=True)


def keep(chosen: Chosen, output: OwnPath, names: Collection[str], bundle: Bundle) -> None:
    """Note in the staging folder which run is the latest, so that a later start compares with the same."""
    if chosen.is_latest:
        path = str(chosen.baseline.path) if chosen.baseline else None
        noted = {"path": path, "content": chosen.content, "names": sorted(names), "labels": [*bundle.labels]}
        if read_checked(output / STAGING / CHOSEN) != noted:
            write_checked(output / STAGING / CHOSEN, noted)


def _kept_in_staging(output: OwnPath, names: Collection[str], bundle: Bundle) -> dict[str, str | None] | None:
    with contextlib.suppress(*DAMAGE):
        if (noted := read_checked(output / STAGING / CHOSEN)) is not None:
            noted = checked(noted, shapes.CHOSEN)
            if (noted["names"], noted["labels"]) == (sorted(names), [*bundle.labels]):
                return {name: noted.get(name) for name in ("path", "content")}
    return None


def _kept_in_run(output: OwnPath, names: Collection[str], bundle: Bundle) -> dict[str, str | None] | None:
    """What a finished run in this folder was compared with, if it asked for the latest one too."""
    with contextlib.suppress(*DAMAGE):
        if is_finished(output):
            facts = read_facts(output)
            its_names, its_labels = (
                sorted(file["name"] for file in facts["files"]),
                facts["model"]["labels"],
            )
            is_of = (its_names, its_labels) == (sorted(names), [*bundle.labels])
            if is_of and facts["options"]["baseline"] == LATEST:
                earlier = facts.get("baseline") or {}
                return {name: earlier.get(name) for name in ("path", "content")}
    return None


def comparable(chosen: Chosen, refuse: Callable[[Baseline], None]) -> Chosen:
    """The earlier run, unless it is refused: one that the user named refuses the run, the latest one is not compared with."""
    try:
        if chosen.baseline is not None:
            refuse(chosen.baseline)
    except DataError as error:
        if not chosen.is_latest:
            raise
        return not_compared(error)
    return chosen
