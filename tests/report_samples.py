"""Runs for the tests of the pages: real evaluations of synthetic predictions."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchscore.evaluation import (
    Comparison,
    Distributions,
    Evaluation,
    LabelIssues,
    apply_temperature,
    claim_wrong_labels,
    evaluate_gates,
    flat_metrics,
    measure_drift,
    parse_gate,
)
from batchscore.records import Predictions, Status

LABELS = ("NEGATIVE", "POSITIVE")
RUN = datetime.datetime(2026, 11, 7, 3, 12, 44, tzinfo=datetime.UTC)


class Rows(NamedTuple):
    given: NDArray[np.int64]
    predictions: Predictions


def rows(n: int, *, n_labels: int = 2, seed: int = 0, noise: float = 0.02, sharpness: float = 2.2) -> Rows:
    """Calibrated predictions: each given label is drawn by its probabilities, then ``noise`` of them made wrong.

    Long rows are harder; some rows have no text, no label or an unknown one.
    """
    rng = np.random.default_rng(seed)
    n_tokens = np.minimum(rng.gamma(3, 80, n).astype(np.int32) + 5, 2000)
    width = sharpness * np.where(n_tokens > 512, 0.4, 1.0)[:, None]
    probabilities = apply_temperature(rng.normal(size=(n, n_labels)) * width * 2, 1.0)
    given = (probabilities.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=n_labels - 1)
    given = np.where(rng.random(n) < noise, rng.integers(0, n_labels, n), given)
    status = np.where(rng.random(n) < 0.003, rng.integers(1, 3, n), 0).astype(np.int8)
    ok = status == Status.OK
    probabilities[~ok] = np.nan
    predicted = np.where(ok, np.nan_to_num(probabilities).argmax(axis=1), -1).astype(np.int32)
    n_tokens = np.where(ok, n_tokens, -1).astype(np.int32)
    return Rows(given, Predictions(status, predicted, probabilities, n_tokens, n_tokens > 512))


def held_out(n: int = 5_000, **how: Any) -> dict[str, Any]:
    """What a bundle knows of its reliability: rows of the same kind, of which no label is wrong."""
    sample = rows(n, **{"seed": 99, "noise": 0.0, **how})
    evaluation = Evaluation([f"L{k}" for k in range(sample.predictions.probabilities.shape[1])])
    evaluation.update(*sample)
    return {"reliability": evaluation.metrics()["reliability"], "calibration_error": 0.012}


def metrics(
    sample: Rows,
    *,
    labels: Sequence[str] = LABELS,
    files: Sequence[str] = ("reviews.csv",),
    rejects: int = 0,
    trained: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What ``metrics.json`` holds of these rows, but the comparison with another run; ``trained`` as the bundle has it."""
    evaluation = Evaluation(labels, 0.012)
    names = [files[k * len(files) // len(sample.given)] for k in range(len(sample.given))]
    evaluation.update(sample.given, sample.predictions, slices={"file": names}, rejects=rejects)
    found = evaluation.metrics()
    found["counts"]["duplicate"] = 3
    found |= {"unknown_labels": {}, "failed_rows": [], "gates": []}
    if found["quality"]:
        issues = LabelIssues(len(labels))
        issues.update_thresholds(sample.given, sample.predictions.probabilities)
        issues.quality(sample.given, sample.predictions.probabilities)
        claim = claim_wrong_labels(found["reliability"], trained or {}, len(labels))
        found["label_issues"] = issues.summary() | {"claim": claim.to_json()}
        found["mismatches"] = found["counts"]["evaluated"] - found["counts"]["correct"]
    return found


def unlabelled(sample: Rows) -> Rows:
    return Rows(np.full(len(sample.given), -1), sample.predictions)


def held_against(
    found: dict[str, Any], baseline: dict[str, Any], gates: Sequence[str] = ()
) -> dict[str, Any]:
    """Add drift against ``baseline`` and what the gates say."""
    drift = measure_drift(Distributions.from_metrics(baseline), Distributions.from_metrics(found))
    found = found | {"drift": drift.to_json()}
    results = evaluate_gates([parse_gate(gate, found["labels"]) for gate in gates], flat_metrics(found))
    return found | {"gates": [result.to_json() for result in results]}


def comparison(before: Rows, after: Rows, labels: Sequence[str] = LABELS) -> dict[str, Any]:
    compared = Comparison.empty(len(labels))
    compared.update(after.given, before.predictions.predicted, after.predictions.predicted, before.given)
    return compared.summary(labels)


def facts(
    files: Sequence[str] = ("reviews.csv",), labels: Sequence[str] = LABELS, **more: Any
) -> dict[str, Any]:
    """What ``run.json`` holds."""
    return {
        "fingerprint": "a1b2" * 16,
        "version": "0.1.0",
        "started": RUN.isoformat(),
        "finished": (RUN + datetime.timedelta(minutes=9)).isoformat(),
        "files": [{"path": f"/in/{name}", "name": name, "rows": 20_000, "rejects": 0, "unknown_labels": {}} for name in files],
        "model": {"path": "/models/reviews", "fingerprint": "c3d4" * 16, "labels": list(labels), "max_length": 512, "temperature": 1.31},
        "compute": {"device": "cpu", "precision": "bf16", "backend": "torch", "max_batch_tokens": 8192},
        "options": {"long_text": "head", "max_rejects": "0", "prefix": ""},
        "python": "3.11.2",
        **more,
    }  # fmt: skip


def mismatch(text: str | None, *, row: int = 0, file: str = "reviews.csv", **more: Any) -> dict[str, Any]:
    """One row as ``MismatchTable.head`` gives it."""
    return {
        "file": file, "row": row, "given_label": LABELS[0], "predicted_label": LABELS[1], "probability": 0.97,
        "prob_given": 0.03, "label_quality": 0.03, "is_label_issue": row % 3 == 0, "n_tokens": 212, "truncated": row % 5 == 0,
        "text": text, **more,
    }  # fmt: skip


def write_run(folder: Path, found: dict[str, Any], finished: datetime.datetime, **more: Any) -> None:
    """A finished run folder, as far as the trend looks at it."""
    folder.mkdir(parents=True)
    told = {"finished": finished.isoformat(), **more}
    (folder / "run.json").write_text(json.dumps(told), encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps(found), encoding="utf-8")
    (folder / "report.html").write_text("a page", encoding="utf-8")
    (folder / "_SUCCESS").write_text("", encoding="utf-8")
