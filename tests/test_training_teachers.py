"""Models that teach, on encoders so small that a training takes a second: whose answers are learned, and what is said of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from task_models import logits_of, one_number, several_labels
from task_models import make_model as save_model
from test_training import Silent, one_thread, opened, predicted, rows  # noqa: F401 - a fixture
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    pipeline,
)

from batchscore.cli.train import command
from batchscore.config import fingerprint
from batchscore.errors import DataError, ModelError, OutputError, UsageError
from batchscore.evaluation import softmax
from batchscore.model.bundle import open_bundle
from batchscore.model.bundle_facts import FACTS
from batchscore.model.canaries import CanaryCheck
from batchscore.model.scoring import Model
from batchscore.records import Task
from batchscore.reports.teaching import teaching_lines
from batchscore.runs.inspection import bundle_lines, inspect
from batchscore.system.storage import sha256_of
from batchscore.training import (
    TrainResult,
    TrainSettings,
    examination,
    fitting,
    student,
    teachers,
    tokenized_rows,
    train,
    trainer,
)
from batchscore.training.data import load_data
from batchscore.training.fewer_layers import spread_layers, with_fewer_layers
from batchscore.training.objectives import at_temperature, objective_of, softened
from batchscore.training.splits import Goal

WORDS = ("awful", "fair", "great")


class SeenError(Exception):
    """What was to be seen is seen."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Teachers with random weights, and a base."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "base": save_model(folder / "base", ("one", "two", "three"), seed=9),
        "first": save_model(folder / "first", ("POSITIVE", "NEGATIVE"), seed=1),
        "second": save_model(folder / "second", ("negative", "positive"), seed=2),
        "other": save_model(folder / "other", ("spam", "ham"), seed=3),
        "generic": save_model(folder / "generic", ("LABEL_0", "LABEL_1"), seed=3),
        "several": several_labels(folder / "several", ("great", "awful", "fair"), seed=4),
        "number": one_number(folder / "number", seed=5),
    }


@pytest.fixture
def settings(tmp_path: Path, folders: dict[str, Path]) -> TrainSettings:
    """A student of one teacher, on forty labelled rows and twenty texts without labels."""
    rows(40).to_parquet(tmp_path / "data.parquet")
    rows(60).iloc[40:][["text"]].to_parquet(tmp_path / "more.parquet")
    rows(40)[["text"]].to_parquet(tmp_path / "bare.parquet")
    return TrainSettings(
        str(tmp_path / "data.parquet"),
        tmp_path / "out",
        base_model=str(folders["base"]),
        epochs=1,
        max_length=32,
        precision="fp32",
        teachers=(str(folders["first"]),),
        unlabelled=str(tmp_path / "more.parquet"),
    )


def run(settings: TrainSettings, tell: Callable[[str], None] = lambda _: None, **changes: Any) -> TrainResult:
    return train(dataclasses.replace(settings, **changes), Silent, tell)


def facts_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / FACTS).read_text())
    return found


def learned(
    monkeypatch: pytest.MonkeyPatch, settings: TrainSettings, **changes: Any
) -> tuple[list[list[int]], np.ndarray]:
    """Token ids and targets of the rows that would be learned."""
    seen: list[tuple[list[list[int]], np.ndarray]] = []

    def dataset_of(input_ids: Any, targets: Any, _: Any) -> None:
        seen.append(([list(map(int, ids)) for ids in input_ids], targets))
        raise SeenError

    monkeypatch.setattr(tokenized_rows, "dataset_of", dataset_of)
    with pytest.raises(SeenError):
        run(settings, **changes)
    return seen[0]


def by_tokens(base: Path, texts: Sequence[str]) -> dict[tuple[int, ...], int]:
    """Which text has these token ids."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    return {
        tuple(tokenizer(text, truncation=True, max_length=32)["input_ids"]): k for k, text in enumerate(texts)
    }


def soft(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """The definition: logits divided by the temperature."""
    return softmax(np.log(probabilities) / temperature)


# What is learned ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("first",), ("first", "second")])
@pytest.mark.parametrize("temperature", [None, 1.0])
def test_the_target_is_half_the_label_and_half_the_mean_of_the_teachers_by_their_names(
    settings: TrainSettings,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, ...],
    temperature: float | None,
) -> None:
    table = rows(60)
    texts = list(table["text"])
    each = {
        "first": softmax(logits_of(folders["first"], texts))[:, ::-1],
        "second": softmax(logits_of(folders["second"], texts)),
    }
    mean = np.mean([each[name] for name in names], axis=0)  # negative, positive
    ids, targets = learned(
        monkeypatch, settings, teachers=tuple(str(folders[n]) for n in names), teacher_temperature=temperature
    )
    found = by_tokens(folders["base"], texts)
    places = [found[tuple(each)] for each in ids]
    assert len(places) == 32 + 20  # four fifths of the labelled rows, and all others
    assert set(range(40, 60)) <= set(places)
    given = np.eye(2)[table["label"]]
    for place, target in zip(places, targets, strict=True):
        wanted = mean[place] if place >= 40 else (mean[place] + given[place]) / 2
        np.testing.assert_allclose(target, soft(wanted[None], temperature or 2.0)[0], atol=2e-5)


def test_several_labels_are_softened_each_by_itself(
    tmp_path: Path, settings: TrainSettings, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = rows(60)
    table["tags"] = [[WORDS[k % 3], WORDS[(k + 1) % 3]] if k % 2 else [] for k in range(60)]
    table.iloc[:40][["text", "tags"]].to_parquet(tmp_path / "data.parquet")
    texts = list(table["text"])
    order = [1, 2, 0]  # awful, fair, great
    mean = 1 / (1 + np.exp(-logits_of(folders["several"], texts)))[:, order]
    options = {"teachers": (str(folders["several"]),), "label_column": "tags"}
    ids, targets = learned(monkeypatch, settings, **options)
    found = by_tokens(folders["base"], texts)
    for place, target in zip([found[tuple(each)] for each in ids], targets, strict=True):
        given = np.array([float(word in table["tags"][place]) for word in WORDS])
        wanted = mean[place] if place >= 40 else (mean[place] + given) / 2
        np.testing.assert_allclose(target, 1 / (1 + ((1 - wanted) / wanted) ** 0.5), atol=2e-5)


def test_numbers_are_learned_as_the_mean_of_both(
    tmp_path: Path, settings: TrainSettings, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = rows(60).assign(stars=np.arange(60) / 10.0)
    table.iloc[:40][["text", "stars"]].to_parquet(tmp_path / "data.parquet")
    texts = list(table["text"])
    options = {"teachers": (str(folders["number"]),), "label_column": "stars", "task": "regression"}
    ids, targets = learned(monkeypatch, settings, **options)
    found = by_tokens(folders["base"], texts)
    places = [found[tuple(each)] for each in ids]
    said = logits_of(folders["number"], texts)[:, 0]
    wanted = np.array([said[k] if k >= 40 else (said[k] + table["stars"][k]) / 2 for k in places])
    np.testing.assert_allclose(targets, (wanted - wanted.mean()) / wanted.std(), atol=1e-4)


def test_texts_of_the_data_and_empty_ones_are_not_learned_again(
    tmp_path: Path, settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*rows(40)["text"], "A new  one", "a NEW one", None, " ", "another"]
    pd.DataFrame({"text": texts}).to_parquet(tmp_path / "more.parquet")
    ids, _ = learned(monkeypatch, settings)
    assert len(ids) == 32 + 2
    counts = facts_of(run_whole(settings, monkeypatch))["training"]["teaching"]["unlabelled"]
    assert counts.pop("sha256")
    assert counts == {"given": 45, "empty": 2, "labelled": 40, "again": 1, "learned": 2}


def run_whole(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.undo()
    return run(settings).output


def test_at_any_temperature_the_same_probabilities_are_the_best_answer() -> None:
    wanted = np.array([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]])
    for temperature in (1.0, 2.0, 5.0):
        objective = at_temperature(
            objective_of(Task.SINGLE_LABEL, [0, 1, 2], 3, "none", has_bias=True), temperature
        )
        logits = torch.tensor(np.log(wanted), requires_grad=True)
        targets = torch.tensor(softened(Task.SINGLE_LABEL, wanted, temperature)).double()
        objective.loss(logits, targets, is_weighted=True).backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        assert logits.grad.abs().max() < 1e-6
    hard = torch.tensor([0, 2])
    inner = objective_of(Task.SINGLE_LABEL, [0, 1, 2], 3, "none", has_bias=True)
    assert objective.loss(logits, hard, is_weighted=False) == inner.loss(logits, hard, is_weighted=False)


# Refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"teachers": ("other",)}, UsageError, ("spam, ham", "NEGATIVE, POSITIVE", "other")),
        ({"teachers": ("generic",)}, UsageError, ("LABEL_0", "NEGATIVE", "--rename-label")),
        ({"teachers": ("first", "other")}, UsageError, ("spam, ham", "POSITIVE, NEGATIVE", "first")),
        ({"teachers": ("number",)}, UsageError, ("regression", "--data is single-label")),
        (
            {"teachers": ("several",), "task": "single-label"},
            UsageError,
            ("multi-label", "--task is single-label"),
        ),
        ({"teachers": ("nowhere",)}, ModelError, ("nowhere", "--teacher")),
        (
            {"teachers": (), "unlabelled": None, "teacher_temperature": 2.0},
            UsageError,
            ("--teacher-temperature",),
        ),
        ({"class_weights": "balanced"}, UsageError, ("--class-weights",)),
        ({"learning_curve": True}, UsageError, ("--learning-curve",)),
        ({"hard_labels": True}, UsageError, ("--hard-labels",)),
        ({"student_layers": 3}, UsageError, ("--student-layers 3", "has 2")),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_computed(
    settings: TrainSettings,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    error: type[Exception],
    words: Sequence[str],
) -> None:
    def load(*_: Any) -> None:
        raise AssertionError("a teacher is loaded")

    monkeypatch.setattr(teachers, "load_model", load)
    if "teachers" in changes:
        changes = {**changes, "teachers": tuple(str(folders.get(name, name)) for name in changes["teachers"])}
    with pytest.raises(error) as refused:
        run(settings, **changes)
    assert all(word in str(refused.value) for word in words)
    assert not list(settings.output.parent.glob(".*training"))


def test_a_teacher_of_two_texts_is_refused_for_one(
    tmp_path: Path, settings: TrainSettings, folders: dict[str, Path]
) -> None:
    table = rows(40).assign(title="a title")
    table.to_parquet(tmp_path / "pairs.parquet")
    options: dict[str, Any] = {"teachers": (), "unlabelled": None, "text_pair_column": "title"}
    pairs = run(settings, data=str(tmp_path / "pairs.parquet"), output=tmp_path / "pairs", **options)
    with pytest.raises(UsageError, match="two texts a row"):
        run(settings, teachers=(str(pairs.output),))
    both: dict[str, Any] = {"teachers": (str(pairs.output),), "unlabelled": None, "text_pair_column": "title"}
    taught = run(settings, data=str(tmp_path / "pairs.parquet"), **both)
    assert facts_of(taught.output)["takes_pairs"]


def test_data_without_labels_still_need_a_teacher_and_options_about_labels_are_refused(
    tmp_path: Path, settings: TrainSettings
) -> None:
    bare = str(tmp_path / "bare.parquet")
    with pytest.raises(DataError, match="no label column"):
        run(settings, data=bare, teachers=(), unlabelled=None)
    with pytest.raises(UsageError, match="--check-labels is about given labels"):
        run(settings, data=bare, check_labels=True)
    with pytest.raises(UsageError, match="--label-name"):
        run(settings, data=bare, label_names={"0": "NEGATIVE"})


# No labels ----------------------------------------------------------------------------------------------------------


def test_without_labels_agreement_is_measured_and_accuracy_is_not(
    tmp_path: Path, settings: TrainSettings
) -> None:
    told: list[str] = []
    result = run(settings, told.append, data=str(tmp_path / "bare.parquet"))
    facts, card = facts_of(result.output), (result.output / "README.md").read_text()
    assert facts["labels"] == ["POSITIVE", "NEGATIVE"]  # as the teacher has them
    assert set(result.metrics) == {"rows", "agreement"}
    assert facts["training"]["teaching"]["comparison"] is None
    assert "held_out_answers" not in facts
    assert facts["calibration_temperature"] == 1
    assert "**Accuracy was not measured**" in card
    assert "type: accuracy" not in card
    assert "type: agreement" in card
    assert "accuracy was not measured: the evaluation rows have no labels" in "\n".join(told)
    assert "on 32 rows of the data, which has no labels and 20 other texts" in card
    shown = bundle_lines(inspect(str(result.output)))
    assert all(
        line in shown and line in told
        for line in teaching_lines(Task.SINGLE_LABEL, facts["training"]["teaching"])
    )
    texts = list(rows(40)["text"])
    said = [
        answer["label"]
        for answer in pipeline("text-classification", model=str(result.output))(texts, truncation=True)
    ]
    assert said == predicted(opened(result.output), texts)


def test_agreement_is_with_what_the_teacher_predicts(
    tmp_path: Path, settings: TrainSettings, folders: dict[str, Path]
) -> None:
    names: dict[str, Any] = {
        "data": str(tmp_path / "bare.parquet"),
        "eval_data": str(tmp_path / "more.parquet"),
        "unlabelled": None,
    }
    result = run(settings, **names)
    texts = list(rows(60)["text"][40:])
    taught = logits_of(folders["first"], texts).argmax(axis=1)
    student_says = logits_of(result.output, texts, 32).argmax(axis=1)
    assert result.metrics["agreement"]["value"] == pytest.approx((taught == student_says).mean())
    assert result.metrics["rows"] == 20


def test_labelled_evaluation_rows_measure_accuracy_though_the_data_have_no_labels(
    tmp_path: Path, settings: TrainSettings
) -> None:
    rows(60).iloc[40:].to_parquet(tmp_path / "eval.parquet")
    result = run(
        settings,
        data=str(tmp_path / "bare.parquet"),
        eval_data=str(tmp_path / "eval.parquet"),
        unlabelled=None,
    )
    facts, texts = facts_of(result.output), list(rows(60)["text"][40:])
    assert facts["training"]["data"]["labels_of_teacher"] == ["train"]
    said = logits_of(result.output, texts, 32).argmax(axis=1)
    right = np.array([facts["labels"][k] for k in said]) == np.where(
        rows(60)["label"][40:], "POSITIVE", "NEGATIVE"
    )
    assert result.metrics["accuracy"]["value"] == pytest.approx(right.mean())
    compared = facts["training"]["teaching"]["comparison"]
    assert compared["evaluated"] == 20
    assert "Accuracy was not measured" not in (result.output / "README.md").read_text()
    strange = rows(60).iloc[40:].assign(label=lambda t: np.where(t.label, "ham", "spam"))
    strange.to_parquet(tmp_path / "eval.parquet")
    with pytest.raises(DataError, match="ham, spam, and the teacher has POSITIVE, NEGATIVE"):
        run(
            settings,
            data=str(tmp_path / "bare.parquet"),
            eval_data=str(tmp_path / "eval.parquet"),
            force=True,
        )


def test_a_hub_data_set_without_labels_gets_the_teachers(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    bare = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": list(rows(40)["text"])})})
    monkeypatch.setattr(datasets, "load_dataset", lambda _: bare)
    data = load_data(dataclasses.replace(settings, data="reviews"), Goal(Task.SINGLE_LABEL, ("no", "yes")))
    assert data.untold == ("train", "evaluation")
    assert (data.labels, len(data.train), len(data.evaluation)) == (("no", "yes"), 32, 8)
    assert data.source == "a fifth of reviews"  # by no label


@pytest.mark.parametrize("kind", ["several", "number"])
def test_other_tasks_need_no_labels_either(
    tmp_path: Path, settings: TrainSettings, folders: dict[str, Path], kind: str
) -> None:
    result = run(settings, data=str(tmp_path / "bare.parquet"), teachers=(str(folders[kind]),))
    facts = facts_of(result.output)
    assert set(result.metrics) == {"rows", "difference" if kind == "number" else "agreement"}
    assert facts["labels"] == (["value"] if kind == "number" else ["great", "awful", "fair"])
    assert "from the teacher" in (result.output / "README.md").read_text() or kind == "several"


# What is said -------------------------------------------------------------------------------------------------------


def test_the_card_says_who_is_right_more_often_and_how_much_faster_the_student_is(
    settings: TrainSettings, folders: dict[str, Path]
) -> None:
    result = run(settings)
    facts, card = facts_of(result.output), (result.output / "README.md").read_text()
    taught = facts["training"]["teaching"]
    texts = list(facts["canaries"]["texts"])  # all eight evaluation rows
    given = dict(zip(rows(40)["text"], rows(40)["label"], strict=True))
    right = [1 - logits_of(folders["first"], [text]).argmax() == given[text] for text in texts]
    assert len(texts) == taught["comparison"]["evaluated"] == taught["speed"]["rows"] == 8
    assert taught["comparison"]["accuracy_before"]["value"] == pytest.approx(np.mean(right))
    assert taught["comparison"]["accuracy_after"]["value"] == result.metrics["accuracy"]["value"]
    assert taught["teachers"][0]["fingerprint"] == open_bundle(str(folders["first"])).fingerprint
    speed = taught["speed"]
    assert speed["times"] == pytest.approx(speed["teacher_seconds"] / speed["student_seconds"])
    assert all(f"- {line}\n" in card for line in teaching_lines(Task.SINGLE_LABEL, taught))
    assert "times as fast as the teacher" in card


def test_the_student_is_timed_in_the_precision_that_a_run_would_take(
    settings: TrainSettings, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[None] = []
    timed: dict[str, str] = {}
    seconds = student._seconds

    def differs_at_first(*_: Any) -> CanaryCheck:
        checks.append(None)
        return CanaryCheck(int(len(checks) == 1), 0.0)

    def noted(models: list[Model], *rest: Any) -> float:
        timed.update({str(model.bundle.path): model.backend.precision for model in models})
        return seconds(models, *rest)

    monkeypatch.setattr(examination, "canary_check", differs_at_first)
    monkeypatch.setattr(student, "_seconds", noted)
    monkeypatch.setattr(trainer, "faster_precisions", lambda _: ["bf16"])
    run(settings, precision="auto")
    assert len(checks) == 2
    assert [precision for path, precision in timed.items() if path != str(folders["first"])] == ["fp32"]


def test_the_command_takes_teachers(
    tmp_path: Path, settings: TrainSettings, folders: dict[str, Path]
) -> None:
    options = [
        "--base-model",
        settings.base_name,
        "--epochs",
        "1",
        "--max-length",
        "32",
        "--precision",
        "fp32",
    ]
    both = [
        "--teacher",
        str(folders["first"]),
        "--teacher",
        str(folders["second"]),
        "--teacher-temperature",
        "3",
    ]
    others = ["--unlabelled", str(settings.unlabelled), "--student-layers", "1", "--json"]
    done = CliRunner().invoke(
        command, ["--data", settings.data, "--output", str(tmp_path / "new"), *options, *both, *others]
    )
    assert done.exit_code == 0, done.output
    facts = facts_of(tmp_path / "new")["training"]
    assert [Path(each["name"]).name for each in facts["teaching"]["teachers"]] == ["first", "second"]
    assert (facts["settings"]["teacher_temperature"], facts["student"]) == (3.0, {"kept": [1], "of": 2})


# Going on -----------------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, without what a clock says."""
    facts = facts_of(folder)
    speed = facts["training"]["teaching"].pop("speed")
    del facts["training"]["seconds"], facts["files"]["README.md"], facts["sha256"]
    card = [line for line in (folder / "README.md").read_text().splitlines() if "times as fast" not in line]
    assert speed["times"] > 0
    files = {path.name: sha256_of(path) for path in folder.iterdir() if path.name not in (FACTS, "README.md")}
    return {**files, FACTS: fingerprint(facts), "README.md": "\n".join(card)}


def test_a_killed_training_asks_for_nothing_twice_and_ends_with_the_same_bytes(
    tmp_path: Path, settings: TrainSettings, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(settings, teachers=(str(folders["first"]), str(folders["second"])))
    monkeypatch.setattr(teachers, "_PART_ROWS", 25)  # sixty texts are three parts
    asked: list[int] = []
    answers_of, fit, stop = examination.answers_of, fitting.fit, [4]

    def counted(model: Any, texts: Any, progress: Any) -> Any:
        if len(asked) == stop[0]:
            raise KeyboardInterrupt
        asked.append(len(texts))
        return answers_of(model, texts, progress)

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(teachers, "answers_of", counted)
    with pytest.raises(KeyboardInterrupt):
        run(settings)
    assert asked == [25, 25, 10, 25]
    with pytest.raises(OutputError, match="other settings"):
        run(settings, teachers=(str(folders["first"]),), resume=True)
    stop[0] = 99
    monkeypatch.setattr(tokenized_rows, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(settings, resume=True)
    assert asked == [25, 25, 10, 25, 25, 10]
    monkeypatch.setattr(tokenized_rows, "fit", fit)
    resumed = run(settings, resume=True)
    assert asked == [25, 25, 10, 25, 25, 10]
    whole = run(settings, output=tmp_path / "whole")
    assert contents(resumed.output) == contents(whole.output)
    assert run(settings, resume=True).was_done


# Fewer layers -------------------------------------------------------------------------------------------------------


def four_layers() -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 50,
    }
    return BertForSequenceClassification(BertConfig(num_hidden_layers=4, initializer_range=0.5, **sizes))


def test_evenly_spread_layers_are_kept_with_their_weights(tmp_path: Path) -> None:
    model = four_layers()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    fewer = with_fewer_layers(model, 3, has_mean_layer=False)
    assert spread_layers(4, 3) == [0, 2, 3]
    for now, then in enumerate([0, 2, 3]):
        for name, weight in fewer.bert.encoder.layer[now].state_dict().items():
            assert torch.equal(weight, before[f"bert.encoder.layer.{then}.{name}"])
    fewer.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    ids = torch.arange(9)[None]
    assert again.config.num_hidden_layers == 3
    assert torch.equal(again(ids).logits, fewer.eval()(ids).logits)


def test_a_mean_layer_is_kept_besides() -> None:
    model = four_layers()
    last = model.bert.encoder.layer[3].state_dict()
    fewer = with_fewer_layers(model, 2, has_mean_layer=True)
    assert len(fewer.bert.encoder.layer) == 3
    assert all(
        torch.equal(each, last[name]) for name, each in fewer.bert.encoder.layer[2].state_dict().items()
    )


def test_where_layers_are_shared_fewer_are_refused() -> None:
    from transformers import AlbertConfig, AlbertForSequenceClassification

    config = AlbertConfig(hidden_size=32, num_attention_heads=2, intermediate_size=64, num_hidden_layers=4)
    with pytest.raises(UsageError, match="--student-layers 2 does not work for albert"):
        with_fewer_layers(AlbertForSequenceClassification(config), 2, has_mean_layer=False)


def test_a_student_of_fewer_layers_is_a_model_that_plain_transformers_loads(
    settings: TrainSettings, folders: dict[str, Path], tmp_path: Path
) -> None:
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(folders["base"]).save_pretrained(tmp_path / "encoder")
    AutoTokenizer.from_pretrained(folders["base"]).save_pretrained(tmp_path / "encoder")
    told: list[str] = []
    options = {"base_model": str(tmp_path / "encoder"), "student_layers": 1, "pooling": "mean"}
    result = run(settings, told.append, **options)
    assert json.loads((result.output / "config.json").read_text())["num_hidden_layers"] == 2  # and the mean
    assert facts_of(result.output)["training"]["student"] == {"kept": [1], "of": 2}
    assert "of the base model's 2 layers 1 are kept" in told
    assert "| layers kept | 1 of 2 of the base model |" in (result.output / "README.md").read_text()
    texts = list(rows(40)["text"])
    said = pipeline("text-classification", model=str(result.output))(texts, truncation=True, max_length=32)
    assert [answer["label"] for answer in said] == predicted(opened(result.output), texts)
    again = run(settings, base_model=str(result.output), student_layers=1, output=tmp_path / "again")
    assert json.loads((again.output / "config.json").read_text())["num_hidden_layers"] == 2
    assert student.TIMED_ROWS == 64


# Whose layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("teachers", "layers", "named", "base"),
    [
        (("first",), 1, None, "first"),
        (("first",), 1, "other", "other"),
        (("first",), 1, "builtin", "builtin"),
        (("first",), None, None, "builtin"),
        (("first", "second"), 1, None, "builtin"),
        ((), 1, None, "builtin"),
        (("builtin",), 1, None, "builtin"),
    ],
)
def test_layers_are_those_of_the_only_teacher_unless_a_base_is_named(
    tmp_path: Path, teachers: tuple[str, ...], layers: int | None, named: str | None, base: str
) -> None:
    settings = TrainSettings("data", tmp_path, base_model=named, teachers=teachers, student_layers=layers)
    assert settings.base_name == base
    assert settings.takes_builtin == (base == "builtin" and "builtin" not in teachers)


def test_a_student_of_fewer_layers_starts_from_its_teacher(
    settings: TrainSettings, folders: dict[str, Path], tmp_path: Path
) -> None:
    result = run(settings, base_model=None, student_layers=1)
    facts = facts_of(result.output)["training"]
    assert facts["base_model"]["name"] == str(folders["first"])
    assert facts["base_model"]["fingerprint"] == facts["teaching"]["teachers"][0]["fingerprint"]
    assert facts["student"] == {"kept": [1], "of": 2}
    named = run(settings, base_model=str(folders["first"]), student_layers=1, output=tmp_path / "named")
    assert contents(named.output) == contents(result.output)
    assert run(settings, base_model=str(folders["first"]), student_layers=1, resume=True).was_done


def test_where_a_teacher_has_too_few_layers_another_base_is_named(settings: TrainSettings) -> None:
    with pytest.raises(UsageError, match=r"--student-layers 3: .* has 2.*--base-model builtin"):
        run(settings, base_model=None, student_layers=3)


def test_a_teacher_that_is_not_there_is_named_as_that(settings: TrainSettings) -> None:
    with pytest.raises(ModelError, match=r"no folder nowhere \(--teacher\)"):
        run(settings, base_model=None, student_layers=1, teachers=("nowhere",))


def test_a_student_of_numbers_starts_with_a_head_of_its_own(
    settings: TrainSettings, folders: dict[str, Path], tmp_path: Path
) -> None:
    """The teacher's head gives numbers in their own unit, and the student learns them standardised."""
    frame = rows(40)
    frame["label"] = 10_000.0 + np.arange(40) * 25
    frame.to_parquet(tmp_path / "numbers.parquet")
    options: dict[str, Any] = {
        "data": str(tmp_path / "numbers.parquet"),
        "task": "regression",
        "unlabelled": None,
    }
    teacher = run(settings, teachers=(), output=tmp_path / "teacher", **options)
    taught = run(
        settings,
        base_model=None,
        student_layers=1,
        teachers=(str(teacher.output),),
        output=tmp_path / "student",
        **options,
    )
    assert taught.metrics["mae"]["value"] < 2000
