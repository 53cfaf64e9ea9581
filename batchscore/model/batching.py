"""Token lengths in, micro-batch plan out: pure, no torch.

The sequences of a part are sorted by length, longest first: the first micro-batch needs the most memory, so a budget that
is too large fails at once. Lengths are rounded up to a multiple to keep the number of shapes small (a CPU prepares and
caches a kernel per shape). A micro-batch ends *before* the row that would exceed the budget, but is never empty: an
oversized row goes through alone.

Only sequences of one padded length go together, so that this length follows from the sequence alone: it decides the last
bit of an answer, and an answer must not depend on the rows beside it if it is to be used another night.

Not every model tolerates padding (:mod:`batchscore.model.probing` tests it): with ``none`` a micro-batch has sequences of
one length only, with ``single`` one sequence only.
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
"""Tokens; padded lengths are a multiple of this. Measured on reviews, MiniLM in bfloat16, one core with AVX-512: 2.8 % of
the computed tokens are padding. With 32 it was 5.1 % and 3 % slower; with 8 it was 1.7 % and 1 % faster, for twice as many
shapes with cached kernels."""
PADDING_MODES = ("right", "left", "none", "single")
"""From the fastest to the safest."""


@dataclasses.dataclass(frozen=True, slots=True)
class TokenTypes:
    """Token type ids: of the special tokens before and after a text, of the text, and of padding."""

    before: tuple[int, ...] = ()
    text: int = 0
    after: tuple[int, ...] = ()
    padding: int = 0

    def of(self, n_tokens: int) -> list[int]:
        """The token type ids of a sequence of ``n_tokens``.

        >>> TokenTypes(text=0, after=(0, 2)).of(4)
        [0, 0, 0, 2]
        """
        content = n_tokens - len(self.before) - len(self.after)
        return [*self.before, *[self.text] * content, *self.after]


@dataclasses.dataclass(frozen=True, slots=True)
class Padding:
    """How the sequences of a micro-batch are padded to one length."""

    longest: int
    """Tokens; the model's longest input. No row is padded beyond it."""
    token_id: int
    """The padding token."""
    mode: str = "right"
    """One of :data:`PADDING_MODES`."""
    multiple: int = LENGTH_MULTIPLE
    types: TokenTypes | None = None
    """``None`` if the model takes no token types."""
    longest_probe: int | None = None
    """Tokens; a longer sequence goes through alone, whatever the mode. ``None``: no limit."""

    @property
    def pads(self) -> bool:
        """Whether rows are padded at all."""
        return self.mode in ("right", "left")

    def width(self, n_tokens: int) -> int:
        """The padded length of a micro-batch whose longest sequence has ``n_tokens``.

        >>> Padding(512, 0).width(33), Padding(511, 0).width(510), Padding(512, 0, "none").width(33)
        (48, 511, 33)
        """
        if not self.pads or self.exceeds_probes(n_tokens):
            return n_tokens
        return max(n_tokens, min(-(-n_tokens // self.multiple) * self.multiple, self.longest))

    def exceeds_probes(self, n_tokens: int) -> bool:
        """Whether a sequence is longer than any that the model was probed with."""
        return self.longest_probe is not None and n_tokens > self.longest_probe

    def batch_rows(self, sizes: NDArray[np.int64], max_batch_tokens: int) -> int:
        """How many rows the next micro-batch takes of sequences with ``sizes`` tokens, longest first."""
        n_tokens = int(sizes[0])
        if self.mode == "single" or self.exceeds_probes(n_tokens):
            return 1
        rows = max(1, max_batch_tokens // max(self.width(n_tokens), 1))
        shortest = (n_tokens - 1) // self.multiple * self.multiple + 1 if self.pads else n_tokens
        return int((sizes[:rows] >= shortest).sum())


def plan(
    lengths: Sequence[int] | NDArray[np.integer], max_batch_tokens: int, padding: Padding
) -> list[NDArray[np.int64]]:
    """Plan micro-batches, longest sequences first.

    ``lengths[k]`` is the number of tokens of sequence *k*. Returns index arrays into ``lengths``, each index once.
    Lengths never increase within or across micro-batches; sequences of equal length keep their order. A micro-batch has
    at most ``max_batch_tokens`` padded tokens (rows x padded length of its first sequence), unless it is one sequence.

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
        batches.append(order[start : start + padding.batch_rows(sizes[start:], max_batch_tokens)])
        start += len(batches[-1])
    return batches


def plan_apart(
    input_ids: Sequence[NDArray[np.int32]], apart: Sequence[int], max_batch_tokens: int, padding: Padding
) -> list[NDArray[np.int64]]:
    """The micro-batches of sequences, as index arrays, of which so many consecutive ones are planned ``apart`` from the rest."""
    batches: list[NDArray[np.int64]] = []
    start = 0
    for count in apart:
        batches += [
            start + batch
            for batch in plan_sequences(input_ids[start : start + count], max_batch_tokens, padding)
        ]
        start += count
    return batches


def assemble(
    input_ids: Sequence[NDArray[np.int32]],
    sequence: NDArray[np.int64],
    padding: Padding,
    token_type_ids: Sequence[NDArray[np.int8]] | None = None,
) -> MicroBatch:
    """Pad the sequences of one micro-batch to the padded length of the longest one.

    ``token_type_ids``: the types of each sequence's tokens, where ``padding.types`` cannot tell them.
    """
    width = padding.width(max(len(input_ids[k]) for k in sequence))
    types = TokenTypes() if padding.types is None and token_type_ids is not None else padding.types
    ids = np.full((len(sequence), width), padding.token_id, dtype=np.int64)
    mask = np.zeros((len(sequence), width), dtype=np.int64)
    token_types = None if types is None else np.full((len(sequence), width), types.padding, dtype=np.int64)
    for position, k in enumerate(sequence):
        n_tokens = len(input_ids[k])
        place = slice(width - n_tokens, width) if padding.mode == "left" else slice(n_tokens)
        ids[position, place] = input_ids[k]
        mask[position, place] = 1
        if types is not None and token_types is not None:
            token_types[position, place] = types.of(n_tokens) if token_type_ids is None else token_type_ids[k]
    return MicroBatch(sequence=sequence, input_ids=ids, attention_mask=mask, token_type_ids=token_types)


def plan_sequences(
    input_ids: Sequence[NDArray[np.int32]], max_batch_tokens: int, padding: Padding
) -> list[NDArray[np.int64]]:
    """The micro-batches of a part's sequences, as index arrays; see :func:`plan`."""
    lengths = np.fromiter((len(ids) for ids in input_ids), dtype=np.int64, count=len(input_ids))
    return plan(lengths, max_batch_tokens, padding)
