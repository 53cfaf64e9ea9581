"""From a stream to windows: the complete physical lines at hand, decoded and made ready to parse."""

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
"""How much of an oversized row its reject keeps."""


@dataclass
class Window:
    """The complete physical lines at hand, the first of them a record boundary or a line that is being judged.

    ``text`` is the lines decoded and coded (:func:`~batchscore.formats.delimited.dialect.coded`), ``texts`` the same line by
    line; ``starts`` has the stream offset of each line and of the end. The bytes from there up to ``end`` are known to
    belong to the next line. ``is_final`` says that nothing follows, ``is_stretched`` that the window is longer than a
    block, ``is_suspect`` that it holds a NUL or bytes that cannot be decoded, ``is_coded`` that it holds stand-ins.
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
        """Return the line that holds this character; for the end of the text, the number of lines."""
        return bisect_right(self.chars, char) - 1

    def line_at(self, offset: int) -> int:
        """Return the line that starts at this stream offset or is cut by it: all lines before it end by then."""
        return bisect_right(self.starts, offset) - 1


@dataclass(slots=True)
class Source:
    """The bytes that were read and not yet consumed, shown through a window of ``reach`` bytes.

    The reach is a block. It doubles while the window holds too little to tell what its first line is, up to
    ``max_reach``, which always tells.
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
        """Decode the complete lines; those that cannot be are decoded with marks, and the window is suspect."""
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
        """The text of some lines, and whether it holds a NUL or what cannot be decoded."""
        try:
            text = data.decode(self.dialect.encoding)
        except UnicodeDecodeError:
            return data.decode(self.dialect.encoding, MARK), True
        return text, "\0" in text

    def consume(self, size: int) -> None:
        """Pass over the bytes that were understood; if there were none, show more next time."""
        self.start += size
        self.reach = self.block_bytes if size else min(2 * self.reach, self.max_reach)

    def skip_line(self) -> tuple[bytes, int]:
        """Pass over one physical line of any length; return its first 64 KiB and its length in bytes."""
        head, size, width = b"", 0, unit_bytes(self.dialect.encoding)
        while True:
            shown = self.buffer[self.start :]
            lines = physical_lines(shown, self.dialect, final=self.is_at_end)
            passed = (
                len(lines[0]) if lines else max(0, len(shown) // width - 1) * width
            )  # half of a CRLF may be last
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
