"""Pieces of one file of rows, for several processes: where they begin is guessed from line feeds and quotes alone.

That takes a small part of the time that it takes to read the rows, and is nearly always right. Whoever uses a piece finds out: it is
one if the piece before it ended where it begins, in bytes, rows and lines. For a wrong guess, and for whatever a piece
alone does not tell, one goes back to the last place that is certain, without reading the file again.
"""

from __future__ import annotations

import bisect
import collections
import io
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

from batchscore.records import Position

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.config import ReadSettings

AT_ONCE = 1 << 19
"""Bytes that are searched at a time."""
LONGEST_ROW = 4 << 20
LARGEST = 64 << 20
"""Bytes of a row, and of a piece, beyond which nothing is guessed."""


class RowEnds(NamedTuple):
    """Where the rows of a file end: at the line feeds outside quotes."""

    first: Position
    """Where rows begin."""
    quote: bytes
    """One byte; none if nothing is quoted."""
    blank: bytes
    """The bytes of which a line consists that is no row."""


class Piece(NamedTuple):
    """Whole parts of a file, if the guess is right."""

    start: Position
    data: bytes
    is_last: bool
    is_guessed: bool
    """Whether it is not certain that it begins there."""


class Kept:
    """A stream that is read once, in order; its last bytes are kept for who has to go back."""

    def __init__(self, stream: IO[bytes], offset: int) -> None:
        """The stream stands at ``offset``."""
        self._stream = stream
        self._blocks: collections.deque[bytes] = collections.deque()
        self._starts: collections.deque[int] = collections.deque()
        self.end = offset
        """Bytes before this one were read."""

    def read(self, offset: int, size: int) -> bytes:
        """Bytes from ``offset`` on, at most ``size``; none at the end."""
        if offset >= self.end:
            if data := self._stream.read(size):
                self._blocks.append(data)
                self._starts.append(self.end)
                self.end += len(data)
            return data
        place = bisect.bisect_right(self._starts, offset) - 1
        at = offset - self._starts[place]
        return self._blocks[place][at : at + size]

    def between(self, start: int, end: int) -> bytes:
        """Bytes that were read."""
        pieces = []
        while start < end:
            pieces.append(self.read(start, end - start))
            start += len(pieces[-1])
        return b"".join(pieces)

    def forget(self, offset: int) -> None:
        """Keep no bytes before ``offset``, roughly."""
        while len(self._starts) > 1 and self._starts[1] <= offset:
            self._starts.popleft()
            self._blocks.popleft()

    def view(self) -> IO[bytes]:
        """A stream of the bytes that are kept, and of all after them."""
        return io.BufferedReader(_View(self), AT_ONCE)


class _View(io.RawIOBase):
    def __init__(self, kept: Kept) -> None:
        self._kept, self._at = kept, kept.end

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (self._at if whence == io.SEEK_CUR else 0)
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._kept.read(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class PieceStream(io.BytesIO):
    """The bytes of a piece, sought by their offset in the file."""

    def __init__(self, piece: Piece) -> None:
        super().__init__(piece.data)
        self._offset = piece.start.offset

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a byte of the file."""
        return super().seek(offset - self._offset, whence) + self._offset


def pieces(kept: Kept, ends: RowEnds, settings: ReadSettings, start: Position, size: int) -> Iterator[Piece]:
    """Pieces of at least ``size`` bytes from the part on that begins at ``start``; without a last one if it cannot be guessed.

    Each but the last ends with a part that is full by its rows: so it is certain from the piece that it ends there.
    """
    cutter = _Cutter(settings, start)
    data, begun = b"", start
    while more := kept.read(cutter.end.offset + len(data), AT_ONCE):
        data += more
        rows = _rows_of(data, ends)
        for place in cutter.part_starts(rows):
            if place.offset - begun.offset >= size:
                yield Piece(begun, kept.between(begun.offset, place.offset), False, begun != start)
                begun = place
        data = data[rows.used :]
        if len(data) > LONGEST_ROW or cutter.end.offset - begun.offset > LARGEST:
            return
    yield Piece(begun, kept.between(begun.offset, kept.end), True, begun != start)


class _Found(NamedTuple):
    """Rows in some bytes: where each begins, its size, and the lines before it; blank lines are none."""

    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    lines: NDArray[np.int64]
    used: int
    """Bytes up to the end of the last one."""
    used_lines: int


def _rows_of(data: bytes, ends: RowEnds) -> _Found:
    """The whole rows in some bytes that begin outside quotes."""
    codes = np.frombuffer(data, np.uint8)
    feeds = np.flatnonzero(codes == ord("\n")) + 1
    numbers = np.arange(1, len(feeds) + 1)
    if ends.quote and ends.quote in data:
        quotes = np.flatnonzero(codes == ord(ends.quote))
        is_outside = np.searchsorted(quotes, feeds) % 2 == 0
        feeds, numbers = feeds[is_outside], numbers[is_outside]
    if not len(feeds):
        return _Found(feeds, feeds, feeds, 0, 0)
    starts, lines = np.append(0, feeds[:-1]), np.append(0, numbers[:-1])
    odd = np.flatnonzero(codes[starts] <= ord(" ")).tolist()
    blank = [k for k in odd if not data[starts[k] : feeds[k]].strip(ends.blank)]
    rows = np.delete(np.arange(len(starts)), blank)
    sizes = feeds - starts
    return _Found(starts[rows], sizes[rows], lines[rows], int(feeds[-1]), int(numbers[-1]))


class _Cutter:
    """Cuts rows into parts as :func:`batchscore.formats.cutting.cut` does."""

    def __init__(self, settings: ReadSettings, start: Position) -> None:
        self._most_rows, self._most_bytes = settings.part_rows, settings.part_bytes
        self._rows = self._bytes = 0
        """Of the part that is not full yet."""
        self.end = start
        """Behind the rows that were seen."""

    def part_starts(self, found: _Found) -> Iterator[Position]:
        """Where parts begin among rows that follow those before, if the part before them is full by its rows."""
        totals = np.cumsum(found.sizes)
        place, passed, rows = 0, 0, len(totals)
        while place < rows:
            fitting = np.searchsorted(totals, passed + self._most_bytes - self._bytes, "right")
            behind = min(place + self._most_rows - self._rows, int(fitting))
            behind = max(behind, place if self._rows else place + 1)
            if behind > place:
                self._rows += behind - place
                self._bytes += int(totals[behind - 1]) - passed
                place, passed = behind, int(totals[behind - 1])
            if place < rows:
                if self._rows >= self._most_rows:
                    yield self._position(place, int(found.starts[place]), int(found.lines[place]))
                self._rows = self._bytes = 0
        self.end = self._position(rows, found.used, found.used_lines)

    def _position(self, rows: int, size: int, lines: int) -> Position:
        return Position(self.end.row + rows, self.end.offset + size, self.end.line + lines)
