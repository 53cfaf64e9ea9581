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
    found = [DrawnShare(population, drawn, seen, drawn - seen) for seen in range(drawn + 1)]
    ends = np.array([share.interval() for share in found])
    draws = np.array(list(itertools.combinations(range(population), drawn)))
    for good in range(population + 1):
        seen = (draws < good).sum(axis=1)  # the first rows are the good ones
        low, high = ends[seen].T
        assert np.mean((low <= good / population) & (good / population <= high)) >= 0.95
        shares = [found[each].least for each in seen]
        assert np.mean(shares) == pytest.approx(good / population)  # unbiased


def test_rows_that_nobody_could_judge_widen_it_to_either_side() -> None:
    sure, unsure = DrawnShare(1000, 100, 80, 20), DrawnShare(1000, 100, 70, 15)
    assert (unsure.least, unsure.most, unsure.unsure) == (0.70, 0.85, 15)
    assert unsure.interval()[0] < sure.interval()[0] < sure.interval()[1] < unsure.interval()[1]
    assert unsure.to_json()["value"] is None
    assert sure.to_json()["value"] == 0.8
    assert drawn_share(1000, 0, 0, 0) is None
