"""Few labels are learned with doubt: what the targets are, of which rows, and where labels are learned alone."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from test_training import Silent, bases, settings  # noqa: F401 - fixtures

from batchscore.cli.train import command
from batchscore.model.bundle_facts import FACTS
from batchscore.records import Task
from batchscore.training import fitting, soft_labels, tokenized_rows, train, tuning
from batchscore.training.linear_baseline import out_of_fold
from batchscore.training.settings import Hyperparameters
from batchscore.training.soft_labels import with_soft_labels
from batchscore.training.splits import Goal, Split, TrainingData
from batchscore.training.tokenized_rows import TokenizedRows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from batchscore.records import Text
    from batchscore.training import TrainSettings

PLAN = Hyperparameters("full", "mean", 4.0, 1e-4, 16, 0.1, 0.01, seed=7, soft_labels=True)
LABELS = ("NEGATIVE", "POSITIVE")


def data(texts: Sequence[Text], labels: Sequence[Any], task: Task = Task.SINGLE_LABEL) -> TrainingData:
    names = ("stars",) if task == Task.REGRESSION else LABELS
    return TrainingData(Goal(task, names), Split(list(texts), list(labels)), Split([], []), "", {})


def rows(labels: Sequence[Any]) -> TokenizedRows:
    return TokenizedRows("train", [np.arange(3, dtype=np.int32)] * len(labels), list(labels))


def unlike(count: int) -> list[Text]:
    """Texts without a word in common: whoever has not seen one knows nothing of it."""
    return [f"only{row:03d}" for row in range(count)]


@pytest.fixture
def weak_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are doubted however little the linear model knows."""
    monkeypatch.setattr(soft_labels, "LEAST_RECALL", 0.0)


def targets(texts: Sequence[Text], labels: Sequence[int], subset: Sequence[int] | None = None) -> np.ndarray:
    some = dataclasses.replace(rows(labels), subset=subset)
    soft = with_soft_labels(data(texts, labels), PLAN, some).soft
    assert soft is not None
    return soft


@pytest.mark.usefixtures("weak_help")
def test_half_is_what_a_model_says_that_did_not_see_the_row() -> None:
    labels = [0, 1] * 10
    found = targets(unlike(20), labels)
    assert found == pytest.approx(0.25 + 0.5 * np.eye(2)[labels], abs=1e-6)
    assert found.dtype == np.float32


@pytest.mark.usefixtures("weak_help")
def test_a_rare_label_is_doubted_no_more_than_a_frequent_one() -> None:
    words = np.random.default_rng(3).choice(["this", "film", "has", "actors", "music"], (400, 4))
    labels = np.array([0] * 320 + [1] * 80)  # of which these words say nothing
    given = targets([" ".join(each) for each in words], labels.tolist())[range(400), labels]
    assert given[labels == 0].mean() == pytest.approx(0.75, abs=0.03)
    assert given[labels == 1].mean() == pytest.approx(0.75, abs=0.03)


def test_a_wrong_label_is_doubted_and_stays_the_likeliest() -> None:
    texts = [f"{word} film number{row}" for row in range(30) for word in ("awful", "great")]
    labels = [0, 1] * 30
    labels[4] = 1
    found = targets(texts, labels)
    given = found[range(60), labels]
    assert 0.5 < given[4] < 0.7
    assert np.delete(given, 4).min() > 0.8
    assert found.sum(axis=1) == pytest.approx(np.ones(60), abs=1e-6)


def test_of_three_labels_each_is_doubted_and_one_without_rows_is_never_likely() -> None:
    words = ("awful", "fair", "great")
    texts, labels = [f"{word} film {row}" for row in range(20) for word in words], [0, 1, 2] * 20
    split, unseen = Split(list(texts), labels), Split(["odd"], [3])
    names = (*words, "unseen")
    every = TrainingData(Goal(Task.SINGLE_LABEL, names), split, unseen, "", {})
    soft = with_soft_labels(every, PLAN, rows(labels)).soft
    assert soft is not None
    assert soft.argmax(axis=1).tolist() == labels
    assert (soft[:, :3] > 0).all()
    assert (soft[:, 3] == 0).all()
    assert soft.sum(axis=1) == pytest.approx(np.ones(60), abs=1e-6)


@pytest.mark.usefixtures("weak_help")
def test_rows_of_a_part_are_doubted_by_that_part_alone() -> None:
    texts = [f"{word} {row}" for row in range(10) for word in ("awful", "great")] + unlike(20)
    labels = [0, 1] * 20
    part = range(20, 40)
    found = targets(texts, labels, part)
    assert found[20:] == pytest.approx(targets(texts[20:], labels[20:]), abs=1e-6)
    assert (found[:20] == np.eye(2)[labels[:20]]).all()
    again = dataclasses.replace(rows(labels), soft=found, subset=[0, 1, 2, 3])
    other = with_soft_labels(data(texts, labels), PLAN, again).soft
    assert other is not None
    assert (other[20:] == np.eye(2)[labels[20:]]).all()


def test_targets_are_the_same_each_time() -> None:
    texts, labels = [f"{word} {row}" for row in range(20) for word in ("awful", "great")], [0, 1] * 20
    assert (targets(texts, labels) == targets(texts, labels)).all()


@pytest.mark.parametrize(
    ("change", "labels", "task"),
    [
        ({"soft_labels": False}, [0, 1] * 10, Task.SINGLE_LABEL),
        ({"recipe": "head"}, [0, 1] * 10, Task.SINGLE_LABEL),
        ({"class_weights": "balanced"}, [0, 1] * 10, Task.SINGLE_LABEL),
        ({}, [0, 1] * 15, Task.SINGLE_LABEL),
        ({}, [0] * 9 + [1], Task.SINGLE_LABEL),
        ({}, [1] * 10, Task.SINGLE_LABEL),
        ({}, [(0, 1), (1, 0)] * 10, Task.MULTI_LABEL),
        ({}, [1.5, 2.5] * 10, Task.REGRESSION),
    ],
    ids=[
        "asked for",
        "head",
        "weights",
        "many",
        "a label with one row",
        "one label",
        "several labels",
        "numbers",
    ],
)
def test_elsewhere_labels_are_learned_alone(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], labels: list[Any], task: Task
) -> None:
    monkeypatch.setattr(soft_labels, "MOST_ROWS", 30)
    monkeypatch.setattr(soft_labels, "LEAST_RECALL", 0.0)
    told: list[str] = []
    some = dataclasses.replace(rows(labels), soft=np.zeros((len(labels), 2), dtype=np.float32))
    plan = dataclasses.replace(PLAN, **change)
    found = with_soft_labels(data(unlike(len(labels)), labels, task), plan, some, told.append)
    assert found.soft is None
    assert not told


def test_a_model_that_misses_a_label_is_not_asked() -> None:
    """It is right in 54 rows of 60, and finds none of the rare label."""
    texts, labels = unlike(60), [0] * 54 + [1] * 6
    assert with_soft_labels(data(texts, labels), PLAN, rows(labels)).soft is None


def test_without_a_word_there_is_nothing_to_doubt_by() -> None:
    labels = [0, 1] * 10
    assert with_soft_labels(data(["!", "?"] * 10, labels), PLAN, rows(labels)).soft is None


def learned(
    settings: TrainSettings,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    **changes: Any,
) -> tuple[list[np.ndarray], list[str], dict[str, Any]]:
    """Targets of each data set that is made, what is told, and the settings in the bundle."""
    seen: list[np.ndarray] = []
    told: list[str] = []
    dataset_of = fitting.dataset_of

    def noted(input_ids: Any, targets: Any, types: Any) -> Any:
        seen.append(targets)
        return dataset_of(input_ids, targets, types)

    with monkeypatch.context() as patched:
        patched.setattr(tokenized_rows, "dataset_of", noted)
        result = train(
            dataclasses.replace(settings, recipe="full", epochs=1, force=True, **changes),
            Silent,
            told.append,
        )
    found: dict[str, Any] = json.loads((result.output / FACTS).read_text())["training"]["settings"]
    return seen, told, found


def test_a_training_learns_them_and_says_so(
    settings: TrainSettings,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (first, watched), told, noted = learned(settings, monkeypatch)
    assert first.shape[1:] == (2,)
    assert ((first > 0) & (first < 1)).all()
    assert watched.ndim == 1  # those that choose and measure keep their labels
    assert any(line.startswith("few labels: half") and "--hard-labels" in line for line in told)
    assert noted["soft_labels"] is True
    (hard, _), told, noted = learned(settings, monkeypatch, hard_labels=True)
    assert hard.tolist() == first.argmax(axis=1).tolist()
    assert not any("few labels" in line for line in told)
    assert noted["soft_labels"] is False


def test_a_search_for_settings_judges_by_given_labels(
    settings: TrainSettings,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(tuning.MOST_ROWS, "full", 16)
    seen, _, _ = learned(settings, monkeypatch, tune=True, limit=24)
    assert [targets.ndim for targets in seen] == [2, 1] * (len(seen) // 2)
    assert {len(targets) for targets in seen[:-2:2]} == {13}  # of 16
    assert len(seen[-2]) == 24


def test_a_learning_curve_s_parts_are_learned_as_the_whole(
    settings: TrainSettings,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where a part by itself would be too weak, or the whole has too many rows."""
    seen, _, _ = learned(settings, monkeypatch, learning_curve=True)
    assert [targets.ndim for targets in seen] == [2, 1] * 3
    for part in seen[2::2]:
        assert len(part) < len(seen[0])
        assert ((part > 0) & (part < 1)).all()  # by its own rows: of the others it knows nothing
    monkeypatch.setattr(soft_labels, "_mean_recall", lambda _, labels: float(len(labels) == len(seen[0])))
    weak, _, _ = learned(settings, monkeypatch, learning_curve=True)
    assert [targets.ndim for targets in weak] == [2, 1] * 3
    monkeypatch.setattr(soft_labels, "MOST_ROWS", len(seen[0]))
    seen, _, _ = learned(settings, monkeypatch, learning_curve=True)
    assert {targets.ndim for targets in seen} == {1}


def test_a_model_that_learned_from_texts_has_its_labels_as_they_are(
    settings: TrainSettings,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pd.DataFrame(
        {"text": [f"{word} more {row}" for row in range(10) for word in ("awful", "great")]}
    ).to_parquet(tmp_path / "more.parquet")
    _, told, noted = learned(settings, monkeypatch, unlabelled=str(tmp_path / "more.parquet"))
    is_kept = any("this one" in line for line in told if "texts without labels" in line)
    assert noted["soft_labels"] is not is_kept


@pytest.mark.parametrize("kind", ["texts", "groups"])
def test_what_belongs_together_is_not_told_of_itself(kind: str) -> None:
    """Each text, or its words, twice: a model that had seen the other one would know the label."""
    texts, labels = [text for text in unlike(60) for _ in range(2)], [0, 0, 1, 1] * 30
    split = Split(texts, labels)
    if kind == "groups":
        split = Split([f"{text} {'once' if row % 2 else 'twice'}" for row, text in enumerate(texts)], labels)
        groups: list[str | None] = [str(row // 2) for row in range(120)]
        split = dataclasses.replace(split, groups=groups)
    answers = out_of_fold(dataclasses.replace(data(texts, labels), train=split), split, 3)
    assert answers is not None
    assert abs(answers[range(120), labels].mean() - 0.5) < 0.05


def test_where_groups_have_a_label_each_nothing_is_doubted() -> None:
    split = Split(["awful one", "great one"] * 10, [0, 1] * 10, groups=["left", "right"] * 10)
    assert out_of_fold(dataclasses.replace(data([], []), train=split), split, 3) is None


def test_the_command_takes_labels_alone(settings: TrainSettings, tmp_path: Path) -> None:  # noqa: F811
    options = ["--data", settings.data, "--output", str(tmp_path / "new"), "--base-model", settings.base_name]
    done = CliRunner().invoke(command, [*options, "--epochs", "1", "--max-length", "32", "--hard-labels"])
    assert done.exit_code == 0, done.output
    facts = json.loads((tmp_path / "new" / FACTS).read_text())
    assert facts["training"]["settings"]["soft_labels"] is False
