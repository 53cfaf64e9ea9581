"""Texts without labels: which are learned from, what is said of them, and which model is published."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from test_training import Silent, bases, rows, run, settings  # noqa: F401 - fixtures

from batchscore.errors import DataError, UsageError
from batchscore.formats.text_keys import text_key
from batchscore.model.bundle_facts import FACTS
from batchscore.records import Task
from batchscore.reports.self_training import self_training_line
from batchscore.runs.inspection import bundle_lines, inspect
from batchscore.training import attempts, self_training, tokenized_rows, train, trainer
from batchscore.training import unlabelled as unlabelled_texts
from batchscore.training.data import load_data
from batchscore.training.self_training import combined
from batchscore.training.tokenized_rows import TokenizedRows
from batchscore.training.unlabelled import Sample, load_unlabelled

if TYPE_CHECKING:
    from batchscore.training import TrainResult, TrainSettings
    from batchscore.training.attempts import Material

WEIGHTS = "model.safetensors"


@pytest.fixture
def unlabelled(settings: TrainSettings, tmp_path: Path) -> TrainSettings:  # noqa: F811
    """The settings with 150 texts of which 120 are of use: others are labelled, empty, or come twice."""
    labelled = rows().text.tolist()[:10]
    fresh = [f"{word} story {k} " + "so " * (k % 9) for k in range(60) for word in ("awful", "great")]
    texts = [*labelled, *fresh, *fresh[:10], *["", None, "  "], *[None] * 7]
    pd.DataFrame({"text": texts, "label": "no label"}).to_parquet(tmp_path / "more.parquet")
    return dataclasses.replace(settings, unlabelled=str(tmp_path / "more.parquet"), epochs=2)


def facts_of(result: TrainResult) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((result.output / FACTS).read_text())["training"]["self_training"]
    return found


def test_texts_are_used_once_and_never_those_of_labelled_rows(unlabelled: TrainSettings) -> None:
    data = load_data(unlabelled)
    found = load_unlabelled(unlabelled, data)
    assert found is not None
    counts = {key: value for key, value in found.facts.items() if key != "sha256"}
    assert counts == {"given": 150, "empty": 10, "labelled": 10, "again": 10}
    assert len(found.texts) == len(set(found.texts)) == 120
    assert not set(found.texts) & {*data.train.texts, *data.evaluation.texts}
    other = load_unlabelled(dataclasses.replace(unlabelled, seed=7), data)
    assert other is not None
    assert sorted(map(str, other.texts)) == sorted(map(str, found.texts))
    assert other.texts != found.texts


def test_of_many_texts_a_random_sample_is_kept_whatever_their_order() -> None:
    words = [f"text {number}" for number in range(2000)]

    def sampled(given: list[str], most: int | None, seed: int = 3) -> tuple[list[Any], int]:
        sample = Sample(most, seed)
        for text in given:
            sample.offer(text_key(text), text)
        return sample.texts(), sample.again()

    few, again = sampled(words, 100)
    every, _ = sampled(words, None)
    assert (len(set(few)), again) == (100, 0)
    assert few == every[:100]
    assert sorted(every) == sorted(words)
    assert sampled([*reversed(words), *words[:50]], 100) == (few, 50)
    assert len(set(few) & set(sampled(words, 100, seed=4)[0])) < 30
    places = np.array([words.index(text) for text in few])
    assert 700 < places.mean() < 1300, "of all parts of the data"


def test_more_texts_than_can_be_learned_from_are_counted_and_not_kept(
    unlabelled: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_data(unlabelled)
    monkeypatch.setattr(unlabelled_texts, "MOST_TEXTS", 30)
    few, every = (
        load_unlabelled(each, data) for each in (unlabelled, dataclasses.replace(unlabelled, minutes=1))
    )
    assert few is not None
    assert every is not None
    assert (len(few.texts), few.texts) == (30, every.texts[:30])
    assert few.facts["again"] == every.facts["again"] == 10
    assert len(every.texts) == 120


def test_all_files_of_texts_are_read(unlabelled: TrainSettings, tmp_path: Path) -> None:
    """Also those that are of no split."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("train", "test", "unsupervised"):
        pd.DataFrame({"text": [f"one of {name}"]}).to_parquet(folder / f"{name}.parquet")
    found = load_unlabelled(dataclasses.replace(unlabelled, unlabelled=str(folder)), load_data(unlabelled))
    assert found is not None
    assert sorted(map(str, found.texts)) == ["one of test", "one of train", "one of unsupervised"]


def test_all_splits_of_a_hub_data_set_are_read(
    unlabelled: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ``imdb`` the one without labels has the most."""
    import datasets

    names = ("train", "test", "unsupervised")
    splits = {
        name: datasets.Dataset.from_dict({"text": [f"{k} of {name}" for k in range(5)], "label": [-1] * 5})
        for name in names
    }
    monkeypatch.setattr("batchscore.training.data._HUB_ROWS", 2)
    data = load_data(unlabelled)
    monkeypatch.setattr(datasets, "load_dataset", lambda name: {"imdb": datasets.DatasetDict(splits)}[name])
    found = load_unlabelled(dataclasses.replace(unlabelled, unlabelled="imdb"), data)
    assert found is not None
    assert sorted(map(str, found.texts)) == sorted(f"{k} of {name}" for k in range(5) for name in names)
    assert load_unlabelled(dataclasses.replace(unlabelled, unlabelled="builtin"), data) is not None


def test_data_without_a_text_of_use_are_refused(unlabelled: TrainSettings) -> None:
    with pytest.raises(DataError, match="--unlabelled"):
        run(unlabelled, unlabelled=unlabelled.data)
    assert not unlabelled.output.exists()


def test_minutes_alone_are_wrong_usage(settings: TrainSettings) -> None:  # noqa: F811
    with pytest.raises(UsageError, match="--unlabelled"):
        dataclasses.replace(settings, minutes=3)


def test_what_is_published_is_said_in_card_log_and_inspect(unlabelled: TrainSettings) -> None:
    told: list[str] = []
    result = train(unlabelled, Silent, told.append)
    facts = facts_of(result)
    assert facts["learned"] == 120
    line = self_training_line(Task.SINGLE_LABEL, facts)
    assert line in told
    assert line in bundle_lines(inspect(str(result.output)))
    assert line in (result.output / "README.md").read_text()
    assert not [*result.output.parent.glob(".*unlabelled*"), *result.output.glob("unlabelled")]


@pytest.mark.parametrize("is_better", [True, False])
def test_the_better_model_is_published(
    unlabelled: TrainSettings, is_better: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(unlabelled, unlabelled=None, output=unlabelled.output.parent / "plain")
    losses = iter((1.0, 0.5) if is_better else (0.5, 1.0))
    monkeypatch.setattr(self_training, "row_losses", lambda *_: np.full(9, next(losses)))
    result = run(unlabelled)
    assert facts_of(result)["is_better"] is is_better
    same = (result.output / WEIGHTS).read_bytes() == (plain.output / WEIGHTS).read_bytes()
    assert same is not is_better


def test_layers_are_left_out_once_and_the_mean_layer_stays(
    unlabelled: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_training, "_compared", lambda *_: {**compared(), "is_better": True})
    result = run(unlabelled, student_layers=1, pooling="mean")
    assert json.loads((result.output / "config.json").read_text())["num_hidden_layers"] == 2


@pytest.mark.parametrize("trainings", [1, 2])
def test_a_killed_one_goes_on_to_the_same_bytes(
    unlabelled: TrainSettings, trainings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_training, "_compared", lambda *_: {**compared(), "is_better": True})
    whole = run(unlabelled, output=unlabelled.output.parent / "whole", minutes=5)
    done, fit_rows = [0], tokenized_rows.fit_rows

    def killed(*arguments: Any) -> Any:
        if done[0] == trainings:
            raise KeyboardInterrupt
        done[0] += 1
        return fit_rows(*arguments)

    wanted = dataclasses.replace(unlabelled, minutes=5)
    monkeypatch.setattr(attempts, "fit_rows", killed)
    with pytest.raises(KeyboardInterrupt):
        train(wanted, Silent)
    monkeypatch.setattr(attempts, "fit_rows", fit_rows)
    result = train(dataclasses.replace(wanted, resume=True), Silent)
    assert (result.output / WEIGHTS).read_bytes() == (whole.output / WEIGHTS).read_bytes()


def compared() -> dict[str, Any]:
    change = {"value": 0.1, "low": 0.05, "high": 0.15}
    measures = {"accuracy_before": 0.5, "accuracy_after": 0.6, "accuracy_change": change}
    return {"is_held_out": True, "evaluated": 8, **measures}


def test_fewer_texts_are_learned_from_in_less_time(
    unlabelled: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_training, "LEAST_TEXTS", 30)
    assert facts_of(run(unlabelled, minutes=1e-6))["learned"] == 30


def test_the_time_of_a_text_is_what_its_passes_take(
    unlabelled: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without what the evaluation takes and the labelled rows that are learned again, whose windows count."""
    found: list[tuple[Material, Any, Any]] = []

    def stopped(material: Material, _: Any, splits: Any, *__: Any) -> Any:
        found.append((material, splits, self_training._Work.of(material, splits)))
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "self_trained", stopped)
    for recipe in ("full", "head"):
        with pytest.raises(KeyboardInterrupt):
            run(unlabelled, minutes=5, max_length=8, long_text="windows", recipe=recipe)
    (material, (train, watched), full), (_, _, head) = found
    assert train.further
    first = sum(map(len, train.input_ids))
    windows = first + sum(len(ids) for each in train.further.values() for ids in each)
    seen = sum(map(len, watched.input_ids))
    measured = seen / len(watched.labels) * len(material.data.evaluation)
    assert full == (2 * (3 * windows + seen) + measured, 3 * 4 * first + 3 * seen + measured, 3)
    assert head == (first + seen + measured, 4 * first + 3 * seen + measured, 1)


@pytest.mark.parametrize("recipe", ["full", "head"])
@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_other_tasks_learn_from_texts_too(
    unlabelled: TrainSettings, task: str, recipe: str, tmp_path: Path
) -> None:
    given = rows()
    tags = [["bad"] if k % 2 == 0 else ["good", "loud"] for k in range(len(given))]
    given["label"] = tags if task == "multi-label" else [float(k % 2 * 4 + 1) for k in range(len(given))]
    given.to_parquet(tmp_path / "task.parquet")
    result = run(unlabelled, data=str(tmp_path / "task.parquet"), task=task, recipe=recipe)
    line = self_training_line(Task(task.replace("-", "_")), facts_of(result))
    assert "120 texts without labels" in line
    assert "of the model trained without them" in line


def test_texts_that_cannot_be_tokenised_or_scored_are_left_out_and_no_other_is_shifted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of four texts the second has no tokens, and the third no answer."""
    said = np.array([[0.9, 0.1], [np.nan, np.nan], [np.nan, np.nan], [0.3, 0.7]], np.float32)
    encoded = SimpleNamespace(
        input_ids=[np.array([k], np.int32) for k in (10, 12, 13)],
        token_type_ids=None,
        row=np.array([0, 2, 3]),
    )
    monkeypatch.setattr(self_training, "_answers", lambda *_: said)
    monkeypatch.setattr(self_training, "linear_answers", lambda *_: None)
    monkeypatch.setattr(self_training, "Tokenizer", lambda _: SimpleNamespace(encode=lambda *_: encoded))
    monkeypatch.setattr(dataclasses, "replace", lambda base, **_: base)
    goal = SimpleNamespace(task=Task.SINGLE_LABEL)
    material: Any = SimpleNamespace(
        data=SimpleNamespace(goal=goal, labels=("a", "b")),
        base=SimpleNamespace(max_length=8, takes_pairs=False),
    )
    given = TokenizedRows("train", [np.array([99], np.int32)], [1])
    nothing: Any = None
    rows = self_training._rows(material, given, nothing, ["p", "q", "r", "s"], 0, nothing)
    assert [ids.tolist() for ids in rows.input_ids] == [[10], [13], [99], [99]]
    assert rows.labels == [0, 1, 1, 1]
    assert rows.soft is not None
    wanted = np.array([[0.9, 0.1], [0.3, 0.7], [0.0, 1.0], [0.0, 1.0]])
    np.testing.assert_allclose(rows.soft, wanted, rtol=1e-6)


def test_two_texts_are_a_round_each(unlabelled: TrainSettings, tmp_path: Path) -> None:
    pd.DataFrame({"text": ["a great one", "an awful one"]}).to_parquet(tmp_path / "more.parquet")
    assert facts_of(run(unlabelled))["learned"] == 2


def test_two_models_say_together_the_product_of_what_each_says() -> None:
    model, linear = (
        np.array([[0.9, 0.1], [0.5, 0.5]], np.float32),
        np.array([[0.2, 0.8], [0.3, 0.7]], np.float32),
    )
    product = model**0.5 * linear
    wanted = product / product.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(combined(Task.SINGLE_LABEL, model, linear, (0.5, 1.0)), wanted, atol=1e-6)
    absent = (1 - model) ** 0.5 * (1 - linear)
    np.testing.assert_allclose(
        combined(Task.MULTI_LABEL, model, linear, (0.5, 1.0)), product / (product + absent), atol=1e-6
    )
    numbers = combined(
        Task.REGRESSION, np.array([[2.0]], np.float32), np.array([[4.0]], np.float32), (0.5, 1.0)
    )
    np.testing.assert_allclose(numbers, [[3.0]])
    sure = np.array([[1.0, 0.0]], np.float32)
    assert np.isfinite(combined(Task.SINGLE_LABEL, sure, sure[:, ::-1], (0.5, 1.0))).all()
