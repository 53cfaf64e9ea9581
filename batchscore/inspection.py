"""What is in a file, a run or a bundle, and whether it is still as it was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from batchscore.bundle import FACTS, open_bundle
from batchscore.config import ReadSettings
from batchscore.errors import DataError, ModelError, NoInputError, printable
from batchscore.inputs import identity_of
from batchscore.readers import describe, identify
from batchscore.storage import MANIFEST, damaged_files, read_manifest


def verify(path: Path) -> dict[str, Any]:
    """Check a run or a bundle against its manifest; returns its ``kind`` and number of ``files``.

    Raises:
        DataError: a file of a run is missing, changed or foreign; the message names it.
        ModelError: the same for a bundle.
        NoInputError: there is nothing there.
    """
    if not path.is_dir():
        raise NoInputError(f"{printable(path)} is no folder; verify takes a run or a bundle.")
    if (path / FACTS).exists() or (path / "config.json").exists():
        bundle = open_bundle(str(path))
        if not bundle.facts:
            raise ModelError(f"{printable(path)} has no {FACTS} that its files could be held against.")
        return {"kind": "bundle", "files": len(bundle.facts["files"]) + 1}
    hashes = read_manifest(path)
    if problems := damaged_files(path, hashes):
        raise DataError(
            f"{printable(path)} is not as it was written: {'; '.join(problems[:20])}. Score again with --force."
        )
    return {"kind": "run", "files": len(hashes) + 1}


def inspect(path: str) -> dict[str, Any]:
    """Facts about a file, a run or a bundle, as JSON values.

    Raises:
        BatchscoreError: it is none of them, or cannot be read.
    """
    folder = Path(path)
    if (folder / MANIFEST).exists() or (folder / "run.json").exists():
        return _run(folder)
    if folder.is_dir():
        return _bundle(path)
    if not folder.exists():
        raise NoInputError(f"No such file or folder: {printable(path)}.")
    return _file(folder)


def _run(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / "run.json").read_bytes())
        metrics = json.loads((folder / "metrics.json").read_bytes())
        return _run_facts(folder, facts, metrics)
    except (OSError, ValueError) as error:
        raise DataError(f"{printable(folder)}: {printable(error)}. Score again with --force.") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{printable(folder)} is damaged. Score again with --force.") from error


def _run_facts(folder: Path, facts: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    quality = metrics["quality"] or {}
    return {
        "kind": "run",
        "finished": facts["finished"] if (folder / MANIFEST).exists() else None,
        "files": [
            {key: file[key] for key in ("path", "format", "rows", "rejects")} for file in facts["files"]
        ],
        "model": facts["model"]["path"],
        "compute": facts["compute"],
        "counts": metrics["counts"],
        "accuracy": quality.get("accuracy"),
        "mismatches": metrics.get("mismatches"),
    }


def _bundle(path: str) -> dict[str, Any]:
    bundle = open_bundle(path)
    return {
        "kind": "bundle" if bundle.facts else "Hugging Face folder",
        "labels": list(bundle.labels),
        "max_length": bundle.max_length,
        "temperature": bundle.temperature,
        "long_text": bundle.long_text,
        "canaries": len(bundle.canaries.texts) if bundle.canaries else 0,
        "fingerprint": bundle.fingerprint,
        "metrics": bundle.facts.get("metrics"),
        "training": bundle.facts.get("training"),
        "warnings": list(bundle.warnings),
    }


def _file(path: Path) -> dict[str, Any]:
    size = identity_of(path)[0]
    source = identify(path)
    layout = describe(source, ReadSettings())
    dialect = layout.details.get("dialect")
    return {
        "kind": "file",
        "format": source.format,
        "compression": source.compression or None,
        "size": size,
        "columns": {column.name: column.kind for column in layout.columns},
        **({"dialect": dialect} if dialect else {}),
    }
