"""A saved model folder: opened only if every byte is as it was written.

A bundle is a Hugging Face folder plus ``batchscore.json``, which adds the labels in order, the longest input, the
temperature, canary texts with their probabilities, and the SHA-256 of every other file. Weights are read from safetensors
only; nothing here unpickles, runs a bundle's code, or uses the network (but for a hub id).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore.config import fingerprint
from batchscore.errors import ModelError, UsageError, printable
from batchscore.model.backends.architectures import architecture_of
from batchscore.model.bundle_facts import (
    FACTS,
    FORMAT_VERSION,
    file_bytes,
    json_file,
    json_object,
    manifest_problems,
    parity_problems,
    read_facts,
    sealed_bytes,
)
from batchscore.model.foreign import refuse_code
from batchscore.model.heads import Head, are_generic, head_of, head_warning
from batchscore.model.model_files import COMMIT, ModelFiles, model_files, refuse_changed, refuse_elsewhere
from batchscore.model.signing import (
    SIGNATURE,
    PublicKey,
    SigningKey,
    signer_of,
    trusted_keys,
    without_signature,
)
from batchscore.model.weights import refuse_impossible_sizes, tensors_of
from batchscore.records import Task
from batchscore.system.names import is_utf8
from batchscore.system.storage import write_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.records import Text

N_CANARIES = 32
VARIANTS = "openvino"
"""The folder of a bundle's variants; an unlisted file there was left by a killed export and is never read."""
INT8_LIMITS = {"labels_changed_share": 0.01, "largest_change": 0.25, "mean_change": 0.01}
"""How far int8 may be from float32 on the held-out texts: share of changed labels, changes in a text's probabilities."""
_CROSS_ENCODER = "config_sentence_transformers.json"
"""Where recent versions of sentence-transformers keep the activation of a CrossEncoder."""
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
_POSITIONS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
    "context_length",
)
"""Names of the number of positions in ``config.json``."""
_UNKNOWN_LONGEST = 512
"""Tokens, if neither the configuration nor the tokenizer has a limit."""
_NO_LIMIT = 10**9
"""Tokens; tokenizers have 1e30 for "no limit"."""
_NO_END = -1
"""Another number for "no limit", of models with relative positions."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Canaries:
    """Texts, or pairs of texts, with the float32 probabilities ``[n, C]`` that the trained model gave them."""

    texts: tuple[Text, ...]
    probabilities: NDArray[np.float32]

    def __eq__(self, other: object) -> bool:
        """Whether texts and probabilities are equal; the generated method cannot compare arrays."""
        return (
            isinstance(other, Canaries)
            and self.texts == other.texts
            and np.array_equal(self.probabilities, other.probabilities)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True, slots=True)
class Bundle:
    """A model folder that passed all checks."""

    path: Path
    head: Head
    max_length: int
    """Tokens, special ones included."""
    temperature: float
    """What logits are still divided by: 1 if the weights have it already."""
    long_text: str
    canaries: Canaries | None
    facts: Mapping[str, Any]
    """The content of ``batchscore.json``; empty for a plain Hugging Face folder."""
    fingerprint: str
    """SHA-256 over the names and hashes of all files."""
    files: ModelFiles = dataclasses.field(default_factory=lambda: ModelFiles({}, {}))
    """The files that it is loaded from."""
    signed_by: str | None = None
    """The trusted key that signed it, if that was asked for."""
    warnings: tuple[str, ...] = ()
    takes_pairs: bool = False
    """Whether a row is two texts that the model reads together: so it was trained, or so it is asked (:meth:`for_texts`)."""
    missing_pair: str = "skip"
    """What becomes of a row without its second text, unless the run says otherwise; one of ``MISSING_PAIR``."""

    def for_texts(self, *, are_pairs: bool) -> Bundle:
        """The bundle for rows of one text, or of two.

        The canaries of a bundle that was trained on single texts show nothing about pairs, so they do not count for them:
        like a folder without canaries, it is then held against plain transformers.

        Raises:
            UsageError: it was trained on pairs, and gets single texts.
        """
        if self.takes_pairs and not are_pairs:
            raise UsageError(
                f"{printable(self.path)} was trained on two texts a row. Name the column of the second one with "
                "--text-pair-column."
            )
        if not are_pairs or self.takes_pairs:
            return self
        warnings = self.warnings
        if self.canaries is not None:
            warnings += (
                f"{printable(self.path)} was made with one text a row, so its accuracy and its canaries say nothing about two.",
            )
        return dataclasses.replace(self, takes_pairs=True, canaries=None, warnings=warnings)

    def refuse_changed(self) -> None:
        """Raise if its folder was changed since it was opened: what was loaded since may be something else.

        Raises:
            ModelError: names the file.
        """
        refuse_changed(self.path, self.files.times)
        refuse_elsewhere(self.path, self.files.hashes)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the logits."""
        return self.head.labels

    @property
    def task(self) -> Task:
        """What the model says of a text."""
        return self.head.task

    @property
    def calibration_temperature(self) -> float:
        """The temperature that calibrated the probabilities, in the weights or not."""
        return float(self.facts.get("calibration_temperature", self.temperature))

    def answers(self, logits: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Answers ``[n, C]`` float32 of ``logits[n, C]``, calibrated; see :meth:`Head.answers`."""
        return self.head.answers(logits, self.temperature)

    @property
    def has_generic_labels(self) -> bool:
        """Whether the labels are just ``LABEL_0``…, which say nothing about their meaning."""
        return are_generic(self.labels)


def open_bundle(model: str, revision: str | None = None, trust: Sequence[Path] = ()) -> Bundle:
    """Open a local folder, or a hub id with a full commit as ``revision``; with ``trust`` only if one of these keys signed it.

    ``trust`` are files with public keys (:func:`~batchscore.model.signing.trusted_keys`).

    Raises:
        ModelError: no such folder; a changed, missing, extra or linked file; pickled weights; remote code; inconsistent
            labels.
    """
    folder = _itself(Path(model))
    if not folder.is_dir():
        folder = _fetch(model, revision)
    if not is_utf8(folder):
        raise ModelError(
            f"{printable(folder)}: the path of a model must be UTF-8, as its weights and tokenizer are opened by name. "
            "Rename the folder."
        )
    signed = _signed(folder, trusted_keys(trust)) if trust else None
    files = model_files(folder)
    refuse_code(folder, files.hashes)
    config = json_file(folder, "config.json")
    head = _head(config, folder, files.hashes)
    if FACTS in files.hashes or (folder / FACTS).exists():
        opened = _open_sealed(folder, files, head, signed)
    else:
        opened = _open_plain(folder, files, head, config)
    refuse_elsewhere(folder, opened.files.hashes)
    refuse_impossible_sizes(config, tensors_of(folder, opened.files.hashes), folder / "config.json")
    return opened


def _itself(folder: Path) -> Path:
    """The folder that a path leads to now, so that all its files are of one bundle even if a link on the way is moved."""
    found = Path(os.path.realpath(folder))
    return folder if found == Path(os.path.abspath(folder)) else found  # noqa: PTH100 - links are not followed


def _fetch(model: str, revision: str | None) -> Path:
    """Download a hub snapshot: the only place here that uses the network, and only for a hub id."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) or model.startswith((".", "/")) or Path(model).exists():
        raise ModelError(
            f"There is no model folder {printable(model)}. Train one with: batchscore-train --output ..."
        )
    if not revision or not COMMIT.fullmatch(revision):
        raise ModelError(
            f"There is no folder {printable(model)}. If it is a hub id, add --revision with the full commit (40 hex "
            "digits), so that tonight's model is last night's."
        )
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.txt", "*.safetensors", "*.model", "*.spm", "*.codes", "*.sig", "README.md"]
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{printable(model)} at {revision[:12]} could not be fetched: {printable(error)}. Fetch it where there is "
            "a network and give its folder."
        ) from error


def _head(config: Mapping[str, Any], folder: Path, hashes: Mapping[str, str]) -> Head:
    """The head that the folder's configuration describes, with the function saved by a CrossEncoder."""
    has_more = _CROSS_ENCODER in hashes
    return head_of(config, folder / "config.json", json_object(folder, _CROSS_ENCODER) if has_more else None)


class _Signed(NamedTuple):
    """The content of ``batchscore.json`` that a trusted key signed."""

    content: bytes
    by: str


def _signed(folder: Path, trusted: Sequence[PublicKey]) -> _Signed:
    """What was signed, before anything else of the folder is looked at."""
    if not (folder / FACTS).exists():
        raise ModelError(
            f"{printable(folder)} is no bundle of batchscore, so that nobody can have signed it, and --trust takes only what is "
            f"signed. Make one of it: batchscore adopt {printable(folder)} --output BUNDLE --sign KEY"
        )
    content = file_bytes(folder, FACTS)
    return _Signed(content, signer_of(folder, content, trusted).id)


def _open_sealed(folder: Path, files: ModelFiles, head: Head, signed: _Signed | None) -> Bundle:
    facts = read_facts(folder, signed.content if signed else None)
    hashes = {
        name: each
        for name, each in without_signature(files.hashes).items()
        if not _is_left_over(name, facts["files"])
    }
    problems = manifest_problems(facts, hashes)
    if signed is not None and hashlib.sha256(signed.content).hexdigest() != hashes.get(FACTS):
        problems = [f"{FACTS} was changed just now"]
    if problems:
        raise ModelError(
            f"{printable(folder)} is not the bundle that was saved: {'; '.join(problems[:3])}. Copy it again whole, or "
            "train it again."
        )
    if facts.get("task", head.task) != head.task:
        raise ModelError(f"{printable(folder)}: the tasks in config.json and {FACTS} differ. Train it again.")
    if tuple(facts["labels"]) != head.labels:
        raise ModelError(
            f"{printable(folder)}: the labels in config.json and {FACTS} differ. Train it again."
        )
    return Bundle(
        path=folder,
        head=head,
        max_length=facts["max_length"],
        temperature=float(facts["temperature"]),
        long_text=facts["long_text"],
        canaries=Canaries(
            tuple(text if isinstance(text, str) else tuple(text) for text in facts["canaries"]["texts"]),
            np.array(facts["canaries"]["probabilities"], dtype=np.float32),
        ),
        takes_pairs=facts.get("takes_pairs", False),
        missing_pair=facts.get("missing_pair", "skip"),
        facts=facts,
        fingerprint=fingerprint(hashes),
        files=ModelFiles(hashes, files.times),
        signed_by=signed.by if signed else None,
    )


def _open_plain(folder: Path, files: ModelFiles, head: Head, config: Mapping[str, Any]) -> Bundle:
    limits = _limits(folder, config)
    warnings = [
        f"{printable(folder)} has no {FACTS}: whether its files and labels are those that were trained cannot be told."
    ]
    if said := head_warning(config, head):
        warnings.append(f"{printable(folder)}: {said}.")
    if not limits or min(limits) > _NO_LIMIT:
        warnings.append(
            f"{printable(folder)} does not tell its longest input, so texts are cut at {_UNKNOWN_LONGEST} tokens. Another "
            "number goes into its tokenizer_config.json, as model_max_length."
        )
    return Bundle(
        path=folder,
        head=head,
        max_length=longest_input(folder, config),
        temperature=1.0,
        long_text="head",
        canaries=None,
        facts={},
        fingerprint=fingerprint(files.hashes),
        files=files,
        warnings=tuple(warnings),
    )


def longest_input(folder: Path, config: Mapping[str, Any]) -> int:
    """The longest input in tokens of a plain Hugging Face model: the smallest limit of its tokenizer and positions."""
    limit = min(_limits(folder, config), default=_UNKNOWN_LONGEST)
    return limit if limit <= _NO_LIMIT else _UNKNOWN_LONGEST


def _limits(folder: Path, config: Mapping[str, Any]) -> list[int]:
    """The limits on the input length, in tokens, in the configuration and the tokenizer's; there may be none."""
    path = folder / "config.json"
    text = config.get("text_config")
    config = {**text, **config} if isinstance(text, dict) else config
    limits = [positions for name in _POSITIONS if (positions := _count(config, name, path))]
    if architecture_of(config.get("model_type")).has_offset_positions:
        has_none = config.get("pad_token_id") == _NO_END  # then positions start at 0
        pad_id = -1 if has_none else _count(config, "pad_token_id", path, 1)
        limits = [positions - pad_id - 1 for positions in limits]
    path = folder / "tokenizer_config.json"
    if path.exists() and (longest := _count(json_file(folder, path.name), "model_max_length", path)):
        limits.append(longest)
    return limits


def _count(facts: Mapping[str, Any], key: str, path: Path, missing: int = 0) -> int:
    """A number of tokens (``model_max_length`` may be 1e30 for "no limit")."""
    value = facts.get(key)
    if value is None or value == _NO_END:
        return missing
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ModelError(f"{printable(path)}: {key} is {printable(value)[:100]}, not a number of tokens.")
    return int(value)


def _is_left_over(name: str, listed: Mapping[str, str]) -> bool:
    """Whether a file was left by a killed export: an unlisted variant, or a temporary ``batchscore.json``."""
    return name not in listed and (name.startswith(f"{VARIANTS}/") or _TEMPORARY.fullmatch(name) is not None)


def sign_bundle(folder: Path, key: SigningKey) -> str:
    """Sign a bundle whose files are as its ``batchscore.json`` says; returns the key's id.

    Raises:
        ModelError: it is no bundle, or its files are not those that were saved.
        StorageError: the signature cannot be written.
    """
    bundle = open_bundle(str(folder))
    if not bundle.facts:
        raise ModelError(
            f"{printable(folder)} is no bundle of batchscore, so that there is nothing to sign. Make one of it: batchscore adopt "
            f"{printable(folder)} --output BUNDLE --sign KEY"
        )
    return key.sign(folder, sealed_bytes({k: v for k, v in bundle.facts.items() if k != "sha256"}))


def int8_variant(bundle: Bundle) -> Mapping[str, Any]:
    """The entry of the bundle's int8 variant.

    Raises:
        ModelError: there is none, or it is further from float32 than allowed.
    """
    variant = bundle.facts.get("variants", {}).get("int8")
    if variant is None:
        raise ModelError(
            f"{printable(bundle.path)} has no int8 variant. Add one with: batchscore export {printable(bundle.path)}"
        )
    if problems := parity_problems(variant):
        raise ModelError(
            f"{printable(bundle.path)}: its int8 variant is too far from float32 ({'; '.join(problems)}). Use another "
            "--precision, or train with more calibration texts and export again."
        )
    found: Mapping[str, Any] = variant
    return found


def seal(folder: Path, facts: Mapping[str, Any], leave_out: Collection[str] = ()) -> None:
    """Write ``batchscore.json`` into a folder whose other files are final.

    ``facts`` needs ``labels``, ``max_length``, ``temperature``, ``long_text`` and ``canaries`` (``texts``,
    ``probabilities``); ``calibration_temperature`` (if the weights have it already and ``temperature`` is 1), ``takes_pairs``,
    ``missing_pair``, ``training``, ``metrics`` and ``calibration`` (``texts``, ``held_out``) are free JSON. Files in
    ``leave_out`` are about to be removed. A signature is removed: it is of what was there before.
    """
    (folder / SIGNATURE).unlink(missing_ok=True)
    hashes = {
        name: digest for name, digest in model_files(folder).hashes.items() if name not in {FACTS, *leave_out}
    }
    write_bytes(folder / FACTS, sealed_bytes({"format_version": FORMAT_VERSION, **facts, "files": hashes}))
