"""How many rows a second can be fed to a device that costs nothing: read, tokenised, put into micro-batches and staged.

    python jobs/bench_feeding.py                                     # made-up rows of 230 words, Parquet
    python jobs/bench_feeding.py --data reviews.csv --model BUNDLE   # a file and a tokenizer of your own
    python jobs/bench_feeding.py --threads 0 1 2 4 --turns 9

With 0 threads the one that reads tokenises too, as it does where the cores are the device. The numbers of threads take turns, so
that other load on the machine slows all of them, and the median of the turns is told: rows a second by the clock, and
microseconds of CPU time a row. ``cores`` is how many were busy on average: on a machine that does other things too, they tell how
much of it this process got.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bench_ends import tiny_folder, write_rows
from numpy.typing import NDArray

from batchscore.config import ReadSettings, ScoreSettings
from batchscore.formats.inputs import find_files
from batchscore.model.bundle import open_bundle
from batchscore.model.scoring import UNWATCHED, InferenceSettings, Model
from batchscore.model.tokenization import Tokenizer
from batchscore.records import MicroBatch, Predictions, Rows, Shard
from batchscore.runs.accepting import answers_of_run
from batchscore.runs.engines import local
from batchscore.runs.folder import Staging
from batchscore.runs.planning import given_labels, make_plan
from batchscore.runs.shards import ShardWriter, read_shards, shards_of
from batchscore.system.cores import tokenising_threads, usable_cores
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import make_folder


class Device:
    """On neither core: it answers at once."""

    name, device, precision = "free", "free:0", "fp32"
    rows_are_alone = False

    def logits(self, batch: MicroBatch) -> NDArray[np.float32]:
        """Logits ``[b, 2]`` float32."""
        return np.zeros((len(batch.input_ids), 2), dtype=np.float32)

    def one_core_each(self) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Nothing to set."""
        return contextlib.nullcontext(lambda: None)

    def release(self) -> None:
        """Nothing to free."""


class Turn(NamedTuple):
    """One run: rows a second, and CPU seconds a row."""

    rows_a_second: float
    cpu: float


class Bench:
    """A planned file, fed again and again."""

    def __init__(self, path: Path, bundle: str, folder: Path, part_rows: int) -> None:
        read = ReadSettings(part_rows=part_rows)
        self._settings = ScoreSettings((str(path),), bundle, folder / "run", read=read)
        self._bundle = open_bundle(bundle)
        found = find_files(self._settings.inputs, None, self._settings.output)
        self._plan = make_plan(found, self._bundle, self._settings, io.BytesIO())
        self._staging = Staging(OwnPath(folder) / "staging")
        make_folder(self._staging.parts)
        tokenizer, inference = Tokenizer(self._bundle), InferenceSettings(8192, "head")
        self._model = Model(self._bundle, tokenizer, Device(), inference, workers=2)

    def turn(self, threads: int) -> Turn:
        """Feed all rows once, with so many threads that tokenise."""
        read, given = self._settings.read, given_labels(self._plan, self._bundle, {})
        writer = ShardWriter(self._staging, given, answers_of_run(self._bundle, self._settings))
        shards = read_shards(self._plan, shards_of(self._plan, read), read)

        def sink(shard: Shard, rows: Sequence[Rows], predictions: Sequence[Predictions]) -> None:
            writer.stage(shard, rows, predictions)

        model = dataclasses.replace(self._model, tokenisers=threads)
        started, begun = time.monotonic(), time.process_time()
        local.run(shards, model, sink, lambda _: UNWATCHED)
        seconds, cpu = time.monotonic() - started, time.process_time() - begun
        return Turn(self._plan.rows / seconds, cpu / self._plan.rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a file of texts instead of made-up ones")
    parser.add_argument("--model", help="a bundle, whose tokenizer is used")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--words", type=int, default=230)
    parser.add_argument("--part-rows", type=int, default=2048)
    parser.add_argument("--threads", type=int, nargs="+", default=[0, tokenising_threads()])
    parser.add_argument("--turns", type=int, default=5)
    asked: Any = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = asked.data or folder / "rows.parquet"
        if asked.data is None:
            write_rows(path, asked.rows, asked.words)
        bench = Bench(path, asked.model or str(tiny_folder(folder / "model")), folder, asked.part_rows)
        turns: dict[int, list[Turn]] = {threads: [] for threads in asked.threads}
        for _ in range(asked.turns):
            for threads in asked.threads:
                turns[threads].append(bench.turn(threads))
    print(f"{usable_cores()} cores")
    first = statistics.median(turn.rows_a_second for turn in turns[asked.threads[0]])
    for threads, found in turns.items():
        rate, cpu = (statistics.median(values) for values in zip(*found, strict=True))
        best = max(turn.rows_a_second for turn in found)
        print(
            f"{threads} threads: {rate:8,.0f} rows a second ({rate / first:.2f} x; best {best:,.0f}), "
            f"{cpu * 1e6:6.1f} us of CPU a row, {rate * cpu:.2f} cores"
        )


if __name__ == "__main__":
    main()
