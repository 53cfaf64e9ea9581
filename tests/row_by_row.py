"""What transformers answers for each row by itself, and how near our own answers are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lively import SIZES
from transformers import AutoModelForSequenceClassification

from batchscore.model.backends.encoders import Loadable, load_encoder


def row_of(length: int, seed: int) -> torch.Tensor:
    """Token ids of one text, ``[L]``."""
    return torch.randint(5, int(SIZES["vocab_size"]), (length,), generator=torch.Generator().manual_seed(seed))


def batch_of(rows: Sequence[torch.Tensor], *, multiple: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask ``[b, L]`` of rows padded on the right to a multiple."""
    length = -(-max(map(len, rows)) // multiple) * multiple
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return ids, mask


def alone(folder: Path, rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """The logits of transformers in float32, each row by itself without padding, ``[n, C]``."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
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


def largest_change(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Of a probability."""
    return float((found.float().softmax(-1) - expected.softmax(-1)).abs().max())
