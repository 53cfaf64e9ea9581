"""``batchscore.json``: read, checked and written."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batchscore.config import LONG_TEXT, MISSING_PAIR
from batchscore.errors import ModelError, printable
from batchscore.model import held_out
from batchscore.records import THRESHOLD, Task
from batchscore.system.documents import DocumentError, parse_json, read_regular
from batchscore.system.storage import to_json

FACTS = "batchscore.json"
FORMAT_VERSION = 1
LONGEST = 10**9
"""Tokens; more means no limit."""


def json_object(folder: Path, name: str) -> dict[str, Any]:
    """The object in a JSON file; an empty one for any other value (sentence-transformers' ``data_config.json`` is a list)."""
    value = json_value(folder, name)
    return value if isinstance(value, dict) else {}


def json_file(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of a bundle; raises :class:`~batchscore.errors.ModelError` for anything else."""
    return _object(folder, name, file_bytes(folder, name))


def _object(folder: Path, name: str, content: bytes) -> dict[str, Any]:
    value = _value(folder, name, content)
    if not isinstance(value, dict):
        raise ModelError(f"{printable(folder / name)} does not hold a JSON object.")
    return value


def json_value(folder: Path, name: str) -> Any:
    """The JSON value in a file of a bundle; raises :class:`~batchscore.errors.ModelError` if it is not JSON."""
    return _value(folder, name, file_bytes(folder, name))


def _value(folder: Path, name: str, content: bytes) -> Any:
    try:
        return parse_json(content, is_finite=False)
    except DocumentError as error:
        raise ModelError(f"{printable(folder / name)} is not readable JSON: {error}.") from None


def file_bytes(folder: Path, name: str) -> bytes:
    """The bytes of a small file of a bundle; raises :class:`~batchscore.errors.ModelError` if it cannot be read."""
    try:
        return read_regular(folder / name)
    except FileNotFoundError:
        raise ModelError(f"{printable(folder)} has no {name}: it is not a saved model.") from None
    except DocumentError as error:
        raise ModelError(f"{printable(folder / name)} cannot be read: {error}.") from None
    except OSError as error:
        raise ModelError(f"{printable(folder / name)} cannot be read: {error.strerror}.") from error


def read_facts(folder: Path, content: bytes | None = None) -> dict[str, Any]:
    """Read ``batchscore.json``, or its ``content`` if that was read; every byte must be as it was written.

    Raises:
        ModelError: it was changed, or was written by a newer version.
    """
    content = file_bytes(folder, FACTS) if content is None else content
    facts = _object(folder, FACTS, content)
    if facts.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{printable(folder / FACTS)} has format version {printable(facts.get('format_version'))}, this program "
            f"reads {FORMAT_VERSION}. Install the version of batchscore that wrote it."
        )
    try:
        sealed = sealed_bytes({k: v for k, v in facts.items() if k != "sha256"})
    except ValueError:  # such as NaN, which we never write
        sealed = b""
    if content != sealed:
        raise ModelError(
            f"{printable(folder / FACTS)} was changed after it was written. Train the bundle again."
        )
    if problem := _facts_problem(facts):
        raise ModelError(f"{printable(folder / FACTS)}: {problem}. Train the bundle again.")
    return facts


def _facts_problem(facts: Mapping[str, Any]) -> str:
    """What is missing or invalid in ``batchscore.json``; empty if nothing is."""
    claims = {
        "labels": _all(str, facts.get("labels")),
        "files": isinstance(facts.get("files"), dict) and _all(str, list(facts["files"].values())),
        "max_length": _is_number(facts.get("max_length"), int) and facts["max_length"] <= LONGEST,
        "temperature": _is_number(facts.get("temperature"), int | float),
        "calibration_temperature": _is_number(facts.get("calibration_temperature", 1), int | float),
        "long_text": facts.get("long_text") in LONG_TEXT,
        "metrics": isinstance(facts.get("metrics", {}), dict),
        "task": facts.get("task", Task.SINGLE_LABEL) in list(Task),
        "takes_pairs": isinstance(facts.get("takes_pairs", False), bool),
        "missing_pair": facts.get("missing_pair", "skip") in MISSING_PAIR,
        "training": isinstance(facts.get("training", {}), dict),
    }
    if all(claims.values()):  # which the others are about
        claims = {
            "thresholds": _are_thresholds(facts.get("thresholds"), facts["labels"]),
            "variants": _are_variants(facts.get("variants", {}), facts["files"]),
            held_out.KEY: held_out.can_be_meant(facts.get(held_out.KEY), facts),
        }
    if all(claims.values()):
        claims = {"canaries": _are_canaries(facts.get("canaries"), facts)}
    return ", ".join(f"{key} is missing or cannot be meant" for key, holds in claims.items() if not holds)


def _are_variants(variants: Any, files: Any) -> bool:
    """Whether each variant is a listed file with parity figures, limits and canary probabilities."""
    kinds = {"file": str, "parity": dict, "limits": dict, "canaries": list}
    return isinstance(variants, dict) and all(
        isinstance(variant, dict)
        and all(isinstance(variant.get(key), kind) for key, kind in kinds.items())
        and variant["file"] in files
        and {*variant["limits"]} <= {*variant["parity"], "labels_changed_share"}
        and {"texts", "labels_changed"} <= {*variant["parity"]}
        for variant in variants.values()
    )


def _are_thresholds(thresholds: Any, labels: Any) -> bool:
    """Whether there are none, or one from 0 to 1 for each label."""
    if thresholds is None:
        return True
    return (
        isinstance(thresholds, dict)
        and set(thresholds) == set(labels)
        and all(isinstance(value, int | float) and 0 <= value <= 1 for value in thresholds.values())
    )


def _are_canaries(canaries: Any, facts: Mapping[str, Any]) -> bool:
    """Whether each text, or pair, has an answer per label, and its predicted labels still have the same names."""
    labels, task = facts["labels"], facts.get("task", Task.SINGLE_LABEL)
    if not isinstance(canaries, dict):
        return False
    texts = canaries.get("texts")
    if not (_are_pairs(texts) if facts.get("takes_pairs", False) else _all(str, texts)) or not _is_utf8(
        texts
    ):
        return False
    rows: Any = canaries.get("probabilities")
    return (
        _all(list, rows)
        and len(rows) == len(canaries["texts"])
        and all(len(row) == len(labels) for row in rows)
        and all(_is_finite(value) for row in rows for value in row)
        and (task == Task.REGRESSION or all(0 <= value <= 1 for row in rows for value in row))
        and canaries.get("predicted", said := _said(rows, facts)) == said
    )


def _is_utf8(value: object) -> bool:
    """Whether no text among some values has half a surrogate, which no tokenizer takes."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # an integer beyond any float
        return False


def _are_pairs(texts: Any) -> bool:
    return _all(list, texts) and all(len(pair) == 2 and _all(str, pair) for pair in texts)


def _said(rows: Sequence[Sequence[float]], facts: Mapping[str, Any]) -> list[Any]:
    labels, thresholds = facts["labels"], facts.get("thresholds") or {}
    each = [thresholds.get(label, THRESHOLD) for label in labels]
    return predicted_names(rows, labels, Task(facts.get("task", Task.SINGLE_LABEL)), each)


def predicted_names(
    probabilities: Sequence[Sequence[float]],
    labels: Sequence[str],
    task: Task = Task.SINGLE_LABEL,
    thresholds: Sequence[float] = (),
) -> list[Any]:
    """The predicted label of each row, by name; a bundle stores them so that swapped names are noticed.

    Of several labels a list of names for each row; of numbers the number.

    >>> predicted_names([[0.9, 0.1], [0.2, 0.8]], ["no", "yes"])
    ['no', 'yes']
    """
    if task == Task.REGRESSION:
        return [row[0] for row in probabilities]
    if task == Task.MULTI_LABEL:
        return [
            [name for name, p, least in zip(labels, row, thresholds, strict=True) if p >= least]
            for row in probabilities
        ]
    return [labels[max(range(len(row)), key=row.__getitem__)] for row in probabilities]


def _all(kind: Any, values: object) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(value, kind) for value in values)


def _is_number(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and value > 0 and math.isfinite(value)


def sealed_bytes(facts: Mapping[str, Any]) -> bytes:
    """The bytes of ``batchscore.json``, with the SHA-256 of the rest of its content."""
    return to_json({**facts, "sha256": hashlib.sha256(to_json(facts)).hexdigest()})


def manifest_problems(facts: Mapping[str, Any], hashes: Mapping[str, str]) -> list[str]:
    """How a folder differs from its manifest, one clause per difference."""
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


def parity_problems(variant: Mapping[str, Any]) -> list[str]:
    """The limits that a variant's parity figures exceed, one clause each."""
    parity, limits = variant["parity"], variant["limits"]
    if parity is None:
        return []
    found = {**parity, "labels_changed_share": parity["labels_changed"] / max(parity["texts"], 1)}
    return [
        f"{name.replace('_', ' ')} {found[name]:.4f}, allowed {limit}"
        for name, limit in limits.items()
        if not found[name] <= limit
    ]
