"""Tiny classifiers with random weights that disagree with one another, held against transformers one text at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification

from batchscore.model.backends.encoders import Loadable, load_encoder

VOCABULARY = 97
_LOGITS = 3.0
"""Standard deviation of the logits of a lively model."""


def save_lively(model: Any, folder: Path, seed: int = 0) -> Path:
    """Give every parameter random numbers, biases and norms too, so that logits differ by about 3; and save."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim == 1:
            weight.data = 0.3 * noise + ("norm" in name.lower() and name.endswith("weight"))
        else:
            weight.data = noise if "embed" in name else 1.3 * noise / weight.shape[1] ** 0.5
    model.eval()
    with torch.inference_mode():
        ids = [row_of(length, seed=length)[None] for length in range(1, 60, 3)]
        spread = torch.cat([model(input_ids=each).logits for each in ids]).std(0).mean()
    model.classifier.weight.data *= _LOGITS / spread
    model.save_pretrained(folder)
    return folder


def row_of(length: int, seed: int) -> torch.Tensor:
    """Token ids of one text, ``[L]``."""
    return torch.randint(1, VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed))


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
    """Logits within 1e-4, and probabilities of both kinds within 1e-5."""
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert expected.std() > 0.5
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    kinds: Sequence[Callable[[torch.Tensor], torch.Tensor]] = (
        torch.sigmoid,
        lambda logits: logits.softmax(-1),
    )
    for probabilities in kinds:
        np.testing.assert_allclose(probabilities(found), probabilities(expected), rtol=0, atol=1e-5)


def largest_change(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Of a probability."""
    changes: NDArray[np.float32] = (found.float().softmax(-1) - expected.softmax(-1)).abs().numpy()
    return float(changes.max())
