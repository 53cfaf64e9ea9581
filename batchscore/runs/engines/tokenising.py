"""Shards made ready for the device, in order: by the thread that reads, or by several beside it.

Where the cores are the device, tokenising takes turns with it: the thread that reads tokenises too, as it has a few per cent of the
work. A GPU wants more texts than one core can tokenise. The library ``tokenizers`` holds no lock of Python's while it works,
so threads are enough, each with a shard of its own; a text's tokens do not depend on who makes them.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from batchscore.model import scoring
from batchscore.model.scoring import Model
from batchscore.records import Rows, Shard

_HEAVY = 16 << 20
"""Bytes; of shards that hold as much there is one in each queue."""


class Ready(NamedTuple):
    """A shard ready for the device, with the rows of its parts, without what there is to score of them."""

    shard: Shard
    rows: list[Rows]
    prepared: scoring.Prepared

    @property
    def is_heavy(self) -> bool:
        """Whether there should be one of it in each queue."""
        return _weight(self.rows) >= _HEAVY


def made_ready(shards: Iterable[tuple[Shard, Sequence[Rows]]], model: Model) -> Iterator[Ready]:
    """The shards, in order, tokenised here, or by the ``tokenisers`` of the model while the next ones are read."""
    if model.tokenisers:
        yield from _by_threads(shards, model)
        return
    for shard, rows in shards:
        prepared = _prepared(rows, model)
        light = _without_texts(rows)
        del rows
        yield Ready(shard, light, prepared)
        del light, prepared


def _by_threads(shards: Iterable[tuple[Shard, Sequence[Rows]]], model: Model) -> Iterator[Ready]:
    """One more shard is read than threads tokenise; fewer, if they hold many bytes."""
    waiting: collections.deque[tuple[Shard, list[Rows], Future[scoring.Prepared]]] = collections.deque()
    pool = ThreadPoolExecutor(model.tokenisers, "tokenise")

    def oldest() -> Ready:
        shard, rows, prepared = waiting.popleft()
        return Ready(shard, rows, prepared.result())

    try:
        for shard, rows in shards:
            waiting.append((shard, _without_texts(rows), pool.submit(_prepared, rows, model)))
            del rows
            while len(waiting) > model.tokenisers or (waiting and _weight_of(waiting) >= _HEAVY):
                yield oldest()
        while waiting:
            yield oldest()
    finally:  # whoever stops early waits for nobody
        pool.shutdown(wait=False, cancel_futures=True)


def _prepared(rows: Sequence[Rows], model: Model) -> scoring.Prepared:
    return scoring.prepare_parts([each.given_texts for each in rows], model)


def _without_texts(rows: Sequence[Rows]) -> list[Rows]:
    return [each.without_texts() for each in rows]


def _weight(rows: Sequence[Rows]) -> int:
    return sum(each.weight for each in rows)


def _weight_of(waiting: Iterable[tuple[Shard, list[Rows], Future[scoring.Prepared]]]) -> int:
    return sum(_weight(rows) for _, rows, _ in waiting)
