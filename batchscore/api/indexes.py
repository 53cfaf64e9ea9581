"""The index of a table: what joins predictions to it. It is kept among the columns of predictions, and given back from them.

An index that merely counts the rows is no column, as long as every row is there and in its place. Where some may be missing, or
in another order, it becomes one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from batchscore.api.tables import Table
from batchscore.config import Allowance
from batchscore.errors import UsageError, printable

if TYPE_CHECKING:
    import pyarrow as pa

_COUNTED = "__index_level_{}__"
"""As pandas names the columns of an index without a name."""
_PLAIN: Mapping[str, Any] = {"start": 0, "step": 1, "name": None}


def joinable(table: Table, values: Mapping[str, Any]) -> tuple[Table, dict[str, Any]]:
    """The table and the options, changed so that predictions hold its index.

    Raises:
        UsageError: the options leave the index out.
    """
    from batchscore.formats.pandas_facts import index_names

    if not index_names(table.schema) and _moves_rows(table, values):
        table = _counted(table)
    index = index_names(table.schema)
    if dropped := [name for name in index if name in (values["drop_columns"] or ())]:
        raise UsageError(
            f"drop_columns has {printable(dropped[0])}, which is the index of the table: without it no row of the predictions "
            "could be joined. Leave it there, or give the table without: data.reset_index(drop=True)."
        )
    kept = values["keep_columns"]
    more = [name for name in index if name not in kept] if kept else []
    return table, {**values, "keep_columns": (*kept, *more) if more else kept}


def _moves_rows(table: Table, values: Mapping[str, Any]) -> bool:
    """Whether a row of the predictions may have another number than in the table, or the first ones are not numbered from 0."""
    if values["partition_by"] is not None or Allowance.parse(values["max_rejects"]) != Allowance():
        return True
    counting = _counting(table)
    return values["limit"] is not None and (counting["start"], counting["step"]) != (0, 1)


def _counting(table: Table) -> Mapping[str, Any]:
    """The ``start``, ``step`` and ``name`` of an index that counts the rows."""
    from batchscore.formats.pandas_facts import facts_of

    facts = facts_of(table.schema.metadata) or {"index_columns": []}
    for each in facts["index_columns"]:
        if isinstance(each, dict) and each.get("kind") == "range":
            rows = len(range(each["start"], each["stop"], each["step"]))
            return each if table.rows in (None, rows) else _PLAIN
    return _PLAIN


def _counted(table: Table) -> Table:
    """The table with the numbers of its rows as a last column, which pandas takes for the index."""
    import numpy as np
    import pyarrow as pa

    from batchscore.formats.pandas_facts import facts_of, with_facts

    counting = _counting(table)
    start, step = counting["start"], counting["step"]
    level = next(k for k in range(len(table.schema) + 1) if _COUNTED.format(k) not in table.schema.names)
    name = _COUNTED.format(level)
    facts = facts_of(table.schema.metadata) or {"columns": [], "column_indexes": []}
    column = {"name": counting.get("name"), "field_name": name, "pandas_type": "int64", "numpy_type": "int64"}
    facts = {**facts, "index_columns": [name], "columns": [*facts["columns"], {**column, "metadata": None}]}
    schema = with_facts(table.schema.append(pa.field(name, pa.int64())), facts)

    def batches() -> Iterator[pa.RecordBatch]:
        row = 0
        for batch in table.batches():
            numbers = start + step * np.arange(row, row + batch.num_rows, dtype=np.int64)
            row += batch.num_rows
            yield pa.RecordBatch.from_arrays([*batch.columns, pa.array(numbers)], schema=schema)

    return Table(schema, batches, table.rows)


# ---------------------------------------------------------------------------------------------------------- given back


def index_of(schema: pa.Schema) -> pa.Schema | None:
    """The columns of a table that are its index, with their types and what pandas says of them; None if it has no index."""
    import pyarrow as pa

    from batchscore.formats.pandas_facts import facts_of, field_name, index_names, with_facts

    facts = facts_of(schema.metadata)
    if facts is None:
        return None
    names = index_names(schema)
    columns = [each for each in facts["columns"] if field_name(each) in names]
    kept = {"index_columns": facts["index_columns"], "column_indexes": [], "columns": columns}
    return with_facts(pa.schema([schema.field(name) for name in names]), kept)


def with_index(schema: pa.Schema, index: pa.Schema, names: Mapping[str, str]) -> pa.Schema:
    """The schema of predictions with the types of a table's index, whose columns may have new ``names``, and its description.

    An index of a type that cannot be read from text (periods, intervals, durations, bytes) stays text.
    """
    from batchscore.formats.pandas_facts import KEY, facts_of, field_name, renamed, with_facts

    facts = facts_of(renamed(index.metadata, names)) or {"columns": []}
    texts = set()
    for field in index:
        place = schema.get_field_index(names.get(field.name, field.name))
        if place < 0:
            continue
        here = schema.field(place)
        kind = _readable(field.type)
        if here.type == field.type or kind is None:
            texts |= {here.name} if here.type != field.type else set()
            continue
        texts |= {here.name} if kind != field.type else set()
        schema = schema.set(place, here.with_type(kind))
    if KEY in (schema.metadata or {}):  # the file's own
        return schema
    as_text = {"pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    columns = [{**each, **as_text} if field_name(each) in texts else each for each in facts["columns"]]
    return with_facts(schema, {**facts, "columns": columns})


def _readable(kind: pa.DataType) -> pa.DataType | None:
    """The type as which values are read from text; None if they stay text."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _readable(kind.value_type)
    of = pa.types
    known = (of.is_integer, of.is_floating, of.is_boolean, of.is_string, of.is_large_string, of.is_date)
    return kind if any(is_it(kind) for is_it in (*known, of.is_timestamp, of.is_decimal)) else None


def in_types(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch in the types of a :func:`with_index`: an empty text is null where the type is none of text."""
    import pyarrow as pa

    pairs = zip(batch.columns, schema.types, strict=True)
    return pa.RecordBatch.from_arrays([_as(column, kind) for column, kind in pairs], schema=schema)


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if is_text and not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
    return column if column.type == kind else column.cast(kind)
