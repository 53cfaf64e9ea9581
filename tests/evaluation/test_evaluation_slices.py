from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from evaluation_samples import literal
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from batchscore.evaluation import Evaluation
from batchscore.evaluation.significance import (
    chi_square_99,
    fisher_p,
    holm,
    mcnemar_p,
    paired_difference,
    two_proportion_p,
    worse_p,
)


def sliced(groups: dict[str | None, tuple[int, int]], n_tokens: int = 10) -> dict[str, dict[str, Any]]:
    """Entries of a column with (wrong, right) rows a value; every probability is 0.75."""
    values = [value for value, (wrong, right) in groups.items() for _ in range(wrong + right)]
    given_labels = [k < wrong for wrong, right in groups.values() for k in range(wrong + right)]
    sample = literal([int(is_wrong) for is_wrong in given_labels], [[0.75, 0.25]] * len(values), n_tokens)
    evaluation = Evaluation(["a", "b"])
    evaluation.update(sample.given, sample.predictions, slices={"brand": values})
    return {entry["value"]: entry for entry in evaluation.metrics()["slices"] if entry["column"] == "brand"}


def test_a_slice_by_hand() -> None:
    entry = sliced({"x": (1, 3), None: (0, 4)})["x"]
    assert (entry["rows"], entry["evaluated"], entry["accuracy"]["value"], entry["expected_accuracy"]) == (
        4,
        4,
        0.75,
        0.75,
    )
    assert (entry["p_value"], entry["worse"]) == (None, False)


def test_a_clearly_worse_slice_is_called_so_and_its_peers_are_not() -> None:
    entries = sliced({"bad": (40, 60), "good": (10, 90), "fine": (12, 88)})
    assert {value: entry["worse"] for value, entry in entries.items()} == {
        "bad": True,
        "good": False,
        "fine": False,
    }


def test_a_slice_under_twenty_rows_is_never_called_worse() -> None:
    entries = sliced({"tiny": (19, 0), "rest": (0, 500)})
    assert (entries["tiny"]["p_value"], entries["tiny"]["worse"]) == (None, False)
    assert sliced({"small": (20, 0), "rest": (0, 500)})["small"]["worse"]


def test_the_many_slices_of_one_model_are_not_called_worse_by_chance() -> None:
    rng, alarms = np.random.default_rng(1), 0
    for _ in range(40):
        wrong = rng.binomial(100, 0.2, size=60)
        entries = sliced({f"value {k}": (int(w), int(100 - w)) for k, w in enumerate(wrong)})
        alarms += any(entry["worse"] for entry in entries.values())
    assert alarms <= 6


def evaluation_of(values: Sequence[str | None], column: str = "brand") -> Evaluation:
    sample = literal([0] * len(values), [[0.75, 0.25]] * len(values))
    evaluation = Evaluation(["a", "b"])
    evaluation.update(sample.given, sample.predictions, slices={column: values})
    return evaluation


def test_values_beyond_two_hundred_are_counted_together() -> None:
    values = [f"{k:05}" for k in range(1000)]
    entries = [entry for entry in evaluation_of(values).metrics()["slices"] if entry["column"] == "brand"]
    assert [entry["value"] for entry in entries] == [*values[:200], "(other)"]
    assert entries[-1]["rows"] == 800


@given(st.lists(st.integers(0, 400), min_size=1, max_size=600), st.integers(1, 20))
def test_which_values_are_kept_does_not_depend_on_order(values: list[int], parts: int) -> None:
    texts = [str(value) for value in values]
    merged = Evaluation(["a", "b"])
    for k in range(min(parts, len(texts))):
        merged.merge(evaluation_of(texts[k::parts][::-1]))
    assert merged.slices.to_state() == evaluation_of(texts).slices.to_state()


def test_long_values_are_cut_and_null_has_a_name() -> None:
    entries = evaluation_of([None, "x" * 500]).metrics()["slices"]
    assert [entry["value"] for entry in entries if entry["column"] == "brand"] == ["x" * 100, "(null)"]


@pytest.mark.parametrize(
    ("n_tokens", "band"),
    [
        (1, "1-64"),
        (64, "1-64"),
        (65, "65-128"),
        (128, "65-128"),
        (256, "129-256"),
        (512, "257-512"),
        (513, ">512"),
    ],
)
def test_lengths_fall_into_their_band(n_tokens: int, band: str) -> None:
    sample = literal([0], [[0.75, 0.25]], n_tokens=n_tokens)
    evaluation = Evaluation(["a", "b"])
    evaluation.update(sample.given, sample.predictions, slices={"file": "a.csv", "n_tokens": ["mine"]})
    found = [(entry["column"], entry["value"]) for entry in evaluation.metrics()["slices"]]
    assert found == [("n_tokens", band), ("truncated", "no"), ("file", "a.csv"), ("n_tokens (input)", "mine")]


COUNTS = st.tuples(st.integers(0, 40), st.integers(1, 60), st.integers(0, 40), st.integers(1, 60))


@given(COUNTS)
def test_fishers_test_is_that_of_scipy(counts: tuple[int, int, int, int]) -> None:
    wrong, right, wrong_rest, right_rest = counts
    expected = stats.fisher_exact([[wrong, right], [wrong_rest, right_rest]], alternative="greater").pvalue
    assert fisher_p(wrong, wrong + right, wrong_rest, wrong_rest + right_rest) == pytest.approx(
        expected, rel=1e-9
    )


@given(COUNTS)
def test_the_z_test_is_the_root_of_the_chi_square_test(counts: tuple[int, int, int, int]) -> None:
    wrong, right, wrong_rest, right_rest = counts
    p = two_proportion_p(wrong, wrong + right, wrong_rest, wrong_rest + right_rest)
    if wrong + wrong_rest == 0:
        assert p == 1.0
    else:
        two_sided = stats.chi2_contingency(
            [[wrong, right], [wrong_rest, right_rest]], correction=False
        ).pvalue
        assert min(2 * p, 2 * (1 - p)) == pytest.approx(two_sided, abs=1e-9)


def test_few_expected_errors_are_tested_exactly() -> None:
    assert worse_p(8, 30, 2, 45) == fisher_p(8, 30, 2, 45)  # 30 * 10 / 75 = 4 expected
    assert worse_p(10, 30, 5, 60) == two_proportion_p(10, 30, 5, 60)  # 30 * 15 / 90 = 5 expected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(new >= old for new, old in zip(adjusted, p_values, strict=True))
    assert sorted(adjusted) == [adjusted[k] for k in np.argsort(p_values, kind="stable")]
    assert min(adjusted) == min(1.0, len(p_values) * min(p_values))


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemars_test_is_the_binomial_test_of_scipy(fixed: int, broken: int) -> None:
    expected = stats.binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    assert mcnemar_p(fixed, broken) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(("fixed", "broken"), [(500_000, 501_000), (900_000, 100_000), (3, 10_000_000)])
def test_mcnemars_test_holds_for_millions_of_rows(fixed: int, broken: int) -> None:
    expected = min(1.0, 2 * stats.binom.cdf(min(fixed, broken), fixed + broken, 0.5))
    assert mcnemar_p(fixed, broken) == pytest.approx(expected, rel=1e-6, abs=1e-300)


def test_the_paired_interval_by_hand() -> None:
    # Bonett and Price: (9/102, 3/102), centre 6/102, variance (12/102 - (6/102)^2) / 102
    found = paired_difference(fixed=8, broken=2, rows=100)
    assert found is not None
    spread = 1.959963984540054 * np.sqrt((12 / 102 - (6 / 102) ** 2) / 102)
    assert found == pytest.approx((0.06, 6 / 102 - spread, 6 / 102 + spread))


@pytest.mark.parametrize("degrees", [1, 2, 5, 19, 100])
def test_the_chi_square_point_is_that_of_scipy_within_two_percent(degrees: int) -> None:
    assert chi_square_99(degrees) == pytest.approx(
        stats.chi2.ppf(0.99, degrees), rel=0.02 if degrees == 1 else 0.01
    )
