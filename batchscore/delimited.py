r"""Read CSV as it is in the world: every cell as the text it was, every record with its exact bytes and its place.

Pure: a binary stream in, records out. The standard library's ``csv.reader`` (strict) does the parsing, block by block,
at C speed; where it stumbles, a scanner of our own looks at the one record in question and decides how far the damage
goes. No decision depends on where a block ends.

The rules:

- Records follow RFC 4180. A *physical line* ends with ``\n``, ``\r\n`` or a lone ``\r``, and with nothing else (not
  ``\x0b``, ``\x85`` or ``\u2028``, which ``str.splitlines`` would take). Line ends inside quotes are kept as they are.
- A quote inside an unquoted field (``5" disk``) is text. Text after a closing quote (``"abc"def``) is an error.
- Ragged, NUL-bearing, undecodable and oversized rows become :class:`Rejected`; their neighbours do not notice.
- An empty physical line outside quotes is no record when the table has several columns: its bytes belong to nothing,
  but lines and offsets count it. In a table of one column it is a record with one empty field.
- Apart from those lines, and from the cut raw bytes of an oversized reject, every byte after the header belongs to
  exactly one record or reject: their ``raw`` joined is the rest of the file.

After a quoting error the reader is lost: it cannot know whether the next line is inside or outside quotes. The reject
grows, line by line, until a line that is *credible* as the start of a record (:meth:`_Parser._resume`). A quote that
was never closed then costs its own line and no other; a stray quote in a review of many lines costs that whole
review as one reject, and never brings up a "row" out of the middle of its prose.

Work stays linear in the bytes. Within a window ``csv.reader`` sees each quoted line once; a window that holds too
little to decide doubles; and of two scans that start in damage neither runs far into the other: a line that opens a
quote ends any scan that reaches it within quotes.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

import numpy as np

from batchscore.errors import DataError, UsageError

if TYPE_CHECKING:
    from _csv import Reader

KEPT_BYTES = 64 << 10
"""How much of an oversized row its reject keeps."""

_DELIMITERS = (",", ";", "\t", "|")
_TERMINATORS = ("\r\n", "\n", "\r")
_SNIFFED_RECORDS = 100
_HEADER_BYTES = 1 << 20
_AHEAD_BYTES = 1 << 20
_AHEAD_LINES = 1000
_FIELD_LIMIT = 2**31 - 1
_LONG_TEXT = 4 << 20
_LINE = re.compile(r"[^\r\n]*+(?:\r\n?|\n)|[^\r\n]++")
_BOMS = (
    ("utf-8", codecs.BOM_UTF8),
    ("utf-32-le", codecs.BOM_UTF32_LE),  # before UTF-16: its mark begins with the same two bytes
    ("utf-32-be", codecs.BOM_UTF32_BE),
    ("utf-16-le", codecs.BOM_UTF16_LE),
    ("utf-16-be", codecs.BOM_UTF16_BE),
)
_NUL_LANES: dict[tuple[bool, ...], str] = {
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}
_CODEC_NAMES = {"utf-8-sig": "utf-8", "iso8859-1": "latin-1"}
_UNIT_TYPES = {"utf-16-le": "<u2", "utf-16-be": ">u2", "utf-32-le": "<u4", "utf-32-be": ">u4"}
_ESCAPING_CODECS = frozenset(
    {"utf-7", "unicode-escape", "raw-unicode-escape", "punycode", "idna", "hz", "undefined"}
)
_MARK = "batchscore.mark"


# ------------------------------------------------------------------------------------------------------- what flows


@dataclass(frozen=True, slots=True)
class Dialect:
    r"""How one file is written.

    ``encoding`` is a Python codec name that neither reads nor writes a byte order mark; the mark itself is ``bom``.
    ``quotechar`` may be empty: then nothing is quoted. ``line_terminator`` is the header's own: ``\n``, ``\r\n`` or
    ``\r``. Raises :class:`UsageError` for characters that cannot be meant.
    """

    delimiter: str = ","
    quotechar: str = '"'
    encoding: str = "utf-8"
    bom: bytes = b""
    line_terminator: str = "\n"

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1 or self.delimiter in "\r\n\0":
            raise UsageError(f"the delimiter must be one character, not {self.delimiter!r}; see --delimiter")
        if len(self.quotechar) > 1 or (self.quotechar and self.quotechar in "\r\n\0"):
            raise UsageError(
                f"the quote must be one character or none, not {self.quotechar!r}; see --quotechar"
            )
        if self.quotechar == self.delimiter:
            raise UsageError(
                f"delimiter and quote are both {self.delimiter!r}; see --delimiter and --quotechar"
            )
        if self.line_terminator not in _TERMINATORS:
            raise UsageError(f"a line cannot end with {self.line_terminator!r}")

    def to_json(self) -> dict[str, str]:
        """Return what :meth:`from_json` takes; the byte order mark as hexadecimal digits."""
        return {
            "delimiter": self.delimiter,
            "quotechar": self.quotechar,
            "encoding": self.encoding,
            "bom": self.bom.hex(),
            "line_terminator": self.line_terminator,
        }

    @classmethod
    def from_json(cls, data: dict[str, str]) -> Dialect:
        """Return the dialect that :meth:`to_json` described."""
        return cls(**{**data, "bom": bytes.fromhex(data["bom"])})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a row may be: bytes of one record, and columns of the table; and how many bytes are read at a time."""

    max_row_bytes: int = 32 << 20
    max_columns: int = 10_000
    block_bytes: int = 1 << 18


class Record(NamedTuple):
    """One row: its cells as text, and its exact bytes with their terminator.

    ``line`` is the physical line (from 1) in which it starts, ``offset`` its first byte in the decompressed stream.
    """

    fields: list[str]
    raw: bytes
    line: int
    offset: int


class Rejected(NamedTuple):
    """Bytes that are no row: why, in which column if that is known, and the bytes themselves.

    ``raw`` is complete up to ``max_row_bytes``; of more only the first 64 KiB are kept, and ``reason`` says so.
    """

    line: int
    offset: int
    reason: str
    column: str | None
    raw: bytes


class Position(NamedTuple):
    """A record boundary: byte offset and physical line (from 1)."""

    offset: int
    line: int


# ------------------------------------------------------------------------------------- encodings and physical lines


def _mark_undecodable(error: UnicodeError) -> tuple[str, int]:
    """Stand a lone surrogate in for each byte that cannot be decoded, so that its field can be found.

    Strictly decoded text holds no lone surrogate. No codec that is let in takes a delimiter, quote or line end into
    a broken sequence (tried for all multibyte codecs of CPython 3.11).
    """
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_MARK, _mark_undecodable)


def detect_encoding(head: bytes, given: str | None = None) -> tuple[str, bytes]:
    """Return the codec name and the byte order mark of a file that begins with ``head``.

    ``given`` wins. Without it a mark decides, then the NUL pattern of UTF-16 and UTF-32, then it is UTF-8: no other
    encoding is ever guessed. Raises :class:`UsageError` for a ``given`` that is unknown or cannot be read by lines.
    """
    marked = next(((name, bom) for name, bom in _BOMS if head.startswith(bom)), None)
    patterned = _NUL_LANES.get(
        tuple(head[lane:1024:4].count(0) * 5 > len(head[lane:1024:4]) for lane in range(4))
    )
    found, bom = marked or (patterned or "utf-8", b"")
    if given is None:
        return found, bom
    name = _codec_name(given)
    if name in ("utf-16", "utf-32"):
        name = found if found.startswith(name) else f"{name}-le"
    return name, bom if name == found else b""


def _codec_name(given: str) -> str:
    try:
        name = codecs.lookup(given).name
        readable = name in ("utf-16", "utf-32", *_UNIT_TYPES) or '\r\n",;a0'.encode(name)[-7:] == b'\r\n",;a0'
    except (LookupError, ValueError) as error:
        raise UsageError(f"unknown encoding {given!r}; try --encoding utf-8, cp1252 or latin-1") from error
    if not readable or name in _ESCAPING_CODECS or name.startswith("iso2022"):
        raise UsageError(f"encoding {given!r} cannot be read line by line; convert the file to UTF-8 first")
    return _CODEC_NAMES.get(name, name)


def encoding_hint(encoding: str) -> str:
    """Say what to try when bytes are not ``encoding``; empty where there is nothing to suggest."""
    return (
        "; if the file comes from Windows, --encoding cp1252 may be the answer" if encoding == "utf-8" else ""
    )


def _unit_bytes(encoding: str) -> int:
    return int(_UNIT_TYPES.get(encoding, "|u1")[-1])


def _physical_lines(data: bytes, encoding: str, *, final: bool) -> list[bytes]:
    """Split at line ends, which stay. Unless ``final``, leave out what may go on: a last line without an end."""
    if encoding in _UNIT_TYPES:
        return _wide_lines(data, _UNIT_TYPES[encoding], final=final)
    if not final:  # a carriage return in the last byte may be half of a CRLF
        newline = data.rfind(b"\n") + 1
        data = data[: max(newline, data.rfind(b"\r", newline, len(data) - 1) + 1)]
    return data.splitlines(keepends=True)


def _wide_lines(data: bytes, unit_type: str, *, final: bool) -> list[bytes]:
    width = int(unit_type[-1])
    units = np.frombuffer(data, dtype=unit_type, count=len(data) // width)
    feeds = units == ord("\n")
    before_feed = np.append(feeds[1:], not final)[: len(units)]
    ends = (np.flatnonzero(feeds | ((units == ord("\r")) & ~before_feed)) + 1) * width
    lines = [data[start:end] for start, end in pairwise([0, *ends.tolist()])]
    tail = data[sum(map(len, lines)) :]
    return [*lines, tail] if final and tail else lines


def _csv_reader(lines: Iterable[str], dialect: Dialect) -> Reader:
    # The limit is one for the process, 131,072 characters unless raised, and a review may be longer. Ours is
    # max_row_bytes, so it is only ever raised, and each time anew: another library may have lowered it.
    if csv.field_size_limit() < _FIELD_LIMIT:
        csv.field_size_limit(_FIELD_LIMIT)
    if dialect.quotechar:
        return csv.reader(lines, delimiter=dialect.delimiter, quotechar=dialect.quotechar, strict=True)
    return csv.reader(lines, delimiter=dialect.delimiter, quoting=csv.QUOTE_NONE, strict=True)


def _text_lines(text: str) -> list[str]:
    """Split as :func:`_physical_lines` does; ``str.splitlines`` would split at more characters."""
    if len(text) > _LONG_TEXT:  # StringIO is faster, but copies the text at four bytes a character
        return _LINE.findall(text)
    return list(io.StringIO(text, newline=""))


# ---------------------------------------------------------------------------------------------- dialect and header


def sniff(
    head: bytes, *, delimiter: str | None = None, quotechar: str | None = None, encoding: str | None = None
) -> Dialect:
    """Work out the dialect from the first bytes of a file (64 KiB do); what is given is taken as it is.

    The delimiter is the candidate (comma, semicolon, tab, bar) that gives the header more than one field and the most
    records the header's number of fields; a table of one column gets the comma. The quote is ``"`` unless given.
    """
    name, bom = detect_encoding(head, encoding)
    text = codecs.getincrementaldecoder(name)(_MARK).decode(head[len(bom) :])
    lines = _text_lines(text)
    quote = '"' if quotechar is None else quotechar
    candidates = _DELIMITERS if delimiter is None else (delimiter,)
    dialects = [
        Dialect(each, quote, name, bom) for each in candidates if each != quote or delimiter is not None
    ]
    chosen = max(dialects, key=lambda each: _consistency(lines, each))
    return Dialect(chosen.delimiter, quote, name, bom, _header_terminator(lines, chosen))


def _consistency(lines: list[str], dialect: Dialect) -> tuple[float, int]:
    """Return the share of the first records that are as wide as the header, and that width."""
    widths: list[int] = []
    try:
        for row in _csv_reader(lines, dialect):
            if row:
                widths.append(len(row))
            if len(widths) == _SNIFFED_RECORDS:
                break
    except csv.Error:  # a damaged row, or the end of the head within quotes
        pass
    if not widths or widths[0] < 2:
        return 0.0, 0
    return widths.count(widths[0]) / len(widths), widths[0]


def _header_terminator(lines: list[str], dialect: Dialect) -> str:
    reader = _csv_reader(lines, dialect)
    try:
        next(filter(None, reader), None)
    except csv.Error:
        return _terminator_of(lines[0]) or "\n"
    last = lines[reader.line_num - 1] if reader.line_num else ""
    if reader.line_num == len(lines) and last.endswith("\r"):
        return "\r\n"  # the head may have been cut in the middle of a CRLF
    return _terminator_of(last) or "\n"


def _terminator_of(text: str) -> str:
    return next((end for end in _TERMINATORS if text.endswith(end)), "")


def read_header(stream: BinaryIO, dialect: Dialect, limits: Limits | None = None) -> Record | None:
    """Read the header record and leave ``stream``, at its first byte before, right behind it.

    Empty lines before it are passed over. Returns None for a file that holds no record at all. Duplicate and empty
    names are legal. Raises :class:`DataError` for a header that cannot be decoded or parsed, or is too wide.
    """
    limits = limits or Limits()
    stream.read(len(dialect.bom))
    position = Position(len(dialect.bom), 1)
    while True:
        raws: list[bytes] = []
        try:
            fields = next(_csv_reader(_header_lines(stream, dialect, raws), dialect), None)
        except csv.Error as error:
            advice = "Check --delimiter, --quotechar and --encoding."
            raise DataError(
                f"the header in line {position.line} cannot be parsed: {error}. {advice}"
            ) from error
        if fields is None:
            return None
        record = Record(fields, b"".join(raws), position.line, position.offset)
        if fields:
            break
        position = next_position(record, dialect)
    if len(fields) > limits.max_columns:
        raise DataError(f"the header has {len(fields)} columns; at most {limits.max_columns} are read")
    return record


def _header_lines(stream: BinaryIO, dialect: Dialect, raws: list[bytes]) -> Iterator[str]:
    """Yield decoded lines, reading not one byte further; keep their bytes in ``raws``."""
    size = 0
    while raw := _read_line(stream, dialect):
        raws.append(raw)
        size += len(raw)
        if size > _HEADER_BYTES:
            advice = "A quote may never be closed; check --quotechar."
            raise DataError(f"the header does not end within {_HEADER_BYTES} bytes. {advice}")
        try:
            text = raw.decode(dialect.encoding)
        except UnicodeDecodeError as error:
            advice = encoding_hint(dialect.encoding)
            raise DataError(f"the header is not {dialect.encoding} ({error.reason}){advice}") from error
        if "\0" in text:
            raise DataError("the header holds a NUL character; is this file CSV, and is --encoding right?")
        yield text


def _read_line(stream: BinaryIO, dialect: Dialect) -> bytes:
    width = _unit_bytes(dialect.encoding)
    end = dialect.line_terminator[-1].encode(dialect.encoding)
    if end == b"\n":
        return stream.readline(_HEADER_BYTES + 1)
    line = bytearray()
    while (unit := stream.read(width)) and len(line) <= _HEADER_BYTES:
        line += unit
        if unit == end:
            break
    return bytes(line)


def next_position(record: Record | Rejected, dialect: Dialect) -> Position:
    """Return where the record after ``record`` starts; of a :class:`Rejected` only if its raw bytes are complete."""
    lines = len(_physical_lines(record.raw, dialect.encoding, final=True))
    return Position(record.offset + len(record.raw), record.line + lines)


# ----------------------------------------------------------------------------------------------- one record at hand


def parse_record(raw: bytes, dialect: Dialect) -> list[str]:
    """Return the cells of one raw record. Raises :class:`DataError` if it is not exactly one."""
    try:
        rows = list(_csv_reader(_text_lines(raw.decode(dialect.encoding)), dialect))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{len(raw)} bytes are no record: {error}") from error
    if len(rows) != 1:
        raise DataError(f"{len(raw)} bytes hold {len(rows)} records, not one")
    return rows[0] or [""]


def encode_fields(values: Sequence[str], dialect: Dialect) -> bytes:
    """Return ``values`` as a piece of a record in the file's own encoding, quoted where needed, without a terminator.

    Raises :class:`DataError` for a value that this dialect cannot hold.
    """
    cells = [_cell(value, dialect, alone=len(values) == 1) for value in values]
    try:
        return dialect.delimiter.join(cells).encode(dialect.encoding)
    except UnicodeEncodeError as error:
        bad = error.object[error.start : error.end]
        problem = f"{bad!r} cannot be written in {dialect.encoding}, the encoding of the input"
        raise DataError(f"{problem}; try --output-format parquet") from error


def _cell(value: str, dialect: Dialect, *, alone: bool) -> str:
    quote = dialect.quotechar
    special = any(char in value for char in (dialect.delimiter, "\r", "\n")) or (
        quote != "" and quote in value
    )
    special = special or value.startswith("\ufeff")  # at the start of a file it would be its byte order mark
    if not quote:
        if special:
            raise DataError(f"{value!r} cannot be written without quotes; try --output-format parquet")
        return value
    if special or (alone and not value):
        return f"{quote}{value.replace(quote, quote * 2)}{quote}"
    return value


def append_fields(record_raw: bytes, extra: Sequence[str], dialect: Dialect) -> bytes:
    """Return the raw record with ``extra`` fields before its terminator; a record without one gets the dialect's."""
    body, end = record_raw, dialect.line_terminator.encode(dialect.encoding)
    for terminator in _TERMINATORS:
        encoded = terminator.encode(dialect.encoding)
        if record_raw.endswith(encoded):
            body, end = record_raw[: -len(encoded)], encoded
            break
    pieces = (dialect.delimiter.encode(dialect.encoding), encode_fields(extra, dialect)) if extra else ()
    return b"".join((body, *pieces, end))


# ---------------------------------------------------------------------------------------------- from stream to window


@dataclass
class _Window:
    """The complete physical lines at hand, the first of them a record boundary or a line that is being judged.

    ``texts`` are ``raws`` decoded; ``starts`` has the stream offset of each line and of the end. The bytes from there
    up to ``end`` are known to belong to the next line. ``is_final`` says that nothing follows, ``is_stretched`` that
    the window is longer than a block, ``is_suspect`` that it holds a NUL or bytes that cannot be decoded.
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
class _Source:
    """The bytes that were read and not yet consumed, shown through a window of ``reach`` bytes.

    The reach is a block. It doubles while the window holds too little to tell what its first line is, up to
    ``max_reach``, which always tells.
    """

    stream: BinaryIO
    encoding: str
    block_bytes: int
    max_reach: int
    buffer: bytes = b""
    start: int = 0
    reach: int = 0
    is_at_end: bool = False

    def window(self, position: Position) -> _Window:
        """Decode the complete lines; those that cannot be are decoded with marks, and the window is suspect."""
        self.reach = self.reach or self.block_bytes
        self._fill()
        shown = self.buffer[self.start : self.start + self.reach]
        is_final = self.is_at_end and self.start + len(shown) == len(self.buffer)
        raws = _physical_lines(shown, self.encoding, final=is_final)
        starts = array("q", accumulate(map(len, raws), initial=position.offset))
        try:
            text = shown[: starts[-1] - position.offset].decode(self.encoding)
            is_suspect = "\0" in text
        except UnicodeDecodeError:
            text, is_suspect = shown[: starts[-1] - position.offset].decode(self.encoding, _MARK), True
        end = position.offset + len(shown) // _unit_bytes(self.encoding) * _unit_bytes(self.encoding)
        texts, is_stretched = _text_lines(text), self.reach > self.block_bytes
        return _Window(raws, text, texts, starts, position.line, end, is_final, is_stretched, is_suspect)

    def consume(self, size: int) -> None:
        """Pass over the bytes that were understood; if there were none, show more next time."""
        self.start += size
        self.reach = self.block_bytes if size else min(2 * self.reach, self.max_reach)

    def skip_line(self) -> tuple[bytes, int]:
        """Pass over one physical line of any length; return its first 64 KiB and its length in bytes."""
        head, size, width = b"", 0, _unit_bytes(self.encoding)
        while True:
            shown = self.buffer[self.start :]
            lines = _physical_lines(shown, self.encoding, final=self.is_at_end)
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


def read_records(
    stream: BinaryIO,
    dialect: Dialect,
    n_fields: int,
    limits: Limits | None = None,
    *,
    offset: int,
    line: int,
    header: Sequence[str] = (),
) -> Iterator[list[Record | Rejected]]:
    """Yield lists of records and rejects, in file order, from a stream that stands at a record boundary.

    ``offset`` and ``line`` say which one (:func:`next_position`); the stream is read from where it stands and never
    sought. ``header`` names the columns in rejects. Memory is a small multiple of ``limits.block_bytes`` where rows
    are ordinary, and of ``limits.max_row_bytes`` where one is as long as that.
    """
    limits = limits or Limits()
    parser = _Parser(dialect, n_fields, limits, tuple(header))
    source = _Source(stream, dialect.encoding, limits.block_bytes, limits.max_row_bytes + _AHEAD_BYTES + 8)
    position, is_final = Position(offset, line), False
    while not is_final:
        window = source.window(position)
        items, used = parser.parse(window)
        if items:
            yield items
        source.consume(window.starts[used] - position.offset)
        is_final = window.is_final and used == len(window.raws)
        if not window.raws and window.end - position.offset > limits.max_row_bytes:
            head, size = source.skip_line()
            if items := parser.overflow(head, size, position):
                yield items
            position = Position(position.offset + size, position.line + 1)
        else:
            position = Position(window.starts[used], position.line + used)
    if parser.bad is not None:
        yield [parser.bad.rejected()]


# ------------------------------------------------------------------------------------------ from window to records


@dataclass(slots=True)
class _Bad:
    """A reject in the making: where it starts and why; its bytes grow until a credible record follows.

    ``end`` is the offset where it ends at the latest, if that is known: that of a well-quoted record with too few or
    too many fields in several lines, which may have swallowed others by a quote that is not closed.
    """

    position: Position
    reason: str
    column: str | None
    max_bytes: int
    end: int | None = None
    raw: bytearray = field(default_factory=bytearray)
    size: int = 0

    def add(self, raw: bytes, size: int) -> None:
        self.raw += raw
        self.size += size
        if self.size > max(self.max_bytes, KEPT_BYTES):
            del self.raw[KEPT_BYTES:]

    def rejected(self) -> Rejected:
        cut = f"; {len(self.raw)} of its {self.size} bytes are kept" if len(self.raw) < self.size else ""
        offset, line = self.position
        return Rejected(line, offset, self.reason + cut, self.column, bytes(self.raw))


class _Scan(NamedTuple):
    """What stands at a line: a record that is ``complete``, ``broken``, still ``open``, or ``over`` the limit.

    ``n_fields`` are complete; ``end`` is the line behind the scan; ``has_stray`` says that a quote stood within an
    unquoted field.
    """

    state: str
    n_fields: int
    end: int
    has_stray: bool = False


_make_record = cast("Callable[[tuple[list[str], bytes, int, int]], Record]", partial(tuple.__new__, Record))


class _Parser:
    """Turns windows into records and rejects; between two windows it remembers only a reject in the making."""

    def __init__(self, dialect: Dialect, n_fields: int, limits: Limits, header: tuple[str, ...]) -> None:
        self.dialect = dialect
        self.n_fields = n_fields
        self.max_row_bytes = limits.max_row_bytes
        self.header = header
        self.bad: _Bad | None = None
        quote, delimiter = re.escape(dialect.quotechar), re.escape(dialect.delimiter)
        self._quoted = re.compile(
            f"{quote}[^{quote}]*+(?:{quote}{quote}[^{quote}]*+)*+{quote}" if quote else "(?!)"
        )
        self._plain = re.compile(rf"[^{delimiter}\r\n]*+")

    def parse(self, window: _Window) -> tuple[list[Record | Rejected], int]:
        """Return the records and rejects that are certain, and how many lines of the window they used up."""
        items: list[Record | Rejected] = []
        index, seen = 0, 0  # csv.reader has seen the lines before `seen`, and stumbled over the last of them
        following: int | None
        while index < len(window.raws):
            if self.bad is not None:
                following = self._grow_bad(self.bad, window, index, items)
            else:
                following, seen = self._read_run(window, index, seen, items)
                if following == index:
                    following = self._read_one(window, index, items)
            if following is None:
                break
            index = following
            if window.is_stretched and self.bad is None:
                break  # the rest is read block by block again: a long window holds many times its bytes
        return items, index

    def overflow(self, head: bytes, size: int, position: Position) -> list[Record | Rejected]:
        """Take a physical line that is over the limit by itself: the first bytes of it, and its size in bytes."""
        items: list[Record | Rejected] = []
        if self.bad is not None and self.bad.end == position.offset:
            items.append(self.bad.rejected())
            self.bad = None
        if self.bad is None:
            self.bad = self._new_bad(position, _Scan("over", 0, 0), position.line)
        self.bad.add(head, size)
        return items

    def _read_run(
        self, window: _Window, first: int, seen: int, items: list[Record | Rejected]
    ) -> tuple[int, int]:
        """Read records at C speed up to the end of the window or the first that csv.reader cannot finish.

        Returns the line behind the records that were taken (``first`` if none could be) and the line behind all that
        csv.reader has seen. Lines before ``seen`` are not shown to it again, except those without any quote; nor is a
        stretched window, whose first record is long or damaged.
        """
        plain = self._quote_free(window, first, seen)
        if plain > first:
            rows = list(_csv_reader(window.texts[first:plain], self.dialect))
            return first + self._take_rows(window, rows, range(first, plain + 1), items), seen
        if first < seen or window.is_stretched:
            return first, seen
        rows, ends = [], [first]
        reader = _csv_reader(map(window.texts.__getitem__, range(first, len(window.texts))), self.dialect)
        try:
            for row in reader:
                rows.append(row)
                ends.append(first + reader.line_num)
        except csv.Error:  # broken quoting, or the window ends within quotes: _read_one finds out
            pass
        return ends[self._take_rows(window, rows, ends, items)], first + reader.line_num

    def _quote_free(self, window: _Window, index: int, seen: int) -> int:
        """Return the line up to which no quote occurs; looked for only if there is none at all, or near damage."""
        if not self._has_quote(window.text):
            return len(window.raws)
        if index >= seen:
            return index
        at = window.text.find(self.dialect.quotechar, window.chars[index])
        return len(window.raws) if at < 0 else window.line_of(at)

    def _take_rows(
        self, window: _Window, rows: list[list[str]], ends: Sequence[int], items: list[Record | Rejected]
    ) -> int:
        """Append the rows that run from line ``ends[k]`` to ``ends[k + 1]``; return how many of them could be."""
        fits = window.starts[-1] - window.starts[0] <= self.max_row_bytes
        if fits and not window.is_suspect and set(map(len, rows)) == {self.n_fields}:
            if ends[-1] - ends[0] == len(rows):
                raws = window.raws[ends[0] : ends[-1]]
            else:
                raws = [window.raw(start, end) for start, end in pairwise(ends)]
            lines = map(window.line.__add__, ends)
            items.extend(
                map(_make_record, zip(rows, raws, lines, map(window.starts.__getitem__, ends), strict=False))
            )
            return len(rows)
        for taken, (row, start, end) in enumerate(zip(rows, ends, ends[1:], strict=False)):
            ragged_lines = end - start > 1 and len(row) != self.n_fields
            too_long = not fits and window.starts[end] - window.starts[start] > self.max_row_bytes
            if ragged_lines or too_long:
                return taken
            self._judge(row, window, start, end, items)
        return len(rows)

    def _read_one(self, window: _Window, index: int, items: list[Record | Rejected]) -> int | None:
        """Read the record at one line, or begin a reject; None if it takes more lines to tell."""
        scan = self._probe(window, index)
        if scan is None:
            return None
        if scan.state == "complete" and (scan.end == index + 1 or scan.n_fields == self.n_fields):
            row = next(_csv_reader(window.texts[index : scan.end], self.dialect))
            self._judge(row, window, index, scan.end, items)
            return scan.end
        position = Position(window.starts[index], window.line + index)
        self.bad = self._new_bad(position, scan, window.line + scan.end - 1)
        self.bad.end = window.starts[scan.end] if scan.state == "complete" else None
        self.bad.add(window.raws[index], len(window.raws[index]))
        return index + 1

    def _grow_bad(self, bad: _Bad, window: _Window, index: int, items: list[Record | Rejected]) -> int | None:
        """Add lines to the reject, or end it if a credible record starts here; None if it takes more to tell."""
        resume = self._resume(window, index)
        if resume is None:
            return None
        if bad.end is not None:
            resume = min(resume, window.line_at(bad.end))
        for raw in window.raws[index:resume]:
            bad.add(raw, len(raw))
        if resume == index:
            items.append(bad.rejected())
            self.bad = None
        return resume

    def _judge(
        self, row: list[str], window: _Window, start: int, end: int, items: list[Record | Rejected]
    ) -> None:
        """Append what is well quoted as a record, or as a reject if it is bad in another way; pass over empty lines."""
        if not row:
            if self.n_fields > 1:
                return
            row = [""]
        raw, line, offset = window.raw(start, end), window.line + start, window.starts[start]
        is_sound = not window.is_suspect and len(row) == self.n_fields
        problem, culprit = ("", -1) if is_sound else self._problem(row, raw)
        if problem:
            items.append(Rejected(line, offset, problem, self._column(culprit), raw))
        else:
            items.append(Record(row, raw, line, offset))

    def _problem(self, row: list[str], raw: bytes) -> tuple[str, int]:
        """Return why a row is rejected (empty: it is not) and the index of the field, -1 if it is none."""
        encoding = self.dialect.encoding
        try:
            raw.decode(encoding)
        except UnicodeDecodeError as error:
            bad = raw[error.start : error.end].hex()
            found = f"0x{bad} at byte {error.start} of the row is not {encoding}"
            marked = (k for k, value in enumerate(row) if re.search("[\ud800-\udfff]", value))
            return found + encoding_hint(encoding), next(marked, -1)
        culprit = next((k for k, value in enumerate(row) if "\0" in value), -1)
        if culprit >= 0:
            return "a NUL character", culprit
        return ("" if len(row) == self.n_fields else self._ragged(len(row))), -1

    def _ragged(self, n_fields: int) -> str:
        return f"too {'few' if n_fields < self.n_fields else 'many'} fields: {n_fields}, not {self.n_fields}"

    def _new_bad(self, position: Position, scan: _Scan, noticed: int) -> _Bad:
        reason = {
            "broken": f"quotes do not pair up, seen in line {noticed}: one is missing, or one in a field is not doubled",
            "open": "a quoted field is never closed",
            "over": f"the row is longer than {self.max_row_bytes} bytes",
            "complete": self._ragged(scan.n_fields),
        }[scan.state]
        column = self._column(scan.n_fields) if scan.state == "open" else None
        return _Bad(position, reason, column, self.max_row_bytes)

    def _column(self, index: int) -> str | None:
        return self.header[index] if 0 <= index < len(self.header) else None

    # Where damage ends

    def _probe(self, window: _Window, index: int, *, strict: bool = False) -> _Scan | None:
        """Scan the record at a line, within the limit of bytes; None if it takes more lines to tell."""
        stop = window.line_at(window.starts[index] + self.max_row_bytes)
        if stop == index:
            return _Scan("over", 0, index + 1)
        if not self._has_quote(window.texts[index]):
            return _Scan("complete", window.texts[index].count(self.dialect.delimiter) + 1, index + 1)
        scan = self._scan(window, index, stop, strict=strict)
        if scan.state != "open":
            return scan
        if window.end - window.starts[index] > self.max_row_bytes:
            return scan._replace(state="over")
        return scan if window.is_final else None

    def _scan(self, window: _Window, index: int, stop: int, *, strict: bool = False) -> _Scan:
        """Follow the quotes from line ``index`` to the end of its record, at most to line ``stop``.

        A record of several lines with a stray quote and the wrong number of fields is taken for broken: its quote
        closed by accident. So is, where ``strict``, whatever cannot become a record without stray quotes.
        """
        text, at, limit = window.text, window.chars[index], window.chars[stop]
        next_line, has_stray, n_fields = window.chars[index + 1], False, 0
        while True:
            is_quoted = text.startswith(self.dialect.quotechar, at, limit)
            match = (self._quoted if is_quoted else self._plain).match(text, at, limit)
            if match is None:
                return _Scan("open", n_fields, stop, has_stray)
            has_stray = has_stray or (not is_quoted and self._has_quote(match[0]))
            at, n_fields = match.end(), n_fields + 1
            if at == limit or text[at] in "\r\n":
                break
            is_hopeless = has_stray if strict else has_stray and at > next_line
            is_hopeless = is_hopeless and (strict or n_fields > self.n_fields)
            if text[at] != self.dialect.delimiter or is_hopeless:
                return _Scan("broken", n_fields, window.line_of(at) + 1, has_stray)
            at += 1
        is_broken = at > next_line and has_stray and n_fields != self.n_fields
        end = min(window.line_of(at) + 1, stop)
        return _Scan("broken" if is_broken else "complete", n_fields, end, has_stray)

    def _has_quote(self, text: str) -> bool:
        return self.dialect.quotechar != "" and self.dialect.quotechar in text

    def _resume(self, window: _Window, index: int) -> int | None:
        """Say whether a record may start at a line behind damage: return that line, or the next one to be judged.

        It may if it has the right number of fields and no stray quote, and if the next quote behind it agrees that
        the lines before are outside quotes. None if it takes more lines to tell.
        """
        scan = self._probe(window, index, strict=True)
        if scan is None:
            return None
        if scan.state != "complete" or scan.has_stray or scan.n_fields != self.n_fields:
            return index + 1
        behind = scan.end
        last = min(behind + _AHEAD_LINES, window.line_at(window.starts[behind] + _AHEAD_BYTES))
        at = window.text.find(self.dialect.quotechar or "\r\r\r", window.chars[behind], window.chars[last])
        if at >= 0:
            refuted = ("closing",) if self._has_quote(window.texts[index]) else ("closing", "within")
            return window.line_of(at) if self._first_quote(window, at) in refuted else index
        is_enough = last - behind == _AHEAD_LINES or window.end - window.starts[behind] > _AHEAD_BYTES
        if not is_enough and not window.is_final:
            return None
        is_quoted = self._has_quote(window.texts[index])
        return index if is_quoted or self._looks_tabular(window, index, last) else last

    def _first_quote(self, window: _Window, at: int) -> str:
        """Say what the first quote of a line is: ``opening`` a field, ``closing`` one, or ``within`` one."""
        line = window.line_of(at)
        before = window.text[at - 1] if at > window.chars[line] else ""
        ends_field = window.text[at + 1 : at + 2] in ("", "\r", "\n", self.dialect.delimiter)
        if before != self.dialect.delimiter and (before or ends_field):
            return "closing" if ends_field else "within"
        is_doubled = window.text.startswith(self.dialect.quotechar * 2, at)
        if (not before or is_doubled) and self._scan(window, line, line + 1).state == "broken":
            return "within"  # prose like "Great!" he said, or a doubled quote that follows a comma
        return "opening"

    def _looks_tabular(self, window: _Window, start: int, end: int) -> bool:
        """Without any quote to go by: at least half of the lines that are not empty have the right number of fields."""
        lines = [text for text in window.texts[start:end] if self.n_fields == 1 or text.strip("\r\n")]
        right = sum(text.count(self.dialect.delimiter) + 1 == self.n_fields for text in lines)
        return 2 * right >= len(lines)
