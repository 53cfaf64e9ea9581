"""The Ray engine: the same bytes as the local one. Skipped where ray is not installed (extra: ray)."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import run_score
from test_scoring_processes import recipe_of
from test_workers import Stop, predictions_of
from tokenizers import Tokenizer as SavedTokenizer

from batchscore.config import ComputeSettings, ReadSettings, ScoreSettings
from batchscore.errors import BusyError, InterruptedRunError, UsageError
from batchscore.model.backends import BackendSpec
from batchscore.model.bundle import open_bundle
from batchscore.model.loading import ModelSettings, load_model
from batchscore.model.long_texts import LongTexts
from batchscore.model.scoring import Model
from batchscore.model.tokenization import Tokenizer
from batchscore.runs import engines
from batchscore.runs.engines import ray
from batchscore.runs.run import score
from batchscore.runs.shard_scoring import ShardScoring

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


MAKERS: dict[type, Callable[[Any], Any]] = {
    bool: lambda value: not value,
    int: lambda value: value + 1,
    float: lambda value: value / 2,
    str: lambda value: f"{value}?",
    tuple: lambda value: (*value, 0.25),
}


def another(value: Any) -> Any:
    """A value that a field does not have by default; a new type needs an entry in ``MAKERS``."""
    if type(value) in MAKERS:
        return MAKERS[type(value)](value)
    return dataclasses.replace(value, **others(value))


def others(settings: Any) -> dict[str, Any]:
    """Another value for each field that may be left out."""
    fields = (field for field in dataclasses.fields(settings) if field.default is not dataclasses.MISSING)
    return {field.name: another(getattr(settings, field.name)) for field in fields}


def told(value: Any) -> Any:
    """What can be compared of a part of a model."""
    if isinstance(value, Tokenizer):
        return {name: told(each) for name, each in vars(value).items()}
    if isinstance(value, tuple):
        return tuple(map(told, value))
    if isinstance(value, SavedTokenizer):
        return value.to_str()
    if isinstance(value, LongTexts):  # made of the tokenizer, which is compared itself
        return LongTexts
    return BackendSpec.of(value) if hasattr(value, "logits") else value


def test_a_process_has_the_model_of_this_one_in_every_field_that_counts(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    """Also in one that is added later: what may be left out has another value than it would get by default."""
    bundle = dataclasses.replace(open_bundle(str(tiny_bundle)), temperature=1.7, max_length=64, canaries=None)
    compute = ComputeSettings("cpu", "fp32", "fresh", 512, 1)
    wanted = dataclasses.replace(
        another(ModelSettings(compute, "head")), compute=compute, long_text="windows"
    )
    recipe = dataclasses.replace(recipe_of(bundle, tmp_path), wanted=wanted)
    scoring = ShardScoring(pickle.loads(pickle.dumps(recipe)))
    scoring.get_ready({"padding": "left"})
    found, (model, _) = scoring._model, load_model(bundle, wanted, {"padding": "left"})
    scoring.close()
    fields = [field.name for field in dataclasses.fields(Model) if field.compare]
    assert {"bundle", "tokenizer", "backend", "inference"} <= {*fields}
    for name in fields:
        assert told(getattr(found, name)) == told(getattr(model, name)), name
    assert model.inference.long_text == "windows"


def test_without_ray_the_error_names_the_extra(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'batchscore\[ray\]'"):
        run_score(tmp_path / "in.csv", tiny_bundle, tmp_path / "run", engine="ray")
    with pytest.raises(UsageError, match="there are: local, ray"):
        engines.refuse_unusable(ScoreSettings((), "", tmp_path, engine="dask"))


@needs_ray
def test_a_cluster_that_is_not_there_is_75_with_its_address(
    tiny_bundle: Path, reviews: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    bundle = open_bundle(str(tiny_bundle))
    cluster = ray.RayCluster(recipe_of(bundle, tmp_path), None, {})
    with (
        contextlib.closing(cluster),
        pytest.raises(BusyError, match=r"127\.0\.0\.1:1 .RAY_ADDRESS. cannot be"),
    ):
        list(map(cluster.events, [1.0] * 30))
