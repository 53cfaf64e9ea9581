"""Bundles of real sizes with random weights, to measure with: they answer nothing, but cost what the real ones cost.

    python jobs/shapes.py roberta-base --tokenizer BUNDLE --output DIR
    python jobs/bench.py --shape roberta-base --model BUNDLE ...      # the same, measured at once

The tokenizer is that of another folder. Weights are such that answers depend on the text, as those of a trained model do.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from batchscore import samples
from batchscore.model.bundle import open_bundle, seal

_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
_ROBERTA = {**_BASE, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "max_position_embeddings": 514}
_DEBERTA_V3 = {
    "vocab_size": 128_100,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "albert-base": ("albert", {**_BASE, "vocab_size": 30_000, "embedding_size": 128}),
    "bert-base": ("bert", {**_BASE, "vocab_size": 30_522}),
    "camembert-base": ("camembert", {**_ROBERTA, "vocab_size": 32_005}),
    "deberta-v3-base": ("deberta-v2", {**_BASE, **_DEBERTA_V3}),
    "distilbert-base": ("distilbert", {"vocab_size": 30_522}),
    "electra-base": ("electra", {**_BASE, "vocab_size": 30_522, "embedding_size": 768}),
    "electra-small": ("electra", {"vocab_size": 30_522}),
    "modernbert-base": ("modernbert", {"vocab_size": 50_368}),
    "mpnet-base": ("mpnet", {**_BASE, "vocab_size": 30_527, "max_position_embeddings": 514}),
    "roberta-base": ("roberta", {**_ROBERTA, "vocab_size": 50_265}),
    "xlm-roberta-base": ("xlm-roberta", {**_ROBERTA, "vocab_size": 250_002}),
}
"""``model_type`` and the options of the published model of this name."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_CANARIES = 8


def make(shape: str, tokenizer: Path, output: Path) -> None:
    """Write the bundle of a shape; ``tokenizer`` is a folder that has one."""
    kind, options = SHAPES[shape]
    write(kind, options, tokenizer, output)


def write(kind: str, options: dict[str, Any], tokenizer: Path, output: Path) -> None:
    """Write a bundle of this ``model_type`` with these options in its ``config.json``."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    output.mkdir(parents=True)
    for name in _TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copy2(tokenizer / name, output / name)
    tokens: Any = AutoTokenizer.from_pretrained(output, local_files_only=True)
    if kind != "mpnet":  # which has 1, whatever the tokenizer says
        options = {**options, "pad_token_id": tokens.pad_token_id}
    torch.manual_seed(0)
    auto: Any = AutoModelForSequenceClassification
    model = auto.from_config(AutoConfig.for_model(kind, num_labels=2, **options)).eval()
    texts = [row["text"] for row in samples.rows() if row["text"]][:_CANARIES]
    with torch.inference_mode():
        encoded = [tokens(text, truncation=True, max_length=512, return_tensors="pt") for text in texts]
        inputs = [{name: each[name] for name in ("input_ids", "attention_mask")} for each in encoded]
        _enliven(model, inputs)
        probabilities = torch.cat([model(**each).logits.softmax(-1) for each in inputs])
    model.save_pretrained(output)
    seal(
        output,
        {
            "labels": [model.config.id2label[k] for k in range(2)],
            "max_length": 512,
            "temperature": 1.0,
            "long_text": "head",
            "canaries": {"texts": texts, "probabilities": probabilities.tolist()},
        },
    )


def _enliven(model: Any, inputs: list[dict[str, Any]]) -> None:
    """Larger weights than those that training begins with, and logits of a standard deviation of 1 over the inputs."""
    import torch

    linear = {name: each for name, each in model.named_modules() if isinstance(each, torch.nn.Linear)}
    for each in linear.values():
        torch.nn.init.normal_(each.weight, std=(0.5 / each.in_features) ** 0.5)
        if each.bias is not None:
            torch.nn.init.normal_(each.bias, std=0.1)
    output = [each for name, each in linear.items() if name.startswith("classifier")][-1]
    logits = torch.cat([model(**each).logits for each in inputs])
    scale = 1 / logits.std(dim=0)
    output.weight.mul_(scale[:, None])
    output.bias.copy_((output.bias - logits.mean(dim=0)) * scale)


def main() -> None:
    """Parse, and write the bundle."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument(
        "--tokenizer", type=Path, required=True, help="a folder that has one, such as a bundle"
    )
    parser.add_argument("--output", type=Path, required=True, help="a folder that is not there")
    given = parser.parse_args()
    make(given.shape, given.tokenizer, given.output)
    print(f"{given.output}: {len(open_bundle(str(given.output)).labels)} labels")


if __name__ == "__main__":
    main()
