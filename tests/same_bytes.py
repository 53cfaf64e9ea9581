"""By hand: do two versions of the package write the same bytes?

``python tests/same_bytes.py --old TREE --model BUNDLE [--data REVIEWS.parquet] [--rows 64]`` scores a fixed set of inputs with
the package in ``TREE`` (another checkout) and with this one: every format, compressed, with labels, rejects, null and empty
texts, slices, a baseline, windows over long texts, another output format, Ray, int8. It compares predictions, mismatches and rejects
byte for byte, and every figure of ``metrics.json`` that both have.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pandas as pd
from conftest import IMDB

ROOT = Path(__file__).parents[1]
RUNS: Mapping[str, tuple[str, ...]] = {
    "csv": ("reviews.csv",),
    "csv-gz": ("reviews.csv.gz",),
    "tsv": ("reviews.tsv", "--max-rejects", "5"),
    "parquet": ("reviews.parquet", "--slice-column", "stars"),
    "jsonl": ("reviews.jsonl",),
    "json": ("reviews.json",),
    "unlabelled": ("reviews.csv", "--no-labels"),
    "several": ("reviews.csv", "reviews.parquet", "reviews.jsonl"),
    "csv-to-parquet": ("reviews.csv", "--output-format", "parquet"),
    "parquet-to-csv": ("reviews.parquet", "--output-format", "csv"),
    "parquet-to-json": ("reviews.parquet", "--output-format", "json"),
    "jsonl-to-parquet": ("reviews.jsonl", "--output-format", "parquet"),
    "windows": ("reviews.parquet", "--long-text", "windows"),
    "head-tail": ("reviews.csv", "--long-text", "head-tail", "--limit", "20"),
    "baseline": ("reviews.parquet", "--baseline", "csv", "--slice-column", "stars"),
    "gates": ("reviews.csv", "--fail-under", "accuracy=0.1", "--fail-over", "ece=0.9"),
    "ray": ("reviews.csv", "--engine", "ray", "--workers", "2", "--limit", "20"),
    "int8": ("reviews.csv", "--precision", "int8", "--limit", "20"),
}


def put_inputs(folder: Path, data: Path, rows: int) -> None:
    """The reviews in every format, some of them without a text, and two lines that are no rows."""
    table = pd.read_parquet(data).sample(n=rows, random_state=1).reset_index(drop=True)
    table.loc[3, "text"], table.loc[7, "text"] = None, " "
    table.to_parquet(folder / "reviews.parquet", index=False, row_group_size=24)
    table.to_csv(folder / "reviews.csv", index=False)
    (folder / "reviews.csv.gz").write_bytes(gzip.compress((folder / "reviews.csv").read_bytes(), mtime=0))
    table.to_json(folder / "reviews.jsonl", orient="records", lines=True)
    table.to_json(folder / "reviews.json", orient="records", indent=2)
    table.to_csv(folder / "reviews.tsv", index=False, sep="\t")
    with (folder / "reviews.tsv").open("a", encoding="utf-8") as out:
        out.write("a\tline\twith\ttoo\tmany\tcells\nand one with too few\n")


def run(tree: Path, arguments: tuple[str, ...], model: Path, output: Path, folder: Path) -> int:
    """Score with the package in ``tree``; what it says goes to ``score.log``."""
    command = [sys.executable, "-P", "-m", "batchscore", "score", *arguments]
    with (folder / "score.log").open("ab") as log:
        return subprocess.run(
            [*command, "--model", str(model), "--output", str(output), "--force", "-q"],
            cwd=output.parent,
            env={**os.environ, "PYTHONPATH": str(tree)},
            stdout=log,
            stderr=log,
            check=False,
        ).returncode


def differences(old: Path, new: Path) -> Iterator[str]:
    """What differs between two finished runs."""
    names = [
        {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} for run in (old, new)
    ]
    kept = {
        name for name in names[0] | names[1] if name.startswith(("predictions/", "mismatches.", "rejects"))
    }
    for name in sorted(kept):
        if not ((old / name).exists() and (new / name).exists()):
            yield f"{name} is only in one"
        elif (old / name).read_bytes() != (new / name).read_bytes():
            yield f"{name} has other bytes"
    figures = [json.loads((run / "metrics.json").read_bytes()) for run in (old, new)]
    yield from _figures("metrics.json", *figures)


def _figures(where: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old.keys() - new.keys():
            yield f"{where}: {name} is gone"
        for name in old.keys() & new.keys():
            yield from _figures(f"{where}: {name}", old[name], new[name])
    elif old != new:
        yield f"{where} was {str(old)[:80]}, is {str(new)[:80]}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--old", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=IMDB / "test.parquet")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--only", nargs="*", choices=RUNS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put_inputs(folder, options.data, options.rows)
        model = shutil.copytree(options.model, folder / "model")
        chosen = options.only or list(RUNS)
        if "int8" in chosen:
            export = [sys.executable, "-P", "-m", "batchscore", "export", "-q", str(model)]
            subprocess.run(export, env={**os.environ, "PYTHONPATH": str(options.old.resolve())}, check=True)
        failed = 0
        for each in chosen:
            codes, outputs = [], []
            for tree in (options.old.resolve(), ROOT):
                output = folder / ("old" if tree != ROOT else "new") / each
                output.parent.mkdir(exist_ok=True)
                inputs = tuple(
                    str(folder / text) if text.startswith("reviews.") else text for text in RUNS[each]
                )
                codes.append(run(tree, inputs, model, output, folder))
                outputs.append(output)
            found = [f"exit codes {codes}"] if codes[0] != codes[1] else []
            found += differences(*outputs) if set(codes) <= {0, 3} else [f"exit codes {codes}"]
            failed += bool(found)
            click.echo(f"{each}: {'; '.join(found) or 'the same'}")
        if failed:
            click.echo((folder / "score.log").read_text(encoding="utf-8")[-2000:])
        return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
