from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from evaluation_samples import evaluate, literal, random_sample
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import optimize, special

from batchscore.evaluation import Evaluation, apply_temperature, fit_temperature, softmax, undo_temperature


@pytest.mark.parametrize("n_labels", [2, 3, 20])
def test_the_calibration_error_is_that_of_the_plain_formula(n_labels: int) -> None:
    sample = random_sample(3000, n_labels, seed=n_labels)
    labels, predicted, probabilities = sample.known()
    top, right = probabilities[np.arange(len(labels)), predicted], labels == predicted
    expected = 0.0
    for low, high in zip(np.linspace(0, 1, 16)[:-1], np.linspace(0, 1, 16)[1:], strict=True):
        held = (top > low) & (top <= high)
        if held.any():
            expected += held.mean() * abs(right[held].mean() - top[held].mean())
    assert evaluate(sample).metrics()["calibration"]["ece"] == pytest.approx(expected, abs=1e-10)


def test_four_rows_by_hand() -> None:
    # 0.75 and 0.75 (bin 12: one right of two, gap 0.25), 0.875 (bin 14: wrong), 1.0 (bin 15: right)
    sample = literal([0, 1, 1, 0], [[0.75, 0.25], [0.75, 0.25], [0.875, 0.125], [1.0, 0.0]])
    calibration = evaluate(sample).metrics()["calibration"]
    assert calibration["ece"] == (2 * 0.25 + 0.875 + 0) / 4
    held = [
        (k + 1, b["rows"], b["mean_probability"], b["accuracy"])
        for k, b in enumerate(calibration["bins"])
        if b["rows"]
    ]
    assert held == [(12, 2, 0.75, 0.5), (14, 1, 0.875, 0.0), (15, 1, 1.0, 1.0)]
    assert calibration["bins"][0] == {
        "low": 0.0,
        "high": 1 / 15,
        "rows": 0,
        "mean_probability": None,
        "accuracy": None,
    }


LOGITS = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 20), st.integers(2, 20)), elements=st.floats(-1e4, 1e4, width=32)
)


@given(LOGITS, st.floats(0.05, 20))
def test_probabilities_sum_to_one_within_one_unit_in_the_last_place(
    logits: NDArray[np.float32], t: float
) -> None:
    probabilities = apply_temperature(logits, t)
    assert probabilities.dtype == np.float32
    assert np.abs(probabilities.astype(np.float64).sum(axis=1) - 1).max() <= np.finfo(np.float32).eps
    assert (probabilities >= 0).all()


@given(LOGITS)
def test_softmax_is_that_of_scipy_and_takes_each_row_on_its_own(logits: NDArray[np.float32]) -> None:
    whole = softmax(logits)
    assert np.allclose(whole, special.softmax(logits.astype(np.float64), axis=1), atol=1e-15)
    assert np.array_equal(whole, np.concatenate([softmax(row[None]) for row in logits]))


def negative_log_likelihood(t: float, logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    return float(-special.log_softmax(logits / t, axis=1)[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("n_labels", [2, 3, 20])
@pytest.mark.parametrize("true_temperature", [0.3, 1.0, 2.5])
def test_the_fitted_temperature_is_the_one_scipy_finds(n_labels: int, true_temperature: float) -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(2000, n_labels)) * 3
    labels = (logits / true_temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)
    found = fit_temperature(logits, labels)
    oracle = optimize.minimize_scalar(
        negative_log_likelihood,
        bounds=(0.05, 20),
        args=(logits, labels),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert found == pytest.approx(oracle.x, rel=1e-4)
    assert found == pytest.approx(true_temperature, rel=0.2)


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        ([[5.0, 0.0], [0.0, 5.0]], [0, 1], 0.05),
        ([[5.0, 0.0], [0.0, 5.0]], [1, 0], 20.0),
        # p(right) = 3/4: exp(4/T) = 3
        ([[4.0, 0.0]] * 4, [0, 0, 0, 1], 4 / np.log(3)),
    ],
    ids=["perfectly separated", "always wrong", "three of four right"],
)
def test_temperatures_by_hand(logits: list[list[float]], labels: list[int], expected: float) -> None:
    assert fit_temperature(np.array(logits), np.array(labels)) == pytest.approx(expected)


def test_without_rows_the_temperature_is_one() -> None:
    assert fit_temperature(np.zeros((0, 2)), np.zeros(0, dtype=np.int64)) == 1.0


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.inf, np.nan])
def test_a_temperature_that_is_not_a_positive_number_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        apply_temperature(np.zeros((1, 2)), temperature)


def test_coverage_by_hand() -> None:
    sample = literal([0, 1, -1, 0], [[0.9, 0.1], [0.8, 0.2], [1.0, 0.0], [0.55, 0.45]])
    table = {row["threshold"]: row for row in evaluate(sample).metrics()["coverage"]}
    assert [
        (t, table[t]["rows"], table[t]["share"], table[t]["evaluated"]) for t in (0.5, 0.55, 0.6, 0.9, 0.95)
    ] == [
        (0.5, 4, 1.0, 3),
        (0.55, 4, 1.0, 3),
        (0.6, 3, 0.75, 2),
        (0.9, 2, 0.5, 1),
        (0.95, 1, 0.25, 0),
    ]
    assert table[0.6]["accuracy"]["value"] == 0.5
    assert table[0.95]["accuracy"] is None


def test_expected_accuracy_by_hand() -> None:
    sample = literal([0, -1, -1, 1], [[0.75, 0.25]] * 4)
    evaluation = Evaluation(["a", "b"], calibration_error=0.0625)
    evaluation.update(sample.given, sample.predictions)
    found = evaluation.metrics()["expected_accuracy"]
    # standard deviation of the mean of four tosses of 0.75: sqrt(4 * 0.1875) / 4
    spread = 1.959963984540054 * np.sqrt(0.75) / 4 + 0.0625
    assert (found["value"], found["low"], found["high"]) == (0.75, pytest.approx(0.75 - spread), 1.0)
    assert (found["rows"], found["calibration_error"]) == (4, 0.0625)
    assert (found["evaluated"]["rows"], found["evaluated"]["expected"]) == (2, 0.75)
    assert found["evaluated"]["observed"]["value"] == 0.5


def test_expected_accuracy_holds_the_truth_about_95_times_in_100_if_probabilities_are_honest() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        logits = rng.normal(size=(200, 3)) * 2
        given = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
        sample = literal(given.tolist(), apply_temperature(logits, 1.0).tolist())
        found = evaluate(sample).metrics()["expected_accuracy"]
        covered += found["low"] <= found["evaluated"]["observed"]["value"] <= found["high"]
    assert covered >= 365


@pytest.mark.parametrize("n_labels", [2, 5])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_calibration_before_the_temperature_is_that_of_the_logits(n_labels: int, temperature: float) -> None:
    sample = random_sample(2000, n_labels, seed=n_labels)
    logits = np.random.default_rng(1).normal(size=(2000, n_labels)) * 3
    scored = sample.predictions.status == 0

    def told(probabilities: NDArray[np.float32], **options: float) -> Any:
        table = np.where(scored[:, None], probabilities, np.float32(np.nan))
        predicted = np.where(scored, logits.argmax(axis=1), -1).astype(np.int32)
        evaluation = Evaluation([f"L{k}" for k in range(n_labels)], **options)
        evaluation.update(
            sample.given,
            dataclasses.replace(sample.predictions, probabilities=table, predicted=predicted),
        )
        return evaluation.metrics()["calibration"]

    calibrated = told(apply_temperature(logits, temperature), temperature=temperature)
    plain = told(apply_temperature(logits, 1.0))
    assert calibrated["temperature"] == temperature
    assert calibrated["before"]["ece"] == pytest.approx(plain["ece"], abs=1e-6)
    assert [b["rows"] for b in calibrated["before"]["bins"]] == [b["rows"] for b in plain["bins"]]
    assert plain["before"] is None


@given(LOGITS.map(lambda logits: logits / 1e3), st.floats(0.5, 3))
def test_a_temperature_can_be_undone(logits: NDArray[np.float32], t: float) -> None:
    assert undo_temperature(apply_temperature(logits, t), t) == pytest.approx(softmax(logits), abs=1e-5)


def test_what_would_be_accepted_is_told_with_its_expected_accuracy() -> None:
    sample = literal([0, -1, 1, 0], [[0.75, 0.25], [0.625, 0.375], [0.125, 0.875], [0.5, 0.5]])
    expected = {row["threshold"]: row["expected_accuracy"] for row in evaluate(sample).metrics()["coverage"]}
    assert (expected[0.5], expected[0.6], expected[0.8], expected[0.9]) == (0.6875, 0.75, 0.875, None)
