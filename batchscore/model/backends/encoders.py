"""Classifiers built from their weights without transformers, for architectures with a ``Classifier`` entry.

Two reasons. Importing transformers' model code takes three times as long as importing torch, most of a nightly run over
small files. And the head uses only the state of ``[CLS]``: the last layer computes attention and the feed-forward part for
that token alone, without keys and values of the others (:meth:`Encoder.last_layer_cls`). That saves one of N layers; the
result is the same up to the order of additions.

Another architecture, other options in ``config.json``, and a missing, extra or misshapen tensor are left to transformers.

To add an encoder: a class in a module of its own, named by the ``encoder`` of its entry, with what :class:`Loadable` tells.
"""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable, Mapping
from operator import call
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import torch
from torch import nn
from torch.nn import functional

from batchscore.model.backends.architectures import BertLike, Classifier, architecture_of
from batchscore.model.backends.positions import offset_positions, relative_buckets
from batchscore.model.bundle_facts import json_file
from batchscore.model.weights import WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor


def _gelu_tanh(states: Tensor) -> Tensor:
    return functional.gelu(states, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": functional.relu,
    "silu": functional.silu,
    "swish": functional.silu,
}
"""By the names that transformers has for them."""
_ACTIVATIONS_OF_HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "tanh": torch.tanh,
}
Shapes = dict[str, tuple[int, ...]]


class Runnable(Protocol):
    """Token ids and mask ``[b, L]`` int64 (no mask: no padding) and token types (None: all 0) in."""

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits ``[b, C]``."""

    def cls_states(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """The input of the head, ``[b, H]``."""


class Loadable(Runnable, Protocol):
    """What an encoder is, for :func:`load_encoder`, :func:`encoder_of` and :func:`~batchscore.model.backends.packed.pack`."""

    packed: ClassVar[str]
    """``module:Class`` of what computes the same on one CPU core: called with the encoder and a dtype, by ``pack``."""
    cpu_only: ClassVar[bool]
    """Whether GPUs and the compiler are left to transformers."""

    def __init__(self, weights: Mapping[str, Tensor], options: Mapping[str, Any], names: Any) -> None:
        """Of tensors by name, what ``Classifier.options`` gave, and the entry itself."""

    @classmethod
    def shapes(cls, options: Mapping[str, Any], names: Any, n_labels: int) -> Shapes | None:
        """The shape of every tensor that is needed; None if an option is not supported."""

    def to(self, dtype: torch.dtype) -> Runnable:
        """The encoder with its weights in another dtype."""


class Plan(NamedTuple):
    """What a configuration asks for."""

    encoder: type[Loadable]
    options: dict[str, Any]
    names: Classifier
    shapes: Shapes

    def fits(self, found: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether these are the tensors that are needed, and no others but those that the classifier has no use for."""
        needed = {name: shape for name, shape in found.items() if not self.is_unused(name)}
        return needed == self.shapes

    def is_for(self, device: str) -> bool:
        """Whether the encoder may be on this device."""
        return device == "cpu" or not self.encoder.cpu_only

    def is_unused(self, name: str) -> bool:
        """Whether the classifier has no use for the tensor of this name."""
        return name not in self.shapes and name.startswith(self.names.unused)

    def built(self, weights: Mapping[str, Tensor]) -> Loadable:
        """The encoder of these weights."""
        return self.encoder(weights, self.options, self.names)


def load_encoder(folder: Path, dtype: torch.dtype, device: str) -> Loadable | None:
    """The classifier of a folder (see :class:`Loadable`), its weights in ``dtype`` on ``device``; None if it is not supported."""
    config = json_file(folder, "config.json")
    plan = plan_of(config)
    if plan is None or not plan.is_for(device) or not (folder / WEIGHTS).exists():
        return None
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, framework="pt") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        if not plan.fits({key: tuple(each.get_shape()) for key, each in slices.items()}):
            return None
        if any(slices[key].get_dtype() not in _STORED_DTYPES for key in plan.shapes):
            return None
        weights = {key: file.get_tensor(key).to(device, dtype) for key in plan.shapes}
    return plan.built(weights)


_STORED_DTYPES = ("F32", "F16", "BF16", "F64")


def encoder_of(
    weights: Mapping[str, Tensor], config: Mapping[str, Any], dtype: torch.dtype
) -> Loadable | None:
    """The same from the tensors and configuration of a loaded model, which stays as it is."""
    plan = plan_of(config)
    if plan is None or not plan.fits({key: tuple(value.shape) for key, value in weights.items()}):
        return None
    if not all(plan.is_for(value.device.type) for value in weights.values()):
        return None
    return plan.built({key: weights[key].detach().to(dtype) for key in plan.shapes})


def plan_of(config: Mapping[str, Any]) -> Plan | None:
    """How a configuration's classifier is built here; None if that is left to transformers."""
    names = architecture_of(config.get("model_type")).classifier
    if names is None or config.get("architectures") != [names.class_name]:
        return None
    options = names.options(config)
    encoder: type[Loadable] = pkgutil.resolve_name(names.encoder)
    shapes = None if options is None else encoder.shapes(options, names, _n_labels(config))
    return None if shapes is None or options is None else Plan(encoder, options, names, shapes)


def _n_labels(config: Mapping[str, Any]) -> int:
    """The number of labels as transformers reads it."""
    labels, number = config.get("id2label"), config.get("num_labels")
    if isinstance(labels, dict):
        return len(labels)
    return number if isinstance(number, int) else 2


class Affine(nn.Module):
    """Weight and bias of a linear layer or a layer norm."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = constant(weight), constant(bias)

    def forward(self, states: Tensor) -> Tensor:
        """The linear layer's output."""
        return functional.linear(states, self.weight, self.bias)

    def norm(self, states: Tensor, eps: float) -> Tensor:
        """The layer norm's output."""
        return functional.layer_norm(states, self.bias.shape, self.weight, self.bias, eps)


def constant(weight: Tensor) -> Tensor:
    """A weight that the compiler may treat as a constant, unless it is being trained."""
    return weight if weight.requires_grad else nn.Parameter(weight, requires_grad=False)


class Encoder(nn.Module):
    """Token ids and mask ``[b, L]`` int64 in, logits ``[b, C]`` out; no mask means no padding, no token types that all are 0."""

    packed: ClassVar[str] = "batchscore.model.backends.packed:PackedEncoder"
    cpu_only: ClassVar[bool] = False

    @classmethod
    def shapes(cls, options: Mapping[str, Any], names: BertLike, n_labels: int) -> Shapes | None:
        """See :class:`Loadable`."""
        return _shapes(options, names, n_labels) if _are_known(options) else None

    def __init__(self, weights: Mapping[str, Tensor], options: Mapping[str, Any], names: BertLike) -> None:
        super().__init__()
        embeddings = f"{names.prefix}embeddings."
        self._words = constant(weights[f"{embeddings}word_embeddings.weight"])
        positions = weights[f"{embeddings}position_embeddings.weight"][None]
        if "type_vocab_size" in options:
            positions = positions + weights[f"{embeddings}token_type_embeddings.weight"][:, None]
        self._has_types = "type_vocab_size" in options
        self._positions = constant(positions)
        """By token type and position, ``[T, P, E]``."""
        self._offset: int | None = options.get("pad_token_id")
        self._norm = _affine(weights, f"{embeddings}LayerNorm")
        project = names.project if _is_projected(options, names) else None
        self.project = None if project is None else _affine(weights, project)
        bias = names.position_bias
        self._biases = None if bias is None else constant(weights[f"{bias}.weight"])
        *paths, last = layer_paths(options, names)
        layers = {path: nn.ModuleDict(_layer(weights, names, path)) for path in paths}
        self.first_layers = nn.ModuleList(layers[path] for path in paths)
        """Those but the last one; a layer that shares its weights with another is the same module."""
        self._last_layer: Any = nn.ModuleDict(_parts(weights, names, last))
        self._pooler, self._output = _affine(weights, names.pooler), _affine(weights, names.output)
        self.heads: int = options["num_attention_heads"]
        self.eps = float(options.get("layer_norm_eps", 1e-12))
        self.activation: str = options["hidden_act"]
        """In the feed-forward part: a name of ``ACTIVATIONS``."""
        self._head_activation = _ACTIVATIONS_OF_HEADS[names.head_activation]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits ``[b, C]``, in the dtype of the weights."""
        return self.classified(self.cls_states(input_ids, attention_mask, token_type_ids))

    def cls_states(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """The state of ``[CLS]`` after the last layer, ``[b, H]``: the input of the head."""
        states = self.embedded(input_ids, token_type_ids)
        bias = self.position_bias(input_ids.shape[1])
        added = score_bias(attention_mask, bias)
        layer: Any
        for layer in self.first_layers:
            query, key, value = split_heads(layer["query_key_value"](states), 3, self.heads)
            attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=added)
            states = self._after_attention(layer, states, attended.transpose(1, 2).flatten(2))
        return self.last_layer_cls(states, attention_mask, bias)

    def embedded(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Embeddings, the input of the first layer: ``[b, L, H]``."""
        states = functional.embedding(input_ids, self._words) + self._places(input_ids, token_type_ids)
        states = self.dropped(self._norm.norm(states, self.eps), "embeddings")
        return states if self.project is None else self.project(states)

    def _places(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Embeddings of position and token type, ``[L, E]`` or ``[b, L, E]``."""
        types = token_type_ids if self._has_types else None
        if self._offset is not None:
            positions = offset_positions(input_ids, self._offset)
        elif types is None:
            return self._positions[0, : input_ids.shape[1]]
        else:
            positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        if types is None:
            return functional.embedding(positions, self._positions[0])
        places: Tensor = self._positions[types, positions]
        return places

    def position_bias(self, length: int) -> Tensor | None:
        """What is added to the scores of each head, ``[heads, L, L]``; None if nothing is."""
        if self._biases is None:
            return None
        places = torch.arange(length, device=self._biases.device)
        buckets = relative_buckets(places[None] - places[:, None], len(self._biases))
        return functional.embedding(buckets, self._biases).permute(2, 0, 1).contiguous()

    def last_layer_cls(
        self, states: Tensor, attention_mask: Tensor | None, bias: Tensor | None = None, by_rows: Any = call
    ) -> Tensor:
        """The last layer for ``[CLS]`` only: states ``[b, L, H]`` in, its state ``[b, H]`` out.

        The attention score of token *j* is ``q . (K x_j + k)``, which is ``(K' q) . x_j`` up to a term that all tokens share
        and softmax cancels; and the mean of the values is the value of the mean. So both weights are applied to one vector per
        head, not to every token; ``by_rows`` calls what does so.
        """
        cls = states[:, 0]
        weights = by_rows(self._last_queries, cls) @ states.transpose(1, 2)
        weights = weights / math.sqrt(cls.shape[1] // self.heads)
        if bias is not None:
            weights = weights + bias[:, 0]
        if attention_mask is not None:
            weights = weights.masked_fill(attention_mask[:, None, :] == 0, -math.inf)
        return by_rows(self._last_layer_of, weights.softmax(-1) @ states, cls)  # type: ignore[no-any-return]

    def _last_queries(self, cls: Tensor) -> Tensor:
        """Queries of ``[CLS]`` times the key weights, ``[b, heads, H]``; traced for any ``b`` when a model is exported."""
        query = self._last_layer["query"](cls).view(cls.shape[0], self.heads, -1)
        key = self._last_layer["key"].weight.view(self.heads, -1, cls.shape[1])
        return torch.einsum("bhd,hdk->bhk", query, key)

    def _last_layer_of(self, mean: Tensor, cls: Tensor) -> Tensor:
        """The last layer of a mean of states for each head, ``[b, heads, H]``, and ``[CLS]`` before it: ``[b, H]``."""
        affine = self._last_layer["value"]
        value = affine.weight.view(self.heads, -1, cls.shape[1])
        attended = torch.einsum("bhk,hdk->bhd", mean, value).flatten(1) + affine.bias
        return self._after_attention(self._last_layer, cls, attended)

    def classified(self, cls: Tensor) -> Tensor:
        """Logits ``[b, C]`` from the states of ``[CLS]``, ``[b, H]``."""
        pooled = self._head_activation(self._pooler(self.dropped(cls, "head_input")))
        logits: Tensor = self._output(self.dropped(pooled, "head"))
        return logits

    def dropped(self, states: Tensor, place: str) -> Tensor:  # noqa: ARG002
        """The states, which a training drops some of (see :class:`~batchscore.model.backends.architectures.Dropouts`)."""
        return states

    def _after_attention(self, layer: Any, states: Tensor, attended: Tensor) -> Tensor:
        """The rest of a layer: output projection, feed-forward part, and their norms."""
        states = layer["out_norm"].norm(self.dropped(layer["out"](attended), "out") + states, self.eps)
        wide = ACTIVATIONS[self.activation](layer["up"](states))
        normed: Tensor = layer["down_norm"].norm(self.dropped(layer["down"](wide), "down") + states, self.eps)
        return normed


def split_heads(states: Tensor, n: int, heads: int) -> tuple[Tensor, ...]:
    """Split ``[b, L, n * H]`` into ``n`` tensors ``[b, heads, L, H / heads]``; memory is shared."""
    rows, length, width = states.shape
    return states.view(rows, length, n, heads, width // n // heads).permute(2, 0, 3, 1, 4).unbind(0)


def score_bias(attention_mask: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """What torch's attention takes as its mask.

    ``[b, 1, 1, L]`` bool, or with the biases of heads ``[heads, L, L]`` their dtype ``[b or 1, heads, L, L]``; None if all
    scores stay as they are.
    """
    allowed = None if attention_mask is None else attention_mask[:, None, None, :].bool()
    if bias is None or allowed is None:
        return allowed if bias is None else bias[None]
    return torch.where(allowed, bias, -math.inf)


def _are_known(options: Mapping[str, Any]) -> bool:
    """Whether every option has a value that :class:`Encoder` obeys."""
    counts = {name: value for name, value in options.items() if name not in _NO_COUNTS}
    if not all(_is_count(value) and value >= 1 for value in counts.values()):
        return False
    pad, eps = options.get("pad_token_id", 0), options.get("layer_norm_eps", 1.0)
    return (
        _is_count(pad)
        and isinstance(eps, int | float)
        and options["hidden_act"] in ACTIVATIONS
        and options["hidden_size"] % options["num_attention_heads"] == 0
    )


_NO_COUNTS = ("pad_token_id", "layer_norm_eps", "hidden_act")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _shapes(options: Mapping[str, Any], names: BertLike, n_labels: int) -> Shapes:
    """The shape of every tensor of a classifier with BERT's layers."""
    width, wide = options["hidden_size"], options["intermediate_size"]
    narrow = options.get("embedding_size", width)
    tables = {
        "word_embeddings": "vocab_size",
        "position_embeddings": "max_position_embeddings",
        "token_type_embeddings": "type_vocab_size",
    }
    embeddings = f"{names.prefix}embeddings."
    shapes: Shapes = {
        f"{embeddings}{table}.weight": (options[size], narrow)
        for table, size in tables.items()
        if size in options
    }
    linear = {names.pooler: (width, width), names.output: (n_labels, width)}
    if _is_projected(options, names) and names.project is not None:
        linear[names.project] = (width, narrow)
    if names.position_bias is not None:
        shapes[f"{names.position_bias}.weight"] = (
            options["relative_attention_num_buckets"],
            options["num_attention_heads"],
        )
    norms = {f"{embeddings}LayerNorm": narrow}
    for path in layer_paths(options, names):
        for part, module in names.layers.modules.items():
            if part.endswith("norm"):
                norms[f"{path}.{module}"] = width
            else:
                outputs, inputs = (wide if part == "up" else width), (wide if part == "down" else width)
                linear[f"{path}.{module}"] = (outputs, inputs)
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name, size in norms.items():
        shapes |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    return shapes


def _is_projected(options: Mapping[str, Any], names: BertLike) -> bool:
    """Whether there is a module between embeddings and layers."""
    differs = options.get("embedding_size", options["hidden_size"]) != options["hidden_size"]
    return names.project is not None and (names.is_always_projected or differs)


def layer_paths(options: Mapping[str, Any], names: BertLike) -> list[str]:
    """Beginnings of the tensors' names of each layer, in the order of computation; shared weights have one name."""
    n_layers, path = options["num_hidden_layers"], f"{names.prefix}{names.layers.path}"
    if "num_hidden_groups" not in options:
        return [f"{path}.{number}" for number in range(n_layers)]
    groups = [int(number / (n_layers / options["num_hidden_groups"])) for number in range(n_layers)]
    inner = range(options["inner_group_num"])
    return [path.format(group=group, inner=each) for group in groups for each in inner]


def _parts(weights: Mapping[str, Tensor], names: BertLike, path: str) -> dict[str, nn.Module]:
    """The modules of a layer by part."""
    return {part: _affine(weights, f"{path}.{module}") for part, module in names.layers.modules.items()}


def _layer(weights: Mapping[str, Tensor], names: BertLike, path: str) -> dict[str, nn.Module]:
    """The same with queries, keys and values in one linear layer."""
    parts: dict[str, Any] = _parts(weights, names, path)
    return {"query_key_value": _fused(*(parts.pop(part) for part in ("query", "key", "value"))), **parts}


def _affine(weights: Mapping[str, Tensor], name: str) -> Affine:
    return Affine(weights[f"{name}.weight"], weights[f"{name}.bias"])


def _fused(*parts: Affine) -> Affine:
    """Fuse linear layers with the same input into one."""
    return Affine(torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]))
