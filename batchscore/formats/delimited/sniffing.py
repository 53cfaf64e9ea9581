"""The dialect of a file from its head, and its header."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from batchscore.errors import DataError
from batchscore.formats.delimited.dialect import (
    MARK,
    TERMINATORS,
    Dialect,
    Limits,
    Position,
    csv_reader,
    decoded,
    detect_encoding,
    encoding_hint,
    rows_of,
    text_lines,
    to_decode,
    unit_bytes,
)
from batchscore.formats.delimited.records import Record, Rejected, next_position, read_records

DELIMITERS = (",", ";", "\t", "|", "\x01")
"""Common delimiters; the last is Hive's."""
RARE_DELIMITERS = ("^", "~", "#", "::", "\x1f", "¦")
"""Delimiters tried if no common one fits."""
_SNIFFED_RECORDS = 100
MOST_HEADER_BYTES = 1 << 20
"""A longer header is taken for a quote that is never closed."""
_SEPARATOR_LINE = re.compile(r"sep=(?P<delimiter>[^\r\n])\r*\n?")
"""A line for Excel, which is not part of the table."""
_UNDIVIDED = (0.0, 0)
"""What :func:`_consistency` says of a delimiter that the first record does not have."""
_LEAST_SHARE = 0.9
"""Share of the first records to which a rare delimiter must give the header's number of fields."""


@dataclass(frozen=True, slots=True)
class Given:
    """Parts of the dialect given by settings; None is detected."""

    delimiter: str | None = None
    quotechar: str | None = None
    escapechar: str | None = None
    encoding: str | None = None
    skip_lines: int = 0
    """Physical lines before the header, which are not part of the table."""


def sniff(head: bytes, given: Given | None = None, *, is_whole: bool = True) -> Dialect:
    r"""Detect the dialect from the first bytes of a file (64 KiB suffice); what is given is kept.

    The delimiter is the candidate that gives the header more than one field and the most records the header's number of
    fields; rare ones are tried if no common one fits; a table of one column gets the comma. A line ``sep=;`` decides. The
    quote is ``"`` unless given. A backslash escapes quotes if the head parses well only with that. ``is_whole``: the head
    is the whole file.
    """
    given = given or Given()
    name, bom = detect_encoding(head, given.encoding)
    text = codecs.getincrementaldecoder(name)(MARK).decode(head[len(bom) :])
    if given.skip_lines:
        text = "".join(io.StringIO(text, newline="").readlines()[given.skip_lines :])
    delimiter = given.delimiter
    if said := _SEPARATOR_LINE.match(text):
        text, delimiter = text[said.end() :], delimiter or said["delimiter"]
    quote = '"' if given.quotechar is None else given.quotechar
    start = Dialect(delimiter or ",", quote, name, bom, escapechar=given.escapechar or "")
    start = replace(start, line_terminator=_terminator(text, start))
    chosen = start if delimiter is not None else _divided(text, start)
    if chosen.delimiter != start.delimiter:
        chosen = replace(chosen, line_terminator=_terminator(text, chosen))
    if given.escapechar is None and quote and "\\" not in chosen.delimiter and f"\\{quote}" in text:
        return _escaped(text, chosen, is_whole=is_whole)
    return chosen


def _divided(text: str, start: Dialect) -> Dialect:
    """``start`` with the delimiter that fits the text best."""
    (share, width), usual = _best(text, start, DELIMITERS)
    if width > 1:
        doubled = replace(usual, delimiter="||")
        is_doubled = usual.delimiter == "|" and _consistency(text, doubled) >= (share, width // 2 + 1)
        return doubled if is_doubled else usual
    (share, _), rare = _best(text, start, RARE_DELIMITERS)
    return rare if share >= _LEAST_SHARE else start


def _best(text: str, start: Dialect, candidates: Sequence[str]) -> tuple[tuple[float, int], Dialect]:
    taken = {start.quotechar, start.escapechar}
    tried = [each for each in candidates if not taken & set(each)]
    shares = [
        _consistency(text, replace(start, delimiter=each)) if each in text else _UNDIVIDED for each in tried
    ]
    best = max(range(len(tried)), key=lambda place: shares[place])
    return shares[best], replace(start, delimiter=tried[best])


def _consistency(text: str, dialect: Dialect) -> tuple[float, int]:
    """Return the share of the first records that are as wide as the header, and that width."""
    widths: list[int] = []
    try:
        for row in rows_of(text, dialect):
            if row:
                widths.append(len(row))
            if len(widths) == _SNIFFED_RECORDS or (widths and widths[0] < 2):
                break
    except csv.Error:  # a damaged row, or the end of the head within quotes
        pass
    if not widths or widths[0] < 2:
        return _UNDIVIDED
    return widths.count(widths[0]) / len(widths), widths[0]


def _escaped(text: str, dialect: Dialect, *, is_whole: bool) -> Dialect:
    """The dialect with a backslash as its escape, if the text parses well only with it."""
    escaped = replace(dialect, escapechar="\\")
    is_certain = not _rejects(text, escaped, is_whole) and _rejects(text, dialect, is_whole)
    return escaped if is_certain else dialect


def _rejects(text: str, dialect: Dialect, is_whole: bool) -> int:
    """Number of unreadable lines in a head, including the header."""
    plain = replace(dialect, encoding="utf-8", bom=b"")
    data = text.encode("utf-8", "surrogatepass")
    try:
        header = next(filter(None, rows_of(text, plain)), [])
    except csv.Error:
        return 1
    blocks = read_records(io.BytesIO(data), plain, len(header), offset=0, line=1)
    items = [item for block in blocks for item in block]
    while not is_whole and items and isinstance(items[-1], Rejected):
        items.pop()  # the head may have been cut within quotes
    return sum(isinstance(item, Rejected) for item in items)


def _terminator(text: str, dialect: Dialect) -> str:
    """The line end of the header."""
    lines: list[str] = []
    rest = io.StringIO(text, newline="")
    fed = (lines.append(line) or line for line in rest)  # type: ignore[func-returns-value]
    reader = csv_reader(fed, replace(dialect, delimiter=",") if len(dialect.delimiter) > 1 else dialect)
    try:
        next(filter(None, reader), None)
    except csv.Error:
        return _end_of("".join(lines[:1])) or "\n"
    lines += itertools.islice(rest, 2)
    behind = "".join(lines[max(reader.line_num - 1, 0) : reader.line_num + 2])
    last = lines[reader.line_num - 1] if reader.line_num else ""
    if last.endswith("\r"):
        if re.match(r"\r{2,}\n", behind[len(last) - 1 :]):
            return "\r\r\n"
        return "\r" if reader.line_num < len(lines) else "\r\n"  # the head may end in the middle of a CRLF
    return _end_of(last) or "\n"


def _end_of(text: str) -> str:
    return next((end for end in TERMINATORS if text.endswith(end)), "")


# ---------------------------------------------------------------------------------------------------------- header


def read_header(
    stream: BinaryIO,
    dialect: Dialect,
    limits: Limits | None = None,
    *,
    skip_lines: int = 0,
    position: Position | None = None,
) -> Record | None:
    """Read the header record from ``stream``, at its first byte, and leave it right after the record.

    ``skip_lines`` physical lines, empty lines and one ``sep=;`` before it are skipped. Returns None for a file without any
    record. Duplicate and empty names are legal. With ``position``, the stream is there, and the record there is returned.
    Raises :class:`DataError` for a header that cannot be decoded or parsed, or is too wide.
    """
    limits = limits or Limits()
    is_first = position is None
    record = _next_record(stream, dialect, position or _skip_lines(stream, dialect, skip_lines))
    if record is not None and is_first and _SEPARATOR_LINE.fullmatch(record.raw.decode(dialect.encoding)):
        record = _next_record(stream, dialect, next_position(record, dialect))
    if record is not None and is_first and len(record.fields) > limits.max_columns:
        raise DataError(f"the header has {len(record.fields)} columns; at most {limits.max_columns} are read")
    return record


def _skip_lines(stream: BinaryIO, dialect: Dialect, skip_lines: int) -> Position:
    """Skip the byte order mark and ``skip_lines`` physical lines; return the position after them."""
    stream.read(len(dialect.bom))
    offset = len(dialect.bom)
    for _ in range(skip_lines):
        offset += len(_read_line(stream, dialect))
    return Position(offset, 1 + skip_lines)


def _next_record(stream: BinaryIO, dialect: Dialect, position: Position) -> Record | None:
    """The first record that is not an empty line; None if there is none."""
    while True:
        raws: list[bytes] = []
        try:
            fields = next(csv_reader(_header_lines(stream, dialect, raws), dialect), None)
        except csv.Error as error:
            advice = "Check --delimiter, --quotechar and --encoding."
            raise DataError(
                f"the header in line {position.line} cannot be parsed: {error}. {advice}"
            ) from error
        if fields is None:
            return None
        record = Record(decoded(fields, dialect), b"".join(raws), position.line, position.offset)
        if fields:
            return record
        position = next_position(record, dialect)


def pass_records(stream: BinaryIO, dialect: Dialect, position: Position, count: int) -> Position:
    """Skip ``count`` more records of the header; return the position after them."""
    for _ in range(count):
        record = _next_record(stream, dialect, position)
        if record is None:
            break
        position = next_position(record, dialect)
    return position


def _header_lines(stream: BinaryIO, dialect: Dialect, raws: list[bytes]) -> Iterator[str]:
    """Yield lines prepared for parsing, without reading a byte further; keep their bytes in ``raws``."""
    size = 0
    while raw := _read_line(stream, dialect):
        raws.append(raw)
        size += len(raw)
        if size > MOST_HEADER_BYTES:
            advice = "A quote may never be closed; check --quotechar."
            raise DataError(f"the header does not end within {MOST_HEADER_BYTES} bytes. {advice}")
        try:
            text = raw.decode(dialect.encoding)
        except UnicodeDecodeError as error:
            advice = encoding_hint(dialect.encoding)
            raise DataError(f"the header is not {dialect.encoding} ({error.reason}){advice}") from error
        if "\0" in text:
            raise DataError("the header holds a NUL character; is this file CSV, and is --encoding right?")
        yield to_decode(text, dialect)


def _read_line(stream: BinaryIO, dialect: Dialect) -> bytes:
    width = unit_bytes(dialect.encoding)
    if width == 1 and not dialect.has_lone_returns:
        return stream.readline(MOST_HEADER_BYTES + 1)
    end = dialect.line_terminator[-1].encode(dialect.encoding)
    line = bytearray()
    while (unit := stream.read(width)) and len(line) <= MOST_HEADER_BYTES:
        line += unit
        if unit == end:
            break
    return bytes(line)


# ---------------------------------------------------------------------------------------------------------- hints


def peek(
    head: bytes, dialect: Dialect, lines: int, delimiters: Sequence[str] = ()
) -> list[tuple[int, list[str]]]:
    """The first lines of a head as cells, each with its number and parsed by itself: for advice, not for scoring.

    Each line is split by the dialect's delimiter and, again, by each of ``delimiters``.
    """
    text = codecs.getincrementaldecoder(dialect.encoding)(MARK).decode(head[len(dialect.bom) :])
    tried = [replace(dialect, delimiter=each) for each in delimiters if each != dialect.quotechar]
    found: list[tuple[int, list[str]]] = []
    for number, line in enumerate(text_lines(text, dialect)[:lines], 1):
        for each in (dialect, *tried):
            with contextlib.suppress(csv.Error):
                found += [(number, row) for row in rows_of(line, each) if row]
    return found


def likely_delimiters(name: str) -> Sequence[str]:
    """Characters in a lone column's name that may be delimiters: not letters, digits, spaces or name separators."""
    return list(dict.fromkeys(char for char in name if not char.isalnum() and char not in " _-.()'\"[]/\\"))
