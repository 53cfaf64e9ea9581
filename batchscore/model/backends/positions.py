"""Positions of tokens as encoders number them, and the buckets of their distances."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def offset_positions(input_ids: Tensor, pad_id: int) -> Tensor:
    """Positions as in fairseq, ``[b, L]`` int64: tokens are counted from ``pad_id + 1`` on, and ``pad_id`` has no number.

    >>> offset_positions(torch.tensor([[0, 7, 1, 7, 2, 1]]), 1).tolist()
    [[2, 3, 1, 4, 5, 1]]
    """
    counted = (input_ids != pad_id).long()
    return counted.cumsum(1) * counted + pad_id


_FURTHEST = 128
"""Tokens; those further away share a bucket."""


def relative_buckets(distance: Tensor, n: int) -> Tensor:
    """T5's buckets of distances (key's position less query's), int64: half of ``n`` for each direction, the nearest exact.

    Beyond ``n / 4`` they grow as the logarithm does.
    """
    half, exact = n // 2, n // 4
    steps = distance.abs()
    far = (steps.float() / exact).log() / math.log(_FURTHEST / exact) * (half - exact)
    far = (exact + far.long()).clamp(max=half - 1)
    return (distance > 0).long() * half + torch.where(steps < exact, steps, far)
