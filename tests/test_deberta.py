"""Our own DeBERTa-v2 against transformers': packed and not, padded, beyond the buckets, long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run_score
from lively import lively, saved
from row_by_row import (
    alone,
    as_bundle,
    assert_same,
    batch_of,
    in_dtype,
    loaded,
    mean_change,
    row_of,
    with_options,
)
from transformers import AutoModelForSequenceClassification
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from batchscore.config import ComputeSettings
from batchscore.errors import ModelError
from batchscore.model.backends import open_backend, packed
from batchscore.model.backends.deberta import DebertaV2, _buckets
from batchscore.model.backends.encoders import load_encoder
from batchscore.model.backends.packed import pack
from batchscore.model.bundle import open_bundle

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


UNKNOWN: list[dict[str, Any]] = [
    {"architectures": ["DebertaV2ForTokenClassification"]},
    {"hidden_act": "quick_gelu"},
    {"pooler_hidden_act": "mish"},
    {"num_hidden_layers": 4},
    {"num_hidden_layers": 2},
    {"num_attention_heads": 5},
    {"attention_head_size": 16},
    {"pooler_hidden_size": 16},
    {"embedding_size": 16},
    {"conv_kernel_size": 3},
    {"pos_att_type": ["c2p", "p2p"]},
    {"pos_att_type": 3},
    {"relative_attention": False},
    {"share_att_key": False},
    {"position_buckets": 32},
    {"position_buckets": True},
    {"position_buckets": None, "max_relative_positions": 20},
    {"max_relative_positions": 8},
    {"norm_rel_ebd": "none"},
    {"type_vocab_size": 2},
    {"position_biased_input": True},
    {"quantization_config": {"bits": 8}},
    {"id2label": {"0": "one", "1": "other"}},
]


def deberta_v2(folder: Path, **options: Any) -> Path:
    """A folder with a small one."""
    return saved(lively("deberta-v2", **{**V3, **options}), folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests must not write into it."""
    return deberta_v2(tmp_path_factory.mktemp("deberta"), vocab_size=30522)


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its canaries are those of transformers."""
    return as_bundle(folder, tmp_path_factory.mktemp("bundle") / "model")


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@torch.inference_mode()
def test_logits_are_those_of_transformers(options: dict[str, Any], tmp_path: Path) -> None:
    folder = deberta_v2(tmp_path, **options)
    rows = [row_of(length, seed=length) for length in LENGTHS]
    expected = alone(folder, rows)
    assert packed._is_usable(torch.float32) or not torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    for encoder in (loaded(folder), pack(loaded(folder), torch.float32)):
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


@torch.inference_mode()
def test_token_types_are_obeyed(tmp_path: Path) -> None:
    folder = deberta_v2(tmp_path, type_vocab_size=2)
    ids, mask = batch_of([row_of(length, seed=length) for length in (3, 40, 31)])
    types = (torch.arange(ids.shape[1]) > 1).long().expand_as(ids)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    expected = model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits
    encoder = pack(loaded(folder), torch.float32)
    assert_same(encoder(ids, mask, types), expected)
    assert (encoder(ids, mask) - expected).abs().max() > 0.1


def test_a_long_text_among_short_ones(tmp_path: Path) -> None:
    folder = deberta_v2(tmp_path)
    rows = [row_of(length, seed=length) for length in (1100, 300, 5)]
    with torch.inference_mode():
        assert_same(pack(loaded(folder), torch.float32)(*batch_of(rows)), alone(folder, rows))


@torch.inference_mode()
def test_bfloat16_is_no_further_off_than_that_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = deberta_v2(tmp_path)
    rows = [row_of(length, seed=length) for length in LENGTHS]
    expected, theirs = alone(folder, rows), alone(folder, rows, torch.bfloat16)
    encoder: Any = loaded(folder)
    if not packed._is_usable(torch.bfloat16):  # torch's own products in place of oneDNN's
        monkeypatch.setattr(packed, "Linear", in_dtype)
    encoder.pack(torch.bfloat16)
    found = encoder(*batch_of(rows))
    assert found.dtype == torch.float32
    assert 1e-4 < mean_change(found, expected) < 1.2 * mean_change(theirs, expected)


@pytest.mark.parametrize("change", UNKNOWN, ids=str)
def test_whatever_is_not_certain_is_left_to_transformers(
    change: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    assert load_encoder(folder, torch.float32, "cpu") is not None
    assert load_encoder(with_options(folder, tmp_path, change), torch.float32, "cpu") is None


def test_gpus_and_the_compiler_are_left_to_transformers(bundle: Path) -> None:
    assert load_encoder(bundle, torch.float32, "cuda") is None
    with pytest.raises(ModelError, match="cannot be compiled"):
        open_backend("compiled", open_bundle(str(bundle)), "cpu", "fp32")


def test_a_bundle_is_scored_by_our_own_code(bundle: Path, tmp_path: Path, reviews: pd.DataFrame) -> None:
    backend: Any = open_backend("auto", open_bundle(str(bundle)), "cpu", "fp32")
    assert isinstance(backend.forward, DebertaV2)
    reviews.head(30).to_parquet(tmp_path / "in.parquet")
    found = []
    for name in ("auto", "transformers"):
        settings = ComputeSettings(backend=name, precision="fp32")
        run_score(tmp_path / "in.parquet", bundle, tmp_path / name, compute=settings)
        table = pd.read_parquet(tmp_path / name / "predictions" / "in.parquet")
        found.append(table.filter(like="prob_").to_numpy())
    assert np.nanstd(found[0]) > 0.1
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-5)
