"""Small classifiers with random weights that make answers depend on every token, and inputs for them.

As transformers initialises them, answers are nearly the same for all texts, and a comparison of them proves nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

LOGITS = 3.0
"""Standard deviation of the logits of a lively model."""
SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 72,
    "num_labels": 3,
}
_OTHER_NAMES = {"distilbert": {"intermediate_size": "hidden_dim", "hidden_act": "activation"}}
"""Of options that transformers has no second name for."""


def lively(model_type: str, **options: Any) -> Any:
    """A classifier of transformers in evaluation mode, its logits of a standard deviation of about 3."""
    torch.manual_seed(7)
    names = _OTHER_NAMES.get(model_type, {})
    wanted = {names.get(name, name): value for name, value in {**SIZES, **options}.items()}
    config = AutoConfig.for_model(model_type, **wanted)
    auto: Any = AutoModelForSequenceClassification
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                is_norm = "norm" in name.lower() and name.endswith("weight")
                torch.nn.init.normal_(weight, mean=float(is_norm), std=0.3)
            else:
                std = 1.0 if "embedding" in name or "bias" in name else (1.5 / weight.shape[1]) ** 0.5
                torch.nn.init.normal_(weight, std=std)
        _calibrate(model)
    return model


def _calibrate(model: Any) -> None:
    """Scale the last layer by its logits for texts of 1 to 40 tokens."""
    linear = {name: each for name, each in model.named_modules() if isinstance(each, torch.nn.Linear)}
    output = [each for name, each in linear.items() if name.startswith("classifier")][-1]
    lengths = torch.arange(1, 41).repeat(2)
    mask = (torch.arange(40)[None] < lengths[:, None]).long()
    ids = torch.randint(5, int(SIZES["vocab_size"]), mask.shape)
    ids = torch.where(mask == 1, ids, model.config.pad_token_id)
    logits = model(input_ids=ids, attention_mask=mask).logits
    scale = LOGITS / logits.std(dim=0)
    output.weight.mul_(scale[:, None])
    output.bias.copy_((output.bias - logits.mean(dim=0)) * scale)


def saved(model: Any, folder: Path, **changes: Any) -> Path:
    """The model's folder, with other options in its ``config.json``; None takes an option away."""
    model.save_pretrained(folder)
    path = folder / "config.json"
    options = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in options.items() if value is not None}))
    return folder
