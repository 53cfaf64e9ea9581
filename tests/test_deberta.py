"""Our own DeBERTa-v2 against transformers': packed and not, padded, beyond the buckets, long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lively import lively, saved
from row_by_row import alone, assert_same, batch_of, largest_change, loaded, row_of
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from batchscore.model.backends import packed
from batchscore.model.backends.deberta import DebertaV2, _buckets
from batchscore.model.backends.packed import pack

LENGTHS = (1, 2, 3, 4, 8, 9, 16, 17, 31, 64, 65, 130, 200)
KINDS: dict[str, dict[str, Any]] = {
    "v3": {},
    "own projections": {"share_att_key": False, "num_labels": 2},
    "c2p alone": {"share_att_key": False, "pos_att_type": ["c2p"]},
    "p2c alone": {"pos_att_type": "P2C", "num_labels": 1},
    "no buckets": {"position_buckets": -1, "max_relative_positions": 20},
    "table as it is": {"norm_rel_ebd": "none", "max_relative_positions": 300},
    "no relative positions": {"relative_attention": False, "position_biased_input": True},
    "no terms": {"pos_att_type": None},
    "positions and types": {"position_biased_input": True, "type_vocab_size": 2, "embedding_size": 24},
    "one layer": {"num_hidden_layers": 1},
    "other activations": {"hidden_act": "relu", "pooler_hidden_act": "tanh", "layer_norm_eps": 0.01},
}


V3 = {
    "max_position_embeddings": 256,
    "relative_attention": True,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "type_vocab_size": 0,
}


def deberta_v2(folder: Path, **options: Any) -> Path:
    """A folder with a small one."""
    return saved(lively("deberta-v2", **{**V3, **options}), folder)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@torch.inference_mode()
def test_logits_are_those_of_transformers(options: dict[str, Any], tmp_path: Path) -> None:
    folder = deberta_v2(tmp_path, **options)
    rows = [row_of(length, seed=length) for length in LENGTHS]
    expected = alone(folder, rows)
    ways = [loaded(folder)]
    if packed._is_usable(torch.float32):
        ways.append(pack(loaded(folder), torch.float32))
    for encoder in ways:
        assert isinstance(encoder, DebertaV2)
        assert_same(encoder(*batch_of(rows)), expected)
        assert_same(torch.cat([encoder(row[None], None) for row in rows]), expected)
        few = rows[3:6]  # shorter company, another multiple
        assert_same(encoder(*batch_of(few, multiple=3)), expected[3:6])


@pytest.mark.parametrize(("n_buckets", "furthest"), [(256, 512), (256, 1024), (16, 256), (17, 40), (4, 9)])
def test_distances_fall_into_the_buckets_of_transformers(n_buckets: int, furthest: int) -> None:
    length = 3000
    places = torch.arange(length)
    for row in (0, 1, length // 2, length - 1):
        theirs = make_log_bucket_position(places[row] - places, n_buckets, furthest).long()
        theirs = (theirs + n_buckets).clamp(0, 2 * n_buckets - 1)
        ours = _buckets(length, n_buckets, n_buckets, furthest)[length - 1 + row - places]
        assert torch.equal(ours, theirs)
