"""Lines of CSV predictions, many at once: the bytes that :func:`~batchscore.formats.delimited.append_fields` makes of each record.

That is done where it is certain from the columns as wholes that no cell needs quotes, as is usual; else the lines are made one by one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import DataError
from batchscore.formats import delimited
from batchscore.formats.arrow_values import text_array

_FEW = 64
"""Lines that are made one by one sooner than all at once."""
_LARGE = 16 << 20
"""Bytes of records whose lines are made one by one, as all at once they would be in memory twice."""
_DELIMITERS, _QUOTES = ",;\t|", ("", '"', "'")
"""Characters that are in no number, and in no name of a truth value."""


class Lines(NamedTuple):
    """Records with their added cells: their bytes in pieces."""

    first: bytes
    """The first, without its line end."""
    rest: pa.Array
    """Of each of the others the line end before it, and all but its own."""
    line_end: bytes

    def between(self, start: int, end: int) -> list[bytes | pa.Buffer]:
        """Pieces of bytes that are the lines from ``start`` up to ``end``."""
        if start == end:
            return []
        ends = np.frombuffer(self.rest.buffers()[1], np.int64)[self.rest.offset :]
        begun = int(ends[0] if start == 0 else ends[start - 1] + len(self.line_end))
        rest = self.rest.buffers()[2].slice(begun, int(ends[end - 1]) - begun)
        return [self.first, rest, self.line_end] if start == 0 else [rest, self.line_end]


def appended(
    records: pa.Array, added: Sequence[pa.Array], dialect: delimited.Dialect
) -> list[bytes | pa.Buffer]:
    """Pieces of bytes that are all ``records`` with a cell of each of the ``added`` columns; none where that is not certain."""
    lines = lines_of(records, added, dialect)
    return [] if lines is None else lines.between(0, len(records))


def lines_of(records: pa.Array, added: Sequence[pa.Array], dialect: delimited.Dialect) -> Lines | None:
    """All ``records`` with a cell of each of the ``added`` columns; None where it is not certain that no cell needs quotes."""
    if len(records) < _FEW or records.nbytes > _LARGE or len(added) < 2 or not _is_usual(dialect):
        return None
    ends = _ends(records)
    line_end = _line_end(records, ends)
    columns = [_plain_texts(array, dialect) for array in added]
    if not line_end or any(column is None for column in columns):
        return None
    delimiter, n = dialect.delimiter.encode(), len(line_end)
    cells = [column.cast(pa.large_binary()) for column in columns if column is not None]
    joint = pa.scalar(delimiter, pa.large_binary())
    first = delimiter.join([records[0].as_py()[:-n], *(cell[0].as_py() for cell in cells)])
    # each of the others from the line end before it to its own, so that nothing is copied: they lie one behind the other
    moved = pa.py_buffer(np.ascontiguousarray(ends - n))
    bodies = pa.Array.from_buffers(pa.large_binary(), len(records) - 1, [None, moved, records.buffers()[2]])
    rest = pc.binary_join_element_wise(bodies, *(cell.slice(1) for cell in cells), joint)
    return Lines(first, rest, line_end)


def _is_usual(dialect: delimited.Dialect) -> bool:
    return (
        dialect.delimiter in _DELIMITERS
        and dialect.quotechar in _QUOTES
        and not dialect.escapechar
        and _has_ascii(dialect.encoding)
    )


@functools.lru_cache(maxsize=64)
def _has_ascii(encoding: str) -> bool:
    """Whether each of the first 128 characters is the byte that it is in ASCII."""
    every = bytes(range(128))
    try:
        return every.decode(encoding) == every.decode("ascii")
    except UnicodeDecodeError:
        return False


def _ends(records: pa.Array) -> np.ndarray:
    """Where each record ends in the memory of them all."""
    offsets = np.frombuffer(records.buffers()[1], np.int64)
    return offsets[records.offset + 1 : records.offset + 1 + len(records)]


def _line_end(records: pa.Array, ends: np.ndarray) -> bytes:
    """What all records end with, if that is a line feed, or one after one carriage return; else nothing."""
    data = np.frombuffer(records.buffers()[2], np.uint8)
    lengths = np.diff(ends, prepend=np.frombuffer(records.buffers()[1], np.int64)[records.offset])
    if lengths.min() < 3 or not (data[ends - 1] == ord("\n")).all():
        return b""
    has_return, has_two = data[ends - 2] == ord("\r"), data[ends - 3] == ord("\r")
    if not has_return.any():
        return b"\n"
    return b"\r\n" if has_return.all() and not has_two.any() else b""


def _plain_texts(array: pa.Array, dialect: delimited.Dialect) -> pa.Array | None:
    """A column as text, if no cell of it needs quotes and each has the same bytes in the dialect's encoding as in UTF-8."""
    texts = text_array(array)
    if texts is None or not pa.types.is_string(array.type):
        return texts
    try:
        is_plain = all(
            delimited.encode_fields([text, ""], dialect) == text.encode() + dialect.delimiter.encode()
            for text in pc.unique(texts).to_pylist()
        )
    except (DataError, UnicodeError):
        return None
    return texts if is_plain else None
