"""Two texts a row: their tokens, cut longest first, as ``tokenizer(text, text_pair, truncation=True)`` of transformers does.

Special tokens and token types are the tokenizer's own, from its template for pairs. A pair that is too long loses tokens of
its longer text until both are of one length, then of both. The tokenizer's ``truncation_side`` says at which end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore.model.careful_encoding import Untokenised
from batchscore.records import Encodings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.records import Text


class Cut(NamedTuple):
    """Where pairs are cut: at a number of tokens, special ones included, at the ``right`` or ``left`` end of each text."""

    max_length: int
    side: str


class PairTokens(NamedTuple):
    """The encoding of a pair by the library ``tokenizers``, and how many tokens of each text are not in it."""

    encoding: Any
    left_out: tuple[int, int] = (0, 0)
    """Of texts far beyond the longest input, at the end where they are cut."""


def encodings_of(
    texts: Sequence[Text | None], found: Iterable[PairTokens | Untokenised], cut: Cut, *, has_types: bool
) -> Encodings:
    """The pairs that are not ``None``; ``found`` are their uncut tokens, in order.

    Without ``has_types`` there are no token types.
    """
    n_tokens = np.full(len(texts), -1, dtype=np.int32)
    row: list[int] = []
    input_ids: list[NDArray[np.int32]] = []
    types: list[NDArray[np.int8]] = []
    failures: dict[int, str] = {}
    wanted = [index for index, text in enumerate(texts) if text is not None]
    for index, pair in zip(wanted, found, strict=True):
        if isinstance(pair, Untokenised):
            failures[index] = pair.reason
            continue
        encoding = pair.encoding
        n_tokens[index] = len(encoding.ids) + sum(pair.left_out)
        kept = _kept(pair, cut) if n_tokens[index] > cut.max_length else slice(None)
        row.append(index)
        input_ids.append(np.array(encoding.ids, dtype=np.int32)[kept])
        types.append(
            np.array(encoding.type_ids if has_types else [], dtype=np.int8)[kept if has_types else slice(0)]
        )
    return Encodings(
        row=np.array(row, dtype=np.int32),
        input_ids=input_ids,
        weight=np.ones(len(row), dtype=np.float64),
        n_tokens=n_tokens,
        token_type_ids=types if has_types else None,
        failures=failures,
    )


def _kept(pair: PairTokens, cut: Cut) -> NDArray[np.bool_]:
    """Which tokens of a pair that is too long are kept: special ones, and as many of each text as there is room for."""
    origin = np.array([-1 if text is None else text for text in pair.encoding.sequence_ids])
    places = [np.flatnonzero(origin == text) for text in (0, 1)]
    kept = origin < 0
    lengths = [len(at) + more for at, more in zip(places, pair.left_out, strict=True)]
    sizes = longest_first(lengths[0], lengths[1], cut.max_length - int(kept.sum()))
    for at, size in zip(places, sizes, strict=True):
        kept[at[len(at) - size :] if cut.side == "left" else at[:size]] = True
    return kept


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens are left of two texts of ``first`` and ``second`` tokens that do not fit ``room`` together.

    The longer one is cut to what the other leaves, but not below half of the room; of an odd room the longer one, of two
    equal ones the second, gets the one more.

    >>> longest_first(3, 20, 10), longest_first(20, 3, 10), longest_first(9, 9, 7), longest_first(9, 8, 7)
    ((3, 7), (7, 3), (3, 4), (4, 3))
    """
    short, long = min(first, second), max(first, second)
    if 2 * short > room:
        short = min(short, room // 2)
    long = room - short
    return (long, short) if first > second else (short, long)
