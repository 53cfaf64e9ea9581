"""The order of training rows: a function of seed and epoch alone, so that a resumed training has the same."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.records import Text

_BATCHES = 50
"""Batches whose rows are sorted by length together, as transformers' ``LengthGroupedSampler`` does it."""


def epoch_order(n_rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The rows of an epoch in random order."""
    return np.random.default_rng([seed, epoch]).permutation(n_rows)


def grouped_by_length(
    lengths: Sequence[int] | NDArray[np.integer], batch_size: int, seed: int, epoch: int
) -> NDArray[np.int64]:
    """The same with batches of similar length: pools of 50 batches are sorted by length, and the batches shuffled.

    The batch with the longest row comes first, so that lack of memory shows at once; an incomplete batch comes last.
    """
    order = epoch_order(len(lengths), seed, epoch)
    sizes = np.asarray(lengths)
    pool = batch_size * _BATCHES
    pools = [order[start : start + pool] for start in range(0, len(order), pool)]
    sorted_rows = np.concatenate([each[np.argsort(-sizes[each], kind="stable")] for each in pools])
    full = len(sorted_rows) // batch_size * batch_size
    batches = sorted_rows[:full].reshape(-1, batch_size)
    shuffled = np.random.default_rng([seed, epoch, 1]).permutation(len(batches))
    if len(batches):
        longest = int(sizes[batches].max(axis=1).argmax())
        shuffled = np.concatenate([[longest], shuffled[shuffled != longest]])
    return np.concatenate([batches[shuffled].reshape(-1), sorted_rows[full:]]).astype(np.int64)


def step_seed(seed: int, step: int) -> int:
    """The seed of a step's dropout: 32 bits, as many as torch's CPU generator takes."""
    return zlib.crc32(f"{seed} {step}".encode())


def spread(texts: list[Text], n: int) -> list[Text]:
    """At most ``n`` texts, evenly from first to last."""
    return [texts[k * len(texts) // n] for k in range(n)] if len(texts) > n else texts
