"""The way through BERT and DistilBERT on a CPU, packed products and attention as products, against public operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_encoders import bert, distilbert, ragged
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from batchscore.model.backends import open_backend, packed
from batchscore.model.backends.encoders import ACTIVATIONS, Encoder, load_encoder
from batchscore.model.backends.packed import PackedEncoder, bf16_attention, pack
from batchscore.model.bundle import open_bundle

DTYPES = (torch.float32, torch.bfloat16)


@pytest.fixture(autouse=True)
def _without_gradients() -> Any:
    with torch.inference_mode():
        yield


def usable(dtype: torch.dtype) -> torch.dtype:
    if not packed._is_usable(dtype):
        pytest.skip(f"oneDNN has no packed products in {dtype} on this processor")
    return dtype


def loaded(folder: Path) -> Encoder:
    encoder = load_encoder(folder, torch.float32, "cpu")
    assert isinstance(encoder, Encoder)
    return encoder


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (bert, {}),
        (bert, {"layers": 1}),
        (bert, {"hidden_act": "relu"}),
        (distilbert, {}),
        (distilbert, {"activation": "relu"}),
    ],
)
def test_logits_are_those_of_transformers(
    make: Any, options: dict[str, Any], padded: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    make(**dict(options)).save_pretrained(tmp_path)
    reference = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    ids, mask = ragged(padded)
    expected = reference(input_ids=ids, attention_mask=mask).logits
    encoder = pack(loaded(tmp_path), usable(dtype))
    assert isinstance(encoder, PackedEncoder)
    found = encoder(ids, mask)
    assert found.dtype == torch.float32
    rounding = torch.zeros(1)  # what the dtype alone brings, in torch's own kernels
    if dtype == torch.bfloat16:
        rounding = (loaded(tmp_path).to(dtype)(ids, mask).float() - expected).abs()
    assert (found - expected).abs().mean() <= 3 * rounding.mean() + 2e-5
    if not padded:
        torch.testing.assert_close(encoder(ids, None), found)


@pytest.mark.parametrize(
    "larger",
    [
        pytest.param([0.5] * 5, id="small scores"),
        pytest.param([30.0] * 5, id="scores beyond the range of exp"),
        pytest.param([0.5, 30.0, 0.5, 0.5, 30.0], id="such scores in two heads"),
    ],
)
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("tile", [1, 12_000, 1 << 30])
def test_attention_is_that_of_torch(
    larger: list[float], padded: bool, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "_TILE_BYTES", tile)
    generator = torch.Generator().manual_seed(5)
    query, key, value = (torch.randn(3, 5, 40, 16, generator=generator).bfloat16() for _ in range(3))
    query = query * torch.tensor(larger).bfloat16()[:, None, None]
    mask = (torch.arange(40)[None] < torch.tensor([40, 23, 1])[:, None]).long() if padded else None
    allowed = None if mask is None else mask[:, None, None, :].bool()
    wanted = functional.scaled_dot_product_attention(
        query.float(), key.float(), value.float(), attn_mask=allowed
    )
    found = bf16_attention(query, key, value, mask).float()
    assert found.isfinite().all()
    difference = (found - wanted.transpose(1, 2).flatten(2)).abs()
    assert difference.max() < 0.06 * wanted.abs().max()
    assert difference.mean() < 0.005 * wanted.abs().max()


def test_what_stands_in_the_padding_has_no_say(tmp_path: Path) -> None:
    torch.manual_seed(3)
    bert().save_pretrained(tmp_path)
    ids, mask = ragged(padded=True)
    others = torch.where(mask == 1, ids, 98 - ids)
    for dtype in DTYPES:
        encoder = pack(loaded(tmp_path), usable(dtype))
        assert not torch.equal(ids, others)
        torch.testing.assert_close(encoder(ids, mask), encoder(others, mask), rtol=0, atol=1e-6)


def test_where_packed_products_are_missing_or_wrong_nothing_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bert().save_pretrained(tmp_path)
    ids, mask = ragged(padded=True)
    expected = loaded(tmp_path)(ids, mask)

    class Missing:
        """An older or a newer torch."""

    def doubled(*arguments: Any) -> torch.Tensor:
        return 2 * functional.linear(*arguments[:3])

    class Wrong:
        _reorder_linear_weight = staticmethod(lambda weight, _: weight)
        _linear_pointwise = staticmethod(doubled)

    doubled.binary = lambda states, residual, *others: doubled(states, *others) + residual  # type: ignore[attr-defined]
    for ops in (Missing, Wrong):
        monkeypatch.setattr(packed, "_OPS", ops)
        packed._is_usable.cache_clear()
        encoder = pack(loaded(tmp_path), torch.float32)
        assert isinstance(encoder, Encoder)
        torch.testing.assert_close(encoder(ids, mask), expected)
    monkeypatch.undo()
    packed._is_usable.cache_clear()


@pytest.mark.parametrize("is_apart", [True, False])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_the_same_inside_the_kernel_and_after_it(
    name: str, is_apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype = usable(torch.float32)
    monkeypatch.setattr(packed, "_is_without_avx512", lambda: is_apart)
    generator = torch.Generator().manual_seed(4)
    states, weight = (3 * torch.randn(n, 24, generator=generator) for n in (70, 40))
    linear = packed.Linear(weight, weight[:, 0], dtype)
    expected = ACTIVATIONS[name](functional.linear(states, weight, weight[:, 0]))
    torch.testing.assert_close(linear(states, name), expected, rtol=1e-5, atol=1e-5)
    assert (expected != linear(states)).any()


def test_a_bundle_on_a_cpu_is_packed(tiny_bundle: Path) -> None:
    usable(torch.float32)
    backend: Any = open_backend("torch", open_bundle(str(tiny_bundle)), "cpu", "fp32")
    assert isinstance(backend.forward, PackedEncoder)


def test_a_batch_has_the_same_bits_each_time(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path)
    ids, mask = ragged(padded=True)
    encoder = pack(loaded(tmp_path), usable(torch.bfloat16))
    first = encoder(ids, mask).numpy()
    np.testing.assert_array_equal(first, pack(loaded(tmp_path), torch.bfloat16)(ids, mask).numpy())
