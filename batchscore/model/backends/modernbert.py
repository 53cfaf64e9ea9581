"""ModernBERT (Warner et al. 2024, arXiv:2412.13663) for texts of up to 8,192 tokens.

Local layers compute scores only near the diagonal: queries in blocks, each with the keys that the window reaches, so that
time and memory grow with the length and not with its square. Rotary positions are one complex product: the rows of the query
and key weights are reordered once, so that two numbers that turn together are neighbours; products of queries and keys stay
the same. The gate of the feed-forward part is multiplied inside the kernel. A head on ``[CLS]`` needs one token of the
last layer; keys turn with their positions, so these are computed for every token (unlike in
:meth:`batchscore.model.backends.encoders.Encoder.last_layer_cls`), values are not.

In bfloat16 linear layers, attention weights and their products with values are bfloat16. The residual stream, to which every
layer adds without a norm after it, stays in float32, as do the norms, the rotation and the head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from batchscore.model.backends.encoders import ACTIVATIONS, Shapes, constant
from batchscore.model.backends.packed import bf16_attention
from batchscore.model.backends.parts import Linear, are_counts, fused, is_number, linear, norm, packed_layers

if TYPE_CHECKING:
    from torch import Tensor

    from batchscore.model.backends.architectures import Classifier

_BLOCK = 64
"""Queries of a local layer that are computed together."""
_FULL, _LOCAL = "full_attention", "sliding_attention"
_THETAS = {_FULL: "global_rope_theta", _LOCAL: "local_rope_theta"}


class _Window(NamedTuple):
    """A block of queries, the keys that it may reach, and what is added to its scores."""

    queries: slice
    keys: slice
    bias: Tensor
    """``[b or 1, 1, queries, keys]``."""


class _Inputs(NamedTuple):
    """What the layers of one kind need beside their states."""

    turns: Tensor
    """``[L, 1, d / 2]`` complex: the rotation at each position."""
    windows: list[_Window]
    """Empty for layers whose queries reach every key."""
    mask: Tensor | None
    """``[b, L]``; None if there is no padding."""


class ModernBert(nn.Module):
    """Token ids and mask ``[b, L]`` int64 in, logits ``[b, C]`` out; no mask means no padding. There are no token types."""

    packed: ClassVar[str] = f"{__name__}:packed"
    cpu_only: ClassVar[bool] = True

    @classmethod
    def shapes(cls, options: Mapping[str, Any], names: Classifier, n_labels: int) -> Shapes | None:
        """See :class:`~batchscore.model.backends.encoders.Loadable`."""
        return _shapes(options, names.prefix, n_labels) if _are_known(options) else None

    def __init__(self, weights: Mapping[str, Tensor], options: Mapping[str, Any], names: Classifier) -> None:
        super().__init__()
        prefix, eps = names.prefix, float(options["norm_eps"])
        self._heads: int = options["num_attention_heads"]
        self._kinds = _kinds_of_layers(options)
        self._thetas = {kind: _theta(options, kind) for kind in set(self._kinds)}
        self._reach: int = options["local_attention"] // 2
        """The furthest token that a token attends to in a local layer."""
        self._activation: str = options["hidden_activation"]
        self._words = constant(weights[f"{prefix}embeddings.tok_embeddings.weight"])
        self._norm = norm(weights, f"{prefix}embeddings.norm", eps)
        layers = [
            _layer(weights, f"{prefix}layers.{number}", eps, self._heads)
            for number in range(len(self._kinds))
        ]
        self._last = nn.ModuleDict(layers.pop()) if options["classifier_pooling"] == "cls" else None
        """The last layer, if it is computed for ``[CLS]`` alone; the mean of all tokens is taken otherwise."""
        for layer in layers:
            layer["query_key_value"] = fused(*(layer.pop(part) for part in ("query", "key", "value")))
        self.layers: Any = nn.ModuleList(map(nn.ModuleDict, layers))
        """Those that are computed for all tokens."""
        self._final_norm = norm(weights, f"{prefix}final_norm", eps)
        self._dense = linear(weights, "head.dense")
        self._head_activation = ACTIVATIONS[options["classifier_activation"]]
        self._head_norm = norm(weights, "head.norm", eps)
        self._classifier = linear(weights, "classifier")
        self._packed_dtype: torch.dtype | None = None
        self._packed_key: Any = None

    def pack(self, dtype: torch.dtype) -> None:
        """Pack the linear layers for oneDNN in ``dtype``, but for those that see one token a row."""
        layers = packed_layers(self.layers, dtype)
        del self.layers
        self.layers, self._packed_dtype = layers, dtype
        if self._last is not None:
            (last,) = packed_layers([{"key": self._last.pop("key")}], dtype)
            self._packed_key = last["key"]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits ``[b, C]``, in the dtype of the embeddings."""
        cls = self.cls_states(input_ids, attention_mask, token_type_ids)
        logits: Tensor = self._classifier(self._head_norm(self._head_activation(self._dense(cls))))
        return logits

    def cls_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None = None,  # noqa: ARG002 - it has none
    ) -> Tensor:
        """The state of ``[CLS]``, or the mean of all, after the last layer and its norm ``[b, H]``: the input of the head."""
        states: Tensor = self._norm(functional.embedding(input_ids, self._words))
        inputs = {kind: self._inputs(kind, states, attention_mask) for kind in self._thetas}
        for kind, layer in zip(self._kinds, self.layers, strict=False):
            attended = self._attention(self._narrow(_normed(layer, states)), layer, inputs[kind])
            states = self._fed(layer, _plus(layer["out"], attended, states))
        if self._last is not None:
            return self._final_norm(self._last_layer_cls(states, inputs[self._kinds[-1]]))  # type: ignore[no-any-return]
        return _mean(self._final_norm(states), attention_mask)

    def _narrow(self, states: Tensor) -> Tensor:
        """States in the dtype of the products."""
        return states.to(self._packed_dtype or states.dtype)

    def _inputs(self, kind: str, states: Tensor, mask: Tensor | None) -> _Inputs:
        length, dtype = states.shape[1], self._packed_dtype or states.dtype
        turns = _turns(length, states.shape[2] // self._heads, self._thetas[kind])
        is_local = kind == _LOCAL and length > self._reach + 1
        windows = _windows(length, self._reach, mask, dtype) if is_local else []
        return _Inputs(turns.to(states.device), windows, mask)

    def _attention(self, states: Tensor, layer: Any, inputs: _Inputs) -> Tensor:
        """Attention of all tokens, ``[b, L, H]`` in and out."""
        rows, length, width = states.shape
        query_key_value = layer["query_key_value"](states)
        query_key = _turned(query_key_value[..., : 2 * width], inputs.turns, 2 * self._heads)
        query, key = query_key.transpose(1, 2).chunk(2, dim=1)
        value = query_key_value[..., 2 * width :].view(rows, length, self._heads, -1).transpose(1, 2)
        if not inputs.windows:
            return self._full_attention(query, key, value, inputs.mask)
        attended = states.new_empty(rows, length, self._heads, width // self._heads)
        for window in inputs.windows:
            keys, values = key[:, :, window.keys], value[:, :, window.keys]
            found = functional.scaled_dot_product_attention(
                query[:, :, window.queries], keys, values, attn_mask=window.bias
            )
            attended[:, window.queries] = found.transpose(1, 2)
        return attended.flatten(2)

    def _full_attention(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attention to every token: ``[b, heads, L, d]`` in, ``[b, L, H]`` out."""
        if self._packed_dtype == torch.bfloat16:
            return bf16_attention(query, key, value, mask)
        allowed = None if mask is None else mask[:, None, None, :].bool()
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        return attended.transpose(1, 2).flatten(2)

    def _fed(self, layer: Any, states: Tensor) -> Tensor:
        """States with those added that the feed-forward part makes of them."""
        normed = self._narrow(layer["mlp_norm"](states))
        gated = layer["gate"].times(normed, layer["up"](normed, self._activation))
        return _plus(layer["down"], gated, states)

    def _last_layer_cls(self, states: Tensor, inputs: _Inputs) -> Tensor:
        """The last layer for ``[CLS]`` only: states ``[b, L, H]`` in, its state ``[b, H]`` out.

        At the first position nothing turns; and the mean of the values is the value of the mean.
        """
        layer: Any = self._last
        if inputs.windows:
            states = states[:, : self._reach + 1]
        rows, length, width = states.shape
        normed = _normed(layer, states)
        query = layer["query"](normed[:, 0]).view(rows, self._heads, -1)
        keys = (self._packed_key or layer["key"])(self._narrow(normed))
        key = _turned(keys, inputs.turns[:length], self._heads)
        weights = torch.einsum("bhd,blhd->bhl", query, key.to(query.dtype)) / math.sqrt(query.shape[-1])
        if inputs.mask is not None:
            weights = weights.masked_fill(inputs.mask[:, None, :length] == 0, -math.inf)
        mean = weights.softmax(-1) @ normed
        value = layer["value"].weight.view(self._heads, -1, width)
        attended = torch.einsum("bhk,hdk->bhd", mean, value).flatten(1)
        if layer["value"].bias is not None:
            attended = attended + layer["value"].bias
        cls = states[:, 0] + layer["out"](attended)
        normed = layer["mlp_norm"](cls)
        gated = layer["up"](normed, self._activation) * layer["gate"](normed)
        return cls + layer["down"](gated)  # type: ignore[no-any-return]


def packed(encoder: ModernBert, dtype: torch.dtype) -> ModernBert:
    """The encoder itself, its linear layers packed in ``dtype``."""
    encoder.pack(dtype)
    return encoder


def _normed(layer: Any, states: Tensor) -> Tensor:
    """The input of attention; the first layer has no norm, as embeddings have one."""
    return layer["norm"](states) if "norm" in layer else states


def _plus(layer: Any, states: Tensor, residual: Tensor) -> Tensor:
    """The residual and the linear layer's output, in the residual's dtype."""
    if states.dtype == residual.dtype:
        return layer.plus(states, residual)  # type: ignore[no-any-return]
    return residual + layer(states)  # type: ignore[no-any-return]


def _mean(states: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of a row's tokens without padding: ``[b, L, H]`` in, ``[b, H]`` out."""
    if mask is None:
        return states.mean(1)
    return states.masked_fill(mask[:, :, None] == 0, 0).sum(1) / mask.sum(1, keepdim=True)


def _turns(length: int, width: int, theta: float) -> Tensor:
    """The rotation at each position of a head of this width, ``[L, 1, width / 2]`` complex64 (Su et al. 2021)."""
    frequencies = 1.0 / (theta ** (torch.arange(0, width, 2, dtype=torch.float) / width))
    angles = torch.arange(length, dtype=torch.float)[:, None, None] * frequencies
    return torch.complex(angles.cos(), angles.sin())


def _turned(states: Tensor, turns: Tensor, heads: int) -> Tensor:
    """States ``[b, L, heads * d]`` rotated, neighbours together: ``[b, L, heads, d]`` in their dtype."""
    pairs = states.view(*states.shape[:-1], heads, states.shape[-1] // heads // 2, 2)
    rotated = torch.view_as_real(torch.view_as_complex(pairs.float()) * turns)
    return rotated.flatten(-2).to(states.dtype)


def _windows(length: int, reach: int, mask: Tensor | None, dtype: torch.dtype) -> list[_Window]:
    """The blocks of a local layer.

    What is added to scores out of reach is the dtype's lowest number, halved, and not minus infinity: queries in the padding
    may reach no key at all, and their states must stay finite.
    """
    found, device = [], None if mask is None else mask.device
    for start in range(0, length, _BLOCK):
        queries = slice(start, min(start + _BLOCK, length))
        keys = slice(max(start - reach, 0), min(queries.stop + reach, length))
        places = torch.arange(length, device=device)
        is_reached = ((places[queries, None] - places[None, keys]).abs() <= reach)[None, None]
        if mask is not None:
            is_reached = is_reached & mask[:, None, None, keys].bool()
        bias = torch.zeros(is_reached.shape, dtype=dtype, device=device)
        found.append(_Window(queries, keys, bias.masked_fill_(~is_reached, torch.finfo(dtype).min / 2)))
    return found


def _layer(weights: Mapping[str, Tensor], path: str, eps: float, heads: int) -> dict[str, Any]:
    """The parts of a layer; ``norm`` is missing in the first one."""
    query, key, value = _split(weights, f"{path}.attn.Wqkv", 3)
    up, gate = _split(weights, f"{path}.mlp.Wi", 2)
    parts = {
        "query": _paired(*query, heads),
        "key": _paired(*key, heads),
        "value": Linear(*value),
        "out": linear(weights, f"{path}.attn.Wo"),
        "mlp_norm": norm(weights, f"{path}.mlp_norm", eps),
        "up": Linear(*up),
        "gate": Linear(*gate),
        "down": linear(weights, f"{path}.mlp.Wo"),
    }
    is_normed = f"{path}.attn_norm.weight" in weights
    return parts | ({"norm": norm(weights, f"{path}.attn_norm", eps)} if is_normed else {})


def _split(weights: Mapping[str, Tensor], name: str, n: int) -> list[tuple[Tensor, Tensor | None]]:
    """Weight and bias of each of ``n`` linear layers that are stored as one."""
    bias = weights.get(f"{name}.bias")
    biases = [None] * n if bias is None else bias.chunk(n)
    return list(zip(weights[f"{name}.weight"].chunk(n), biases, strict=True))


def _paired(weight: Tensor, bias: Tensor | None, heads: int) -> Linear:
    """The linear layer with its outputs reordered: in each head, those of the second half follow their partners in the first."""
    order = torch.arange(len(weight)).view(heads, 2, -1).transpose(1, 2).flatten()
    return Linear(weight[order], None if bias is None else bias[order])


def _kinds_of_layers(options: Mapping[str, Any]) -> list[str]:
    """``full_attention`` or ``sliding_attention`` of each layer."""
    kinds: list[str] | None = options["layer_types"]
    if kinds is not None:
        return kinds
    every = options["global_attn_every_n_layers"]
    return [_LOCAL if number % every else _FULL for number in range(options["num_hidden_layers"])]


def _theta(options: Mapping[str, Any], kind: str) -> Any:
    """The base of the rotation's frequencies."""
    parameters = (options["rope_parameters"] or {}).get(kind) or {}
    return parameters.get("rope_theta", options[_THETAS[kind]])


def _are_known(options: Mapping[str, Any]) -> bool:
    """Whether every option has a value that :class:`ModernBert` obeys."""
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    if not are_counts(options, *sizes, "global_attn_every_n_layers", "local_attention"):
        return False
    flags = ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias")
    return (
        options["hidden_size"] % (2 * options["num_attention_heads"]) == 0
        and all(isinstance(options[name], bool) for name in flags)
        and options["hidden_activation"] in ACTIVATIONS
        and options["classifier_activation"] in ACTIVATIONS
        and options["classifier_pooling"] in ("cls", "mean")
        and is_number(options["norm_eps"])
        and _are_known_kinds(options["layer_types"], options["num_hidden_layers"])
        and _are_known_turns(options)
    )


def _are_known_kinds(kinds: object, n_layers: int) -> bool:
    if kinds is None:
        return True
    return isinstance(kinds, list) and len(kinds) == n_layers and set(kinds) <= {_FULL, _LOCAL}


def _are_known_turns(options: Mapping[str, Any]) -> bool:
    """Whether rotary positions are plain, of a base for each kind of layer."""
    parameters = options["rope_parameters"]
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict) or not set(parameters) <= set(_THETAS):
        return False
    if not all(isinstance(each, dict) and _is_plain(each) for each in parameters.values()):
        return False
    return all(is_number(_theta(options, kind)) for kind in _THETAS)


def _is_plain(parameters: Mapping[str, Any]) -> bool:
    kinds = {parameters.get(name, "default") for name in ("rope_type", "type")}
    return kinds == {"default"} and set(parameters) <= {"rope_type", "type", "rope_theta"}


def _shapes(options: Mapping[str, Any], prefix: str, n_labels: int) -> Shapes:
    """The shape of every tensor."""
    width, wide, n_layers = (
        options[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    linears = {"head.dense": (width, width, "classifier_bias")}
    norms = [f"{prefix}embeddings.norm", f"{prefix}final_norm", "head.norm"]
    for number in range(n_layers):
        path = f"{prefix}layers.{number}"
        linears[f"{path}.attn.Wqkv"] = (3 * width, width, "attention_bias")
        linears[f"{path}.attn.Wo"] = (width, width, "attention_bias")
        linears[f"{path}.mlp.Wi"] = (2 * wide, width, "mlp_bias")
        linears[f"{path}.mlp.Wo"] = (width, wide, "mlp_bias")
        norms += [f"{path}.mlp_norm", *[f"{path}.attn_norm"] * (number > 0)]
    shapes: Shapes = {
        f"{prefix}embeddings.tok_embeddings.weight": (options["vocab_size"], width),
        "classifier.weight": (n_labels, width),
        "classifier.bias": (n_labels,),
    }
    for name, (outputs, inputs, bias) in linears.items():
        shapes[f"{name}.weight"] = (outputs, inputs)
        if options[bias]:
            shapes[f"{name}.bias"] = (outputs,)
    for name in norms:
        shapes |= {f"{name}.{part}": (width,) for part in ("weight", *["bias"] * options["norm_bias"])}
    return shapes
