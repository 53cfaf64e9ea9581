"""By hand: the metrics of a finished run's rows against scikit-learn, in one pass and merged from 50 random parts.

``python tests/metrics_figures.py RUN_DIR`` needs labels, scores nothing, and prints how far each metric is from
scikit-learn's. Limits of the project: 1e-9, or the stated error bound for the areas, and merging changes no bit.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import click
import numpy as np
from scored import Scored, read_run
from sklearn import metrics as sk

from batchscore.evaluation import Evaluation


def evaluated(run: Scored, parts: int, seed: int) -> Evaluation:
    """Cut the rows at random into parts of random rows, evaluate each, and merge them in random order."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, parts, len(run.given))
    pieces = []
    for part in range(parts):
        pieces.append(Evaluation(run.labels, None, run.facts["model"]["temperature"]))
        pieces[-1].update(*run.rows(np.flatnonzero(which == part)))
    whole = pieces.pop(int(rng.integers(parts)))
    for k in rng.permutation(len(pieces)):
        whole.merge(pieces[k])
    return whole


def oracle(run: Scored) -> dict[str, float]:
    """What scikit-learn says."""
    given, predicted = run.given, run.predictions.predicted
    probabilities = run.predictions.probabilities.astype(np.float64)
    one_hot = np.eye(len(run.labels))[given]
    # of rows that float32 rounds, so that they sum to 1 for an oracle that insists on it
    loss = sk.log_loss(
        given, probabilities / probabilities.sum(axis=1, keepdims=True), labels=range(len(run.labels))
    )
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        given, predicted, labels=range(len(run.labels))
    )
    found = {
        "accuracy": sk.accuracy_score(given, predicted),
        "macro_f1": sk.f1_score(given, predicted, average="macro"),
        "matthews": sk.matthews_corrcoef(given, predicted),
        "log_loss": loss,
        "brier_sum": float(((probabilities - one_hot) ** 2).sum(axis=1).mean()),
        "brier_score_loss": float(
            sk.brier_score_loss(given, probabilities[:, 1])
            if len(run.labels) == 2
            else ((probabilities - one_hot) ** 2).sum(axis=1).mean()
        ),
    }
    for k, label in enumerate(run.labels):
        found |= {f"precision {label}": precision[k], f"recall {label}": recall[k], f"f1 {label}": f1[k]}
        found[f"roc_auc {label}"] = sk.roc_auc_score(given == k, probabilities[:, k])
        found[f"average_precision {label}"] = sk.average_precision_score(given == k, probabilities[:, k])
    return found


def told(run: Scored, evaluation: Evaluation) -> dict[str, tuple[float, float]]:
    """What we say, each with its stated error bound."""
    quality = evaluation.metrics()["quality"]
    found = {name: (quality[name]["value"], 0.0) for name in ("accuracy", "macro_f1", "matthews")}
    found |= {name: (quality[name], 0.0) for name in ("log_loss", "brier_score_loss", "brier_sum")}
    for label in run.labels:
        row = quality["per_label"][label]
        found |= {f"{name} {label}": (row[name], 0.0) for name in ("precision", "recall", "f1")}
        found |= {
            f"{name} {label}": (row[name]["value"], row[name]["error_bound"])
            for name in ("roc_auc", "average_precision")
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--parts", type=int, default=50)
    options = parser.parse_args()
    run = read_run(options.run)
    once, merged = evaluated(run, 1, 0), evaluated(run, options.parts, 1)
    is_same = json.dumps(once.metrics()) == json.dumps(merged.metrics())
    click.echo(
        f"{len(run.given):,} rows; merged from {options.parts} random parts bit by bit the same: {is_same}"
    )
    is_good, exact = is_same, oracle(run)
    for name, (value, bound) in told(run, merged).items():
        distance = abs(value - exact[name])
        is_good &= distance <= max(bound, 1e-9)
        click.echo(
            f"{name}: {value:.9f}, {distance:.1e} from scikit-learn"
            + (f" (bound {bound:.1e})" if bound else "")
        )
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
