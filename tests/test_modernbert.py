"""Our own ModernBERT against transformers': packed and not, padded, beyond the window, long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lively import VOCABULARY, alone, assert_same, batch_of, loaded, row_of, save_lively
from transformers import ModernBertConfig, ModernBertForSequenceClassification

from batchscore.model.backends import packed
from batchscore.model.backends.modernbert import ModernBert
from batchscore.model.backends.packed import pack

LENGTHS = (1, 2, 3, 8, 9, 10, 16, 17, 31, 64, 65, 66, 130, 200)
KINDS = {
    "as published": {},
    "mean": {"classifier_pooling": "mean"},
    "biases": {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True},
    "mean, biases": {
        "attention_bias": True,
        "norm_bias": True,
        "classifier_pooling": "mean",
        "num_labels": 1,
    },
    "one layer": {"num_hidden_layers": 1, "attention_bias": True},
    "local last": {"num_hidden_layers": 3, "num_labels": 2},
    "local alone": {"layer_types": ["sliding_attention"] * 4, "local_attention": 6},
    "every second": {"global_attn_every_n_layers": 2, "local_attention": 1},
    "other turns": {"rope_parameters": {"full_attention": {"rope_theta": 300.0}}},
    "other activations": {"hidden_activation": "silu", "classifier_activation": "relu", "norm_eps": 0.01},
}


def modernbert(**options: Any) -> ModernBertForSequenceClassification:
    fixed = {
        "vocab_size": VOCABULARY,
        "hidden_size": 48,
        "intermediate_size": 40,
        "num_attention_heads": 4,
        "pad_token_id": 0,
        "num_hidden_layers": 4,
        "local_attention": 16,
        "num_labels": 5,
    }
    return ModernBertForSequenceClassification(ModernBertConfig(**{**fixed, **options}))


@pytest.fixture(autouse=True)
def _without_gradients() -> Any:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_logits_are_those_of_transformers(options: dict[str, Any], tmp_path: Path) -> None:
    with torch.inference_mode(False):
        folder = save_lively(modernbert(**options), tmp_path)
    rows = [row_of(length, seed=length) for length in LENGTHS]
    expected = alone(folder, rows)
    ways = [loaded(folder)]
    if packed._is_usable(torch.float32):
        ways.append(pack(loaded(folder), torch.float32))
    for encoder in ways:
        assert isinstance(encoder, ModernBert)
        assert_same(encoder(*batch_of(rows)), expected)
        assert_same(torch.cat([encoder(row[None], None) for row in rows]), expected)
        few = rows[3:6]  # shorter company, another multiple
        assert_same(encoder(*batch_of(few, multiple=3)), expected[3:6])
