"""Add an int8 variant for OpenVINO to a bundle, with parity figures against float32.

Weights and activations of matmuls are quantised to 8-bit integers. The scales are calibrated on training rows that the
trainer stored in the bundle, and the predictions compared on evaluation rows stored there too. A bundle without them is
calibrated on the package's sample reviews, and says so.

The variant's files are written first, named by their content, and become part of the bundle when ``batchscore.json`` is
replaced. If the export is killed at any point, the bundle is either the old one or the new one.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore import samples
from batchscore.errors import ModelError, missing_extra, printable
from batchscore.model import batching
from batchscore.model.backends.openvino_backend import OpenVinoBackend, import_openvino
from batchscore.model.backends.torch_backend import TorchBackend
from batchscore.model.bundle import INT8_LIMITS, VARIANTS, Bundle, open_bundle, seal, sign_bundle
from batchscore.model.bundle_facts import parity_problems
from batchscore.model.loading import DEFAULT_BATCH_TOKENS
from batchscore.model.probing import probe
from batchscore.model.scoring import InferenceSettings, Model, compute, conclude, prepare
from batchscore.model.signing import signing_key
from batchscore.model.tokenization import Tokenizer
from batchscore.records import Task
from batchscore.system.own_paths import own_folder
from batchscore.system.storage import atomic_write, make_folder, remove_file, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from batchscore.records import Text

_LOG = logging.getLogger(__name__)
_LAST_MATMULS = 8
"""In the last layer: query, attention scores, weighted mean, projection, both feed-forward matmuls; pooler, classifier."""
_CALIBRATION, _HELD_OUT = 128, 200
"""Texts taken from the sample reviews if the bundle stores none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Exported:
    """What ``export`` did."""

    bundle: Path
    file: str
    parity: dict[str, Any]
    problems: tuple[str, ...]
    """Limits that it exceeds; if any, ``--precision int8`` refuses it."""


def export_int8(path: str, sign: Path | None = None) -> Exported:
    """Quantise the bundle's model, measure how its predictions change, and seal both into the bundle.

    A signature of the bundle is removed, as it is of what was there before; the private key in ``sign`` makes a new one.

    Raises:
        ModelError: not a bundle, or a package is missing.
    """
    key = None if sign is None else signing_key(sign)
    bundle = open_bundle(path)
    if bundle.canaries is None:
        raise ModelError(
            f"{printable(path)} is no bundle of batchscore, so nothing can be exported into it. Make one of it first: "
            f"batchscore adopt {printable(path)} --output BUNDLE; or train one: batchscore-train"
        )
    if bundle.takes_pairs:
        raise ModelError(f"{printable(path)} takes two texts a row, and int8 is for one. Use it in bfloat16.")
    if bundle.task != Task.SINGLE_LABEL:
        raise ModelError(
            f"{printable(path)} gives {bundle.task.replace('_', ' ')} answers, for which int8 has no limits yet. Use it in float32 "
            "or bfloat16."
        )
    calibration, held_out, source = _texts(bundle)
    plain = _model(bundle, TorchBackend(bundle, "cpu", "fp32"))
    _refuse_unpadded(plain)
    with tempfile.TemporaryDirectory() as folder:
        _quantise(plain, calibration, Path(folder) / "int8.xml")
        names = _copied(Path(folder), bundle.path)
    facts = {
        key: value for key, value in bundle.facts.items() if key not in ("files", "sha256", "format_version")
    }
    # Limits are enforced when int8 is used; here we only measure.
    without_limits = {**bundle.facts, "variants": {"int8": {"file": names[0], "parity": None, "limits": {}}}}
    int8 = _model(bundle, OpenVinoBackend(dataclasses.replace(bundle, facts=without_limits), "cpu", "int8"))
    parity = _parity(_probabilities(plain, held_out), _probabilities(int8, held_out))
    versions = {name: importlib.metadata.version(name) for name in ("openvino", "nncf")}
    variant = {
        "file": names[0],
        "calibration": {"source": source, "texts": len(calibration)},
        "parity": parity,
        "limits": INT8_LIMITS,
        "canaries": [[float(p) for p in row] for row in _probabilities(int8, bundle.canaries.texts)],
        "versions": versions,
    }
    stale = {f"{VARIANTS}/{name}" for name in (own_folder(bundle.path) / VARIANTS).names()} - set(names)
    seal(bundle.path, {**facts, "variants": {"int8": variant}}, leave_out=stale)
    for name in stale:
        remove_file(bundle.path, name)
    if key is not None:
        sign_bundle(bundle.path, key)
    return Exported(bundle.path, names[0], parity, tuple(parity_problems(variant)))


def _refuse_unpadded(model: Model) -> None:
    """Raise for a model that does not tolerate padding on the right, which int8 uses."""
    if model.backend.name == "transformers" and (mode := probe(model).padding_mode) != "right":
        raise ModelError(
            f"{printable(model.bundle.path)} has no int8 variant: it does not bear padding on the right (but: {mode}). Use "
            "it in float32."
        )


def _texts(bundle: Bundle) -> tuple[list[str], list[str], str]:
    """Calibration texts, held-out texts, and where they come from."""
    kept = bundle.facts.get("calibration")
    if isinstance(kept, dict) and kept.get("texts") and kept.get("held_out"):
        return list(kept["texts"]), list(kept["held_out"]), "training data"
    _LOG.warning("the bundle keeps no calibration texts; the sample reviews are taken")
    train, test = (
        [row["text"] for row in samples.load(split) if (row["text"] or "").strip()]
        for split in ("train", "test")
    )
    return train[:_CALIBRATION], test[:_HELD_OUT], "sample reviews"


def _model(bundle: Bundle, backend: Any) -> Model:
    inference = InferenceSettings(DEFAULT_BATCH_TOKENS["cpu"], bundle.long_text)
    return Model(bundle, Tokenizer(bundle), backend, inference)


def _probabilities(model: Model, texts: Sequence[Text]) -> NDArray[np.float32]:
    prepared = prepare(texts, model)
    predictions = conclude(prepared, compute(prepared, model), model)
    if predictions.failures:
        raise ModelError(
            f"A text cannot be scored in {model.backend.precision}: {predictions.failures[0][1]}."
        )
    if not np.isfinite(predictions.probabilities).all():
        raise ModelError("A text to calibrate on or to compare with is empty.")
    return predictions.probabilities


def _quantise(model: Model, texts: Sequence[str], path: Path) -> None:
    """Write the int8 model as ``path`` (XML) with its weights beside it."""
    openvino = import_openvino()
    try:
        import nncf
    except ImportError as error:
        raise missing_extra("export", "openvino", ModelError) from error
    import torch

    from batchscore.model.backends.encoders import load_encoder

    encoder = load_encoder(model.bundle.path, torch.float32, "cpu")  # packed weights cannot be traced
    forward = encoder or model.backend.forward  # type: ignore[attr-defined]

    class Traced(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = forward(input_ids, attention_mask)
            return logits

    nncf.set_log_level(logging.ERROR)
    padded = {
        "input_ids": torch.ones(2, 8, dtype=torch.int64),
        "attention_mask": torch.ones(2, 8).tril(4).long(),
    }
    with torch.inference_mode():
        converted = openvino.convert_model(Traced().eval(), example_input=padded)
    # The last layer computes [CLS] almost alone: float32 costs little there, and its errors would reach the logits undamped.
    matmuls = [op.get_friendly_name() for op in converted.get_ordered_ops() if op.get_type_name() == "MatMul"]
    last = nncf.IgnoredScope(names=matmuls[-_LAST_MATMULS:])
    data = nncf.Dataset(list(_inputs(model, texts)))
    quantised = nncf.quantize(
        converted,
        data,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(texts),
        ignored_scope=last,
    )
    openvino.save_model(quantised, path, compress_to_fp16=False)


def _inputs(model: Model, texts: Sequence[str]) -> Iterator[dict[str, NDArray[np.int64]]]:
    """The model's inputs for each text alone, so that padding does not affect the scales."""
    sequences = model.tokenizer.encode(texts, model.inference.long_text).input_ids
    for k in range(len(sequences)):
        batch = batching.assemble(sequences, np.array([k]), model.tokenizer.padding("single"))
        yield {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


def _copied(source: Path, bundle: Path) -> list[str]:
    """Copy the two files into the bundle, named by their content; returns the names, the XML first."""
    digest = sha256_of(source / "int8.bin")[:8] + sha256_of(source / "int8.xml")[:8]
    names = []
    make_folder(own_folder(bundle) / VARIANTS)
    for suffix in (".xml", ".bin"):
        names.append(f"{VARIANTS}/int8-{digest}{suffix}")
        with atomic_write(own_folder(bundle) / names[-1]) as out:
            out.write((source / f"int8{suffix}").read_bytes())
    return names


def _parity(before: NDArray[np.float32], after: NDArray[np.float32]) -> dict[str, Any]:
    """How int8 differs from float32 on the held-out texts."""
    change = np.abs(before - after)
    return {
        "texts": len(before),
        "labels_changed": int((before.argmax(axis=1) != after.argmax(axis=1)).sum()),
        "largest_change": float(change.max()),
        "mean_change": float(change.max(axis=1).mean()),
    }
