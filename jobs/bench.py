"""Score the same reviews with the same model in every way at hand, in turns, and say which is fastest.

    python jobs/bench.py --model BUNDLE                    # minutes: 60 of the sample reviews, two rounds
    python jobs/bench.py --model BUNDLE --data reviews.parquet --rows 2000 --baseline-rows 100 --rounds 3
    python jobs/bench.py --model BUNDLE --shape roberta-base   # its size with random weights, and BUNDLE's tokenizer

Each contender runs once a round, so that whatever else the machine does slows all of them; figures are medians over the
rounds, ratios the medians of each round's. Rates are per row and per token, so slow contenders need not score all rows:
they get some (``--baseline-rows``; the origin's loop half of these), taken evenly from the shortest to the longest, so
that they are as long on average. Batchscore in float32, which answers are held against, runs in the first round alone.
Batchscore is timed as a whole process, from its start to its last file; of the others only the scoring counts,
with the model loaded, in a process of its own, and the texts in memory. Every contender tokenises inside its time and cuts at the model's longest
input. A contender whose package is not installed is left out with a word.

    python jobs/bench.py --model BUNDLE --contenders batchscore,batchscore-plain,batchscore-adopted --rounds 5

holds the bundle beside the same weights as a plain folder and as ``batchscore adopt`` seals them; a second table has start-up
apart. The first round of the plain folder is its first night, in a cache of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from shapes import SHAPES, make

from batchscore import samples
from batchscore.model.bundle import VARIANTS, Bundle, open_bundle
from batchscore.model.bundle_facts import FACTS
from batchscore.system import cache
from batchscore.training.adoption import AdoptSettings, adopt
from batchscore.training.context import NoProgress

Scores = Callable[[list[str]], NDArray[np.float32]]
"""Texts in, probabilities ``[n, C]`` float32 out."""
_PROBED = {"cpu": 24, "cuda": 512}
"""Rows on which ``pipeline`` looks for its best batch size."""
_BATCH_SIZES = {"cpu": (1, 4, 16), "cuda": (16, 32, 64, 128, 256)}
"""Those it tries."""


@dataclasses.dataclass(frozen=True, slots=True)
class Contender:
    """One way to score: ``prepare`` loads the model, unless it is a command, which is timed whole."""

    name: str
    prepare: Callable[[Bundle, list[str]], Scores] | None
    package: str = "torch"
    options: tuple[str, ...] = ()
    share: float = 1.0
    """Of ``--baseline-rows``; 0 is all rows."""
    rounds: int | None = None
    """The first rounds in which it takes part; None is all."""
    form: str = "given"
    """Of the model: as it is ``given``, as a ``plain`` folder, or ``adopted``."""
    is_default: bool = True


@dataclasses.dataclass(slots=True)
class Measured:
    """What a contender took and gave."""

    rows: NDArray[np.int64]
    """Which of the reviews it scored."""
    seconds: list[float] = dataclasses.field(default_factory=list)
    over_forward: list[float] = dataclasses.field(default_factory=list)
    """Seconds of the whole command for each second of its forward passes."""
    scoring: list[float] = dataclasses.field(default_factory=list)
    """Seconds of a command from its first part to its last; the rest is start-up and finishing."""
    peak_mb: float = math.nan
    probabilities: NDArray[np.float32] | None = None
    note: str = ""


def _device() -> str:
    """Where contenders run: on the GPU if there is one, as ours do."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _loaded(bundle: Bundle, dtype: str = "float32") -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bundle.path, local_files_only=True)
    model = AutoModelForSequenceClassification.from_pretrained(
        bundle.path, dtype=getattr(torch, dtype), local_files_only=True
    )
    return tokenizer, model.eval().to(_device())


def _batch(model: Any, batch: Any, temperature: float) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        inputs = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
        logits = model(**inputs).logits.float()
    result: NDArray[np.float32] = (logits / temperature).softmax(-1).cpu().numpy()
    return result


def origin(bundle: Bundle, _: list[str]) -> Scores:
    """The loop that the exercise began with: batches of 4, everything padded to the longest input, float32."""
    tokenizer, model = _loaded(bundle)

    def scores(texts: list[str]) -> NDArray[np.float32]:
        found = []
        for start in range(0, len(texts), 4):
            batch = tokenizer(
                texts[start : start + 4],
                padding="max_length",
                truncation=True,
                max_length=bundle.max_length,
                return_tensors="pt",
            )
            found.append(_batch(model, batch, bundle.temperature))
        return np.concatenate(found)

    return scores


def sorted_batches(bundle: Bundle, _: list[str], dtype: str = "float32") -> Scores:
    """As sentence-transformers does it: all texts sorted by their characters, batches of 32, padded to the longest."""
    tokenizer, model = _loaded(bundle, dtype)

    def scores(texts: list[str]) -> NDArray[np.float32]:
        order = sorted(range(len(texts)), key=lambda k: -len(texts[k]))
        found = np.empty((len(texts), len(bundle.labels)), dtype=np.float32)
        for start in range(0, len(order), 32):
            rows = order[start : start + 32]
            batch = tokenizer(
                [texts[k] for k in rows],
                padding=True,
                truncation=True,
                max_length=bundle.max_length,
                return_tensors="pt",
            )
            found[rows] = _batch(model, batch, bundle.temperature)
        return found

    return scores


def pipeline(dtype: str) -> Callable[[Bundle, list[str]], Scores]:
    """``transformers.pipeline`` at the batch size that measures best on the first rows."""

    def prepare(bundle: Bundle, texts: list[str]) -> Scores:
        from transformers import pipeline as make

        tokenizer, model = _loaded(bundle, dtype)
        classify: Any = make("text-classification", model=model, tokenizer=tokenizer, device=_device())

        def run(some: list[str], size: int) -> NDArray[np.float32]:
            answers = classify(
                some,
                batch_size=size,
                top_k=None,
                function_to_apply="none",
                truncation=True,
                max_length=bundle.max_length,
            )
            logits = np.array(
                [
                    [{a["label"]: a["score"] for a in answer}[label] for label in bundle.labels]
                    for answer in answers
                ]
            )
            powers = np.exp((logits - logits.max(axis=1, keepdims=True)) / bundle.temperature)
            result: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
            return result

        run(texts[:2], 1)
        taken = {}
        for size in _BATCH_SIZES[_device()]:
            started = time.perf_counter()
            run(texts[: _PROBED[_device()]], size)
            taken[size] = time.perf_counter() - started
        best = min(taken, key=lambda size: taken[size])
        return lambda some: run(some, best)

    return prepare


def openvino(bundle: Bundle, _: list[str]) -> Scores:
    """The model as OpenVINO converts and compiles it, with its own choice of precision, on sorted batches."""
    import openvino as ov
    import torch

    tokenizer, model = _loaded(bundle)
    example = {name: torch.ones(2, 8, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    converted = ov.convert_model(model, example_input=example)
    compiled = ov.compile_model(converted, "CPU", {"PERFORMANCE_HINT": "LATENCY"})

    def scores(texts: list[str]) -> NDArray[np.float32]:
        order = sorted(range(len(texts)), key=lambda k: -len(texts[k]))
        found = np.empty((len(texts), len(bundle.labels)), dtype=np.float32)
        for start in range(0, len(order), 16):
            rows = order[start : start + 16]
            batch = tokenizer(
                [texts[k] for k in rows],
                padding=True,
                truncation=True,
                max_length=bundle.max_length,
                return_tensors="np",
            )
            inputs = {name: batch[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
            logits = compiled(inputs)[0].astype(np.float64) / bundle.temperature
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            found[rows] = powers / powers.sum(axis=1, keepdims=True)
        return found

    return scores


def ray_data(bundle: Bundle, _: list[str]) -> Scores:
    """Ray Data's ``map_batches`` with a class that holds the model, batches of 32."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1"
    )
    cloudpickle: Any = ray.cloudpickle  # its workers do not have this module
    cloudpickle.register_pickle_by_value(sys.modules[_batch.__module__])
    path, width = str(bundle.path), bundle.max_length
    temperature = bundle.temperature

    class Classify:
        def __init__(self) -> None:
            self.tokenizer, self.model = _loaded(open_bundle(path))

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            tokens = self.tokenizer(
                list(batch["text"]), padding=True, truncation=True, max_length=width, return_tensors="pt"
            )
            return {"row": batch["row"], "probabilities": _batch(self.model, tokens, temperature)}

    def scores(texts: list[str]) -> NDArray[np.float32]:
        data = ray.data.from_items([{"row": row, "text": text} for row, text in enumerate(texts)])
        answers = data.map_batches(Classify, batch_size=32, concurrency=1).take_all()
        return np.stack([a["probabilities"] for a in sorted(answers, key=lambda a: a["row"])])

    return scores


CONTENDERS = [
    Contender("origin", origin, share=0.5),
    Contender("pipeline-fp32", pipeline("float32")),
    Contender("pipeline-bf16", pipeline("bfloat16")),
    Contender("pipeline-fp16", pipeline("float16"), is_default=False),
    Contender("sorted", sorted_batches),
    Contender("sorted-fp16", functools.partial(sorted_batches, dtype="float16"), is_default=False),
    Contender("openvino", openvino, "openvino"),
    Contender("ray", ray_data, "ray"),
    Contender("batchscore", None, share=0),
    Contender("batchscore-plain", None, share=0, form="plain", is_default=False),
    Contender("batchscore-adopted", None, share=0, form="adopted", is_default=False),
    Contender("batchscore-fp32", None, options=("--precision", "fp32"), share=0, rounds=1),
    Contender("batchscore-int8", None, "openvino", options=("--precision", "int8"), share=0),
    Contender("batchscore-1-worker", None, options=("--workers", "1"), share=0, is_default=False),
    Contender("batchscore-compiled", None, options=("--compile", "on"), share=0, is_default=False),
    Contender("batchscore-ray", None, "ray", options=("--engine", "ray"), share=0, is_default=False),
]


class Found(NamedTuple):
    """One round of one contender."""

    probabilities: NDArray[np.float32]
    seconds: float
    peak_mb: float
    forward_seconds: float = math.nan
    """Of a command's forward passes, with all workers at it."""
    scoring_seconds: float = math.nan
    """Of a command, from its first part to its last."""


def _formed(form: str, bundle: Bundle, folder: Path) -> Path:
    """The model as a contender wants it, made below ``folder`` once."""
    if form == "given":
        return bundle.path
    plain, adopted = folder / "plain", folder / "adopted"
    if not plain.exists():
        shutil.copytree(bundle.path, plain, ignore=shutil.ignore_patterns(FACTS, VARIANTS))
        path = plain / "tokenizer_config.json"
        longest = {"model_max_length": bundle.max_length}
        path.write_text(json.dumps(json.loads(path.read_bytes()) | longest), encoding="utf-8")
    if form == "adopted" and not adopted.exists():
        adopt(AdoptSettings(str(plain), adopted), lambda _: NoProgress())
    return plain if form == "plain" else adopted


def _command(options: Sequence[str], bundle: Bundle, model: Path, texts: Path) -> Found:
    """Run the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = ["score", str(texts), "--model", str(model), "--output", str(run), "-q", *options]
        started = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "batchscore", *command], stderr=subprocess.PIPE, text=True
        )
        with _peak_of(process.pid) as peak:
            said = process.communicate()[1]
        seconds = time.perf_counter() - started
        if process.returncode:
            raise RuntimeError(
                said.strip().splitlines()[-1] if said.strip() else f"exit {process.returncode}"
            )
        table = pd.read_parquet(run / "predictions" / texts.name)
        work = json.loads((run / "run.json").read_bytes())["work"]
    columns = [f"prob_{label}" for label in bundle.labels]
    forward = work["forward_seconds"] / work["workers"]
    return Found(
        table[columns].to_numpy(dtype=np.float32), seconds, peak[0], forward, work["scoring_seconds"]
    )


@contextlib.contextmanager
def _peak_of(pid: int) -> Iterator[list[float]]:
    """The largest resident memory of a process while the block runs, in MB, looked at ten times a second (Linux)."""
    peak, stopped = [math.nan], threading.Event()

    def watch() -> None:
        while not stopped.wait(0.1):
            with contextlib.suppress(OSError, IndexError, ValueError):
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                peak[0] = max(np.nan_to_num(peak[0]), pages * os.sysconf("SC_PAGE_SIZE") / 2**20)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stopped.set()
        thread.join()


class Child:
    """A contender in a process of its own, so that its peak memory is its own; the model stays loaded over the rounds."""

    def __init__(self, contender: Contender, bundle: Bundle, texts: list[str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve,
            args=(contender.name, str(bundle.path), texts, theirs),
            daemon=contender.name != "ray",
        )
        self._process.start()
        theirs.close()
        self._answer()

    def scores(self) -> Found:
        """One round."""
        assert self._process.pid is not None  # noqa: S101
        with _peak_of(self._process.pid) as peak:
            self._pipe.send("go")
            probabilities, seconds = self._answer()
        return Found(probabilities, seconds, peak[0])

    def end(self) -> None:
        """Let it go."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(20)
        self._process.kill()

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError("it ended without a word") from None
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer


def _serve(name: str, path: str, texts: list[str], pipe: Any) -> None:
    """What a child does: load, say so, and score as often as it is told to."""
    try:
        (prepare,) = (each.prepare for each in CONTENDERS if each.name == name)
        assert prepare is not None  # noqa: S101
        scores = prepare(open_bundle(path), texts)
        pipe.send(("ready",))
        while pipe.recv():
            started = time.perf_counter()
            probabilities = scores(texts)
            pipe.send((probabilities, time.perf_counter() - started))
    except Exception as error:  # noqa: BLE001 - a contender that cannot run is a line of the table
        pipe.send(f"{type(error).__name__}: {str(error).splitlines()[:1]}")


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """What every contender is given."""

    bundle: Bundle
    texts: list[str]
    path: Path
    lengths: NDArray[np.int64]
    """Tokens of each text, none counted beyond the longest input."""
    baseline_rows: int

    def rows(self, contender: Contender) -> NDArray[np.int64]:
        """What a contender scores: all rows, or some that are as long on average."""
        wanted = max(1, round(self.baseline_rows * contender.share)) if contender.share else len(self.texts)
        if wanted >= len(self.texts):
            return np.arange(len(self.texts))
        places = (np.arange(wanted) + 0.5) * len(self.texts) / wanted
        return np.sort(np.argsort(self.lengths, kind="stable")[places.astype(np.int64)])


def measure(contenders: Sequence[Contender], work: Work, rounds: int) -> dict[str, Measured]:
    """Every contender once a round; the one that fails is out, with its reason."""
    results = {contender.name: Measured(work.rows(contender)) for contender in contenders}
    children: dict[str, Child] = {}
    try:
        for turn in range(rounds):
            for contender in contenders:
                result = results[contender.name]
                if importlib.util.find_spec(contender.package) is None:
                    result.note = f"left out: {contender.package} is not installed"
                if result.note or (contender.rounds is not None and turn >= contender.rounds):
                    continue
                print(f"round {turn + 1} of {rounds}: {contender.name}", file=sys.stderr, flush=True)
                try:
                    _once(contender, children, work, result)
                except Exception as error:  # noqa: BLE001 - see _serve
                    result.note = f"left out: {error}"
    finally:
        for child in children.values():
            child.end()
    return results


def _once(contender: Contender, children: dict[str, Child], work: Work, into: Measured) -> None:
    if contender.prepare is None:
        model = _formed(contender.form, work.bundle, work.path.parent)
        options = contender.options
        if contender.form != "given":  # what only a bundle tells
            options = (*options, "--long-text", work.bundle.long_text)
        found = _command(options, work.bundle, model, work.path)
    else:
        if contender.name not in children:
            texts = [work.texts[row] for row in into.rows]
            children[contender.name] = Child(contender, work.bundle, texts)
        found = children[contender.name].scores()
    into.probabilities, into.peak_mb = found.probabilities, found.peak_mb
    into.seconds.append(found.seconds)
    into.over_forward.append(found.seconds / found.forward_seconds)
    into.scoring.append(found.scoring_seconds)


def product_rates(seconds: float = 1.0) -> dict[str, float]:
    """GFLOP/s of matrix products of an encoder's size, as fast as this machine does them in each precision."""
    import torch

    rates = {}
    for name in ("float32", "bfloat16"):
        left, right = (torch.ones(n, 768, dtype=getattr(torch, name)) for n in (1024, 768))
        best, ended = math.inf, time.perf_counter() + seconds
        while time.perf_counter() < ended:
            started = time.perf_counter()
            left @ right.T
            best = min(best, time.perf_counter() - started)
        rates[name] = 2 * 1024 * 768 * 768 / best / 1e9
    return rates


def flops_per_token(bundle: Bundle) -> float:
    """Of the matrix products with weights: twice the weights of all layers, as often as layers share them.

    Attention itself is not counted, and the last layer is counted in full, though batchscore computes a part of it.
    """
    from safetensors import safe_open

    config = json.loads((bundle.path / "config.json").read_bytes())
    times = (
        config.get("num_hidden_layers", 1) / config["num_hidden_groups"]
        if "num_hidden_groups" in config
        else 1
    )
    total = 0
    with safe_open(bundle.path / "model.safetensors", framework="np") as file:
        for key in file.keys():  # noqa: SIM118 - no mapping
            shape = file.get_slice(key).get_shape()
            total += math.prod(shape) if len(shape) == 2 and (".layer." in key or "layers." in key) else 0
    return 2.0 * total * times


def summary(results: dict[str, Measured], work: Work, rates: dict[str, float]) -> list[dict[str, Any]]:
    """A row for each contender; differences are against our own float32, or the first contender that is one."""
    reference = next(
        results[name]
        for name in ("batchscore-fp32", "sorted", "pipeline-fp32", "origin", *results)
        if name in results and results[name].probabilities is not None
    )
    per_token = flops_per_token(work.bundle)
    rows: list[dict[str, Any]] = []
    for name, result in results.items():
        if not result.seconds or result.note:
            rows.append({"contender": name, "note": result.note})
            continue
        seconds = statistics.median(result.seconds)
        tokens_per_second = float(work.lengths[result.rows].sum()) / seconds
        flops = tokens_per_second * per_token / 1e9
        over_forward = statistics.median(result.over_forward)
        rows.append(
            {
                "contender": name,
                "note": "",
                "rows": len(result.rows),
                "seconds": seconds,
                "all_seconds": result.seconds,
                "rows_per_second": len(result.rows) / seconds,
                "tokens_per_second": tokens_per_second,
                "batchscore_ratio": _ratio(results.get("batchscore"), result),
                "share_of_fp32_products": flops / rates["float32"],
                "share_of_bf16_products": flops / rates["bfloat16"],
                "command_over_forward": None if math.isnan(over_forward) else over_forward,
                **_apart(result, results.get("batchscore")),
                "peak_mb": result.peak_mb,
                **_differences(result, reference),
            }
        )
    return rows


def _apart(result: Measured, given: Measured | None) -> dict[str, Any]:
    """Of a command: its start-up (with finishing) the first time and later, and its rate beside that of ``given`` without it."""
    if math.isnan(result.scoring[0]):
        return {}
    apart = [whole - scoring for whole, scoring in zip(result.seconds, result.scoring, strict=True)]
    shares = [
        theirs / mine for theirs, mine in zip(given.scoring if given else (), result.scoring, strict=False)
    ]
    return {
        "start_up_first": apart[0],
        "start_up_later": statistics.median(apart[1:]) if apart[1:] else None,
        "rows_per_second_apart": len(result.rows) / statistics.median(result.scoring),
        "share_of_batchscore_apart": statistics.median(shares) if shares else None,
    }


def _ratio(ours: Measured | None, other: Measured) -> float | None:
    """The median over the rounds of how many times as many rows a second ours scored in the same round."""
    if ours is None or not ours.seconds:
        return None
    rows = len(ours.rows) / len(other.rows)
    ratios = [rows * theirs / mine for mine, theirs in zip(ours.seconds, other.seconds, strict=False)]
    return statistics.median(ratios)


def _differences(result: Measured, reference: Measured) -> dict[str, Any]:
    """Over the rows that both scored."""
    _, mine, theirs = np.intersect1d(result.rows, reference.rows, return_indices=True)
    if result.probabilities is None or reference.probabilities is None or not len(mine):
        return {"largest_difference": math.nan, "labels_changed": 0, "compared": 0}
    found, expected = result.probabilities[mine], reference.probabilities[theirs]
    changed = int((found.argmax(1) != expected.argmax(1)).sum())
    return {
        "largest_difference": float(np.abs(found - expected).max()),
        "labels_changed": changed,
        "compared": len(mine),
    }


def show(rows: Sequence[dict[str, Any]]) -> str:
    """The table, as Markdown."""
    head = "contender|rows|rows/s|tokens/s|ours / this|share of fp32 / bf16 products|whole / forward|MB"
    names = [*head.split("|"), "largest difference", "labels changed"]
    lines = [f"| {' | '.join(names)} |", f"| --- |{' ---: |' * (len(names) - 1)}"]
    for row in rows:
        if "seconds" not in row:
            lines.append(f"| {row['contender']} | {row['note']} | | | | | | | | |")
            continue
        ratio, over = row["batchscore_ratio"], row["command_over_forward"]
        lines.append(
            f"| {row['contender']} | {row['rows']} | {row['rows_per_second']:.1f} | {row['tokens_per_second']:.0f} | "
            f"{'' if ratio is None else f'{ratio:.2f}'} | "
            f"{row['share_of_fp32_products']:.0%} / {row['share_of_bf16_products']:.0%} | "
            f"{'' if over is None else f'{over:.2f}'} | {row['peak_mb']:.0f} | {row['largest_difference']:.1e} | "
            f"{row['labels_changed']} of {row['compared']} |"
        )
    return "\n".join(lines)


def show_start_up(rows: Sequence[dict[str, Any]]) -> str:
    """The commands' start-up apart from scoring, as Markdown."""
    lines = [
        "| command | start-up, s: first | later | rows/s without it | of the given model's |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        if "start_up_first" in row:
            later, share = row["start_up_later"], row["share_of_batchscore_apart"]
            lines.append(
                f"| {row['contender']} | {row['start_up_first']:.2f} | {'' if later is None else f'{later:.2f}'} | "
                f"{row['rows_per_second_apart']:.1f} | {'' if share is None else f'{share:.3f}'} |"
            )
    return "\n".join(lines)


def _machine() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _texts(data: Path | None, column: str, rows: int) -> list[str]:
    if data is None:
        found = [row["text"] for row in samples.rows() if row["text"]]
    else:
        table = pd.read_parquet(data) if data.suffix == ".parquet" else pd.read_csv(data)
        found = [text for text in table[column].dropna().astype(str) if text.strip()]
    found = list(dict.fromkeys(found))
    return [found[k] for k in np.random.default_rng(0).permutation(len(found))[:rows].tolist()]


def main() -> None:
    """Parse, measure, show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a bundle, or a local Hugging Face folder")
    parser.add_argument("--data", type=Path, help="Parquet or CSV with reviews (default: the sample reviews)")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--baseline-rows", type=int, default=100, help="of them, for what is not ours")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--shape", choices=SHAPES, help="instead of --model itself, of which only the tokenizer is used"
    )
    names = [contender.name for contender in CONTENDERS]
    usual = ",".join(contender.name for contender in CONTENDERS if contender.is_default)
    parser.add_argument("--contenders", default=usual, help=f"of: {', '.join(names)} (default: {usual})")
    parser.add_argument("--output", type=Path, default=Path("bench.json"), help="the figures as JSON")
    given = parser.parse_args()
    chosen = given.contenders.split(",")
    if unknown := set(chosen) - set(names):
        parser.error(f"no such contender: {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
    with tempfile.TemporaryDirectory() as folder:
        if given.shape:
            make(given.shape, given.model, Path(folder) / given.shape)
            given.model = Path(folder) / given.shape
        _bench(given, chosen)


def _bench(given: argparse.Namespace, chosen: Sequence[str]) -> None:
    """Measure, write the figures and print them."""
    bundle = open_bundle(str(given.model))
    texts = _texts(given.data, given.text_column, given.rows)
    from batchscore.model.tokenization import Tokenizer

    lengths = np.array([min(len(ids), bundle.max_length) for ids in Tokenizer(bundle).token_ids(texts)])
    tokens = int(lengths.sum())
    rates = product_rates()
    with tempfile.TemporaryDirectory() as folder:
        os.environ[cache.VARIABLE] = str(Path(folder) / "cache")  # so that a plain folder has a first night
        path = Path(folder) / "reviews.parquet"
        pd.DataFrame({"text": texts}).to_parquet(path, index=False)
        work = Work(bundle, texts, path, lengths, given.baseline_rows)
        results = measure([each for each in CONTENDERS if each.name in chosen], work, given.rounds)
    rows = summary(results, work, rates)
    facts = {
        "machine": _machine(),
        "rows": len(texts),
        "tokens": tokens,
        "rounds": given.rounds,
        "model": given.model.name if given.shape else str(given.model),
        "products_gflops": rates,
        "contenders": rows,
    }
    given.output.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(f"{facts['machine']}; {len(texts)} reviews, {tokens} tokens, medians of {given.rounds} rounds")
    print(f"products: {rates['float32']:.0f} GFLOP/s in float32, {rates['bfloat16']:.0f} in bfloat16\n")
    print(show(rows))
    print(f"\n{show_start_up(rows)}")
    print(f"\n{given.output}")


if __name__ == "__main__":
    main()
