"""CSV: the dialect is found in the head, each record keeps its bytes; see :mod:`batchscore.delimited`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

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
    dialect = delimited.sniff(
        head, delimiter=settings.delimiter, quotechar=settings.quotechar, encoding=settings.encoding
    )
    try:
        header = delimited.read_header(io.BytesIO(head), dialect)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{printable(source.path)}, line 1: the header is not {dialect.encoding}. Name the right --encoding "
            "(cp1252 is common)."
        ) from error
    if header is None:
        return Layout(columns=(), details={"dialect": dialect.to_json(), "header": ""})
    if len(header.fields) > settings.max_columns:
        raise DataError(
            f"{printable(source.path)}, line 1: {len(header.fields)} columns. Raise --max-columns if they are meant."
        )
    details = {
        "dialect": dialect.to_json(),
        "header": (dialect.bom_bytes + header.raw).hex(),
        "offset": header.offset + len(header.raw),
        "line": header.line + header.raw_lines,
    }
    return Layout(columns=tuple(Column(name, "string") for name in header.fields), details=details)


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
