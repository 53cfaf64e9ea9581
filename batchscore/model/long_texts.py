"""Tokens of very long texts, a slice at a time: the first and the last ones, how many there are, or all.

A slice of a text is tokenised by itself, where :mod:`batchscore.model.cut_places` knows that its tokens are the same. Between the
first and the last tokens that are asked for, tokens are only counted, and words that come again are tokenised once. A text
without any place to cut is one slice.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.model.cut_places import Places

LONG = 1 << 19
"""Characters; longer texts are taken apart."""
_SLICE = 1 << 17
"""Characters of a slice, if it can be cut there."""
_BLOCK = 1 << 20
"""Characters of which the words are counted at a time."""
_KNOWN = 1 << 18
"""Words of which the number of tokens is remembered."""
_SHORT = 64
"""Characters of the longest of them."""
_AT_A_TIME = 4096
"""Words that are tokenised at a time."""


class Ends(NamedTuple):
    """The first and the last tokens of a text, int32, and how many it has; the two may overlap, or be all."""

    first: NDArray[np.int32]
    last: NDArray[np.int32]
    n_tokens: int


class Shortened(NamedTuple):
    """Part of a text, and how many tokens were left out."""

    text: str
    left_out: int


class LongTexts:
    """Tokens of long texts, without special ones.

    ``encode`` tokenises short ones; what it gives of each has a length, its number of tokens, and ``ids``.
    """

    def __init__(self, encode: Callable[[list[str]], Sequence[Any]], places: Places) -> None:
        self._encode, self._places, self._words = encode, places.any, places.words
        self._known: dict[str, int] = {}
        """How many tokens a word has."""

    def _ids(self, text: str) -> NDArray[np.int32]:
        return np.array(self._encode([text])[0].ids, dtype=np.int32)

    def all(self, text: str) -> NDArray[np.int32]:
        """All tokens of a text, int32."""
        return np.concatenate([self._ids(text[start:end]) for start, end in self._slices(text)])

    def ends(self, text: str, room: int) -> Ends:
        """At least the first and the last ``room`` tokens of a text, or all if it has fewer."""
        first, at = self._first(text, room)
        last, behind = self._last(text, room, at)
        if behind <= at:
            rest = self.all(text[at:]) if at < len(text) else first[:0]
            whole = np.concatenate([first, rest])
            return Ends(whole, whole, len(whole))
        return Ends(first, last, len(first) + self._count(text, at, behind) + len(last))

    def shortened(self, text: str, room: int, *, at_start: bool) -> Shortened:
        """A text without what is beyond its first ``room`` tokens, or ``at_start`` what is before its last ones."""
        if len(text) <= LONG:
            return Shortened(text, 0)
        place = self._last(text, room, 0)[1] if at_start else self._first(text, room)[1]
        kept, left_out = (text[place:], (0, place)) if at_start else (text[:place], (place, len(text)))
        return Shortened(kept, self._count(text, *left_out))

    def _first(self, text: str, room: int) -> tuple[NDArray[np.int32], int]:
        """At least ``room`` tokens from the start, and the character behind them."""
        found: list[NDArray[np.int32]] = []
        at = 0
        for start, at in self._slices(text):
            found.append(self._ids(text[start:at]))
            if sum(map(len, found)) >= room:
                break
        return np.concatenate(found), at

    def _last(self, text: str, room: int, least: int) -> tuple[NDArray[np.int32], int]:
        """At least ``room`` tokens up to the end, and the character where they begin; nothing if that is before ``least``."""
        size = _SLICE
        while size < len(text) - least:
            place = self._places.search(text, len(text) - size)
            if place is not None and place.start() > least:
                ids = self._ids(text[place.start() :])
                if len(ids) >= room:
                    return ids, place.start()
            size *= 2
        return np.empty(0, dtype=np.int32), least

    def _slices(
        self, text: str, size: int = _SLICE, start: int = 0, end: int | None = None
    ) -> Iterator[tuple[int, int]]:
        end = len(text) if end is None else end
        while start < end:
            place = self._places.search(text, min(start + size, end), end)
            behind = place.start() if place is not None else end
            yield start, behind
            start = behind

    def _count(self, text: str, start: int, end: int) -> int:
        """How many tokens there are between two places."""
        total = 0
        for begin, behind in self._slices(text, _BLOCK, start, end):
            first, *words = self._words.split(text[begin:behind])
            total += self._count_all(first) + self._count_words(collections.Counter(words))
        return total

    def _count_words(self, words: collections.Counter[str]) -> int:
        """The tokens of words that each begin with a space, as often as they occur."""
        known = self._known
        short = [word for word in words if word not in known and len(word) <= _SHORT]
        new = {word: len(found) for word, found in zip(short, self._encoded(short), strict=True)}
        total, others = 0, []
        for word, times in words.items():
            length = known.get(word) or new.get(word)
            if length is None:
                others += [word] * times
            else:
                total += times * length
        self._known = new if len(known) + len(new) > _KNOWN else known | new
        return total + self._count_all("".join(others))

    def _encoded(self, words: list[str]) -> Iterator[Any]:
        for start in range(0, len(words), _AT_A_TIME):
            yield from self._encode(words[start : start + _AT_A_TIME])

    def _count_all(self, text: str) -> int:
        return sum(len(self._encode([text[start:end]])[0]) for start, end in self._slices(text))
