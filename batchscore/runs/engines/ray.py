"""Scoring processes on the nodes of a Ray cluster: that of ``RAY_ADDRESS``, or one on this machine for the length of the run.

Ray is spoken to in a process of its own, the *bridge*. A driver that loses its cluster is ended by Ray without a word, and Ray takes
signals for itself; here that befalls the bridge, and the run says what happened. An actor is one core or one GPU, as many as
the cluster has, or ``--workers``; none is ever restarted by Ray, since what a dead one had is handed out again
(:mod:`batchscore.runs.engines.dispatching`), and a new one takes its place as soon as there is room.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, NamedTuple

from batchscore.errors import BatchscoreError, BusyError, printable
from batchscore.runs.engines.channel import Child, ParentsEnd, sendable, tried
from batchscore.runs.engines.pool import MOST_AT_ONCE, Answered, Event, Failed, Gone, Up
from batchscore.system.cores import usable_cores

if TYPE_CHECKING:
    from batchscore.runs.shard_scoring import Recipe

_OBJECT_STORE = 256 * 2**20
"""Bytes for shards in flight if Ray is started here; a shard's texts are at most 64 MiB."""
_LOST_AFTER = 20
"""Seconds after which a head that does not answer is given up."""
_LOOK_EVERY = 5.0
"""Seconds between looks at what the cluster has."""
_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds between the death of an actor and another one; it doubles with each that dies before any is ready."""
_FETCH_SECONDS = 60
_CONNECT_SECONDS = 10
_HEAD = re.compile(r"(?P<host>[\w.-]+):(?P<port>\d+)")
_TICK = 0.05
_END_SECONDS = 3.0
"""For the bridge to take leave of Ray."""
_AT_ONCE = MOST_AT_ONCE + 1
"""Calls of an actor at a time: its shards, and a word between them."""
_AGAIN = "What was finished is kept: run the same command again when it is up."


class RayCluster:
    """The actors of a cluster, through the bridge; see :class:`~batchscore.runs.engines.pool.Pool`."""

    def __init__(self, recipe: Recipe, most: int | None, recorded: Mapping[str, Any]) -> None:
        """At most ``most`` actors, or as many as the cluster has cores or GPUs; ``recorded`` tells which, if it does."""
        environment = {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_gcs_rpc_server_reconnect_timeout_s": str(_LOST_AFTER),
        }
        self._bridge = Child("batchscore.runs.engines.ray:serve", environment, is_silent=True)
        self._shortage = ""
        self._bridge.send(recipe, most, dict(recorded))

    def events(self, seconds: float) -> Sequence[Event]:
        """See :class:`~batchscore.runs.engines.pool.Pool`.

        Raises:
            BusyError: there is no cluster, or it is gone.
        """
        if not wait([self._bridge.pipe], seconds):
            return []
        try:
            messages = self._bridge.received()
        except EOFError:
            raise BusyError(self._lost(self._bridge.end())) from None
        found: list[Event] = []
        for message in messages:
            match message:
                case ("event", event):
                    found.append(event)
                case ("shortage", text):
                    self._shortage = text
                case ("failed", error):
                    raise error
        return found

    def _lost(self, how: str) -> str:
        if self._shortage:
            return f"Ray's cluster is gone: its head, or its node on this machine, ended ({how}). {_AGAIN}"
        return f"{_cluster()} cannot be reached ({how}). {_AGAIN}"

    def get_ready(self, worker: int, recorded: Mapping[str, Any]) -> None:
        """See :class:`~batchscore.runs.engines.pool.Pool`."""
        self._bridge.send("get_ready", worker, dict(recorded))

    def submit(self, worker: int, task: int, payload: Any) -> None:
        """See :class:`~batchscore.runs.engines.pool.Pool`."""
        self._bridge.send("submit", worker, task, payload)

    def turn_away(self, worker: int) -> None:
        """See :class:`~batchscore.runs.engines.pool.Pool`."""
        self._bridge.send("turn_away", worker)

    def shortage(self) -> str:
        """See :class:`~batchscore.runs.engines.pool.Pool`."""
        return self._shortage or f"{_cluster()} has not answered yet"

    def close(self) -> None:
        """See :class:`~batchscore.runs.engines.pool.Pool`."""
        self._bridge.end(_END_SECONDS)


# -------------------------------------------------------------------------------------------------- in the bridge


def serve(parent: ParentsEnd) -> None:
    """The bridge: do what the parent asks of the actors, and tell it what they do, until it ends."""
    recipe, most, recorded = parent.receive() or (None, None, {})
    try:
        _connect(most)
        actors = _Actors(recipe, most, recorded)
    except Exception as error:  # noqa: BLE001 - raised by the parent
        parent.send("failed", _unreachable(error))
        return
    try:
        while True:
            while (message := parent.receive(0)) is not None:
                actors.do(*message)
            for event in actors.events(_TICK):
                parent.send("event", event)
            if (shortage := actors.news()) is not None:
                parent.send("shortage", shortage)
    except BatchscoreError as error:
        parent.send("failed", sendable(error))
    finally:
        _leave()


def _connect(most: int | None) -> None:
    """Connect to Ray, or start it here: on the loopback address, whatever else runs on this machine."""
    import ray

    address = os.environ.get("RAY_ADDRESS", "")
    if found := _HEAD.fullmatch(address):  # Ray tries for half a minute, and ends the process
        socket.create_connection((found["host"], int(found["port"])), _CONNECT_SECONDS).close()
    said: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if not address:
        said |= {
            "address": "local",
            "num_cpus": most or usable_cores(),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE,
            "_node_ip_address": "127.0.0.1",
        }  # told so, or a head that runs here already would refuse the numbers
    ray.init(**said)


def _leave() -> None:
    import ray

    with contextlib.suppress(Exception):
        ray.shutdown()


def _unreachable(error: Exception) -> Exception:
    """The error for a cluster that there is not."""
    if isinstance(error, BatchscoreError):
        return sendable(error)
    return BusyError(f"{_cluster()} cannot be reached ({printable(error)[:300]}). {_AGAIN}")


def _cluster() -> str:
    """What the cluster is called."""
    address = os.environ.get("RAY_ADDRESS")
    return f"Ray's cluster at {printable(address)} (RAY_ADDRESS)" if address else "Ray on this machine"


class _Actor(NamedTuple):
    handle: Any
    since: float


class _Actors:
    """The actors themselves, as many as there is room for."""

    def __init__(self, recipe: Recipe, most: int | None, recorded: Mapping[str, Any]) -> None:
        import ray

        self._ray: Any = ray
        self._most = most
        resources = self._ray.cluster_resources()
        asked = str(recorded.get("device") or recipe.wanted.compute.device)
        self._has_gpu = asked.startswith("cuda") or (asked == "auto" and resources.get("GPU", 0) >= 1)
        self._recipe = self._ray.put(_for_one(recipe, resources, has_gpu=self._has_gpu))
        self._class = self._ray.remote(ScoringActor).options(
            num_cpus=1,
            num_gpus=int(self._has_gpu),
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=_AT_ONCE,
            scheduling_strategy="SPREAD",
        )
        self._alive: dict[int, _Actor] = {}
        self._unused: list[Any] = []
        """Actors that were turned away: they keep their places, so that none is put there again."""
        self._asked: dict[Any, tuple[int, int | None, bool]] = {}
        """Reference to an answer → worker, task, and whether it only says that it is up."""
        self._last = 0
        self._not_before = self._looked = -_LOOK_EVERY
        self._pause = _PAUSE
        self._there = 0
        self._free: float = 0
        self._told = ""

    def do(self, what: str, worker: int, *arguments: Any) -> None:
        """What the parent asks of one of them, unless that is gone."""
        actor = self._alive.get(worker)
        if actor is None:
            return
        if what == "turn_away":
            self._forget(worker)
            self._unused.append(actor.handle)
        elif what == "get_ready":
            self._asked[actor.handle.get_ready.remote(*arguments)] = worker, None, False
        else:
            task, payload = arguments
            self._asked[actor.handle.score.remote(payload)] = worker, task, False

    def events(self, seconds: float) -> list[Event]:
        """What they did."""
        self._look()
        self._start()
        if not self._asked:
            time.sleep(seconds)
            return []
        references = list(self._asked)
        done, _ = self._ray.wait(references, num_returns=1, timeout=seconds)
        if done:
            done, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        return [event for each in done for event in self._event(each)]

    def _event(self, reference: Any) -> list[Event]:
        if reference not in self._asked:  # of one that is gone
            return []
        worker, task, is_up = self._asked.pop(reference)
        try:
            kind, value = self._ray.get(reference, timeout=_FETCH_SECONDS)
        except Exception as error:  # noqa: BLE001 - the actor, its node or what it answered is lost
            self._forget(worker, is_dead=True)
            return [Gone(worker, _reason(error))]
        if is_up:
            return [Up(worker)]
        if kind == "answer":
            self._pause = _PAUSE
        return [Answered(worker, task, value) if kind == "answer" else Failed(worker, task, value)]

    def _forget(self, worker: int, *, is_dead: bool = False) -> None:
        actor = self._alive.pop(worker)
        self._asked = {key: each for key, each in self._asked.items() if each[0] != worker}
        if is_dead:
            self._not_before = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            with contextlib.suppress(Exception):
                self._ray.kill(actor.handle)

    def _look(self) -> None:
        """See what the cluster has now."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        kind = "GPU" if self._has_gpu else "CPU"
        self._there = int(self._ray.cluster_resources().get(kind, 0))
        self._free = self._ray.available_resources().get(kind, 0)

    def _start(self) -> None:
        """Put actors where there is room; more than that only if so many were asked for, since a cluster may grow."""
        wanted = max(self._there, 1) if self._most is None else self._most
        if time.monotonic() < self._not_before:
            return
        while len(self._alive) + len(self._unused) < wanted:
            self._last += 1
            handle = self._class.remote(self._recipe)
            self._alive[self._last] = _Actor(handle, time.monotonic())
            self._asked[handle.is_up.remote()] = self._last, None, True

    def news(self) -> str | None:
        """What the cluster has, if that is not what was told."""
        kind = "GPU" if self._has_gpu else "CPU"
        text = (
            f"Ray's cluster has {self._there} {kind}{'s' * (self._there != 1)}, {self._free:g} of them free"
        )
        if asked := sum(is_up for _, _, is_up in self._asked.values()):
            text += (
                f"; {asked} scoring process{'es were' if asked > 1 else ' was'} asked of it, and not up yet"
            )
        if text == self._told:
            return None
        self._told = text
        return text


def _for_one(recipe: Recipe, resources: Mapping[str, float], *, has_gpu: bool) -> Recipe:
    """The recipe for a process with one core, or one GPU and its share of the cores."""
    compute = recipe.wanted.compute
    compute = dataclasses.replace(
        compute, device="cuda:0" if has_gpu else "cpu", workers=None if has_gpu else 1
    )
    cores = int(resources.get("CPU", 0) // max(resources.get("GPU", 0), 1)) if has_gpu else 1
    return dataclasses.replace(
        recipe, cores=cores, wanted=dataclasses.replace(recipe.wanted, compute=compute)
    )


def _reason(error: Exception) -> str:
    """The gist of what Ray says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {printable(' '.join(lines[:2]))[:250]}"


class ScoringActor:
    """A scoring process as a Ray actor; every answer is a pair as of :func:`~batchscore.runs.engines.channel.tried`."""

    def __init__(self, recipe: Recipe) -> None:
        from batchscore.runs.shard_scoring import ShardScoring

        self._kind, self._scoring = tried(lambda: ShardScoring(recipe))

    def is_up(self) -> tuple[str, Any]:
        """Answered once it is."""
        return "answer", None

    def get_ready(self, recorded: Mapping[str, Any]) -> tuple[str, Any]:
        """See :meth:`~batchscore.runs.shard_scoring.ShardScoring.get_ready`."""
        if self._kind == "failed":
            return "failed", self._scoring
        return tried(lambda: self._scoring.get_ready(recorded))

    def score(self, payload: Any) -> tuple[str, Any]:
        """What was staged, or the predictions."""
        return tried(lambda: self._scoring.begin(payload).result())
