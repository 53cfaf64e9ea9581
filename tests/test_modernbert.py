"""Our own ModernBERT against transformers': packed and not, padded, beyond the window, long."""

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

from batchscore.config import ComputeSettings
from batchscore.errors import ModelError
from batchscore.model.backends import open_backend, packed
from batchscore.model.backends.encoders import load_encoder
from batchscore.model.backends.modernbert import ModernBert
from batchscore.model.backends.packed import pack
from batchscore.model.bundle import open_bundle

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


UNKNOWN: list[dict[str, Any]] = [
    {"architectures": ["ModernBertForTokenClassification"]},
    {"hidden_activation": "quick_gelu"},
    {"classifier_activation": "tanh"},
    {"classifier_pooling": "max"},
    {"num_hidden_layers": 5},
    {"num_hidden_layers": 3},
    {"layer_types": ["full_attention"] * 3},
    {"layer_types": ["chunked_attention"] * 4},
    {"sliding_window": 64},
    {"local_attention": 16.5},
    {"head_dim": 16},
    {"num_attention_heads": 5},
    {"attention_bias": True},
    {"norm_bias": "yes"},
    {"rope_scaling": {"type": "linear", "factor": 2.0}},
    {"rope_parameters": {"rope_theta": 10_000.0}},
    {"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 4.0}}},
    {"rope_parameters": {"full_attention": {"rope_theta": 0}}},
    {"rope_parameters": None, "local_rope_theta": "10000"},
    {"quantization_config": {"bits": 8}},
    {"id2label": {"0": "one", "1": "other"}},
]


def modernbert(folder: Path, **options: Any) -> Path:
    """A folder with a small one."""
    return saved(
        lively("modernbert", **{"local_attention": 16, "pad_token_id": 0, "num_hidden_layers": 4, **options}),
        folder,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests must not write into it."""
    return modernbert(tmp_path_factory.mktemp("modernbert"), vocab_size=30522)


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its canaries are those of transformers."""
    return as_bundle(folder, tmp_path_factory.mktemp("bundle") / "model")


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@torch.inference_mode()
def test_logits_are_those_of_transformers(options: dict[str, Any], tmp_path: Path) -> None:
    folder = modernbert(tmp_path, **options)
    rows = [row_of(length, seed=length) for length in LENGTHS]
    expected = alone(folder, rows)
    assert packed._is_usable(torch.float32) or not torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    for encoder in (loaded(folder), pack(loaded(folder), torch.float32)):
        assert isinstance(encoder, ModernBert)
        assert_same(encoder(*batch_of(rows)), expected)
        assert_same(torch.cat([encoder(row[None], None) for row in rows]), expected)
        few = rows[3:6]  # shorter company, another multiple
        assert_same(encoder(*batch_of(few, multiple=3)), expected[3:6])


@torch.inference_mode()
def test_a_configuration_of_older_versions_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    older = {"global_attn_every_n_layers": 2, "global_rope_theta": 500.0, "local_rope_theta": 40.0}
    changes = {**older, "layer_types": None, "rope_parameters": None}
    folder = saved(lively("modernbert", local_attention=16, pad_token_id=0), tmp_path, **changes)
    rows = [row_of(length, seed=length) for length in (3, 40, 100)]
    assert_same(pack(loaded(folder), torch.float32)(*batch_of(rows)), alone(folder, rows))


def test_a_long_text_among_short_ones(tmp_path: Path) -> None:
    folder = modernbert(tmp_path)
    rows = [row_of(length, seed=length) for length in (2000, 300, 5)]
    with torch.inference_mode():
        assert_same(pack(loaded(folder), torch.float32)(*batch_of(rows)), alone(folder, rows))


@torch.inference_mode()
def test_bfloat16_is_no_further_off_than_that_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = modernbert(tmp_path)
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
    assert isinstance(backend.forward, ModernBert)
    reviews.head(30).to_parquet(tmp_path / "in.parquet")
    found = []
    for name in ("auto", "transformers"):
        settings = ComputeSettings(backend=name, precision="fp32")
        run_score(tmp_path / "in.parquet", bundle, tmp_path / name, compute=settings)
        table = pd.read_parquet(tmp_path / name / "predictions" / "in.parquet")
        found.append(table.filter(like="prob_").to_numpy())
    assert np.nanstd(found[0]) > 0.1
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-5)


def test_a_file_has_the_bits_that_it_has_without_other_files(bundle: Path, tmp_path: Path) -> None:
    texts = [f"A film of {k} scenes and {7 * k} actors" for k in range(9)]
    pd.DataFrame({"text": texts[:2]}).to_csv(tmp_path / "small.csv", index=False)
    pd.DataFrame({"text": texts[2:]}).to_csv(tmp_path / "other.csv", index=False)
    compute = ComputeSettings(backend="torch", precision="fp32")
    run_score(tmp_path / "small.csv", bundle, tmp_path / "alone", compute=compute)
    run_score([tmp_path / "small.csv", tmp_path / "other.csv"], bundle, tmp_path / "both", compute=compute)
    found, expected = (tmp_path / run / "predictions/small.csv" for run in ("both", "alone"))
    assert found.read_bytes() == expected.read_bytes()
