"""Surveys of all files of a run, in their order: here, or of many or large files in processes beside this one.

A process gives back what it found, or says nothing of a file: then the file is surveyed here. So errors, the order in which
they are raised, and files with very many rejects are the same whatever the number of processes, and one that dies costs time
only. Processes are started by a command of their own, so that the program that called is not imported a second time.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from batchscore.runs.surveying import Look, Surveyed, Surveyor
from batchscore.system.cores import usable_cores

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings
    from batchscore.formats.inputs import FoundFile
    from batchscore.model.bundle import Bundle

_FILE_SECONDS = 0.0012
_BYTES_A_SECOND = 40e6
"""What a survey takes, roughly: of a file however small, and of its bytes."""
_WORTH_SECONDS = 4.0
"""Surveys that take less are done before a process has started."""
_MOST_PROCESSES = 16
_TASK_SECONDS = 0.25
"""Small files are handed out together, so many that they take about as long."""
_AHEAD = 4
"""Tasks per process that may be done before an earlier one is."""
_REJECT_BYTES = 8 << 20
"""Of the rejects of one file, as they are sent back."""
_PR_SET_PDEATHSIG = 1
_COMMAND = (
    "import sys; sys.path[:] = {path!r}; from batchscore.runs.survey_processes import serve; serve({fd})"
)


class _Task(NamedTuple):
    """Consecutive files to look at, or to survey if there are looks already."""

    first: int
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
        pool = _Processes(count, bundle, settings) if count else None
        if pool is not None:
            stack.callback(pool.close)
        seen = pool.results(found, None) if pool is not None else iter([None] * len(found))
        looks = [look or surveyor.look(file) for file, look in zip(found, seen, strict=True)]
        done = pool.results(found, looks) if pool is not None else iter([None] * len(found))
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


def processes_for(found: Sequence[FoundFile], settings: ScoreSettings, cores: int | None = None) -> int:
    """How many processes are worth their start; 0 if none is, or if a limit makes each file depend on those before."""
    cores = usable_cores() if cores is None else cores
    costs = [_cost(file) for file in found]
    gained = sum(costs) - max(sum(costs) / max(cores, 1), max(costs, default=0))
    if cores < 2 or settings.limit is not None or gained < _WORTH_SECONDS / 2 or not sys.executable:
        return 0
    return min(cores, _MOST_PROCESSES, len(found))


def _cost(file: FoundFile) -> float:
    """Seconds."""
    return _FILE_SECONDS + file.identity.size / _BYTES_A_SECOND


def _tasks(found: Sequence[FoundFile], looks: Sequence[Look] | None) -> list[_Task]:
    tasks: list[_Task] = []
    first, cost = 0, 0.0
    for place, file in enumerate(found, 1):
        cost += _cost(file) if looks is not None else _FILE_SECONDS
        if cost >= _TASK_SECONDS or place == len(found):
            tasks.append(_Task(first, found[first:place], looks[first:place] if looks is not None else None))
            first, cost = place, 0.0
    return tasks


class _Processes:
    """Processes that survey; the caller closes them."""

    def __init__(self, count: int, bundle: Bundle, settings: ScoreSettings) -> None:
        self._running: dict[Connection, subprocess.Popen[bytes]] = {}
        try:
            for _ in range(count):
                self._start()
            for pipe in self._running:
                pipe.send((bundle, settings))
        except OSError:  # the machine has no room for them: what they do not do is done here
            self.close()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = _COMMAND.format(path=sys.path, fd=theirs.fileno())
            process = subprocess.Popen(  # noqa: S603 - our own interpreter
                [sys.executable, "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # what the keyboard sends comes to us, and we end them
            )
        self._running[Connection(ours.detach())] = process

    def results(self, found: Sequence[FoundFile], looks: Sequence[Look] | None) -> Iterator[Any]:
        """What was found of each file, in order; None where a process said nothing."""
        waiting = _tasks(found, looks)[::-1]
        order = [task.first for task in waiting[::-1]]
        sizes = {task.first: len(task.files) for task in waiting}
        done: dict[int, Sequence[Any]] = {}
        at_work: dict[Connection, _Task] = {}
        for place, first in enumerate(order):
            while first not in done:
                most = place + _AHEAD * max(len(self._running), 1)
                for pipe in [each for each in self._running if each not in at_work]:
                    if waiting and order.index(waiting[-1].first, place) < most:
                        self._hand_out(pipe, waiting.pop(), at_work, done)
                if first not in done and not at_work:  # no process is left
                    done[first] = [None] * sizes[first]
                    waiting = [task for task in waiting if task.first != first]
                self._take(at_work, done)
            yield from done.pop(first)

    def _hand_out(
        self, pipe: Connection, task: _Task, at_work: dict[Connection, _Task], done: dict[int, Sequence[Any]]
    ) -> None:
        at_work[pipe] = task
        try:
            pipe.send((task.files, task.looks))
        except OSError:
            self._give_up(pipe, at_work, done)

    def _take(self, at_work: dict[Connection, _Task], done: dict[int, Sequence[Any]]) -> None:
        """Wait until a process answers, or dies."""
        for pipe in wait(list(at_work)) if at_work else ():
            assert isinstance(pipe, Connection)  # noqa: S101 - we wait for nothing else
            try:
                with _without_collections():
                    done[at_work[pipe].first] = pipe.recv()
                del at_work[pipe]
            except (EOFError, OSError, pickle.UnpicklingError):
                self._give_up(pipe, at_work, done)

    def _give_up(
        self, pipe: Connection, at_work: dict[Connection, _Task], done: dict[int, Sequence[Any]]
    ) -> None:
        """Go on without a process: its files are surveyed here."""
        task = at_work.pop(pipe)
        done[task.first] = [None] * len(task.files)
        _end(pipe, self._running.pop(pipe))

    def close(self) -> None:
        """End the processes, whatever they do."""
        while self._running:
            _end(*self._running.popitem())


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Within the block nothing is searched for cycles: thousands of objects come at once, and all of them stay."""
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_on:
            gc.enable()


def _end(pipe: Connection, process: subprocess.Popen[bytes]) -> None:
    pipe.close()
    process.kill()
    process.wait()


# ---------------------------------------------------------------------------------------------- in such a process


def serve(descriptor: int) -> None:
    """Look at and survey files until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.set_inheritable(descriptor, False)
    with contextlib.suppress(EOFError, OSError), Connection(descriptor) as pipe:
        surveyor = Surveyor(*pipe.recv())
        while True:
            files, looks = pipe.recv()
            pipe.send(
                [_result(surveyor, *each) for each in zip(files, looks or [None] * len(files), strict=True)]
            )


def _result(surveyor: Surveyor, file: FoundFile, look: Look | None) -> Any:
    """What was found; None if anything stood in the way."""
    try:
        if look is None:
            return surveyor.look(file)
        rejects = _Rejects()
        return surveyor.survey(file, look, rejects), rejects.getvalue()
    except Exception:  # noqa: BLE001 - it comes again where the file is surveyed instead
        return None
