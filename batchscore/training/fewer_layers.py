"""An encoder with some of its layers: evenly spread ones, the first and the last among them.

A student that starts from every second layer of its teacher learns faster and better than one that starts anew (DistilBERT: Sanh et al.
2019, arXiv:1910.01108); which layers may be left out before fine-tuning, and at what cost, is measured by Sajjad et al. 2023 ("Poor
man's BERT", arXiv:2004.03844).

The model is built anew from a configuration that says how many layers there are, and must answer as the one whose layers were taken
out: so ``config.json`` and weights load in plain transformers, whatever else a layer's number decides in an architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.errors import UsageError, printable

if TYPE_CHECKING:
    from batchscore.model.bundle import Bundle

_PROBE_TOKENS = 12
_TOLERANCE = 1e-5


def spread_layers(n_layers: int, wanted: int) -> list[int]:
    """Which of ``n_layers`` are kept, from 0, lowest first.

    >>> spread_layers(6, 3), spread_layers(12, 6), spread_layers(6, 1)
    ([0, 2, 5], [0, 2, 4, 7, 9, 11], [0])
    """
    return [int(each) for each in np.linspace(0, n_layers - 1, wanted).round()]


def n_layers_of(base: Bundle, *, has_mean_layer: bool) -> int:
    """How many layers the configuration says that there are, without an appended mean layer; 0 if it does not say."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
    count = getattr(config.get_text_config(), "num_hidden_layers", None)
    return max(0, count - has_mean_layer) if isinstance(count, int) else 0


def with_fewer_layers(model: Any, wanted: int, *, has_mean_layer: bool) -> Any:
    """The same classifier with so many of its layers; a mean layer, which is its last one, is kept besides.

    Raises:
        UsageError: it has no more than that, they are not found, or it would not load as what it is.
    """
    import torch

    config = model.config
    count = getattr(config, "num_hidden_layers", None)
    lists = [
        (name, each)
        for name, each in model.named_modules()
        if isinstance(each, torch.nn.ModuleList) and len(each) == count
    ]
    if not lists:
        raise _refused(model, wanted, "its layers are not found")
    n_layers = len(lists[0][1]) - has_mean_layer
    if wanted > n_layers:
        raise UsageError(
            f"--student-layers {wanted}: the base model has {n_layers}. Say fewer, or leave it out."
        )
    kept = spread_layers(n_layers, wanted) + [n_layers] * has_mean_layer
    if len(kept) == len(lists[0][1]):
        return model
    path, layers = lists[0]
    before = model.config.to_dict()
    _set(model, path, torch.nn.ModuleList([layers[index] for index in kept]))
    try:
        fewer = _built_anew(model, before, kept, len(layers))
        is_same = _answer_alike(model, fewer)
    except Exception as error:  # an architecture may object to anything
        raise _refused(model, wanted, f"{type(error).__name__}: {printable(error)[:200]}") from error
    if not is_same:
        raise _refused(model, wanted, "with fewer layers it does not load as what it is")
    return fewer


def _refused(model: Any, wanted: int, reason: str) -> UsageError:
    return UsageError(
        f"--student-layers {wanted} does not work for {printable(model.config.model_type)}: {reason}. Leave it out, or take a base "
        "model of another architecture."
    )


def _set(model: Any, path: str, layers: Any) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, layers)


def _built_anew(model: Any, config: dict[str, Any], kept: Sequence[int], n_layers: int) -> Any:
    """The model by its configuration with fewer layers, with the weights that were kept."""
    name = model.config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    made = type(model.config).from_dict({**_shorter(config, kept, n_layers), name: len(kept)})
    fewer = type(model)(made).float()
    fewer.load_state_dict(model.state_dict(), strict=True)
    fewer.config.name_or_path = model.config.name_or_path
    return fewer


def _shorter(config: dict[str, Any], kept: Sequence[int], n_layers: int) -> dict[str, Any]:
    """Options that have a value for each layer keep those of the layers that are kept."""
    return {
        name: [value[index] for index in kept]
        if isinstance(value, list) and len(value) == n_layers
        else value
        for name, value in config.items()
    }


def _answer_alike(model: Any, fewer: Any) -> bool:
    """Whether both give the same logits for some tokens."""
    import torch

    from batchscore.model.backends.plain import logits_of

    config = model.config.get_text_config()
    ids = torch.arange(5, 5 + _PROBE_TOKENS)[None] % config.vocab_size
    if isinstance(config.eos_token_id, int):  # the heads of some look for the end of a text
        ids[0, -1] = config.eos_token_id
    was_training = model.training
    with torch.inference_mode():
        answers = [
            logits_of(each(input_ids=ids, attention_mask=torch.ones_like(ids)))
            for each in (model.eval(), fewer.eval())
        ]
    fewer.train(was_training)
    return bool(torch.allclose(answers[0], answers[1], rtol=_TOLERANCE, atol=_TOLERANCE))
