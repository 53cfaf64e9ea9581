"""An answer depends on its own text alone: the same bits whatever stands beside it, and however many."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_golden_bits import with_fixed_weights
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from batchscore.model.backends.encoders import encoder_of
from batchscore.model.backends.packed import PackedEncoder, bf16_attention, in_blocks, pack
from batchscore.model.backends.torch_backend import one_thread
from batchscore.model.batching import Padding, plan

SIZES: dict[str, Any] = {"num_attention_heads": 4, "vocab_size": 99, "num_hidden_layers": 3}
WIDE: dict[str, Any] = {"hidden_size": 96, "intermediate_size": 160, **SIZES}
KINDS: dict[str, Any] = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**WIDE)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**WIDE, max_position_embeddings=514)),
    "distilbert": lambda: DistilBertForSequenceClassification(
        DistilBertConfig(dim=96, hidden_dim=160, n_layers=3, n_heads=4, vocab_size=99)
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [16, 48, 272])
def test_a_row_has_the_bits_that_it_has_alone(kind: str, width: int) -> None:
    model = KINDS[kind]()
    config = {**model.config.to_dict(), "architectures": [type(model).__name__]}
    encoder = encoder_of(with_fixed_weights(model), config, torch.float32)
    assert encoder is not None
    forward = pack(encoder, torch.float32)
    if not isinstance(forward, PackedEncoder):
        pytest.skip("this machine packs no weights, and a start that reuses answers says so")
    rows = 21
    ids = torch.randint(5, 99, (rows, width), generator=torch.Generator().manual_seed(width))
    lengths = width - torch.arange(rows) % 16  # every third of them has no padding
    lengths[::3] = width
    mask = (torch.arange(width)[None] < lengths[:, None]).long()
    ids = torch.where(mask == 1, ids, 1)
    with one_thread(), torch.inference_mode():
        alone = [forward(ids[k : k + 1], None if mask[k].all() else mask[k : k + 1])[0] for k in range(rows)]
        for first, last in [(0, 2), (0, 3), (2, 6), (1, 8), (0, 9), (3, 19), (0, 21)]:
            found = forward(ids[first:last], mask[first:last])
            assert all(map(torch.equal, found, alone[first:last])), (first, last)
    assert len({tuple(each.tolist()) for each in alone}) > rows // 2


@given(st.integers(1, 40))
def test_what_is_computed_in_blocks_is_all_computed_and_in_order(rows: int) -> None:
    seen: list[int] = []

    def twice(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        seen.append(len(one))
        return one + other

    values = torch.arange(rows * 2.0).view(rows, 2)
    assert torch.equal(in_blocks(twice, values, values), 2 * values)
    assert set(seen) == {8}


def test_a_row_with_large_scores_changes_no_other_row_in_bfloat16() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 2, 16, 8, dtype=torch.bfloat16) for _ in range(3))
    alone = bf16_attention(query[:1], key[:1], value[:1], None)
    query[1, 0] *= 100
    assert torch.equal(bf16_attention(query, key, value, None)[:1], alone)
    large = bf16_attention(query[1:2], key[1:2], value[1:2], None)
    assert torch.equal(bf16_attention(query, key, value, None)[1:2], large)


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(1, 500), st.integers(20, 64))
def test_only_rows_of_one_padded_length_go_together(lengths: list[int], budget: int, longest: int) -> None:
    padding = Padding(longest, 0)
    lengths = [min(each, longest) for each in lengths]
    for batch in plan(lengths, budget, padding):
        assert len({padding.width(lengths[k]) for k in batch}) == 1
