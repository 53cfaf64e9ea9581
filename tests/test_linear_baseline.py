"""The linear model beside a training: it learns what words say, and is told apart from the trained one fairly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from batchscore.evaluation import Basis, measures_of
from batchscore.records import Task
from batchscore.reports.linear_baseline import is_better_than_linear, linear_line
from batchscore.training import linear_baseline
from batchscore.training.splits import Goal, Split, TrainingData

LABELS = ("awful", "fair", "great")
WORDS = ("dreadful tedious mess", "passable plain stuff", "wonderful bright joy")


def data(
    train: Split, evaluation: Split, task: Task = Task.SINGLE_LABEL, labels: Any = LABELS
) -> TrainingData:
    return TrainingData(Goal(task, labels), train, evaluation, "here", {"train": {}, "evaluation": {}})


def linear_answers(rows: TrainingData) -> Any:
    return linear_baseline.linear_answers(rows, rows.evaluation.texts)


def split(rows: int, seed: int, words: tuple[str, ...] = WORDS) -> Split:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, rows).tolist()
    noise = [" ".join(random.choice(["it", "was", "film", "and", "of", "two"], 6)) for _ in labels]
    each = [random.choice(words[label].split()) for label in labels]
    return Split([f"{before} {word} night" for before, word in zip(noise, each, strict=True)], labels)


def test_it_learns_what_words_say_and_gives_probabilities() -> None:
    train, evaluation = split(240, 1), split(100, 2)
    answers = linear_answers(data(train, evaluation))
    assert answers is not None
    assert answers.shape == (100, 3)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)
    assert (answers.argmax(axis=1) == evaluation.labels).mean() > 0.95


def test_the_same_rows_give_the_same_bits() -> None:
    rows = data(split(240, 1), split(100, 2))
    first, second = linear_answers(rows), linear_answers(rows)
    assert first is not None
    assert second is not None
    assert first.tobytes() == second.tobytes()


def test_a_label_without_a_training_row_has_no_probability() -> None:
    train = split(240, 1)
    seen = [row for row, label in enumerate(train.labels) if label != 1]
    answers = linear_answers(data(train.select(seen), split(20, 2)))
    assert answers is not None
    assert (answers[:, 1] == 0).all()
    only = linear_answers(data(train.select([r for r in seen if train.labels[r] == 2]), split(20, 2)))
    assert only is not None
    assert only.tolist() == [[0, 0, 1]] * 20


def test_words_without_spaces_between_them_are_words() -> None:
    train, evaluation = split(120, 1, ("糟糕", "一般", "精彩")), split(60, 2, ("糟糕", "一般", "精彩"))
    whole = [
        Split(["影片" + str(text).replace(" ", "") + "夜" for text in each.texts], each.labels)
        for each in (train, evaluation)
    ]
    answers = linear_answers(data(whole[0], whole[1]))
    assert answers is not None
    assert (answers.argmax(axis=1) == evaluation.labels).mean() > 0.95


def test_two_texts_of_a_row_have_words_of_their_own() -> None:
    random = np.random.default_rng(5)
    sides = random.integers(0, 2, 200).tolist()
    pairs: list[Any] = [("good", "bad") if side else ("bad", "good") for side in sides]
    both = Split([(f"a {x} thing", f"one {y} thing") for x, y in pairs], sides)
    answers = linear_answers(data(both, both, labels=("right", "left")))
    assert answers is not None
    assert (answers.argmax(axis=1) == sides).all()


def test_several_labels_and_numbers_have_one_too() -> None:
    train, evaluation = split(240, 1), split(100, 2)
    flags = [
        [tuple(int(k == label) for k in range(3)) for label in each.labels] for each in (train, evaluation)
    ]
    several = data(Split(train.texts, flags[0]), Split(evaluation.texts, flags[1]), Task.MULTI_LABEL)
    answers = linear_answers(several)
    assert answers is not None
    assert ((answers > 0.5) == np.array(flags[1])).mean() > 0.95
    numbers = [Split(each.texts, [float(label) for label in each.labels]) for each in (train, evaluation)]
    values = linear_answers(data(numbers[0], numbers[1], Task.REGRESSION, ("stars",)))
    assert values is not None
    assert values.shape == (100, 1)
    assert np.corrcoef(values[:, 0], evaluation.labels)[0, 1] > 0.9


def test_texts_without_a_word_have_none() -> None:
    nothing = Split(["!", "?", "..", "-"], [0, 1, 0, 1])
    assert linear_answers(data(nothing, nothing, labels=("no", "yes"))) is None


@pytest.mark.parametrize(("right", "is_better"), [(190, True), (102, False), (60, False)])
def test_only_a_difference_beyond_chance_counts(right: int, is_better: bool) -> None:
    given = np.zeros(200, dtype=np.int64)
    linear = np.where(np.arange(200) < 100, 0, 1)
    trained = np.where(np.arange(200)[::-1] < right, 0, 1)
    comparison = measures_of(Task.SINGLE_LABEL).comparison(Basis(Task.SINGLE_LABEL, ("no", "yes")))
    comparison.update(given, linear, trained, given)
    compared = {"is_held_out": True, **comparison.summary(("no", "yes"))}
    assert is_better_than_linear(Task.SINGLE_LABEL, compared) is is_better
    line = linear_line(Task.SINGLE_LABEL, compared)
    assert f"accuracy 0.5000 of a linear model on words, {right / 200:.4f} of this one" in line
    assert ("by more than chance" in line) is not is_better


def test_for_numbers_less_is_better() -> None:
    given = np.arange(50.0)
    comparison = measures_of(Task.REGRESSION).comparison(Basis(Task.REGRESSION, ("stars",)))
    comparison.update(given, given + 2 + np.sin(given), given + 0.5, given)
    compared = {"is_held_out": False, **comparison.summary(("stars",))}
    assert is_better_than_linear(Task.REGRESSION, compared)
    assert "mean absolute error" in linear_line(Task.REGRESSION, compared)
