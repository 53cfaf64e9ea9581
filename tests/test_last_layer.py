"""A temperature in the last layer: plain transformers gives the calibrated probabilities, or the folder stays as it was."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run_score
from numpy.typing import NDArray
from test_probing import Make, make, words
from test_training import Silent, rows
from transformers import AutoModelForSequenceClassification, pipeline

from batchscore.config import ComputeSettings
from batchscore.model import last_layer
from batchscore.model.backends import plain
from batchscore.model.backends.plain import Reference, load_plain
from batchscore.model.bundle import open_bundle
from batchscore.model.last_layer import rescale_logits
from batchscore.runs.inspection import inspect
from batchscore.system.storage import sha256_of
from batchscore.training import TrainSettings, train

__all__ = ["make", "words"]  # fixtures
TEXTS = ["a good film", "bad", "it was a long story and not a good one"]
KINDS = (
    "albert",
    "bart",
    "big_bird",
    "bloom",
    "deberta",
    "funnel",
    "gpt2",
    "modernbert",
    "roberta",
    "t5",
    "xlnet",
)


def logits_of(folder: Path) -> NDArray[np.float64]:
    bundle = open_bundle(str(folder))
    reference = Reference(bundle, load_plain(bundle, torch.float32).eval())
    return np.stack([np.float64(reference.answer(reference.inputs(text, 64)).logits) for text in TEXTS])


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_logits_of_plain_transformers_are_divided(kind: str, make: Make) -> None:
    folder = make(kind)
    before = logits_of(folder)
    assert rescale_logits(open_bundle(str(folder)), 1 / 1.7)
    np.testing.assert_allclose(logits_of(folder), before / 1.7, atol=1e-5, rtol=1e-5)


def test_weights_in_half_precision_lose_nothing(make: Make) -> None:
    folder = make("bert")
    loaded = AutoModelForSequenceClassification.from_pretrained(folder)
    loaded.half().save_pretrained(folder)
    before = logits_of(folder)
    assert rescale_logits(open_bundle(str(folder)), 1 / 3)
    np.testing.assert_allclose(logits_of(folder), before / 3, atol=1e-5, rtol=1e-5)


def test_values_get_their_own_unit(make: Make) -> None:
    folder = make("electra")
    before = logits_of(folder)
    assert rescale_logits(open_bundle(str(folder)), 2.5, 7.0)
    np.testing.assert_allclose(logits_of(folder), before * 2.5 + 7, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("why", ["no bias", "shared weights", "other weights"])
def test_a_folder_that_cannot_be_rescaled_stays_as_it_was(
    why: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make("gpt2" if why == "no bias" else "bert")
    if why == "shared weights":
        sharing = load_plain

        def shared(*options: object) -> object:
            model = sharing(*options)  # type: ignore[arg-type]
            model.other = model.classifier
            model.other_weight = model.classifier.weight
            return model

        monkeypatch.setattr(plain, "load_plain", shared)
    if why == "other weights":  # the layer found is not the one whose outputs are the logits
        monkeypatch.setattr(last_layer, "last_linear_layer", lambda *_: "bert.encoder.layer.1.output.dense")
    before = hashes(folder)
    assert not rescale_logits(open_bundle(str(folder)), 2.0, 1.0)
    assert hashes(folder) == before


@pytest.fixture(scope="module")
def settings(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> TrainSettings:
    """Enough evaluation rows for a temperature."""
    folder = tmp_path_factory.mktemp("trained")
    rows(60).to_parquet(folder / "data.parquet")
    rows(240).to_parquet(folder / "evaluation.parquet")
    return TrainSettings(
        str(folder / "data.parquet"),
        folder / "out",
        eval_data=str(folder / "evaluation.parquet"),
        base_model=str(make_model()),
        epochs=1,
        max_length=32,
        precision="fp32",
    )


def test_the_pipeline_of_a_trained_bundle_gives_the_calibrated_probabilities(
    settings: TrainSettings, tmp_path: Path
) -> None:
    result = train(settings, Silent)
    bundle = open_bundle(str(result.output))
    assert bundle.temperature == 1.0
    assert abs(bundle.calibration_temperature - 1) > 0.05
    plain: Any = pipeline("text-classification", str(result.output), top_k=None)
    found = plain(TEXTS, truncation=True, max_length=32)
    table = pd.DataFrame({"text": TEXTS, "label": [1, 0, 0]})
    table.to_parquet(tmp_path / "texts.parquet")
    run = run_score(
        tmp_path / "texts.parquet", result.output, tmp_path / "run", compute=ComputeSettings(precision="fp32")
    )
    scored = pd.read_parquet(run.output / "predictions" / "texts.parquet")
    for label in bundle.labels:
        theirs = [next(each["score"] for each in answer if each["label"] == label) for answer in found]
        np.testing.assert_allclose(scored[f"prob_{label}"], theirs, atol=1e-5)
    calibration = json.loads((run.output / "metrics.json").read_bytes())["calibration"]
    assert calibration["temperature"] == pytest.approx(bundle.calibration_temperature)
    assert calibration["before"]["ece"] != calibration["ece"]
    assert inspect(str(result.output))["temperature"] == bundle.calibration_temperature


def test_where_the_weights_cannot_have_it_the_scorer_divides(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("batchscore.training.saved_units.rescale_logits", lambda *_: False)
    result = train(dataclasses.replace(settings, force=True), Silent, told.append)
    bundle = open_bundle(str(result.output))
    assert bundle.temperature == bundle.calibration_temperature != 1
    assert any("does not go into the weights" in line for line in told)
    assert "does not apply it" in (result.output / "README.md").read_text()
