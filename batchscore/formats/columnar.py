"""What columnar formats share: kinds of columns, rows cut into parts, rejects.

A row is kept as its values in every column, in the file's types.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.errors import DataError, printable
from batchscore.formats.arrow_values import (
    first_not_utf8,
    first_with_nul,
    joining,
    plain_values,
    take_rows,
    unfolded_bytes,
)
from batchscore.formats.format import NOT_UTF8, NUL, Format, Texts, Unheld
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.paths import MAX_LEVELS, array_at, field_of, nested_details, path_of
from batchscore.formats.text_values import as_text
from batchscore.formats.unfolding import allowed_bytes, unfolds_beyond
from batchscore.records import Column, ColumnChoice, Layout, Position, Reject, Rows

if TYPE_CHECKING:
    from batchscore.config import ReadSettings
    from batchscore.formats.source import Source
    from batchscore.formats.staged import StagedPart
    from batchscore.records import InputFile

_KEPT_BYTES = 64 * 1024
"""Maximum bytes of a text in a reject."""
_AT_ONCE = 128
"""Rows of a batch that are taken at a time."""


class ColumnFormat(Format):
    """A format whose rows are kept as Arrow arrays, one per column."""

    has_magic = True
    can_be_compressed = False
    holds_any_bytes = True
    rows_read_on = 32_768  # a usual row group, which is decoded from its start

    def columns(self, part: StagedPart, file: InputFile) -> Sequence[pa.Array]:
        """The columns as they were read."""
        return part.inputs

    def texts(self, part: StagedPart, file: InputFile, names: Sequence[str]) -> Texts:
        """Strings unchanged, other values as in CSV predictions; a field within a struct by its dotted name."""
        places = {column.name: place for place, column in enumerate(file.layout.columns)}
        paths = {name: path_of(file.layout, name) for name in names}
        found = {
            n: field_of(part.inputs[places[path[0]]], path[1:])
            for n, path in paths.items()
            if path[0] in places
        }
        return texts_of_arrays(found, names, part.batch.num_rows)

    def texts_of_rows(self, rows: Rows, layout: Layout, names: Sequence[str]) -> Texts:
        """The same for rows just read."""
        table = rows.table
        found = {}
        for name in names if table is not None else ():
            if (array := array_at(table, path_of(layout, name))) is not None:
                found[name] = array
        return texts_of_arrays(found, names, len(rows.texts))

    def held_rows(self, rows: Rows, columns: OutputColumns) -> Rows:
        """The columns that are held."""
        if rows.table is None:
            return rows
        places = [place for place, name in enumerate(rows.table.schema.names) if columns.holds(name)]
        return dataclasses.replace(rows, table=rows.table.select(places))

    def first_unheld(self, rows: Rows, target: Format) -> Unheld | None:
        """The first string that is not UTF-8, or that has a NUL."""
        table = rows.table
        if target.holds_any_bytes or table is None:
            return None
        for name, column in zip(table.schema.names, table.columns, strict=True):
            if (row := first_not_utf8(column)) is not None:
                return Unheld(row, name, NOT_UTF8)
            if not target.holds_nul and (row := first_with_nul(column)) is not None:
                return Unheld(row, name, NUL)
        return None


def sliced(batches: Iterable[pa.RecordBatch], skip: int) -> Iterator[pa.RecordBatch]:
    """Large batches as small ones from row ``skip`` on, the same ones from wherever reading starts."""
    for whole in batches:
        if skip >= whole.num_rows:
            skip -= whole.num_rows
            continue
        whole.validate(full=True)
        for start in range(0, whole.num_rows, _AT_ONCE):
            batch = whole.slice(start, _AT_ONCE)
            dropped = min(skip, batch.num_rows)
            skip -= dropped
            if dropped < batch.num_rows:
                yield batch.slice(dropped)


def texts_of_batches(batches: Iterable[pa.RecordBatch], names: Sequence[str]) -> Iterator[Texts]:
    """The columns ``names`` of batches as text; one that they lack is all None."""
    for batch in batches:
        places = {name: batch.schema.get_field_index(name) for name in names}
        arrays = {name: batch.column(at) for name, at in places.items() if at >= 0}
        yield texts_of_arrays(arrays, names, batch.num_rows)


def texts_of_arrays(arrays: Mapping[str, pa.Array], names: Sequence[str], rows: int) -> Texts:
    """Arrow arrays as text: strings unchanged, other values as in CSV predictions."""
    return {
        name: [None if value is None else as_text(value) for value in plain_values(arrays[name])]
        if name in arrays
        else [None] * rows
        for name in names
    }


def refuse_too_wide(source: Source, schema: pa.Schema, settings: ReadSettings) -> None:
    """Raise :class:`~batchscore.errors.DataError` if there are more columns than allowed."""
    if len(schema) > settings.max_columns:
        raise DataError(
            f"{printable(source.path)}: {len(schema)} columns. Raise --max-columns if they are meant."
        )


def refuse_unstorable(source: Source, schema: pa.Schema) -> None:
    """Refuse a type that the mismatches file, which is Parquet, cannot hold."""
    if _is_storable(schema):
        return
    field = next((field for field in schema if not _is_storable(pa.schema([field]))), None)
    what = (
        f"the column {printable(field.name)} has the type {printable(field.type)}"
        if field
        else "its schema is one"
    )
    raise DataError(
        f"{printable(source.path)}: {what}, which Parquet cannot hold, and the mismatches are Parquet. Cast it, or leave it "
        "out."
    )


def _is_storable(schema: pa.Schema) -> bool:
    try:
        pq.write_table(schema.empty_table(), pa.BufferOutputStream())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return False
    return True


def layout_of(schema: pa.Schema, details: Mapping[str, Any]) -> Layout:
    """The layout of a schema: columns, fields of structs within them, class names, and more ``details``."""
    columns = tuple(Column(field.name, _kind(field.type)) for field in schema)
    nested = dict(pair for field in schema for pair in _nested((field.name,), field.type))
    return Layout(columns, {**nested_details(nested), **_class_names(schema.metadata), **details})


_KINDS: tuple[tuple[str, Callable[[pa.DataType], bool]], ...] = (
    ("string", lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind)),
    ("string", pa.types.is_string_view),
    ("integer", pa.types.is_integer),
    ("number", lambda kind: pa.types.is_floating(kind) or pa.types.is_decimal(kind)),
    ("boolean", pa.types.is_boolean),
    ("null", pa.types.is_null),
    ("time", pa.types.is_temporal),
    ("binary", lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind)),
    ("binary", lambda kind: pa.types.is_fixed_size_binary(kind) or pa.types.is_binary_view(kind)),
    ("object", lambda kind: pa.types.is_struct(kind) or pa.types.is_map(kind)),
    ("list", pa.types.is_nested),
)


def _kind(kind: pa.DataType) -> str:
    if isinstance(kind, pa.BaseExtensionType):
        return _kind(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type)
    return next((name for name, holds in _KINDS if holds(kind)), "other")


def _nested(path: tuple[str, ...], kind: pa.DataType) -> Iterator[tuple[tuple[str, ...], str]]:
    """Path and kind of each field of the structs within a column."""
    if pa.types.is_struct(kind) and len(path) < MAX_LEVELS:
        for field in kind:
            yield (*path, field.name), _kind(field.type)
            yield from _nested((*path, field.name), field.type)


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """Class names of label columns from ``datasets`` (``ClassLabel``), in the schema's metadata."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        found = dict(_label_names("", features))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}
    return {"class_names": found} if found else {}


def _label_names(prefix: str, features: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for name, feature in features.items():
        if not isinstance(feature, Mapping):
            continue
        if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
            yield prefix + name, [str(each) for each in feature["names"]]
        elif "_type" not in feature:  # the fields of a struct
            yield from _label_names(f"{prefix}{name}.", feature)


def cut(
    batches: Iterable[pa.RecordBatch],
    source: Source,
    layout: Layout,
    columns: ColumnChoice,
    settings: ReadSettings,
    row: int,
) -> Iterator[Rows]:
    """Cut small batches, from row ``row`` on, into parts; a text that is not UTF-8 or too long is a reject."""
    texts_at = [path_of(layout, name) for name in columns.texts]
    label_at = path_of(layout, columns.label) if columns.label is not None else None
    for table in _parts(_within_bounds(batches, source, settings), settings):
        n_rows, rows = table.num_rows, _rows(table, row, texts_at, label_at, settings.max_row_bytes)
        del table  # before the next part is read
        yield rows
        del rows
        row += n_rows


def _within_bounds(
    batches: Iterable[pa.RecordBatch], source: Source, settings: ReadSettings
) -> Iterator[pa.RecordBatch]:
    left = allowed_bytes(source, settings.max_expansion)
    for batch in batches:
        left -= max(unfolded_bytes(batch), batch.num_rows)  # a column of nulls takes no bytes
        if left < 0:
            raise unfolds_beyond(source, settings.max_expansion)
        yield batch


def _parts(batches: Iterable[pa.RecordBatch], settings: ReadSettings) -> Iterator[pa.RecordBatch]:
    """Join small batches into parts, bounded by rows and bytes, whose dictionaries fit together."""
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    can_be_joined = None
    for batch in batches:
        can_be_joined = can_be_joined or joining(batch.schema)
        while batch.num_rows:
            room = settings.part_rows - rows
            is_full = room == 0 or size + unfolded_bytes(batch) > settings.part_bytes
            if pending and (is_full or not can_be_joined([*pending, batch])):
                yield _joined(pending)
                pending, rows, size, room = [], 0, 0, settings.part_rows
            piece = batch.slice(0, room)
            batch = batch.slice(room)  # noqa: PLW2901 - what is left of it
            pending.append(piece)
            rows += piece.num_rows
            size += unfolded_bytes(piece)
    if pending:
        yield _joined(pending)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.concat_batches(batches) if len(batches) > 1 else batches[0]


def _rows(
    table: pa.RecordBatch,
    row: int,
    texts_at: Sequence[Sequence[str]],
    label_at: Sequence[str] | None,
    max_bytes: int,
) -> Rows:
    """A part; ``texts_at`` are the paths of one or two texts. A row with a text that cannot be scored is a reject."""
    columns: list[list[Any]] = []
    found: dict[int, Reject] = {}
    for path in texts_at:
        column = array_at(table, path)
        columns.append([None] * table.num_rows if column is None else _texts(column))
        for reject in _rejects(columns[-1], row, ".".join(path), max_bytes):
            found.setdefault(reject.row, reject)
    positions = list(range(row, row + table.num_rows))
    if found:
        kept = [index for index, place in enumerate(positions) if place not in found]
        table, positions = take_rows(table, kept), [row + k for k in kept]
        columns = [[texts[k] for k in kept] for texts in columns]
    given = array_at(table, label_at) if label_at is not None else None
    labels = plain_values(given) if given is not None else None
    rejects = [found[place] for place in sorted(found)]
    pairs = columns[1] if len(columns) > 1 else None
    return Rows(Position(row), positions, columns[0], labels, rejects, table=table, pairs=pairs)


def _rejects(texts: Sequence[str | bytes | None], row: int, name: str, max_bytes: int) -> Iterator[Reject]:
    """The rows, from ``row`` on, whose text cannot be scored."""
    for index, text in enumerate(texts):
        if reason := _problem(text, max_bytes):
            raw = text.encode() if isinstance(text, str) else text or b""
            yield Reject(row + index, None, None, reason, name, raw[:_KEPT_BYTES])


def _problem(text: str | bytes | None, max_bytes: int) -> str:
    """Why a text cannot be scored; empty if it can."""
    if isinstance(text, bytes):
        return "the text is not UTF-8"
    if text is None or 4 * len(text) <= max_bytes or (size := len(text.encode())) <= max_bytes:
        return ""
    return f"{size} bytes of text; the longest row allowed has {max_bytes} (--max-row-bytes)"


def _texts(column: pa.Array) -> list[str | bytes | None]:
    """The texts of a column; those that are not UTF-8 as bytes."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        return [_text(scalar) for scalar in column]


def _text(scalar: pa.Scalar) -> str | bytes | None:
    if isinstance(scalar, pa.DictionaryScalar):
        scalar = scalar.value
    try:
        return scalar.as_py()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        return scalar.as_buffer().to_pybytes()  # type: ignore[no-any-return]
