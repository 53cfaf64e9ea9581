"""Training for several labels at once and for numbers, on encoders so small that a training takes a second."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import run_score
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    hamming_loss,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)
from test_training import Silent
from transformers import pipeline

from batchscore.cli import main
from batchscore.cli.train import command
from batchscore.config import ComputeSettings
from batchscore.errors import DataError, InterruptedRunError, UsageError
from batchscore.model.bundle import open_bundle
from batchscore.model.bundle_facts import FACTS
from batchscore.model.canaries import canary_check
from batchscore.records import Task
from batchscore.runs.inspection import bundle_lines, inspect
from batchscore.training import TrainResult, TrainSettings, head_fitting, train
from batchscore.training.data import load_data
from batchscore.training.label_reading import task_of
from batchscore.training.objectives import (
    average_precision,
    balanced_weights,
    best_thresholds,
    objective_of,
    strata_of,
)

WORDS = ("awful", "fair", "great")
ROWS = 320


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small only wait for a second thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def table(rows: int = ROWS) -> pd.DataFrame:
    """Texts with the words that are their labels, and a number that follows from them."""
    random = np.random.default_rng(0)
    flags = random.integers(0, 2, (rows, 3))
    tags = [[word for word, is_in in zip(WORDS, row, strict=True) if is_in] for row in flags]
    return pd.DataFrame(
        {
            "text": [" ".join([*words, f"film {k}"]) for k, words in enumerate(tags)],
            "tags": tags,
            "stars": 500.0 + 30 * flags[:, 2] - 20 * flags[:, 0],
            **{f"is_{word}": flags[:, k] for k, word in enumerate(WORDS)},
        }
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    table().to_parquet(folder / "train.parquet")
    table().assign(tags=lambda t: t.tags.map(";".join)).to_csv(folder / "train.csv", index=False)
    table(240).to_parquet(folder / "test.parquet")
    return folder


@pytest.fixture
def settings(data: Path, make_model: Callable[..., Path], tmp_path: Path) -> TrainSettings:
    """A head on the mean of all tokens."""
    return TrainSettings(
        str(data / "train.parquet"),
        tmp_path / "out",
        eval_data=str(data / "test.parquet"),
        base_model=str(make_model()),
        recipe="head",
        epochs=4,
        batch_size=8,
        max_length=32,
        precision="fp32",
    )


def run(settings: TrainSettings, **changes: Any) -> TrainResult:
    return train(dataclasses.replace(settings, **changes), Silent)


def scored(result: TrainResult, data: Path, folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    done = run_score(data / "test.parquet", result.output, folder, compute=ComputeSettings(precision="fp32"))
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_bytes())
    return pd.read_parquet(done.output / "predictions" / "test.parquet"), metrics


# Several labels at once ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_several(
    data: Path, make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> TrainSettings:
    return TrainSettings(
        str(data / "train.parquet"),
        tmp_path_factory.mktemp("several") / "out",
        eval_data=str(data / "test.parquet"),
        base_model=str(make_model()),
        label_column="tags",
        epochs=3,
        learning_rate=1e-3,
        max_length=32,
        precision="fp32",
    )


@pytest.fixture(scope="module")
def several(of_several: TrainSettings) -> TrainResult:
    return train(of_several, Silent)


def test_a_bundle_of_several_labels_is_scored_as_it_was_evaluated(
    several: TrainResult, of_several: TrainSettings, data: Path, tmp_path: Path
) -> None:
    bundle = open_bundle(str(several.output))
    assert (bundle.task, bundle.labels) == (Task.MULTI_LABEL, WORDS)
    assert (
        json.loads((several.output / "config.json").read_bytes())["problem_type"]
        == "multi_label_classification"
    )
    rows, metrics = scored(several, data, tmp_path / "run")
    given = np.array([[word in tags for word in WORDS] for tags in rows.tags])
    predicted = np.array([[word in tags for word in WORDS] for tags in rows.predicted_labels])
    quality = metrics["quality"]
    assert quality["micro_f1"]["value"] == pytest.approx(f1_score(given, predicted, average="micro"))
    assert quality["micro_f1"]["value"] > 0.7
    trained = several.metrics
    for name in ("micro_f1", "macro_f1", "subset_accuracy"):
        assert trained[name]["value"] == pytest.approx(quality[name]["value"])
    assert trained["hamming_loss"] == pytest.approx(hamming_loss(given, predicted))
    order = [int(place.rpartition(":")[2]) for place in load_data(of_several).evaluation.places]
    held_out = order[120:]
    assert trained["held_out"]["rows"] == len(held_out) == 120
    assert trained["held_out"]["micro_f1"]["value"] == pytest.approx(
        f1_score(given[held_out], predicted[held_out], average="micro")
    )
    assert bundle.facts["thresholds"] == {w: metrics["quality"]["per_label"][w]["threshold"] for w in WORDS}


def test_plain_transformers_gives_the_same_calibrated_probabilities(
    several: TrainResult, data: Path, tmp_path: Path
) -> None:
    rows, metrics = scored(several, data, tmp_path / "run")
    texts = list(rows.text[:20])
    bundle = open_bundle(str(several.output))
    assert bundle.temperature == 1 != bundle.calibration_temperature
    assert metrics["calibration"]["temperature"] == bundle.calibration_temperature
    plain: Any = pipeline("text-classification", str(several.output), top_k=None)
    for k, answer in enumerate(plain(texts)):
        for each in answer:
            assert rows[f"prob_{each['label']}"][k] == pytest.approx(each["score"], abs=1e-5)


def test_the_card_and_inspect_tell_every_label(several: TrainResult) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(several.output / "README.md")
    assert [each.metric_type for each in card.data.eval_results][:2] == ["f1", "f1"]
    for word in ("any number of labels", "micro F1", "average precision", "from a probability of", *WORDS):
        assert word in card.text
    assert "of a linear model on words" in card.text
    lines = "\n".join(bundle_lines(inspect(str(several.output))))
    assert "of a linear model on words" in lines
    assert "micro f1: 0." in lines
    assert "average precision" in lines


def test_lists_a_joined_text_and_columns_are_the_same_labels(settings: TrainSettings, data: Path) -> None:
    lists = load_data(dataclasses.replace(settings, label_column="tags", eval_data=None))
    columns = load_data(
        dataclasses.replace(
            settings,
            label_columns=("is_great", "is_awful", "is_fair"),
            label_names={f"is_{word}": word for word in WORDS},
            eval_data=None,
        )
    )
    assert lists.goal == columns.goal == (Task.MULTI_LABEL, WORDS)
    assert lists.facts() == {**columns.facts(), "evaluation_from": lists.source}
    joined = load_data(
        dataclasses.replace(settings, data=str(data / "train.csv"), label_column="tags", eval_data=None)
    )
    assert joined.goal == lists.goal
    empty = sum(not tags for tags in table().tags)
    assert joined.left_out["train"] == {"null_label": empty}  # a blank says nothing, an empty list says none


def test_columns_of_flags_are_trained_on(settings: TrainSettings, data: Path) -> None:
    result = run(
        settings, label_columns=("is_fair", "is_awful", "is_great"), class_weights="balanced", threshold=0.4
    )
    facts = open_bundle(str(result.output)).facts
    assert result.labels == ("is_awful", "is_fair", "is_great")
    assert facts["thresholds"] == dict.fromkeys(result.labels, 0.4)
    assert facts["metrics"]["held_out"]["rows"] == 120  # those that did not choose the epoch
    assert [each.keys() >= {"eval_average_precision"} for each in facts["training"]["curve"]] == [True] * 4


# Numbers ------------------------------------------------------------------------------------------------------------


def test_a_regression_gives_numbers_in_their_own_unit(
    settings: TrainSettings, make_model: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    how: dict[str, Any] = {"base_model": str(make_model(whole=True)), "recipe": "full", "learning_rate": 1e-3}
    result = run(settings, task="regression", **how)
    bundle = open_bundle(str(result.output))
    assert (bundle.task, bundle.labels) == (Task.REGRESSION, ("stars",))
    rows, metrics = scored(result, data, tmp_path / "run")
    quality, trained = metrics["quality"], result.metrics
    assert quality["mae"]["value"] == pytest.approx(mean_absolute_error(rows.stars, rows.value))
    assert trained["mae"]["value"] == pytest.approx(quality["mae"]["value"], abs=1e-4)
    assert trained["rmse"] == pytest.approx(root_mean_squared_error(rows.stars, rows.value), abs=1e-4)
    assert trained["r2"] == pytest.approx(r2_score(rows.stars, rows.value), abs=1e-5)
    assert trained["r2"] > 0.5
    plain = pipeline("text-classification", str(result.output), function_to_apply="none")(list(rows.text[:9]))
    np.testing.assert_allclose(rows.value[:9], [each["score"] for each in plain], rtol=1e-5)
    assert "mean absolute error" in (result.output / "README.md").read_text()
    assert "mae: " in "\n".join(bundle_lines(inspect(str(result.output))))


def test_without_a_bias_numbers_are_only_scaled() -> None:
    labels = [3.0, 4.0, 5.0]
    free = objective_of(Task.REGRESSION, labels, 1, "none", has_bias=True)
    bound = objective_of(Task.REGRESSION, labels, 1, "none", has_bias=False)
    assert free.targets(labels).mean() == pytest.approx(0, abs=1e-6)
    assert bound.standard.shift == 0
    for each in (free, bound):
        np.testing.assert_allclose(each.targets(labels) * each.standard.scale + each.standard.shift, labels)


def test_canaries_of_numbers_change_in_shares_of_their_range() -> None:
    expected = np.array([[100.0], [300.0]])
    assert canary_check(expected + 1, expected, Task.REGRESSION) == (0, 1 / 200)
    assert canary_check(np.array([[0.4, 0.6]]), np.array([[0.5, 0.5]]), Task.MULTI_LABEL)[0] == 0


def test_what_is_no_number_is_left_out_and_told(settings: TrainSettings, tmp_path: Path) -> None:
    rows = table(60).assign(stars=lambda t: t.stars.astype(str))
    rows.loc[3, "stars"], rows.loc[4, "stars"] = "five", ""
    rows[["text", "stars"]].to_csv(tmp_path / "odd.csv", index=False)
    found = load_data(
        dataclasses.replace(settings, data=str(tmp_path / "odd.csv"), task="regression", eval_data=None)
    )
    assert found.left_out["train"] == {"null_label": 1, "unknown_label": 1}


# What both share ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task",
    [{"task": "regression", "label_column": "stars"}, {"label_column": "tags"}],
    ids=["number", "labels"],
)
@pytest.mark.parametrize("recipe", ["head", "full"])
def test_a_stopped_training_goes_on_to_the_same_weights(
    task: dict[str, Any],
    recipe: str,
    settings: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {**task, "recipe": recipe, "epochs": 2, "pooling": "first"}
    whole = run(settings, output=tmp_path / "whole", **options)
    stop = _stop_after_one_epoch(recipe, monkeypatch)
    with pytest.raises(InterruptedRunError):
        run(settings, **options)
    stop.undo()
    resumed = run(settings, resume=True, **options)
    for name in ("model.safetensors", "config.json", "README.md"):
        assert (resumed.output / name).read_bytes() == (whole.output / name).read_bytes(), name


def _stop_after_one_epoch(recipe: str, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    from batchscore.training import resumable_trainer, trainer

    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
    place: Any = head_fitting._Loop if recipe == "head" else resumable_trainer.ResumableTrainer
    name = "step" if recipe == "head" else "training_step"
    step, done = getattr(place, name), []

    def stopping(self: Any, *options: Any) -> Any:
        done.append(1)
        if len(done) == 45:
            raise InterruptedRunError("stopped", 15)
        return step(self, *options)

    monkeypatch.setattr(place, name, stopping)
    return monkeypatch


def test_a_search_and_a_cut_by_label_know_every_task(settings: TrainSettings) -> None:
    result = run(settings, label_column="tags", tune=True, learning_rate=2e-3, epochs=1, eval_data=None)
    trials = open_bundle(str(result.output)).facts["training"]["tuning"]
    assert {each["pooling"] for each in trials} == {"first"}
    assert all(0 <= each["accuracy"] <= 1 for each in trials)


@pytest.mark.parametrize(
    ("values", "wanted", "found"),
    [
        ([0, 1, 5], "auto", Task.SINGLE_LABEL),
        (["a", "b"], "auto", Task.SINGLE_LABEL),
        ([["a"], ["a", "b"], []], "auto", Task.MULTI_LABEL),
        (['["a"]', "[]"], "auto", Task.MULTI_LABEL),
        (["a;b", "b", "a"], "auto", Task.MULTI_LABEL),
        (["a;b", "c"], "auto", None),
        ([["a"], "b"], "auto", None),
        (["a;b", "c"], "single-label", Task.SINGLE_LABEL),
        ([1, 2], "regression", Task.REGRESSION),
    ],
)
def test_the_task_is_told_by_the_values_or_not_at_all(
    values: list[Any], wanted: str, found: Task | None
) -> None:
    if found is None:
        with pytest.raises(DataError, match="--task multi-label"):
            task_of(wanted, values, has_columns=False)
    else:
        assert task_of(wanted, values, has_columns=False) == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_column": "tags", "check_labels": True}, "--check-labels"),
        ({"task": "regression", "threshold": 0.3}, "--threshold"),
        ({"task": "regression", "label_names": {"1": "x"}}, "--label-name"),
        ({"label_columns": ("is_fair", "nothing")}, "nothing"),
        ({"label_columns": ("is_fair",)}, "two columns"),
        ({"task": "regression", "label_column": "tags"}, "0 different numbers"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: dict[str, Any], message: str, settings: TrainSettings
) -> None:
    with pytest.raises((DataError, UsageError), match=message):
        load_data(dataclasses.replace(settings, **options))


def test_average_precision_and_thresholds_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(1)
    given = random.integers(0, 2, (300, 2))
    scores = np.round(np.clip(given * 0.3 + random.random((300, 2)) * 0.7, 0, 1), 2).astype(np.float32)
    for k in range(2):
        assert average_precision(scores[:, k], given[:, k]) == pytest.approx(
            average_precision_score(given[:, k], scores[:, k])
        )
    thresholds = best_thresholds(scores, given)
    for k, threshold in enumerate(thresholds):
        every = [f1_score(given[:, k], scores[:, k] >= np.float32(t)) for t in np.linspace(0.005, 0.995, 100)]
        assert f1_score(given[:, k], scores[:, k] >= np.float32(threshold)) >= max(every) - 1e-12
    assert best_thresholds(scores, np.ones((300, 2))) == [0.5, 0.5]


def test_weights_and_strata_of_several_labels() -> None:
    labels = [(1, 0), (1, 1), (1, 0), (0, 0)]
    weights = balanced_weights(Task.MULTI_LABEL, labels, 2)
    np.testing.assert_allclose(weights, [4 / 6, 2, 2, 4 / 6])
    assert strata_of(Task.MULTI_LABEL, labels) == [0, 1, 0, -1]
    assert strata_of(Task.REGRESSION, [5.0, 1.0, 2.0, 9.0, 3.0]) == [3, 0, 1, 4, 2]


def test_the_command_trains_and_scores_a_regression(
    settings: TrainSettings, data: Path, tmp_path: Path
) -> None:
    done = CliRunner().invoke(
        command,
        [
            *(
                "--data",
                settings.data,
                "--output",
                str(tmp_path / "model"),
                "--base-model",
                settings.base_name,
            ),
            *(
                "--task",
                "regression",
                "--recipe",
                "head",
                "--precision",
                "fp32",
                "--max-length",
                "32",
                "--json",
            ),
        ],
    )
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["labels"] == ["stars"]
    assert summary["mae"] > 0
    assert json.loads((tmp_path / "model" / FACTS).read_bytes())["task"] == "regression"
    checked = CliRunner().invoke(main, ["verify", str(tmp_path / "model")])
    assert checked.exit_code == 0
