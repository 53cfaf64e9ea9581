"""Our own ModernBERT against transformers': packed and not, padded, beyond the window, long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lively import lively, saved
from row_by_row import alone, assert_same, batch_of, largest_change, loaded, row_of

from batchscore.model.backends import packed
from batchscore.model.backends.modernbert import ModernBert
from batchscore.model.backends.packed import pack

LENGTHS = (1, 2, 3, 8, 9, 10, 16, 17, 31, 64, 65, 66, 130, 200)
KINDS: dict[str, dict[str, Any]] = {
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


def modernbert(folder: Path, **options: Any) -> Path:
    """A folder with a small one."""
    return saved(lively("modernbert", **{"local_attention": 16, "pad_token_id": 0, "num_hidden_layers": 4, **options}), folder)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@torch.inference_mode()
def test_logits_are_those_of_transformers(options: dict[str, Any], tmp_path: Path) -> None:
    folder = modernbert(tmp_path, **options)
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
