"""Seal any Hugging Face folder as a bundle: canaries, labels, and a temperature if there are labelled rows.

Nothing is trained. The model's files are copied; its labels may be named; plain transformers answers the canaries, in float32
and one text at a time; and labelled rows, if given, fit the temperature and measure the model.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.config import ComputeSettings, ReadSettings
from batchscore.errors import DataError, ModelError, UsageError, printable
from batchscore.model.backends import open_backend
from batchscore.model.backends.torch_backend import faster_precisions, resolve_device
from batchscore.model.bundle import Bundle, open_bundle, seal, sign_bundle
from batchscore.model.bundle_facts import json_file
from batchscore.model.held_out import KEY as HELD_OUT
from batchscore.model.labels import LabelNames
from batchscore.model.loading import DEFAULT_BATCH_TOKENS, ModelSettings, load_model
from batchscore.model.references import compute_references, public_texts
from batchscore.model.scoring import LONGEST_PROBE, InferenceSettings, Model
from batchscore.model.signing import signing_key
from batchscore.model.tokenization import Tokenizer
from batchscore.records import THRESHOLD, Task
from batchscore.system.cores import usable_cores
from batchscore.system.storage import make_folder, to_json, write_bytes
from batchscore.training.card import adopted_card
from batchscore.training.context import Progress, Tell, TrainingContext
from batchscore.training.data import load_for_labels
from batchscore.training.examination import MIN_FOR_TEMPERATURE, Examination, canaries_of, examine
from batchscore.training.results import results_of
from batchscore.training.sampling import spread
from batchscore.training.saved_units import in_the_weights
from batchscore.training.settings import TrainSettings
from batchscore.training.work_folder import publish_bundle, work_folder, writing
from batchscore.version import __version__

if TYPE_CHECKING:
    from batchscore.training.splits import Split

_BUNDLE = "bundle"
_CARD, _ORIGINAL_CARD = "README.md", "README.original.md"
_COPIED = (".safetensors", ".json", ".txt", ".model", ".vocab", ".codes", ".bpe")
"""Suffixes of weights, settings and vocabularies; pickles and code are never copied."""
_LICENCES = ("license", "licence", "notice", "copying")
_EXPORT_TEXTS, _EXPORT_HELD_OUT = 128, 200
"""Calibration rows kept for ``batchscore export``: to calibrate on, and to compare on."""
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


@dataclasses.dataclass(frozen=True, slots=True)
class AdoptSettings:
    """Settings of one call of ``adopt``."""

    model: str
    """A local folder, or a hub id with ``revision``."""
    output: Path
    revision: str | None = None
    label_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The model's label → its new name."""
    calibrate: str | None = None
    """Labelled rows: a file, a folder, ``builtin`` or the name of a hub data set."""
    label_map: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """A given value in these rows → the model's label."""
    text_column: str | None = None
    label_column: str | None = None
    read: ReadSettings = dataclasses.field(default_factory=ReadSettings)
    force: bool = False
    sign: Path | None = None
    """A private key that the bundle is signed with."""


@dataclasses.dataclass(frozen=True, slots=True)
class Adopted:
    """What ``adopt`` did."""

    output: Path
    labels: tuple[str, ...]
    canaries: int
    temperature: float
    metrics: dict[str, Any]
    """Of the calibration rows; empty without them."""
    fingerprint: str
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class _Calibration:
    """Labelled rows, and what was found on them."""

    rows: Split
    left_out: Mapping[str, int]
    examination: Examination


def adopt(
    settings: AdoptSettings, progress: Callable[[int], Progress], tell: Tell = lambda _: None
) -> Adopted:
    """Write a sealed bundle of a Hugging Face folder to ``settings.output``, atomically.

    Raises:
        BatchscoreError: its class says what is wrong: model, data, output, storage.
    """
    started = time.monotonic()
    settings = dataclasses.replace(settings, output=Path(os.path.realpath(settings.output)))
    key = None if settings.sign is None else signing_key(settings.sign)
    source = open_bundle(settings.model, settings.revision)
    _refuse(source, settings)
    labels = _named(source.labels, settings.label_names)
    rows = _calibration_rows(settings, labels, tell)
    with work_folder(settings.output, settings.force, resume=False) as work:
        folder = work / _BUNDLE
        with writing(work):
            _copy(source.path, folder)
            _name_labels(folder, labels)
        bundle = open_bundle(str(folder))
        for warning in bundle.warnings[1:]:  # the first says that it is no bundle yet
            tell(warning)
        public = _public_canaries(bundle)
        calibration = _calibrated(bundle, *rows, work, progress, tell) if rows else None
        facts = _facts(settings, source, bundle, calibration.examination.canaries if calibration else public)
        if calibration is not None:
            facts |= _calibration_facts(calibration, settings, labels)
            with writing(work):
                facts["temperature"] = in_the_weights(bundle, facts["calibration_temperature"], tell)
        write_bytes(folder / _CARD, adopted_card(facts).encode())
        seal(folder, facts)
        sealed = open_bundle(str(folder))
        load_model(
            sealed, ModelSettings(ComputeSettings(device="cpu", precision="fp32"), sealed.long_text), {}
        )
        if key is not None:
            sign_bundle(folder, key)
        publish_bundle(folder, settings.output, settings.force)
    return Adopted(
        output=settings.output,
        labels=sealed.labels,
        canaries=len(facts["canaries"]["texts"]),
        temperature=sealed.calibration_temperature,
        metrics=facts["metrics"],
        fingerprint=sealed.fingerprint,
        seconds=time.monotonic() - started,
    )


def _refuse(source: Bundle, settings: AdoptSettings) -> None:
    if source.facts:
        raise ModelError(
            f"{printable(settings.model)} is a bundle already: it has its canaries and can be scored with as it is."
        )
    if settings.output.is_relative_to(os.path.realpath(source.path)):
        raise UsageError(
            f"--output {printable(settings.output)} is in the folder that is adopted, which stays as it is. Name another."
        )
    options = {"--label-map": settings.label_map, "--label-column": settings.label_column}
    if settings.calibrate is None and (given := [name for name, value in options.items() if value]):
        raise UsageError(f"{given[0]} is about the rows of --calibrate, which is missing.")
    if settings.calibrate is not None and source.task != Task.SINGLE_LABEL:
        raise UsageError(
            "--calibrate fits a temperature, which only a model with one label a text has. Leave it out."
        )


def _named(labels: tuple[str, ...], names: Mapping[str, str]) -> tuple[str, ...]:
    """The labels with their new names.

    Raises:
        UsageError: a name for a label that there is not, or the same name for two.
    """
    if unknown := [label for label in names if label not in labels]:
        raise UsageError(
            f"--rename-label {printable(unknown[0])}: the model's labels are {printable(', '.join(labels))}."
        )
    found = tuple(names.get(label, label) for label in labels)
    if len({label.casefold() for label in found}) < len({label.casefold() for label in labels}):
        raise UsageError(f"--rename-label: two labels would have one name ({printable(', '.join(found))}).")
    return found


def _calibration_rows(
    settings: AdoptSettings, labels: tuple[str, ...], tell: Tell
) -> tuple[Split, dict[str, int]] | None:
    if settings.calibrate is None:
        return None
    wanted = TrainSettings(
        settings.calibrate,
        settings.output,
        text_column=settings.text_column,
        label_column=settings.label_column,
        read=settings.read,
    )
    split, left_out = load_for_labels(wanted, LabelNames(labels, settings.label_map))
    if len(split) < MIN_FOR_TEMPERATURE:
        raise DataError(
            f"{printable(settings.calibrate)} has {len(split)} rows with a text and a label of the model; a temperature "
            f"needs {MIN_FOR_TEMPERATURE}."
        )
    for reason, count in left_out.items():
        tell(f"left out of the calibration rows: {count} with {reason.replace('_', ' ')}")
    return split, left_out


def _copy(source: Path, folder: Path) -> None:
    """Copy weights, settings, vocabularies, licences and the card; links of a hub snapshot become files."""
    make_folder(folder)
    for path in sorted(source.iterdir()):
        is_licence = path.name.lower().startswith(_LICENCES)
        if path.is_file() and (path.name.endswith(_COPIED) or is_licence or path.name == _CARD):
            name = _ORIGINAL_CARD if path.name == _CARD else path.name
            shutil.copyfile(path, folder / name)


def _name_labels(folder: Path, labels: Sequence[str]) -> None:
    """Write the labels into ``config.json``, unless they are there."""
    config = json_file(folder, "config.json")
    names = {str(index): label for index, label in enumerate(labels)}
    if config.get("id2label") != names:
        back = {label: index for index, label in enumerate(labels)}
        write_bytes(folder / "config.json", to_json({**config, "id2label": names, "label2id": back}))


def _public_canaries(bundle: Bundle) -> dict[str, Any]:
    """Canaries of the probes and sample reviews, without near ties, which a lower precision could flip.

    Raises:
        ModelError: transformers cannot run the model, or our micro-batches do not agree with it.
    """
    budget = DEFAULT_BATCH_TOKENS["cpu"]
    backend = open_backend("transformers", bundle, "cpu", "fp32")
    model = Model(bundle, Tokenizer(bundle), backend, InferenceSettings(budget, "head"), usable_cores())
    logits = compute_references(model).logits
    texts = public_texts(model.tokenizer.cut_at(min(bundle.max_length, LONGEST_PROBE)))
    thresholds = [THRESHOLD] * len(bundle.labels)
    is_clear = results_of(bundle.head).are_clear(bundle.answers(logits), thresholds)
    clear = [text for text, is_kept in zip(texts, is_clear, strict=True) if is_kept]
    return canaries_of(bundle, clear or texts, thresholds)


def _calibrated(
    bundle: Bundle,
    rows: Split,
    left_out: Mapping[str, int],
    work: Path,
    progress: Callable[[int], Progress],
    tell: Tell,
) -> _Calibration:
    """Score the labelled rows, fit the temperature, pick canaries among them."""
    device = resolve_device("auto")
    precision = next(iter(faster_precisions(device)), "fp32")
    bar = progress(len(rows))
    try:
        examination = examine(bundle, rows, 0, TrainingContext(work, device, precision, bar, tell))
    finally:
        bar.close()
    return _Calibration(rows, left_out, examination)


def _facts(
    settings: AdoptSettings, source: Bundle, bundle: Bundle, canaries: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of ``batchscore.json`` without calibration."""
    return {
        "labels": list(bundle.labels),
        **({} if bundle.task == Task.SINGLE_LABEL else {"task": bundle.task.value}),
        "max_length": bundle.max_length,
        "temperature": 1.0,
        "long_text": "head",
        "canaries": dict(canaries),
        "training": {},
        "metrics": {},
        "adopted": {
            "from": Path(settings.model).name if Path(settings.model).is_dir() else settings.model,
            "revision": settings.revision,
            "fingerprint": source.fingerprint,
            "label_names": dict(settings.label_names),
            "versions": {
                "batchscore": __version__,
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in _PACKAGES},
            },
        },
    }


def _calibration_facts(
    calibration: _Calibration, settings: AdoptSettings, labels: Sequence[str]
) -> dict[str, Any]:
    """What the labelled rows add: temperature, metrics, and texts for ``batchscore export``."""
    examination, rows = calibration.examination, calibration.rows
    canaries = {*examination.canaries["texts"]}
    others = [text for text in dict.fromkeys(rows.texts) if text not in canaries]
    return {
        "calibration_temperature": examination.temperature,
        "metrics": examination.metrics,
        **({HELD_OUT: examination.held_out.to_json()} if examination.held_out else {}),
        "calibration": {
            "texts": spread(others[0::2], _EXPORT_TEXTS),
            "held_out": spread(others[1::2], _EXPORT_HELD_OUT),
            "data": Path(str(settings.calibrate)).name,
            "rows": len(rows),
            "sha256": rows.fingerprint(labels),
            "left_out": dict(calibration.left_out),
        },
    }
