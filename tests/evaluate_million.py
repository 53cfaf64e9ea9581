"""By hand: how long ``batchscore evaluate`` takes for a million rows, and how much memory that needs.

``python tests/evaluate_million.py [--rows N] [--format csv]`` makes the run folder of a run without labels from synthetic predictions
(:mod:`report_million`), a file of labels by id in another order, and calls the command on them in a process of its own. It prints its
seconds and its peak memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq
from flow import fake_bundle
from report_million import stage, write_input

from batchscore.runs.finishing import Finish
from batchscore.runs.folder import Staging
from batchscore.runs.run_facts import _file


def finish(staging: Staging, plan: Any, settings: Any) -> None:
    """The run folder of the staged rows."""
    bundle = dataclasses.replace(fake_bundle(), temperature=1.2)
    model = {"labels": list(bundle.labels), "path": "synthetic", "fingerprint": "made", "task": bundle.task}
    facts = {
        "fingerprint": "made",
        "files": [_file(file, {}) for file in plan.files],
        "model": model,
        "options": settings.result_options(),
        "finished": "2026-11-23T03:00:00+00:00",
    }
    Finish(staging, plan, bundle, settings).run(lambda counts: {**facts, "counts": dict(counts)})


def write_labels(folder: Path) -> None:
    """A file of labels in another order than the rows; nine of ten are as predicted."""
    found = pq.read_table(folder / "run/predictions/reviews.parquet", columns=["id", "predicted_label"])
    rng = np.random.default_rng(2)
    labels = found.to_pandas().iloc[rng.permutation(found.num_rows)]
    is_other = rng.random(len(labels)) < 0.1
    other = labels.predicted_label.map({"NEGATIVE": "POSITIVE", "POSITIVE": "NEGATIVE"})
    labels = labels.assign(label=labels.predicted_label.where(~is_other, other))
    labels[["id", "label"]].to_csv(folder / "labels.csv", index=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--format", choices=("same", "csv"), default="same")
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_input(folder / "whole.parquet", options.rows, seed=0)
        whole = pq.read_table(folder / "whole.parquet")
        pq.write_table(whole.drop_columns(["label"]), folder / "reviews.parquet")
        del whole
        made, plan, settings = stage(folder / "run", folder / "reviews.parquet", seed=0)
        finish(made, plan, dataclasses.replace(settings, output_format=options.format))
        write_labels(folder)
        command = [sys.executable, "-m", "batchscore", "evaluate", str(folder / "run")]
        started = time.monotonic()
        subprocess.run([*command, "--labels", str(folder / "labels.csv")], check=True, env=os.environ)
        wall, used = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = used.ru_utime + used.ru_stime
        click.echo(
            f"{options.rows:,} rows: {wall:.1f} s, {cpu:.1f} s of processor time, {options.rows / cpu:,.0f} rows a second of it, "
            f"peak memory {used.ru_maxrss / 1024:.0f} MB"
        )


if __name__ == "__main__":
    main()
