"""A JSON array of objects, read as a stream: each row keeps the exact bytes of its object.

Only brackets and strings are scanned to find where an element ends; its content is parsed like a line of JSON Lines. So an
invalid value rejects only its own row, while unbalanced brackets mean that the file is damaged.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, NamedTuple

from batchscore.config import ReadSettings
from batchscore.errors import DataError, printable
from batchscore.formats import jsonl
from batchscore.formats.cutting import Item, cut
from batchscore.formats.source import Source, open_bytes, seek_to
from batchscore.records import ColumnChoice, Layout, Position, Reject, Rows

if TYPE_CHECKING:
    from batchscore.formats.format import Output
    from batchscore.formats.staged import StagedPart

_BLOCK = 256 * 1024
_KEPT_BYTES = 64 * 1024
"""Maximum bytes of an oversized element in its reject."""
_STEP = re.compile(rb'[^"{}\[\]]*+(?:"(?:[^"\\]++|\\.)*+"|([\[{])|([\]}]))', re.DOTALL)
"""Up to the next string or bracket: group 1 opens, group 2 closes."""
_SCALAR = re.compile(rb'(?:"(?:[^"\\]++|\\.)*+"|[^\s,\]\[{}"]++)(?=[\s,\]])', re.DOTALL)
_REST = re.compile(rb'(?:[^"\\]++|\\.)*+"', re.DOTALL)
"""The rest of a string."""
_SPACE = re.compile(rb"[ \t\r\n]*+")


class _Element(NamedTuple):
    """One element of the array: its bytes (the first ones if oversized), its size, and its position."""

    raw: bytes
    size: int
    offset: int
    line: int


def describe(source: Source, settings: ReadSettings) -> Layout:
    """Find the columns in the first objects; later rows may have other fields."""
    jsonl.refuse_encoding(source, settings)
    with open_bytes(source, settings.max_expansion) as stream:
        elements = _elements(stream, source, settings, Position())
        heads = itertools.takewhile(lambda each: each.offset < _BLOCK, elements)
        return jsonl.layout_of(each.raw for each in heads if each.size <= settings.max_row_bytes)


def read(
    source: Source, layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
) -> Iterator[Rows]:
    """Yield the elements as parts; one that is not an object, or whose text is not a string, is a reject."""
    with open_bytes(source, settings.max_expansion) as stream:
        seek_to(stream, source, start.offset)
        items = _items(stream, source, layout, columns, settings, start)
        yield from cut(items, columns, settings, start)


def _items(
    stream: IO[bytes],
    source: Source,
    layout: Layout,
    columns: ColumnChoice,
    settings: ReadSettings,
    start: Position,
) -> Iterator[Item | Reject]:
    for each in _elements(stream, source, settings, start):
        if each.size > settings.max_row_bytes:
            reason = jsonl.too_long(each.size, settings.max_row_bytes)
            yield Reject(0, each.line, each.offset, reason, None, each.raw)
        else:
            yield jsonl.item(each.raw, each.line, each.offset, layout, columns)


def _elements(
    stream: IO[bytes], source: Source, settings: ReadSettings, start: Position
) -> Iterator[_Element]:
    """The elements of the array, from the one at ``start`` on.

    Raises:
        DataError: invalid JSON between elements, or something follows the array.
        EOFError: the array is not closed.
    """
    scan = _Scan(stream, source, settings.max_row_bytes, start)
    if start == Position():
        scan.skip_mark()
        scan.expect(b"[")
        if scan.next_byte() == b"]":
            scan.expect(b"]")
            return scan.end()
    while True:
        yield scan.element()
        if scan.next_byte() == b"]":
            scan.expect(b"]")
            return scan.end()
        scan.expect(b",")


class _Scan:
    """Scans the bytes of an array, with one element and one block in memory."""

    def __init__(self, stream: IO[bytes], source: Source, max_bytes: int, start: Position) -> None:
        self._stream, self._source, self._max = stream, source, max_bytes
        self._data = b""
        self._at = 0
        """Position in ``_data``."""
        self._offset = start.offset
        """File offset of ``_data[0]``."""
        self._line, self._counted = start.line, 0
        """The line at ``_data[_counted]``."""

    def skip_mark(self) -> None:
        """Skip a byte order mark."""
        self._more()
        self._at = 3 if self._data.startswith(b"\xef\xbb\xbf") else 0

    def _more(self) -> bool:
        """Read another block, as large as the data at hand, so that rescanning it all stays linear."""
        block = self._stream.read(max(_BLOCK, len(self._data)))
        self._data += block
        return bool(block)

    def _drop(self, end: int) -> None:
        """Drop the bytes up to ``end``."""
        self._line += self._data.count(b"\n", self._counted, end)
        self._counted = max(self._counted - end, 0)
        self._offset += end
        self._data, self._at = self._data[end:], max(self._at - end, 0)

    def next_byte(self) -> bytes:
        """The next byte that is not white space, without consuming it; empty at the end."""
        while True:
            match = _SPACE.match(self._data, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            self._drop(self._at)
            if not self._more():
                return b""

    def expect(self, wanted: bytes) -> None:
        """Consume a byte that must come next."""
        found = self.next_byte()
        if not found:
            raise EOFError("its array is not closed")
        if found != wanted:
            raise self._invalid(f"there must be {wanted.decode()!r}")
        self._at += 1

    def _invalid(self, what: str) -> DataError:
        return DataError(
            f"{printable(self._source.path)}, line {self._line_here()}, byte {self._offset + self._at}: {what}, so this is no JSON array. "
            "Get a whole copy of it."
        )

    def end(self) -> None:
        """Check that nothing follows."""
        if self.next_byte():
            raise self._invalid("something follows the array")

    def element(self) -> _Element:
        """The element at the current position."""
        first = self.next_byte()
        if not first:
            raise EOFError("its array is not closed")
        if self._at > _BLOCK:
            self._drop(self._at)
        offset, line = self._offset + self._at, self._line_here()
        if first in b"{[":
            raw, size = self._bracketed()
        elif first in b",]}:":
            raise self._invalid("there must be an object")
        else:
            raw, size = self._scalar()
        return _Element(raw, size, offset, line)

    def _line_here(self) -> int:
        self._line += self._data.count(b"\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _scalar(self) -> tuple[bytes, int]:
        while (match := _SCALAR.match(self._data, self._at)) is None:
            if len(self._data) - self._at > self._max or not self._more():
                raise self._invalid("there must be an object")
        self._at = match.end()
        return match[0], len(match[0])

    def _bracketed(self) -> tuple[bytes, int]:
        """From an opening bracket to its closing one; beyond the limit only the first bytes are kept."""
        start, depth, head, passed = self._at, 0, b"", 0
        while True:
            match = _STEP.match(self._data, self._at)
            if match is not None:
                self._at = match.end()
                depth += (match[1] is not None) - (match[2] is not None)
                if depth == 0:
                    size = passed + self._at - start
                    kept = min(size, _KEPT_BYTES) if size > self._max else size
                    return head[:kept] or self._data[start : start + kept], size
                continue
            at = self._at - start
            self._drop(start)
            start, self._at = 0, at
            if passed + len(self._data) <= self._max:
                self._need_more()
            elif not head:  # an oversized row is skipped, not kept
                head = self._first(_KEPT_BYTES)
            else:
                passed += self._skip_unbracketed()

    def _first(self, size: int) -> bytes:
        while len(self._data) < size and self._more():
            pass
        return self._data[:size]

    def _skip_unbracketed(self) -> int:
        """Skip data without brackets, and the rest of a string that begins in it; returns the bytes skipped."""
        quote = self._data.find(b'"', self._at)
        if quote < 0:
            size = len(self._data)
            self._drop(size)
            self._need_more()
            return size
        size = quote + 1
        self._drop(size)
        while (match := _REST.match(self._data)) is None:
            backslashes = len(self._data) - len(self._data.rstrip(b"\\"))
            whole = len(self._data) - backslashes % 2  # the data may end in the middle of an escape
            size += whole
            self._drop(whole)
            self._need_more()
        self._drop(match.end())
        return size + match.end()

    def _need_more(self) -> None:
        if not self._more():
            raise EOFError("its array is not closed")


class JsonArray(jsonl.JsonFormat):
    """An array of objects."""

    name = "json"
    has_notes = True

    def begins(self, head: bytes) -> bool:
        """True for an array that is empty or begins with an object."""
        text = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
        return text.startswith(b"[") and text[1:].lstrip(b" \t\r\n").startswith((b"{", b"]"))

    def is_note(self, head: bytes) -> bool:
        """True for one object over several lines."""
        return jsonl.is_multiline(head)

    def describe(self, source: Source, settings: ReadSettings) -> Layout:
        """See :func:`describe`."""
        return describe(source, settings)

    def read(
        self, source: Source, layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
    ) -> Iterator[Rows]:
        """See :func:`read`."""
        return read(source, layout, columns, settings, start)

    def write(self, parts: Iterable[StagedPart], output: Output, out: IO[bytes]) -> None:
        """An array with one object per line."""
        before = b"[\n"
        for body, _ in jsonl.scored_objects(parts, output):
            out.write(before + body)
            before = b",\n"
        out.write((b"[" if before == b"[\n" else b"\n") + b"]\n")

    def count_rows(self, source: Source, output: Output) -> int:
        """Elements of the array."""
        with open_bytes(source, 2**40) as stream:
            return sum(1 for _ in _elements(stream, source, ReadSettings(max_row_bytes=2**40), Position()))


FORMAT = JsonArray()
