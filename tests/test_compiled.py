"""A compiled encoder against the one it was made of; when it is taken, and that a resumed run keeps it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run_score
from test_workers import Stop, predictions_of
from torch._inductor import codecache
from torch._inductor import config as inductor

from batchscore.config import ComputeSettings, ReadSettings, ScoreSettings
from batchscore.errors import InterruptedRunError, ModelError
from batchscore.model import loading
from batchscore.model.backends import open_backend
from batchscore.model.backends.compiled import CompiledEncoder
from batchscore.model.bundle import open_bundle
from batchscore.model.loading import ModelSettings, load_model
from batchscore.runs.run import score

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler (g++)")


def uncompiled(self: Any, encoder: Any, device: str) -> None:
    """What stands in for a minute of compiling: other answers in the last bits, like the real one."""
    self._forward = lambda ids, mask: encoder(ids, mask) * (1 + 1e-6)


@needs_compiler
@pytest.mark.slow
def test_a_compiled_model_answers_as_the_plain_one_whatever_the_shape_and_the_thread(
    tiny_bundle: Path, tmp_path: Path, reviews: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    compile_it: Any = torch.compile

    def compiled_once(encoder: Any, **how: Any) -> Any:
        """Both runs have the same weights, and compiling takes a minute."""
        made.extend([] if made else [compile_it(encoder, **how)])
        return made[0]

    monkeypatch.setattr(torch, "compile", compiled_once)
    monkeypatch.setattr(inductor.cpp, "vec_isa_ok", True)  # not found out by compiling ten probes
    monkeypatch.setattr(codecache, "_HEADER_DIR", str(tmp_path / "headers"))
    reviews.head(40).to_parquet(tmp_path / "in.parquet")
    for name, workers, compile_ in (("plain", 1, "off"), ("one", 1, "on"), ("two", 2, "on")):
        compute = ComputeSettings(
            precision="fp32", workers=workers, compile=compile_, max_batch_tokens=512
        )  # also rows that go alone
        run_score(tmp_path / "in.parquet", tiny_bundle, tmp_path / name, compute=compute)
    facts = json.loads((tmp_path / "two" / "run.json").read_bytes())
    assert facts["compute"]["backend"] == "compiled"
    assert predictions_of(tmp_path / "one") == predictions_of(tmp_path / "two")
    plain, compiled = (
        pd.read_parquet(tmp_path / name / "predictions" / "in.parquet") for name in ("plain", "two")
    )
    pd.testing.assert_series_equal(plain.predicted_label, compiled.predicted_label)
    np.testing.assert_allclose(plain.probability, compiled.probability, atol=1e-5)
    assert not (tmp_path / "headers").exists(), "a folder that all users of the machine can write into"


@pytest.mark.parametrize(
    ("asked", "name", "precision", "expected"),
    [
        ("auto", "auto", "bf16", "auto"),
        ("auto", "auto", "fp32", "auto"),
        ("on", "auto", "fp32", "compiled"),
        ("on", "torch", "fp16", "compiled"),
        ("off", "auto", "bf16", "auto"),
        ("on", "auto", "int8", "auto"),
        ("on", "transformers", "fp32", "transformers"),
        ("off", "compiled", "fp32", "compiled"),
    ],
)
def test_only_what_is_asked_for_is_compiled(asked: str, name: str, precision: str, expected: str) -> None:
    is_compiled = ComputeSettings(compile=asked).is_compiled
    assert loading._backend_name(name, precision, is_compiled=is_compiled) == expected


def test_a_stopped_compiled_run_goes_on_to_the_same_bytes(
    tiny_bundle: Path, tmp_path: Path, reviews: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CompiledEncoder, "__init__", uncompiled)
    monkeypatch.setattr(loading._Loading, "_precisions", lambda *_, **__: ["fp32"])
    reviews.head(60).to_parquet(tmp_path / "in.parquet")
    read, compiled = ReadSettings(part_rows=20), ComputeSettings(compile="on")
    inputs = (str(tmp_path / "in.parquet"),)
    settings = ScoreSettings(inputs, str(tiny_bundle), tmp_path / "run", read=read, compute=compiled)
    with pytest.raises(InterruptedRunError):
        score(settings, lambda _: Stop())  # type: ignore[arg-type,return-value]
    run_score(tmp_path / "in.parquet", tiny_bundle, tmp_path / "whole", read=read, compute=compiled)
    run_score(tmp_path / "in.parquet", tiny_bundle, tmp_path / "run", read=read, compute=compiled)
    run_score(tmp_path / "in.parquet", tiny_bundle, tmp_path / "plain", read=read)
    kinds = {
        run: json.loads((tmp_path / run / "run.json").read_bytes())["compute"]["backend"]
        for run in ("run", "whole", "plain")
    }
    assert kinds == {"run": "compiled", "whole": "compiled", "plain": "torch"}
    assert predictions_of(tmp_path / "run") == predictions_of(tmp_path / "whole")


def test_where_nothing_can_be_compiled_on_is_an_error(
    tiny_bundle: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("no working C++ compiler\nfound")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    bundle = open_bundle(str(tiny_bundle))
    with pytest.raises(ModelError, match=r"no working C\+\+ compiler.*--compile off"):
        load_model(bundle, ModelSettings(dataclasses.replace(ComputeSettings(), compile="on"), "head"), {})
    with pytest.raises(ModelError, match="only BERT"):
        open_backend("compiled", open_bundle(str(tiny_model)), "cpu", "fp32")
