"""Facts about a file, a run or a bundle, and whether it was changed since it was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batchscore.config import ReadSettings
from batchscore.errors import DataError, ModelError, NoInputError, UsageError, printable
from batchscore.formats.inputs import identity_of
from batchscore.formats.reading import describe, identify
from batchscore.model.bundle import open_bundle
from batchscore.model.bundle_facts import FACTS
from batchscore.model.held_out import HeldOutAnswers
from batchscore.model.signing import claimed_signer
from batchscore.model.thresholds import thresholds_of
from batchscore.records import Task
from batchscore.reports.learning_curve import curve_lines
from batchscore.reports.linear_baseline import linear_line
from batchscore.reports.self_training import self_training_line
from batchscore.reports.teaching import teaching_lines
from batchscore.runs.as_written import changes_in
from batchscore.runs.folder import DAMAGE, RunFolder, check_run, is_finished, read_run
from batchscore.runs.folder import FACTS as RUN_FACTS
from batchscore.runs.headlines import headline_of

_ACCEPTED = ("precision", "confidence", "calibration", "accepted", "review", "evaluated", "right")
_MEASURES = {"eval_accuracy": "accuracy", "eval_average_precision": "average precision", "eval_r2": "R²"}
_FIGURES = (
    "agreement",
    "difference",
    "micro_f1",
    "macro_f1",
    "subset_accuracy",
    "hamming_loss",
    "mae",
    "rmse",
    "r2",
    "spearman",
)
"""Of a bundle's evaluation, besides the accuracy."""


def verify(path: Path, trust: Sequence[Path] = ()) -> dict[str, Any]:
    """Check a run or a bundle against its manifest; returns its ``kind`` and number of ``files``.

    Raises:
        DataError: a file of a run is missing, changed or not in the manifest; the message names it.
        ModelError: the same for a bundle.
        NoInputError: there is nothing there.
    """
    if not path.is_dir():
        raise NoInputError(f"{printable(path)} is no folder; verify takes a run or a bundle.")
    if (path / FACTS).exists() or (path / "config.json").exists():
        bundle = open_bundle(str(path), trust=trust)
        if not bundle.facts:
            raise ModelError(f"{printable(path)} has no {FACTS} that its files could be held against.")
        facts = {"kind": "bundle", "files": len(bundle.facts["files"]) + 1}
        return {**facts, "signed_by": bundle.signed_by} if trust else facts
    _refuse_trust(path, trust)
    return {"kind": "run", "files": len(check_run(path)) + 1}


def inspect(path: str, trust: Sequence[Path] = ()) -> dict[str, Any]:
    """Facts about a file, a run or a bundle, as JSON values.

    Raises:
        BatchscoreError: it is none of them, or cannot be read.
    """
    folder = Path(path)
    if folder.is_dir() and not (is_finished(folder) or (folder / RUN_FACTS).exists()):
        return _bundle(path, trust)
    _refuse_trust(folder, trust)
    if is_finished(folder) or (folder / RUN_FACTS).exists():
        return _run(folder)
    if not folder.exists():
        raise NoInputError(f"No such file or folder: {printable(path)}.")
    return _file(folder)


def bundle_lines(facts: Mapping[str, Any]) -> list[str]:
    """The lines shown for a trained bundle, from :func:`inspect`: settings, data, curve, evaluation."""
    training, metrics = facts["training"], facts["metrics"]
    data = training["data"]
    texts = "two texts a row, together" if facts["takes_pairs"] else "texts"
    settings = ", ".join(
        f"{key.replace('_', ' ')} {value}"
        for key, value in training["settings"].items()
        if value not in (None, {}, False)
    )
    lines = [
        f"bundle: {len(facts['labels'])} labels ({', '.join(facts['labels'][:20])})",
        f"fingerprint: {facts['fingerprint']}",
        *([f"signed by: {facts['signed_by']}"] if facts.get("signed_by") else ()),
        f"base model: {training['base_model']['name']}",
        f"settings: {settings}; {texts} up to {facts['max_length']} tokens, {facts['long_text']}",
        f"temperature: {facts['temperature']:.4f}, {facts['canaries']} canaries, {facts['held_out_answers']} held-out answers",
    ]
    for name in ("train", "evaluation"):
        lines.append(f"data, {name}: {data[name]['rows']} rows, SHA-256 {data[name]['sha256']}")
        lines += [f"  {key.replace('_', ' ')}: {value}" for key, value in _oddities(data, name)]
    if suspects := data.get("suspects"):
        lines.append(f"labels worth checking: {suspects['flagged']} of {suspects['labelled']}")
    for entry in training["curve"]:
        is_best = " (taken)" if entry["epoch"] == training["best_epoch"] else ""
        name, score = next((_MEASURES[key], entry[key]) for key in entry if key in _MEASURES)
        lines.append(f"epoch {entry['epoch']:g}: loss {entry['eval_loss']:.4f}, {name} {score:.4f}{is_best}")
    lines += [
        f"tried: pooling {each['pooling']}, learning rate {each['learning_rate']:g}, {each['epochs']:g} epochs: accuracy "
        f"{each['accuracy']:.4f}"
        for each in training.get("tuning", ())
    ]
    for name in ("accuracy", "accuracy_held_out", *_FIGURES):
        if (value := metrics.get(name)) is not None:
            lines.append(f"{name.replace('_', ' ')}: {_figure(value)}")
    lines += _compared(Task(facts["task"]), training)
    if "log_loss" in metrics:
        lines.append(
            f"log loss: {metrics['log_loss']:.4f}, calibration error: {metrics['calibration_error']:.4f}"
        )
    return [*lines, *(f"warning: {warning}" for warning in facts["warnings"])]


def _compared(task: Task, training: Mapping[str, Any]) -> list[str]:
    """What was trained, held against other models."""
    lines = []
    if taught := training.get("teaching"):
        lines += teaching_lines(task, taught)
    if linear := training.get("linear_baseline"):
        lines.append(linear_line(task, linear))
    if texts := training.get("self_training"):
        lines.append(self_training_line(task, texts))
    if curve := training.get("learning_curve"):
        lines += curve_lines(task, curve)
    return lines


def _figure(value: Any) -> str:
    """A metric with its interval, if it has one."""
    if not isinstance(value, Mapping):
        return f"{value:.4f}"
    rows = f" on {value['rows']} rows that did not choose the epoch" if "rows" in value else ""
    if value.get("low") is None:
        return f"{value['value']:.4f}{rows}"
    return f"{value['value']:.4f} ({value['low']:.4f} to {value['high']:.4f}, 95 % interval){rows}"


def _oddities(data: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    """Rows left out of a split, and odd rows in it."""
    found = data.get("hygiene", {}).get(name, {})
    counts = {key: value for key, value in found.items() if isinstance(value, int) and key != "longest"}
    return [
        *((f"left out, {reason}", count) for reason, count in data[name]["left_out"].items()),
        *((key, count) for key, count in counts.items() if count),
    ]


def _run(folder: Path) -> dict[str, Any]:
    try:
        return _run_facts(read_run(folder))
    except (OSError, ValueError) as error:
        raise DataError(f"{printable(folder)}: {printable(error)}. Score again with --force.") from error
    except DAMAGE as error:
        raise DataError(f"{printable(folder)} is damaged. Score again with --force.") from error


def _run_facts(run: RunFolder) -> dict[str, Any]:
    headline = headline_of(run.metrics)
    return {
        "kind": "run",
        "finished": run.finished if is_finished(run.path) else None,
        "changed": changes_in(run.path) if is_finished(run.path) else [],
        "files": [{key: file[key] for key in ("path", "format", "rows", "rejects")} for file in run.files],
        "model": run.model["path"],
        "compute": run.facts["compute"],
        **_decided(run),
        "counts": run.counts,
        headline.key: headline.value,
        "mismatches": run.metrics.get("mismatches"),
    }


def _decided(run: RunFolder) -> dict[str, Any]:
    """What was accepted, with the threshold of each label, if the run decided."""
    told = run.metrics.get("acceptance")
    if not told:
        return {}
    thresholds = {label: each["threshold"] for label, each in told["per_label"].items()}
    return {"accepted": {**{key: told[key] for key in _ACCEPTED}, "thresholds": thresholds}}


def _refuse_trust(path: Path, trust: Sequence[Path]) -> None:
    if trust:
        raise UsageError(f"--trust is about bundles, and {printable(path)} is none. Leave it out.")


def _bundle(path: str, trust: Sequence[Path]) -> dict[str, Any]:
    bundle = open_bundle(path, trust=trust)
    claimed = None if trust else claimed_signer(bundle.path)
    thresholds, held_out = thresholds_of(bundle, {}), HeldOutAnswers.of_facts(bundle.facts)
    return {
        "kind": "bundle" if bundle.facts else "Hugging Face folder",
        "task": bundle.task,
        "labels": list(bundle.labels),
        **({"thresholds": dict(zip(bundle.labels, thresholds, strict=True))} if thresholds else {}),
        "max_length": bundle.max_length,
        "temperature": bundle.calibration_temperature,
        "long_text": bundle.long_text,
        "takes_pairs": bundle.takes_pairs,
        "missing_pair": bundle.missing_pair if bundle.takes_pairs else None,
        "canaries": len(bundle.canaries.texts) if bundle.canaries else 0,
        "held_out_answers": len(held_out.predicted) if held_out else 0,
        "fingerprint": bundle.fingerprint,
        "signed_by": f"{claimed} (not checked: --trust was not given)" if claimed else bundle.signed_by,
        "metrics": bundle.facts.get("metrics"),
        "training": bundle.facts.get("training"),
        "warnings": list(bundle.warnings),
    }


def _file(path: Path) -> dict[str, Any]:
    size = identity_of(path).size
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
