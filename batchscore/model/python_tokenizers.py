"""Tokenizers that transformers has in Python only, behind the methods of the library ``tokenizers`` that we call.

BERTweet, PhoBERT, XLM, FlauBERT, ESM, CTRL, BioGPT, CANINE, and those that run SentencePiece itself (PLBart, BARTpho). They
are slower, and some need a package that is not always there.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from batchscore.errors import BatchscoreError, ModelError, missing_extra, printable

_EXTRAS = {"sentencepiece": "sentencepiece", "sacremoses": "moses", "emoji": "moses"}
"""The extra that a package belongs to."""
_SENTENCE_PIECE = (".model", ".spm")
"""Endings of SentencePiece files."""


class PythonEncoding(NamedTuple):
    """Token ids and types of a text, special tokens included."""

    ids: list[int]
    type_ids: list[int]


class PythonTokenizer:
    """A tokenizer in Python; one text at a time, whatever the thread: their caches are not made for more."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._encoding = threading.Lock()

    def no_truncation(self) -> None:
        """Texts are never cut, as nobody asks for it."""

    def no_padding(self) -> None:
        """Nor padded."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> PythonEncoding:
        """The tokens of a text."""
        with self._encoding:
            found = self._tokenizer(
                text,
                add_special_tokens=add_special_tokens,
                return_token_type_ids=True,
                return_attention_mask=False,
                verbose=False,  # about the longest input, which others look after
            )
        ids = [int(token) for token in found["input_ids"]]
        return PythonEncoding(ids, [int(kind) for kind in found.get("token_type_ids") or [0] * len(ids)])

    def encode_batch_fast(self, texts: Sequence[str]) -> Iterator[PythonEncoding]:
        """The tokens of each text."""
        return (self.encode(text) for text in texts)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some tokens."""
        return str(self._tokenizer.decode(list(ids)))

    def get_vocab(self, *, with_added_tokens: bool = True) -> dict[str, int]:
        """Token → id."""
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        added = set() if with_added_tokens else {str(t) for t in self.get_added_tokens_decoder().values()}
        return {token: index for token, index in vocabulary.items() if token not in added}

    def get_added_tokens_decoder(self) -> dict[int, Any]:
        """Id → added or special token, with its ``content``."""
        found: dict[int, Any] = self._tokenizer.added_tokens_decoder
        return found

    def token_to_id(self, token: str) -> int | None:
        """The id of a token."""
        found: int | None = self._tokenizer.get_vocab().get(token)
        return found

    def id_to_token(self, index: int) -> str | None:
        """The token of an id."""
        found = self._tokenizer.convert_ids_to_tokens(index)
        return None if found is None else str(found)


def python_tokenizer(tokenizer: Any, folder: Path) -> PythonTokenizer:
    """A tokenizer of transformers that is not one of the library ``tokenizers``.

    Raises:
        ModelError: it would leave out a step, as a package is not there (BERTweet replaces emoji by their names).
    """
    if getattr(tokenizer, "normalization", False) and getattr(tokenizer, "demojizer", tokenizer) is None:
        raise _missing(folder, type(tokenizer).__name__, "emoji")
    return PythonTokenizer(tokenizer)


def missing_package(folder: Path, error: Exception) -> BatchscoreError | None:
    """The error that names the extra, if a tokenizer could not be loaded because a package is missing; else None.

    What transformers says is about something else at times: without SentencePiece it asks for tiktoken.
    """
    files = sorted(path.name for path in folder.iterdir() if path.name.endswith(_SENTENCE_PIECE))
    if files and not (folder / "tokenizer.json").exists() and not _is_there("sentencepiece"):
        return _missing(folder, files[0], "sentencepiece")
    for package in _EXTRAS:
        if isinstance(error, ImportError) and package in str(error).lower() and not _is_there(package):
            return _missing(folder, "in Python", package)
    return None


def _missing(folder: Path, what: str, package: str) -> BatchscoreError:
    feature = f"{printable(folder)}: its tokenizer ({printable(what)}, which needs the package {package})"
    return missing_extra(feature, _EXTRAS[package], ModelError)


def _is_there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
