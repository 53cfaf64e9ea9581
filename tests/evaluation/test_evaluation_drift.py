from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
from evaluation_samples import evaluate, literal, random_sample
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from batchscore.errors import DataError
from batchscore.evaluation import Comparison, Distributions, Evaluation, measure_drift
from batchscore.evaluation.distributions import LabelDistributions
from batchscore.evaluation.drift import js_distance, ks, psi

COUNTS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=2, max_size=20).filter(
    lambda pairs: all(sum(column) for column in zip(*pairs, strict=True))
)


@given(COUNTS)
def test_the_jensen_shannon_distance_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    before, after = np.array(pairs).T
    with np.errstate(all="ignore"):
        expected = jensenshannon(before, after, base=2)
    assert js_distance(before, after) == pytest.approx(0 if math.isnan(expected) else expected, abs=1e-7)


@given(COUNTS)
def test_the_kolmogorov_smirnov_distance_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    before, after = np.array(pairs).T
    bins = np.arange(len(pairs))
    expected = stats.ks_2samp(np.repeat(bins, before), np.repeat(bins, after), method="asymp").statistic
    assert ks(before, after) == pytest.approx(expected, abs=1e-12)


def test_the_stability_index_by_hand() -> None:
    p, q = np.array([50.5, 50.5]) / 101, np.array([80.5, 20.5]) / 101
    expected = (q[0] - p[0]) * math.log(q[0] / p[0]) + (q[1] - p[1]) * math.log(q[1] / p[1])
    assert psi(np.array([50, 50, 0]), np.array([80, 20, 0])) == pytest.approx(expected)


@given(COUNTS)
def test_the_stability_index_is_symmetric_finite_and_zero_for_equals(pairs: list[tuple[int, int]]) -> None:
    before, after = np.array(pairs).T
    assert math.isfinite(psi(before, after))
    assert psi(before, after) == pytest.approx(psi(after, before))
    assert psi(before, before) == 0


def distributions(positive: int, negative: int, **changes: Any) -> Distributions:
    rows = positive + negative
    fields: dict[str, Any] = {
        "predicted_labels": {"POS": positive, "NEG": negative},
        "probability": (rows,) + (0,) * 19,
        "n_tokens": (rows,) + (0,) * 13,
        "truncated": (rows, 0),
    }
    return LabelDistributions(**{**fields, **changes})


@pytest.mark.parametrize(
    ("positive", "verdict"),
    [
        (5000, "no change"),
        (5700, "no change"),
        (6500, "no change"),
        (6700, "small shift"),
        (7300, "small shift"),
        (7450, "clear shift"),
    ],
)
def test_verdicts_follow_the_convention(positive: int, verdict: str) -> None:
    report = measure_drift(distributions(5000, 5000), distributions(positive, 10000 - positive))
    assert (report.verdict, report.distributions[0].verdict) == (verdict, verdict)
    assert (report.value or 0) == pytest.approx(report.distributions[0].psi, abs=0.09)


def test_a_shift_that_chance_explains_is_no_change() -> None:
    report = measure_drift(distributions(5, 5), distributions(8, 2))
    labels = report.distributions[0]
    assert labels.psi is not None
    assert labels.noise is not None
    assert labels.noise > labels.psi > 0.25
    assert (report.verdict, report.value) == ("no change", 0.0)


def test_equal_distributions_seldom_exceed_the_noise() -> None:
    rng, share = np.random.default_rng(0), np.full(20, 0.05)
    draws = rng.multinomial(2000, share, size=(400, 2))
    noise = measure_drift(
        distributions(1000, 1000, probability=tuple(draws[0][0])),
        distributions(1000, 1000, probability=tuple(draws[0][1])),
    ).distributions[1]
    exceeded = sum(psi(before, after) > (noise.noise or 0) for before, after in draws)
    assert exceeded <= 12


def test_a_run_is_compared_by_its_metrics_file() -> None:
    metrics = evaluate(random_sample(800, 3, seed=1)).metrics()
    same = Distributions.from_metrics(json.loads(json.dumps(metrics)))
    report = measure_drift(same, Distributions.from_metrics(metrics)).to_json()
    assert (report["value"], report["verdict"]) == (0.0, "no change")
    assert [d["distribution"] for d in report["distributions"]] == [
        "predicted_labels",
        "probability",
        "n_tokens",
        "truncated",
    ]
    assert {d["js_distance"] for d in report["distributions"]} == {0.0}
    assert isinstance(same, LabelDistributions)
    assert sum(same.probability) == sum(same.n_tokens) == metrics["counts"]["scored"]


def test_labels_are_matched_by_name() -> None:
    before = distributions(10, 990, predicted_labels={"NEG": 990, "POS": 10})
    assert measure_drift(before, distributions(10, 990)).distributions[0].psi == 0


def test_without_scored_rows_there_is_nothing_to_compare() -> None:
    empty = Distributions.from_metrics(Evaluation(["POS", "NEG"]).metrics())
    report = measure_drift(empty, distributions(5, 5))
    assert (report.verdict, report.value) == ("nothing to compare", None)


@pytest.mark.parametrize("broken", ["histograms", "edges"])
def test_metrics_of_another_version_are_refused(broken: str) -> None:
    metrics = copy.deepcopy(evaluate(random_sample(20, 2, seed=1)).metrics())
    if broken == "histograms":
        del metrics["histograms"]
    else:
        metrics["histograms"]["n_tokens"]["edges"][1] = 17
    with pytest.raises(DataError, match="score that run again"):
        Distributions.from_metrics(metrics)


def comparison_by_hand() -> dict[str, Any]:
    comparison = Comparison.empty(3)
    given_labels = np.array([0, 0, 0, 1, 1, -1, 0, -2])
    before = np.array([0, 1, 0, 0, 2, 0, -1, 1])
    after = np.array([0, 0, 1, 2, 2, 1, 0, 1])
    comparison.update(given_labels[:3], before[:3], after[:3])
    rest = Comparison.empty(3)
    rest.update(given_labels[3:], before[3:], after[3:])
    comparison.merge(rest)
    return comparison.summary(["a", "b", "c"])


def test_a_comparison_by_hand() -> None:
    found = comparison_by_hand()
    assert {key: found[key] for key in ("rows", "not_compared", "changed", "evaluated")} == {
        "rows": 7,
        "not_compared": 1,
        "changed": 4,
        "evaluated": 5,
    }
    assert (found["fixed"], found["broken"], found["both_wrong_changed"]) == (1, 1, 1)
    assert (found["accuracy_before"]["value"], found["accuracy_after"]["value"]) == (0.4, 0.4)
    assert (found["accuracy_change"]["value"], found["p_value"]) == (0.0, 1.0)
    assert found["changes"] == {"labels": ["a", "b", "c"], "counts": [[1, 2, 1], [1, 1, 0], [0, 0, 1]]}


def test_a_comparison_without_labels_says_what_changed_only() -> None:
    comparison = Comparison.empty(2)
    comparison.update(np.array([-1, -1]), np.array([0, 1]), np.array([1, 1]))
    found = comparison.summary(["a", "b"])
    assert found["changed"] == 1
    assert [found[key] for key in ("accuracy_before", "accuracy_change", "p_value")] == [None, None, None]


def test_drift_between_literal_runs_is_seen_in_lengths() -> None:
    runs = [evaluate(literal([-1] * 500, [[0.75, 0.25]] * 500, n_tokens=n)).metrics() for n in (20, 300)]
    report = measure_drift(*(Distributions.from_metrics(run) for run in runs))
    verdicts = {d.distribution: (d.verdict, d.ks) for d in report.distributions}
    assert verdicts["n_tokens"] == ("clear shift", 1.0)
    assert verdicts["probability"] == ("no change", 0.0)
