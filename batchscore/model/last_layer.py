"""Rescale the logits of a saved classifier by rewriting its last linear layer.

A temperature that is divided into the weights is there for everybody: plain ``pipeline("text-classification", folder)`` then
gives the calibrated probabilities. Likewise a regression that was trained on standardised values gives them in their own unit.

The layer is found by running the model: of the linear layers with one output a label, the one that runs last. Whether its
outputs are the logits, and the rewritten model does what it should, is tested on a few texts, not looked up.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.errors import printable
from batchscore.model.bundle_facts import json_file
from batchscore.model.probing import probe_texts
from batchscore.model.tokenization import Tokenizer
from batchscore.model.weights import INDEX, WEIGHTS
from batchscore.system.storage import atomic_write

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from batchscore.model.bundle import Bundle

_LOG = logging.getLogger(__name__)
_LONGEST = 64
"""Tokens of the longest text of the test."""
_TOLERANCE = 1e-5
"""The largest difference in a logit, relative to 1 plus the largest."""


def rescale_logits(bundle: Bundle, scale: float, shift: float = 0.0) -> bool:
    """Rewrite the weights of an unsealed folder so that its logits are ``scale * logits + shift``; whether that was possible.

    It is not, and the folder stays as it was, if the logits are no linear layer's own outputs, if the layer shares its
    weights with another or, with a ``shift``, has no bias. The layer is stored in float32. Open the folder again afterwards.

    Raises:
        ModelError: the model cannot be loaded.
        OSError: the weights cannot be written.
    """
    import torch

    from batchscore.model.backends.plain import Reference, load_plain

    model = load_plain(bundle, torch.float32).eval()
    reference = Reference(bundle, model)
    tokenizer = Tokenizer(bundle)
    tokenizer = tokenizer.cut_at(min(tokenizer.max_length, _LONGEST))
    inputs = [reference.inputs(text, tokenizer.max_length) for text in probe_texts(tokenizer)]
    before = np.stack([reference.answer(each).logits for each in inputs])
    name = last_linear_layer(model, inputs[-1], len(bundle.labels))
    if name is None or (shift and model.get_submodule(name).bias is None):
        _LOG.info("%s: no last layer whose weights could be rescaled", printable(bundle.path))
        return False
    found = _file_of(bundle.path, model, name)
    tensors = _rescale(model.get_submodule(name), name, scale, shift)
    after = np.stack([reference.answer(each).logits for each in inputs])
    if found is None or not _agree(after, before.astype(np.float64) * scale + shift):
        _LOG.info("%s: its logits do not follow the weights of %s", printable(bundle.path), name)
        return False
    _rewrite(found, tensors)
    return True


def last_linear_layer(model: Any, inputs: Any, n_outputs: int) -> str | None:
    """The name of the linear layer with ``n_outputs`` outputs that runs last; None without one, or if its weights are shared.

    ``inputs`` are those of one text.
    """
    import torch

    from batchscore.model.backends.plain import answer_of, fresh_copy

    called: list[str] = []
    probed = fresh_copy(model)
    for name, module in probed.named_modules():
        if isinstance(module, torch.nn.Linear) and module.out_features == n_outputs:
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.inference_mode():
        answer_of(probed, inputs.to(model.device))
    if not called:
        return None
    weight = model.get_submodule(called[-1]).weight
    users = [name for name, each in model.named_parameters(remove_duplicate=False) if each is weight]
    return called[-1] if len(users) == 1 else None


def _rescale(layer: Any, name: str, scale: float, shift: float) -> dict[str, Tensor]:
    """Rescale the layer in memory; its new tensors by name."""
    import torch

    with torch.no_grad():
        layer.weight.copy_(layer.weight.double() * scale)
        if layer.bias is not None:
            layer.bias.copy_(layer.bias.double() * scale + shift)
    parts = {"weight": layer.weight, "bias": layer.bias}
    return {
        f"{name}.{part}": each.detach().clone().contiguous()
        for part, each in parts.items()
        if each is not None
    }


def _agree(found: NDArray[np.float32], expected: NDArray[np.float64]) -> bool:
    difference = np.abs(found - expected) / (1 + np.abs(expected).max())
    return bool(difference.max() <= _TOLERANCE)  # false for NaN


def _file_of(folder: Path, model: Any, name: str) -> Path | None:
    """The file with the layer's tensors, if they are there under the names and with the values that the model has."""
    from safetensors import safe_open

    names = [each for each in model.state_dict() if each.rpartition(".")[0] == name]
    path = folder / WEIGHTS
    if not path.exists():
        files = json_file(folder, INDEX)["weight_map"]
        if len({files.get(each) for each in names}) != 1:
            return None
        path = folder / str(files.get(names[0]))
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        stored = set(file.keys())
        is_same = all(
            each in stored and file.get_tensor(each).float().equal(model.get_parameter(each).cpu())
            for each in names
        )
    return path if is_same else None


def _rewrite(path: Path, tensors: dict[str, Tensor]) -> None:
    """Replace tensors in a file."""
    from safetensors import safe_open
    from safetensors.torch import save

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    content = save({**kept, **{name: each.cpu() for name, each in tensors.items()}}, metadata)
    with atomic_write(path) as out:
        out.write(content)
