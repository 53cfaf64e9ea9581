"""Shares of all rows from rows drawn at random, held against scipy and against every possible draw."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from batchscore.evaluation.draws import DrawnShare, drawn_share, least_good


@pytest.mark.parametrize(
    ("population", "drawn", "good"), [(20, 7, 3), (1000, 50, 48), (10**7, 200, 188), (300, 300, 41)]
)
def test_the_lower_end_is_where_scipy_has_it(population: int, drawn: int, good: int) -> None:
    found = least_good(population, drawn, good)
    tail = stats.hypergeom.sf(good - 1, population, [found - 1, found], drawn)
    assert tail[0] <= 0.025 < tail[1] or drawn == population


def test_the_interval_holds_in_95_percent_of_all_draws_whatever_the_truth() -> None:
    population, drawn = 14, 5
    for good in range(population + 1):
        rows = np.arange(population) < good
        held, shares = [], []
        for chosen in itertools.combinations(range(population), drawn):
            seen = int(rows[list(chosen)].sum())
            share = DrawnShare(population, drawn, seen, drawn - seen)
            low, high = share.interval()
            held.append(low <= good / population <= high)
            shares.append(share.least)
        assert np.mean(held) >= 0.95
        assert np.mean(shares) == pytest.approx(good / population)  # unbiased


def test_rows_that_nobody_could_judge_widen_it_to_either_side() -> None:
    sure, unsure = DrawnShare(1000, 100, 80, 20), DrawnShare(1000, 100, 70, 15)
    assert (unsure.least, unsure.most, unsure.unsure) == (0.70, 0.85, 15)
    assert unsure.interval()[0] < sure.interval()[0] < sure.interval()[1] < unsure.interval()[1]
    assert unsure.to_json()["value"] is None
    assert sure.to_json()["value"] == 0.8
    assert drawn_share(1000, 0, 0, 0) is None
