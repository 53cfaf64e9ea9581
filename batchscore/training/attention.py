"""Attention of a training on a CPU in bfloat16: forwards and backwards as products of matrices.

torch's fused kernel computes in float32 on the inside and took a third of a step; this one, tile by tile as in
:mod:`batchscore.model.backends.packed`, a third of that. Weights are not kept for the way back: they are computed again. Where scores may be large,
in float32, and elsewhere than on a CPU, torch's own kernel goes on doing it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from batchscore.model.backends.architectures import architecture_of
from batchscore.model.backends.packed import append_ones, has_small_scores, tiles, weighted_sums

if TYPE_CHECKING:
    from torch import Tensor

NAME = "batchscore_products"
"""What ``attn_implementation`` is while it is in use."""
_NEVER = -1e4
"""A score whose exponential is 0."""


class _Attended(torch.autograd.Function):
    """Query, key and value ``[b, heads, L, d]`` and a mask ``[b, L]`` or None in, ``[b, heads, L, d]`` out."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        width = query.shape[-1]
        queries, keys = (each.flatten(0, 1).contiguous() for each in (query, key))
        values = append_ones(value, mask)
        with torch.autocast("cpu", enabled=False):
            sums = weighted_sums(queries, keys, values)
        attended = sums[..., :width] / sums[..., width:]
        ctx.save_for_backward(queries, keys, values, attended, sums[..., width:], mask)
        return attended.view(query.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """With weights P, outputs O and G the gradient of O: ``dV = P' G``, ``dS = P * (G V' - rowsum(G * O))``."""
        queries, keys, values, attended, sums, mask = ctx.saved_tensors
        shape, length, width = gradients[0].shape, queries.shape[1], queries.shape[2]
        scale = 1 / math.sqrt(width)
        gradient = gradients[0].flatten(0, 1).contiguous()
        shares = -(gradient * attended).sum(-1, keepdim=True)
        bias = queries.new_zeros(1, 1, 1).expand(len(queries), 1, 1)
        if mask is not None:
            bias = ((1 - mask.to(queries.dtype)) * _NEVER).repeat_interleave(shape[1], 0)[:, None, :]
        back = [torch.empty_like(queries) for _ in range(3)]
        with torch.autocast("cpu", enabled=False):
            for some in tiles(len(queries), length, queries.element_size()):
                weights = torch.baddbmm(bias[some], queries[some], keys[some].transpose(1, 2), alpha=scale)
                weights = weights.exp_().div_(sums[some])
                torch.bmm(weights.transpose(1, 2), gradient[some], out=back[2][some])
                of_values = values[some][..., :width].transpose(1, 2)
                weights *= torch.baddbmm(shares[some], gradient[some], of_values)
                torch.bmm(weights, keys[some], out=back[0][some])
                torch.bmm(weights.transpose(1, 2), queries[some], out=back[1][some])
        return back[0].mul_(scale).view(shape), back[1].mul_(scale).view(shape), back[2].view(shape), None


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: ``[b, heads, L, d]`` three times in, ``[b, L, heads, d]`` out."""
    is_ours = (
        query.dtype == torch.bfloat16
        and query.device.type == "cpu"
        and query.shape == key.shape == value.shape
        and not dropout
        and (attention_mask is None or attention_mask.shape[1] == 1)
    )
    is_small = has_small_scores(query.detach(), key.detach()) if is_ours else torch.zeros(query.shape[1])
    ours, theirs = (heads.nonzero().flatten() for heads in (is_small, is_small == 0))
    by_products = partial(_by_products, None if attention_mask is None else attention_mask[:, 0, 0])

    def by_torch(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        fused = sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, **options)
        attended: Tensor = fused[0]
        return attended

    if not len(theirs):
        return by_products(query, key, value), None
    if not len(ours):
        return by_torch(query, key, value), None
    attended = [
        by_products(*(each[:, ours] for each in (query, key, value))),
        by_torch(*(each[:, theirs] for each in (query, key, value))),
    ]
    return torch.cat(attended, dim=2)[:, :, torch.cat([ours, theirs]).argsort()], None


def _by_products(mask: Tensor | None, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attended: Tensor = _Attended.apply(query, key, value, mask)  # type: ignore[no-untyped-call]
    return attended.transpose(1, 2)


@contextlib.contextmanager
def attention_by_products(model: Any) -> Iterator[None]:
    """Have a model use it inside the block, if it is of an architecture whose tokens all look at all others."""
    before = model.config._attn_implementation
    if before != "sdpa" or architecture_of(model.config.model_type).layers is None:
        yield
        return
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
