"""From a stream to windows: complete physical lines, decoded and prepared for parsing."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import BinaryIO

from batchscore.formats.delimited.dialect import (
    MARK,
    STAND_INS,
    Dialect,
    Position,
    coded,
    physical_lines,
    text_lines,
    unit_bytes,
)

KEPT_BYTES = 64 << 10
"""Maximum bytes of an oversized row in its reject."""


@dataclass
class Window:
    """Complete physical lines; the first is a record boundary or a line within damage.

    ``text`` is the lines decoded and coded (:func:`~batchscore.formats.delimited.dialect.coded`), ``texts`` the same line by
    line; ``starts`` has the stream offset of each line and of the end. The bytes from there up to ``end`` belong to the
    next line. ``is_final``: nothing follows; ``is_stretched``: the window is longer than a block; ``is_suspect``: it has a
    NUL or undecodable bytes; ``is_coded``: it has stand-ins.
    """

    raws: list[bytes]
    text: str
    texts: list[str]
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
        return array("q", accumulate(map(len, self.texts), initial=0))

    def raw(self, start: int, end: int) -> bytes:
        """Return the bytes of the lines from ``start`` up to ``end``."""
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
        raws = physical_lines(shown, self.dialect, final=is_final)
        starts = array("q", accumulate(map(len, raws), initial=position.offset))
        plain, is_suspect = self._decoded(shown[: starts[-1] - position.offset])
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
            is_stretched=self.reach > self.block_bytes,
            is_suspect=is_suspect or (text is not plain and bool(STAND_INS.search(plain))),
            is_coded=text is not plain,
        )

    def _decoded(self, data: bytes) -> tuple[str, bool]:
        """The text of some lines, and whether it has a NUL or undecodable bytes."""
        try:
            text = data.decode(self.dialect.encoding)
        except UnicodeDecodeError:
            return data.decode(self.dialect.encoding, MARK), True
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
