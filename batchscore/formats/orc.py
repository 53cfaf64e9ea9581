"""ORC: rows are decoded a few at a time, whatever the size of a stripe, and every column is kept in its type.

An ORC file has no checksums: damage that still decodes cannot be seen.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import DataError, printable
from batchscore.formats.arrow_files import mapped, path_or_memory
from batchscore.formats.arrow_values import plain_values, without_dictionaries
from batchscore.formats.columnar import (
    ColumnFormat,
    cut,
    layout_of,
    refuse_too_wide,
    refuse_unstorable,
    texts_of_batches,
)
from batchscore.formats.format import Output, Texts, Unheld, is_input_format
from batchscore.formats.orc_types import decimal_precisions
from batchscore.formats.source import Source, source_of
from batchscore.formats.staged import StagedPart
from batchscore.formats.text_values import as_text
from batchscore.records import ColumnChoice, InputFile, Layout, Position, Rows

if TYPE_CHECKING:
    from batchscore.config import ReadSettings

_MAGIC = b"ORC"
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_HEAD_BYTES = 512
_AT_ONCE = 128
"""Rows that are decoded at a time."""
_HELD = (
    pa.types.is_boolean,
    pa.types.is_signed_integer,
    pa.types.is_float32,
    pa.types.is_float64,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_date32,
    pa.types.is_decimal128,
)
_MOST_DIGITS = 38
_OUT_OF_RANGE = re.compile(r"timestamp.*out of range", re.DOTALL)


def describe(source: Source, settings: ReadSettings) -> Layout:
    """Columns from the footer.

    Raises:
        DataError: something follows the file's end, two columns have one name, or a column has a type that Parquet cannot hold.
    """
    widest = max(decimal_precisions(source.path), default=0)
    if widest > _MOST_DIGITS:
        raise DataError(
            f"{printable(source.path)} is damaged, or has a decimal column of {widest} digits, and no more than {_MOST_DIGITS} can "
            "be read. Get a whole copy of it, or make the column a string."
        )
    with _opened(source) as file:
        schema = file.schema
        ends = (
            file.content_length,
            file.stripe_statistics_length,
            file.file_footer_length,
            file.file_postscript_length,
        )
        codec = file.compression.lower()
    refuse_too_wide(source, schema, settings)
    if len(set(schema.names)) < len(schema.names):  # Arrow's scanner finds columns by their names
        raise DataError(
            f"{printable(source.path)}: two columns have one name. Rename one, or convert it to Parquet."
        )
    if source.path.stat().st_size - sum(ends) - 1 not in (
        0,
        len(_MAGIC),
    ):  # writers count the magic bytes or not
        raise DataError(
            f"{printable(source.path)}: something precedes or follows it. Where several files were joined, score the files "
            "themselves."
        )
    refuse_unstorable(source, schema)
    return layout_of(schema, {"codec": codec})


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[Any]:
    from pyarrow import orc

    with mapped(source.path) as file:
        yield orc.ORCFile(file)


def _batches(source: Source, skip: int = 0, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Small batches from row ``skip`` on; their boundaries do not depend on ``skip``."""
    import pyarrow.dataset as ds
    from pyarrow import fs

    file = path_or_memory(source.path)
    place = {"filesystem": fs.LocalFileSystem()} if isinstance(file, str) else {}
    scanner = (
        ds.OrcFileFormat()
        .make_fragment(file, **place)
        .scanner(
            columns=columns, batch_size=_AT_ONCE, batch_readahead=0, fragment_readahead=0, use_threads=False
        )
    )
    try:
        for batch in scanner.to_batches():
            dropped = min(skip, batch.num_rows)
            skip -= dropped
            if dropped < batch.num_rows:
                yield batch.slice(dropped)
    except pa.ArrowInvalid as error:
        if _OUT_OF_RANGE.search(str(error)):
            raise DataError(
                f"{printable(source.path)} holds a time beyond the years 1677 to 2262, which is not read from ORC. Convert the "
                "table to Parquet."
            ) from error
        raise


class Orc(ColumnFormat):
    """ORC; predictions have the compression of the input."""

    name = "orc"

    def begins(self, head: bytes) -> bool:
        """The magic bytes, and behind them what is no text."""
        return head.startswith(_MAGIC) and _NO_TEXT.search(head[:_HEAD_BYTES]) is not None

    def describe(self, source: Source, settings: ReadSettings) -> Layout:
        """See :func:`describe`."""
        return describe(source, settings)

    def read(
        self, source: Source, layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
    ) -> Iterator[Rows]:
        """Yield the rows as parts."""
        yield from cut(_batches(source, start.row), source, layout, columns, settings, start.row)

    def schema(self, file: InputFile) -> pa.Schema:
        """The file's schema."""
        with _opened(source_of(file)) as opened:
            return opened.schema

    def texts_of_file(self, source: Source, settings: ReadSettings, names: Sequence[str]) -> Iterator[Texts]:
        """The columns ``names``, a few rows at a time."""
        with _opened(source) as file:
            there = [name for name in names if name in file.schema.names]
        yield from texts_of_batches(_batches(source, columns=there), names)

    def first_unwritable(self, rows: Rows) -> Unheld | None:
        """The first time that ORC holds but that would not be read back."""
        for name, column in (
            zip(rows.table.schema.names, rows.table.columns, strict=True) if rows.table else ()
        ):
            if pa.types.is_timestamp(column.type) and (at := _first_beyond(column)) is not None:
                return Unheld(at, name, "a time beyond the years 1677 to 2262")
        return None

    def write(self, parts: Iterable[StagedPart], output: Output, out: IO[bytes]) -> None:
        """Every column in its type; from another format as text what ORC has no type for."""
        from pyarrow import orc

        own = is_input_format(self, output.file)
        fields = [pa.field(field.name, _written(field.type)) for field in output.input_schema()]
        schema = pa.schema([*fields, *output.added_fields])
        codec = output.file.layout.details["codec"] if own else "zstd"
        with orc.ORCWriter(pa.PythonFile(out, "w"), compression=codec) as writer:
            writer.write(schema.empty_table())
            for part in parts:
                columns = [
                    _as(column, field.type) for column, field in zip(output.inputs(part), fields, strict=True)
                ]
                writer.write(pa.Table.from_arrays([*columns, *output.added(part)], schema=schema))

    def count_rows(self, source: Source, output: Output) -> int:
        """Rows of all batches, decoded."""
        return sum(batch.num_rows for batch in _batches(source))


FORMAT = Orc()


def _written(kind: pa.DataType) -> pa.DataType:
    """The type of a column in ORC: its own, or text."""
    plain = without_dictionaries(kind)
    return plain if _is_held(plain) or pa.types.is_timestamp(plain) else pa.large_string()


def _is_held(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_held(kind.value_type)
    if pa.types.is_map(kind):
        return _is_held(kind.key_type) and _is_held(kind.item_type)
    if pa.types.is_struct(kind):
        return all(_is_held(kind.field(place).type) for place in range(kind.num_fields))
    return (
        kind == pa.timestamp("ns") or kind == pa.timestamp("ns", "UTC") or any(is_it(kind) for is_it in _HELD)
    )


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    if pa.types.is_large_string(kind) and not pa.types.is_dictionary(column.type):
        values = plain_values(column)
        return pa.array([None if value is None else as_text(value) for value in values], kind)
    return column.cast(kind)


def _first_beyond(column: pa.Array) -> int | None:
    """The index of the first time that does not fit in nanoseconds."""
    try:
        column.cast(pa.timestamp("ns", column.type.tz))
    except pa.ArrowInvalid:
        seconds = pc.cast(column.cast(pa.int64()), pa.float64()).to_pylist()
        per_second = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[column.type.unit]
        most = 2**63 / 1e9
        return next(
            (at for at, s in enumerate(seconds) if s is not None and abs(s / per_second) >= most), None
        )
    return None
