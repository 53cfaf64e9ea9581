"""From a stream to windows: complete physical lines, decoded and prepared for parsing."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import AnyStr, BinaryIO, overload

import numpy as np

from batchscore.formats.delimited.dialect import (
    MARK,
    Dialect,
    Position,
    coded,
    ends_at_feeds,
    feeds_in_bytes,
    feeds_in_text,
    physical_lines,
    text_lines,
    unit_bytes,
)

KEPT_BYTES = 64 << 10
"""Maximum bytes of an oversized row in its reject."""


class Lines(Sequence[AnyStr]):
    """The lines of a long window, made when they are asked for: a list of them is many times as large."""

    def __init__(self, whole: AnyStr, bounds: array[int]) -> None:
        self._whole: AnyStr = whole
        self.bounds = bounds
        """``bounds``: where each line begins in ``whole``, and the end."""

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @overload
    def __getitem__(self, at: int) -> AnyStr: ...

    @overload
    def __getitem__(self, at: slice) -> list[AnyStr]: ...

    def __getitem__(self, at: int | slice) -> AnyStr | list[AnyStr]:
        if isinstance(at, slice):
            return [self[line] for line in range(*at.indices(len(self)))]
        if at >= len(self):
            raise IndexError(at)
        return self.joined(at, at + 1)

    def joined(self, start: int, end: int) -> AnyStr:
        """The lines from ``start`` up to ``end`` as one."""
        joined: AnyStr = self._whole[self.bounds[start] : self.bounds[end]]
        return joined


@dataclass
class Window:
    """Complete physical lines; the first is a record boundary or a line within damage.

    ``text`` is the lines decoded and coded (:func:`~batchscore.formats.delimited.dialect.coded`), ``texts`` the same line by
    line; ``starts`` has the stream offset of each line and of the end. The bytes from there up to ``end`` belong to the
    next line. ``is_final``: nothing follows; ``is_stretched``: the window is longer than a block; ``is_suspect``: it has a
    NUL or undecodable bytes; ``is_coded``: it has stand-ins.
    """

    raws: Sequence[bytes]
    text: str
    texts: Sequence[str]
    starts: array[int]
    line: int
    end: int
    is_final: bool
    is_stretched: bool
    is_suspect: bool
    is_coded: bool

    @cached_property
    def chars(self) -> array[int]:
        """The index in ``text`` of each line, and of the end."""
        if isinstance(self.texts, Lines):
            return self.texts.bounds
        return array("q", accumulate(map(len, self.texts), initial=0))

    def raw(self, start: int, end: int) -> bytes:
        """Return the bytes of the lines from ``start`` up to ``end``."""
        if isinstance(self.raws, Lines):
            joined: bytes = self.raws.joined(start, end)
            return joined
        return self.raws[start] if end - start == 1 else b"".join(self.raws[start:end])

    def line_of(self, char: int) -> int:
        """Return the line of this character; for the end of the text, the number of lines."""
        return bisect_right(self.chars, char) - 1

    def line_at(self, offset: int) -> int:
        """Return the line that starts at this stream offset or contains it."""
        return bisect_right(self.starts, offset) - 1


@dataclass(slots=True)
class Source:
    """The bytes read and not yet consumed, seen through a window of ``reach`` bytes.

    The reach is one block. It doubles while the window has too little to decide about its first line, up to ``max_reach``,
    which always suffices.
    """

    stream: BinaryIO
    dialect: Dialect
    block_bytes: int
    max_reach: int
    buffer: bytes = b""
    start: int = 0
    reach: int = 0
    is_at_end: bool = False

    def window(self, position: Position) -> Window:
        """Decode the complete lines; if that fails, undecodable bytes are marked and the window is suspect."""
        self.reach = self.reach or self.block_bytes
        self._fill()
        shown = self.buffer[self.start : self.start + self.reach]
        is_final = self.is_at_end and self.start + len(shown) == len(self.buffer)
        is_stretched = self.reach > self.block_bytes
        if is_stretched and ends_at_feeds(self.dialect):
            return self._long_window(shown, position, is_final=is_final)
        raws = physical_lines(shown, self.dialect, final=is_final)
        starts = array("q", accumulate(map(len, raws), initial=position.offset))
        plain, is_suspect = self._decoded(memoryview(shown)[: starts[-1] - position.offset])
        text = coded(plain, self.dialect)
        width = unit_bytes(self.dialect.encoding)
        return Window(
            raws=raws,
            text=text,
            texts=text_lines(text, self.dialect),
            starts=starts,
            line=position.line,
            end=position.offset + len(shown) // width * width,
            is_final=is_final,
            is_stretched=is_stretched,
            is_suspect=is_suspect,
            is_coded=text is not plain,
        )

    def _long_window(self, shown: bytes, position: Position, *, is_final: bool) -> Window:
        """A window of many lines, or a very long one, with few copies of what is in it."""
        size = len(shown) if is_final else shown.rfind(b"\n") + 1
        ends = feeds_in_bytes(memoryview(shown)[:size])
        plain, is_suspect = self._decoded(memoryview(shown)[:size])
        text = coded(plain, self.dialect)
        return Window(
            raws=Lines(shown, ends),
            text=text,
            texts=Lines(text, ends if len(text) == size else feeds_in_text(text)),
            starts=array("q", (np.frombuffer(ends, np.int64) + position.offset).tobytes()),
            line=position.line,
            end=position.offset + len(shown),
            is_final=is_final,
            is_stretched=True,
            is_suspect=is_suspect,
            is_coded=text is not plain,
        )

    def _decoded(self, data: memoryview) -> tuple[str, bool]:
        """The text of some lines, and whether it has a NUL or undecodable bytes."""
        try:
            text = str(data, self.dialect.encoding)
        except UnicodeDecodeError:
            return str(data, self.dialect.encoding, MARK), True
        return text, "\0" in text

    def consume(self, size: int) -> None:
        """Consume the bytes that were parsed; if there were none, widen the window."""
        self.start += size
        self.reach = self.block_bytes if size else min(2 * self.reach, self.max_reach)

    def skip_line(self) -> tuple[bytes, int]:
        """Skip one physical line of any length; return its first 64 KiB and its length in bytes."""
        head, size, width = b"", 0, unit_bytes(self.dialect.encoding)
        while True:
            shown = self.buffer[self.start :]
            lines = physical_lines(shown, self.dialect, final=self.is_at_end)
            passed = (
                len(lines[0]) if lines else max(0, len(shown) // width - 1) * width
            )  # the last byte may be half of a CRLF
            head, size = head + shown[: min(passed, KEPT_BYTES - len(head))], size + passed
            self.start += passed
            if lines or self.is_at_end:
                self.reach = self.block_bytes
                return head, size
            self.reach = len(shown) - passed + self.block_bytes
            self._fill()

    def _fill(self) -> None:
        while not self.is_at_end and len(self.buffer) - self.start < self.reach:
            chunk = self.stream.read(self.reach - len(self.buffer) + self.start)
            self.is_at_end = not chunk
            self.buffer, self.start = self.buffer[self.start :] + chunk, 0
