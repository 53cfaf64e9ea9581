"""Classifiers built from their weights without transformers, for architectures with a ``Classifier`` entry.

Two reasons. Importing transformers' model code takes three times as long as importing torch, most of a nightly run over
small files. And the head uses only the state of ``[CLS]``: the last layer computes attention and the feed-forward part for
that token alone, without keys and values of the others (:meth:`Encoder.last_layer_cls`). That saves one of N layers; the
result is the same up to the order of additions.

A model of another architecture, with other options in ``config.json``, or with a missing or extra tensor is left to
transformers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from batchscore.model.backends.architectures import Classifier, Layers, architecture_of

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": functional.gelu, "relu": functional.relu}
_ACTIVATIONS_OF_HEADS: dict[str, Callable[[Tensor], Tensor]] = {"relu": functional.relu, "tanh": torch.tanh}


class _Kind(NamedTuple):
    """A supported architecture."""

    names: Classifier
    layers: Layers


def load_encoder(folder: Path, dtype: torch.dtype, device: str) -> Encoder | None:
    """The classifier of a folder, its weights in ``dtype`` on ``device``; None if it is not supported."""
    config = json.loads((folder / "config.json").read_bytes())
    kind = _kind_of(config)
    if kind is None or not (folder / WEIGHTS).exists():
        return None
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, framework="pt") as file:
        keys = set(file.keys())
        if keys - {f"{kind.names.prefix}embeddings.position_ids"} != _expected(kind, config):
            return None
        weights = {key: file.get_tensor(key).to(device, dtype) for key in keys if "position_ids" not in key}
    return Encoder(weights, kind, config)


def encoder_of(
    weights: Mapping[str, Tensor], config: Mapping[str, Any], dtype: torch.dtype
) -> Encoder | None:
    """The same from the tensors and configuration of a loaded model, which stays as it is."""
    kind = _kind_of(config)
    if kind is None:
        return None
    kept = {key: value.detach().to(dtype) for key, value in weights.items() if "position_ids" not in key}
    return Encoder(kept, kind, config) if set(kept) == _expected(kind, config) else None


def _kind_of(config: Mapping[str, Any]) -> _Kind | None:
    architecture = architecture_of(config.get("model_type"))
    names, layers = architecture.classifier, architecture.layers
    if names is None or layers is None:
        return None
    is_known = (
        config.get("architectures") == [names.class_name]
        and config.get(names.activation) in _ACTIVATIONS
        and isinstance(config.get(names.heads), int)
        and isinstance(config.get(names.n_layers), int)
        and config[names.n_layers] >= 1
        and all(config.get(key, value) == value for key, value in names.required.items())
    )
    return _Kind(names, layers) if is_known else None


def _layer_names(kind: _Kind, number: int) -> dict[str, str]:
    """The modules of a layer by part, as in the names of its tensors."""
    path = f"{kind.names.prefix}{kind.layers.path}.{number}"
    return {part: f"{path}.{name}" for part, name in kind.layers.modules.items()}


def _expected(kind: _Kind, config: Mapping[str, Any]) -> set[str]:
    """Names of the tensors of a model of this kind."""
    names = kind.names
    tables = ["word_embeddings", "position_embeddings", *["token_type_embeddings"] * names.has_token_types]
    modules = [name for layer in range(config[names.n_layers]) for name in _layer_names(kind, layer).values()]
    modules += [f"{names.prefix}embeddings.LayerNorm", names.pooler, "classifier"]
    return {f"{names.prefix}embeddings.{table}.weight" for table in tables} | {
        f"{module}.{part}" for module in modules for part in ("weight", "bias")
    }


class _Affine(nn.Module):
    """Weight and bias of a linear layer or a layer norm."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = _constant(weight), _constant(bias)

    def forward(self, states: Tensor) -> Tensor:
        return functional.linear(states, self.weight, self.bias)

    def norm(self, states: Tensor, eps: float) -> Tensor:
        return functional.layer_norm(states, self.bias.shape, self.weight, self.bias, eps)


def _constant(weight: Tensor) -> nn.Parameter:
    """A weight that the compiler may treat as a constant."""
    return nn.Parameter(weight, requires_grad=False)


class Encoder(nn.Module):
    """Token ids and mask ``[b, L]`` int64 in, logits ``[b, C]`` out; no mask means no padding."""

    def __init__(self, weights: Mapping[str, Tensor], kind: _Kind, config: Mapping[str, Any]) -> None:
        super().__init__()
        names = kind.names
        embeddings = f"{names.prefix}embeddings."
        self._words = _constant(weights[f"{embeddings}word_embeddings.weight"])
        positions = weights[f"{embeddings}position_embeddings.weight"]
        if names.has_token_types:  # all tokens have type 0
            positions = positions + weights[f"{embeddings}token_type_embeddings.weight"][0]
        self._positions = _constant(positions)
        self._norm = _affine(weights, f"{embeddings}LayerNorm")
        layers = [
            {part: _affine(weights, name) for part, name in _layer_names(kind, number).items()}
            for number in range(config[names.n_layers])
        ]
        for layer in layers[:-1]:
            layer["query_key_value"] = _fused(*(layer.pop(part) for part in ("query", "key", "value")))
        self.first_layers = nn.ModuleList(nn.ModuleDict(layer) for layer in layers[:-1])
        self._last_layer = nn.ModuleDict(layers[-1])
        self._pooler, self._classifier = _affine(weights, names.pooler), _affine(weights, "classifier")
        self.heads, self.eps = config[names.heads], float(config.get("layer_norm_eps", 1e-12))
        self.activation: str = config[names.activation]
        """In the feed-forward part: ``gelu`` or ``relu``."""
        self._head_activation = _ACTIVATIONS_OF_HEADS[names.head_activation]

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Logits ``[b, C]``, in the dtype of the weights."""
        return self.classified(self.cls_states(input_ids, attention_mask))

    def cls_states(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The state of ``[CLS]`` after the last layer, ``[b, H]``: the input of the head."""
        states = self.embedded(input_ids)
        mask = None if attention_mask is None else attention_mask[:, None, None, :].bool()
        layer: Any
        for layer in self.first_layers:
            query, key, value = split_heads(layer["query_key_value"](states), 3, self.heads)
            attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            states = self._after_attention(layer, states, attended.transpose(1, 2).flatten(2))
        return self.last_layer_cls(states, attention_mask)

    def embedded(self, input_ids: Tensor) -> Tensor:
        """Embeddings, the input of the first layer: ``[b, L, H]``."""
        states = functional.embedding(input_ids, self._words) + self._positions[: input_ids.shape[1]]
        return self._norm.norm(states, self.eps)

    def last_layer_cls(self, states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The last layer for ``[CLS]`` only: states ``[b, L, H]`` in, its state ``[b, H]`` out.

        The attention score of token *j* is ``q . (K x_j + k)``, which is ``(K' q) . x_j`` up to a term that all tokens share
        and softmax cancels; and the mean of the values is the value of the mean. So the key and value weights are applied
        to one vector per head instead of to every token.
        """
        layer: Any = self._last_layer
        cls = states[:, 0]
        rows, width = cls.shape
        key, value = (layer[part].weight.view(self.heads, -1, width) for part in ("key", "value"))
        query = layer["query"](cls).view(rows, self.heads, -1)
        weights = torch.einsum("bhd,hdk->bhk", query, key) @ states.transpose(1, 2)
        weights = weights / math.sqrt(width // self.heads)
        if attention_mask is not None:
            weights = weights.masked_fill(attention_mask[:, None, :] == 0, -math.inf)
        mean = weights.softmax(-1) @ states
        attended = torch.einsum("bhk,hdk->bhd", mean, value).flatten(1) + layer["value"].bias
        return self._after_attention(layer, cls, attended)

    def classified(self, cls: Tensor) -> Tensor:
        """Logits ``[b, C]`` from the states of ``[CLS]``, ``[b, H]``."""
        logits: Tensor = self._classifier(self._head_activation(self._pooler(cls)))
        return logits

    def _after_attention(self, layer: Any, states: Tensor, attended: Tensor) -> Tensor:
        """The rest of a layer: output projection, feed-forward part, and their norms."""
        states = layer["out_norm"].norm(layer["out"](attended) + states, self.eps)
        wide = _ACTIVATIONS[self.activation](layer["up"](states))
        normed: Tensor = layer["down_norm"].norm(layer["down"](wide) + states, self.eps)
        return normed


def split_heads(states: Tensor, n: int, heads: int) -> tuple[Tensor, ...]:
    """Split ``[b, L, n * H]`` into ``n`` tensors ``[b, heads, L, H / heads]``; memory is shared."""
    rows, length, width = states.shape
    return states.view(rows, length, n, heads, width // n // heads).permute(2, 0, 3, 1, 4).unbind(0)


def _affine(weights: Mapping[str, Tensor], name: str) -> _Affine:
    return _Affine(weights[f"{name}.weight"], weights[f"{name}.bias"])


def _fused(*parts: _Affine) -> _Affine:
    """Fuse linear layers with the same input into one."""
    return _Affine(torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]))
