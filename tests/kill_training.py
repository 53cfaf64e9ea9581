"""Kill trainings at random moments and resume them: the same weights in the end?

    python tests/kill_training.py --kills 20

On a tiny encoder with random weights, half of the kills on ``--recipe full``, half on ``head``. Exits with 1 if a resumed
training ends with another ``model.safetensors``, model card or record (times aside) than the uninterrupted one.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pandas as pd
import warm
from small_vocabulary import save_encoder

from batchscore.model.bundle_facts import FACTS
from batchscore.system.storage import remove_tree, sha256_of

OPTIONS = {
    "full": ("--recipe", "full", "--epochs", "6", "--batch-size", "4", "--learning-rate", "1e-3"),
    "head": ("--recipe", "head", "--epochs", "120", "--batch-size", "2"),
}


def train(arguments: Sequence[str], log: str) -> None:
    """Be ``batchscore-train``, with a checkpoint as often as can be."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    sys.stdout, sys.stderr = (os.fdopen(standard, "w", closefd=False) for standard in (1, 2))
    import torch

    from batchscore.cli.train import train_main
    from batchscore.training import checkpoints, trainer

    torch.set_num_threads(1)
    trainer.SAVE_SECONDS = 0.05
    checkpoints.SAVE_SHARE = 1.0
    sys.argv[:] = ["batchscore-train", *arguments]
    train_main()


def start(arguments: Sequence[str], log: Path) -> ForkServerProcess:
    """Start a training in a process of its own."""
    process = warm.CONTEXT.Process(target=train, args=(list(arguments), str(log)))
    process.start()
    return process


def make_rows(path: Path, count: int = 100) -> None:
    """Texts of many lengths."""
    words = ("awful", "great")
    texts = [f"{words[k % 2]} film {k} " + "very " * (k * 3 % 50) for k in range(count)]
    pd.DataFrame({"text": texts, "label": [k % 2 for k in range(count)]}).to_parquet(path)


def arguments(folder: Path, recipe: str, output: Path) -> list[str]:
    """Of a training on ``folder``."""
    given = {"--data": folder / "rows.parquet", "--base-model": folder / "base", "--output": output}
    named = [str(word) for pair in given.items() for word in pair]
    return [*named, *OPTIONS[recipe], "--max-length", "32", "-q"]


def contents(output: Path) -> dict[str, Any]:
    """What must be the same: hashes of all files, and the record without times."""
    record = json.loads((output / FACTS).read_bytes())
    del record["training"]["seconds"], record["sha256"]
    hashes = {path.name: sha256_of(path) for path in output.iterdir() if path.name != FACTS}
    return {**hashes, FACTS: record}


def left_in(work: Path) -> str:
    """What a killed training had come to."""
    if not work.exists():
        return "no folder"
    names = sorted(path.name for path in work.rglob("*"))
    if any(name.startswith(("checkpoint-", "head.safetensors")) for name in names):
        return "bundle" if "bundle" in names else "checkpoint"
    return "states" if any(name.endswith(".npy") for name in names) else "no checkpoint"


def kill_and_resume(folder: Path, recipe: str, seconds: float, expected: dict[str, Any]) -> tuple[str, bool]:
    """Kill one training after some time, resume it; what was left, and whether the result is as expected."""
    output, log = folder / f"killed-{recipe}", folder / "log.txt"
    process = start(arguments(folder, recipe, output), log)
    time.sleep(seconds)
    process.kill()
    process.join()
    was_there = output.exists()
    left = "finished" if was_there else left_in(folder / f".killed-{recipe}.training")
    code = warm.ended(start([*arguments(folder, recipe, output), "--resume"], log))
    is_same = code == 0 and contents(output) == expected
    if code:
        sys.stderr.write(log.read_text())
    remove_tree(output)
    return left, is_same


def main() -> int:
    """Kill, resume, compare; print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    broken = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_encoder(folder / "base")
        make_rows(folder / "rows.parquet")
        for recipe in OPTIONS:
            output = folder / f"whole-{recipe}"
            times = []
            for _ in range(2):  # the first has to import everything
                remove_tree(output)
                started = time.monotonic()
                if warm.ended(start(arguments(folder, recipe, output), folder / "log.txt")):
                    raise SystemExit((folder / "log.txt").read_text())
                times.append(time.monotonic() - started)
            expected = contents(output)
            found: collections.Counter[str] = collections.Counter()
            for _ in range(asked.kills // 2):
                moment = chance.uniform(0.2, 1.0) * times[-1]
                left, is_same = kill_and_resume(folder, recipe, moment, expected)
                found[left] += 1
                broken += not is_same
            told = ", ".join(f"{count} with {left}" for left, count in found.items())
            sys.stdout.write(
                f"{recipe}: {times[-1]:.1f} s, {asked.kills // 2} kills ({told}), model.safetensors "
                f"{expected['model.safetensors'][:12]} each time but {broken}\n"
            )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
