"""The batch plan: letters for tokens, literal plans, no model."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.model import batching
from batchscore.model.batching import Padding, TokenTypes, assemble, plan, plan_sequences

RIGHT = Padding(512, 0)


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [
        pytest.param([], 16, [], id="nothing"),
        pytest.param([5], 16, [[0]], id="one"),
        pytest.param([3, 9, 4, 8], 16, [[1], [3, 2], [0]], id="longest first"),
        pytest.param([8, 8, 8], 16, [[0, 1], [2]], id="equal lengths keep their order"),
        pytest.param([16, 2], 8, [[0], [1]], id="an oversized row goes through alone"),
        pytest.param([1, 1, 1, 1], 16, [[0, 1], [2, 3]], id="short rows are padded to the multiple"),
        pytest.param([9, 1, 16, 8], 64, [[2, 0], [3, 1]], id="one padded length in a micro-batch"),
    ],
)
@pytest.mark.parametrize("way", ["right", "left"])
def test_a_plan_is_what_it_should_be(
    way: str, lengths: list[int], budget: int, expected: list[list[int]]
) -> None:
    padding = Padding(16, 0, way, multiple=8)
    assert [batch.tolist() for batch in plan(lengths, budget, padding)] == expected


@pytest.mark.parametrize(
    ("way", "lengths", "budget", "expected"),
    [
        pytest.param("none", [], 16, [], id="none: nothing"),
        pytest.param("none", [3, 9, 3, 9, 4], 99, [[1, 3], [4], [0, 2]], id="none: one length together"),
        pytest.param("none", [3, 3, 3, 3], 7, [[0, 1], [2, 3]], id="none: what fits without padding"),
        pytest.param("none", [9, 9], 8, [[0], [1]], id="none: an oversized row goes through alone"),
        pytest.param("single", [3, 9, 3], 99, [[1], [0], [2]], id="single: each by itself"),
    ],
)
def test_a_plan_without_padding_is_what_it_should_be(
    way: str, lengths: list[int], budget: int, expected: list[list[int]]
) -> None:
    assert [batch.tolist() for batch in plan(lengths, budget, Padding(16, 0, way))] == expected


@pytest.mark.parametrize(
    ("n_tokens", "longest", "expected"),
    [(1, 512, 16), (16, 512, 16), (33, 512, 48), (510, 511, 511), (40, 33, 40)],
)
def test_lengths_are_rounded_up_but_not_beyond_the_model(n_tokens: int, longest: int, expected: int) -> None:
    assert Padding(longest, 0).width(n_tokens) == expected
    assert Padding(longest, 0, "left").width(n_tokens) == expected
    assert Padding(longest, 0, "none").width(n_tokens) == n_tokens
    assert Padding(longest, 0, "single").width(n_tokens) == n_tokens


def test_a_sequence_longer_than_any_that_was_tried_goes_by_itself_and_unpadded() -> None:
    padding = Padding(64, 0, multiple=8, longest_probe=20)
    assert [batch.tolist() for batch in plan([9, 21, 20, 30, 17], 999, padding)] == [[3], [1], [2, 4], [0]]
    assert [padding.width(n) for n in (21, 20)] == [21, 24]


lengths_of_rows = st.lists(st.integers(1, 512), max_size=300)
ways = st.sampled_from(batching.PADDING_MODES)


@given(lengths_of_rows, st.integers(1, 20_000), ways)
def test_every_row_is_in_exactly_one_micro_batch(lengths: list[int], budget: int, way: str) -> None:
    batches = plan(lengths, budget, Padding(512, 0, way))
    assert sorted(int(k) for batch in batches for k in batch) == list(range(len(lengths)))


@given(lengths_of_rows, st.integers(1, 20_000), ways)
def test_a_micro_batch_keeps_the_budget_unless_it_is_one_row(
    lengths: list[int], budget: int, way: str
) -> None:
    padding = Padding(512, 0, way)
    for batch in plan(lengths, budget, padding):
        width = padding.width(max(lengths[k] for k in batch))
        assert len(batch) == 1 or len(batch) * width <= budget


@given(lengths_of_rows, st.integers(1, 20_000))
def test_a_micro_batch_is_full_before_the_next_of_its_padded_length_begins(
    lengths: list[int], budget: int
) -> None:
    batches = plan(lengths, budget, RIGHT)
    widths = [{RIGHT.width(lengths[k]) for k in batch} for batch in batches]
    for batch, here, after in zip(batches, widths, widths[1:], strict=False):
        (width,) = here
        assert after != here or (len(batch) + 1) * width > budget


@given(lengths_of_rows, st.integers(1, 20_000))
def test_without_padding_no_row_of_another_length_is_in_a_micro_batch(
    lengths: list[int], budget: int
) -> None:
    for batch in plan(lengths, budget, Padding(512, 0, "none")):
        assert len({lengths[k] for k in batch}) == 1


ROWS = [np.array([101, 7, 102], np.int32), np.array([101, 102], np.int32)]


@pytest.mark.parametrize(
    ("way", "ids", "mask", "types"),
    [
        (
            "right",
            [[101, 102, 9, 9], [101, 7, 102, 9]],
            [[1, 1, 0, 0], [1, 1, 1, 0]],
            [[1, 2, 3, 3], [1, 0, 2, 3]],
        ),
        (
            "left",
            [[9, 9, 101, 102], [9, 101, 7, 102]],
            [[0, 0, 1, 1], [0, 1, 1, 1]],
            [[3, 3, 1, 2], [3, 1, 0, 2]],
        ),
    ],
)
def test_padding_is_on_its_side_and_masked(
    way: str, ids: list[list[int]], mask: list[list[int]], types: list[list[int]]
) -> None:
    padding = Padding(4, 9, way, types=TokenTypes((1,), 0, (2,), 3))
    batch = assemble(ROWS, np.array([1, 0]), padding)
    assert batch.input_ids.tolist() == ids
    assert batch.attention_mask.tolist() == mask
    assert batch.token_type_ids is not None
    assert batch.token_type_ids.tolist() == types
    assert batch.input_ids.dtype == batch.attention_mask.dtype == batch.token_type_ids.dtype == np.int64


def test_a_model_without_token_types_gets_none() -> None:
    assert assemble(ROWS, np.array([0]), Padding(4, 9)).token_type_ids is None


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=40), max_size=50), ways)
def test_the_tokens_of_a_row_come_through_as_they_were(rows: list[list[int]], way: str) -> None:
    arrays = [np.array(row, np.int32) for row in rows]
    padding = Padding(64, 0, way)
    seen = {}
    for sequence in plan_sequences(arrays, 128, padding):
        batch = assemble(arrays, sequence, padding)
        for place, k in enumerate(batch.sequence):
            kept = batch.attention_mask[place].astype(bool)
            seen[int(k)] = batch.input_ids[place][kept].tolist()
    assert seen == dict(enumerate(rows))


def test_the_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(batching) == (0, doctest.testmod(batching).attempted)
    assert doctest.testmod(batching).attempted > 0
