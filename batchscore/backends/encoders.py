"""BERT and DistilBERT classifiers straight from their weights, without transformers.

Two reasons. Importing transformers' model code takes three times as long as importing torch, which nightly runs over
small files would mostly wait for. And a classifier looks at the first token alone: in the last layer only that token's
query, and its way through the feed-forward part, are computed here. Of N layers that saves most of one, and the result
is the same up to the order of additions.

Only what is certain is taken: a model of another architecture, with another option in its ``config.json`` or with a
tensor more or less than expected is left to transformers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": functional.gelu, "relu": functional.relu}


@dataclasses.dataclass(frozen=True, slots=True)
class _Names:
    """Where an architecture keeps what, in ``config.json`` and among its tensors."""

    prefix: str
    layers: str
    heads: str
    n_layers: str
    activation: str
    layer: Mapping[str, str]
    pooler: str
    head_activation: Callable[[Tensor], Tensor]
    required: Mapping[str, Any]
    """Options that must have this value, or be absent."""
    has_token_types: bool = False


_BERT = _Names(
    prefix="bert.",
    layers="bert.encoder.layer",
    heads="num_attention_heads",
    n_layers="num_hidden_layers",
    activation="hidden_act",
    layer={
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "out": "attention.output.dense",
        "out_norm": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "down_norm": "output.LayerNorm",
    },
    pooler="bert.pooler.dense",
    head_activation=torch.tanh,
    required={"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False},
    has_token_types=True,
)
_DISTILBERT = _Names(
    prefix="distilbert.",
    layers="distilbert.transformer.layer",
    heads="n_heads",
    n_layers="n_layers",
    activation="activation",
    layer={
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "out": "attention.out_lin",
        "out_norm": "sa_layer_norm",
        "up": "ffn.lin1",
        "down": "ffn.lin2",
        "down_norm": "output_layer_norm",
    },
    pooler="pre_classifier",
    head_activation=functional.relu,
    required={},
)
_ARCHITECTURES = {
    "BertForSequenceClassification": ("bert", _BERT),
    "DistilBertForSequenceClassification": ("distilbert", _DISTILBERT),
}


def load_encoder(folder: Path, dtype: torch.dtype, device: str) -> Encoder | None:
    """The classifier of a folder, its weights in ``dtype`` on ``device``; None where it is not certainly of a known kind."""
    config = json.loads((folder / "config.json").read_bytes())
    names = _names_of(config)
    if names is None or not (folder / WEIGHTS).exists():
        return None
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, framework="pt") as file:
        keys = set(file.keys())
        if keys - {f"{names.prefix}embeddings.position_ids"} != _expected(names, config[names.n_layers]):
            return None
        weights = {key: file.get_tensor(key).to(device, dtype) for key in keys if "position_ids" not in key}
    return Encoder(weights, names, config)


def encoder_of(
    weights: Mapping[str, Tensor], config: Mapping[str, Any], dtype: torch.dtype
) -> Encoder | None:
    """The same from the tensors and the configuration of a loaded model, which keeps its own."""
    names = _names_of(config)
    if names is None:
        return None
    kept = {key: value.detach().to(dtype) for key, value in weights.items() if "position_ids" not in key}
    return Encoder(kept, names, config) if set(kept) == _expected(names, config[names.n_layers]) else None


def _names_of(config: Mapping[str, Any]) -> _Names | None:
    architectures = config.get("architectures")
    if (
        not isinstance(architectures, list)
        or len(architectures) != 1
        or architectures[0] not in _ARCHITECTURES
    ):
        return None
    kind, names = _ARCHITECTURES[architectures[0]]
    is_known = (
        config.get("model_type") == kind
        and config.get(names.activation) in _ACTIVATIONS
        and isinstance(config.get(names.heads), int)
        and isinstance(config.get(names.n_layers), int)
        and config[names.n_layers] >= 1
        and all(config.get(key, value) == value for key, value in names.required.items())
    )
    return names if is_known else None


def _expected(names: _Names, n_layers: int) -> set[str]:
    """The tensors that a model of this kind has."""
    tables = ["word_embeddings", "position_embeddings", *["token_type_embeddings"] * names.has_token_types]
    modules = [f"{names.layers}.{layer}.{part}" for layer in range(n_layers) for part in names.layer.values()]
    modules += [f"{names.prefix}embeddings.LayerNorm", names.pooler, "classifier"]
    return {f"{names.prefix}embeddings.{table}.weight" for table in tables} | {
        f"{module}.{kind}" for module in modules for kind in ("weight", "bias")
    }


class _Affine(nn.Module):
    """A weight and a bias: of a linear map, or of a layer norm."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = _fixed(weight), _fixed(bias)

    def forward(self, states: Tensor) -> Tensor:
        return functional.linear(states, self.weight, self.bias)

    def norm(self, states: Tensor, eps: float) -> Tensor:
        return functional.layer_norm(states, self.bias.shape, self.weight, self.bias, eps)


def _fixed(weight: Tensor) -> nn.Parameter:
    """A weight that the compiler may take for a constant."""
    return nn.Parameter(weight, requires_grad=False)


class Encoder(nn.Module):
    """Token ids and mask ``[b, L]`` int64 in, logits ``[b, C]`` out; without a mask nothing is padded."""

    def __init__(self, weights: Mapping[str, Tensor], names: _Names, config: Mapping[str, Any]) -> None:
        super().__init__()
        embeddings = f"{names.prefix}embeddings."
        self._words = _fixed(weights[f"{embeddings}word_embeddings.weight"])
        positions = weights[f"{embeddings}position_embeddings.weight"]
        if names.has_token_types:  # every token is of the first type
            positions = positions + weights[f"{embeddings}token_type_embeddings.weight"][0]
        self._positions = _fixed(positions)
        self._norm = _affine(weights, f"{embeddings}LayerNorm")
        layers = [
            {part: _affine(weights, f"{names.layers}.{k}.{name}") for part, name in names.layer.items()}
            for k in range(config[names.n_layers])
        ]
        for layer in layers[:-1]:
            layer["query_key_value"] = _joined(*(layer.pop(part) for part in ("query", "key", "value")))
        last = layers[-1]
        last["key_value"] = _joined(last.pop("key"), last.pop("value"))
        self._first_layers = nn.ModuleList(nn.ModuleDict(layer) for layer in layers[:-1])
        self._last_layer = nn.ModuleDict(last)
        self._pooler, self._classifier = _affine(weights, names.pooler), _affine(weights, "classifier")
        self._heads, self._eps = config[names.heads], float(config.get("layer_norm_eps", 1e-12))
        self._activation, self._head_activation = (
            _ACTIVATIONS[config[names.activation]],
            names.head_activation,
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Logits ``[b, C]``, in the dtype of the weights."""
        first = self.first_token(input_ids, attention_mask)
        logits: Tensor = self._classifier(self._head_activation(self._pooler(first)))
        return logits

    def first_token(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The first token's state ``[b, H]`` after the last layer, which is what the head sees."""
        states = functional.embedding(input_ids, self._words) + self._positions[: input_ids.shape[1]]
        states = self._norm.norm(states, self._eps)
        mask = None if attention_mask is None else attention_mask[:, None, None, :].bool()
        layer: Any
        for layer in self._first_layers:
            query, key, value = self._split(layer["query_key_value"](states), 3)
            states = self._rest(layer, states, self._attend(query, key, value, mask))
        last, first = self._last_layer, states[:, :1]
        key, value = self._split(last["key_value"](states), 2)
        (query,) = self._split(last["query"](first), 1)
        first = self._rest(last, first, self._attend(query, key, value, mask))
        return first[:, 0]

    def _split(self, states: Tensor, n: int) -> tuple[Tensor, ...]:
        """``[b, L, n * H]`` into ``n`` times ``[b, heads, L, H / heads]``."""
        rows, length, width = states.shape
        split = states.view(rows, length, n, self._heads, width // n // self._heads)
        return split.permute(2, 0, 3, 1, 4).unbind(0)

    @staticmethod
    def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return attended.transpose(1, 2).flatten(2)

    def _rest(self, layer: Any, states: Tensor, attended: Tensor) -> Tensor:
        """What follows attention: projection, feed-forward part, and the norms around them."""
        states = layer["out_norm"].norm(layer["out"](attended) + states, self._eps)
        wide = self._activation(layer["up"](states))
        normed: Tensor = layer["down_norm"].norm(layer["down"](wide) + states, self._eps)
        return normed


def _affine(weights: Mapping[str, Tensor], name: str) -> _Affine:
    return _Affine(weights[f"{name}.weight"], weights[f"{name}.bias"])


def _joined(*parts: _Affine) -> _Affine:
    """Several linear maps of one input as one."""
    return _Affine(torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]))
