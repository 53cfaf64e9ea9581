"""The facts by which architectures differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

REQUIRED: Mapping[str, Any] = {
    "add_cross_attention": False,
    "chunk_size_feed_forward": 0,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "position_embedding_type": "absolute",
    "pruned_heads": {},
    "quantization_config": None,
}
"""Options that must have these values or be absent, whatever the architecture."""


@dataclasses.dataclass(frozen=True, slots=True)
class Layers:
    """Where an encoder has its layers, and a layer its modules."""

    path: str
    """The list of layers in the base model."""
    modules: Mapping[str, str]
    """Paths in a layer of ``query``, ``key``, ``value``, ``out`` and its ``out_norm``, ``up``, ``down`` and its ``down_norm``."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Classifier:
    """A sequence classifier that is computed by an encoder of ours: its names, and the options that its code reads."""

    class_name: str
    """In ``architectures`` of ``config.json``."""
    title: str
    """For messages."""
    encoder: str
    """``module:Class`` of the encoder; what such a class has is told in :mod:`batchscore.model.backends.encoders`."""
    prefix: str
    """Prefix of the base model's tensors."""
    defaults: Mapping[str, Any]
    """Options that an answer depends on, with the values that they have where ``config.json`` lacks them."""
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Names of options in its ``config.json`` that are others than in ``defaults``."""
    required: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options that must have these values or be absent, beside those of every architecture."""
    unused: tuple[str, ...] = ()
    """Beginnings of names of tensors that the classifier has no use for, as in folders that were saved for another task."""

    def options(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """The options by their names in ``defaults``; None if one that must have a value has another.

        Values are not looked at otherwise. An option that is there under two names is not guessed at.
        """
        required = {**REQUIRED, **self.required}
        if any(config.get(name, value) not in (value, None) for name, value in required.items()):
            return None
        if any(name in config and other in config for name, other in self.renamed.items()):
            return None
        names = {name: self.renamed.get(name, name) for name in self.defaults}
        return {name: config.get(names[name], default) for name, default in self.defaults.items()}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Dropouts:
    """Where a classifier has its modules of dropout; None: nowhere."""

    embeddings: str = "embeddings.dropout"
    """After the norm of the embeddings; a path in the base model."""
    out: str | None = "attention.output.dropout"
    """After a layer's ``out``; a path in the layer."""
    down: str = "output.dropout"
    """After its ``down``."""
    head_input: str | None = None
    """Before the pooler; a path in the classifier."""
    head: str = "dropout"
    """Before ``output``."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BertLike(Classifier):
    """One with BERT's layers: attention, then a norm after it; feed-forward part, then a norm after it."""

    encoder: str = "batchscore.model.backends.encoders:Encoder"
    layers: Layers
    pooler: str
    """The module between the ``[CLS]`` state and ``output``."""
    head_activation: str
    """After the pooler: ``tanh``, ``relu`` or ``gelu``."""
    output: str = "classifier"
    """The module that has a row for each label."""
    project: str | None = None
    """The module from the width of embeddings to that of the layers."""
    is_always_projected: bool = False
    """Whether ``project`` is there even if both have one width."""
    position_bias: str | None = None
    """The table of relative attention biases."""
    dropouts: Dropouts | None = None
    """None if its training is left to transformers."""


@dataclasses.dataclass(frozen=True, slots=True)
class Architecture:
    """What our own code needs to know about a ``model_type`` of transformers."""

    model_type: str
    layers: Layers | None = None
    """Set for an encoder with full bidirectional attention and a head on ``[CLS]``; else None."""
    classifier: Classifier | None = None
    """None if transformers runs it."""
    has_offset_positions: bool = False
    """Whether positions start at ``pad_token_id + 1``, so that the longest input is shorter than the position table."""
    tokenizers: tuple[str, ...] = ()
    """Its tokenizer classes that ``tokenizer.json`` fully describes."""
