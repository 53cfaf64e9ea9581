"""What a run would take, for ``--dry-run``: tokens from a sample of its rows, seconds and memory from scoring some of them.

The sample is from parts all over the run. Its texts are tokenised as in a run, and micro-batches of them are computed for a few
seconds, one at a time: that is the rate of one worker. Workers are taken to add up, as they do where each has a core or a
device of its own; reading and finishing, which do not get faster by them, are taken from what was measured once.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from batchscore.model import batching
from batchscore.model.loading import Models, ModelSettings
from batchscore.model.scoring import Prepared, prepare
from batchscore.records import Part
from batchscore.runs.planning import Plan, read_parts
from batchscore.system.cores import usable_cores
from batchscore.system.memory import most_used

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings
    from batchscore.model.bundle import Bundle
    from batchscore.model.scoring import Model
    from batchscore.records import GivenText

T = TypeVar("T")

_PARTS = 8
_TEXTS_A_PART = 64
_SECONDS = 3.0
"""For which micro-batches are computed, unless there are fewer."""
_END_SECONDS = 60e-6
"""A row, for reading it again and for finishing: measured on reviews of 1,300 bytes."""
_NEAR_BYTES = 32 << 20
"""So far a compressed file is unpacked to get at a part of it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would take. Everything but ``rows`` is an estimate."""

    rows: int
    sampled: int
    """Rows that were tokenised."""
    tokens: int
    """Tokens that the model would be given, padding not counted."""
    device: str
    workers: int
    """Workers that this machine has a core or a turn on its device for."""
    asked: int | None
    """The number that ``--workers`` asked for."""
    plan_seconds: float
    """For what was done now, and is done first by a run as well."""
    worker_seconds: float
    """For the model, with one worker."""
    memory: int
    """Bytes that this process has used at most, the model included."""

    def seconds(self, workers: int | None = None) -> float:
        """Seconds of a run with so many workers; None: those of this machine."""
        return self.plan_seconds + self.worker_seconds / (workers or self.workers) + self.rows * _END_SECONDS

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "rows": self.rows,
            "sampled_rows": self.sampled,
            "tokens": self.tokens,
            "device": self.device,
            "workers": self.workers,
            "seconds": self._round(None),
            "asked_workers": self.asked,
            "asked_seconds": self._round(self.asked),
            "memory_bytes": self.memory,
        }

    def _round(self, workers: int | None) -> float:
        return round(self.seconds(workers), 1)


def forecast(
    plan: Plan, bundle: Bundle, settings: ScoreSettings, models: Models, plan_seconds: float
) -> Forecast | None:
    """What the run of a plan would take; None without a row, or if its model is not to be loaded on this machine.

    Raises:
        BatchscoreError: the model cannot be used, or an input changed since it was planned.
    """
    if not plan.rows or settings.engine != "local":
        return None
    started = time.monotonic()
    model, compute = models.load(bundle, ModelSettings.of(settings, bundle), {})
    model = model.with_inference(max_batch_tokens=compute["max_batch_tokens"])
    loading = time.monotonic() - started
    texts = sample(plan, settings)
    prepared = prepare(texts, model)
    seconds = _seconds_of(prepared, model)
    share = plan.rows / max(len(texts), 1)
    return Forecast(
        rows=plan.rows,
        sampled=len(texts),
        tokens=round(_tokens_of(prepared) * share),
        device=model.backend.device,
        workers=min(model.workers, usable_cores()) if model.backend.device == "cpu" else model.workers,
        asked=settings.compute.workers,
        plan_seconds=plan_seconds + loading,
        worker_seconds=seconds * share,
        memory=most_used(),
    )


def _tokens_of(prepared: Prepared) -> int:
    """Tokens of the sequences of all rows, cut as they are for the model."""
    encodings = prepared.encodings
    lengths = [len(ids) for ids in encodings.input_ids]
    by_text = np.bincount(encodings.row, lengths, minlength=len(encodings.n_tokens))
    return int(by_text[prepared.unique[prepared.unique >= 0]].sum())


def sample(plan: Plan, settings: ScoreSettings) -> list[GivenText]:
    """Texts from parts all over a run, the same ones each time."""
    texts: list[GivenText] = []
    for part in _spread(_near(plan), _PARTS):
        ((_, rows),) = read_parts(plan, [part], settings.read)
        texts += _spread(rows.given_texts, _TEXTS_A_PART)
    return texts


def _near(plan: Plan) -> list[Part]:
    """Parts that can be read without unpacking much before them."""
    return [
        part
        for part in plan.parts
        if not plan.files[part.file].compression or part.start.offset <= _NEAR_BYTES
    ]


def _spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many items, from first to last."""
    places = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).astype(int))
    return [items[place] for place in places]


def _seconds_of(prepared: Prepared, model: Model, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds in which one worker scores what is prepared; it is all computed, or as much as a few seconds allow."""
    encodings = prepared.encodings
    plan = batching.plan_sequences(encodings.input_ids, model.inference.max_batch_tokens, model.padding)
    if not plan:
        return 0.0
    costs = [sum(len(encodings.input_ids[k]) for k in chosen) for chosen in plan]
    order = list(range(len(plan)))
    random.Random(0).shuffle(order)  # noqa: S311 - long and short ones alike
    batches = _assembled(order, plan, prepared, model)
    model.backend.logits(next(_assembled(order, plan, prepared, model)))  # warm-up
    started, done = clock(), 0
    for place, batch in zip(order, batches, strict=True):
        model.backend.logits(batch)
        done += costs[place]
        if clock() - started >= _SECONDS:
            break
    return (clock() - started) * sum(costs) / max(done, 1)


def _assembled(order: Sequence[int], plan: Sequence[Any], prepared: Prepared, model: Model) -> Iterator[Any]:
    encodings = prepared.encodings
    for place in order:
        yield batching.assemble(encodings.input_ids, plan[place], model.padding, encodings.token_type_ids)
