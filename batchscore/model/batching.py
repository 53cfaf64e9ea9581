"""Token lengths in, micro-batch plan out: pure, no torch.

Sequences of a part are sorted by length, longest first, so that the first micro-batch is the one that needs the most
memory and a budget that does not fit shows at once. Lengths are rounded up to a multiple, so that few shapes occur (a
CPU prepares a kernel for each shape and keeps it). A micro-batch ends *before* the row that would take it over the
budget, but never while it is empty: an oversized row goes through alone.

Not every model bears padding (:mod:`batchscore.model.probing` finds out): ``none`` puts sequences of one length together, and
``single`` each by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from batchscore.records import MicroBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

LENGTH_MULTIPLE = 16
"""Tokens; padded lengths are a multiple of this. Measured on reviews, MiniLM in bfloat16, a core with AVX-512: 2.8 % of what
is computed is padding, with 32 it was 5.1 % and took 3 % longer, with 8 it was 1.7 % and took 1 % less, for twice the
shapes that kernels are kept for."""
WAYS = ("right", "left", "none", "single")
"""Of padding, from the fastest to the safest."""


@dataclasses.dataclass(frozen=True, slots=True)
class TokenTypes:
    """The token type of each special token before and behind a text, of the text's own tokens, and of padding."""

    before: tuple[int, ...] = ()
    text: int = 0
    after: tuple[int, ...] = ()
    padding: int = 0

    def of(self, n_tokens: int) -> list[int]:
        """The types of a sequence of ``n_tokens``.

        >>> TokenTypes(text=0, after=(0, 2)).of(4)
        [0, 0, 0, 2]
        """
        content = n_tokens - len(self.before) - len(self.after)
        return [*self.before, *[self.text] * content, *self.after]


@dataclasses.dataclass(frozen=True, slots=True)
class Padding:
    """How sequences of several lengths become rows of one length."""

    longest: int
    """Tokens, the model's longest input; no row is padded beyond it."""
    token_id: int
    """What rows are filled up with."""
    way: str = "right"
    """One of :data:`WAYS`."""
    multiple: int = LENGTH_MULTIPLE
    types: TokenTypes | None = None
    """``None`` where the model gets no token types."""
    proven: int | None = None
    """Tokens; a longer sequence goes through by itself, whatever the way. ``None``: no length is in doubt."""

    @property
    def is_there(self) -> bool:
        """Whether rows are filled up at all."""
        return self.way in ("right", "left")

    def width(self, n_tokens: int) -> int:
        """The length of the rows of a micro-batch whose longest sequence has ``n_tokens``.

        >>> Padding(512, 0).width(33), Padding(511, 0).width(510), Padding(512, 0, "none").width(33)
        (48, 511, 33)
        """
        if not self.is_there or self.is_in_doubt(n_tokens):
            return n_tokens
        return max(n_tokens, min(-(-n_tokens // self.multiple) * self.multiple, self.longest))

    def is_in_doubt(self, n_tokens: int) -> bool:
        """Whether nobody has tried what such a long sequence bears."""
        return self.proven is not None and n_tokens > self.proven

    def together(self, sizes: NDArray[np.int64], max_batch_tokens: int) -> int:
        """How many of the sequences with ``sizes`` tokens, longest first, may be one micro-batch."""
        n_tokens = int(sizes[0])
        if self.way == "single" or self.is_in_doubt(n_tokens):
            return 1
        rows = max(1, max_batch_tokens // max(self.width(n_tokens), 1))
        return int((sizes[:rows] == n_tokens).sum()) if self.way == "none" else rows


def plan(
    lengths: Sequence[int] | NDArray[np.integer], max_batch_tokens: int, padding: Padding
) -> list[NDArray[np.int64]]:
    """Cut sequences into micro-batches, longest first.

    ``lengths[k]`` is the number of tokens of sequence *k*. Returns index arrays into ``lengths`` that hold each index
    once; within a micro-batch, and between them, lengths never grow, and sequences of one length keep their order. The
    padded tokens of a micro-batch (rows x padded length of its first) are at most ``max_batch_tokens`` unless it holds
    one sequence only.

    >>> [batch.tolist() for batch in plan([3, 9, 4, 8], 16, Padding(16, 0, multiple=8))]
    [[1], [3, 2], [0]]
    >>> [batch.tolist() for batch in plan([3, 9, 3, 9], 99, Padding(16, 0, "none"))]
    [[1, 3], [0, 2]]
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    sizes = np.asarray(lengths, dtype=np.int64)[order]
    batches: list[NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        batches.append(order[start : start + padding.together(sizes[start:], max_batch_tokens)])
        start += len(batches[-1])
    return batches


def assemble(
    input_ids: Sequence[NDArray[np.int32]], sequence: NDArray[np.int64], padding: Padding
) -> MicroBatch:
    """Pad the sequences of one micro-batch to the padded length of the longest of them."""
    width = padding.width(max(len(input_ids[k]) for k in sequence))
    types = padding.types
    ids = np.full((len(sequence), width), padding.token_id, dtype=np.int64)
    mask = np.zeros((len(sequence), width), dtype=np.int64)
    token_types = None if types is None else np.full((len(sequence), width), types.padding, dtype=np.int64)
    for position, k in enumerate(sequence):
        n_tokens = len(input_ids[k])
        place = slice(width - n_tokens, width) if padding.way == "left" else slice(n_tokens)
        ids[position, place] = input_ids[k]
        mask[position, place] = 1
        if types is not None and token_types is not None:
            token_types[position, place] = types.of(n_tokens)
    return MicroBatch(sequence=sequence, input_ids=ids, attention_mask=mask, token_type_ids=token_types)


def plan_sequences(
    input_ids: Sequence[NDArray[np.int32]], max_batch_tokens: int, padding: Padding
) -> list[NDArray[np.int64]]:
    """The micro-batches of a part's sequences, as index arrays; see :func:`plan`."""
    lengths = np.fromiter((len(ids) for ids in input_ids), dtype=np.int64, count=len(input_ids))
    return plan(lengths, max_batch_tokens, padding)
