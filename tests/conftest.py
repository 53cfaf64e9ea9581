"""What most tests need: tiny models that load in a moment, sample reviews, and the real ones where they lie."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from broken_buckets import Proxy, environment, make_bucket, plain, proxied, serving
from small_vocabulary import save_tokenizer

from batchscore import samples
from batchscore.config import ScoreSettings
from batchscore.runs.result import RunResult
from batchscore.runs.run import score
from batchscore.system import buckets
from batchscore.system.terminal import Progress

os.environ.setdefault(
    "BATCHSCORE_CACHE", "off"
)  # so that no test sees what another computed, or writes into a home
IMDB = Path(os.environ.get("BATCHSCORE_TEST_IMDB", Path(__file__).parents[2] / "shared" / "data" / "imdb"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first: with several workers, the quick ones fill up what is left."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


class _AtOnce:
    """Says of each test that fails why, and of each slow one how long it took, when it happens and not at the end.

    What a killed or endless test run has printed then tells what it was at.
    """

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.write_line(
                f"\n{report.nodeid} ({report.when}) failed:\n{report.longreprtext[-4000:]}"
            )
        elif report.duration > _LONG:
            self._terminal.write_line(f"\n{report.nodeid} ({report.when}) took {report.duration:.0f} s")


_LONG = 30
"""Seconds after which a test is named."""


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Report at once where several workers run, of which only the starting process has a terminal."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(_AtOnce(terminal))


def pytest_collection_finish() -> None:
    """Collecting leaves millions of objects, which the collector of garbage would look through during each test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def imdb() -> Path:
    """The folder with the real reviews."""
    if not (IMDB / "test.parquet").exists():
        pytest.skip(f"the IMDB reviews are not at {IMDB}; set BATCHSCORE_TEST_IMDB to their folder")
    return IMDB


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A plain Hugging Face folder: a BERT with random weights, two layers of 32; a tokenizer of few words, or the ``whole`` one."""

    def make(labels: Sequence[str] = ("NEGATIVE", "POSITIVE"), *, seed: int = 0, whole: bool = False) -> Path:
        import torch
        from transformers import BertConfig, BertForSequenceClassification

        torch.manual_seed(seed)
        folder: Path = tmp_path_factory.mktemp("model") / "tiny"
        config = BertConfig(
            vocab_size=save_tokenizer(folder, whole=whole),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            initializer_range=0.5,  # so that probabilities differ from row to row
        )
        BertForSequenceClassification(config).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_model(make_model: Callable[..., Path]) -> Path:
    """A plain folder with two labels; tests must not write into it."""
    return make_model()


@pytest.fixture(scope="session")
def tiny_bundle(make_model: Callable[..., Path]) -> Path:
    """The same as a sealed bundle with canaries; tests must not write into it."""
    return seal_bundle(make_model())


def seal_bundle(folder: Path) -> Path:
    """Turn a plain folder into a bundle whose canaries are sample reviews."""
    from batchscore.model.backends import open_backend
    from batchscore.model.bundle import open_bundle, seal
    from batchscore.model.scoring import InferenceSettings, Model, compute, conclude, prepare
    from batchscore.model.tokenization import Tokenizer

    bundle = open_bundle(str(folder))
    model = Model(
        bundle,
        Tokenizer(bundle),
        open_backend("torch", bundle, "cpu", "fp32"),
        InferenceSettings(4096, "head"),
    )
    texts = [row["text"] for row in samples.rows() if row["text"]][:32]
    prepared = prepare(texts, model)
    probabilities = conclude(prepared, compute(prepared, model), model).probabilities
    (folder / "README.md").write_text("# a tiny model\n", encoding="utf-8")
    facts = {
        "labels": list(bundle.labels),
        "max_length": bundle.max_length,
        "temperature": 1.0,
        "long_text": "head",
        "canaries": {"texts": texts, "probabilities": [[float(p) for p in row] for row in probabilities]},
        "training": {},
        "metrics": {},
    }
    seal(folder, facts)
    return folder


@pytest.fixture(scope="session")
def reviews() -> pd.DataFrame:
    """The sample reviews to score: id, text, label."""
    return pd.DataFrame(samples.load("test"))


def run_score(inputs: Path | Sequence[Path], model: Path, output: Path, **options: Any) -> RunResult:
    """Call ``score`` in this process, quietly."""
    paths = [inputs] if isinstance(inputs, Path) else inputs
    settings = ScoreSettings(tuple(str(path) for path in paths), str(model), output, **options)
    return score(settings, lambda total: Progress(total, quiet=True))


@pytest.fixture(scope="session")
def bucket_proxy() -> Iterator[Proxy]:
    """A store of the S3 kind with the bucket ``reviews``, behind a proxy that can break what passes; the environment names it."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    with serving() as upstream, proxied(upstream) as proxy, pytest.MonkeyPatch.context() as patched:
        make_bucket(upstream, "reviews")
        for name, value in environment(proxy.endpoint).items():
            patched.setenv(name, value)
        buckets.client_of.cache_clear()
        yield proxy
        buckets.client_of.cache_clear()


@pytest.fixture
def proxy(bucket_proxy: Proxy) -> Iterator[Proxy]:
    """The same, whole again after each test."""
    yield bucket_proxy
    bucket_proxy.plan = plain


@pytest.fixture(scope="module")
def quick_runs() -> Iterator[None]:
    """Runs in float32, without a measurement of what is faster: for tests of something else."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("BATCHSCORE_PRECISION", "fp32")
        yield


@pytest.fixture
def started_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers of the processes that are started; none of them may outlive the test."""
    started: list[int] = []
    plain_popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> Any:
        process = plain_popen(*arguments, **options)
        started.append(process.pid)
        return process

    monkeypatch.setattr(subprocess, "Popen", start)
    yield started
    for number in started:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)
