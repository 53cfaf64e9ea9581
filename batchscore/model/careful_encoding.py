"""Tokenising texts so that one that a tokenizer cannot do fails alone, without a word on standard error.

The library ``tokenizers`` is written in Rust, where a panic becomes a ``BaseException``, after Rust has printed it with a
backtrace, and perhaps with a piece of the text. A regular expression gives up on some millions of spaces, for example.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from batchscore.records import OUT_OF_MEMORY

T = TypeVar("T")
_PANIC = "PanicException"
"""The name of the exception that a panic becomes; its class cannot be imported."""
_PANIC_LINES = re.compile(
    rb"\n?^thread '[^\n]*' (?:\(\d+\) )?panicked at .*?(?:^note: [^\n]*\n|\Z)", re.S | re.M
)
_GIVES_UP = re.compile(r"Onig: Regex search error: ([a-z-]+(?: [a-z-]+)*)")
"""What the library of regular expressions says, which has nothing of the text in it."""
_STDERR = 2
_one_at_a_time = threading.Lock()


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
    return isinstance(error, Exception) or type(error).__name__ == _PANIC


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"{OUT_OF_MEMORY}: there is none left to tokenise it"
    known = _GIVES_UP.fullmatch(str(error))
    why = f"its regular expression gives up: {known[1]}" if known else type(error).__name__
    return f"the tokenizer cannot do it ({why})"


# ------------------------------------------------------------------------------------------------ what Rust prints


@contextlib.contextmanager
def silent_panics() -> Iterator[None]:
    """Keep what is written to standard error within the block, and write it afterwards, but for what Rust says of panics.

    Nobody can tell Rust not to; and it writes to the descriptor, whatever ``sys.stderr`` is.
    """
    if not _has_stderr():
        yield
        return
    with _one_at_a_time:
        kept = _Kept()
        atexit.register(kept.end)  # a signal may end the program meanwhile, and its last word be kept
        try:
            yield
        finally:
            kept.end()
            atexit.unregister(kept.end)


def _has_stderr() -> bool:
    """Whether standard error is where it should be, so that nothing else is taken for it."""
    try:
        return (
            sys.__stderr__ is not None and sys.__stderr__.fileno() == _STDERR and hasattr(os, "memfd_create")
        )
    except (OSError, ValueError):  # closed
        return False


class _Kept:
    """Standard error while it goes to memory; from :meth:`end` on it is what it was."""

    def __init__(self) -> None:
        self._real = os.dup(_STDERR)
        self._memory = os.memfd_create("stderr")
        os.dup2(self._memory, _STDERR)

    def end(self) -> None:
        """Write what was kept; nothing the second time."""
        if self._real < 0:
            return
        os.dup2(self._real, _STDERR)
        with os.fdopen(self._memory, "rb") as memory, os.fdopen(self._real, "wb") as real:
            self._real = -1
            memory.seek(0)
            with contextlib.suppress(OSError):  # nobody listens
                real.write(_PANIC_LINES.sub(b"", memory.read()))
