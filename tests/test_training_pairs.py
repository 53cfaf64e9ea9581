"""Training on two texts a row: the bundle knows it, its canaries are pairs, and the scorer answers as it was trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import run_score
from test_pairs import FP32, LONGEST, alone, make, texts_of
from test_training import Silent

from batchscore.config import ReadSettings
from batchscore.errors import UsageError
from batchscore.evaluation import apply_temperature
from batchscore.model import probing
from batchscore.model.bundle import Canaries, open_bundle
from batchscore.runs.inspection import bundle_lines, inspect
from batchscore.training import train
from batchscore.training.data import load_data
from batchscore.training.settings import TrainSettings

ROWS = 48


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> TrainSettings:
    """A base with token types, and pairs of which some are too long and some lack a text."""
    folder = tmp_path_factory.mktemp("training")
    sizes = [3, 9, 14, 30]
    frame = pd.DataFrame(
        {
            "body": texts_of(*[sizes[k % 4] for k in range(ROWS)], seed=3),
            "title": texts_of(*[sizes[-1 - k % 3] for k in range(ROWS)], seed=4),
            "label": ["same" if k % 2 else "other" for k in range(ROWS)],
        }
    )
    frame.loc[:3, "title"] = [None, " ", "liked", "liked"]
    frame.loc[2:3, "body"] = ["more", "more"]
    frame.to_parquet(folder / "data.parquet")
    return TrainSettings(
        str(folder / "data.parquet"),
        folder / "out",
        base_model=str(make(folder / "base", "bert", ("a", "b"))),
        text_pair_column="title",
        epochs=1,
        precision="fp32",
        max_length=LONGEST,
    )


@pytest.mark.parametrize(("recipe", "missing"), [("full", "empty"), ("head", "skip")])
def test_a_bundle_trained_on_pairs_scores_pairs_as_transformers_does(
    recipe: str, missing: str, asked: TrainSettings, tmp_path: Path
) -> None:
    asked = dataclasses.replace(asked, recipe=recipe, missing_pair=missing, output=tmp_path / "bundle")
    train(asked, Silent)
    bundle = open_bundle(str(asked.output))
    assert (bundle.takes_pairs, bundle.missing_pair) == (True, missing)
    left_out = bundle.facts["training"]["data"]["train"]["left_out"]
    assert left_out == ({} if missing == "empty" else {"empty_text": 1, "null_text": 1})
    assert bundle.canaries is not None
    pairs = [(text[0], text[1]) for text in bundle.canaries.texts]
    expected = apply_temperature(np.log(alone(bundle.path, pairs)), bundle.temperature)
    np.testing.assert_allclose(bundle.canaries.probabilities, expected, rtol=0, atol=1e-6)
    run_score(
        Path(asked.data),
        asked.output,
        tmp_path / "out",
        read=ReadSettings(text_pair_column="title"),
        compute=FP32,
    )
    frame = pd.read_parquet(tmp_path / "out" / "predictions" / "data.parquet")
    first = "ok" if missing == "empty" else "null_text"
    assert frame.status.tolist()[:3] == [first, first.replace("null", "empty"), "ok"]
    scored = frame[frame.status == "ok"]
    logits = np.log(alone(bundle.path, list(zip(scored.body, scored.title.fillna(""), strict=True))))
    found = scored[[f"prob_{label}" for label in bundle.labels]].to_numpy()
    np.testing.assert_allclose(
        found, apply_temperature(logits, bundle.temperature), rtol=0, atol=probing.TOLERANCE
    )
    assert any("two texts a row" in line for line in bundle_lines(inspect(str(asked.output))))
    assert "text_pair" in (asked.output / "README.md").read_text()


def test_the_head_is_trained_on_states_that_know_the_types(asked: TrainSettings, tmp_path: Path) -> None:
    """Cached states of pairs are those of the model that is evaluated; without types they would be another's."""
    from batchscore.model.tokenization import Tokenizer
    from batchscore.records import Task
    from batchscore.training.base_model import load_classifier, open_base
    from batchscore.training.context import NoProgress, TrainingContext
    from batchscore.training.features import cls_states_of
    from batchscore.training.splits import Goal

    asked = dataclasses.replace(asked, recipe="head")
    base = open_base(asked)
    model = load_classifier(
        base, Goal(Task.SINGLE_LABEL, ("a", "b")), asked.resolved(ROWS, "first", 32), "cpu"
    )
    pairs = [(one, other) for one, other in zip(texts_of(3, 9), texts_of(5, 2, seed=1), strict=True)]
    found = Tokenizer(base).encode(pairs, "head")
    context = TrainingContext(tmp_path, "cpu", "fp32", NoProgress(), lambda _: None)
    states = cls_states_of(model, found.input_ids, "rows", context, "fp32", found.token_type_ids)
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.path)
    for pair, state in zip(pairs, states, strict=True):
        with torch.inference_mode():
            expected = model.base_model(**tokenizer(*pair, return_tensors="pt")).last_hidden_state[0, 0]
        np.testing.assert_allclose(state, expected.numpy(), atol=1e-5)


def test_a_pair_that_occurs_again_is_a_duplicate_and_another_title_is_not(asked: TrainSettings) -> None:
    data = load_data(asked)
    texts = [*data.train.texts, *data.evaluation.texts]
    assert texts.count(("more", "liked")) == 2
    trained = set(data.train.texts)
    assert not trained & set(data.evaluation.texts)
    assert json.loads(json.dumps(data.facts()))["train"]["rows"] == len(data.train)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"long_text": "windows"}, "--long-text windows is for one text a row"),
        ({"data": "builtin"}, "sample reviews have one text a row"),
        ({"text_pair_column": None, "missing_pair": "empty"}, "--missing-pair is for two texts a row"),
    ],
)
def test_what_cannot_be_trained_on_pairs_is_refused(
    options: dict[str, Any], message: str, asked: TrainSettings
) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(asked, **options)


def test_canaries_of_pairs_are_compared_by_value() -> None:
    one = Canaries((("a", "b"),), np.ones((1, 2), dtype=np.float32))
    assert one == Canaries((("a", "b"),), np.ones((1, 2), dtype=np.float32))
    assert one != Canaries((("a", "c"),), np.ones((1, 2), dtype=np.float32))
