"""All shards in this process: reading and tokenising, computing, and staging run concurrently, with bounded queues.

On a CPU there is one worker per core, each a thread that computes one micro-batch at a time on one core; weights are
shared. That is faster than one micro-batch on all cores, whose threads wait for each other at the end of every operation,
and it makes answers independent of the number of cores: how a matmul is split among threads changes its last bit, and
here it is never split. Micro-batches of the next shard start while the last ones of a shard are still running, so no worker
idles at the end of a shard.

On a GPU two workers take turns: while one waits for its results, the other has its micro-batch queued on the device. Texts are
tokenised by several threads there (:mod:`batchscore.runs.engines.tokenising`).
"""

from __future__ import annotations

import collections
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from batchscore.model import scoring
from batchscore.model.device_time import DeviceTime
from batchscore.model.scoring import Model
from batchscore.records import Predictions, Rows, Shard
from batchscore.runs.engines.tokenising import Ready, made_ready

T = TypeVar("T")

_AHEAD = 2
"""Maximum shards in each queue: tokenised, computing, and to be staged."""
_PAUSE = 0.05
"""Seconds."""


def run(
    shards: Iterable[tuple[Shard, Sequence[Rows]]],
    model: Model,
    sink: Callable[[Shard, Sequence[Rows], Sequence[Predictions]], None],
    watch: Callable[[Shard], scoring.Watcher],
) -> None:
    """Score ``shards`` and call ``sink`` with each, in order, one at a time, in a separate thread.

    ``watch`` gives what sees the micro-batches of a shard. The first error of any stage ends the run; shards already given to
    ``sink`` are kept.
    """
    device = DeviceTime()

    def conclude(ready: Ready, computed: scoring.Computed) -> None:
        computed.work["waiting_seconds"] = device.waited()
        sink(ready.shard, ready.rows, scoring.conclude_parts(ready.prepared, computed, model))

    computing: collections.deque[tuple[Ready, scoring.Computation]] = collections.deque()
    pending: collections.deque[Future[None]] = collections.deque()

    def stage_oldest(most: int = _AHEAD) -> None:
        """Wait for the oldest shard and hand it to staging; raises its error, or one of staging."""
        ready, computation = computing.popleft()
        pending.append(stage.submit(conclude, ready, computation.result()))
        while len(pending) > most or (pending and pending[0].done()):
            pending.popleft().result()

    with (
        model.backend.one_core_each() as begin_worker,
        ahead(made_ready(shards, model), is_heavy=lambda ready: ready.is_heavy) as stream,
        ThreadPoolExecutor(model.workers, "worker", begin_worker) as workers,
        ThreadPoolExecutor(1, "stage") as stage,
        _cancel_on_error(workers, stage),
    ):
        for ready in stream:
            is_heavy = ready.is_heavy
            computation = scoring.Computation(ready.prepared, model, workers.map, watch(ready.shard), device)
            computing.append((ready, computation))
            del ready, computation
            while len(computing) >= (1 if is_heavy else _AHEAD):
                stage_oldest(0 if is_heavy else _AHEAD)
        while computing:
            stage_oldest()
        while pending:
            pending.popleft().result()


@contextlib.contextmanager
def _cancel_on_error(*executors: ThreadPoolExecutor) -> Iterator[None]:
    """If the block fails, cancel tasks that have not started."""
    try:
        yield
    except BaseException:
        for executor in executors:
            executor.shutdown(wait=False, cancel_futures=True)
        raise


@contextlib.contextmanager
def ahead(
    items: Iterable[T], size: int = _AHEAD, is_heavy: Callable[[T], bool] = lambda _: False
) -> Iterator[Iterator[T]]:
    """Read ``items`` in a thread, up to ``size`` ahead of the consumer; an error is raised in its place in the sequence.

    Behind one that ``is_heavy``, the next one is not begun before it is taken.
    """
    waiting: queue.Queue[tuple[str, Any]] = queue.Queue(size)
    stopped = threading.Event()
    arguments = (items, waiting, stopped, is_heavy)
    thread = threading.Thread(target=_feed, args=arguments, name="ahead", daemon=True)
    thread.start()
    try:
        yield _taken(waiting, thread)
    finally:
        stopped.set()
        thread.join(timeout=2)


def _feed(
    items: Iterable[T],
    waiting: queue.Queue[tuple[str, Any]],
    stopped: threading.Event,
    is_heavy: Callable[[T], bool],
) -> None:
    """Put every item, then the end or the error, until all are taken or ``stopped`` is set."""

    def offer(kind: str, value: Any) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put((kind, value), timeout=0.1)
                return

    try:
        for item in items:
            offer("item", item)
            while is_heavy(item) and not waiting.empty() and not stopped.is_set():
                time.sleep(_PAUSE)
            if stopped.is_set():
                return
            del item
        offer("end", None)
    except BaseException as error:  # noqa: BLE001 - raised again by the consumer
        offer("error", error)


def _taken(waiting: queue.Queue[tuple[str, Any]], thread: threading.Thread) -> Iterator[Any]:
    while True:
        is_alive = thread.is_alive()  # checked first: items put before it died are still taken
        try:
            kind, value = waiting.get(timeout=1)
        except queue.Empty:
            if is_alive:
                continue
            raise RuntimeError("the thread that reads ahead died without a word") from None
        if kind == "error":
            raise value
        if kind == "end":
            return
        yield value
        del value
