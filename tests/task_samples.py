"""Runs of models with several labels, and of those that give a number: real evaluations of synthetic answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchscore.evaluation import (
    Basis,
    Distributions,
    evaluate_gates,
    flat_metrics,
    measure_drift,
    measures_of,
    parse_gate,
)
from batchscore.records import Predictions, Status, Task

TOXIC = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
_RARITY = (-1.6, -4.0, -2.4, -4.6, -2.2, -3.8)
BASES = {
    Task.MULTI_LABEL: Basis(Task.MULTI_LABEL, TOXIC, 0.012, 1.4, (0.5, 0.3, 0.5, 0.2, 0.5, 0.4)),
    Task.REGRESSION: Basis(Task.REGRESSION, ("educational_score",), tolerance=0.5),
}


class Rows(NamedTuple):
    given: NDArray[Any]
    predictions: Predictions

    def take(self, chosen: NDArray[np.int64] | slice) -> Rows:
        p = self.predictions
        names = ("status", "predicted", "probabilities", "n_tokens", "truncated")
        columns: dict[str, Any] = {name: getattr(p, name)[chosen] for name in names}
        return Rows(self.given[chosen], Predictions(**columns))

    def unlabelled(self, task: Task) -> Rows:
        none = np.nan if task is Task.REGRESSION else -1
        return Rows(np.full_like(self.given, none), self.predictions)


def _lengths(n: int, rng: np.random.Generator) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
    status = np.where(rng.random(n) < 0.003, rng.integers(1, 3, n), 0).astype(np.int8)
    n_tokens = np.minimum(rng.gamma(3, 80, n).astype(np.int32) + 5, 2000)
    return status, np.where(status == Status.OK, n_tokens, -1).astype(np.int32)


def label_sets(n: int, seed: int = 0, basis: Basis = BASES[Task.MULTI_LABEL], noise: float = 0.01) -> Rows:
    """Calibrated probabilities; labels drawn by them, a few made wrong; some rows without a text, a label or a known one."""
    rng = np.random.default_rng(seed)
    status, n_tokens = _lengths(n, rng)
    n_labels = len(basis.labels)
    rarity = np.resize(np.array(_RARITY), n_labels)
    shared = rng.normal(size=(n, 1)) * 2
    logits = rarity + shared + rng.normal(size=(n, n_labels)) * np.where(n_tokens > 512, 0.8, 2.2)[:, None]
    p = (1 / (1 + np.exp(-logits))).astype(np.float32)
    given = ((rng.random((n, n_labels)) < p) ^ (rng.random((n, n_labels)) < noise)).astype(np.int8)
    given[rng.random(n) < 0.01] = -1
    given[rng.random(n) < 0.002] = -2
    limits = np.array(basis.thresholds or [0.5] * n_labels, dtype=np.float32)
    predicted = (p >= limits).astype(np.int8)
    out = status != Status.OK
    p[out], predicted[out] = np.nan, -1
    return Rows(given, Predictions(status, predicted, p, n_tokens, n_tokens > 512))


def numbers(n: int, seed: int = 0, noise: float = 0.45, shift: float = 0.0) -> Rows:
    """Values near given whole numbers from 0 to 5; long rows are harder; some rows without a text, a number or a readable one."""
    rng = np.random.default_rng(seed)
    status, n_tokens = _lengths(n, rng)
    given = np.clip(np.round(rng.gamma(2.2, 0.65, n)), 0, 5)
    width = noise * np.where(n_tokens > 512, 2.0, 1.0)
    values = (0.35 + 0.8 * given + rng.normal(size=n) * width + shift).astype(np.float32)
    given[rng.random(n) < 0.01] = np.nan
    given[rng.random(n) < 0.002] = np.inf
    values[status != Status.OK] = np.nan
    return Rows(given, Predictions(status, values, values[:, None], n_tokens, n_tokens > 512))


def sample(task: Task, n: int, seed: int = 0) -> Rows:
    return label_sets(n, seed) if task is Task.MULTI_LABEL else numbers(n, seed)


def metrics(task: Task, rows: Rows, basis: Basis | None = None, rejects: int = 0) -> dict[str, Any]:
    """What ``metrics.json`` holds of these rows, but the comparison with another run."""
    basis = basis or BASES[task]
    evaluation = measures_of(task).evaluation(basis)
    files = [f"part-{k * 3 // len(rows.given)}.parquet" for k in range(len(rows.given))]
    evaluation.update(rows.given, rows.predictions, slices={"file": files}, rejects=rejects)
    found = evaluation.metrics()
    found["counts"]["duplicate"] = 0
    found |= {"unknown_labels": {}, "failed_rows": [], "gates": []}
    if found["quality"]:
        issues = measures_of(task).issues(basis)
        issues.update_thresholds(rows.given, rows.predictions.probabilities)
        issues.quality(rows.given, rows.predictions.probabilities)
        found["label_issues"] = {**issues.summary(), "claim": None}
        found["mismatches"] = found["counts"]["evaluated"] - found["counts"]["correct"]
    return found


def held_against(
    task: Task,
    found: Mapping[str, Any],
    baseline: Mapping[str, Any],
    rows: tuple[Rows, Rows] | None = None,
    gates: Sequence[str] = (),
) -> dict[str, Any]:
    """Add drift against ``baseline``, the comparison of the same ``rows`` before and now, and what the gates say."""
    basis = BASES[task]
    report = measure_drift(Distributions.from_metrics(baseline), Distributions.from_metrics(found))
    whole = {**found, "drift": report.to_json()}
    if rows is not None:
        before, after = rows
        compared, slices = measures_of(task).comparison(basis), measures_of(task).slice_changes(basis)
        old, new = before.predictions.predicted, after.predictions.predicted
        compared.update(after.given, old, new, before.given)
        slices.update(after.given, old, new, (after.predictions.truncated, after.predictions.n_tokens), {})
        facts = {"same_model": False, "matched_by": "id", "unmatched": 3, "ambiguous": 0}
        whole["comparison"] = {**facts, **compared.summary(basis.labels), "slices": slices.summary()}
    limits = [parse_gate(gate, basis.labels, task=task) for gate in gates]
    whole["gates"] = [result.to_json() for result in evaluate_gates(limits, flat_metrics(whole))]
    return whole


def mismatches(task: Task, n: int = 6) -> list[dict[str, Any]]:
    """Rows as ``MismatchTable.head`` gives them."""
    text = "You <b>absolute</b> fool, this is the worst article I have ever read. " * 3
    place = [
        {"file": "part-0.parquet", "row": 7919 * k, "n_tokens": 40 * k + 8, "truncated": k == 3, "text": text}
        for k in range(n)
    ]
    if task is Task.REGRESSION:
        return [
            {**each, "given_value": float(k % 6), "value": 5.5 - k, "error": 5.5 - k - k % 6}
            for k, each in enumerate(place)
        ]
    labels = {
        "given_labels": ["toxic", "insult"], "predicted_labels": ["toxic", "obscene"],
        "missing_labels": ["insult"], "extra_labels": ["obscene"],
    }  # fmt: skip
    ranking = {"label_quality": 0.02, "is_label_issue": True}
    return [{**each, **labels, **ranking} for each in place]
