"""What ``jobs/gpu_check.py`` does, step by step. Each step runs in a process of its own and gets a :class:`Place`.

A step *checks* (a number within a limit, or the whole fails), notes a *figure*, compares one with a *goal* (missed ones fail
nothing), or says what it *skipped*. Everything is written at once, so that a step that is stopped keeps what it found.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from shapes import SHAPES, write

from batchscore import samples
from batchscore.config import ComputeSettings, ReadSettings, ScoreSettings
from batchscore.errors import ModelError
from batchscore.model import batching, tuning
from batchscore.model.backends import OutOfDeviceMemoryError, open_backend
from batchscore.model.bundle import open_bundle
from batchscore.model.loading import ModelSettings, load_model
from batchscore.model.scoring import Model, prepare, score_texts
from batchscore.records import MicroBatch, Text
from batchscore.runs.run import score
from batchscore.system.terminal import Progress

_TOLERANCE = 1e-5
"""Of a probability in float32, between the GPU and the CPU."""
_PART = 2048
"""Rows of one part of a run."""
_LEFT_GIB = 4.0
"""Memory that the step ``memory`` leaves: less than a part of 2,048 reviews takes in one micro-batch of DistilBERT in float32."""
_GOALS = {"distilbert-base": 9000, "bert-base": 5000}
"""Reviews a second on an H100, IMDB lengths."""
_VOCABULARY = 8000
"""Tokens at most that the tokenizer of these models has."""
_TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny-bert": ("bert", _TINY),
    "tiny-distilbert": ("distilbert", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
    "tiny-roberta": ("roberta", {**_TINY, "type_vocab_size": 1, "max_position_embeddings": 514}),
    "tiny-modernbert": ("modernbert", {**_TINY, "local_attention": 16, "global_attn_every_n_layers": 2}),
}


@dataclasses.dataclass(slots=True)
class Place:
    """Where a step works, how much it does, and what it found."""

    folder: Path
    """Models and reviews lie in ``work`` below it, findings in ``steps``."""
    step: str
    dry: bool
    data: Path | None
    """Real reviews; None: made ones."""
    found: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def device(self) -> str:
        """Which is checked; a dry run has the CPU stand in."""
        return "cpu" if self.dry else "cuda:0"

    @property
    def large(self) -> tuple[str, str]:
        """The models that are measured."""
        return ("tiny-distilbert", "tiny-bert") if self.dry else ("distilbert-base", "bert-base")

    @property
    def measured(self) -> tuple[str, ...]:
        """Of them, those of the shorter steps."""
        return self.large[:1] if self.dry else self.large

    def model(self, name: str) -> Path:
        """The folder of a model that the step ``models`` has made."""
        return self.folder / "work" / name

    def check(self, what: str, value: float, *, at_most: float | None = None, at_least: float = 0) -> None:
        """A number that has to be within its limits; NaN never is."""
        is_good = value >= at_least if at_most is None else value <= at_most
        limit = f">= {at_least:g}" if at_most is None else f"<= {at_most:g}"
        self._note("check", what, value, ok=bool(is_good), limit=limit)

    def goal(self, what: str, value: float, at_least: float) -> None:
        """A number and what it should be on an H100."""
        self._note("goal", what, value, ok=None if self.dry else value >= at_least, limit=f">= {at_least:g}")

    def figure(self, what: str, value: object) -> None:
        """A number, or a word."""
        self._note("figure", what, value)

    def skip(self, what: str, why: str) -> None:
        """Something that was not done."""
        self._note("skipped", what, why)

    def _note(self, kind: str, what: str, value: object, **more: Any) -> None:
        self.found.append({"kind": kind, "step": self.step, "what": what, "value": value, **more})
        path = self.folder / "steps" / f"{self.step}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.found, indent=2) + "\n", encoding="utf-8")


def reviews(rows: int, data: Path | None = None) -> list[str]:
    """Reviews of the lengths that IMDB's have (a median of 174 words, a mean of 231), all different, made of our samples' words.

    With ``data`` the first rows of its column ``text``, again from the start, numbered, if they are too few.
    """
    if data is not None:
        texts = pd.read_parquet(data, columns=["text"])["text"].tolist()
        return [texts[k] if k < len(texts) else f"{k} {texts[k % len(texts)]}" for k in range(rows)]
    random = np.random.default_rng(0)
    words = np.array(" ".join(row["text"] for row in samples.rows() if row["text"]).split())
    lengths = np.clip(random.lognormal(np.log(174), 0.75, rows), 4, 2400).astype(int)
    return [" ".join(random.choice(words, length)) for length in lengths]


def busy_share(spans: Iterable[tuple[float, float]], start: float, end: float) -> float:
    """The share of the time from ``start`` to ``end`` that lies in at least one of the spans (begin, end)."""
    busy, reached = 0.0, start
    for begin, finish in sorted(spans):
        busy += max(0.0, min(finish, end) - max(begin, reached))
        reached = max(reached, finish)
    return busy / (end - start)


def _make_tokenizer(folder: Path) -> Path:
    """A word-piece tokenizer, of BERT's kind, trained on the sample reviews."""
    import tokenizers.implementations
    import transformers

    library: Any = transformers
    implementations: Any = tokenizers.implementations
    trained = implementations.BertWordPieceTokenizer()
    texts = (row["text"] for row in samples.rows() if row["text"])
    trained.train_from_iterator(texts, vocab_size=_VOCABULARY, min_frequency=1, show_progress=False)
    folder.mkdir(parents=True)
    trained.save_model(str(folder))
    library.BertTokenizerFast.from_pretrained(folder, model_max_length=512).save_pretrained(folder)
    return folder


def _make_plain(name: str, tokenizer: Path, folder: Path, **config: Any) -> None:
    """A folder without ``batchscore.json``, a tiny BERT whose answers depend on every token."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    options: dict[str, Any] = {**_TINY, **config}
    made = BertConfig(vocab_size=_VOCABULARY, initializer_range=0.5, **options)
    BertForSequenceClassification(made).save_pretrained(folder / name)
    loaded: Any = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
    loaded.save_pretrained(folder / name)


def models(place: Place) -> None:
    """Make all models: tiny ones of four kinds, real sizes, and plain folders."""
    work = place.folder / "work"
    tokenizer = _make_tokenizer(work / "tokenizer")
    wanted = {**TINY, **({} if place.dry else {name: SHAPES[name] for name in place.large})}
    for name, (kind, options) in wanted.items():
        write(kind, {"vocab_size": _VOCABULARY, **options}, tokenizer, work / name)
    _make_plain("plain", tokenizer, work)
    labels = {"num_labels": 3, "problem_type": "multi_label_classification"}
    _make_plain("plain-multi-label", tokenizer, work, **labels)
    place.figure("models made", ", ".join(sorted(path.name for path in work.iterdir())))


def _loaded(
    place: Place, name: str, precision: str = "fp32", device: str | None = None, *, are_pairs: bool = False
) -> tuple[Model, dict[str, Any]]:
    """A model as a run would have it."""
    compute = ComputeSettings(device=device or place.device, precision=precision)
    bundle = open_bundle(str(place.model(name))).for_texts(are_pairs=are_pairs)
    asked = ModelSettings.of(ScoreSettings((), str(bundle.path), place.folder, compute=compute), bundle)
    return load_model(bundle, asked, {})


def answers(place: Place) -> None:
    """Float32 on the GPU against float32 on the CPU, whose answers the tests hold against plain transformers."""
    import torch

    place.figure("torch.get_float32_matmul_precision", torch.get_float32_matmul_precision())
    place.figure("torch.backends.cuda.matmul.allow_tf32", str(torch.backends.cuda.matmul.allow_tf32))
    some = reviews(30, place.data)
    singles: list[Text] = ["good", "", *some]
    pairs: list[Text] = [(first, second[:300]) for first, second in itertools.pairwise(some)]
    for name in [*TINY, *(() if place.dry else place.large), "plain", "plain-multi-label", "plain pairs"]:
        are_pairs = name == "plain pairs"
        texts, found = pairs if are_pairs else singles, []
        for device in ("cpu", place.device):
            model, facts = _loaded(place, name.split()[0], device=device, are_pairs=are_pairs)
            found.append(score_texts(texts, model).probabilities)
        place.figure(f"{name}: backend", facts["backend"])
        difference = np.abs(found[0] - found[1])
        if not np.array_equal(np.isnan(found[0]), np.isnan(found[1])):
            difference[:] = np.inf  # a row was scored on one of them only
        place.check(
            f"{name}: largest difference from the CPU", float(np.nanmax(difference)), at_most=_TOLERANCE
        )


def memory(place: Place) -> None:
    """A budget beyond the memory: the run has to end, with the bytes that the budget it was halved to gives."""
    path = _reviews_file(place, 64 if place.dry else _PART)
    model, huge = place.large[0], 2**14 if place.dry else 2**20

    def run(name: str, budget: int) -> tuple[dict[str, Any], bytes]:
        compute = ComputeSettings(device=place.device, precision="fp32", max_batch_tokens=budget)
        folder = _scored(place, path, model, name, compute)
        return json.loads((folder / "run.json").read_bytes()), (
            folder / "predictions" / path.name
        ).read_bytes()

    with _little_memory(place):
        first, halved_bytes = run("memory-huge", huge)
        halvings = int(first["work"]["halvings"])
        place.check("halvings of the budget", halvings, at_least=1)
        place.figure("budget, tokens: asked, and what fitted", f"{huge}, {huge >> halvings}")
        second, given_bytes = run("memory-halved", huge >> halvings)
    place.check("halvings with the budget that fitted", second["work"]["halvings"], at_most=0)
    place.check("the same bytes with either", float(halved_bytes == given_bytes), at_least=1)
    failed = (
        pd.read_parquet(place.folder / "work" / "memory-huge" / "predictions" / path.name)["status"]
        .ne("ok")
        .sum()
    )
    place.check("rows not scored", float(failed), at_most=0)


@contextlib.contextmanager
def _little_memory(place: Place) -> Iterator[None]:
    """Occupy the GPU but for a few GiB. In a dry run, a CPU that says it cannot take more than 2,048 tokens at a time."""
    import torch

    if not place.dry:
        free, _ = torch.cuda.mem_get_info()
        ballast = torch.empty(max(0, free - int(_LEFT_GIB * 2**30)), dtype=torch.uint8, device=place.device)
        place.figure("memory left, GiB", round(torch.cuda.mem_get_info()[0] / 2**30, 2))
        yield
        del ballast
        return
    from batchscore.model.backends.torch_backend import TorchBackend

    real = TorchBackend.logits

    def limited(self: TorchBackend, batch: Any) -> NDArray[np.float32]:
        if batch.input_ids.size > 2048 and len(batch.input_ids) > 1:
            raise OutOfDeviceMemoryError("a made-up limit")
        return real(self, batch)

    TorchBackend.logits = limited  # type: ignore[method-assign]
    try:
        yield
    finally:
        TorchBackend.logits = real  # type: ignore[method-assign]


def precisions(place: Place) -> None:
    """How far bfloat16 and float16 are from float32 on the same device, and whether canaries (references) agree."""
    texts: list[Text] = [*reviews(16 if place.dry else 1024, place.data)]
    for name in (*place.measured, "plain"):
        model, _ = _loaded(place, name)
        exact, agreeing = score_texts(texts, model).probabilities, 0
        for precision in ("bf16", "fp16"):
            backend = open_backend("torch", model.bundle, place.device, precision)
            found = score_texts(texts, dataclasses.replace(model, backend=backend)).probabilities
            difference = float(np.abs(found - exact).max())
            place.figure(f"{name} {precision}: largest difference from fp32", round(difference, 5))
            changed = int((found.argmax(1) != exact.argmax(1)).sum())
            place.figure(f"{name} {precision}: labels changed", f"{changed} of {len(texts)}")
            try:
                _loaded(place, name, precision)
                agreeing += 1
                place.figure(f"{name} {precision}: may be used", "yes")
            except ModelError as error:  # a precision that is too far off is refused, as it should be
                place.figure(f"{name} {precision}: may be used", f"no: {error}")
        place.check(f"{name}: precisions whose canaries or references agree", agreeing, at_least=1)


def ladder(place: Place) -> None:
    """The token budget that tuning chooses on one part, and the rate of each budget."""
    texts: list[Text] = [*reviews(200 if place.dry else _PART, place.data)]
    precision = "fp32" if place.dry else "bf16"
    for name in place.measured:
        model, _ = _loaded(place, name, precision)
        started = time.perf_counter()
        prepare(texts, model)
        seconds = time.perf_counter() - started
        place.figure(f"{name}: tokenising, reviews/s", round(len(texts) / seconds))
        started = time.perf_counter()
        chosen = tuning.tuned_budget(model, texts)
        place.figure(f"{name}: seconds of tuning", round(time.perf_counter() - started, 2))
        place.figure(f"{name}: chosen budget, tokens", chosen)
        encodings, rates = prepare(texts, model).encodings, dict[int, float]()
        with contextlib.suppress(OutOfDeviceMemoryError):
            for budget in tuning.BUDGETS[: 2 if place.dry else None]:
                rates[budget] = tuning.rate(model, encodings, budget)
        model.backend.release()
        for budget, rate in rates.items():
            place.figure(f"{name}: padded tokens/s with {budget}", round(rate))
        if chosen in rates and not place.dry:
            place.check(f"{name}: share of the best rate", rates[chosen] / max(rates.values()), at_least=0.85)


def throughput(place: Place, which: int) -> None:
    """Reviews a second of the whole command, beside ``pipeline`` and padded loops, in turns."""
    import bench

    from batchscore.model.tokenization import Tokenizer

    name = place.large[which]
    path = _reviews_file(place, 16 if place.dry else 30_000)
    texts = pd.read_parquet(path)["text"].tolist()
    bundle = open_bundle(str(place.model(name)))
    lengths = np.array([min(len(ids), bundle.max_length) for ids in Tokenizer(bundle).token_ids(texts)])
    place.figure(f"{name}: reviews, mean tokens", f"{len(texts)}, {lengths.mean():.0f}")
    names = ["batchscore", "pipeline-fp16", "sorted-fp16", "origin"]
    if place.dry:
        names = names[:1]
        place.skip(
            f"{name}: pipeline and padded loops", "each starts a process; jobs/bench.py runs them on a CPU"
        )
    chosen = [each for each in bench.CONTENDERS if each.name in names]
    work = bench.Work(bundle, texts, path, lengths, 2000)
    results = bench.measure(chosen, work, rounds=1 if place.dry else 2)
    rates = {}
    for contender, result in results.items():
        if result.note or not result.seconds:
            place.skip(f"{name}: {contender}", result.note)
            continue
        rates[contender] = len(result.rows) / statistics.median(result.seconds)
        place.figure(f"{name}: {contender}, reviews/s", round(rates[contender], 1))
    if not place.dry:
        _with_parallel_tokenizer(place, name, work)
    place.check(f"{name}: batchscore ran", float("batchscore" in rates), at_least=1)
    apart = len(texts) / statistics.median(results["batchscore"].scoring or [float("nan")])
    place.goal(f"{name}: batchscore without start-up, reviews/s", round(apart, 1), _GOALS.get(name, 0))
    if "pipeline-fp16" in rates:
        place.goal(
            f"{name}: batchscore without start-up / pipeline-fp16",
            round(apart / rates["pipeline-fp16"], 2),
            3,
        )


def _with_parallel_tokenizer(place: Place, name: str, work: Any) -> None:
    """The same command with threads of the tokenizer's own beside ours: whether the device waits for tokens still."""
    import bench

    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    (ours,) = (each for each in bench.CONTENDERS if each.name == "batchscore")
    result = bench.measure([ours], work, rounds=1)["batchscore"]
    del os.environ["TOKENIZERS_PARALLELISM"]
    rate = len(result.rows) / (result.scoring or [float("nan")])[0]
    place.figure(f"{name}: without start-up, TOKENIZERS_PARALLELISM=true, reviews/s", round(rate, 1))


def busy(place: Place) -> None:
    """The share of a run's scoring during which the device computes or copies, from torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    kinds = {"cpu_op"} if place.dry else {"kernel", "gpu_memcpy", "gpu_memset"}
    path = _reviews_file(place, 24 if place.dry else 8 * _PART)
    for name in place.measured:
        with profile(activities=[ProfilerActivity.CPU if place.dry else ProfilerActivity.CUDA]) as profiled:
            folder = _scored(place, path, name, f"busy-{name}", ComputeSettings(device=place.device))
        trace = place.folder / "work" / "trace.json"
        profiled.export_chrome_trace(str(trace))
        events = json.loads(trace.read_bytes())["traceEvents"]
        spans = [(e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") in kinds and "dur" in e]
        run = json.loads((folder / "run.json").read_bytes())
        work = run["work"]
        end = max((finish for _, finish in spans), default=0.0)
        share = busy_share(spans, end - work["scoring_seconds"] * 1e6, end)
        place.goal(f"{name}: share of scoring that the device is busy", round(share, 3), 0.9)
        waiting = work["forward_seconds"] / work["workers"] / work["scoring_seconds"]
        place.figure(f"{name}: share that workers are in forward passes", round(waiting, 3))
        compute = run["compute"]
        place.figure(f"{name}: precision, budget", f"{compute['precision']}, {compute['max_batch_tokens']}")


def experiments(place: Place) -> None:
    """Would CUDA graphs, torch's compiler, or attention without padding pay? Ratios: above 1 is faster than what we do."""
    if place.dry:
        place.skip("varlen attention, CUDA graphs, --compile on", "need a GPU")
    for name in place.measured:
        model, _ = _loaded(place, name, "fp32" if place.dry else "bf16")
        encodings = prepare([*reviews(32 if place.dry else _PART, place.data)], model).encodings
        for budget in (2048,) if place.dry else (4096, 65_536):
            plan = batching.plan_sequences(encodings.input_ids, budget, model.padding)
            batch = batching.assemble(encodings.input_ids, plan[len(plan) // 2], model.padding, None)
            _experiment(place, f"{name}, {budget} tokens", model, batch)


def _experiment(place: Place, label: str, model: Model, batch: MicroBatch) -> None:
    """The experiments on one micro-batch; the graph last, as a failed one may spoil the device for what follows."""
    import torch

    inputs = [torch.from_numpy(each).to(place.device) for each in (batch.input_ids, batch.attention_mask)]
    backend: Any = model.backend
    with torch.inference_mode():
        eager = _timed(place, functools.partial(backend.forward, *inputs))
        place.figure(f"{label}: ms of a forward pass", round(eager * 1e3, 3))
        if place.dry:
            return
        if batch.input_ids.size > 8192:
            _try_varlen(place, label, batch.attention_mask.sum(axis=1), batch.input_ids.shape[1])
            _try(place, f"{label}: --compile on", eager, lambda: _compiled(place, model, inputs))
        _try(place, f"{label}: CUDA graph", eager, lambda: _graph(model, inputs))


def _graph(model: Model, inputs: Sequence[Any]) -> Callable[[], Any]:
    """The same forward pass, recorded as a CUDA graph and replayed."""
    import torch

    backend: Any = model.backend
    cuda: Any = torch.cuda
    with cuda.stream(cuda.Stream()):  # a capture wants a warm-up on another stream
        for _ in range(3):
            backend.forward(*inputs)
    cuda.synchronize()
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        backend.forward(*inputs)
    replay: Callable[[], Any] = graph.replay
    return replay


def _compiled(place: Place, model: Model, inputs: Sequence[Any]) -> Callable[[], Any]:
    """Our encoder as ``--compile on`` has it."""
    backend: Any = open_backend("compiled", model.bundle, place.device, "bf16")
    return functools.partial(backend.forward, *inputs)


def _try(place: Place, what: str, eager: float, make: Callable[[], Callable[[], Any]]) -> None:
    """Note how many times as fast something is; that it cannot be had is no failure."""
    try:
        place.figure(f"{what}, times as fast", round(eager / _timed(place, make()), 2))
    except Exception as error:  # noqa: BLE001 - an experiment may fail in any way
        place.skip(what, f"{type(error).__name__}: {str(error).splitlines()[:1]}")


def _try_varlen(place: Place, label: str, lengths: NDArray[np.int64], width: int) -> None:
    """One layer's attention over rows laid end to end, against padded rows with a mask (12 heads of 64, bfloat16)."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    def states(*shape: int) -> list[Any]:
        return [torch.randn(*shape, dtype=torch.bfloat16, device=place.device) for _ in range(3)]

    def packed() -> Callable[[], Any]:
        from torch.nn.attention.varlen import varlen_attn

        attend: Any = varlen_attn
        ends = np.concatenate([[0], np.cumsum(lengths)])
        bounds = torch.tensor(ends, dtype=torch.int32, device=place.device)
        longest = int(lengths.max())
        return functools.partial(attend, *states(int(ends[-1]), 12, 64), bounds, bounds, longest, longest)

    is_token = torch.arange(width) < torch.from_numpy(lengths)[:, None]
    mask = is_token[:, None, None, :].to(place.device)
    query, key, value = states(len(lengths), 12, width, 64)
    masked = _timed(place, lambda: scaled_dot_product_attention(query, key, value, mask))
    place.figure(f"{label}: share of padding", round(1 - float(lengths.sum()) / (len(lengths) * width), 3))
    _try(place, f"{label}: varlen attention alone", masked, packed)


def _timed(place: Place, function: Callable[[], Any]) -> float:
    """Median seconds of a call, the device's work included, after two that do not count."""
    import torch

    seconds = []
    for turn in range(4 if place.dry else 12):
        started = time.perf_counter()
        function()
        if not place.dry:
            torch.cuda.synchronize()
        seconds += [time.perf_counter() - started] * (turn >= 2)
    return statistics.median(seconds)


def _reviews_file(place: Place, rows: int) -> Path:
    """A Parquet file of so many reviews, made once."""
    path = place.folder / "work" / f"reviews-{rows}.parquet"
    if not path.exists():
        pd.DataFrame({"text": reviews(rows, place.data)}).to_parquet(path, index=False)
    return path


def _scored(place: Place, path: Path, model: str, name: str, compute: ComputeSettings) -> Path:
    """Score a file in this process; the run folder."""
    folder = place.folder / "work" / name
    read = ReadSettings(text_column="text")
    settings = ScoreSettings(
        (str(path),), str(place.model(model)), folder, read=read, compute=compute, force=True
    )
    score(settings, lambda total: Progress(total, quiet=True))
    return folder


class Step(NamedTuple):
    """What to run, and the seconds after which it is stopped."""

    run: Callable[[Place], None]
    seconds: float


STEPS = {
    "models": Step(models, 60),
    "answers": Step(answers, 70),
    "memory": Step(memory, 45),
    "precisions": Step(precisions, 45),
    "ladder": Step(ladder, 45),
    "throughput-distilbert": Step(functools.partial(throughput, which=0), 75),
    "throughput-bert": Step(functools.partial(throughput, which=1), 90),
    "busy": Step(busy, 45),
    "experiments": Step(experiments, 75),
}
"""In this order; the first makes what the others need."""


def run_step(step: str, folder: Path, dry: bool, data: Path | None) -> None:
    """Run one step in this process."""
    logging.basicConfig(level=logging.INFO)
    STEPS[step].run(Place(folder, step, dry, data))
