"""One queue of shards for several scoring processes: who gets which, and what becomes of those of a process that died.

A process has two shards at a time, so that it reads and tokenises one while it computes the other; on a GPU a few more, as
several threads tokenise. What a dead process had goes to
any other, and a shard that was there when one died has a process to itself from then on: if three die, it is the shard that
they died of, and the error names its file and rows.

The first process that is up loads the model as it was asked for, or as it was recorded at an earlier start. What it found
binds the others: they load the same, and one whose answers are known by something else is turned away, since bits would
depend on who scored which row.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from batchscore.errors import BatchscoreError, BusyError, DataError, OutputError, StorageError, printable
from batchscore.records import Shard
from batchscore.runs.engines.pool import Answered, Event, Failed, Gone, Pool, Ready, Up
from batchscore.system.terminal import NOTICE

_LOG = logging.getLogger(__name__)
_HEAVY = 64 * 2**20
"""Bytes of rows; a process that has as many is given no more than two shards."""
DEATHS = 3
"""Processes that may die over one shard, or one after the other before any is ready."""
_TICK = 1.0
"""Seconds."""
_HANGS = 20
"""How many times as long as the slowest shard so far, by bytes, one may take; only then, and after the limit on waiting, it hangs."""
TOLD_EVERY = 30.0
"""Seconds between words about what is waited for."""


class Work(Protocol):
    """What the processes do, as the parent sees it."""

    def shards(self) -> Iterator[Shard]:
        """What there is to score; the next one is taken when a process is free for it."""

    def bind(self, found: Ready) -> Mapping[str, Any]:
        """Note what the first process found; returns how the others have to load the model."""

    def shares(self, found: Ready) -> bool:
        """Whether a process sees the same staging folder and inputs as this one."""

    def payload(self, shard: Shard, *, shares: bool) -> Any:
        """What a process is given of a shard: where it is, or if it does not share files, its texts."""

    def accept(self, shard: Shard, answer: Any) -> bool:
        """Take an answer; whether it is all there. If it is not, the shard is done once more, with its texts from here."""

    def rows_of(self, shard: Shard) -> str:
        """The file and rows of a shard, for messages."""


class Patience:
    """Waits for processes: says so every half minute, and gives up after a while."""

    def __init__(self, least: int, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``least`` processes are to be ready; without them ``limit`` seconds are waited."""
        self._least, self.limit, self.clock = least, limit, clock
        self._since = self._told = clock()

    def check(self, ready: int, shortage: Callable[[], str]) -> None:
        """Take note of how many are ``ready``; ``shortage`` says what there is of what they run on.

        Raises:
            BusyError: too few were ready for too long.
        """
        now = self.clock()
        if ready >= self._least:
            self._since = self._told = now
            return
        waited = now - self._since
        if waited < self.limit and now - self._told < TOLD_EVERY:
            return
        said = f"{ready} of at least {self._least} scoring processes are ready; {shortage()}"
        if waited >= self.limit:
            raise BusyError(
                f"Waited {waited:.0f} s for scoring processes: {said}. What was finished is kept: run the same command again when "
                "there are more, or with fewer --workers, or a longer --wait-for-workers."
            )
        self._told = now
        _LOG.log(NOTICE, "waiting: %s. It ends in %.0f s if no more come", said, self.limit - waited)


@dataclasses.dataclass(eq=False)
class _Task:
    """A shard on its way."""

    shard: Shard
    deaths: int = 0
    """Processes that died while they had it."""
    is_texts: bool = False
    """Whether it is given as texts, whatever its process shares."""

    @property
    def bytes(self) -> int:
        """Of its rows."""
        return sum(part.bytes for part in self.shard.parts)


@dataclasses.dataclass(eq=False)
class _Worker:
    """A process that is up."""

    number: int
    ready: Ready | None = None
    shares: bool = False
    """Whether it reads and stages by itself."""
    is_asked: bool = False
    """Whether it is loading the model."""
    tasks: dict[int, _Task] = dataclasses.field(default_factory=dict)
    since: float = 0.0
    """When it began the oldest of them: when it was given, or the one before it was answered."""

    def takes(self, task: _Task) -> bool:
        """Whether it may have another one: one over which a process died goes alone."""
        if self.ready is None:
            return False
        if task.deaths or any(each.deaths for each in self.tasks.values()):
            return not self.tasks
        weight = sum(each.bytes for each in self.tasks.values())
        return len(self.tasks) < (self.ready.at_once if weight < _HEAVY else 2)


class Dispatcher:
    """Hands the shards of a run to the processes of a pool until all are done."""

    def __init__(self, pool: Pool, work: Work, recorded: Mapping[str, Any], patience: Patience) -> None:
        """``recorded`` are the facts of an earlier start's computation, or empty."""
        self._pool, self._work, self._patience = pool, work, patience
        self._recorded: Mapping[str, Any] = recorded
        self._bound: Ready | None = None
        self._workers: dict[int, _Worker] = {}
        self._again: collections.deque[_Task] = collections.deque()
        self._fresh = work.shards()
        self._next: _Task | None = None
        self._stillborn = 0
        """Processes that died one after the other before any was ready."""
        self._awake, self._looked = 0.0, patience.clock()
        """Seconds in which this process ran, so that one which was stopped blames nobody; and when it was looked last."""
        self._slowest = 0.0
        """Seconds for a byte."""
        self.most_ready = 0
        """How many were ready at most."""

    def run(self) -> None:
        """Have every shard done.

        Raises:
            BusyError: there were too few processes for too long.
            StorageError: processes died over one shard, or before any was ready.
            BatchscoreError: what a process could not do, nor could it be done from here.
        """
        while not self._is_done():
            for event in self._pool.events(_TICK):
                self._handle(event)
            self._give_up_what_hangs()
            self._hand_out()
            ready = sum(worker.ready is not None for worker in self._workers.values())
            self.most_ready = max(self.most_ready, ready)
            if not self._is_done():
                self._patience.check(ready, self._shortage)

    def _shortage(self) -> str:
        """What there is of processes, and of what they run on."""
        loading = sum(each.is_asked and each.ready is None for each in self._workers.values())
        return (
            f"{loading} of them load{'s' * (loading == 1)} the model; " * (loading > 0)
            + self._pool.shortage()
        )

    def _is_done(self) -> bool:
        return self._peek() is None and not any(worker.tasks for worker in self._workers.values())

    def _peek(self) -> _Task | None:
        """The task that is next; those that are done again come first."""
        if self._again:
            return self._again[0]
        if self._next is None and (shard := next(self._fresh, None)) is not None:
            self._next = _Task(shard)
        return self._next

    def _take(self) -> None:
        if self._again:
            self._again.popleft()
        else:
            self._next = None

    def _hand_out(self) -> None:
        """Give every process what it may have, those first that have least."""
        while (task := self._peek()) is not None:
            free = [each for each in self._workers.values() if each.takes(task)]
            if not free:
                return
            worker = min(free, key=lambda each: len(each.tasks))
            self._take()
            worker.since = worker.since if worker.tasks else self._awake
            payload = self._work.payload(task.shard, shares=worker.shares and not task.is_texts)
            worker.tasks[task.shard.number] = task
            self._pool.submit(worker.number, task.shard.number, payload)

    def _handle(self, event: Event) -> None:
        if isinstance(event, Answered | Failed) and event.worker not in self._workers:
            return  # it was on its way when its process was given up
        match event:
            case Up(number):
                self._workers[number] = _Worker(number)
                self._get_ready()
            case Gone(number, reason):
                self._gone(self._workers.pop(number, None), reason)
            case Answered(number, None, answer):
                self._is_ready(self._workers[number], answer)
            case Failed(number, None, error):
                self._not_ready(self._workers[number], error)
            case Answered(number, int(shard), answer):
                task = self._done(self._workers[number], shard)
                if not self._work.accept(task.shard, answer):
                    self._once_more(task, None)
            case Failed(number, int(shard), error):
                self._once_more(self._done(self._workers[number], shard), error)

    def _done(self, worker: _Worker, shard: int) -> _Task:
        """Take a shard from a process, and note how long it took."""
        task = worker.tasks.pop(shard)
        self._slowest = max(self._slowest, (self._awake - worker.since) / max(task.bytes, 1))
        worker.since = self._awake
        return task

    def _give_up_what_hangs(self) -> None:
        """Use a process no more that lives and does not answer: what it had is done by another."""
        now = self._patience.clock()
        self._awake, self._looked = self._awake + min(now - self._looked, 2 * _TICK), now
        for worker in list(self._workers.values()):
            limit = _HANGS * self._slowest * max((task.bytes for task in worker.tasks.values()), default=0)
            waited = self._awake - worker.since
            if worker.tasks and self._slowest and waited >= max(self._patience.limit, limit):
                rows = self._work.rows_of(next(iter(worker.tasks.values())).shard)
                reason = f"it lives, and has not answered for {waited:.0f} s; it has {rows}"
                self._turn_away(worker, reason)
                self._hand_back(worker, reason)

    def _get_ready(self) -> None:
        """Ask processes to load the model: one until it is known how, then all."""
        waiting = [each for each in self._workers.values() if not each.is_asked]
        if self._bound is None:
            waiting = [] if any(each.is_asked for each in self._workers.values()) else waiting[:1]
        for worker in waiting:
            worker.is_asked = True
            self._pool.get_ready(worker.number, self._recorded)

    def _is_ready(self, worker: _Worker, found: Ready) -> None:
        if self._bound is None:
            self._recorded = self._work.bind(found)
            self._bound = found
        elif found.deciding != self._bound.deciding:
            self._turn_away(
                worker,
                f"{found.place} is of another kind than {self._bound.place} (processor, GPU, or a setting of their libraries), so "
                "the last bit of an answer would depend on where it was computed",
            )
            return
        self._stillborn = 0
        worker.ready, worker.shares = found, self._work.shares(found)
        self._get_ready()

    def _not_ready(self, worker: _Worker, error: Exception) -> None:
        """The first process ends the run if it cannot load the model; a later one is not used."""
        if self._bound is None or not isinstance(error, BatchscoreError):
            raise error
        self._turn_away(worker, str(error))

    def _turn_away(self, worker: _Worker, reason: str) -> None:
        _LOG.warning("a scoring process is not used: %s", reason)
        del self._workers[worker.number]
        self._pool.turn_away(worker.number)

    def _gone(self, worker: _Worker | None, reason: str) -> None:
        """What a dead process had is done again, by any other."""
        if worker is None or worker.ready is None:
            self._died_early(reason)
            return
        _LOG.warning("a scoring process died, and what it had goes to another: %s", printable(reason)[:300])
        self._hand_back(worker, reason)

    def _hand_back(self, worker: _Worker, reason: str) -> None:
        """Have what a process had done by others, unless that has been tried often enough."""
        for task in worker.tasks.values():
            task.deaths += 1
            if task.deaths >= DEATHS:
                raise StorageError(
                    f"{DEATHS} scoring processes died while they had {self._work.rows_of(task.shard)} ({printable(reason)[:300]}). "
                    "Give them more memory, or take these rows out, and run the same command again: what was finished is kept."
                )
        self._again.extend(worker.tasks.values())

    def _died_early(self, reason: str) -> None:
        """A process died before it was ready; that counts while there is no other that is."""
        has_others = any(each.ready for each in self._workers.values())
        self._stillborn = 0 if has_others else self._stillborn + 1
        if self._stillborn >= DEATHS:
            raise StorageError(
                f"{DEATHS} scoring processes died one after the other before one was ready ({printable(reason)[:300]}). Free the "
                "cause (memory, a missing package) and run the same command again: what was finished is kept."
            )
        _LOG.warning("a scoring process died before it was ready: %s", printable(reason)[:300])
        self._get_ready()

    def _once_more(self, task: _Task, error: Exception | None) -> None:
        """Do a shard that a process could not read or stage by itself with its texts from here.

        If it cannot be read or staged here either, that raises what is wrong.
        """
        if error is not None and (
            task.is_texts or not isinstance(error, DataError | StorageError | OutputError)
        ):
            raise error
        _LOG.warning(
            "a scoring process could not read or stage %s by itself, so that goes through here: %s",
            self._work.rows_of(task.shard),
            printable(error or "what it staged is not seen here")[:300],
        )
        task.is_texts = True
        self._again.append(task)
