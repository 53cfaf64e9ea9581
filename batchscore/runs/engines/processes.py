"""Scoring processes on this machine, one for each of its places: a GPU each, which is all that its process sees."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, NamedTuple

from batchscore.errors import StorageError
from batchscore.runs.engines.channel import Child, ParentsEnd, sendable, tried
from batchscore.runs.engines.pool import Answered, Event, Failed, Gone, Up

if TYPE_CHECKING:
    from batchscore.runs.shard_scoring import Recipe

_PAUSE = 2.0
"""Seconds between the death of a process and the next in its place."""
_MOST_DEATHS = 3
"""Processes that may die in one place before any was ready; then nothing more is begun there."""


class Place(NamedTuple):
    """Where a process runs."""

    name: str
    """For messages."""
    environment: Mapping[str, str]
    """What its process is to have in its environment."""


class _Running(NamedTuple):
    place: Place
    child: Child


class Processes:
    """One process in each place; see :class:`~batchscore.runs.engines.pool.Pool`."""

    def __init__(self, recipe: Recipe, places: Sequence[Place]) -> None:
        self._recipe = recipe
        self._free = [(place, 0.0) for place in places]
        """Places without a process, and from when on there may be one."""
        self._deaths = dict.fromkeys((place.name for place in places), 0)
        """Processes that died in each, one after the other, before any was ready."""
        self._running: dict[int, _Running] = {}
        self._last = 0

    def events(self, seconds: float) -> Sequence[Event]:
        """See :class:`~batchscore.runs.engines.pool.Pool`."""
        self._start()
        pipes = {running.child.pipe: number for number, running in self._running.items()}
        if not pipes and not self._free:
            raise StorageError(
                f"Scoring processes died {_MOST_DEATHS} times in each place before one was ready ({', '.join(self._deaths)}). Free the "
                "cause (memory of the GPU) and run the same command again: what was finished is kept."
            )
        if not pipes:
            time.sleep(seconds)
        found: list[Event] = []
        for pipe in wait(list(pipes), seconds):
            number = pipes[pipe]  # type: ignore[index]
            try:
                found += [self._event(number, each) for each in self._running[number].child.received()]
            except EOFError:
                found.append(self._gone(number))
        return found

    def _event(self, worker: int, message: tuple[Any, ...]) -> Event:
        match message:
            case ("up",):
                return Up(worker)
            case ("answer", task, answer):
                if task is None:
                    self._deaths[self._running[worker].place.name] = 0
                return Answered(worker, task, answer)
            case ("failed", task, error):
                return Failed(worker, task, error)
        raise RuntimeError(f"a scoring process says {message[0]!r}")

    def _gone(self, worker: int) -> Gone:
        place, child = self._running.pop(worker)
        self._deaths[place.name] += 1
        if self._deaths[place.name] < _MOST_DEATHS:
            self._free.append((place, time.monotonic() + _PAUSE))
        return Gone(worker, f"{place.name}: {child.end()}")

    def _start(self) -> None:
        now = time.monotonic()
        ready = [place for place, since in self._free if since <= now]
        self._free = [each for each in self._free if each[1] > now]
        for place in ready:
            child = Child("batchscore.runs.engines.processes:serve", place.environment)
            self._last += 1
            self._running[self._last] = _Running(place, child)
            child.send(self._recipe)

    def get_ready(self, worker: int, recorded: Mapping[str, Any]) -> None:
        """See :class:`~batchscore.runs.engines.pool.Pool`."""
        self._running[worker].child.send("ready", dict(recorded))

    def submit(self, worker: int, task: int, payload: Any) -> None:
        """See :class:`~batchscore.runs.engines.pool.Pool`."""
        self._running[worker].child.send("task", task, payload)

    def turn_away(self, worker: int) -> None:
        """See :class:`~batchscore.runs.engines.pool.Pool`."""
        self._running.pop(worker).child.end()

    def shortage(self) -> str:
        """See :class:`~batchscore.runs.engines.pool.Pool`."""
        return f"{len(self._running)} of {len(self._deaths)} have been started on this machine"

    def close(self) -> None:
        """See :class:`~batchscore.runs.engines.pool.Pool`."""
        for running in self._running.values():
            running.child.pipe.close()
        for running in self._running.values():
            running.child.end()
        self._running.clear()


def serve(parent: ParentsEnd) -> None:
    """A scoring process: make the recipe's model, and score what the parent sends until it ends."""
    from batchscore.runs.shard_scoring import ShardScoring

    (recipe,) = parent.receive() or (None,)
    kind, scoring = tried(lambda: ShardScoring(recipe))
    parent.send("up")
    while (message := parent.receive()) is not None:
        match message:
            case ("ready", recorded):
                if kind == "answer":
                    parent.send(*_answer(None, tried(lambda: scoring.get_ready(recorded))))
                else:
                    parent.send("failed", None, scoring)
            case ("task", task, payload):
                scoring.begin(payload).add_done_callback(lambda done, task=task: _tell(parent, task, done))


def _answer(task: int | None, tried_: tuple[str, Any]) -> tuple[str, int | None, Any]:
    kind, value = tried_
    return kind, task, value


def _tell(parent: ParentsEnd, task: int, done: Future[Any]) -> None:
    with contextlib.suppress(OSError):
        if (error := done.exception()) is not None:
            parent.send("failed", task, sendable(error))
        else:
            parent.send("answer", task, done.result())
