"""A review that is open: the run, its index and its verdicts."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchscore.reviewing.index import Recipe, build, mark_of
from batchscore.reviewing.judging import estimates
from batchscore.reviewing.named_rows import keys_in
from batchscore.reviewing.queue import Filter, ReviewQueue
from batchscore.reviewing.run_rows import ReviewedRun, open_run
from batchscore.reviewing.store import DRAWN, VerdictStore, open_store

UNSURE_BELOW = 0.8
N_DRAWN = 200


@dataclasses.dataclass(frozen=True, slots=True)
class ReviewSettings:
    """Settings of one review."""

    run: Path
    unsure_below: float = UNSURE_BELOW
    """A row whose prediction is less likely than this is for review, whatever it was given."""
    n_drawn: int = N_DRAWN
    """Rows drawn at random that are shown."""
    is_blind: bool = False
    """Whether rows drawn at random are shown without their labels, so that these sway nobody."""
    suggested: Path | None = None
    """A file of rows that are for review, in the place of mismatches and unsure rows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Review:
    """An open review."""

    settings: ReviewSettings
    run: ReviewedRun
    store: VerdictStore
    queue: ReviewQueue

    def summary(self) -> dict[str, Any]:
        """Counts and estimates, as JSON values."""
        return {
            "rows": self.queue.counts(Filter()),
            "drawn": self.queue.counts(Filter(tab=DRAWN)),
            "mismatches": self.queue.facts["mismatches"],
            "verdicts": self.store.counts(),
            "true_accuracy": estimates(self.queue),
        }


@contextlib.contextmanager
def opened(settings: ReviewSettings) -> Iterator[Review]:
    """Open a review for the block: read the run, unless that was done before.

    Raises:
        BatchscoreError: the run, or what was kept of its review, cannot be used.
    """
    run = open_run(settings.run)
    store = open_store(run, secrets.randbits(48))
    try:
        suggested = None if settings.suggested is None else keys_in(run, settings.suggested)
        recipe = Recipe(run.mark, store.seed, settings.unsure_below, mark_of(suggested))
        index = build(run, recipe, suggested)
        queue = ReviewQueue(run, index, store, settings.n_drawn)
        try:
            yield Review(settings, run, store, queue)
        finally:
            queue.close()
    finally:
        store.close()
