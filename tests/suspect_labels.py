"""By hand: are labels that were flipped on purpose worth checking first, and is their number claimed as it is?

``python tests/suspect_labels.py --model BUNDLE [--rows 4000] [--flips 200] [--seed 0]`` flips labels of shuffled rows of
``--data`` (default: the real test reviews), scores them and reads ``mismatches.parquet``. ``--run RUN_DIR`` instead of
``--model`` takes the probabilities of a finished run, which labels do not change, and scores nothing. It prints how many
of the first rows are flipped ones (the curve), whether the order is cleanlab's own, cleanlab's count beside ours, and, in 20
random samples with no flips, 2 %, 5 % and 10 % of the rows, how often the interval of the claim holds the number, and what is
said. Limits of the project: 70 % of the first 200, the same order, 18 of the 20 each.
"""

from __future__ import annotations

import argparse
import collections
import json
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from cleanlab.rank import get_label_quality_scores, order_label_issues
from conftest import IMDB
from numpy.typing import NDArray
from scored import Scored, read_run

from batchscore.config import ComputeSettings, ScoreSettings
from batchscore.evaluation import Claim, Evaluation, LabelIssues, claim_wrong_labels, label_quality
from batchscore.evaluation.significance import Estimate
from batchscore.runs.mismatch_columns import Keys
from batchscore.runs.run import score
from batchscore.system.terminal import Progress

CURVE = (10, 25, 50, 100, 150, 200, 300, 400, 600)
SHARES = (0.0, 0.02, 0.05, 0.1)
SAMPLES = 20


def flipped_rows(rows: int, flips: int, seed: int) -> NDArray[np.bool_]:
    """Which rows get another label."""
    is_flipped = np.zeros(rows, dtype=np.bool_)
    is_flipped[np.random.default_rng(seed).choice(rows, flips, replace=False)] = True
    return is_flipped


def scored_anew(
    options: argparse.Namespace, folder: Path
) -> tuple[Scored, NDArray[np.bool_], NDArray[np.int64]]:
    """Flip, score and read back: the run, which of its rows were flipped, and the rows of its mismatches in order."""
    data = pd.read_parquet(options.data).sample(n=options.rows, random_state=options.seed)
    is_flipped = flipped_rows(len(data), options.flips, options.seed)
    data = data.assign(label=np.where(is_flipped, 1 - data.label, data.label))
    data.to_parquet(folder / "flipped.parquet", index=False)
    compute = ComputeSettings(workers=options.workers)
    settings = ScoreSettings(
        (str(folder / "flipped.parquet"),), options.model, folder / "run", compute=compute
    )
    score(settings, Progress)
    mismatches = pd.read_parquet(folder / "run" / "mismatches.parquet")
    run = read_run(folder / "run")
    if len(run.given) != len(data):
        raise SystemExit("every row of the data must have a text and a known label")
    return run, is_flipped, mismatches.row.to_numpy(np.int64)


def scored_before(options: argparse.Namespace) -> tuple[Scored, NDArray[np.bool_], NDArray[np.int64]]:
    """The same from a finished run, the labels flipped here."""
    run = read_run(options.run)
    chosen = np.random.default_rng(options.seed).permutation(len(run.given))[: options.rows]
    given, predictions = run.rows(chosen)
    is_flipped = flipped_rows(len(given), options.flips, options.seed)
    given = np.where(is_flipped, (given + 1) % len(run.labels), given)
    at = np.flatnonzero(given != predictions.predicted)
    quality = label_quality(given, predictions.probabilities)[at]
    number = np.zeros(len(at), dtype=np.int32)
    keys = Keys(number, at.astype(np.int32), quality, number.astype(np.bool_), predictions.n_tokens[at])
    return (
        run._replace(given=given, predictions=predictions),
        is_flipped,
        keys.in_order().index.astype(np.int64),
    )


def confident_disagreements(run: Scored) -> int:
    """cleanlab's count, which takes every one of them for a wrong label."""
    issues = LabelIssues(len(run.labels))
    issues.update_thresholds(run.given, run.predictions.probabilities)
    issues.quality(run.given, run.predictions.probabilities)
    return issues.n_issues


def trained_metrics(run: Scored) -> dict[str, Any]:
    """What the run's bundle knows of its model."""
    facts = json.loads((Path(run.facts["model"]["path"]) / "batchscore.json").read_bytes())
    return dict(facts["metrics"])


def claim_of(run: Scored, trained: dict[str, Any]) -> Claim:
    """What is said of all rows of ``run``."""
    evaluation = Evaluation(run.labels)
    evaluation.update(run.given, run.predictions)
    return claim_wrong_labels(evaluation.reliability.summary(), trained, len(run.labels))


def flipped(run: Scored, rows: int, flips: int, seed: int) -> Scored:
    """Random rows, some of them with another label, whatever the label."""
    rng = np.random.default_rng(seed)
    given, predictions = run.rows(rng.choice(len(run.given), min(rows, len(run.given)), replace=False))
    others = (given + rng.integers(1, len(run.labels), len(given))) % len(run.labels)
    given = np.where(flipped_rows(len(given), flips, seed), others, given)
    return run._replace(given=given, predictions=predictions)


def tell_claims(run: Scored, rows: int) -> None:
    """Print how the claim does on random samples with labels flipped; ``run`` has them as they were."""
    trained = trained_metrics(run)
    for share in SHARES:
        flips = round(share * min(rows, len(run.given)))
        found = [claim_of(flipped(run, rows, flips, seed), trained) for seed in range(SAMPLES)]
        intervals = [claim.interval or Estimate(0, 0, 0) for claim in found]
        held = sum(each.low <= flips <= each.high for each in intervals)
        value, low, high = np.mean(intervals, axis=0)
        verdicts = collections.Counter(claim.verdict for claim in found)
        said = ", ".join(f"{verdict} {count}" for verdict, count in verdicts.most_common())
        click.echo(
            f"{flips} flipped: the interval holds that in {held} of {SAMPLES} samples, on average {value:.0f} ({low:.0f} to "
            f"{high:.0f}); said: {said}"
        )


def tell(run: Scored, is_flipped: NDArray[np.bool_], order: NDArray[np.int64], flips: int) -> None:
    """Print the figures."""
    found = np.cumsum(is_flipped[order])
    mismatched = int((run.given != run.predictions.predicted).sum())
    before = np.where(is_flipped, (run.given - 1) % len(run.labels), run.given)
    right = float((before == run.predictions.predicted).mean())
    click.echo(
        f"{len(run.given):,} rows, {flips} flipped; accuracy on the labels as they were {right:.4f}; {mismatched} mismatches"
    )
    told = [f"{k}: {found[k - 1] / k:.1%}" for k in CURVE if k <= len(order)]
    click.echo(f"flipped ones among the first ... rows: {', '.join(told)}")
    if len(order) >= flips:
        click.echo(
            f"precision at {flips}: {found[flips - 1] / flips:.1%} (chance: {flips / len(run.given):.1%})"
        )
    click.echo(f"flipped ones among all mismatches: {found[-1]} of {flips}")
    probabilities = run.predictions.probabilities.astype(np.float64)
    theirs = order_label_issues(
        run.given != run.predictions.predicted, run.given, probabilities, rank_by="self_confidence"
    )
    scores = get_label_quality_scores(run.given, probabilities)
    click.echo(
        f"the same rows as cleanlab ranks: {set(order.tolist()) == set(theirs.tolist())}; the same order but for ties: "
        f"{bool(np.array_equal(scores[order], scores[theirs]))}; places that differ (all ties): {int((order != theirs).sum())}"
    )
    as_they_were = run._replace(given=before)
    for name, each in (("as they were", as_they_were), ("flipped", run)):
        claim = claim_of(each, trained_metrics(run))
        click.echo(f"labels {name}: cleanlab counts {confident_disagreements(each)}; {claim.to_json()}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model")
    which.add_argument("--run", type=Path)
    parser.add_argument("--data", type=Path, default=IMDB / "test.parquet")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    if options.run:
        tell(*scored_before(options), options.flips)
        tell_claims(read_run(options.run), options.rows)
        return
    with tempfile.TemporaryDirectory() as name:
        tell(*scored_anew(options, Path(name)), options.flips)


if __name__ == "__main__":
    main()
