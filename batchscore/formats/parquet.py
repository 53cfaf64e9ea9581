"""Parquet: row groups are decoded a few rows at a time, checksums verified, every column kept as it was."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.errors import DataError, printable
from batchscore.formats.arrow_values import joining, plain_values, take_rows, unfolded_bytes
from batchscore.formats.exact import look, open_exact
from batchscore.formats.paths import MOST_LEVELS, array_at, nested_details, path_of
from batchscore.formats.source import Source
from batchscore.formats.unfolding import allowed_bytes, rows_at_once, unfolds_beyond
from batchscore.records import Column, ColumnChoice, Layout, Position, Reject, Rows

if TYPE_CHECKING:
    from batchscore.config import ReadSettings

_KEPT_BYTES = 64 * 1024
"""Of a text that cannot be scored, this much is kept in the reject."""


def describe(source: Source, settings: ReadSettings) -> Layout:
    """Columns from the footer, and what :func:`~batchscore.formats.exact.look` finds."""
    with open_exact(source) as opened:
        schema, metadata = opened.schema, opened.file.metadata
    if len(schema) > settings.max_columns:
        raise DataError(
            f"{printable(source.path)}: {len(schema)} columns. Raise --max-columns if they are meant."
        )
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != metadata.num_rows:
        raise EOFError("its row groups do not have as many rows as the file")
    unpacked = sum(group.total_byte_size for group in groups)
    if unpacked > allowed_bytes(source, settings.max_expansion):
        raise unfolds_beyond(source, settings.max_expansion)
    _refuse_joined(source)
    columns = tuple(Column(field.name, _kind(field.type)) for field in schema)
    nested = dict(pair for field in schema for pair in _nested((field.name,), field.type))
    exact = {"exact": look(source, settings.max_expansion)}
    return Layout(columns, {**nested_details(nested), **_class_names(schema.metadata), **exact})


def _refuse_joined(source: Source) -> None:
    """Refuse files that were joined byte by byte: the last footer would be read with the first file's pages.

    Raises:
        DataError: somewhere in it a whole Parquet file ends, and another begins.
    """
    with source.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(_MAGIC * 2)
        while at >= 0:
            if _ends_a_file(data, at + len(_MAGIC)):
                raise DataError(
                    f"{printable(source.path)} is several Parquet files joined into one, which no reader takes apart. Score "
                    "the files themselves."
                )
            at = data.find(_MAGIC * 2, at + 1)


def _ends_a_file(data: mmap.mmap, end: int) -> bool:
    """Whether the footer of a Parquet file stands before ``end``; a text may hold the same eight letters."""
    tail = end - len(_MAGIC) - 4
    size = int.from_bytes(data[max(tail, 0) : tail + 4], "little")
    if tail - size < len(_MAGIC):
        return False
    footer = _MAGIC + data[tail - size : end]
    try:
        pq.read_metadata(pa.BufferReader(footer))
    except (pa.ArrowException, OSError):
        return False
    return True


_MAGIC = b"PAR1"
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
    if pa.types.is_struct(kind) and len(path) < MOST_LEVELS:
        for field in kind:
            yield (*path, field.name), _kind(field.type)
            yield from _nested((*path, field.name), field.type)


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """The names that ``datasets`` gives the numbers of a label column (``ClassLabel``), from the schema's metadata."""
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


def read(
    source: Source, layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
) -> Iterator[Rows]:
    """Yield the rows as parts; a text that is not UTF-8 is a reject."""
    text_at = path_of(layout, columns.text)
    label_at = path_of(layout, columns.label) if columns.label is not None else None
    row = start.row
    for table in _parts(source, layout, settings, start.row):
        yield _rows(table, row, (text_at, label_at), settings.max_row_bytes)
        row += table.num_rows


def _parts(source: Source, layout: Layout, settings: ReadSettings, skip: int) -> Iterator[pa.RecordBatch]:
    """Cut the stream of small batches into parts by rows, bytes and what dictionaries hold, from row ``skip`` on."""
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    can_be_joined = None
    for batch in _batches(source, layout, settings, skip):
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


def _batches(source: Source, layout: Layout, settings: ReadSettings, skip: int) -> Iterator[pa.RecordBatch]:
    """Small record batches from row ``skip`` on; the row groups before it are not read."""
    left = allowed_bytes(source, settings.max_expansion)
    for batch in _group_batches(source, layout, settings, skip):
        left -= unfolded_bytes(batch)
        if left < 0:
            raise unfolds_beyond(source, settings.max_expansion)
        yield batch


def _group_batches(
    source: Source, layout: Layout, settings: ReadSettings, skip: int
) -> Iterator[pa.RecordBatch]:
    """Batches that begin anew with each row group, so that they are the same ones from wherever reading starts."""
    with open_exact(source, **layout.details["exact"]) as opened:
        file = opened.file
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if skip >= rows:
                skip -= rows
                continue
            at_once = rows_at_once(source, file, group, settings.max_expansion)
            for batch in file.iter_batches(at_once, row_groups=[group]):
                rows -= batch.num_rows
                dropped = min(skip, batch.num_rows)
                skip -= dropped
                yield opened.exact(batch).slice(dropped)
            if rows:  # a page whose header is damaged may be passed over without a word
                raise EOFError(f"row group {group} lacks {rows} of its rows")


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.concat_batches(batches) if len(batches) > 1 else batches[0]


def _rows(
    table: pa.RecordBatch, row: int, places: tuple[Sequence[str], Sequence[str] | None], max_bytes: int
) -> Rows:
    """A part of whole rows, ``places`` being those of the text and the label; a text that cannot be one is a reject."""
    text_at, label_at = places
    texts: list[str | bytes | None] = [None] * table.num_rows
    rejects: list[Reject] = []
    column = array_at(table, text_at)
    if column is not None:
        texts, name = _texts(column), ".".join(text_at)
        for index, text in enumerate(texts):
            if reason := _problem(text, max_bytes):
                raw = text.encode() if isinstance(text, str) else text or b""
                rejects.append(Reject(row + index, None, None, reason, name, raw[:_KEPT_BYTES]))
    positions = list(range(row, row + table.num_rows))
    if rejects:
        bad = {reject.row for reject in rejects}
        kept = [index for index, place in enumerate(positions) if place not in bad]
        table, texts, positions = take_rows(table, kept), [texts[k] for k in kept], [row + k for k in kept]
    given = array_at(table, label_at) if label_at is not None else None
    labels = plain_values(given) if given is not None else None
    return Rows(Position(row), positions, texts, labels, rejects, table=table)  # type: ignore[arg-type]


def _problem(text: str | bytes | None, max_bytes: int) -> str:
    """Why a text cannot be scored; empty where it can."""
    if isinstance(text, bytes):
        return "the text is not UTF-8"
    if text is None or 4 * len(text) <= max_bytes or (size := len(text.encode())) <= max_bytes:
        return ""
    return f"{size} bytes of text; the longest row allowed has {max_bytes} (--max-row-bytes)"


def _texts(column: pa.Array) -> list[str | bytes | None]:
    """The texts of a column; one that is not UTF-8 as its bytes."""
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
