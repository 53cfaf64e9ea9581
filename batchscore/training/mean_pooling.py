"""Mean pooling in a model that plain ``transformers`` still loads.

Sequence classifiers of the BERT family feed their head the ``[CLS]`` state. One more encoder layer puts the mean there: its
queries and keys are zero, so attention is uniform over unpadded tokens; its value projection is the identity, and the mean,
scaled far above the residual, goes through a layer norm; its feed-forward part is zero. The pooler, if any, becomes the
identity (before its tanh). No new code, just one layer more in ``config.json``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from batchscore.errors import UsageError
from batchscore.model.backends.architectures import ARCHITECTURES

_ABOVE_RESIDUAL = 1024.0
_NORMS = ("LayerNorm.weight", "layer_norm.weight")


def append_mean_layer(model: Any) -> None:
    """Append a layer that makes the ``[CLS]`` state of a sequence classifier the mean of its tokens.

    Raises:
        UsageError: the architecture is not known to support it.
    """
    import torch

    base = model.base_model
    found = _layers(base)
    if found is None:
        known = ", ".join(each.model_type for each in ARCHITECTURES.values() if each.layers)
        raise UsageError(
            f"--pooling mean works for encoders such as {known}, not for {model.config.model_type}. Use --pooling first."
        )
    layers, modules = found
    layer = copy.deepcopy(layers[-1])
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.zero_()
            if name == f"{modules['value']}.weight":
                torch.nn.init.eye_(parameter)
            elif name == f"{modules['out']}.weight":
                torch.nn.init.eye_(parameter).mul_(_ABOVE_RESIDUAL)
            elif name.endswith(_NORMS):
                parameter.fill_(1.0)
        pooler = getattr(base, "pooler", None)
        if pooler is not None:
            torch.nn.init.eye_(pooler.dense.weight)
            pooler.dense.bias.zero_()
    layers.append(layer)
    model.config.num_hidden_layers = len(layers)


def _layers(base: Any) -> tuple[Any, Mapping[str, str]] | None:
    """The list of encoder layers and their modules, if a mean layer can be made of them."""
    for known in filter(None, (each.layers for each in ARCHITECTURES.values())):
        try:
            layers = base.get_submodule(known.path)
        except AttributeError:
            continue
        if _takes_mean(layers[-1], known.modules):
            return layers, known.modules
    return None


def _takes_mean(layer: Any, modules: Mapping[str, str]) -> bool:
    names = [name for name, _ in layer.named_parameters()]
    weights = [sum(name.endswith(f"{modules[part]}.weight") for name in names) for part in ("value", "out")]
    return weights == [1, 1] and sum(name.endswith(_NORMS) for name in names) == 2
