"""The batch plan: letters for tokens, literal plans, no model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.batching import assemble, padded_length, plan, plan_sequences


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [
        pytest.param([], 16, [], id="nothing"),
        pytest.param([5], 16, [[0]], id="one"),
        pytest.param([3, 9, 4, 8], 16, [[1], [3, 2], [0]], id="longest first"),
        pytest.param([8, 8, 8], 16, [[0, 1], [2]], id="equal lengths keep their order"),
        pytest.param([16, 2], 8, [[0], [1]], id="an oversized row goes through alone"),
        pytest.param([1, 1, 1, 1], 16, [[0, 1], [2, 3]], id="short rows are padded to the multiple"),
        pytest.param([9, 1], 32, [[0, 1]], id="the first row of a micro-batch sets its width"),
    ],
)
def test_a_plan_is_what_it_should_be(lengths: list[int], budget: int, expected: list[list[int]]) -> None:
    assert [batch.tolist() for batch in plan(lengths, budget, longest=16, multiple=8)] == expected


@pytest.mark.parametrize(
    ("n_tokens", "longest", "expected"),
    [(1, 512, 16), (16, 512, 16), (33, 512, 48), (510, 511, 511), (40, 33, 40)],
)
def test_lengths_are_rounded_up_but_not_beyond_the_model(n_tokens: int, longest: int, expected: int) -> None:
    assert padded_length(n_tokens, longest) == expected


lengths_of_rows = st.lists(st.integers(1, 512), max_size=300)


@given(lengths_of_rows, st.integers(1, 20_000))
def test_every_row_is_in_exactly_one_micro_batch(lengths: list[int], budget: int) -> None:
    batches = plan(lengths, budget, longest=512)
    assert sorted(int(k) for batch in batches for k in batch) == list(range(len(lengths)))


@given(lengths_of_rows, st.integers(1, 20_000))
def test_a_micro_batch_keeps_the_budget_unless_it_is_one_row(lengths: list[int], budget: int) -> None:
    for batch in plan(lengths, budget, longest=512):
        width = padded_length(max(lengths[k] for k in batch), 512)
        assert len(batch) == 1 or len(batch) * width <= budget


@given(lengths_of_rows, st.integers(1, 20_000))
def test_a_micro_batch_is_full_before_the_next_begins(lengths: list[int], budget: int) -> None:
    batches = plan(lengths, budget, longest=512)
    for batch in batches[:-1]:
        width = padded_length(max(lengths[k] for k in batch), 512)
        assert (len(batch) + 1) * width > budget


def test_padding_is_on_the_right_and_masked() -> None:
    rows = [np.array([101, 7, 102], np.int32), np.array([101, 102], np.int32)]
    batch = assemble(rows, np.array([1, 0]), longest=4, pad_id=9)
    assert batch.input_ids.tolist() == [[101, 102, 9, 9], [101, 7, 102, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert batch.input_ids.dtype == batch.attention_mask.dtype == np.int64


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=40), max_size=50))
def test_the_tokens_of_a_row_come_through_as_they_were(rows: list[list[int]]) -> None:
    arrays = [np.array(row, np.int32) for row in rows]
    seen = {}
    for sequence in plan_sequences(arrays, max_batch_tokens=128, longest=64):
        batch = assemble(arrays, sequence, longest=64, pad_id=0)
        for place, k in enumerate(batch.sequence):
            kept = batch.attention_mask[place].astype(bool)
            seen[int(k)] = batch.input_ids[place][kept].tolist()
    assert seen == dict(enumerate(rows))
