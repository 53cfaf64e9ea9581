"""The Ray engine: the same bytes as the local one. Skipped where ray is not installed (extra: ray)."""

from __future__ import annotations

import dataclasses
import importlib.util
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import run_score
from test_workers import Stop, predictions_of
from tokenizers import Tokenizer as SavedTokenizer

from batchscore.config import ComputeSettings, ReadSettings, ScoreSettings
from batchscore.errors import InterruptedRunError, ModelError, UsageError
from batchscore.model.backends import BackendSpec, open_backend
from batchscore.model.bundle import open_bundle
from batchscore.model.long_texts import LongTexts
from batchscore.model.scoring import InferenceSettings, Model, score_part
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
    spec, inference = BackendSpec("torch", "cpu", "fp32"), InferenceSettings(512, "head")
    (found,) = ScoringActor(bundle, spec, inference).score([texts])
    model = Model(bundle, Tokenizer(bundle), spec.open(bundle), inference)
    from test_scoring import rows_of

    expected = score_part(rows_of(texts), model)
    assert found.probabilities.tobytes() == expected.probabilities.tobytes()
    assert found.status.tolist() == expected.status.tolist()
    other = dataclasses.replace(bundle, fingerprint="0" * 64)
    with pytest.raises(ModelError, match="not the same model"):
        ScoringActor(other, spec, inference).score([texts])


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


def test_an_actor_has_the_model_of_this_process_in_every_field_that_counts(tiny_bundle: Path) -> None:
    """Also in one that is added later: what may be left out has another value than it would get by default."""
    bundle = dataclasses.replace(open_bundle(str(tiny_bundle)), temperature=1.7, max_length=64)
    inference = another(InferenceSettings(512, "windows"))
    model = Model(bundle, Tokenizer(bundle), open_backend("fresh", bundle, "cpu", "fp32"), inference)
    model = dataclasses.replace(model, **others(model))
    travelled = pickle.loads(pickle.dumps(_recipe(model)))
    found = ScoringActor(*travelled)._model
    fields = [field.name for field in dataclasses.fields(Model) if field.compare]
    assert {"bundle", "tokenizer", "backend", "inference"} <= {*fields}
    for name in fields:
        assert told(getattr(found, name)) == told(getattr(model, name)), name


def test_without_ray_the_error_names_the_extra(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'batchscore\[ray\]'"):
        run_score(tmp_path / "in.csv", tiny_bundle, tmp_path / "run", engine="ray")
    with pytest.raises(UsageError, match="there are: local, ray"):
        engines.refuse_unusable("dask")
