"""Tables of other libraries as Arrow record batches, a few thousand rows at a time.

None of these libraries is imported: an object is known by its own module if that is loaded, else by the Arrow PyCapsule
interface (arrow.apache.org, "The Arrow PyCapsule Interface"), which Polars, DuckDB, pyarrow and others have.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from batchscore.errors import DataError, UsageError, printable

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from datasets import Dataset

_ROWS = 4096


class Table(NamedTuple):
    """A table: its ``schema``, and a function that returns its batches, all of that schema."""

    schema: pa.Schema
    batches: Callable[[], Iterable[pa.RecordBatch]]
    rows: int | None = None
    """Their number, where it is known before they are read."""


def is_of(value: Any, module: str, name: str) -> bool:
    """Whether a value is of a class of a library, which is not imported for the question."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def table_of(value: Any) -> Table | None:
    """The table that a value is; None if it is none.

    Raises:
        DataError: a table that cannot be written as a file: names that are no text or not distinct, mixed types.
        UsageError: something that is almost a table; the message says what makes it one.
    """
    if is_of(value, "pandas", "DataFrame"):
        return _of_pandas(value)
    if is_of(value, "datasets", "Dataset"):
        return _of_dataset(value)
    if advice := _almost(value):
        raise UsageError(f"data is a {type(value).__name__}. {advice}")
    if hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__"):
        return _of_arrow(value)
    return None


def _almost(value: Any) -> str:
    """What makes a table of a value that is almost one; empty if it is not."""
    if is_of(value, "datasets", "IterableDataset") or is_of(value, "datasets", "IterableDatasetDict"):
        return "Save it first, as Parquet, and name the file; or load it without streaming."
    if is_of(value, "polars", "LazyFrame"):
        return "Collect it first: data.collect()."
    if any(is_of(value, *known) for known in (("pandas", "Series"), ("polars", "Series"))):
        return "Make it a table, for example data.to_frame('text')."
    if any(is_of(value, *known) for known in (("pyarrow", "Array"), ("pyarrow", "ChunkedArray"))):
        return "Make it a table, for example pyarrow.table({'text': data})."
    return ""


# ------------------------------------------------------------------------------------------------------------- Arrow


def _of_arrow(value: Any) -> Table:
    import pyarrow as pa

    try:
        if isinstance(value, pa.Table | pa.RecordBatch):
            whole = pa.Table.from_batches([value]) if isinstance(value, pa.RecordBatch) else value
            return Table(whole.schema, lambda: whole.to_batches(_ROWS), whole.num_rows)
        if isinstance(value, pa.RecordBatchReader):
            reader = value
        elif hasattr(value, "__arrow_c_stream__"):
            reader = pa.RecordBatchReader.from_stream(value)
        else:
            return _of_arrow(pa.record_batch(value))
    except (pa.ArrowException, TypeError) as error:
        raise UsageError(
            f"data is a {type(value).__name__}, which is no table ({printable(error)})."
        ) from error
    is_own = isinstance(value, pa.RecordBatchReader)
    schema = reader.schema if is_own else _without_views(reader.schema)
    return Table(schema, lambda: _cast(itertools.chain.from_iterable(map(_sliced, reader)), schema))


def _sliced(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    return (batch.slice(start, _ROWS) for start in range(0, batch.num_rows, _ROWS))


def _without_views(schema: pa.Schema) -> pa.Schema:
    """The types that the library itself would write into a file: how it shares strings is no type of theirs."""
    import pyarrow as pa

    from batchscore.formats.arrow_values import with_leaves

    def plain(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_dictionary(kind):
            return pa.dictionary(kind.index_type, plain(kind.value_type), kind.ordered)
        return {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}.get(kind, kind)

    fields = [field.with_type(with_leaves(field.type, plain)) for field in schema]
    return pa.schema(fields, schema.metadata)


def _cast(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    for batch in batches:
        pairs = zip(batch.columns, schema.types, strict=True)
        columns = [column if column.type == kind else column.cast(kind) for column, kind in pairs]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


# ------------------------------------------------------------------------------------------------------------ pandas


def _of_pandas(frame: pd.DataFrame) -> Table:
    """A frame as ``DataFrame.to_parquet`` writes it: an index of its own becomes columns, and ``to_pandas`` restores it."""
    _refuse_names(frame)
    columns = _columns(frame)
    schema = _pandas_schema(frame, columns)
    return Table(schema, lambda: _pandas_batches(columns, schema, len(frame)), len(frame))


def _refuse_names(frame: pd.DataFrame) -> None:
    names = list(frame.columns)
    if strange := [name for name in names if not isinstance(name, str)]:
        raise DataError(
            f"{len(strange)} columns of the DataFrame have names that are no text (the first is a "
            f"{type(strange[0]).__name__}). Name them: data.columns = [...], or data.columns.map(str)."
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"The DataFrame has the column {printable(twice)} more than once. Rename one.")


def _columns(frame: pd.DataFrame) -> list[Any]:
    """The columns, then those of the index, unless that only counts the rows."""
    import pandas as pd

    columns: list[Any] = [frame[name] for name in frame.columns]
    if not isinstance(frame.index, pd.RangeIndex):
        columns += [frame.index.get_level_values(level) for level in range(frame.index.nlevels)]
    return columns


def _pandas_schema(frame: pd.DataFrame, columns: Sequence[Any]) -> pa.Schema:
    """The schema of the whole frame, of which no column is converted for it; a column of objects is only looked through."""
    import pyarrow as pa

    head = frame.iloc[:0]
    try:
        plain = pa.Schema.from_pandas(head)
        fields = [
            field.with_type(pa.infer_type(column.to_numpy(), from_pandas=True))
            if _has_objects(column)
            else field
            for field, column in zip(plain, columns, strict=True)
        ]
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise _unstorable(error) from error
    facts = json.loads(plain.metadata[b"pandas"])
    typed = pa.Table.from_pandas(head, schema=pa.schema(fields), preserve_index=None).schema
    pairs = zip(facts["columns"], json.loads(typed.metadata[b"pandas"])["columns"], columns, strict=True)
    facts["columns"] = [theirs if _has_objects(column) else own for own, theirs, column in pairs]
    counted = pa.Schema.from_pandas(frame.loc[:, []])
    facts["index_columns"] = json.loads(counted.metadata[b"pandas"])["index_columns"]
    return pa.schema(fields, {b"pandas": json.dumps(facts).encode()})


def _has_objects(column: Any) -> bool:
    return str(column.dtype) == "object"


def _pandas_batches(columns: Sequence[Any], schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    for start in range(0, rows, _ROWS):
        arrays = []
        for column, field in zip(columns, schema, strict=True):
            try:
                array = pa.array(_part(column, start), type=field.type, from_pandas=True)
            except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
                raise _unstorable(error, field.name) from error
            arrays.append(array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array)
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _part(column: Any, start: int) -> Any:
    return (column.iloc if hasattr(column, "iloc") else column)[start : start + _ROWS]


def _unstorable(error: Exception, name: str = "") -> DataError:
    """What is wrong with a frame; the library's own words name values, so only their kind is told."""
    where = f"The column {printable(name)} of the DataFrame" if name else "The DataFrame"
    return DataError(
        f"{where} cannot be written as a file, as data.to_parquet() cannot ({type(error).__name__}): perhaps its values are of "
        "several types. Make them one, for example text: data[name].astype(str)."
    )


# ---------------------------------------------------------------------------------------------------------- datasets


def _of_dataset(data: Dataset) -> Table:
    """A data set as ``Dataset.to_parquet`` writes it: the names of its classes are in the metadata."""
    schema = data.features.arrow_schema
    whole = data.with_format("pa")

    def batches() -> Iterator[pa.RecordBatch]:
        for table in whole.iter(_ROWS):
            yield from _cast(table.to_batches(), schema)

    return Table(schema, batches, len(data))
