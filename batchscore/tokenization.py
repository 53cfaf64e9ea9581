"""Texts in, token ids out, with what happens to a text beyond the model's longest input."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.errors import ModelError, printable
from batchscore.records import Encodings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.bundle import Bundle

HEAD_SHARE = 0.25
"""``head-tail`` keeps this share of the tokens from the head, the rest from the tail: 128 and 382 of 510 (Sun et al.
2019, "How to Fine-Tune BERT for Text Classification?")."""
WINDOW_OVERLAP = 0.25
"""Neighbouring windows share this much of a window."""
_CHUNK_CHARACTERS = 1 << 19
_BERT_TOKENIZERS = ("BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "DistilBertTokenizerFast")


class Tokenizer:
    """The bundle's tokenizer: special tokens as the model wants them, nothing cut before it is counted."""

    def __init__(self, bundle: Bundle) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            self._tokenizer, self.pad_id = _saved_tokenizer(bundle) or _transformers_tokenizer(bundle)
        except Exception as error:  # tokenizers raises bare ones
            raise ModelError(
                f"{printable(bundle.path)}: its tokenizer cannot be loaded ({printable(error)}). Save it again with "
                "tokenizer.save_pretrained(folder)."
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.max_length = bundle.max_length
        self._before, self._after = self._frame(bundle)

    def _frame(self, bundle: Bundle) -> tuple[int, int]:
        """How many special tokens stand before and behind a text, learned from the tokenizer itself.

        Raises:
            ModelError: they depend on the text, or leave no room for one.
        """
        empty, probe = self._tokenizer.encode("").ids, self._tokenizer.encode("a").ids
        before = next((k for k, pair in enumerate(zip(empty, probe, strict=False)) if pair[0] != pair[1]), 0)
        if probe[: len(empty)] == empty and len(probe) > len(empty):
            before = len(empty)
        after = len(empty) - before
        if probe[:before] + probe[len(probe) - after :] != empty or len(probe) <= len(empty):
            raise ModelError(f"{printable(bundle.path)}: its tokenizer's special tokens depend on the text.")
        if bundle.max_length <= len(empty):
            raise ModelError(
                f"{printable(bundle.path)}: its longest input, {bundle.max_length} tokens, leaves no room for a text."
            )
        return before, after

    def token_ids(self, texts: Sequence[str]) -> Iterator[NDArray[np.int32]]:
        """Token ids of each text, special tokens included, never cut; a bounded number of characters at a time."""
        chunk: list[str] = []
        size = 0
        for text in texts:
            if chunk and size + len(text) > _CHUNK_CHARACTERS:
                yield from self._encoded(chunk)
                chunk, size = [], 0
            chunk.append(text)
            size += len(text)
        if chunk:
            yield from self._encoded(chunk)

    def _encoded(self, texts: list[str]) -> Iterator[NDArray[np.int32]]:
        for encoding in self._tokenizer.encode_batch_fast(texts):
            yield np.array(encoding.ids, dtype=np.int32)

    def encode(self, texts: Sequence[str | None], long_text: str) -> Encodings:
        """Encode the texts that are not ``None``; ``long_text`` is ``head``, ``head-tail`` or ``windows``."""
        n_tokens = np.full(len(texts), -1, dtype=np.int32)
        row: list[int] = []
        sequences: list[NDArray[np.int32]] = []
        wanted = [index for index, text in enumerate(texts) if text is not None]
        for index, ids in zip(wanted, self.token_ids([t for t in texts if t is not None]), strict=True):
            n_tokens[index] = len(ids)
            pieces = self._pieces(ids, long_text)
            sequences += pieces
            row += [index] * len(pieces)
        special = self._before + self._after
        return Encodings(
            row=np.array(row, dtype=np.int32),
            input_ids=sequences,
            weight=np.array([max(len(ids) - special, 1) for ids in sequences], dtype=np.float64),
            n_tokens=n_tokens,
            truncated=n_tokens > self.max_length,
        )

    def _pieces(self, ids: NDArray[np.int32], long_text: str) -> list[NDArray[np.int32]]:
        """The sequences that stand for one text: itself where it fits."""
        if len(ids) <= self.max_length:
            return [ids]
        content = ids[self._before : len(ids) - self._after]
        room = self.max_length - self._before - self._after
        return [self._framed(ids, piece) for piece in _LONG_TEXT[long_text](content, room)]

    def _framed(self, ids: NDArray[np.int32], piece: NDArray[np.int32]) -> NDArray[np.int32]:
        return np.concatenate([ids[: self._before], piece, ids[len(ids) - self._after :]])


def _saved_tokenizer(bundle: Bundle) -> tuple[Any, int] | None:
    """A BERT tokenizer as its own library reads it, and the id of its padding; importing transformers takes seconds.

    Only for a bundle with canaries, which would show a difference, and without settings that ``tokenizer.json`` lacks.
    """
    path = bundle.path / "tokenizer.json"
    if bundle.canaries is None or not path.exists():
        return None
    config = json.loads((bundle.path / "tokenizer_config.json").read_bytes())
    if config.get("tokenizer_class") not in _BERT_TOKENIZERS or not isinstance(config.get("pad_token"), str):
        return None
    from tokenizers import Tokenizer as SavedTokenizer

    tokenizer = SavedTokenizer.from_file(str(path))
    pad_id = tokenizer.token_to_id(config["pad_token"])
    return None if pad_id is None else (tokenizer, pad_id)


def _transformers_tokenizer(bundle: Bundle) -> tuple[Any, int]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        bundle.path, use_fast=True, trust_remote_code=False, local_files_only=True
    )
    return tokenizer.backend_tokenizer, int(tokenizer.pad_token_id or 0)


def _head(content: NDArray[np.int32], room: int) -> list[NDArray[np.int32]]:
    return [content[:room]]


def _head_tail(content: NDArray[np.int32], room: int) -> list[NDArray[np.int32]]:
    head = round(room * HEAD_SHARE)
    return [np.concatenate([content[:head], content[len(content) - (room - head) :]])]


def _windows(content: NDArray[np.int32], room: int) -> list[NDArray[np.int32]]:
    """Windows that cover the text evenly; each has ``room`` tokens."""
    step = max(1, room - round(room * WINDOW_OVERLAP))
    count = 1 + -(-(len(content) - room) // step)
    starts = np.linspace(0, len(content) - room, count).round().astype(int)
    return [content[start : start + room] for start in starts]


_LONG_TEXT = {"head": _head, "head-tail": _head_tail, "windows": _windows}
