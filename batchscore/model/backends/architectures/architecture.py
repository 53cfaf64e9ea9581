"""The facts by which architectures differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Layers:
    """Where an encoder has its layers, and a layer its modules."""

    path: str
    """The list of layers in the base model."""
    modules: Mapping[str, str]
    """Paths in a layer of ``query``, ``key``, ``value``, ``out`` and its ``out_norm``, ``up``, ``down`` and its ``down_norm``."""


@dataclasses.dataclass(frozen=True, slots=True)
class Classifier:
    """A sequence classifier that :mod:`batchscore.model.backends.encoders` runs: names of options and tensors."""

    class_name: str
    """In ``architectures`` of ``config.json``."""
    title: str
    """For messages."""
    prefix: str
    """Prefix of the base model's tensors."""
    heads: str
    n_layers: str
    activation: str
    """Options in ``config.json`` for the numbers of heads and layers, and the feed-forward activation."""
    pooler: str
    """The module between the ``[CLS]`` state and the classifier."""
    head_activation: str
    """After the pooler: ``tanh`` or ``relu``."""
    required: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options that must have these values or be absent."""
    has_token_types: bool = False


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
