"""Parquet: row groups are decoded a few rows at a time, checksums verified, every column kept as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from batchscore.errors import DataError, printable
from batchscore.readers.arrow_values import plain_values, unfolded_bytes
from batchscore.readers.source import Source
from batchscore.readers.unfolding import allowed_bytes, open_parquet, rows_at_once, unfolds_beyond
from batchscore.records import Column, ColumnChoice, Layout, Position, Reject, Rows

if TYPE_CHECKING:
    from batchscore.config import ReadSettings


def describe(source: Source, settings: ReadSettings) -> Layout:
    """Columns from the footer."""
    with open_parquet(source) as file:
        schema = file.schema_arrow
        metadata = file.metadata
    if len(schema) > settings.max_columns:
        raise DataError(
            f"{printable(source.path)}: {len(schema)} columns. Raise --max-columns if they are meant."
        )
    unpacked = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    if unpacked > allowed_bytes(source, settings.max_expansion):
        raise unfolds_beyond(source, settings.max_expansion)
    return Layout(columns=tuple(Column(field.name, _kind(field.type)) for field in schema))


def _kind(kind: pa.DataType) -> str:
    if isinstance(kind, pa.BaseExtensionType):
        return _kind(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "string"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_null(kind):
        return "null"
    return "boolean" if pa.types.is_boolean(kind) else "other"


def read(
    source: Source, layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
) -> Iterator[Rows]:
    """Yield the rows as parts; a text that is not UTF-8 is a reject."""
    names = [column.name for column in layout.columns]
    text_at = names.index(columns.text) if columns.text in names else None
    label_at = names.index(columns.label) if columns.label in names else None
    row = start.row
    for table in _parts(source, settings, start.row):
        yield _rows(table, row, text_at, label_at)
        row += table.num_rows


def _parts(source: Source, settings: ReadSettings, skip: int) -> Iterator[pa.RecordBatch]:
    """Cut the stream of small batches into parts by rows and bytes, from row ``skip`` on."""
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in _batches(source, settings, skip):
        while batch.num_rows:
            room = settings.part_rows - rows
            if pending and (room == 0 or size + unfolded_bytes(batch) > settings.part_bytes):
                yield _joined(pending)
                pending, rows, size, room = [], 0, 0, settings.part_rows
            piece = batch.slice(0, room)
            batch = batch.slice(room)  # noqa: PLW2901 - what is left of it
            pending.append(piece)
            rows += piece.num_rows
            size += unfolded_bytes(piece)
    if pending:
        yield _joined(pending)


def _batches(source: Source, settings: ReadSettings, skip: int) -> Iterator[pa.RecordBatch]:
    """Small record batches from row ``skip`` on; the row groups before it are not read."""
    left = allowed_bytes(source, settings.max_expansion)
    for batch in _group_batches(source, settings, skip):
        left -= unfolded_bytes(batch)
        if left < 0:
            raise unfolds_beyond(source, settings.max_expansion)
        yield batch


def _group_batches(source: Source, settings: ReadSettings, skip: int) -> Iterator[pa.RecordBatch]:
    """Batches that begin anew with each row group, so that they are the same ones from wherever reading starts."""
    with open_parquet(source) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if skip >= rows:
                skip -= rows
                continue
            at_once = rows_at_once(source, file, group, settings.max_expansion)
            for batch in file.iter_batches(at_once, row_groups=[group]):
                dropped = min(skip, batch.num_rows)
                skip -= dropped
                yield batch.slice(dropped)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.concat_batches(batches) if len(batches) > 1 else batches[0]


def _rows(table: pa.RecordBatch, row: int, text_at: int | None, label_at: int | None) -> Rows:
    texts: list[str | None] = [None] * table.num_rows
    rejects: list[Reject] = []
    if text_at is not None:
        texts, bad = _texts(table.column(text_at))
        if bad:
            name = table.schema.field(text_at).name
            rejects = [
                Reject(row + k, None, None, "the text is not UTF-8", name, raw) for k, raw in bad.items()
            ]
            kept = [k for k in range(table.num_rows) if k not in bad]
            table, texts = table.take(pa.array(kept, pa.int64())), [texts[k] for k in kept]
            positions = [row + k for k in kept]
    if not rejects:
        positions = list(range(row, row + table.num_rows))
    labels = plain_values(table.column(label_at)) if label_at is not None else None
    return Rows(Position(row), positions, texts, labels, rejects, table=table)


def _texts(column: pa.Array) -> tuple[list[str | None], dict[int, bytes]]:
    """The texts of a column, and index → bytes of those that are not UTF-8."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    try:
        return column.to_pylist(), {}
    except UnicodeDecodeError:
        pass
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    texts: list[str | None] = []
    bad: dict[int, bytes] = {}
    for index, value in enumerate(column.cast(pa.large_binary()).to_pylist()):
        try:
            texts.append(None if value is None else value.decode())
        except UnicodeDecodeError:
            bad[index] = value
            texts.append(None)
    return texts, bad
