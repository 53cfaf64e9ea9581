"""In which order rows are trained on: a function of seed and epoch alone, so that a resumed training takes the same."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCHES = 50
"""Batches whose rows are sorted by length together, as transformers' ``LengthGroupedSampler`` does it."""


def epoch_order(n_rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The rows of an epoch, at random."""
    return np.random.default_rng([seed, epoch]).permutation(n_rows)


def grouped_by_length(
    lengths: Sequence[int] | NDArray[np.integer], batch_size: int, seed: int, epoch: int
) -> NDArray[np.int64]:
    """The same with batches of rows of like length: pools of 50 batches are sorted, and the batches shuffled.

    The longest row's batch comes first, so that memory that is too small shows at once; a batch that is not full comes
    last.
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


def draw_seed(seed: int, step: int) -> int:
    """What the dropout of a step is drawn from: 32 bits, as many as torch's generator takes on a CPU."""
    return zlib.crc32(f"{seed} {step}".encode())
