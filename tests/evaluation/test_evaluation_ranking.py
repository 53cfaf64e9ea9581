from __future__ import annotations

import numpy as np
import pytest
from evaluation_samples import evaluate, literal, random_sample
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn import metrics as sk

from batchscore.evaluation.ranking import (
    average_precision,
    bin_of,
    is_single_valued,
    n_bins,
    precision_recall,
    roc_auc,
)

UNIT = st.floats(0, 1, width=32)


def binned(probabilities: NDArray[np.float32], bits: int = 10) -> NDArray[np.int64]:
    return bin_of(np.asarray(probabilities, dtype=np.float32), bits)


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=UNIT), st.sampled_from([4, 7, 10]))
def test_bins_rise_with_the_probability_and_stay_in_range(values: NDArray[np.float32], bits: int) -> None:
    bins = binned(np.sort(values), bits)
    assert (np.diff(bins) >= 0).all()
    assert bins.min() >= 0
    assert bins.max() < n_bins(bits)


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        (0.0, 1e-9),
        (1e-9, 1.01e-9),
        (0.0001, 0.000101),
        (0.5, 0.5 + 2**-10),
        (0.9998, 0.99985),
        (1 - 2**-24, 1.0),
    ],
)
def test_close_probabilities_fall_into_different_bins_at_both_ends(lower: float, higher: float) -> None:
    low, high = binned(np.array([lower, higher], dtype=np.float32))
    assert low < high


@pytest.mark.parametrize("sharpness", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("n_labels", [2, 3, 20])
def test_areas_differ_from_scikit_learn_by_no_more_than_the_error_bound(
    n_labels: int, sharpness: float
) -> None:
    sample = random_sample(3000, n_labels, seed=n_labels, sharpness=sharpness)
    labels, _, probabilities = sample.known()
    tables = evaluate(sample).metrics()["quality"]["per_label"].values()
    for label, table in enumerate(tables):
        for name, oracle in (
            ("roc_auc", sk.roc_auc_score),
            ("average_precision", sk.average_precision_score),
        ):
            exact = oracle(labels == label, probabilities[:, label])
            assert abs(table[name]["value"] - exact) <= table[name]["error_bound"] + 1e-12
            assert table[name]["error_bound"] < 0.01


def test_the_macro_mean_is_that_of_scikit_learn_within_its_bound() -> None:
    sample = random_sample(3000, 4, seed=9)
    labels, _, probabilities = sample.known()
    found = evaluate(sample).metrics()["quality"]["roc_auc"]
    exact = np.mean([sk.roc_auc_score(labels == k, probabilities[:, k]) for k in range(4)])
    assert abs(found["value"] - exact) <= found["error_bound"] + 1e-12


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from([0.5, 0.5004, 0.9, 0.90001, 1 - 3 * 2**-24, 1 - 2**-23, 1 - 2**-24, 1.0]) | UNIT,
        ),
        min_size=2,
        max_size=40,
    ).filter(lambda rows: 0 < sum(kind for kind, _ in rows) < len(rows))
)
def test_the_bounds_hold_for_any_ties(rows: list[tuple[bool, float]]) -> None:
    positive = np.array([kind for kind, _ in rows])
    scores = np.array([score for _, score in rows], dtype=np.float32)
    counts = [np.bincount(binned(scores[kind], 4), minlength=n_bins(4)) for kind in (~positive, positive)]
    for ours, oracle in ((roc_auc, sk.roc_auc_score), (average_precision, sk.average_precision_score)):
        area = ours(counts[0], counts[1], is_single_valued(4))
        assert area is not None
        assert abs(area.value - oracle(positive, scores)) <= area.error_bound + 1e-12


@pytest.mark.parametrize(
    ("probability", "bound"),
    [(0.5, 0.0), (1.0, 0.0), (0.7, 0.5)],
    ids=["a half", "certain", "a bin of many values"],
)
def test_one_value_for_all_rows_is_worth_a_coin_toss(probability: float, bound: float) -> None:
    table = evaluate(literal([0, 1, 1, 1], [[1 - probability, probability]] * 4)).metrics()["quality"][
        "per_label"
    ]["L1"]
    assert table["roc_auc"] == {"value": 0.5, "error_bound": bound}
    assert table["average_precision"]["value"] == 0.75


@pytest.mark.parametrize("bits", [4, 7, 10])
def test_a_bin_said_to_hold_one_value_holds_one(bits: int) -> None:
    single = np.flatnonzero(is_single_valued(bits))
    last = np.nextafter(np.float32(1), np.float32(0))
    values = [np.float32(1)]
    while is_single_valued(bits)[binned(np.array([last]), bits)[0]]:
        values.append(last)
        last = np.nextafter(last, np.float32(0))
    bins = binned(np.array([0.5, *values], dtype=np.float32), bits)
    assert len(set(bins.tolist())) == len(values) + 1
    assert set(bins.tolist()) <= set(single.tolist())
    below = binned(np.array([last, np.nextafter(last, np.float32(0))]), bits)
    assert below[0] == below[1]


def test_memory_stays_bounded_with_many_labels() -> None:
    assert evaluate(random_sample(10, 500, seed=0)).ranking.counts.nbytes < 64 * 2**20


@pytest.mark.parametrize("rows", [1, 7, 400, 5000])
def test_the_curve_is_that_of_scikit_learn_at_the_thresholds_it_tells(rows: int) -> None:
    rng = np.random.default_rng(rows)
    values = rng.integers(1, 64, rows).astype(np.float32) / 64  # each in a bin of its own
    given = rng.random(rows) < values
    given[0] = True
    counts = [np.bincount(binned(values[given == side]), minlength=n_bins(10)) for side in (False, True)]
    recall, precision = precision_recall(*counts)
    exact = sk.precision_recall_curve(given, values, drop_intermediate=False)
    points = {(round(r, 9), round(p, 9)) for p, r in zip(exact[0][:-1], exact[1][:-1], strict=True)}
    assert {(round(r, 9), round(p, 9)) for r, p in zip(recall, precision, strict=True)} <= points
    assert recall == sorted(recall)
    assert recall[-1] == 1.0
    steps = {min(r for r, _ in points if r >= k / 50 - 1e-9) for k in range(1, 51)}
    assert steps <= {round(r, 9) for r in recall}


def test_a_label_that_never_occurs_has_no_curve() -> None:
    assert precision_recall(np.array([1, 2]), np.array([0, 0])) == ([], [])
