"""Whether a tokenizer knows any words: transformers makes an empty one of a folder whose files are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from batchscore.errors import ModelError, printable

if TYPE_CHECKING:
    from batchscore.model.bundle import Bundle

_WORDS = ("good", "bad", "7", "?", "да", "好", "فيلم")
"""Words in several scripts; any tokenizer with a vocabulary tells some of them apart."""
_SAMPLED = 1000
"""Words of a vocabulary that are tried."""
_LONGER = 4
"""Letters of a word that is more than a few letters side by side."""


def refuse_no_words(tokenizer: Any, bundle: Bundle) -> None:
    """Raise if all words get the same tokens: transformers makes such a tokenizer of a folder without a vocabulary.

    Of a plain folder also if no longer word of its own vocabulary ever comes out, as without ``merges.txt``.
    """
    is_checked = bundle.canaries is not None
    tells_apart = _tells_apart(tokenizer, _WORDS)
    if tells_apart and is_checked:
        return
    own = _own_words(tokenizer)
    if not tells_apart and not _tells_apart(tokenizer, own.values()):
        raise ModelError(
            f"{printable(bundle.path)}: its tokenizer knows no words, as all of them come out the same; its files are "
            "missing or empty. Put them there with tokenizer.save_pretrained(folder)."
        )
    longer = {index: word for index, word in own.items() if len(word) >= _LONGER and word.isalpha()}
    if not is_checked and longer and not _makes_any(tokenizer, longer):
        raise ModelError(
            f"{printable(bundle.path)}: its tokenizer makes none of the words in its own vocabulary, as one of its files is "
            "missing or was saved incompletely, such as merges.txt or bpe.codes. Copy them from where the model was trained."
        )


def _own_words(tokenizer: Any) -> dict[int, str]:
    """Words of the vocabulary, from all over it, by token id."""
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    own = sorted(set(tokenizer.get_vocab(with_added_tokens=False)) - special)
    ids = [tokenizer.token_to_id(token) for token in own[:: 1 + len(own) // _SAMPLED]]
    words = {index: tokenizer.decode([index]).strip() for index in ids if index is not None}
    return {index: word for index, word in words.items() if word}


def _makes_any(tokenizer: Any, words: Mapping[int, str]) -> bool:
    """Whether any of the words, by token id, becomes that token, at the start of a text or behind a space."""
    return any(
        index in tokenizer.encode(f"{start}{word}", add_special_tokens=False).ids
        for index, word in words.items()
        for start in ("", "a ")
    )


def _tells_apart(tokenizer: Any, words: Iterable[str]) -> bool:
    """Whether at least two of the words have different tokens."""
    return len({frozenset(tokenizer.encode(word, add_special_tokens=False).ids) for word in words}) > 1
