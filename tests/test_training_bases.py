"""Base models of many architectures: each trains to a bundle that answers as plain transformers, or is refused up front."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_probing import Make, make, words
from test_training import Silent, rows
from training_bases import TRAINS
from transformers import AutoTokenizer

from batchscore.config import ComputeSettings
from batchscore.errors import ModelError
from batchscore.evaluation import softmax
from batchscore.model.backends.plain import Reference, load_plain
from batchscore.model.bundle import open_bundle
from batchscore.model.loading import ModelSettings, load_model
from batchscore.model.scoring import compute, conclude, prepare
from batchscore.training import TrainSettings, train, trainer

__all__ = ["make", "words"]  # fixtures
REFORMER: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "attention_head_size": 16,
    "feed_forward_size": 64,
    "attn_layers": ["local", "lsh"],
    "axial_pos_shape": [8, 8],
    "axial_pos_embds_dim": [16, 16],
    "is_decoder": False,
    "max_position_embeddings": 64,
    "num_hashes": 1,
    "num_buckets": 2,
}
NO_PAD = ("gpt2", "llama", "qwen2")
"""Made without a padding token."""


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def settings(tmp_path: Path) -> TrainSettings:
    """A training of one epoch."""
    rows(24).to_parquet(tmp_path / "data.parquet")
    return TrainSettings(
        str(tmp_path / "data.parquet"),
        tmp_path / "out",
        epochs=1,
        batch_size=8,
        max_length=48,
        precision="fp32",
    )


def base(kind: str, make: Make) -> Path:
    """A folder whose head has other labels."""
    if kind == "reformer":
        return make(kind, **REFORMER)
    if kind in NO_PAD:
        return make(kind, tokenizer={"pad_token": None}, pad_token_id=None)
    return make(kind)


def no_data(*_: object) -> None:
    raise AssertionError("data are read")


@pytest.mark.parametrize("kind", [kind for kind, trains in TRAINS.items() if trains])
def test_a_base_trains_to_a_bundle_that_answers_as_plain_transformers(
    kind: str, make: Make, settings: TrainSettings, tmp_path: Path
) -> None:
    folder = base(kind, make)
    for recipe in ("head", "full"):
        output = tmp_path / recipe
        train(dataclasses.replace(settings, base_model=str(folder), recipe=recipe, output=output), Silent)
        bundle = open_bundle(str(output))
        model, _ = load_model(bundle, ModelSettings(ComputeSettings(precision="fp32"), "head"), {})
        texts = [text[:200] for text in rows(6).text]
        prepared = prepare(texts, model)
        ours = conclude(prepared, compute(prepared, model), model).probabilities
        plain = Reference(
            bundle, load_plain(bundle, torch.float32).eval()
        )  # BigBird changes with what it meets
        logits = np.stack([plain.answer(plain.inputs(text, 48)).logits for text in texts])
        np.testing.assert_allclose(ours, softmax(logits), atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind, trains in TRAINS.items() if not trains])
def test_a_base_that_cannot_be_trained_is_refused_before_data_are_read(
    kind: str, make: Make, settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "load_data", no_data)
    with pytest.raises(ModelError, match="cannot be trained"):
        train(dataclasses.replace(settings, base_model=str(base(kind, make))), Silent)


def test_a_base_without_a_tokenizer_is_refused_before_data_are_read(
    make_model: Callable[..., Path], settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    monkeypatch.setattr(trainer, "load_data", no_data)
    with pytest.raises(ModelError, match="tokenizer"):
        train(dataclasses.replace(settings, base_model=str(folder)), Silent)


def test_a_decoder_without_a_padding_token_gets_that_at_the_end_of_texts(
    make: Make, settings: TrainSettings
) -> None:
    result = train(dataclasses.replace(settings, base_model=str(base("gpt2", make)), recipe="head"), Silent)
    config = json.loads((result.output / "config.json").read_bytes())
    tokenizer: Any = AutoTokenizer.from_pretrained(result.output)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("</s>", config["pad_token_id"])


def test_a_classifier_with_other_labels_gets_a_new_head(
    make_model: Callable[..., Path], settings: TrainSettings
) -> None:
    from batchscore.records import Task
    from batchscore.training.base_model import load_classifier, open_base
    from batchscore.training.splits import Goal

    folder = make_model(["bad", "good"])
    opened = open_base(dataclasses.replace(settings, base_model=str(folder)))
    plan = settings.resolved(10, "first", 32)
    heads = {
        labels: load_classifier(opened, Goal(Task.SINGLE_LABEL, labels), plan, "cpu").classifier.weight
        for labels in (("bad", "good"), ("cold", "warm"))
    }
    saved = load_classifier(opened, Goal(Task.SINGLE_LABEL, ("bad", "good")), plan, "cpu").classifier.weight
    assert torch.equal(heads["bad", "good"], saved)
    assert not torch.equal(heads["cold", "warm"], saved)
