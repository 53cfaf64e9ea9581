"""A process that scores many files keeps its model, and only as long as nothing that was asked for differs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flow import fake_bundle
from test_config import FIELDS, OTHER_VALUES

from batchscore.config import ComputeSettings, ScoreSettings
from batchscore.model import loading
from batchscore.model.bundle import Bundle, Canaries
from batchscore.model.heads import Activation, Head
from batchscore.model.loading import KeptModels, ModelSettings
from batchscore.model.model_files import ModelFiles
from batchscore.records import Task

COMPUTE = [path.partition(".")[2] for path in FIELDS if path.startswith("compute.")]
TEXTS = [field.name for field in dataclasses.fields(ModelSettings) if field.name != "compute"]
ASKED = ModelSettings(ComputeSettings(), "head")


@pytest.fixture(autouse=True)
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was loaded, in the place of real models."""
    found: list[Any] = []

    def load(*asked: Any) -> tuple[Any, dict[str, Any]]:
        found.append(asked)
        return len(found), {"backend": "fake"}

    monkeypatch.setattr(loading, "load_model", load)
    return found


def bundle_with(**changes: Any) -> Bundle:
    canaries = Canaries(("a film", "a book"), np.array([[0.25, 0.75], [0.5, 0.5]], np.float32))
    return dataclasses.replace(fake_bundle(), canaries=canaries, **changes)


def is_kept(bundle: Bundle, wanted: ModelSettings) -> bool:
    models = KeptModels()
    first, _ = models.load(bundle_with(), ASKED, {})
    second, _ = models.load(bundle, wanted, {})
    return first is second


def test_the_same_model_is_kept() -> None:
    assert is_kept(bundle_with(), ModelSettings(ComputeSettings(), "head"))


@pytest.mark.parametrize("name", COMPUTE)
def test_every_setting_of_computing_asks_for_another_model(name: str) -> None:
    compute = dataclasses.replace(ASKED.compute, **{name: OTHER_VALUES[f"compute.{name}"]})
    assert not is_kept(bundle_with(), dataclasses.replace(ASKED, compute=compute))


@pytest.mark.parametrize("name", sorted({*TEXTS} - {"thresholds"}))
def test_every_setting_of_texts_asks_for_another_model_and_reaches_it(name: str) -> None:
    settings = ScoreSettings(("a",), "model", Path("run"), **{name: OTHER_VALUES[name]})
    wanted = ModelSettings.of(settings, bundle_with())
    assert not is_kept(bundle_with(), dataclasses.replace(wanted, compute=ASKED.compute))
    assert getattr(wanted.inference(512), name) == OTHER_VALUES[name]


def test_other_thresholds_ask_for_another_model_and_reach_it() -> None:
    bundle = bundle_with(head=Head(Task.MULTI_LABEL, ("toxic", "rude"), Activation.SIGMOID))
    asked = ScoreSettings(("a",), "model", Path("run"), thresholds={"toxic": 0.3})
    wanted = ModelSettings.of(asked, bundle)
    assert wanted != ModelSettings.of(dataclasses.replace(asked, thresholds={}), bundle)
    assert wanted.inference(512).thresholds == (0.3, 0.5)


def test_where_a_run_does_not_say_how_long_texts_are_cut_the_bundle_does() -> None:
    settings = ScoreSettings(("a",), "model", Path("run"))
    assert ModelSettings.of(settings, bundle_with(long_text="windows")).inference(512).long_text == "windows"


OTHER_BUNDLES: dict[str, Any] = {
    "path": Path("elsewhere"),
    "head": Head(Task.SINGLE_LABEL, ("bad", "good"), Activation.SOFTMAX),
    "max_length": 64,
    "temperature": 2.0,
    "long_text": "windows",
    "canaries": Canaries(("a film", "a book"), np.array([[0.5, 0.5], [0.5, 0.5]], np.float32)),
    "facts": {"labels": ["bad", "good"]},
    "takes_pairs": True,
    "missing_pair": "empty",
    "fingerprint": "1" * 64,
    "files": ModelFiles({"config.json": "2" * 64}, {}),
    "warnings": ("no canaries",),
    "signed_by": "SHA256:x",
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Bundle)])
def test_a_bundle_that_differs_in_anything_asks_for_another_model(name: str) -> None:
    assert not is_kept(dataclasses.replace(bundle_with(), **{name: OTHER_BUNDLES[name]}), ASKED)
