"""How often the promise of ``--accept precision=X`` is kept, and how much it accepts: many splits of one labelled run.

    batchscore score held-out.parquet --model model/ --output runs/held-out
    python tests/acceptance_figures.py runs/held-out --accept precision=0.98 --splits 200

Each split draws half of the labelled rows at random. Thresholds are chosen on it, as ``--accept`` chooses them, and held against the
other half. Counted is, for each confidence: in how many splits at least X of the accepted rows of the other half were right,
all labels together (``kept``) and each label by itself (``kept by label``; the other half is a sample too, and a label that is
exactly at X in truth is below it in half of all samples); in how many the retest would have failed the gate; and the share
accepted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from batchscore.config import Acceptance
from batchscore.evaluation.acceptance import AnsweredRows, chosen_acceptance
from batchscore.evaluation.accepted_rows import AcceptedRows
from batchscore.model.thresholds import parse_accept
from batchscore.records import Predictions, Status
from batchscore.runs.calibration_rows import answered_rows
from batchscore.runs.folder import read_run


class Half(NamedTuple):
    """What came of one split."""

    accepted: int
    rows: int
    right: int
    is_kept: bool
    is_kept_by_label: bool
    is_gate_failed: bool


def picked(rows: AnsweredRows, places: Any) -> AnsweredRows:
    """Some of the rows."""
    return AnsweredRows(*(column[places] for column in rows))


def tried(rows: AnsweredRows, n_labels: int, promise: tuple[float, float], seed: int) -> Half:
    """Choose on one half, and look at the other."""
    order = np.random.default_rng(seed).permutation(len(rows.predicted))
    chosen_on, others = (picked(rows, part) for part in np.array_split(order, 2))
    return outcome(chosen_acceptance(*promise, chosen_on, n_labels), others, n_labels)


def outcome(found: Acceptance, others: AnsweredRows, n_labels: int) -> Half:
    """What the thresholds accept of other rows, as a run measures it."""
    probabilities = np.full((len(others.predicted), n_labels), np.float32(0))
    probabilities[np.arange(len(others.predicted)), others.predicted] = others.probability
    status, none = (
        np.full(len(others.predicted), Status.OK, np.int8),
        np.zeros(len(others.predicted), np.int32),
    )
    predictions = Predictions(status, others.predicted, probabilities, none, none > 0)
    tally = AcceptedRows.empty(n_labels)
    tally.update(np.where(others.right, others.predicted, n_labels), predictions, found.thresholds)
    told = tally.summary([str(label) for label in range(n_labels)], found)
    shares = [each["right"] >= found.precision * each["evaluated"] for each in told["per_label"].values()]
    return Half(
        told["accepted"],
        told["rows"],
        told["right"],
        told["right"] >= found.precision * told["accepted"],
        all(shares),
        told["bound"] is not None and told["bound"] < found.precision,
    )


def main() -> None:
    """Print a table, one line a confidence."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "run", type=Path, help="a finished run over labelled rows that its model was not trained on"
    )
    parser.add_argument("--accept", default="precision=0.98")
    parser.add_argument(
        "--confidence", type=float, action="append", help="repeatable; 0.9, 0.95 and 0.99 by default"
    )
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    given = parser.parse_args()
    rows, labels = answered_rows(given.run), read_run(given.run).model["labels"]
    precision = parse_accept(given.accept)
    assert precision is not None
    click.echo(
        f"{len(rows.predicted):,} labelled rows, {rows.right.mean():.2%} right; {given.splits} splits in halves; precision {precision:g}"
    )
    figures = []
    for confidence in given.confidence or [0.9, 0.95, 0.99]:
        halves = [tried(rows, len(labels), (precision, confidence), seed) for seed in range(given.splits)]
        accepted = np.array([half.accepted / half.rows for half in halves])
        right = np.array([half.right / max(half.accepted, 1) for half in halves])
        kept, by_label = (
            sum(getattr(half, name) for half in halves) for name in ("is_kept", "is_kept_by_label")
        )
        failed = sum(half.is_gate_failed for half in halves)
        click.echo(
            f"confidence {confidence:g}: kept {kept} of {given.splits}, kept by label {by_label}, gate failed {failed}; accepted "
            f"{accepted.mean():.1%} ({accepted.min():.1%} to {accepted.max():.1%}), {right.mean():.2%} of it right "
            f"({right.min():.2%} to {right.max():.2%})"
        )
        figures.append(
            {
                "confidence": confidence,
                "kept": kept,
                "kept_by_label": by_label,
                "failed": failed,
                "accepted": accepted.tolist(),
            }
        )
    if given.json:
        given.json.write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
