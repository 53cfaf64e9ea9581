from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.evaluation import Comparison, SliceChanges
from batchscore.evaluation.slices import LENGTH_BANDS


def changes(
    given_labels: list[int], before: list[int], after: list[int], shop: Sequence[str | None]
) -> SliceChanges:
    found, n = SliceChanges(), len(shop)
    labels, old, new = (np.array(each) for each in (given_labels, before, after))
    found.update(labels, old, new, (np.zeros(n, dtype=np.bool_), np.full(n, 10)), {"shop": shop})
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_a_slice_is_told_as_a_comparison_of_its_rows_alone(seed: int, parts: int) -> None:
    rng, n = np.random.default_rng(seed), 400
    labels, before, after = (rng.integers(low, 3, n) for low in (-2, -3, -1))
    n_tokens, shop = rng.integers(-1, 900, n), rng.integers(0, 4, n)
    found = SliceChanges()
    for rows in np.array_split(rng.permutation(n), parts):
        lengths = (n_tokens[rows] > 512, n_tokens[rows])
        found.update(labels[rows], before[rows], after[rows], lengths, {"shop": shop[rows].tolist()})
    told = {(each["column"], each["value"]): each for each in found.summary()}
    masks = {("shop", str(k)): shop == k for k in range(4)}
    masks |= {("truncated", name): (n_tokens > 512) == (name == "yes") for name in ("no", "yes")}
    masks[("n_tokens", LENGTH_BANDS[1])] = (n_tokens > 64) & (n_tokens <= 128)
    for place, mask in masks.items():
        alone = Comparison.empty(3)
        alone.update(labels[mask], before[mask], after[mask])
        expected = alone.summary(["a", "b", "c"])
        for key in ("rows", "changed", "evaluated", "fixed", "broken", "accuracy_change"):
            assert told[place][key] == expected[key], (place, key)
        for key in ("accuracy_before", "accuracy_after"):
            assert told[place][key] == pytest.approx(expected[key]["value"])


def test_only_the_slice_that_got_clearly_worse_is_called_so() -> None:
    # 40 rows a shop: in "bad" 15 right ones are broken, in "even" 8 are fixed and 8 broken
    shop: Sequence[str | None] = ["bad"] * 40 + ["even"] * 40 + ["few"] * 10
    before = [0] * 40 + [0] * 20 + [1] * 20 + [0] * 10
    after = [1] * 15 + [0] * 25 + [1] * 8 + [0] * 12 + [0] * 8 + [1] * 12 + [1] * 10
    told = {each["value"]: each for each in changes([0] * 90, before, after, shop).summary()}
    assert {value: told[value]["worse"] for value in ("bad", "even", "few")} == {
        "bad": True,
        "even": False,
        "few": False,
    }
    assert told["few"]["p_value"] is None  # too few rows to be tested
    assert told["no"]["p_value"] is None  # all rows of its column: the comparison of all says that
    assert (told["bad"]["accuracy_before"], told["bad"]["accuracy_after"]) == (1.0, 25 / 40)


def test_values_beyond_two_hundred_are_counted_together() -> None:
    shop: Sequence[str | None] = [f"{k:04}" for k in range(500)]
    told = [
        each for each in changes([0] * 500, [0] * 500, [1] * 500, shop).summary() if each["column"] == "shop"
    ]
    assert [len(told), told[-1]["value"], told[-1]["rows"]] == [201, "(other)", 300]
