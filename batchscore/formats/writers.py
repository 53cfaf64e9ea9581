"""Staged parts in, prediction files out: a format is one function and one entry in ``WRITERS``.

In the input's own format, a text record keeps its exact bytes and gets the added fields spliced in; a Parquet row keeps
every column as it was. In another format a value is converted once, as the docstring of its writer says.
"""

from __future__ import annotations

import base64
import bz2
import contextlib
import datetime
import decimal
import gzip
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from batchscore.errors import DataError, printable
from batchscore.formats import delimited
from batchscore.formats.arrow_values import first_not_utf8, first_with_nul, joining, plain_values
from batchscore.formats.csv import dialect_of
from batchscore.formats.exact import nodes_of, open_exact, recast, restore_annotations, storable
from batchscore.formats.registry import Source
from batchscore.formats.source import source_of
from batchscore.formats.staged import StagedPart, added_fields, added_names
from batchscore.records import InputFile, Layout, Rows

_GROUP_ROWS = 32_768
_GROUP_BYTES = 64 * 2**20
_JSON_SPACE = re.compile(r"[ \t\r\n]*+")
_JSON = json.JSONDecoder()
_DIALECT = delimited.Dialect()
"""Of CSV that is made from another format."""


class Output(NamedTuple):
    """What a prediction file is made of."""

    file: InputFile
    labels: tuple[str, ...]
    prefix: str


SUFFIXES = {"csv": ".csv", "jsonl": ".jsonl", "json": ".json", "parquet": ".parquet"}


@contextlib.contextmanager
def packed(out: IO[bytes], compression: str) -> Iterator[IO[bytes]]:
    """Compress what is written, with no name or time in it, so that the same rows give the same bytes."""
    if not compression:
        yield out
    elif compression == "gzip":
        with gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0, compresslevel=6) as stream:
            yield stream  # type: ignore[misc]
    elif compression == "bz2":
        with bz2.BZ2File(out, "wb") as stream:
            yield stream
    else:
        with zstandard.ZstdCompressor().stream_writer(out, closefd=False) as stream:
            yield stream


def write_predictions(
    parts: Iterable[StagedPart], output: Output, output_format: str, out: IO[bytes]
) -> None:
    """Write one prediction file; ``output_format`` ``same`` keeps format and compression of the input."""
    kind = _kind(output.file.format, output_format)
    compression = output.file.compression if output_format == "same" else ""
    with packed(out, compression) as stream:
        WRITERS[kind](parts, output, stream)


class _Unheld(NamedTuple):
    """What an output format cannot hold: the place of the row in its part, the column, and what is in it."""

    row: int
    column: str
    what: str


_NUL = "a NUL character"
_NOT_UTF8 = "a string that is not UTF-8"
_NAMES = {"csv": "CSV", "jsonl": "JSON Lines", "json": "JSON"}


def refuse_unwritable_names(file: Source, layout: Layout, added: Sequence[str], output_format: str) -> None:
    """Refuse names of columns and labels that predictions cannot hold, while that costs nothing.

    Raises:
        DataError: CSV cannot hold one, or the encoding of the input has no characters for it.
    """
    if _kind(file.format, output_format) != "csv":
        return
    names = [] if file.format == "csv" else [column.name for column in layout.columns]
    for name in (*names, *added):
        if "\0" in name:
            raise DataError(f"{printable(file.path)}: the name {printable(name)} has {_cannot(_NUL, 'csv')}")
    try:
        delimited.encode_fields(
            [*added, "0.5", "true"], dialect_of(layout) if file.format == "csv" else _DIALECT
        )
    except DataError as error:
        raise DataError(f"{printable(file.path)}: {error}") from error


def refuse_unwritable(file: Source, rows: Rows, output_format: str) -> None:
    """Refuse values that predictions cannot hold as they are, when they are read and not after the night.

    Raises:
        DataError: with the row and the column of the first.
    """
    kind = _kind(file.format, output_format)
    found = None
    if file.format == "parquet" and kind != "parquet":
        found = _unheld_of_arrays(rows.table, kind)
    elif file.format in {"jsonl", "json"} and kind == "csv":
        found = _unheld_of_records(rows.raw or ())
    if found is not None:
        raise DataError(
            f"{printable(file.path)}, row {rows.row[found.row]}: the column {printable(found.column)} holds "
            f"{_cannot(found.what, kind)}"
        )


def _kind(input_format: str, output_format: str) -> str:
    return input_format if output_format == "same" else output_format


def _cannot(what: str, kind: str) -> str:
    return f"{what}, which {_NAMES[kind]} cannot hold. Choose --output-format parquet."


def _unheld_of_arrays(table: pa.RecordBatch, kind: str) -> _Unheld | None:
    for name, column in zip(table.schema.names, table.columns, strict=True):
        if (row := first_not_utf8(column)) is not None:
            return _Unheld(row, name, _NOT_UTF8)
        if kind == "csv" and (row := first_with_nul(column)) is not None:
            return _Unheld(row, name, _NUL)
    return None


def _unheld_of_records(records: Sequence[bytes]) -> _Unheld | None:
    for row, record in enumerate(records):
        if b"\\u0000" in record:
            for name, cell in json_cells(record).items():
                if "\0" in name or "\0" in (cell or ""):
                    return _Unheld(row, name, _NUL)
    return None


def added_texts(part: StagedPart) -> list[list[str]]:
    """The added columns as text, column by column: null is empty, a float32 the shortest text that reads back equal."""
    return [[as_text(value) for value in plain_values(array)] for array in part.added]


# --- CSV -------------------------------------------------------------------------------------------------------------


def write_csv(parts: Iterable[StagedPart], output: Output, out: IO[bytes]) -> None:
    """CSV; from CSV the records' own bytes, from another format UTF-8 with commas, null as an empty cell."""
    names = added_names(output.labels, output.prefix)
    if output.file.format == "csv":
        dialect = dialect_of(output.file.layout)
        header = bytes.fromhex(output.file.layout.details["header"])
    else:
        dialect = _DIALECT
        columns = [column.name for column in output.file.layout.columns]
        header = delimited.encode_fields(columns, dialect) if columns else b""
    if header:
        out.write(delimited.append_fields(header, names, dialect))
    else:
        out.write(delimited.append_fields(delimited.encode_fields(names, dialect), [], dialect))
    for part in parts:
        extra = zip(*added_texts(part), strict=True)
        for record, fields in zip(_csv_records(part, output.file, dialect), extra, strict=True):
            out.write(delimited.append_fields(record, fields, dialect))


def _csv_records(part: StagedPart, file: InputFile, dialect: delimited.Dialect) -> Iterator[bytes]:
    if file.format == "csv":
        yield from part.inputs[0].to_pylist()
        return
    for values in zip(*map(plain_values, input_columns(part, file)), strict=True):
        yield delimited.encode_fields([as_text(value) for value in values], dialect)


def as_text(value: Any) -> str:
    """A value as people write it.

    ISO 8601 dates, base64 bytes, ``true`` and ``false``, decimals with all their digits and no exponent, JSON for what
    is nested, nothing for null; a float is the shortest text that reads back equal (``nan``, ``inf``).
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    plain = plain_json(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def plain_json(value: Any) -> Any:
    """A value of Arrow as JSON holds it; what JSON has no word for becomes text (``"nan"`` and ``"inf"``, decimals)."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return f"{value:f}" if isinstance(value, decimal.Decimal) else str(value)


# --- JSON Lines ------------------------------------------------------------------------------------------------------


def write_jsonl(parts: Iterable[StagedPart], output: Output, out: IO[bytes]) -> None:
    """JSON Lines; from JSON Lines the lines' own bytes, from CSV each cell as a string, from Parquet plain values."""
    if output.file.layout.details.get("bom") == 3:
        out.write(b"\xef\xbb\xbf")
    for body, end in _json_objects(parts, output):
        out.write(body + (end or b"\n"))


def write_json(parts: Iterable[StagedPart], output: Output, out: IO[bytes]) -> None:
    """A JSON array, an object a line; from JSON the objects' own bytes, from other formats as :func:`write_jsonl` has them."""
    before = b"[\n"
    for body, _ in _json_objects(parts, output):
        out.write(before + body)
        before = b",\n"
    out.write((b"[" if before == b"[\n" else b"\n") + b"]\n")


def _json_objects(parts: Iterable[StagedPart], output: Output) -> Iterator[tuple[bytes, bytes]]:
    """Each row as an object with the added fields, and the white space that stood behind it."""
    keys = [json.dumps(name, ensure_ascii=False) for name in added_names(output.labels, output.prefix)]
    for part in parts:
        added = zip(*_json_texts(part), strict=True)
        for record, values in zip(_json_records(part, output.file), added, strict=True):
            body = record.rstrip()
            extra = ", ".join(f"{key}: {value}" for key, value in zip(keys, values, strict=True))
            comma = b"" if body[:-1].rstrip() == b"{" else b", "
            yield body[:-1] + comma + extra.encode() + b"}", record[len(body) :]


def _json_texts(part: StagedPart) -> list[list[str]]:
    columns = []
    for array, texts in zip(part.added, added_texts(part), strict=True):
        quoted = pa.types.is_string(array.type)
        columns.append([("null" if not text else json.dumps(text) if quoted else text) for text in texts])
    return columns


def _json_records(part: StagedPart, file: InputFile) -> Iterator[bytes]:
    if file.format in {"jsonl", "json"}:
        yield from part.inputs[0].to_pylist()
        return
    names = distinct([column.name for column in file.layout.columns])
    for values in zip(*map(plain_values, input_columns(part, file)), strict=True):
        fields = dict(zip(names, map(plain_json, values), strict=True))
        yield json.dumps(fields, ensure_ascii=False).encode()


# --- Parquet ---------------------------------------------------------------------------------------------------------


def write_parquet(parts: Iterable[StagedPart], output: Output, out: IO[bytes]) -> None:
    """Parquet; from Parquet every type as it was, from text formats string columns (see :func:`input_columns`)."""
    schema = input_schema(output.file)
    fields = added_fields(output.labels, output.prefix)
    schema = pa.schema([*schema, *fields], metadata=schema.metadata)
    batches = (
        pa.RecordBatch.from_arrays([*input_columns(part, output.file), *part.added], schema=schema)
        for part in parts
    )
    write_row_groups(batches, schema, out)
    if output.file.format == "parquet":
        restore_annotations(out, nodes_of(source_of(output.file)))


def write_row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema, out: Any) -> None:
    """Write record batches as row groups of a bounded size, with page checksums."""
    schema = storable(schema)
    with pq.ParquetWriter(out, schema, compression="zstd", write_page_checksum=True) as writer:
        for group in _row_groups((recast(batch, schema) for batch in batches), joining(schema)):
            writer.write_table(pa.Table.from_batches(group, schema))


def _row_groups(
    batches: Iterable[pa.RecordBatch], can_be_joined: Callable[[Sequence[pa.RecordBatch]], bool]
) -> Iterator[list[pa.RecordBatch]]:
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if group and not can_be_joined(
            [*group, batch]
        ):  # readers take the dictionaries of a row group as one
            yield group
            group, rows, size = [], 0, 0
        group.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group


def input_schema(file: InputFile) -> pa.Schema:
    """The Arrow schema of a file's own columns, as predictions in Parquet keep them."""
    if file.format == "parquet":
        with open_exact(source_of(file), **file.layout.details["exact"]) as opened:
            return opened.schema
    names = distinct([column.name for column in file.layout.columns])
    return pa.schema([pa.field(name, pa.large_string()) for name in names])


def distinct(names: Sequence[str]) -> list[str]:
    """Column names of which no two are equal; a second ``x`` is ``x_2``, or the next number that is free.

    >>> distinct(["x", "x", "x_2", ""])
    ['x', 'x_3', 'x_2', '']
    """
    taken, found = set(names), dict.fromkeys(names, 0)
    result: list[str] = []
    for name in names:
        found[name] += 1
        count, free = found[name], name
        while count > 1 and free in taken:
            free, count = f"{name}_{count}", count + 1
        taken.add(free)
        result.append(free)
    return result


def input_columns(part: StagedPart, file: InputFile) -> Sequence[pa.Array]:
    """The input's columns of a part as Arrow arrays.

    Parquet: as they were. CSV: the cells as they were, as strings. JSON Lines: strings as they were, every other value
    as its JSON text to the letter, null and absent as null.
    """
    if file.format == "parquet":
        return part.inputs
    records = part.inputs[0].to_pylist()
    n_columns = len(file.layout.columns)
    if file.format == "csv":
        dialect = dialect_of(file.layout)
        rows: list[Sequence[str | None]] = [delimited.parse_record(record, dialect) for record in records]
    else:
        names = [column.name for column in file.layout.columns]
        rows = [[cells.get(name) for name in names] for cells in map(json_cells, records)]
    columns = zip(*rows, strict=True) if rows else [()] * n_columns
    return [pa.array(column, pa.large_string()) for column in columns]


def json_cells(record: bytes) -> dict[str, str | None]:
    """The fields of a JSON object: strings as they are, every other value as the text it is in the record.

    So is a string that UTF-8 cannot hold (half of a surrogate pair). Of two fields with one name, the last counts.

    >>> json_cells(b'{"id": 1.10, "a": [1,  2], "text": "fine", "b": null}')
    {'id': '1.10', 'a': '[1,  2]', 'text': 'fine', 'b': None}
    """
    text = record.decode()
    cells: dict[str, str | None] = {}
    at = _behind_space(text, _behind_space(text, 0) + 1)
    while text[at] != "}":
        name, at = _JSON.raw_decode(text, at)
        at = _behind_space(text, _behind_space(text, at) + 1)  # behind the colon
        value, end = _JSON.raw_decode(text, at)
        cells[name] = value if value is None or _is_plain(value) else text[at:end]
        at = _behind_space(text, end)
        at = _behind_space(text, at + 1) if text[at] == "," else at
    return cells


def _behind_space(text: str, at: int) -> int:
    match = _JSON_SPACE.match(text, at)
    return match.end() if match else at


def _is_plain(value: object) -> bool:
    return isinstance(value, str) and (value.isascii() or not re.search("[\ud800-\udfff]", value))


Writer = Callable[[Iterable[StagedPart], Output, IO[bytes]], None]
WRITERS: dict[str, Writer] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "json": write_json,
    "parquet": write_parquet,
}
