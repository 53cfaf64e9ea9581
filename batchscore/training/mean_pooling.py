"""The mean of all tokens as the head's input, in a model that plain ``transformers`` still loads.

Sequence classifiers of the BERT family hand their head the first token. One more encoder layer puts the mean there: its
queries and keys are zero, so that attention is uniform over the tokens that are not padding; its values are the tokens
themselves, and their mean, scaled far above the residual, goes through a layer norm; its feed-forward part is zero. The
pooler, where there is one, passes on what it gets (through its tanh). No new code, one layer more in ``config.json``.
"""

from __future__ import annotations

import copy
from typing import Any

from batchscore.errors import UsageError

_ABOVE_RESIDUAL = 1024.0
MODEL_TYPES = frozenset(("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"))
"""Architectures of which this is known to hold."""
_LAYERS = ("encoder.layer", "transformer.layer")
"""Where BERT and its kin, and DistilBERT, keep their layers."""
_VALUES = ("attention.self.value.weight", "attention.v_lin.weight")
_OUTPUTS = ("attention.output.dense.weight", "attention.out_lin.weight")
_NORMS = ("LayerNorm.weight", "layer_norm.weight")


def append_mean_layer(model: Any) -> None:
    """Give a sequence classifier the mean of its tokens where its head looks for the first one.

    Raises:
        UsageError: the architecture is not known to be of this kind.
    """
    import torch

    base = model.base_model
    layers = _layers(base)
    if layers is None:
        raise UsageError(
            f"--pooling mean works for BERT, DistilBERT and their kin, not for {model.config.model_type}. Use "
            "--pooling first."
        )
    layer = copy.deepcopy(layers[-1])
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.zero_()
            if name in _VALUES:
                torch.nn.init.eye_(parameter)
            elif name in _OUTPUTS:
                torch.nn.init.eye_(parameter).mul_(_ABOVE_RESIDUAL)
            elif name.endswith(_NORMS):
                parameter.fill_(1.0)
        pooler = getattr(base, "pooler", None)
        if pooler is not None:
            torch.nn.init.eye_(pooler.dense.weight)
            pooler.dense.bias.zero_()
    layers.append(layer)
    model.config.num_hidden_layers = len(layers)


def _layers(base: Any) -> Any:
    """The list of encoder layers, if each is made as the layer that is to be added must be."""
    for place in _LAYERS:
        try:
            layers = base.get_submodule(place)
        except AttributeError:
            continue
        names = [name for name, _ in layers[-1].named_parameters()]
        kinds = [sum(name.endswith(kind) for name in names) for kind in (_VALUES, _OUTPUTS, _NORMS)]
        if kinds == [1, 1, 2]:
            return layers
    return None
