"""Attention for training on a CPU in bfloat16: forward and backward as matmuls.

torch's fused kernel computes in float32 internally and took a third of a step; this one, tiled as in
:mod:`batchscore.model.backends.packed`, takes a third of that. Attention weights are recomputed in the backward pass. Heads
with large scores, float32, and other devices use torch's kernel.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
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
"""The value of ``attn_implementation`` while it is in use."""
_MASKED = -1e4
"""A masked score; its exponential is 0."""


class _MatmulAttention(torch.autograd.Function):
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
        """With attention weights P, output O and its gradient G: ``dV = P' G``, ``dS = P * (G V' - rowsum(G * O))``."""
        queries, keys, values, attended, sums, mask = ctx.saved_tensors
        shape, length, width = gradients[0].shape, queries.shape[1], queries.shape[2]
        scale = 1 / math.sqrt(width)
        gradient = gradients[0].flatten(0, 1).contiguous()
        row_sums = -(gradient * attended).sum(-1, keepdim=True)
        bias = queries.new_zeros(1, 1, 1).expand(len(queries), 1, 1)
        if mask is not None:
            bias = ((1 - mask.to(queries.dtype)) * _MASKED).repeat_interleave(shape[1], 0)[:, None, :]
        grads = [torch.empty_like(queries) for _ in range(3)]
        with torch.autocast("cpu", enabled=False):
            for some in tiles(len(queries), length, queries.element_size()):
                weights = torch.baddbmm(bias[some], queries[some], keys[some].transpose(1, 2), alpha=scale)
                weights = weights.exp_().div_(sums[some])
                torch.bmm(weights.transpose(1, 2), gradient[some], out=grads[2][some])
                transposed = values[some][..., :width].transpose(1, 2)
                weights *= torch.baddbmm(row_sums[some], gradient[some], transposed)
                torch.bmm(weights, keys[some], out=grads[0][some])
                torch.bmm(weights.transpose(1, 2), queries[some], out=grads[1][some])
        return grads[0].mul_(scale).view(shape), grads[1].mul_(scale).view(shape), grads[2].view(shape), None


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls: query, key and value ``[b, heads, L, d]`` in, ``[b, L, heads, d]`` out."""
    is_supported = (
        query.dtype == torch.bfloat16
        and query.device.type == "cpu"
        and query.shape == key.shape == value.shape
        and not dropout
        and (attention_mask is None or attention_mask.shape[1] == 1)
    )

    def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, **options)
        attended: Tensor = output[0]
        return attended

    if not is_supported:
        return fused(query, key, value), None
    mask = None if attention_mask is None else attention_mask[:, 0, 0]
    return attention_by_heads(query, key, value, mask, fused), None


def attention_by_heads(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, fused: Callable[..., Tensor]
) -> Tensor:
    """Attention of bfloat16 query, key and value ``[b, heads, L, d]``: ``[b, L, heads, d]``; ``fused`` computes heads with large scores."""
    is_small = has_small_scores(query.detach(), key.detach())
    small_heads, large_heads = (heads.nonzero().flatten() for heads in (is_small, ~is_small))
    if not len(large_heads):
        return _matmul_attention(mask, query, key, value)
    if not len(small_heads):
        return fused(query, key, value)
    attended = [
        _matmul_attention(mask, *(each[:, small_heads] for each in (query, key, value))),
        fused(*(each[:, large_heads] for each in (query, key, value))),
    ]
    return torch.cat(attended, dim=2)[:, :, torch.cat([small_heads, large_heads]).argsort()]


def _matmul_attention(mask: Tensor | None, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attended: Tensor = _MatmulAttention.apply(query, key, value, mask)  # type: ignore[no-untyped-call]
    return attended.transpose(1, 2)


@contextlib.contextmanager
def matmul_attention(model: Any) -> Iterator[None]:
    """Use it in a model inside the block, if the architecture has full bidirectional attention."""
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
