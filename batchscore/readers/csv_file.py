"""CSV: the dialect is found in the head, each record keeps its bytes; see :mod:`batchscore.delimited`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from batchscore import delimited
from batchscore.errors import DataError, printable
from batchscore.readers.cutting import Item, cut
from batchscore.readers.source import Source, go_to, head_of, open_bytes
from batchscore.records import Column, ColumnChoice, Layout, Position, Reject, Rows

if TYPE_CHECKING:
    from batchscore.config import ReadSettings


def describe(source: Source, settings: ReadSettings) -> Layout:
    """Find the dialect and the header; every column is text. A file without a header has no columns and no rows."""
    head = head_of(source, settings.max_expansion)
    try:
        given = {
            "delimiter": settings.delimiter,
            "quotechar": settings.quotechar,
            "encoding": settings.encoding,
        }
        dialect = delimited.sniff(head, **given)
        with open_bytes(source, settings.max_expansion) as stream:  # the header may be longer than the head
            header = delimited.read_header(stream, dialect, _limits(settings))  # type: ignore[arg-type]
    except DataError as error:
        raise DataError(f"{printable(source.path)}: {error}") from error
    details: dict[str, Any] = {"dialect": dialect.to_json()}
    if header is None:
        return Layout(columns=(), details={**details, "header": ""})
    start = delimited.next_position(header, dialect)
    details |= {"header": (dialect.bom + header.raw).hex(), "offset": start.offset, "line": start.line}
    return Layout(columns=tuple(Column(name, "string") for name in header.fields), details=details)


def _limits(settings: ReadSettings) -> delimited.Limits:
    return delimited.Limits(max_row_bytes=settings.max_row_bytes, max_columns=settings.max_columns)


def dialect_of(layout: Layout) -> delimited.Dialect:
    """The dialect that :func:`describe` found."""
    return delimited.Dialect.from_json(layout.details["dialect"])


def read(
    source: Source, layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
) -> Iterator[Rows]:
    """Yield the records as parts; a ragged, unclosed, undecodable or oversized one is a reject."""
    if not layout.columns:
        return
    if start == Position():
        start = Position(0, layout.details["offset"], layout.details["line"])
    with open_bytes(source, settings.max_expansion) as stream:
        go_to(stream, source, start.offset)
        items = _items(stream, layout, columns, settings, start)
        yield from cut(items, columns.label is not None, settings, start)


def _items(
    stream: IO[bytes], layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
) -> Iterator[Item | Reject]:
    names = [column.name for column in layout.columns]
    text_at = names.index(columns.text)
    label_at = names.index(columns.label) if columns.label is not None else None
    blocks = delimited.read_records(
        stream,  # type: ignore[arg-type]
        dialect_of(layout),
        len(names),
        _limits(settings),
        offset=start.offset,
        line=start.line,
        header=names,
    )
    for block in blocks:
        for record in block:
            if isinstance(record, delimited.Rejected):
                yield Reject(0, record.line, record.offset, record.reason, record.column, record.raw)
            else:
                label = record.fields[label_at] if label_at is not None else None
                yield Item(record.raw, record.line, record.offset, record.fields[text_at], label)
