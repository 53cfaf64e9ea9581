"""Tokenising texts so that one that a tokenizer cannot do fails alone, without a word on standard error.

The library ``tokenizers`` is written in Rust, where a panic becomes a ``BaseException``, after Rust has printed it with a
backtrace, and perhaps with a piece of the text. A regular expression gives up on some millions of spaces, for example.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from batchscore.records import OUT_OF_MEMORY
from batchscore.system.memory import has_room
from batchscore.system.silence import silent_panics

T = TypeVar("T")
_PANIC = "PanicException"
"""The name of the exception that a panic becomes; its class cannot be imported."""
_GIVES_UP = re.compile(r"Onig: Regex search error: ([a-z-]+(?: [a-z-]+)*)")
"""What the library of regular expressions says, which has nothing of the text in it."""


class Untokenised(NamedTuple):
    """A text that could not be tokenised, and why; nothing of the text is in the reason."""

    reason: str


def each_alone(
    texts: Sequence[T], encode: Callable[[list[T]], Iterable[Any]], *, is_wary: bool = False
) -> Iterator[Any]:
    """The encodings of some texts; where that fails, of each by itself, with an :class:`Untokenised` for its own.

    ``is_wary``: panics are expected at the first time already.
    """
    if len(texts) > 1:
        try:
            with silent_panics() if is_wary else contextlib.nullcontext():
                found = list(encode(list(texts)))
            yield from found
            return
        except BaseException as error:
            if not _is_of_a_text(error):
                raise
    for text in texts:
        yield attempted(lambda text=text: next(iter(encode([text]))))  # type: ignore[misc]


def attempted(encode: Callable[[], T]) -> T | Untokenised:
    """What ``encode`` makes of one text, or why it could not."""
    try:
        with silent_panics():
            return encode()
    except BaseException as error:
        if not _is_of_a_text(error):
            raise
        return Untokenised(_reason(error))


def _is_of_a_text(error: BaseException) -> bool:
    """Whether an error may be the text's fault: not what the machine refuses, nor a lack of memory that others made."""
    if isinstance(error, MemoryError):
        return has_room()
    return (isinstance(error, Exception) and not isinstance(error, OSError)) or type(error).__name__ == _PANIC


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"{OUT_OF_MEMORY}: there is none left to tokenise it"
    known = _GIVES_UP.fullmatch(str(error))
    why = f"its regular expression gives up: {known[1]}" if known else type(error).__name__
    return f"the tokenizer cannot do it ({why})"
