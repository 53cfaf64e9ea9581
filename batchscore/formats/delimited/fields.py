"""A single record: cells from bytes, and bytes from cells."""

from __future__ import annotations

import csv
import functools
from collections.abc import Sequence

from batchscore.errors import DataError
from batchscore.formats.delimited.dialect import TERMINATORS, Dialect, rows_of


def parse_record(raw: bytes, dialect: Dialect) -> list[str]:
    """Return the cells of one raw record. Raises :class:`DataError` if it is not exactly one."""
    try:
        rows = list(rows_of(raw.decode(dialect.encoding), dialect))
    except (csv.Error, UnicodeDecodeError) as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else error
        raise DataError(f"{len(raw)} bytes are no record: {reason}") from error
    if len(rows) != 1:
        raise DataError(f"{len(raw)} bytes hold {len(rows)} records, not one")
    return rows[0] or [""]


def encode_fields(values: Sequence[str], dialect: Dialect) -> bytes:
    """Return ``values`` as part of a record in the file's own encoding, quoted where needed, without a terminator.

    Raises :class:`DataError` for a value that this dialect cannot hold.
    """
    text = dialect.delimiter.join(values)
    if not _is_plain(text, len(values), dialect):
        text = dialect.delimiter.join([_cell(value, dialect, alone=len(values) == 1) for value in values])
    try:
        return text.encode(dialect.encoding)
    except UnicodeEncodeError as error:
        bad = ", ".join(f"U+{ord(char):04X}" for char in error.object[error.start : error.end][:5])
        problem = f"{bad} cannot be written in {dialect.encoding}, the encoding of the input"
        raise DataError(f"{problem}; try --output-format parquet") from error


def _is_plain(text: str, cells: int, dialect: Dialect) -> bool:
    """Whether joined cells are as they must be written, which most are: told from all at once."""
    delimiter, quote = dialect.delimiter, dialect.quotechar
    return (
        cells > 1
        and len(delimiter) == 1
        and not dialect.escapechar
        and "\n" not in text
        and "\r" not in text
        and "\ufeff" not in text
        and not (quote and quote in text)
        and text.count(delimiter) == cells - 1
    )


def _cell(value: str, dialect: Dialect, *, alone: bool) -> str:
    quote, escape = dialect.quotechar, dialect.escapechar
    if escape:
        value = value.replace(escape, escape * 2)
    special = any(char in value for char in (*dialect.delimiter, "\r", "\n"))
    special = special or value.startswith("\ufeff")  # at the start of a file it would be its byte order mark
    if not quote:
        if special:
            raise DataError(
                "a value with a delimiter or a line break needs quotes; try --output-format parquet"
            )
        return value
    if special or quote in value or (alone and not value):
        return f"{quote}{value.replace(quote, (escape or quote) + quote)}{quote}"
    return value


def append_fields(record_raw: bytes, extra: Sequence[str], dialect: Dialect) -> bytes:
    """Return the raw record with ``extra`` fields before its terminator; a record without one gets the dialect's."""
    terminators, usual, delimiter = _encoded(dialect)
    body, end = record_raw, usual
    for terminator in terminators:
        if record_raw.endswith(terminator):
            body, end = record_raw[: -len(terminator)], terminator
            break
    if not extra:
        return body + end
    if dialect.escapechar or len(dialect.delimiter) > 1:
        return _joined(body, extra, dialect) + end
    return b"".join((body, delimiter, encode_fields(extra, dialect), end))


@functools.lru_cache(maxsize=64)
def _encoded(dialect: Dialect) -> tuple[tuple[bytes, ...], bytes, bytes]:
    """The bytes of every line end, of the dialect's own, and of its delimiter."""
    every = tuple(terminator.encode(dialect.encoding) for terminator in TERMINATORS)
    return every, dialect.line_terminator.encode(dialect.encoding), dialect.delimiter.encode(dialect.encoding)


def _joined(body: bytes, extra: Sequence[str], dialect: Dialect) -> bytes:
    """Body and fields; re-encoded if the end of one would merge with the delimiter (``a|`` before ``||``)."""
    joined = body + dialect.delimiter.encode(dialect.encoding) + encode_fields(extra, dialect)
    cells = [*parse_record(body, dialect), *extra] if body else ["", *extra]
    return joined if parse_record(joined, dialect) == cells else encode_fields(cells, dialect)
