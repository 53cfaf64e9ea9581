"""What decides about every bit of an answer, and whether an answer depends on its text alone.

An answer that was computed another night is the same bytes only if all is the same that kernels are chosen by: the model and the
versions of libraries, the precision, the kind of processor, and the shape of the micro-batch. Of the shape, the padded length
follows from the text (:mod:`batchscore.model.batching`). The number of rows does not; our own encoder computes alike for any number
(:func:`batchscore.model.backends.packed.in_blocks`), which each start that reuses answers proves on this machine. What transformers, a
GPU, a compiler or OpenVINO compute differs in the last bit from one number of rows to the next, so there each text
must go by itself.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.config import fingerprint
from batchscore.errors import ModelError, UsageError, printable
from batchscore.model import batching
from batchscore.system.importing import installed_version
from batchscore.version import __version__

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.model.bundle import Bundle
    from batchscore.model.scoring import Model

_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")
_COMPUTE = ("backend", "device", "precision", "padding", "long_text")
_KIND = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "cache size")
"""What ``/proc/cpuinfo`` says that kernels and their blocks are chosen by."""
_SETTINGS = ("DNNL_", "ONEDNN_", "MKL_", "ATEN_", "OMP_", "TORCH_", "CUBLAS_", "NVIDIA_")
"""How names of environment variables begin that choose kernels."""
_WIDTHS = (16, 32)
"""Tokens; padded lengths of the proof."""
_ROWS = (9, 4, 2)
"""Rows side by side in the proof: more than a block of them, and fewer."""
_COMPARED = 3
"""Rows of them that are computed alone too."""


def deciding_fingerprint(
    bundle: Bundle, compute: Mapping[str, Any], staging_format: int, *, alone: bool = False
) -> str:
    """SHA-256 (hex) over all that decides about an answer, besides its text; ``compute`` are the facts of a loaded model.

    ``alone``: whether each text goes by itself. A run that takes no answers is not asked whether its own depend on the texts
    beside them, so they are never those of texts that went alone.
    """
    computes = [*_LIBRARIES, *["openvino"] * (compute.get("backend") == "openvino")]  # which is an extra
    versions = {name: installed_version(name) for name in computes} | {"batchscore": __version__}
    return fingerprint(
        {
            "format": staging_format,
            "bundle": bundle.fingerprint,
            "labels": list(bundle.labels),
            "longest": bundle.max_length,
            "pairs": bundle.takes_pairs,
            "compute": {name: compute.get(name) for name in _COMPUTE},
            "alone": alone,
            "versions": versions,
            "machine": machine_facts(compute.get("device", "cpu")),
        }
    )


def machine_facts(device: str) -> dict[str, Any]:
    """What of this machine decides about the last bit: the kind of its processor or GPU, and settings of libraries."""
    chosen = {name: value for name, value in os.environ.items() if name.startswith(_SETTINGS)}
    chosen.pop("OMP_NUM_THREADS", None)  # each operation has one thread
    facts: dict[str, Any] = {"system": platform.machine(), "processor": _processor(), "settings": chosen}
    if device.startswith("cuda"):
        import torch

        facts["gpu"] = torch.cuda.get_device_name(device) if torch.cuda.is_available() else device
    return facts


@functools.cache
def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = (
        path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
        if path.exists()
        else []
    )
    pairs = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {name.strip(): value.strip() for name, value in pairs.items()}
    told = "\n".join(facts.get(name, "") for name in _KIND) or platform.processor()
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def refuse_dependent(model: Model) -> None:
    """Refuse a model whose answers depend on the rows beside them, as far as can be told, and prove it of others.

    Raises:
        UsageError: it computes in a way of which that is known; names the option that helps.
        ModelError: the proof failed on this machine.
    """
    if goes_alone(model):
        return
    name, device = model.backend.name, model.backend.device
    advice = "Add --max-batch-tokens 1, by which each text goes by itself (also when scoring without --reuse), or leave --reuse out."
    if name != "torch" or device != "cpu":
        raise UsageError(
            f"--reuse: with the backend {name} on {printable(device)} the last bit of an answer depends on the texts beside it, so answers "
            f"of another night would not be the bytes that scoring gives. {advice}"
        )
    if not answers_alone_are_the_same(model):
        raise ModelError(
            f"--reuse: on this machine the last bit of an answer of {printable(model.bundle.path)} depends on the texts beside it, so answers "
            f"of another night would not be the bytes that scoring gives. {advice}"
        )


def goes_alone(model: Model) -> bool:
    """Whether every text is a micro-batch of its own."""
    padding, budget = model.padding, model.inference.max_batch_tokens
    return padding.mode == "single" or padding.batch_rows(np.ones(2, dtype=np.int64), budget) == 1


def answers_alone_are_the_same(model: Model) -> bool:
    """Whether a few sequences have the same logits, bit for bit, alone and with others beside, before or behind them."""
    with model.backend.one_core_each() as begin:
        begin()
        return all(_is_alone_as_beside(model, sequences) for sequences in _proofs(model))


def _is_alone_as_beside(model: Model, sequences: Sequence[NDArray[np.int32]]) -> bool:
    alone = [_logits(model, sequences[k : k + 1])[0] for k in range(_COMPARED)]
    for rows in _ROWS:
        order = range(rows) if rows % 2 else range(rows - 1, -1, -1)
        found = _logits(model, [sequences[k] for k in order])
        if any(not np.array_equal(found[order.index(k)], alone[k]) for k in range(min(_COMPARED, rows))):
            return False
    return True


def _logits(model: Model, sequences: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
    every = np.arange(len(sequences))
    types = None
    if model.bundle.takes_pairs:
        types = [np.zeros(len(each), dtype=np.int8) for each in sequences]
    return model.backend.logits(batching.assemble(sequences, every, model.padding, types))


def _proofs(model: Model) -> list[list[NDArray[np.int32]]]:
    """Sequences of one padded length, the first of them without padding, made of the tokens of a few words."""
    padding = dataclasses.replace(model.padding, longest_probe=None)
    tokens = model.tokenizer.encode([_WORDS], "head").input_ids[0]
    found = []
    for width in _WIDTHS:
        longest = min(width, padding.longest)
        lengths = [max(longest - 2 * k, 1) if padding.pads and k < 8 else longest for k in range(max(_ROWS))]
        lengths = [n for n in lengths if padding.width(n) == padding.width(longest)] or [longest]
        found.append(
            [
                np.resize(np.roll(tokens, -k), lengths[k % len(lengths)]).astype(np.int32)
                for k in range(max(_ROWS))
            ]
        )
    return found


_WORDS = (
    "The plot is thin and the jokes are old, but the two leads play so well that nobody in the whole house looked at a clock "
    "before the last scene had ended; then all of us wanted to see it again."
)
