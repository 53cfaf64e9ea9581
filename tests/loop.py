"""The loop as a user does it, with the installed commands: train, score, review by keys in Chromium, train again, promote.

    python tests/loop.py --reviews FOLDER --work DIR                        # the figures: 500, 4,000 with 200 flipped, 200 reviewed
    python tests/loop.py --reviews FOLDER --work DIR --train 60 --night 100 --flipped 10 --reviewed 10 --held-out 100

FOLDER has ``train.parquet`` and ``test.parquet`` of IMDB. The model is trained on some labelled reviews; a night of others
comes with labels of which some are flipped; somebody who knows the answers looks at the first rows of the page; the model is trained
again with what they said, and takes the champion's link if it is better on reviews that neither has seen. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import browser
import click
import numpy as np
import pandas as pd
from review_by_keys import Page, review

NAMES = {0: "NEGATIVE", 1: "POSITIVE"}
SEED = 17
LABELS = [f"--label-map={value}={name}" for value, name in NAMES.items()]


class Loop:
    """The files of a loop in a folder, and each of its steps."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.work = options, options.work
        self.work.mkdir(parents=True, exist_ok=True)
        every = pd.read_parquet(options.reviews / "test.parquet").sample(frac=1, random_state=SEED)
        known = pd.read_parquet(options.reviews / "train.parquet")
        self.night = every[: options.night].reset_index(drop=True)
        self.held_out = every[options.night : options.night + options.held_out]
        given = self.night["label"].to_numpy().copy()
        self.flipped = np.random.default_rng(SEED).choice(len(given), options.flipped, replace=False)
        given[self.flipped] = 1 - given[self.flipped]
        self._write("known.parquet", known.sample(options.train, random_state=SEED))
        self._write("night.parquet", self.night.assign(label=given))
        self._write("held-out.parquet", self.held_out)

    def _write(self, name: str, rows: pd.DataFrame) -> None:
        rows[["id", "text", "label"]].to_parquet(self.work / name, index=False)

    def command(self, *arguments: Any, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """Call a command; returns its summary."""
        program, *rest = map(str, arguments)
        path = Path(sys.executable).with_name(program)
        done = subprocess.run([path, *rest, "--json"], stdout=subprocess.PIPE, text=True, check=False)
        summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        if done.returncode not in codes:
            raise RuntimeError(f"{arguments}: exit {done.returncode}, {summary}")
        return summary | {"exit_code": done.returncode}

    def train(self, output: str, *more: Any) -> Path:
        """Train on the known reviews."""
        folder: Path = self.work / output
        given = ["--data", self.work / "known.parquet", "--output", folder]
        given += [f"--label-name={value}={name}" for value, name in NAMES.items()]
        self.command("batchscore-train", *given, *self.options.training, *more)
        return folder

    def accuracy(self, run: str) -> float:
        """The accuracy of one of the runs that promote made on the held-out reviews."""
        metrics = json.loads((self.work / "judged" / run / "metrics.json").read_bytes())
        return float(metrics["quality"]["accuracy"]["value"])

    def review(self, run: Path) -> dict[str, int]:
        """Answer the first rows of the page from the true labels; returns how often each key was pressed."""
        truth = {
            str(each): NAMES[label] for each, label in zip(self.night["id"], self.night["label"], strict=True)
        }
        path = Path(sys.executable).with_name("batchscore")
        with subprocess.Popen([path, "review", run, "--json"], stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                address = json.loads(server.stdout.readline())["address"]
                with browser.browsing() as chromium:
                    page = Page(chromium, address)
                    return dict(review(page, truth.get, self.options.reviewed).keys)
            finally:
                server.send_signal(signal.SIGTERM)

    def found(self, run: Path) -> int:
        """How many of the flipped labels the verdicts put right."""
        verdicts = self.work / "verdicts.csv"
        verdicts.unlink(missing_ok=True)
        self.command("batchscore", "review", run, "--export", "csv", "--output", verdicts)
        said = pd.read_csv(verdicts, dtype=str)
        wrong = set(said.loc[said["verdict"].isin(["prediction", "other"]), "id"].astype(str))
        return len(wrong & {str(each) for each in self.night["id"].iloc[self.flipped]})

    def go(self) -> dict[str, Any]:
        """All of it."""
        first = self.train("first")
        champion = self.work / "champion"
        champion.symlink_to(first.name)
        run = self.work / "run"
        night = ["--model", champion, "--output", run, *LABELS]
        scored = self.command("batchscore", "score", self.work / "night.parquet", *night)
        keys = self.review(run)
        second = self.train("second", "--corrections", run)
        judged = self.command(
            "batchscore",
            "promote",
            second,
            *("--over", champion, "--data", self.work / "held-out.parquet", "--output", self.work / "judged"),
            *LABELS,
            codes=(0, 3),
        )
        return {
            "given labels agree": scored["accuracy"],
            "keys": keys,
            "flips found": self.found(run),
            "flipped": len(self.flipped),
            "before": self.accuracy("champion"),
            "after": self.accuracy("challenger"),
            "promote": judged["exit_code"],
            "fixed": judged.get("fixed"),
            "broken": judged.get("broken"),
            "p": judged.get("p_value"),
            "champion": champion.readlink().name,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reviews", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path, help="an empty folder")
    for name, rows in (
        ("train", 500),
        ("night", 4000),
        ("flipped", 200),
        ("reviewed", 200),
        ("held-out", 4000),
    ):
        parser.add_argument(f"--{name}", type=int, default=rows)
    parser.add_argument(
        "--training", nargs="*", default=[], help="options of the trainer, without their dashes"
    )
    options = parser.parse_args()
    options.training = [f"--{each}" if k % 2 == 0 else each for k, each in enumerate(options.training)]
    click.echo(json.dumps(Loop(options).go()))


if __name__ == "__main__":
    main()
