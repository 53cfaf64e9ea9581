"""A table of another program as a file that is read like any other.

The file depends on the table's rows and types alone, not on how they came: the same table makes the same bytes, by which a
run knows it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from batchscore.errors import DataError, printable
from batchscore.formats.arrow_values import joining
from batchscore.formats.exact import storable
from batchscore.formats.parquet import write_row_groups
from batchscore.formats.registry import suffix_of
from batchscore.system.own_paths import AnyPath
from batchscore.system.storage import atomic_write

_FORMAT = "parquet"
_BATCH_ROWS = 4096


def spooled_name(name: str) -> str:
    """The file name of a table."""
    return name + suffix_of(_FORMAT)


def spool(schema: pa.Schema, batches: Iterable[pa.RecordBatch], path: AnyPath) -> None:
    """Write a table as a file, a few thousand rows at a time.

    Raises:
        DataError: a column of a type that a file cannot hold, or batches that are not of the schema.
        StorageError: it cannot be written.
    """
    _refuse_unstorable(schema)
    with atomic_write(path) as out:
        try:
            write_row_groups(_evenly(batches, schema), schema, out, is_packed=False)
        except pa.ArrowException as error:
            raise DataError(f"The table cannot be written as a file: {printable(error)}.") from error


def _refuse_unstorable(schema: pa.Schema) -> None:
    for field in schema:
        alone = pa.schema([field])
        try:
            is_kept = storable(alone) == alone
            if is_kept:
                write_row_groups([], alone, pa.BufferOutputStream())
        except pa.ArrowException:
            is_kept = False
        if not is_kept:
            raise DataError(
                f"The column {printable(field.name)} of the table has the type {printable(field.type)}, which Parquet cannot "
                "hold. Cast it, or leave it out."
            )


def _evenly(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Batches of the same number of rows whatever those of the table, as far as their dictionaries can be joined."""
    can_be_joined = joining(schema)
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        while batch.num_rows:
            if held and (rows == _BATCH_ROWS or not can_be_joined([*held, batch])):
                yield pa.concat_batches(held)
                held, rows = [], 0
            piece = batch.slice(0, _BATCH_ROWS - rows)
            held.append(piece)
            rows += piece.num_rows
            batch = batch.slice(piece.num_rows)  # noqa: PLW2901 - what is left of it
    if held:
        yield pa.concat_batches(held)
