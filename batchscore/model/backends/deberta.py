"""DeBERTa-v2 and v3 (He et al. 2021, arXiv:2006.03654 and 2111.09543), whose scores have three terms.

A query meets a key, the query meets the key's relative position (``c2p``), and the key meets the query's (``p2c``). Relative
positions fall into buckets, the same for all tokens, so what a layer makes of them is computed once, when the weights are
loaded. A query's products with a table ordered by distance hold its scores with all keys in a row, and those of the next query
one place further: the scores are the table's products seen with a stride less by one, and nothing is gathered
(:func:`_by_distance`). Tokens go through that in blocks, so that few products lie beyond the text.

The head uses only ``[CLS]``, so that the last layer is computed for one token a row, keys apart.

In bfloat16 products are bfloat16, and the sum of the three terms and its softmax float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from batchscore.model.backends.encoders import ACTIVATIONS, Shapes, constant
from batchscore.model.backends.parts import Linear, are_counts, fused, is_number, linear, norm, packed_layers

if TYPE_CHECKING:
    from torch import Tensor

    from batchscore.model.backends.architectures import Classifier

_BLOCK = 64
"""Tokens whose products with a table of distances are computed together."""
_TILE = 1 << 18
"""Scores computed at a time, of a core's L2 cache; more for a row of more than 512 tokens."""
_TERMS = ("c2p", "p2c")
_ACTIVATIONS_OF_HEADS = {**ACTIVATIONS, "tanh": torch.tanh}


class _Positions(nn.Module):
    """What a layer makes of relative positions, by bucket; None for a term that it lacks."""

    def __init__(self, keys: Tensor | None, queries: Tensor | None) -> None:
        super().__init__()
        self.keys = None if keys is None else constant(keys)
        """That queries meet (``c2p``), ``[heads, buckets, d]``."""
        self.queries = None if queries is None else constant(queries)
        """That keys meet (``p2c``), divided by the scale of scores, ``[heads, buckets, d]``."""


class DebertaV2(nn.Module):
    """Token ids and mask ``[b, L]`` int64 in, logits ``[b, C]`` out; no mask means no padding, no token types that all are 0."""

    packed: ClassVar[str] = "batchscore.model.backends.deberta:packed"
    cpu_only: ClassVar[bool] = True

    @classmethod
    def shapes(cls, options: Mapping[str, Any], names: Classifier, n_labels: int) -> Shapes | None:
        """See :class:`~batchscore.model.backends.encoders.Loadable`."""
        return _shapes(options, names.prefix, n_labels) if _are_known(options) else None

    def __init__(self, weights: Mapping[str, Tensor], options: Mapping[str, Any], names: Classifier) -> None:
        super().__init__()
        prefix, eps = names.prefix, float(options["layer_norm_eps"])
        self._heads: int = options["num_attention_heads"]
        self._activation: str = options["hidden_act"]
        self._scale = _scale(options)
        self._span, self._n_buckets, self._furthest = _distances(options)
        self._terms = _terms(options) if options["relative_attention"] else []
        tables = {
            table: constant(weights[f"{prefix}embeddings.{table}_embeddings.weight"])
            for table in ("word", "position", "token_type")
            if f"{prefix}embeddings.{table}_embeddings.weight" in weights
        }
        self._tables = nn.ParameterDict(tables)
        is_projected = f"{prefix}embeddings.embed_proj.weight" in weights
        self._project = linear(weights, f"{prefix}embeddings.embed_proj") if is_projected else None
        self._norm = norm(weights, f"{prefix}embeddings.LayerNorm", eps)
        relative = _relative_embeddings(weights, options, f"{prefix}encoder.")
        layers = [
            self._layer(weights, f"{prefix}encoder.layer.{number}", eps, relative)
            for number in range(options["num_hidden_layers"])
        ]
        self._last: Any = nn.ModuleDict(layers.pop())
        """Computed for ``[CLS]`` alone."""
        for layer in layers:
            layer["query_key_value"] = fused(*(layer.pop(part) for part in ("query", "key", "value")))
        self.layers: Any = nn.ModuleList(map(nn.ModuleDict, layers))
        self._pooler, self._classifier = linear(weights, "pooler.dense"), linear(weights, "classifier")
        self._head_activation = _ACTIVATIONS_OF_HEADS[options["pooler_hidden_act"]]
        self._packed_dtype: torch.dtype | None = None
        self._packed_key: Any = None

    def _layer(
        self, weights: Mapping[str, Tensor], path: str, eps: float, relative: Tensor | None
    ) -> dict[str, Any]:
        """The parts of a layer; queries are divided by the scale of scores beforehand."""
        attention = f"{path}.attention.self."
        query, key = linear(weights, f"{attention}query_proj"), linear(weights, f"{attention}key_proj")
        found: dict[str, Tensor | None] = dict.fromkeys(_TERMS)
        for term, own, shared in (("c2p", "pos_key_proj", key), ("p2c", "pos_query_proj", query)):
            if term in self._terms and relative is not None:
                is_own = f"{attention}{own}.weight" in weights
                made = (linear(weights, f"{attention}{own}") if is_own else shared)(relative)
                found[term] = made.unflatten(-1, (self._heads, -1)).transpose(0, 1).contiguous()
        at_keys = None if found["p2c"] is None else found["p2c"] / self._scale
        return {
            "query": Linear(
                *(weights[f"{attention}query_proj.{part}"] / self._scale for part in ("weight", "bias"))
            ),
            "key": key,
            "value": linear(weights, f"{attention}value_proj"),
            "positions": _Positions(found["c2p"], at_keys),
            "out": linear(weights, f"{path}.attention.output.dense"),
            "out_norm": norm(weights, f"{path}.attention.output.LayerNorm", eps),
            "up": linear(weights, f"{path}.intermediate.dense"),
            "down": linear(weights, f"{path}.output.dense"),
            "down_norm": norm(weights, f"{path}.output.LayerNorm", eps),
        }

    def pack(self, dtype: torch.dtype) -> None:
        """Pack the linear layers for oneDNN in ``dtype``, but for those that see one token a row."""
        layers = packed_layers(self.layers, dtype)
        for layer in layers:
            layer["positions"] = layer["positions"].to(dtype)
        del self.layers
        self.layers, self._packed_dtype = layers, dtype
        (last,) = packed_layers([{"key": self._last.pop("key")}], dtype)
        self._packed_key = last["key"]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits ``[b, C]``, in the dtype of the embeddings."""
        cls = self.cls_states(input_ids, attention_mask, token_type_ids)
        logits: Tensor = self._classifier(self._head_activation(self._pooler(cls)))
        return logits

    def cls_states(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """The state of ``[CLS]`` after the last layer, ``[b, H]``: the input of the head."""
        embedded = self._embedded(input_ids, token_type_ids)
        states = self._narrow(embedded)
        buckets = _buckets(input_ids.shape[1], self._span, self._n_buckets, self._furthest).to(states.device)
        for layer in self.layers:
            attended = self._attention(
                layer["query_key_value"](states), layer["positions"], attention_mask, buckets
            )
            states = layer["out_norm"](layer["out"].plus(attended, states))
            wide = layer["up"](states, self._activation)
            states = layer["down_norm"](layer["down"].plus(wide, states))
        return self._last_layer_cls(states.to(embedded.dtype), attention_mask, buckets)

    def _narrow(self, states: Tensor) -> Tensor:
        """States in the dtype of the products."""
        return states.to(self._packed_dtype or states.dtype)

    def _embedded(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Embeddings, the input of the first layer: ``[b, L, H]``."""
        states = functional.embedding(input_ids, self._tables["word"])
        if "position" in self._tables:
            states = states + self._tables["position"][: input_ids.shape[1]]
        if "token_type" in self._tables:
            types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            states = states + functional.embedding(types, self._tables["token_type"])
        normed: Tensor = self._norm(states if self._project is None else self._project(states))
        return normed

    def _attention(
        self, query_key_value: Tensor, positions: Any, mask: Tensor | None, buckets: Tensor
    ) -> Tensor:
        """Attention of all tokens: ``[b, L, 3 H]`` in, ``[b, L, H]`` out."""
        rows, length, width = query_key_value.shape
        # one head after the other, so that each is contiguous: [3, heads, b, L, d]
        heads = query_key_value.view(rows, length, 3, self._heads, -1).permute(2, 3, 0, 1, 4).contiguous()
        attended = query_key_value.new_empty(rows, length, self._heads, width // 3 // self._heads)
        at_queries, at_keys = _tables_by_distance(positions, buckets)
        masked = None if mask is None else (mask == 0)[:, None, :]
        for head in range(self._heads):
            query, key, value = heads[:, head]
            tables = (
                None if at_queries is None else at_queries[head],
                None if at_keys is None else at_keys[head],
            )
            for some, queries in _tiles(rows, length):
                scores = _scores(query[some], key[some], queries, *tables)
                if masked is not None:
                    scores.masked_fill_(masked[some], torch.finfo(scores.dtype).min)
                weights = scores.softmax(-1).to(value.dtype)
                attended[some, queries, head] = weights @ value[some]
        return attended.flatten(2)

    def _last_layer_cls(self, states: Tensor, mask: Tensor | None, buckets: Tensor) -> Tensor:
        """The last layer for ``[CLS]`` only: states ``[b, L, H]`` in, its state ``[b, H]`` out.

        The mean of the values is the value of the mean.
        """
        layer, positions = self._last, self._last["positions"]
        cls = states[:, 0]
        rows, length, width = states.shape
        query = layer["query"](cls).view(rows, self._heads, -1)
        key = (self._packed_key or layer["key"])(self._narrow(states)).view(rows, length, self._heads, -1)
        key = key.to(query.dtype)
        ahead = buckets[:length].flip(0)
        """Of the distances from the first token to each."""
        scores = torch.einsum("bhd,blhd->bhl", query, key)
        if positions.keys is not None:
            scores = scores + torch.einsum("bhd,hld->bhl", query, positions.keys[:, ahead])
        if positions.queries is not None:
            scores = scores + torch.einsum("blhd,hld->bhl", key, positions.queries[:, ahead])
        if mask is not None:
            scores = scores.masked_fill(mask[:, None, :] == 0, -math.inf)
        mean = scores.softmax(-1) @ states
        value = layer["value"].weight.view(self._heads, -1, width)
        attended = torch.einsum("bhk,hdk->bhd", mean, value).flatten(1) + layer["value"].bias
        cls = layer["out_norm"](layer["out"](attended) + cls)
        return layer["down_norm"](layer["down"](layer["up"](cls, self._activation)) + cls)  # type: ignore[no-any-return]


def packed(encoder: DebertaV2, dtype: torch.dtype) -> DebertaV2:
    """The encoder itself, its linear layers packed in ``dtype``."""
    encoder.pack(dtype)
    return encoder


def _tables_by_distance(positions: Any, buckets: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """What queries meet by key's place less query's, and keys by query's place less key's: ``[heads, 2 L - 1, d]`` each."""
    at_queries = None if positions.keys is None else positions.keys[:, buckets.flip(0)]
    at_keys = None if positions.queries is None else positions.queries[:, buckets]
    return at_queries, at_keys


def _tiles(rows: int, length: int) -> Iterator[tuple[slice, slice]]:
    """Rows and queries whose scores are computed at a time: whole rows, or of a very long one some queries."""
    step = max(1, _TILE // (length * length))
    queries = length if length <= 1024 else max(_BLOCK, 4 * _TILE // length)
    for start in range(0, rows, step):
        for first in range(0, length, queries):
            yield slice(start, min(start + step, rows)), slice(first, min(first + queries, length))


def _scores(
    query: Tensor, key: Tensor, queries: slice, at_queries: Tensor | None, at_keys: Tensor | None
) -> Tensor:
    """Scores of some queries of a head with all keys: ``[b, L, d]`` in, ``[b, queries, L]`` float32 or wider out.

    ``at_queries`` and ``at_keys`` are tables by distance, ``[2 L - 1, d]``, or None.
    """
    rows, length, _ = query.shape
    some = query[:, queries]
    n = some.shape[1]
    scores = torch.zeros if at_queries is None else torch.empty
    found: Tensor = scores(rows, n, length, dtype=torch.promote_types(query.dtype, torch.float32))
    if at_queries is not None:
        for start, stop in _blocks(n):
            first = length - queries.start - stop
            table = at_queries[first : first + length + stop - start - 1]
            found[:, start:stop] = _by_distance(some[:, start:stop], table)
    if at_keys is not None:
        for start, stop in _blocks(length):
            first = length + queries.start - stop
            table = at_keys[first : first + n + stop - start - 1]
            found[:, :, start:stop] += _by_distance(key[:, start:stop], table).transpose(1, 2)
    if found.dtype == query.dtype:
        return found.baddbmm_(some, key.transpose(1, 2))
    return found.add_(some @ key.transpose(1, 2))


def _blocks(length: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, _BLOCK):
        yield start, min(start + _BLOCK, length)


def _by_distance(states: Tensor, table: Tensor) -> Tensor:
    """Products of successive tokens ``[b, m, d]`` with what stands at each distance from them, ``[m + n - 1, d]``: ``[b, m, n]``.

    The first row of the table is the distance from the last token to the first of the ``n`` others. Token *i* has the others
    at its columns ``m - 1 - i`` onwards, so seen with a stride of one less they lie below one another.

    >>> _by_distance(torch.ones(1, 2, 1), torch.tensor([[-1.], [0.], [1.], [2.]])).tolist()
    [[[0.0, 1.0, 2.0], [-1.0, 0.0, 1.0]]]
    """
    rows, m, width = states.shape
    columns = len(table)
    products = states.reshape(rows * m, width) @ table.T
    return products.as_strided((rows, m, columns - m + 1), (m * columns, columns - 1, 1), m - 1)


def _buckets(length: int, span: int, n_buckets: int, furthest: int) -> Tensor:
    """The row in the table of relative positions of each distance from ``1 - L`` to ``L - 1``, int64 ``[2 L - 1]``.

    Half of the buckets are one distance each, the others grow as the logarithm does. Computed as transformers does it, in
    float32 by the same operations: one that is rounded another way would be in the next bucket.
    """
    distance = torch.arange(1 - length, length)
    if n_buckets > 0:
        exact = n_buckets // 2
        steps = distance.abs().clamp(min=exact - 1)
        far = torch.log(steps / exact) / torch.log(torch.tensor((furthest - 1) / exact)) * (exact - 1)
        far = torch.ceil(far) + exact
        distance = torch.where(steps <= exact, distance.float(), far * distance.sign()).long()
    return (distance + span).clamp(0, 2 * span - 1)


def _relative_embeddings(
    weights: Mapping[str, Tensor], options: Mapping[str, Any], prefix: str
) -> Tensor | None:
    """The table of relative positions, ``[2 * span, H]``; None if there is none."""
    if not options["relative_attention"]:
        return None
    table = weights[f"{prefix}rel_embeddings.weight"]
    if not _is_table_normed(options):
        return table
    return norm(weights, f"{prefix}LayerNorm", float(options["layer_norm_eps"]))(table)  # type: ignore[no-any-return]


def _terms(options: Mapping[str, Any]) -> list[str]:
    """The terms of the scores beside that of query and key."""
    found = options["pos_att_type"] or []
    return [term.strip() for term in found.lower().split("|")] if isinstance(found, str) else list(found)


def _scale(options: Mapping[str, Any]) -> float:
    """What scores are divided by; terms count though there be no relative positions."""
    width = options["hidden_size"] // options["num_attention_heads"]
    return math.sqrt(width * (1 + len(set(_terms(options)))))


def _distances(options: Mapping[str, Any]) -> tuple[int, int, int]:
    """The distances told apart in one direction, the number of buckets (not positive: none), the furthest distance."""
    furthest, n_buckets = options["max_relative_positions"], options["position_buckets"]
    if furthest < 1:
        furthest = options["max_position_embeddings"]
    return n_buckets if n_buckets > 0 else furthest, n_buckets, furthest


def _is_table_normed(options: Mapping[str, Any]) -> bool:
    return "layer_norm" in [part.strip() for part in options["norm_rel_ebd"].lower().split("|")]


def _are_known(options: Mapping[str, Any]) -> bool:
    """Whether every option has a value that :class:`DebertaV2` obeys."""
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    if not are_counts(options, *sizes, "max_position_embeddings"):
        return False
    flags = ("position_biased_input", "relative_attention", "share_att_key")
    width, heads = options["hidden_size"], options["num_attention_heads"]
    return (
        width % heads == 0
        and options["attention_head_size"] in (None, width // heads)
        and options["pooler_hidden_size"] in (None, width)
        and (options["embedding_size"] is None or are_counts(options, "embedding_size"))
        and all(isinstance(options[name], bool) for name in flags)
        and options["hidden_act"] in ACTIVATIONS
        and options["pooler_hidden_act"] in _ACTIVATIONS_OF_HEADS
        and is_number(options["layer_norm_eps"])
        and isinstance(options["norm_rel_ebd"], str)
        and _are_known_positions(options)
    )


def _are_known_positions(options: Mapping[str, Any]) -> bool:
    kinds, numbers = (
        options["pos_att_type"],
        ("type_vocab_size", "max_relative_positions", "position_buckets"),
    )
    if not all(type(options[name]) is int for name in numbers) or options["type_vocab_size"] < 0:
        return False
    if not (kinds is None or isinstance(kinds, str | list)):
        return False
    terms = _terms(options)
    _, n_buckets, furthest = _distances(options)
    has_buckets = n_buckets < 1 or (n_buckets >= 4 and furthest - 1 > n_buckets // 2)
    return set(terms) <= set(_TERMS) and has_buckets


def _shapes(options: Mapping[str, Any], prefix: str, n_labels: int) -> Shapes:
    """The shape of every tensor."""
    width, wide = options["hidden_size"], options["intermediate_size"]
    narrow = options["embedding_size"] or width
    shapes: Shapes = {f"{prefix}embeddings.word_embeddings.weight": (options["vocab_size"], narrow)}
    if options["position_biased_input"]:
        shapes[f"{prefix}embeddings.position_embeddings.weight"] = (
            options["max_position_embeddings"],
            narrow,
        )
    if options["type_vocab_size"]:
        shapes[f"{prefix}embeddings.token_type_embeddings.weight"] = (options["type_vocab_size"], narrow)
    if narrow != width:
        shapes[f"{prefix}embeddings.embed_proj.weight"] = (width, narrow)
    if options["relative_attention"]:
        shapes[f"{prefix}encoder.rel_embeddings.weight"] = (2 * _distances(options)[0], width)
    linears = {"pooler.dense": (width, width), "classifier": (n_labels, width)}
    norms = [f"{prefix}embeddings.LayerNorm", *[f"{prefix}encoder.LayerNorm"] * _is_table_normed(options)]
    for number in range(options["num_hidden_layers"]):
        path = f"{prefix}encoder.layer.{number}"
        projections = [f"{name}_proj" for name in ("query", "key", "value")] + _own_projections(options)
        linears |= {f"{path}.attention.self.{name}": (width, width) for name in projections}
        linears[f"{path}.attention.output.dense"] = (width, width)
        linears[f"{path}.intermediate.dense"] = (wide, width)
        linears[f"{path}.output.dense"] = (width, wide)
        norms += [f"{path}.attention.output.LayerNorm", f"{path}.output.LayerNorm"]
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in norms:
        shapes |= {f"{name}.{part}": (width,) for part in ("weight", "bias")}
    return shapes


def _own_projections(options: Mapping[str, Any]) -> list[str]:
    """The linear layers of relative positions; none where those of tokens are shared."""
    if options["share_att_key"] or not options["relative_attention"]:
        return []
    names = {"c2p": "pos_key_proj", "p2c": "pos_query_proj"}
    return [name for term, name in names.items() if term in _terms(options)]
