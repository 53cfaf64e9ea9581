"""A saved model folder: opened only after every byte of it was found as it was written.

A bundle is a Hugging Face folder plus ``batchscore.json``, which holds what a plain folder does not: the labels in
their order, the longest input, the temperature, canary texts with their probabilities, and the SHA-256 of every other
file. Weights come from safetensors alone; nothing here unpickles, runs code of a bundle, or asks a network.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.config import fingerprint
from batchscore.errors import ModelError, UsageError, printable
from batchscore.storage import sha256_of, to_json, write_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

FACTS = "batchscore.json"
FORMAT_VERSION = 1
N_CANARIES = 32
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".joblib")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclasses.dataclass(frozen=True, slots=True)
class Canaries:
    """Texts with the float32 probabilities ``[n, C]`` that the trained model gave them."""

    texts: tuple[str, ...]
    probabilities: NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True)
class Bundle:
    """A model folder that was found sound."""

    path: Path
    labels: tuple[str, ...]
    max_length: int
    """Tokens, special ones included."""
    temperature: float
    long_text: str
    canaries: Canaries | None
    facts: Mapping[str, Any]
    """``batchscore.json`` as it is; empty for a plain Hugging Face folder."""
    fingerprint: str
    """SHA-256 over the names and hashes of all files."""
    warnings: tuple[str, ...] = ()

    @property
    def has_generic_labels(self) -> bool:
        """Whether the labels are only ``LABEL_0``…, so that nobody can tell what they mean."""
        return all(re.fullmatch(r"LABEL_\d+", label) for label in self.labels)


def open_bundle(model: str, revision: str | None = None) -> Bundle:
    """Open a local folder, or a hub id with a full commit as ``revision``.

    Raises:
        ModelError: no such folder; a file changed, missing, extra or linked; pickled weights; remote code; labels that
            disagree.
    """
    folder = Path(model)
    if not folder.is_dir():
        folder = _fetched(model, revision)
    hashes = _hashes(folder)
    _refuse_code(folder, hashes)
    config = _json_file(folder, "config.json")
    labels = _labels(config, folder)
    if FACTS in hashes:
        return _open_sealed(folder, hashes, labels)
    return _open_plain(folder, hashes, labels, config)


def _fetched(model: str, revision: str | None) -> Path:
    """Download a hub snapshot: the only place that asks a network, and only for a hub id."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) or model.startswith((".", "/")) or Path(model).exists():
        raise ModelError(
            f"There is no model folder {printable(model)}. Train one with: batchscore-train --output ..."
        )
    if not revision or not _COMMIT.fullmatch(revision):
        raise ModelError(
            f"There is no folder {printable(model)}. If it is a hub id, add --revision with the full commit (40 hex "
            "digits), so that tonight's model is last night's."
        )
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.txt", "*.safetensors", "*.model", "README.md"]
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{printable(model)} at {revision[:12]} could not be fetched: {printable(error)}. Fetch it where there is "
            "a network and give its folder."
        ) from error


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of the folder; a link may lead only into the blobs beside a hub snapshot."""
    hashes: dict[str, str] = {}
    blobs = folder.resolve().parent.parent / "blobs"
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() and path.resolve().parent != blobs:
            raise ModelError(
                f"{printable(path)} is a link; a bundle holds files only. Copy the file itself there."
            )
        if path.is_file():
            hashes[name] = _digest(path)
        elif not path.is_dir():
            raise ModelError(f"{printable(path)} is neither a file nor a folder. Remove it.")
    return hashes


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise ModelError(f"{printable(path)} cannot be read: {error.strerror}.") from error


def _refuse_code(folder: Path, hashes: Mapping[str, str]) -> None:
    if not any(name.endswith(".safetensors") for name in hashes):
        pickled = [name for name in hashes if name.endswith(_PICKLES)]
        reason = f"only pickled ones ({printable(pickled[0])})" if pickled else "none"
        raise ModelError(
            f"{printable(folder)} has no safetensors weights, {reason}. Save the model again with "
            "model.save_pretrained(folder)."
        )
    scripts = [name for name in hashes if name.endswith((".py", ".pyc", ".so"))]
    configs = [name for name in ("config.json", "tokenizer_config.json") if name in hashes]
    scripts += [f"auto_map in {name}" for name in configs if "auto_map" in _json_file(folder, name)]
    if scripts:
        raise ModelError(
            f"{printable(folder)} brings code of its own ({printable(scripts[0])}), which is never run. Use a model "
            "whose architecture is part of transformers."
        )


def _json_file(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / name).read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{printable(folder)} has no {name}: it is not a saved model.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{printable(folder / name)} is not readable JSON: {printable(error)}.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{printable(folder / name)} does not hold a JSON object.")
    return value


def _labels(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """The labels in the order of the logits."""
    names = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    back = config.get("label2id")
    try:
        labels = tuple(str(names[str(index)]) for index in range(len(names)))
    except (KeyError, TypeError) as error:
        raise ModelError(f"{printable(folder)}/config.json: id2label does not count from 0.") from error
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise ModelError(
            f"{printable(folder)}/config.json: {len(labels)} labels ({printable(', '.join(labels[:9]))}); a classifier "
            "needs two or more, all different."
        )
    if back is not None and {str(key): value for key, value in back.items()} != {
        label: index for index, label in enumerate(labels)
    }:
        raise ModelError(
            f"{printable(folder)}/config.json: id2label and label2id disagree. Train or fetch it again."
        )
    if config.get("problem_type") == "multi_label_classification":
        raise ModelError(
            f"{printable(folder)} gives each text several labels at once, which is not supported."
        )
    return labels


def _open_sealed(folder: Path, hashes: dict[str, str], labels: tuple[str, ...]) -> Bundle:
    facts = read_facts(folder)
    problems = manifest_problems(facts, hashes)
    if problems:
        raise ModelError(
            f"{printable(folder)} is not the bundle that was saved: {'; '.join(problems[:3])}. Copy it again whole, or "
            "train it again."
        )
    if tuple(facts["labels"]) != labels:
        raise ModelError(
            f"{printable(folder)}: the labels in config.json and {FACTS} differ. Train it again."
        )
    canaries = facts["canaries"]
    return Bundle(
        path=folder,
        labels=labels,
        max_length=int(facts["max_length"]),
        temperature=float(facts["temperature"]),
        long_text=str(facts["long_text"]),
        canaries=Canaries(
            tuple(canaries["texts"]),
            np.array(canaries["probabilities"], dtype=np.float32).reshape(-1, len(labels)),
        ),
        facts=facts,
        fingerprint=fingerprint(hashes),
    )


def _open_plain(
    folder: Path, hashes: dict[str, str], labels: tuple[str, ...], config: Mapping[str, Any]
) -> Bundle:
    return Bundle(
        path=folder,
        labels=labels,
        max_length=longest_input(folder, config),
        temperature=1.0,
        long_text="head",
        canaries=None,
        facts={},
        fingerprint=fingerprint(hashes),
        warnings=(
            f"{printable(folder)} has no {FACTS}: its files, labels and precision cannot be checked against canaries.",
        ),
    )


def longest_input(folder: Path, config: Mapping[str, Any]) -> int:
    """Tokens that a plain Hugging Face model takes: the smaller of what its tokenizer and its positions allow."""
    limits = [512]
    if positions := config.get("max_position_embeddings"):
        # RoBERTa and its kin number positions from pad_token_id + 1 on.
        offset = config.get("pad_token_id", 1) + 1 if "roberta" in str(config.get("model_type")) else 0
        limits = [int(positions) - offset]
    if (folder / "tokenizer_config.json").exists():
        limits.append(int(_json_file(folder, "tokenizer_config.json").get("model_max_length") or limits[0]))
    return min(limits)


def read_facts(folder: Path) -> dict[str, Any]:
    """``batchscore.json``, byte for byte as it was written.

    Raises:
        ModelError: it was changed, or was written by a newer version.
    """
    facts = _json_file(folder, FACTS)
    if facts.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{printable(folder / FACTS)} has format version {printable(facts.get('format_version'))}, this program "
            f"reads {FORMAT_VERSION}. Install the version of batchscore that wrote it."
        )
    if (folder / FACTS).read_bytes() != _sealed({k: v for k, v in facts.items() if k != "sha256"}):
        raise ModelError(
            f"{printable(folder / FACTS)} was changed after it was written. Train the bundle again."
        )
    return facts


def _sealed(facts: Mapping[str, Any]) -> bytes:
    return to_json({**facts, "sha256": hashlib.sha256(to_json(facts)).hexdigest()})


def manifest_problems(facts: Mapping[str, Any], hashes: Mapping[str, str]) -> list[str]:
    """How a folder differs from its manifest, one clause a difference."""
    listed, present = facts["files"], {name: digest for name, digest in hashes.items() if name != FACTS}
    return (
        [f"{printable(name)} is missing" for name in sorted(set(listed) - set(present))]
        + [f"{printable(name)} does not belong to it" for name in sorted(set(present) - set(listed))]
        + [
            f"{printable(name)} was changed"
            for name in sorted(set(listed) & set(present))
            if listed[name] != present[name]
        ]
    )


def seal(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``batchscore.json`` into a folder whose other files are finished.

    ``facts`` needs ``labels``, ``max_length``, ``temperature``, ``long_text`` and ``canaries`` (``texts``,
    ``probabilities``); ``training`` and ``metrics`` are free JSON.
    """
    hashes = {name: digest for name, digest in _hashes(folder).items() if name != FACTS}
    write_bytes(folder / FACTS, _sealed({"format_version": FORMAT_VERSION, **facts, "files": hashes}))


def label_key(value: object) -> str:
    """A given label value as :func:`match_labels` looks it up: ``1``, ``1.0``, ``"1"`` and ``" 1 "`` are one value."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip().casefold()
    return text[:-2] if text.endswith(".0") and text[:-2].isdigit() else text


def match_labels(labels: tuple[str, ...], given: Mapping[str, str]) -> dict[str, int]:
    """The table that turns a given label value (as lower-case text) into the index of a label.

    Names match without case, ids by number, and for two labels whose names say so ``pos``/``neg``, booleans and the
    like. ``given`` is ``--label-map``; it wins.

    >>> match_labels(("NEGATIVE", "POSITIVE"), {"bad": "NEGATIVE"})["bad"]
    0
    """
    names = {label.casefold(): index for index, label in enumerate(labels)}
    aliases = {alias: index for name, index in names.items() for alias in _ALIASES.get(name, ())}
    ids = {str(index): index for index in range(len(labels))}
    booleans = {"false": 0, "true": 1} if len(labels) == 2 else {}
    table = {**aliases, **booleans, **ids, **names}
    for value, label in given.items():
        if label.casefold() not in names:
            raise UsageError(
                f"--label-map {printable(value)}={printable(label)}: the model's labels are {printable(', '.join(labels))}."
            )
        table[label_key(value)] = names[label.casefold()]
    return table


_ALIASES = {"negative": ("neg",), "neg": ("negative",), "positive": ("pos",), "pos": ("positive",)}
