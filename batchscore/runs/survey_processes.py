"""Surveys of all files of a run, in their order: here, or of many or large files in processes beside this one.

A process gives back what it found, or says nothing of a file: then the file is surveyed here. So errors, the order in which
they are raised, and files with very many rejects are the same whatever the number of processes
(:mod:`batchscore.system.helpers`).
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from batchscore.runs.surveying import Look, Surveyed, Surveyor
from batchscore.system.cores import usable_cores
from batchscore.system.helpers import MOST, Helpers

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings
    from batchscore.formats.inputs import FoundFile
    from batchscore.model.bundle import Bundle

_FILE_SECONDS = 0.0004
_BYTES_A_SECOND = 40e6
"""What a survey takes, roughly: of a file however small, and of its bytes."""
_WORTH_SECONDS = 4.0
"""Surveys that take less are done before a process has started."""
_TASK_SECONDS = 0.25
"""Small files are handed out together, so many that they take about as long."""
_AHEAD = 4
"""Tasks per process that may be done before an earlier one is."""
_REJECT_BYTES = 8 << 20
"""Of the rejects of one file, as they are sent back."""


class _Task(NamedTuple):
    """Consecutive files to look at, or to survey if there are looks already."""

    files: Sequence[FoundFile]
    looks: Sequence[Look] | None


class _Rejects(io.BytesIO):
    """Rejects to be sent back, unless they are too many."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > _REJECT_BYTES:
            raise MemoryError("too many rejects to send")
        return super().write(data)


def surveys_of(
    found: Sequence[FoundFile], bundle: Bundle, settings: ScoreSettings, rejects: IO[bytes]
) -> Iterator[Surveyed]:
    """What each file holds; their heads are looked at before the first is read.

    Raises:
        BatchscoreError: of the first file with which something is wrong.
    """
    surveyor = Surveyor(bundle, settings)
    count = processes_for(found, settings)
    with contextlib.ExitStack() as stack:
        helpers = Helpers(count, _Surveys, bundle, settings) if count else None
        if helpers is not None:
            stack.callback(helpers.close)
        seen = _results(helpers, found, None)
        looks = [look or surveyor.look(file) for file, look in zip(found, seen, strict=True)]
        done = _results(helpers, found, looks)
        left = settings.limit
        for file, look, sent in zip(found, looks, done, strict=True):
            if sent is not None:
                surveyed, lines = sent
                rejects.write(lines)
                file.identity, file.hashed = surveyed.file.identity, surveyed.file.hashed
                surveyed.file = file
            else:
                surveyed = surveyor.survey(file, look, rejects, left)
                left = None if left is None else left - surveyed.rows
            yield surveyed


def _results(
    helpers: Helpers | None, found: Sequence[FoundFile], looks: Sequence[Look] | None
) -> Iterator[Any]:
    """What the helpers found of each file, in order; None where they said nothing."""
    if helpers is None:
        yield from [None] * len(found)
        return
    tasks = _tasks(found, looks)
    for task, results in zip(tasks, helpers.results(tasks, _AHEAD), strict=True):
        yield from results or [None] * len(task.files)


def processes_for(found: Sequence[FoundFile], settings: ScoreSettings, cores: int | None = None) -> int:
    """How many processes are worth their start; 0 if none is, or if a limit makes each file depend on those before."""
    cores = usable_cores() if cores is None else cores
    costs = [_cost(file) for file in found]
    gained = sum(costs) - max(sum(costs) / max(cores, 1), max(costs, default=0))
    if cores < 2 or settings.limit is not None or gained < _WORTH_SECONDS / 2 or not sys.executable:
        return 0
    return min(cores, MOST, len(found))


def _cost(file: FoundFile) -> float:
    """Seconds."""
    return _FILE_SECONDS + file.identity.size / _BYTES_A_SECOND


def _tasks(found: Sequence[FoundFile], looks: Sequence[Look] | None) -> list[_Task]:
    tasks: list[_Task] = []
    first, cost = 0, 0.0
    for place, file in enumerate(found, 1):
        cost += _cost(file) if looks is not None else _FILE_SECONDS
        if cost >= _TASK_SECONDS or place == len(found):
            tasks.append(_Task(found[first:place], looks[first:place] if looks is not None else None))
            first, cost = place, 0.0
    return tasks


# ---------------------------------------------------------------------------------------------- in such a process


class _Surveys:
    """Looks at and surveys the files of a task."""

    def __init__(self, bundle: Bundle, settings: ScoreSettings) -> None:
        self._surveyor = Surveyor(bundle, settings)

    def __call__(self, task: _Task) -> list[Any]:
        """What was found of each file; None of one where anything stood in the way."""
        looks: Sequence[Look | None] = task.looks or [None] * len(task.files)
        return [_result(self._surveyor, *each) for each in zip(task.files, looks, strict=True)]


def _result(surveyor: Surveyor, file: FoundFile, look: Look | None) -> Any:
    """What was found; None if anything stood in the way."""
    try:
        if look is None:
            return surveyor.look(file)
        rejects = _Rejects()
        return surveyor.survey(file, look, rejects), rejects.getvalue()
    except Exception:  # noqa: BLE001 - it comes again where the file is surveyed instead
        return None
