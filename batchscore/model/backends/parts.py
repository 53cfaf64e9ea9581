"""Linear layers and norms with or without bias, of which an encoder is made that is not BERT-like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from batchscore.model.backends import packed
from batchscore.model.backends.encoders import ACTIVATIONS, constant

if TYPE_CHECKING:
    from torch import Tensor


class Linear(nn.Module):
    """A linear layer by torch's kernels; :class:`batchscore.model.backends.packed.Linear` has the same methods."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = constant(weight)
        self.bias = None if bias is None else constant(bias)

    def forward(self, states: Tensor, activation: str = "none") -> Tensor:
        """The activation, one of ``ACTIVATIONS``, of the linear layer's output."""
        output = functional.linear(states, self.weight, self.bias)
        return output if activation == "none" else ACTIVATIONS[activation](output)

    def plus(self, states: Tensor, residual: Tensor) -> Tensor:
        """The linear layer's output and the residual added."""
        return self(states) + residual  # type: ignore[no-any-return]

    def times(self, states: Tensor, factor: Tensor) -> Tensor:
        """The linear layer's output multiplied by the factor, element by element."""
        return self(states) * factor  # type: ignore[no-any-return]


class Norm(nn.Module):
    """A layer norm; states may be of a lower precision than its weight."""

    def __init__(self, weight: Tensor, bias: Tensor | None, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = constant(weight), eps
        self.bias = None if bias is None else constant(bias)

    def forward(self, states: Tensor) -> Tensor:
        """Normalised states ``[..., H]``."""
        return functional.layer_norm(states, self.weight.shape, self.weight, self.bias, self.eps)


def linear(weights: Mapping[str, Tensor], name: str) -> Linear:
    """The linear layer of a module; no bias where the weights have none."""
    return Linear(weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def fused(*parts: Linear) -> Linear:
    """One linear layer of those with the same input."""
    weights: list[Tensor] = [part.weight for part in parts]
    biases: list[Tensor] = [part.bias for part in parts if part.bias is not None]
    return Linear(torch.cat(weights), torch.cat(biases) if biases else None)


def norm(weights: Mapping[str, Tensor], name: str, eps: float) -> Norm:
    """The norm of a module; no bias where the weights have none."""
    return Norm(weights[f"{name}.weight"], weights.get(f"{name}.bias"), eps)


def packed_layers(layers: Any, dtype: torch.dtype) -> list[dict[str, Any]]:
    """Layers, each a mapping of parts, with every :class:`Linear` packed for oneDNN in ``dtype``; norms stay as they are."""

    def prepared(part: Any) -> Any:
        return packed.Linear(part.weight, part.bias, dtype) if isinstance(part, Linear) else part

    return [{name: prepared(part) for name, part in layer.items()} for layer in layers]


def are_counts(options: Mapping[str, Any], *names: str) -> bool:
    """Whether these options are whole numbers of at least 1."""
    values = [options[name] for name in names]
    return all(isinstance(value, int) and not isinstance(value, bool) and value >= 1 for value in values)


def is_number(value: object) -> bool:
    """Whether it is a positive number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
