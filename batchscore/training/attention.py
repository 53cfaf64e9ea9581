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


class _MatmulAttention(torch.autograd.Function):
    """Queries, keys and values ``[b, L, 3, heads, d]`` and a mask ``[b, L]`` or None in, ``[b, L, heads, d]`` out.

    Masked keys are zeroed, so that their scores are 0, and neither their values nor their weights are added.
    """

    @staticmethod
    def forward(ctx: Any, heads: Tensor, mask: Tensor | None) -> Tensor:
        rows, length, _, n_heads, width = heads.shape
        by_part = heads.permute(2, 0, 3, 1, 4)
        queries_keys = by_part[:2].contiguous()
        if mask is not None:
            queries_keys[1].mul_(mask.to(heads.dtype)[:, None, :, None])
        queries, keys = queries_keys.flatten(1, 2)
        values = append_ones(by_part[2], mask)
        with torch.autocast("cpu", enabled=False):
            sums = weighted_sums(queries, keys, values).view(rows, n_heads, length, width + 1)
        attended = heads.new_empty(rows, length, n_heads, width)
        torch.div(sums[..., :width], sums[..., width:], out=attended.transpose(1, 2))
        ctx.save_for_backward(queries, keys, values, attended, sums[..., width].contiguous(), mask)
        return attended

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """With ``E = exp(Q K' / sqrt(d))``, its row sums s, output O and its gradient G.

        ``dV = E' (G / s)``, ``dS = E * ((G / s) V' - rowsum(G * O) / s)``; the second term is one more element of G, against
        the one that is appended to V.
        """
        queries, keys, values, attended, sums, mask = ctx.saved_tensors
        rows, length, n_heads, width = attended.shape
        inverse, scale = sums.reciprocal(), 1 / math.sqrt(width)
        longer = sums.new_empty(rows, n_heads, length, width + 1)
        torch.mul(gradients[0].transpose(1, 2), inverse[..., None], out=longer[..., :width])
        row_sums = (gradients[0] * attended).sum(-1).transpose(1, 2)
        torch.mul(row_sums, inverse, out=longer[..., width]).neg_()
        longer = longer.view(-1, length, width + 1)
        gradient, no_bias = longer[..., :width].contiguous(), sums.new_zeros(1, 1, 1)
        grads = sums.new_empty(3, len(queries), length, width)
        with torch.autocast("cpu", enabled=False):
            for some in tiles(len(queries), length, queries.element_size()):
                keys_here = keys[some].transpose(1, 2)
                weights = torch.baddbmm(no_bias, queries[some], keys_here, beta=0, alpha=scale).exp_()
                torch.bmm(weights.transpose(1, 2), gradient[some], out=grads[2][some])
                weights *= torch.bmm(longer[some], values[some].transpose(1, 2))
                torch.bmm(weights, keys[some], out=grads[0][some])
                torch.bmm(weights.transpose(1, 2), queries[some], out=grads[1][some])
        grads[:2].mul_(scale)
        by_part = grads.view(3, rows, n_heads, length, width)
        if mask is not None:
            by_part[1:].mul_(mask.to(grads.dtype)[:, None, :, None])
        return by_part.permute(1, 3, 0, 2, 4).contiguous(), None


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
    heads = torch.stack([query, key, value]).permute(1, 3, 0, 2, 4)
    return attention_by_heads(heads, mask, fused), None


def attention_by_heads(heads: Tensor, mask: Tensor | None, fused: Callable[..., Tensor]) -> Tensor:
    """Attention of queries, keys and values ``[b, L, 3, heads, d]`` in bfloat16: ``[b, L, heads, d]``.

    ``fused`` computes it for heads with large scores, from query, key and value ``[b, heads, L, d]``.
    """
    is_small = has_small_scores(*heads.detach().permute(2, 0, 3, 1, 4)[:2])
    small_heads, large_heads = (each.nonzero().flatten() for each in (is_small, ~is_small))
    if not len(large_heads):
        return _matmul_attention(heads, mask)
    if not len(small_heads):
        return fused(*_parts(heads))
    attended = [
        _matmul_attention(heads[:, :, :, small_heads], mask),
        fused(*_parts(heads[:, :, :, large_heads])),
    ]
    return torch.cat(attended, dim=2)[:, :, torch.cat([small_heads, large_heads]).argsort()]


def _parts(heads: Tensor) -> tuple[Tensor, ...]:
    return heads.permute(2, 0, 3, 1, 4).unbind()


def _matmul_attention(heads: Tensor, mask: Tensor | None) -> Tensor:
    attended: Tensor = _MatmulAttention.apply(heads, mask)  # type: ignore[no-untyped-call]
    return attended


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
