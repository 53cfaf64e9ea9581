"""The prediction files of a run, built file by file: here, or in processes beside the metrics and the mismatches.

A file is written from its staged parts, and then read back once, from end to end: what is read is what is counted and what is hashed.
So the rows of the promise, and the SHA-256 in the manifest, are those of the bytes that the file system gives, and not of what was
meant to be written. What a process did not build, because it died or something stood in its way, is built here, where errors are raised.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from batchscore.formats.format import RecordFormat, format_of
from batchscore.formats.writing import Output, ReadBack, read_back, write_predictions
from batchscore.system import memory
from batchscore.system.cores import usable_cores
from batchscore.system.helpers import MOST, Helpers
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import building

if TYPE_CHECKING:
    from batchscore.formats.staged import StagedPart
    from batchscore.runs.partitions import Partitions
    from batchscore.runs.shards import StagedParts

_FILE_SECONDS = 0.0005
_ROW_SECONDS = 3e-6
_RECORD_SECONDS = 9e-6
_MEASURED_SECONDS = 8e-6
"""What it takes, roughly: a file however small, its rows in a columnar format, or as records, and what is done beside it."""
_WORTH_SECONDS = 3.0
"""To be gained by processes, which take about a second to start."""
_TASK_SECONDS = 0.25
"""Small files are handed out together, so many that they take about as long."""
_PROCESS_BYTES = 400 << 20
"""Of memory that a process may take: a row group or a part, and the libraries."""


class ToBuild(NamedTuple):
    """A prediction file that is to be built."""

    path: OwnPath
    output: Output
    file: int
    """Index of its input."""
    folder: str
    """The folder of its partition, or none."""
    numbers: Sequence[int]
    """Of the parts of its input."""
    rows: int
    """Of its input."""


@dataclasses.dataclass(frozen=True)
class Builder:
    """Builds prediction files from what is staged; it can be pickled."""

    folder: OwnPath
    """Where all of them are built."""
    staged: StagedParts
    output_format: str
    partitions: Partitions | None = None

    def build(self, wanted: ToBuild) -> ReadBack:
        """Write a file and read it back.

        Raises:
            StorageError: the disk is full, or the like.
        """
        with building(wanted.path) as out:
            write_predictions(self._parts(wanted), wanted.output, self.output_format, out)
        return self.read(wanted)

    def read(self, wanted: ToBuild) -> ReadBack:
        """Read a file that is built."""
        return read_back(wanted.path, wanted.output, self.output_format)

    def _parts(self, wanted: ToBuild) -> Iterator[StagedPart]:
        if self.partitions is not None:
            return self.partitions.parts(wanted.file, wanted.folder)
        return (self.staged.open(number) for number in wanted.numbers)

    def seconds(self, wanted: ToBuild) -> float:
        """What a file takes, roughly."""
        name = wanted.output.file.format if self.output_format == "same" else self.output_format
        columnar = not isinstance(format_of(name), RecordFormat)
        return _FILE_SECONDS + wanted.rows * (_ROW_SECONDS if columnar else _RECORD_SECONDS)


def processes_for(costs: Sequence[float], beside: float, cores: int | None = None) -> int:
    """How many processes are worth their start and have memory, given the seconds of each file, and of what is done beside them."""
    cores = usable_cores() if cores is None else cores
    alone = sum(costs) + beside
    gained = alone - max(alone / max(cores, 1), max(costs, default=0), beside)
    if cores < 2 or gained < _WORTH_SECONDS or not sys.executable:
        return 0
    room = memory.room()
    fitting = MOST if room is None else room // _PROCESS_BYTES
    return min(cores, MOST, len(costs), fitting)


class Building:
    """The prediction files of a run, while they are built; it is entered before what is done beside it, and left after :meth:`finish`."""

    def __init__(self, builder: Builder, wanted: Sequence[ToBuild], rows: int) -> None:
        """``rows`` are those of the run, which are measured meanwhile."""
        self._builder, self._wanted = builder, wanted
        costs = [builder.seconds(each) for each in wanted]
        count = processes_for(costs, rows * _MEASURED_SECONDS)
        self._tasks = _tasks(costs) if count else []
        self._done: dict[int, ReadBack | None] = {}
        self._helpers = Helpers(count, _Built, builder) if count else None
        self._thread = threading.Thread(target=self._hand_out, name="building", daemon=True)

    def __enter__(self) -> Building:
        """Start the processes, if any are worth it."""
        if self._helpers is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End them, whatever they do."""
        if self._helpers is not None:
            self._helpers.kill()
            self._thread.join()
            self._helpers.close()

    def _hand_out(self) -> None:
        assert self._helpers is not None  # noqa: S101 - started only then
        tasks = [[self._wanted[place] for place in places] for places in self._tasks]
        for places, results in zip(self._tasks, self._helpers.results(tasks), strict=True):
            self._done.update(zip(places, results or [None] * len(places), strict=True))

    def finish(self) -> list[ReadBack]:
        """Build what no process did; returns what each file is.

        Raises:
            StorageError: the disk is full, or the like.
        """
        if self._helpers is not None:
            self._thread.join()
        with self._builder.folder.held():
            return [
                self._done.get(place) or self._builder.build(each) for place, each in enumerate(self._wanted)
            ]


def is_as_read(found: os.stat_result | None, read: ReadBack) -> bool:
    """Whether a file, of which this is known now, is still the one that was read back, by its size, time and inode."""
    before = read.found
    return found is not None and (found.st_size, found.st_mtime_ns, found.st_ino) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    )


def _tasks(costs: Sequence[float]) -> list[list[int]]:
    """The places of the files in tasks: large ones alone and first, small ones together."""
    tasks: list[tuple[float, list[int]]] = []
    cost, places = 0.0, []  # type: float, list[int]
    for place, each in enumerate(costs):
        if each >= _TASK_SECONDS:
            tasks.append((each, [place]))
            continue
        cost, places = cost + each, [*places, place]
        if cost >= _TASK_SECONDS:
            tasks.append((cost, places))
            cost, places = 0.0, []
    if places:
        tasks.append((cost, places))
    return [places for _, places in sorted(tasks, key=lambda task: -task[0])]


class _Built:
    """In such a process: builds the files of a task."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._parent = os.getppid()

    def __call__(self, task: Sequence[ToBuild]) -> list[ReadBack | None]:
        with self._builder.folder.held():
            return [self._built(each) for each in task]

    def _built(self, wanted: ToBuild) -> Any:
        if os.getppid() != self._parent:  # nobody waits for it, and another start may build it
            raise SystemExit
        with contextlib.suppress(Exception):  # it comes again where the file is built instead
            return self._builder.build(wanted)
        return None
