"""An encoder for one CPU core: linear layers prepacked for oneDNN, attention as matmuls.

Three things make it about 1.5 times as fast as torch's own kernels (MiniLM-L6, bfloat16, a core with AVX-512 and bfloat16
matmuls; twice in float32):

1. Weights are prepacked in oneDNN's layout, and bias, activation and residual are fused into the kernel. In float32 torch
   would use MKL, which on CPUs of other makers uses half the vector width: 106 against 253 GFLOP/s on one core of an AMD
   EPYC with AVX-512.
2. torch's fused attention computes in float32 internally: bfloat16 was no faster. Here scores are bfloat16 matmuls, over as
   many heads at a time as fit the core's cache. Softmax skips the pass for the maximum, and divides by the sum after the
   second matmul.
3. The last layer and the head, which need one token per row, are in float32 at no cost.

Rows laid end to end without padding, attention row by row, are not worth other bits: with 1.3 % of padding forward passes
took 1.5 % less time in float32 (MiniLM-L6, seven micro-batches of reviews, one core with AVX2).

The operations are those that torch's compiler emits (``torch.ops.mkldnn``). They are checked once against the public ones;
if they are missing or differ, :func:`pack` does not use them.
"""

from __future__ import annotations

import functools
import math
import pkgutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from batchscore.model.backends.encoders import (
    ACTIVATIONS,
    Encoder,
    Loadable,
    Runnable,
    score_bias,
    split_heads,
)
from batchscore.system.allocator import keep_freed_memory

_OPS: Any = torch.ops.mkldnn
_ROWS = 2048
"""Tokens that a weight is packed for; any number works."""
_TILE_BYTES = 1 << 20
"""Attention scores computed at a time: the size of a core's L2 cache (0.5 to 4 MiB differed by 2 %)."""
_BLOCK_ROWS = 8
"""Rows of a micro-batch that :func:`in_blocks` computes at a time; a micro-batch of reviews has 4 to 10."""
_MAX_SCORE = 60.0
"""Exponentials of scores within plus and minus this can be summed and multiplied in bfloat16: e^60 is 1e26, the range ends at
3e38."""


def pack(encoder: Loadable, dtype: torch.dtype) -> Runnable:
    """Prepare an encoder with float32 weights to compute in ``dtype`` on a CPU: its ``packed`` class.

    If oneDNN cannot, the encoder is only cast to ``dtype``.
    """
    keep_freed_memory()
    if not _is_usable(dtype):
        return encoder.to(dtype)
    packed: Runnable = pkgutil.resolve_name(encoder.packed)(encoder, dtype)
    return packed


@functools.cache
def _is_usable(dtype: torch.dtype) -> bool:
    """Whether packed matmuls exist for this dtype and agree with the public ones."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        if dtype == torch.bfloat16 and not _OPS._is_mkldnn_bf16_supported():
            return False
        states, weight, bias = torch.linspace(-1, 1, 2048).view(1, 64, 32), torch.eye(48, 32), torch.ones(48)
        linear = Linear(weight, bias, dtype)
        expected = functional.linear(states, weight, bias)
        found = [
            linear.plus(states.to(dtype), expected.to(dtype)).float() / 2,
            linear(states.to(dtype)).float(),
            linear.times(states.to(dtype), torch.full_like(expected, 2, dtype=dtype)).float() / 2,
            Linear(weight, None, dtype)(states.to(dtype)).float() + bias,
        ]
        found += [linear(states.to(dtype), name).float() for name in ACTIVATIONS]
    except (AttributeError, RuntimeError, TypeError):
        return False
    wanted = [*[expected] * 4, *(activation(expected) for activation in ACTIVATIONS.values())]
    return all(torch.allclose(one, other, atol=0.02) for one, other in zip(found, wanted, strict=True))


_FUSED = {
    "none": ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
    "swish": ("swish", ""),
}
"""oneDNN's name and algorithm of each of ``ACTIVATIONS``."""


_APART: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": torch.ops.aten.gelu_,
    "gelu_new": functools.partial(torch.ops.aten.gelu_, approximate="tanh"),
    "gelu_pytorch_tanh": functools.partial(torch.ops.aten.gelu_, approximate="tanh"),
    "silu": functools.partial(functional.silu, inplace=True),
    "swish": functools.partial(functional.silu, inplace=True),
}
"""Activations that are faster after the kernel than inside it on a CPU without AVX-512: 43 against 51 ms for 2,048 tokens
from 384 to 1,536 in float32, 150 against 184 ms from 768 to 3,072, with the same bits (one core of an AMD EPYC with AVX2)."""


@functools.cache
def _is_without_avx512() -> bool:
    return "AVX512" not in torch.backends.cpu.get_cpu_capability()


class Linear:
    """A linear layer with a packed weight; residual and activation are fused in, where that is faster."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self._weight = _OPS._reorder_linear_weight(weight.detach().to(dtype).contiguous(), _ROWS)
        self._bias = (
            None if bias is None else bias.detach().to(dtype).contiguous()
        )  # oneDNN is not told of strides
        self._apart = _APART if _is_without_avx512() else {}

    def __call__(self, states: Tensor, activation: str = "none") -> Tensor:
        """The activation, one of ``ACTIVATIONS``, of the linear layer's output."""
        apart = self._apart.get(activation)
        name, algorithm = _FUSED["none" if apart else activation]
        result: Tensor = _OPS._linear_pointwise(states, self._weight, self._bias, name, [], algorithm)
        return apart(result) if apart else result

    def plus(self, states: Tensor, residual: Tensor) -> Tensor:
        """The linear layer's output and the residual added."""
        result: Tensor = _OPS._linear_pointwise.binary(states, residual, self._weight, self._bias, "add")
        return result

    def times(self, states: Tensor, factor: Tensor) -> Tensor:
        """The linear layer's output multiplied by the factor, element by element."""
        result: Tensor = _OPS._linear_pointwise.binary(states, factor, self._weight, self._bias, "mul")
        return result


class PackedEncoder:
    """Token ids and mask ``[b, L]`` int64 in, logits ``[b, C]`` float32 out; no mask means no padding.

    It takes over the layers of ``encoder``, which cannot be used afterwards.
    """

    def __init__(self, encoder: Encoder, dtype: torch.dtype) -> None:
        self._encoder, self._dtype = encoder, dtype
        packed = {layer: self._packed(layer) for layer in encoder.first_layers}  # shared weights once
        self._layers = [packed[layer] for layer in encoder.first_layers]
        del encoder.first_layers

    def _packed(self, layer: Any) -> dict[str, Any]:
        return {
            part: affine if part.endswith("norm") else Linear(affine.weight, affine.bias, self._dtype)
            for part, affine in layer.items()
        }

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits ``[b, C]`` float32."""
        cls = self.cls_states(input_ids, attention_mask, token_type_ids)
        return each_in_a_block(self._encoder.classified, cls)

    def cls_states(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """The state of ``[CLS]`` after the last layer, ``[b, H]`` float32."""
        states = self._encoder.embedded(input_ids, token_type_ids).to(self._dtype)
        bias = self._encoder.position_bias(input_ids.shape[1])
        added = score_bias(attention_mask, None if bias is None else bias.to(self._dtype))
        for layer in self._layers:
            query_key_value = layer["query_key_value"](states)
            attended = self._attention(query_key_value, attention_mask, added)
            states = layer["out_norm"].norm(layer["out"].plus(attended, states), self._encoder.eps)
            wide = layer["up"](states, self._encoder.activation)
            states = layer["down_norm"].norm(layer["down"].plus(wide, states), self._encoder.eps)
        return self._encoder.last_layer_cls(states.float(), attention_mask, bias, in_blocks)

    def _attention(
        self, query_key_value: Tensor, attention_mask: Tensor | None, added: Tensor | None
    ) -> Tensor:
        """Attention of fused queries, keys and values ``[b, L, 3 H]``: ``[b, L, H]``."""
        query, key, value = split_heads(query_key_value, 3, self._encoder.heads)
        if self._dtype == torch.bfloat16 and (added is None or added.dtype == torch.bool):
            return bf16_attention(query, key, value, attention_mask)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=added)
        return attended.transpose(1, 2).flatten(2)


def in_blocks(compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``compute`` of tensors ``[b, ...]``, called with ``_BLOCK_ROWS`` rows at a time; the last block is filled up with its last row.

    For what has few numbers a row, the last layer for one token and the head: libraries pick the kernel of a product by its
    number of rows, and kernels differ in the last bit. In blocks of one size an answer does not depend on how many rows
    are beside it.
    """
    found, rows = [], len(inputs[0])
    for start in range(0, rows, _BLOCK_ROWS):
        block = [each[start : start + _BLOCK_ROWS] for each in inputs]
        lacking = _BLOCK_ROWS - len(block[0])
        if lacking:
            block = [torch.cat([each, each[-1:].expand(lacking, *each.shape[1:])]) for each in block]
        found.append(compute(*block))
    return (found[0] if len(found) == 1 else torch.cat(found))[:rows]


def each_in_a_block(compute: Callable[..., Tensor], states: Tensor) -> Tensor:
    """``compute`` of rows ``[b, ...]``, each called with a block that is this row again and again.

    For the product with a few labels: MKL's kernel for it (CPUs of Intel with AVX-512) differs in the last bit between the rows
    of one block. Where a kernel does not, the result is that of :func:`in_blocks`.
    """
    whole = [compute(row.expand(_BLOCK_ROWS, *row.shape).contiguous())[:1] for row in states]
    return torch.cat(whole)


def bf16_attention(query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention: query, key and value ``[b, heads, L, d]`` in, ``[b, L, heads * d]`` out.

    Where the scores of a row's head may be large, torch's fused kernel computes it, which has float32 scores; bfloat16 would
    be too coarse. MiniLM-L6 has one such head of 72. Each row has the kernel that it would have alone.
    """
    is_small = _are_small(query, key)
    if is_small.all():
        return _matmul_attention(query, key, value, attention_mask).flatten(2)
    attended = torch.empty_like(value).transpose(1, 2)
    for attend, is_taken in ((_matmul_attention, is_small), (_fused_attention, ~is_small)):
        if (heads := is_taken.any(0)).any():
            found = attend(query[:, heads], key[:, heads], value[:, heads], attention_mask)
            taken = is_taken[:, None, heads, None]
            attended[:, :, heads] = torch.where(taken, found, attended[:, :, heads])
    return attended.flatten(2)


def has_small_scores(query: Tensor, key: Tensor) -> Tensor:
    """For which heads softmax needs no maximum subtracted: ``[heads]`` bool.

    A score is at most the norm of its query times that of its key (Cauchy-Schwarz).
    """
    return _are_small(query, key).all(0)


def _are_small(query: Tensor, key: Tensor) -> Tensor:
    """The same of each row, ``[b, heads]``."""
    queries, keys = (torch.linalg.vector_norm(each, dim=-1).amax(-1).float() for each in (query, key))
    largest: Tensor = queries * keys / math.sqrt(query.shape[-1])
    return largest < _MAX_SCORE


def _matmul_attention(query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Attention of heads with small scores: ``[b, L, heads, d]``."""
    rows, heads, length, width = query.shape
    queries, keys = (each.reshape(rows * heads, length, width) for each in (query, key))
    sums = weighted_sums(queries, keys, append_ones(value, attention_mask))
    sums = sums.view(rows, heads, length, width + 1).transpose(1, 2)
    return sums[..., :width] / sums[..., width:]


def _fused_attention(query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None) -> Tensor:
    """The same for any heads, by torch's fused kernel."""
    mask = None if attention_mask is None else attention_mask[:, None, None, :].bool()
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)


def append_ones(value: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Append a 1 to each value ``[b, heads, L, d]`` and zero where the mask ``[b, L]`` is 0: ``[b * heads, L, d + 1]``."""
    rows, heads, length, width = value.shape
    longer = value.new_ones(rows, heads, length, width + 1)
    if attention_mask is None:
        longer[..., :width] = value
    else:
        mask = attention_mask.to(value.dtype)
        torch.mul(value, mask[:, None, :, None], out=longer[..., :width])
        longer[..., width] = mask[:, None, :]
    return longer.view(rows * heads, length, width + 1)


def tiles(n: int, length: int, element_size: int) -> list[slice]:
    """Slices of ``n`` heads whose scores ``[L, L]`` fit the caches of the cores that torch uses."""
    step = max(1, torch.get_num_threads() * _TILE_BYTES // (length * length * element_size))
    return [slice(start, start + step) for start in range(0, n, step)]


def weighted_sums(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """``exp(Q K' / sqrt(d)) V`` of each head: queries and keys ``[n, L, d]``, values ``[n, L, e]`` in, ``[n, L, e]`` out.

    The weights are not normalised; their sum is in the last column if the last element of each value is 1.
    """
    scale, no_bias = 1 / math.sqrt(queries.shape[-1]), values.new_zeros(1, 1, 1)
    sums = torch.empty_like(values)
    for some in tiles(len(values), values.shape[1], values.element_size()):
        scores = torch.baddbmm(no_bias, queries[some], keys[some].transpose(1, 2), beta=0, alpha=scale)
        torch.bmm(scores.exp_(), values[some], out=sums[some])
    return sums
