"""By hand: how honest the probabilities of a finished run are, and whether the estimate without labels holds.

``python tests/calibration_figures.py RUN_DIR`` needs the labels that came with the rows and scores nothing. It prints the
calibration error before and after the temperature, expected accuracy beside the true one, and on how many of 20 random
samples of 500 rows the interval of expected accuracy held the true one of that sample. Limits of the project: 0.02 after
the temperature, 1 point, 18 of 20.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import click
import numpy as np
from scored import Scored, read_run

from batchscore.evaluation import Evaluation


def held(run: Scored, samples: int, size: int, seed: int) -> tuple[int, float, float]:
    """Of how many samples the interval holds the truth, its mean half width, and the mean distance of the estimate."""
    error = run.metrics["expected_accuracy"]["calibration_error"]
    rng, hits, widths, misses = np.random.default_rng(seed), 0, [], []
    for _ in range(samples):
        evaluation = Evaluation(run.labels, error)
        evaluation.update(*run.rows(rng.choice(len(run.given), size, replace=False)))
        told = evaluation.metrics()
        expected, truth = told["expected_accuracy"], told["quality"]["accuracy"]["value"]
        hits += expected["low"] <= truth <= expected["high"]
        widths.append((expected["high"] - expected["low"]) / 2)
        misses.append(abs(expected["value"] - truth))
    return hits, float(np.mean(widths)), float(np.mean(misses))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--size", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run = read_run(options.run)
    evaluation = Evaluation(run.labels, None, run.facts["model"]["temperature"])
    evaluation.update(run.given, run.predictions)
    told = evaluation.metrics()
    calibration, truth = told["calibration"], told["quality"]["accuracy"]
    recorded = run.metrics["calibration"]["ece"]
    click.echo(
        f"{len(run.given):,} rows; accuracy {truth['value']:.4f} ({truth['low']:.4f} to {truth['high']:.4f})"
    )
    click.echo(
        f"calibration error {calibration['ece']:.4f} (metrics.json: {recorded:.4f}); before the temperature of "
        f"{calibration['temperature']:.3f} {calibration['before']['ece']:.4f}"
    )
    expected = told["expected_accuracy"]["value"]
    click.echo(
        f"expected accuracy {expected:.4f}, {100 * (expected - truth['value']):+.2f} points from the true one"
    )
    hits, width, miss = held(run, options.samples, options.size, options.seed)
    click.echo(
        f"its interval (calibration error of {run.metrics['expected_accuracy']['calibration_error']}, half width "
        f"{100 * width:.2f} points) held the truth on {hits} of {options.samples} samples of {options.size}; mean "
        f"distance {100 * miss:.2f} points"
    )


if __name__ == "__main__":
    main()
