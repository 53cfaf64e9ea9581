"""By hand: how long a run of a million rows takes to evaluate and report, and how much memory that needs.

``python tests/report_million.py [--rows N] [--baseline]`` stages synthetic predictions of short Parquet rows (id, text,
label, shop), then builds everything that a run folder holds from them, as ``batchscore score`` does once it has scored:
metrics with slices, label issues, mismatches, predictions, the page, and with ``--baseline`` the comparison by id with an
earlier run of the same rows in another order. It prints seconds and peak memory of each step; limits of the project:
60 s and 600 MB for evaluating and reporting a million rows.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from flow import fake_bundle
from report_samples import rows as synthetic

from batchscore.config import ScoreSettings
from batchscore.formats.answers import answers_of
from batchscore.formats.inputs import find_files
from batchscore.formats.staged import Section, stage_shard
from batchscore.records import Predictions
from batchscore.runs.baselines import open_baseline
from batchscore.runs.finishing import Finish
from batchscore.runs.folder import Staging
from batchscore.runs.planning import given_labels, make_plan, read_parts
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import make_folder

CHUNK = 50_000


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextlib.contextmanager
def timed(name: str) -> Iterator[None]:
    started, cpu = time.monotonic(), time.process_time()
    yield
    wall, cpu = time.monotonic() - started, time.process_time() - cpu
    click.echo(
        f"{name}: {wall:.1f} s, {cpu:.1f} s of processor time, peak memory so far {megabytes():.0f} MB",
    )


def write_input(path: Path, total: int, seed: int) -> None:
    """Rows whose text is short: what is measured is the evaluation, not the copying of texts."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(total)
    schema = pa.schema(
        [("id", pa.string()), ("text", pa.string()), ("label", pa.int8()), ("shop", pa.string())]
    )
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, total, CHUNK):
            ids = order[start : start + CHUNK]
            table = {
                "id": [f"review-{k}" for k in ids],
                "text": [f"A review with the number {k}, neither good nor bad." for k in ids],
                "label": rng.integers(0, 2, len(ids)).astype(np.int8),
                "shop": [f"shop {k % 40}" for k in ids],
            }
            writer.write_table(pa.table(table, schema))


def stage(folder: Path, path: Path, seed: int) -> tuple[Staging, Any, ScoreSettings]:
    """What scoring would leave behind."""
    settings = ScoreSettings((str(path),), "fake", folder, slice_columns=("shop",))
    bundle, staging = fake_bundle(), Staging(OwnPath(folder) / ".staging/made-up")
    make_folder(staging.parts)
    with staging.rejects.open_fresh() as rejects:
        plan = make_plan(find_files(settings.inputs, None, folder), bundle, settings, rejects)
    given = given_labels(plan, bundle, {})
    for part, rows in read_parts(plan, plan.parts, settings.read):
        predictions: Predictions = synthetic(len(rows.texts), seed=seed * 100_003 + part.number).predictions
        indices = given[part.file].indices(rows.labels, len(rows.texts))
        # labels agree with the predictions as often as those of a good model do
        rng = np.random.default_rng(part.number)
        is_right = (rng.random(len(indices)) < 0.9) & (predictions.predicted >= 0)
        indices = np.where(is_right, predictions.predicted, indices).astype(np.int32)
        section = Section(rows, predictions, indices)
        stage_shard(staging.shard(part.number), [section], answers_of(bundle.task, bundle.labels))
    return staging, plan, settings


def finish(staging: Staging, plan: Any, settings: ScoreSettings, baseline: Path | None) -> dict[str, Any]:
    bundle = dataclasses.replace(fake_bundle(), temperature=1.2)
    facts = {
        "files": [
            {
                **{
                    key: getattr(file, key)
                    for key in ("name", "format", "compression", "sha256", "rows", "rejects")
                },
                "columns": dataclasses.asdict(file.columns),
            }
            for file in plan.files
        ],
        "model": {"labels": list(bundle.labels), "path": "synthetic"},
        "options": settings.result_options(),
        "finished": "2026-11-23T03:00:00+00:00",
    }
    earlier = open_baseline(baseline, bundle.labels) if baseline else None
    if earlier:
        earlier.verify()
    finishing = Finish(staging, plan, bundle, settings, earlier)
    return dict(finishing.run(lambda counts: {**facts, "counts": dict(counts)}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--baseline", action="store_true")
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        earlier = folder / "earlier" if options.baseline else None
        if earlier:
            write_input(folder / "earlier.parquet", options.rows, seed=1)
            made = stage(earlier, folder / "earlier.parquet", seed=1)
            with timed("the earlier run, without a comparison"):
                finish(*made, None)
        write_input(folder / "reviews.parquet", options.rows, seed=0)
        made = stage(folder / "run", folder / "reviews.parquet", seed=0)
        click.echo(f"staged {options.rows:,} rows; peak memory so far {megabytes():.0f} MB")
        with timed(f"evaluated and reported{', compared by id' if earlier else ''}, all files written"):
            metrics = finish(*made, earlier)
        told = {key: metrics["counts"][key] for key in ("read", "scored", "evaluated", "correct")}
        told |= {"mismatches": metrics["mismatches"], "compared": metrics.get("comparison", {}).get("rows")}
        told["page_bytes"] = (folder / "run" / "report.html").stat().st_size
        click.echo(json.dumps(told))


if __name__ == "__main__":
    main()
