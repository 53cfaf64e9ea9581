"""Shards on the actors of a Ray cluster: that of ``RAY_ADDRESS``, or one on this machine for the length of the run.

Reading, staging and the journal stay in this process, so a run is resumed like any other. Texts go to an actor and
predictions come back, a shard at a time; each actor has a model of its own and computes on one core, or one GPU. Answers
equal those of the local engine if the machines are of the same kind.

An actor that dies (its node is lost, its memory runs out) is restarted with the shard it had, at most three times.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.errors import ModelError, StorageError, printable
from batchscore.model.backends import BackendSpec
from batchscore.model.bundle import open_bundle
from batchscore.model.scoring import InferenceSettings, Model, Watcher, score_parts
from batchscore.model.tokenization import Tokenizer
from batchscore.records import Predictions, Rows, Shard

if TYPE_CHECKING:
    from batchscore.model.bundle import Bundle
    from batchscore.records import GivenText

_STARTS = 3
_OBJECT_STORE = 256 * 2**20
"""Bytes for parts in flight if Ray is started here; a part's texts are at most 64 MiB."""


def run(
    shards: Iterable[tuple[Shard, Sequence[Rows]]],
    model: Model,
    sink: Callable[[Shard, Sequence[Rows], Sequence[Predictions]], None],
    _watch: Callable[[Shard], Watcher],
) -> None:
    """Score ``shards`` and call ``sink`` with each, in order; see :func:`batchscore.runs.engines.local.run`.

    Nothing is heard of a shard before its actor has scored it all, so micro-batches are not watched.

    Raises:
        ModelError: the model on an actor's machine is missing or differs from the one here.
        StorageError: actors died repeatedly.
    """
    import ray

    with _connected(model.workers):
        remote = ray.remote(num_cpus=1, num_gpus=int(model.backend.device != "cpu"), max_restarts=_STARTS)
        actors: list[Any] = [remote(ScoringActor).remote(*_recipe(model)) for _ in range(model.workers)]
        in_flight: collections.deque[tuple[Shard, Sequence[Rows], Any]] = collections.deque()
        try:
            for number, (shard, rows) in enumerate(shards):
                task = actors[number % len(actors)].score.options(max_task_retries=_STARTS)
                in_flight.append((shard, rows, task.remote([list(each.given_texts) for each in rows])))
                if len(in_flight) > 2 * len(actors):  # per actor one shard in computation and one waiting
                    _deliver_oldest(in_flight, sink)
            while in_flight:
                _deliver_oldest(in_flight, sink)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise StorageError(
                f"Ray could not score on ({printable(error)[:300]}). See to its nodes and run the same command again: "
                "what was finished is kept."
            ) from error
        finally:
            for actor in actors:
                ray.kill(actor)


def _deliver_oldest(
    in_flight: collections.deque[tuple[Shard, Sequence[Rows], Any]], sink: Callable[..., None]
) -> None:
    import ray

    shard, rows, answer = in_flight.popleft()
    sink(shard, rows, ray.get(answer))


@contextlib.contextmanager
def _connected(workers: int) -> Iterator[None]:
    """Connect to Ray, or start it here: on the loopback address, without usage statistics."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    own: dict[str, Any] = {
        "num_cpus": workers,
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE,
        "_node_ip_address": "127.0.0.1",
    }
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    ray.init(
        log_to_driver=False, logging_level=logging.ERROR, **({} if os.environ.get("RAY_ADDRESS") else own)
    )
    with contextlib.suppress(ValueError, TypeError):  # not the main thread, or a handler that is not Python's
        for number, handler in handlers.items():  # Ray replaces them
            signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _recipe(model: Model) -> tuple[Bundle, BackendSpec, InferenceSettings]:
    """Everything an actor needs to make the same model."""
    return model.bundle, BackendSpec.of(model.backend), model.inference


class ScoringActor:
    """A model in a Ray actor."""

    def __init__(self, bundle: Bundle, spec: BackendSpec, inference: InferenceSettings) -> None:
        self._problem = ""
        try:
            here = open_bundle(str(Path(bundle.path).absolute()))
            if here.fingerprint == bundle.fingerprint:
                self._model = Model(bundle, Tokenizer(bundle), spec.open(bundle), inference)
                here.refuse_changed()
                return
        except ModelError:
            pass
        self._problem = f"{printable(bundle.path)} is not the same model on a machine of Ray's"

    def score(self, parts: Sequence[Sequence[GivenText]]) -> list[Predictions]:
        """The predictions of the texts, or pairs of texts, of each part of a shard.

        Raises:
            ModelError: the model's folder differs from the one where the run was started.
        """
        if self._problem:
            raise ModelError(f"{self._problem}. Put the folder there under the same path.")
        with self._model.backend.one_core_each():
            return score_parts(parts, self._model)
