"""Metrics of numbers, held against scikit-learn and scipy."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from task_samples import Rows, numbers

from batchscore.evaluation import RegressionEvaluation
from batchscore.evaluation.cells import Cells, keys_of, values_of
from batchscore.evaluation.far_off import FarOff
from batchscore.evaluation.ranks import spearman
from batchscore.evaluation.value_comparison import ValueComparison, ValueSliceChanges
from batchscore.evaluation.wide_sums import WIDE_BITS, wide_products, wide_sums
from batchscore.records import Predictions, Task

FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=64)


def rows(given: Any, values: Any) -> Rows:
    value = np.asarray(values, dtype=np.float32)
    n = len(value)
    columns = (
        np.zeros(n, dtype=np.int8),
        value,
        value[:, None],
        np.full(n, 30, dtype=np.int32),
        np.zeros(n, dtype=np.bool_),
    )
    return Rows(np.asarray(given, dtype=np.float64), Predictions(*columns))


def evaluate(sample: Rows, tolerance: float | None = 0.5, **more: Any) -> RegressionEvaluation:
    found = RegressionEvaluation("score", tolerance)
    found.update(*sample, **more)
    return found


def known(sample: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    chosen = np.isfinite(sample.given) & ~np.isnan(sample.predictions.predicted)
    return sample.given[chosen], sample.predictions.predicted[chosen].astype(np.float64)


@pytest.mark.parametrize("offset", [0.0, 1e6, -1e12], ids=["near zero", "far from zero", "very far"])
def test_it_agrees_with_scikit_learn_and_scipy(offset: float) -> None:
    sk, stats = pytest.importorskip("sklearn.metrics"), pytest.importorskip("scipy.stats")
    sample = numbers(4000, seed=1)
    scale = max(1.0, abs(offset) / 1e6)  # a float32 has seven digits
    sample = rows(sample.given * scale + offset, np.nan_to_num(sample.predictions.predicted) * scale + offset)
    truth, values = known(sample)
    quality = evaluate(sample).metrics()["quality"]
    assert quality["mae"]["value"] == pytest.approx(sk.mean_absolute_error(truth, values), rel=1e-12)
    assert quality["rmse"] == pytest.approx(sk.root_mean_squared_error(truth, values), rel=1e-12)
    assert quality["r2"] == pytest.approx(sk.r2_score(truth, values), rel=1e-9)
    assert quality["bias"] == pytest.approx((values - truth).mean(), rel=1e-9)
    pearson = stats.pearsonr(truth, values)
    assert quality["pearson"]["value"] == pytest.approx(pearson.statistic, rel=1e-9)
    ends = pearson.confidence_interval()
    assert (quality["pearson"]["low"], quality["pearson"]["high"]) == pytest.approx(
        (ends.low, ends.high), rel=1e-9
    )
    ranked = quality["spearman"]
    assert abs(ranked["value"] - stats.spearmanr(truth, values).statistic) <= ranked["error_bound"] + 1e-12
    interval = stats.ttest_1samp(np.abs(values - truth), 0).confidence_interval()
    assert (quality["mae"]["low"], quality["mae"]["high"]) == pytest.approx(
        (interval.low, interval.high), rel=1e-5
    )
    within = np.abs(values - truth) <= 0.5
    assert quality["within_tolerance"]["value"] == pytest.approx(within.mean(), abs=1e-12)
    for each in quality["within"]:
        assert (np.abs(values - truth) <= each["error"]).mean() >= each["share"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FLOATS, FLOATS), max_size=30))
def test_sums_and_products_of_any_floats_are_exact(pairs: list[tuple[float, float]]) -> None:
    left, right = (np.array([pair[k] for pair in pairs], dtype=np.float64) for k in (0, 1))
    assert Fraction(int(wide_sums(left)[0]), 2**WIDE_BITS) == sum(map(Fraction, left.tolist()))
    products = sum(Fraction(a) * Fraction(b) for a, b in pairs)
    assert Fraction(int(wide_products(left, right)[0]), 2**WIDE_BITS) == products


@given(st.lists(FLOATS, min_size=2, max_size=20))
def test_keys_are_in_the_order_of_the_numbers(values: list[float]) -> None:
    array = np.array(values, dtype=np.float64)
    assert np.array_equal(values_of(keys_of(array)), array)
    assert np.array_equal(np.argsort(keys_of(array), kind="stable"), np.argsort(array, kind="stable"))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 400))
def test_cells_depend_on_no_order_and_hold_every_row(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=600) * 10.0 ** rng.integers(-6, 7, 600)
    y = np.round(x + rng.normal(size=600), 1)
    whole, parts = Cells.empty(most, 2), [Cells.empty(most, 2) for _ in range(3)]
    whole.add(x, y)
    for part, chosen in zip(parts, np.array_split(rng.permutation(600), 3), strict=True):
        for piece in np.array_split(chosen, 4):
            part.add(x[piece], y[piece])
    parts[1].merge(parts[2])
    parts[1].merge(parts[0])
    assert json.dumps(parts[1].to_state()) == json.dumps(whole.to_state())
    assert (int(whole.counts.sum()), len(whole.counts) <= most) == (600, True)
    axis = whole.axis()
    held = ((x[:, None] >= axis.lows) & (x[:, None] <= axis.highs)).sum(axis=0)
    assert held.tolist() == axis.counts.tolist()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([16, 64, 300]), st.sampled_from([0.05, 1.0, 30.0]))
def test_spearman_is_within_its_bound(seed: int, most: int, noise: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(seed)
    x = rng.gamma(2, size=1500).astype(np.float32)
    y = np.round(x + rng.normal(size=1500) * noise, 2)
    cells = Cells.empty(most, 2)
    cells.add(x, y)
    found = spearman(cells)
    true = stats.spearmanr(x, y).statistic
    if found is None:
        return
    assert abs(found.value - true) <= found.error_bound + 1e-12
    assert abs(found.value - true) < 0.15 or most <= 64


def test_spearman_is_exact_as_long_as_the_pairs_fit() -> None:
    quality = evaluate(numbers(5000, seed=3)).metrics()["quality"]
    assert quality["spearman"]["error_bound"] == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_parts_merged_in_any_order_are_one_pass_bit_by_bit(seed: int) -> None:
    rng, sample = np.random.default_rng(seed), numbers(3000, seed=seed)
    sample.given[:3] = 1e300, -1e-300, 7.25
    whole = evaluate(sample, slices={"file": "a"}, rejects=4)
    order = rng.permutation(len(sample.given))
    parts = [
        evaluate(sample.take(chosen), slices={"file": "a"}, rejects=1) for chosen in np.array_split(order, 4)
    ]
    first, *others = (parts[k] for k in rng.permutation(4))
    for other in others:
        first.merge(RegressionEvaluation.from_state(json.loads(json.dumps(other.to_state()))))
    assert json.dumps(first.metrics(), allow_nan=False) == json.dumps(whole.metrics())
    assert json.dumps(first.to_state()) == json.dumps(whole.to_state())


def test_huge_and_tiny_numbers_lose_nothing() -> None:
    quality = evaluate(rows([1e300, -1e300, 1.0, 2.0], [0.0, 0.0, 1.5, 2.5])).metrics()["quality"]
    assert quality["bias"] == 0.25
    assert quality["mae"]["value"] == pytest.approx(5e299)
    assert quality["rmse"] == pytest.approx(math.sqrt(0.5) * 1e300)
    json.dumps(quality, allow_nan=False)


def test_rows_without_a_number_or_with_none_that_can_be_read_are_counted_apart() -> None:
    counts = evaluate(rows([1.0, np.nan, np.inf, 2.0], [1.0, 1.0, 1.0, 3.0])).metrics()["counts"]
    assert {name: counts[name] for name in ("labelled", "unlabelled", "unknown_label", "evaluated", "correct")} == {
        "labelled": 2, "unlabelled": 1, "unknown_label": 1, "evaluated": 2, "correct": 1,
    }  # fmt: skip


def test_without_given_numbers_there_is_no_quality_and_without_a_tolerance_nothing_is_right() -> None:
    assert evaluate(numbers(50).unlabelled(Task.REGRESSION)).metrics()["quality"] is None
    found = evaluate(numbers(50), None).metrics()
    assert (found["quality"]["within_tolerance"], found["counts"]["correct"]) == (None, 0)
    one = evaluate(rows([1.0], [2.0])).metrics()["quality"]
    assert (one["mae"], one["r2"], one["pearson"], one["spearman"]) == ({"value": 1.0}, None, None, None)


def test_histograms_count_every_row_once() -> None:
    sample = numbers(3000, seed=5)
    found = evaluate(sample).metrics()
    truth, values = known(sample)
    counts = found["quality"]["residuals"]
    assert counts["below"] + sum(counts["counts"]) + counts["above"] == len(truth)
    edges = np.array(counts["edges"])
    assert (
        counts["counts"]
        == np.histogram(values - truth, np.append(edges[:-1], np.nextafter(edges[-1], -9)))[0].tolist()
    )
    joint = found["quality"]["predicted_vs_given"]
    assert np.sum(joint["counts"]) == len(truth)
    assert joint["edges"][0] == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    stored = found["histograms"]["value"]
    assert (sum(stored["counts"]), len(stored["counts"]) <= 512) == (found["counts"]["scored"], True)


@pytest.mark.parametrize(
    ("sample", "told"),
    [(rows([1.0], [np.nan]), "finite"), (rows([1.0, 2.0], [1.0]), "differ")],
    ids=["no finite value", "another length"],
)
def test_rows_that_cannot_be_are_refused(sample: Rows, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        evaluate(sample)


def test_a_slice_that_is_further_off_is_marked() -> None:
    sample = numbers(6000, seed=2)
    entries = {(e["column"], e["value"]): e for e in evaluate(sample).metrics()["slices"]}
    assert entries["truncated", "yes"]["worse"]
    assert not entries["truncated", "no"]["worse"]
    truth, values = known(sample)
    both = entries["truncated", "no"], entries["truncated", "yes"]
    mean = sum(e["mae"]["value"] * e["evaluated"] for e in both) / len(truth)
    assert mean == pytest.approx(np.abs(truth - values).mean(), rel=1e-9)


def test_two_runs_are_compared_by_a_paired_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    truth = rng.normal(size=300)
    before, after = truth + rng.normal(size=300), truth + 0.9 * rng.normal(size=300)
    compared = ValueComparison()
    given_now = np.append(truth, [np.nan, 1.0])
    compared.update(
        given_now,
        np.append(before, [1.0, np.nan]),
        np.append(after, [1.0, 1.0]),
        np.append(truth + 1, [1, 1]),
    )
    found = compared.summary()
    was, now = np.abs(before - truth), np.abs(after - truth)
    test = stats.ttest_rel(now, was)
    assert (found["rows"], found["not_compared"], found["evaluated"], found["relabelled"]) == (
        301,
        1,
        300,
        300,
    )
    assert (found["closer"], found["further"]) == ((now < was).sum(), (now > was).sum())
    assert found["mae_change"]["value"] == pytest.approx((now - was).mean(), rel=1e-9)
    ends = test.confidence_interval()
    assert (found["mae_change"]["low"], found["mae_change"]["high"]) == pytest.approx(
        (ends.low, ends.high), rel=1e-4
    )
    assert found["p_value"] == pytest.approx(test.pvalue, rel=0.02, abs=1e-12)
    halves = ValueComparison(), ValueComparison()
    for half, chosen in zip(halves, (slice(0, 100), slice(100, 300)), strict=True):
        half.update(truth[chosen], before[chosen], after[chosen])
    halves[0].merge(halves[1])
    assert halves[0].summary()["mae_change"] == found["mae_change"]


def test_slices_of_two_runs_are_tested_too() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=400)
    half = np.arange(400) % 2 == 0
    before = truth + 0.2 * rng.normal(size=400)
    after = np.where(half, truth + 0.8 * rng.normal(size=400), before)
    changes = ValueSliceChanges()
    changes.update(truth, before, after, (half, np.full(400, 30)), {})
    found = {e["value"]: e for e in changes.summary() if e["column"] == "truncated"}
    assert (found["yes"]["worse"], found["no"]["worse"], found["no"]["changed"]) == (True, False, 0)


def test_rows_are_ranked_by_how_far_they_are_off() -> None:
    ranking = FarOff(0.5)
    quality = ranking.quality(
        np.array([1.0, np.nan, 4.0]), np.array([[1.25], [2.0], [1.0]], dtype=np.float32)
    )
    assert quality[[0, 2]].tolist() == [-0.25, -3.0]
    assert np.isnan(quality[1])
    assert ranking.summary() == {"labelled": 2, "tolerance": 0.5, "beyond": 1}
    assert not ranking.is_label_issue(quality).any()
