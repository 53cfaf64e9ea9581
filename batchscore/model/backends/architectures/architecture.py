"""The facts about an architecture that differ from one to another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Layers:
    """Where an encoder keeps its layers, and each of them its modules."""

    path: str
    """Of the list of layers, in the base model."""
    modules: Mapping[str, str]
    """Paths in a layer of ``query``, ``key``, ``value``, ``out`` and its ``out_norm``, ``up``, ``down`` and its ``down_norm``."""


@dataclasses.dataclass(frozen=True, slots=True)
class Classifier:
    """A sequence classifier that :mod:`batchscore.model.backends.encoders` computes: names in ``config.json`` and of tensors."""

    class_name: str
    """In ``architectures`` of ``config.json``."""
    title: str
    """For messages."""
    prefix: str
    """Of the base model's tensors."""
    heads: str
    n_layers: str
    activation: str
    """Options with the number of attention heads and layers, and the activation of the feed-forward part."""
    pooler: str
    """The tensor's module between the first token's state and the classifier."""
    head_activation: str
    """Behind the pooler: ``tanh`` or ``relu``."""
    required: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options that must have this value, or be absent."""
    has_token_types: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Architecture:
    """One ``model_type`` of transformers, as far as anything but transformers has to know it."""

    model_type: str
    layers: Layers | None = None
    """Of an encoder whose tokens all look at all others and whose head looks at the first one; None for anything else."""
    classifier: Classifier | None = None
    """None where transformers computes."""
    has_offset_positions: bool = False
    """Whether positions are numbered from ``pad_token_id + 1`` on, so that the longest input is shorter than their table."""
    tokenizers: tuple[str, ...] = ()
    """Classes of its tokenizers of which ``tokenizer.json`` holds everything."""
