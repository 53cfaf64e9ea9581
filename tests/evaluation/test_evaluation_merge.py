from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from evaluation_samples import Sample, evaluate, literal, random_sample
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.errors import DataError
from batchscore.evaluation import Evaluation
from batchscore.evaluation.tally import exact_sums
from batchscore.records import Predictions

PARTS = 50


def add(evaluation: Evaluation, sample: Sample, first: int, rejects: int = 0) -> None:
    brands = [f"brand {row % 307}" if row % 11 else None for row in range(first, first + len(sample.given))]
    evaluation.update(
        sample.given, sample.predictions, slices={"file": "a.csv", "brand": brands}, rejects=rejects
    )


def whole(sample: Sample) -> Evaluation:
    evaluation = Evaluation([f"L{k}" for k in range(sample.predictions.probabilities.shape[1])])
    add(evaluation, sample, 0, rejects=PARTS)
    return evaluation


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 20]))
def test_fifty_parts_merged_in_any_order_are_one_pass_bit_by_bit(seed: int, n_labels: int) -> None:
    rng = np.random.default_rng(seed)
    sample = random_sample(1500, n_labels, seed)
    cuts = [0, *np.sort(rng.integers(0, 1501, PARTS - 1)).tolist(), 1500]
    parts = []
    for start, stop in itertools.pairwise(cuts):
        part = Evaluation([f"L{k}" for k in range(n_labels)])
        add(part, sample.rows(slice(start, stop)), start, rejects=1)
        parts.append(part)
    pool = [parts[k] for k in rng.permutation(PARTS)]
    while len(pool) > 1:  # a random tree of merges
        other = pool.pop(int(rng.integers(len(pool))))
        pool[int(rng.integers(len(pool)))].merge(other)
    once = whole(sample)
    assert json.dumps(pool[0].metrics()) == json.dumps(once.metrics())
    assert json.dumps(pool[0].to_state()) == json.dumps(once.to_state())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_rows_changes_nothing(seed: int) -> None:
    sample = random_sample(700, 3, seed)
    shuffled = sample.rows(np.random.default_rng(seed).permutation(700))
    assert json.dumps(evaluate(sample).metrics()) == json.dumps(evaluate(shuffled).metrics())


@given(st.lists(st.floats(0, 63), max_size=60))
def test_exact_sums_are_the_sums_of_the_rounded_terms(values: list[float]) -> None:
    units = [round(Fraction(value) * 2**40) for value in values]
    assert exact_sums(np.array(values, dtype=np.float64))[0] == sum(units)


@pytest.mark.parametrize("n_labels", [2, 20])
def test_a_state_survives_json_and_goes_on_from_there(n_labels: int) -> None:
    sample = random_sample(800, n_labels, seed=8)
    first = Evaluation([f"L{k}" for k in range(n_labels)])
    add(first, sample.rows(slice(0, 300)), 0, rejects=PARTS)
    restored = Evaluation.from_state(json.loads(json.dumps(first.to_state())))
    assert restored.metrics() == first.metrics()
    add(restored, sample.rows(slice(300, 800)), 300)
    assert json.dumps(restored.metrics()) == json.dumps(whole(sample).metrics())


def _without_quality(state: dict[str, Any]) -> None:
    del state["quality"]


def _wrong_shape(state: dict[str, Any]) -> None:
    state["quality"]["confusion"] = [[1, 2, 3]]


def _damaged(state: dict[str, Any]) -> None:
    state["ranking"]["counts"] = "AAAA"


def _wrong_slices(state: dict[str, Any]) -> None:
    state["slices"] = {"file": {"a.csv": [1, 2]}}


def _other_format(state: dict[str, Any]) -> None:
    state["format"] = 0


@pytest.mark.parametrize("damage", [_without_quality, _wrong_shape, _damaged, _wrong_slices, _other_format])
def test_a_damaged_state_is_an_error_that_says_what_to_do(damage: Callable[[dict[str, Any]], None]) -> None:
    state = evaluate(random_sample(50, 2, seed=0)).to_state()
    damage(state)
    with pytest.raises(DataError, match="again"):
        Evaluation.from_state(state)


def test_an_evaluation_without_rows_is_all_none_and_zero() -> None:
    metrics = Evaluation(["a", "b"]).metrics()
    assert list(metrics) == [
        "labels",
        "counts",
        "quality",
        "calibration",
        "reliability",
        "coverage",
        "expected_accuracy",
        "histograms",
        "slices",
    ]
    assert (metrics["quality"], metrics["calibration"], metrics["expected_accuracy"]) == (None, None, None)
    assert set(metrics["counts"].values()) == {0}
    assert metrics["slices"] == []


@pytest.mark.parametrize("seed", range(5))
def test_metrics_hold_no_nan(seed: int) -> None:
    for n in (1, 2, 30):
        json.dumps(evaluate(random_sample(n, 3, seed)).metrics(), allow_nan=False)


def test_without_labels_there_is_no_quality_but_an_expectation() -> None:
    metrics = evaluate(literal([-1, -2], [[0.75, 0.25], [0.25, 0.75]])).metrics()
    assert metrics["quality"] is None
    assert metrics["expected_accuracy"]["value"] == 0.75
    assert metrics["expected_accuracy"]["evaluated"] is None


def test_every_row_is_counted_once() -> None:
    sample = random_sample(500, 2, seed=3)
    evaluation = Evaluation(["a", "b"])
    evaluation.update(sample.given, sample.predictions, rejects=7)
    counts = evaluation.metrics()["counts"]
    assert counts["read"] == 507
    kinds = ("scored", "abstained", "null_text", "empty_text", "failed", "rejects")
    assert sum(counts[name] for name in kinds) == 507
    assert sum(counts[name] for name in ("labelled", "unlabelled", "unknown_label")) == 500
    assert counts["evaluated"] == int(sample.evaluated.sum())
    assert min(n for name, n in counts.items() if not name.startswith("abstained")) > 0


def test_histograms_by_hand() -> None:
    sample = literal([0, 1, -1, 0], [[0.95, 0.05], [0.72, 0.28], [1.0, 0.0], [0.3, 0.7]], n_tokens=64)
    histograms = evaluate(sample, ["NEG", "POS"]).metrics()["histograms"]
    held = {
        kind: {k: n for k, n in enumerate(histograms["probability"][kind]) if n}
        for kind in ("correct", "wrong", "unlabelled")
    }
    assert held == {"correct": {18: 1}, "wrong": {13: 1, 14: 1}, "unlabelled": {19: 1}}
    assert histograms["n_tokens"]["counts"][histograms["n_tokens"]["edges"].index(64)] == 4
    assert histograms["predicted_labels"] == {"NEG": 3, "POS": 1}
    assert histograms["truncated"] == {"no": 4, "yes": 0}


@pytest.mark.parametrize(
    ("given_label", "probability", "message"),
    [(2, 0.5, "outside"), (0, float("nan"), "between 0 and 1"), (0, 1.5, "between 0 and 1")],
)
def test_rows_that_cannot_be_are_refused(given_label: int, probability: float, message: str) -> None:
    sample = literal([given_label], [[0.5, probability]])
    with pytest.raises(ValueError, match=message):
        evaluate(sample)


def test_columns_of_different_length_are_refused() -> None:
    p = literal([0], [[0.5, 0.5]]).predictions
    short = Predictions(p.status, p.predicted, p.probabilities, p.n_tokens[:0], p.truncated)
    with pytest.raises(ValueError, match="differ"):
        Evaluation(["a", "b"]).update(np.array([0]), short)


def test_evaluations_of_different_labels_do_not_merge() -> None:
    with pytest.raises(ValueError, match="different models"):
        Evaluation(["a", "b"]).merge(Evaluation(["b", "a"]))


def test_one_label_cannot_be_evaluated() -> None:
    with pytest.raises(ValueError, match="two labels"):
        Evaluation(["only"])
