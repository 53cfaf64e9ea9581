"""The token budget of a GPU, on a device that is made up: its speed is a formula, its clock a number."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import run_score
from numpy.typing import NDArray
from test_scoring import FakeBackend, bundle, model_of, texts_of
from test_workers import Stop

from batchscore.config import ComputeSettings, ReadSettings, ScoreSettings
from batchscore.errors import InterruptedRunError
from batchscore.model import loading, tuning
from batchscore.model.bundle import Bundle, open_bundle
from batchscore.model.loading import ModelSettings
from batchscore.model.scoring import InferenceSettings, Model
from batchscore.model.tokenization import Tokenizer
from batchscore.records import MicroBatch
from batchscore.runs.run import score

__all__ = ["bundle"]
MANY = [f"{text} {number}" for number, text in enumerate(texts_of(2048))]
"""Each once; more than 131,072 padded tokens, fewer than twice as many."""


class Gpu(FakeBackend):
    """A micro-batch takes ``start`` seconds and one for each million tokens."""

    device = "cuda:0"

    def __init__(self, start: float, memory: float = float("inf")) -> None:
        super().__init__(memory)
        self.start, self.now = start, 0.0

    def logits(self, batch: MicroBatch) -> NDArray[np.float32]:
        self.now += self.start + batch.input_ids.size / 1e6
        return super().logits(batch)


@pytest.mark.parametrize(
    ("start", "memory", "expected"),
    [
        pytest.param(0.0, 1e9, 8192, id="as fast with little: the smallest"),
        pytest.param(0.001, 1e9, 16_384, id="within five percent of the fastest"),
        pytest.param(1.0, 1e9, 65_536, id="the more the better: what a part holds"),
        pytest.param(1.0, 40_000, 32_768, id="the largest that fits"),
        pytest.param(1.0, 8192, 8192, id="only the lowest fits"),
        pytest.param(1.0, 100, 8192, id="none fits: the lowest, which is halved later"),
    ],
)
def test_the_smallest_of_the_fastest_budgets_is_taken(
    bundle: Bundle, start: float, memory: float, expected: int
) -> None:
    gpu = Gpu(start, memory)
    assert tuning.tuned_budget(model_of(bundle, gpu), list(MANY), lambda: gpu.now) == expected


def test_few_texts_keep_the_default(bundle: Bundle) -> None:
    gpu = Gpu(1.0)
    for texts in ([], [None], texts_of(30)):
        assert tuning.tuned_budget(model_of(bundle, gpu, budget=777), texts, lambda: gpu.now) == 777


def test_a_row_that_the_model_fails_on_ends_the_climb_and_not_the_run(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(1.0)

    def fail(_: MicroBatch) -> NDArray[np.float32]:
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(gpu, "logits", fail)
    assert tuning.tuned_budget(model_of(bundle, gpu, budget=777), list(MANY), lambda: gpu.now) == 777


def test_what_is_tried_is_the_longest_rows(bundle: Bundle) -> None:
    gpu = Gpu(1.0)
    tuning.tuned_budget(model_of(bundle, gpu), list(MANY), lambda: gpu.now)
    widest = max(len(ids) for ids in Tokenizer(bundle).token_ids(MANY))
    assert {width for _, width in gpu.shapes} == {-(-widest // 32) * 32}


def test_a_cpu_and_a_small_run_do_not_look(bundle: Bundle) -> None:
    assert not tuning.is_worth_tuning(model_of(bundle, FakeBackend()), 10**9)
    assert not tuning.is_worth_tuning(model_of(bundle, Gpu(1.0)), tuning.MIN_ROWS - 1)
    assert tuning.is_worth_tuning(model_of(bundle, Gpu(1.0)), tuning.MIN_ROWS)


def test_a_resumed_run_keeps_the_budget_that_its_first_start_found(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_bundle(str(tiny_model))
    gpu = Gpu(1.0)

    def load(_: Any, wanted: ModelSettings, recorded: Any, *__: Any) -> tuple[Model, dict[str, Any]]:
        budget = recorded.get("max_batch_tokens") or wanted.compute.max_batch_tokens or 512
        return Model(opened, Tokenizer(opened), gpu, InferenceSettings(budget, wanted.long_text)), {
            "max_batch_tokens": budget
        }

    monkeypatch.setattr(loading, "load_model", load)
    monkeypatch.setattr(tuning, "MIN_ROWS", 100)
    found = iter((1024, 4096, 2048))
    monkeypatch.setattr("batchscore.runs.scoring_parts.tuned_budget", lambda *_: next(found))
    pd.DataFrame({"text": texts_of(120)}).to_parquet(tmp_path / "in.parquet")
    read = ReadSettings(part_rows=40)
    settings = ScoreSettings((str(tmp_path / "in.parquet"),), str(tiny_model), tmp_path / "run", read=read)
    with pytest.raises(InterruptedRunError):
        score(settings, lambda _: Stop())  # type: ignore[arg-type,return-value]
    gpu.shapes.clear()
    run_score(tmp_path / "in.parquet", tiny_model, tmp_path / "run", read=read)
    facts = json.loads((tmp_path / "run" / "run.json").read_bytes())
    assert facts["compute"]["max_batch_tokens"] == 1024
    assert 512 < max(rows * width for rows, width in gpu.shapes) <= 1024
    run_score(tmp_path / "in.parquet", tiny_model, tmp_path / "other", read=read)
    assert json.loads((tmp_path / "other" / "run.json").read_bytes())["compute"]["max_batch_tokens"] == 4096
    asked = dataclasses.replace(ComputeSettings(), max_batch_tokens=300)
    run_score(tmp_path / "in.parquet", tiny_model, tmp_path / "asked", read=read, compute=asked)
    assert json.loads((tmp_path / "asked" / "run.json").read_bytes())["compute"]["max_batch_tokens"] == 300
