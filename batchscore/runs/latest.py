"""Last night's run: the newest finished one among the siblings of a run folder, of the same inputs' names and labels.

``runs/2026-11-23`` has the siblings ``runs/*`` and, in folders of days, ``runs/<day>/*``; so has ``runs/2026-11-23/shop``, which
lies in such a folder itself, as all runs of an inbox do. Runs of exactly the same names come first. If there is none, a run counts whose
names differ in nothing but digits: ``reviews-2026-11-22.csv`` is last night's ``reviews-2026-11-23.csv``, and thirteen files
``part-0000.parquet`` to ``part-0012.parquet`` are a night like one of fourteen.
"""

from __future__ import annotations

import datetime
import logging
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from batchscore.errors import printable
from batchscore.records import Task
from batchscore.runs.as_written import changes_in
from batchscore.runs.dates import date_of_name, date_of_run
from batchscore.runs.folder import DAMAGE, is_evaluation, is_finished, read_run
from batchscore.system.own_paths import own_folder

_LOG = logging.getLogger(__name__)
_DIGITS = re.compile(r"\d+")


class _Found(NamedTuple):
    """A finished run, in the order in which one is taken: the last of them."""

    has_same_names: bool
    night: datetime.date
    finished: datetime.datetime
    path: Path


def latest_run(
    output: Path,
    names: Collection[str],
    labels: Collection[str],
    task: Task = Task.SINGLE_LABEL,
    *,
    before: datetime.datetime | None = None,
    night: datetime.date | None = None,
) -> Path | None:
    """The run that came last before that of the folder ``output``, which need not exist; None if there is none yet.

    ``names``: those of the inputs, below ``predictions/``; ``labels``: the model's. A run counts that has finished, is as it
    was written (one that was changed is told, and passed over), and is for no later day than ``output``: the date of a run is that of its
    folder, else the one in its ``run.json``; ``night`` is that of ``output`` if its folder has none. Of several runs of one day the one that
    finished last counts. ``before``: only runs that had finished by then.
    """
    own, until = output.resolve(), date_of_run(output) or night
    found = [
        each
        for path in _siblings(output)
        if path.resolve() != own
        and (each := _looked_at(path, names, set(labels), task)) is not None
        and (until is None or each.night <= until)
        and (before is None or each.finished <= before)
    ]
    return next((each.path for each in sorted(found, reverse=True) if _is_whole(each.path)), None)


def runs_folder(output: Path) -> Path:
    """The folder of all runs that one with this folder is among: the one it lies in, or if that is a day's, the next.

    >>> str(runs_folder(Path("runs/2026-11-23/shop"))), str(runs_folder(Path("runs/shop")))
    ('runs', 'runs')
    """
    parent = output.absolute().parent if output.parent == Path() else output.parent
    return parent.parent if date_of_name(parent.name) else parent


def pattern_of(name: str) -> str:
    """A name with each number in it as ``#``: the same every night.

    >>> pattern_of("reviews-2026-11-23.csv"), pattern_of("part-0007.parquet")
    ('reviews-#-#-#.csv', 'part-#.parquet')
    """
    return _DIGITS.sub("#", name)


def _siblings(output: Path) -> Iterator[Path]:
    """Folders that may hold runs: next to ``output``, and in the folders of days there; links are not followed."""
    folder = runs_folder(output)
    for path in _folders(folder):
        yield path
        if date_of_name(path.name) and not is_finished(path):
            yield from _folders(path)


def _folders(folder: Path) -> list[Path]:
    place = own_folder(folder)
    if not folder.is_dir():
        return []
    return [folder / e.name for e in place.entries() if e.is_folder and not e.name.startswith(".")]


def _looked_at(path: Path, names: Collection[str], labels: set[str], task: Task) -> _Found | None:
    """A run that may be taken; None if it has not finished, cannot be read, or is of other inputs or labels."""
    try:
        if not is_finished(path):
            return None
        run = read_run(path)
        its_names = [str(file["name"]) for file in run.files]
        if set(run.model["labels"]) != labels or run.metrics.get("task", Task.SINGLE_LABEL) != task:
            return None
        if is_evaluation(run.facts) or set(map(pattern_of, its_names)) != set(map(pattern_of, names)):
            return None
        finished = datetime.datetime.fromisoformat(run.finished)
        date = run.facts.get("date")
        night = date_of_run(path) or (datetime.date.fromisoformat(date) if date else finished.date())
        return _Found(set(its_names) == set(names), night, finished.astimezone(), path)
    except DAMAGE:
        return None


def _is_whole(path: Path) -> bool:
    try:
        changed = changes_in(path)
    except (*DAMAGE, RuntimeError) as error:
        changed = [printable(error)]
    if changed:
        _LOG.warning(
            "%s is the latest run, but not as it was written (%s), and is passed over",
            printable(path),
            changed[0],
        )
    return not changed
