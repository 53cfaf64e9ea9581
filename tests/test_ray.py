"""The Ray engine: the same bytes as the local one. Skipped where ray is not installed (extra: ray)."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import run_score
from test_workers import Stop, predictions_of

from batchscore.config import ComputeSettings, ReadSettings, ScoreSettings
from batchscore.errors import InterruptedRunError, ModelError, UsageError
from batchscore.model.backends import open_backend
from batchscore.model.bundle import open_bundle
from batchscore.model.scoring import Model, score_part
from batchscore.model.tokenization import Tokenizer
from batchscore.runs import engines
from batchscore.runs.engines.ray import ScoringActor, _recipe
from batchscore.runs.run import score

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed (extra: ray)"
)
READ = ReadSettings(part_rows=20)
COMPUTE = ComputeSettings(precision="fp32", workers=2)


@needs_ray
@pytest.mark.slow
def test_ray_writes_the_same_bytes_also_when_it_was_stopped(
    tiny_bundle: Path, reviews: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    reviews.head(90).to_parquet(tmp_path / "in.parquet")
    options: dict[str, Any] = {"read": READ, "compute": COMPUTE}
    run_score(tmp_path / "in.parquet", tiny_bundle, tmp_path / "local", **options)
    settings = ScoreSettings(
        (str(tmp_path / "in.parquet"),), str(tiny_bundle), tmp_path / "ray", engine="ray", **options
    )
    with pytest.raises(InterruptedRunError):
        score(settings, lambda _: Stop())  # type: ignore[arg-type,return-value]
    run_score(tmp_path / "in.parquet", tiny_bundle, tmp_path / "ray", engine="ray", **options)
    assert predictions_of(tmp_path / "ray") == predictions_of(tmp_path / "local")
    assert (tmp_path / "ray" / "metrics.json").read_bytes() == (
        tmp_path / "local" / "metrics.json"
    ).read_bytes()


def test_an_actor_scores_as_this_process_does_and_refuses_another_model(tiny_bundle: Path) -> None:
    bundle = open_bundle(str(tiny_bundle))
    texts: list[str | None] = ["a wonderful film", None, "terrible", ""]
    kind = ("torch", "cpu", "fp32")
    found = ScoringActor(bundle, kind, 512, "head").score(texts)
    model = Model(bundle, Tokenizer(bundle), open_backend(*kind[:1], bundle, *kind[1:]), 512, "head")
    from test_scoring import rows_of

    expected = score_part(rows_of(texts), model)
    assert found.probabilities.tobytes() == expected.probabilities.tobytes()
    assert found.status.tolist() == expected.status.tolist()
    other = dataclasses.replace(bundle, fingerprint="0" * 64)
    with pytest.raises(ModelError, match="not the same model"):
        ScoringActor(other, kind, 512, "head").score(texts)


def test_an_actor_pads_as_this_process_does(tiny_model: Path) -> None:
    bundle = open_bundle(str(tiny_model))
    backend = open_backend("fresh", bundle, "cpu", "fp32")
    model = Model(bundle, Tokenizer(bundle), backend, 512, "head", way="none")
    actor = ScoringActor(*_recipe(model))
    assert (actor._model.way, actor._model.backend.name) == ("none", "fresh")


def test_without_ray_the_error_names_the_extra(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'batchscore\[ray\]'"):
        run_score(tmp_path / "in.csv", tiny_bundle, tmp_path / "run", engine="ray")
    with pytest.raises(UsageError, match="there are: local, ray"):
        engines.refuse_unusable("dask")
