"""Two texts a row: their tokens, cut longest first, as ``tokenizer(text, text_pair, truncation=True)`` of transformers does.

Special tokens and token types are the tokenizer's own, from its template for pairs. A pair that is too long loses tokens of
its longer text until both are of one length, then of both. The tokenizer's ``truncation_side`` says at which end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore.records import Encodings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.records import Text


class Cut(NamedTuple):
    """Where pairs are cut: at a number of tokens, special ones included, at the ``right`` or ``left`` end of each text."""

    max_length: int
    side: str


def encodings_of(
    texts: Sequence[Text | None], found: Iterable[Any], cut: Cut, *, has_types: bool
) -> Encodings:
    """The pairs that are not ``None``; ``found`` are their uncut encodings by the library ``tokenizers``, in order.

    Without ``has_types`` there are no token types.
    """
    n_tokens = np.full(len(texts), -1, dtype=np.int32)
    row = np.array([index for index, text in enumerate(texts) if text is not None], dtype=np.int32)
    input_ids: list[NDArray[np.int32]] = []
    types: list[NDArray[np.int8]] = []
    for index, encoding in zip(row, found, strict=True):
        n_tokens[index] = len(encoding.ids)
        kept = _kept(encoding, cut) if len(encoding.ids) > cut.max_length else slice(None)
        input_ids.append(np.array(encoding.ids, dtype=np.int32)[kept])
        types.append(
            np.array(encoding.type_ids if has_types else [], dtype=np.int8)[kept if has_types else slice(0)]
        )
    return Encodings(
        row=row,
        input_ids=input_ids,
        weight=np.ones(len(row), dtype=np.float64),
        n_tokens=n_tokens,
        token_type_ids=types if has_types else None,
    )


def _kept(encoding: Any, cut: Cut) -> NDArray[np.bool_]:
    """Which tokens of a pair that is too long are kept: special ones, and as many of each text as there is room for."""
    origin = np.array([-1 if text is None else text for text in encoding.sequence_ids])
    places = [np.flatnonzero(origin == text) for text in (0, 1)]
    kept = origin < 0
    sizes = longest_first(len(places[0]), len(places[1]), cut.max_length - int(kept.sum()))
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
