"""Lossless reading and writing of Parquet files whose values Arrow changes, or whose types it drops.

- INT96 is a day and the nanoseconds within it. Arrow converts it to one unit for a whole file: nanoseconds wrap outside
  the years 1677 to 2262, coarser units truncate, and negative nanoseconds (which older Arrow itself wrote for times
  before 1970) are then off by 584 years. So it is read as twelve bytes and converted to a timestamp here, each column in
  nanoseconds if all of its times fit, else in microseconds.
- INTERVAL, which Arrow reads as twelve plain bytes, becomes an interval of months, days and nanoseconds.
- ENUM, which Arrow reads as bytes, becomes text.
- A dictionary with more values in one row group than its index type can count, which Arrow writes but cannot read, gets
  32-bit indices.

Written files get back the schema annotations that Arrow has no types for: INTERVAL, ENUM, BSON, GEOMETRY, VARIANT and the
like, and whether a time of day is UTC.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.errors import DataError, printable
from batchscore.formats import footer
from batchscore.formats.arrow_values import has_small_index, leaf_arrays, leaf_types, with_leaves
from batchscore.formats.first_pass import BlockFile
from batchscore.formats.footer import Element, Schema, mend_schema, read_schema
from batchscore.formats.source import Source
from batchscore.formats.unfolding import open_parquet, rows_at_once

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EPOCH_DAY = 2_440_588
"""1970-01-01 in the days of INT96: the Julian day number of its noon."""
_DAY_SECONDS = 86_400
_INT96 = np.dtype([("nanoseconds", "<i8"), ("day", "<u4")])
_INTERVAL = np.dtype([("months", "<i4"), ("days", "<i4"), ("milliseconds", "<u4")])
"""Months and days are unsigned by the specification; their bits are kept, so that a writer's negative ones stay negative."""
_MONTH_DAY_NANO = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanoseconds", "<i8")])
_TWELVE_BYTES = pa.binary(12)


@dataclasses.dataclass(frozen=True, slots=True)
class ExactFile:
    """An open file: ``file`` as Arrow sees it, ``schema`` of the batches that :meth:`exact` returns."""

    file: pq.ParquetFile
    schema: pa.Schema
    is_plain: bool
    """Whether Arrow's types equal those of ``schema``."""

    def exact(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch read from ``file``, of all or some columns, in the types of ``schema``."""
        if self.is_plain:
            return batch
        seen = collections.Counter[str]()
        fields = []
        for name in batch.schema.names:  # in any order; columns of the same name keep theirs
            fields.append(self.schema.field(self.schema.get_all_field_indices(name)[seen[name]]))
            seen[name] += 1
        return recast(batch, pa.schema(fields, batch.schema.metadata))


@contextlib.contextmanager
def open_exact(
    source: Source, units: Sequence[str] = (), wide: Sequence[str] = (), blocks: BlockFile | None = None
) -> Iterator[ExactFile]:
    """Open a file, through ``blocks`` if that is given.

    ``units`` of its INT96 leaves in order, ``wide``: paths of dictionaries (both from :func:`open_options`).
    """
    with source.path.open("rb") as file:
        schema = read_schema(file)
    readable = [_readable(element) for element in schema.elements]
    options: dict[str, Any] = {"read_dictionary": list(wide)} if wide else {}
    if readable != schema.elements:
        options["metadata"] = schema._replace(elements=readable).metadata()
    targets = _targets(schema, units)
    with open_parquet(source, blocks, **options) as parquet:
        exact = _changed(parquet.schema_arrow, lambda kind: next(targets) or kind)
        yield ExactFile(parquet, exact, is_plain=exact == parquet.schema_arrow)


def _readable(element: Element) -> Element:
    """A node changed so that Arrow reads it without loss."""
    if element.physical[0] == footer.INT96:
        return element.as_bytes(_INT96.itemsize)
    return element.as_string() if _is_enum(element) else element


def _is_enum(element: Element) -> bool:
    return element.physical[0] == footer.BYTE_ARRAY and (
        element.converted == footer.ENUM or footer.LOGICAL_ENUM in (element.logical or {})
    )


def _targets(schema: Schema, units: Sequence[str]) -> Iterator[pa.DataType | None]:
    """For each leaf its type here; None if it is Arrow's."""
    left = iter(units)
    for element in _leaves(schema.elements[1:]):
        if element.physical[0] == footer.INT96:
            unit = next(left, None)
            yield pa.timestamp(unit) if unit else None
        elif element.physical == (footer.FIXED_LEN_BYTE_ARRAY, 12) and element.converted == footer.INTERVAL:
            yield pa.month_day_nano_interval()
        else:
            yield None


def _leaves(elements: Iterable[Element]) -> list[Element]:
    return [element for element in elements if not element.children]


# ------------------------------------------------------------------------------------------- from one type to another


def recast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch in the types of ``schema``: twelve plain bytes become INT96 times or intervals, or the reverse."""
    if batch.schema.types == schema.types:
        return batch
    columns = [_recast(column, kind) for column, kind in zip(batch.columns, schema.types, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def storable(schema: pa.Schema) -> pa.Schema:
    """The schema with types that Arrow can write as Parquet."""
    return _changed(schema, lambda kind: _TWELVE_BYTES if kind == pa.month_day_nano_interval() else kind)


def _changed(schema: pa.Schema, change: Callable[[pa.DataType], pa.DataType]) -> pa.Schema:
    fields = [field.with_type(with_leaves(field.type, change)) for field in schema]
    return pa.schema(fields, schema.metadata)


def _recast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type == kind:
        return array
    if isinstance(array, pa.StructArray):
        children = [_recast(child, field.type) for child, field in zip(array.flatten(), kind, strict=True)]
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=array.is_null())
    if isinstance(array, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):  # a map is a list too
        entries = pa.struct([kind.key_field, kind.item_field]) if pa.types.is_map(kind) else kind.value_type
        values = _recast(array.values, entries)
        own = array.buffers()[: kind.num_buffers]
        return pa.Array.from_buffers(kind, len(array), own, array.null_count, array.offset, [values])
    if pa.types.is_timestamp(kind):
        return _leaf(_instants(_values(array, _INT96), kind.unit), array, kind)
    return _leaf(_interval(array, kind), array, kind)


def _values(array: pa.Array, kind: np.dtype[Any]) -> NDArray[Any]:
    """The bytes of a fixed-width array as numpy values, including those under nulls."""
    data = array.buffers()[1]
    if not len(array) or data is None:
        return np.empty(0, dtype=kind)
    return np.frombuffer(data, dtype=kind, count=len(array), offset=array.offset * kind.itemsize)


def _leaf(values: NDArray[Any], array: pa.Array, kind: pa.DataType) -> pa.Array:
    """An array of ``values``, null where ``array`` is."""
    valid = np.packbits(array.is_valid().to_numpy(zero_copy_only=False), bitorder="little")
    return pa.Array.from_buffers(
        kind, len(array), [pa.py_buffer(valid), pa.py_buffer(values)], array.null_count
    )


def _instants(values: NDArray[Any], unit: str) -> NDArray[Any]:
    """INT96 as int64 in ``unit`` since 1970; values that do not fit wrap."""
    per_second = {"s": 1, "us": 10**6, "ns": 10**9}[unit]
    days = values["day"].astype(np.int64) - _EPOCH_DAY
    found: NDArray[Any] = days * (_DAY_SECONDS * per_second) + values["nanoseconds"] // (10**9 // per_second)
    return found


def _interval(array: pa.Array, kind: pa.DataType) -> NDArray[Any]:
    """INTERVAL as Arrow's interval, or the reverse."""
    is_reading = kind == pa.month_day_nano_interval()
    given = _values(array, _INTERVAL if is_reading else _MONTH_DAY_NANO)
    values = np.empty(len(given), dtype=_MONTH_DAY_NANO if is_reading else _INTERVAL)
    values["months"], values["days"] = given["months"], given["days"]
    if is_reading:
        values["nanoseconds"] = given["milliseconds"].astype(np.int64) * 10**6
    else:
        values["milliseconds"] = given["nanoseconds"] // 10**6
    return values


# ----------------------------------------------------------------------------------------------- what a file holds


def open_options(source: Source, max_expansion: int) -> dict[str, list[str]]:
    """The options of :func:`open_exact` for a file; columns of INT96 or with small dictionary indices are read for it.

    Raises:
        DataError: no unit can hold all times of an INT96 column.
    """
    found: dict[str, list[str]] = {"units": [], "wide": []}
    leaves = _leaves(node for column in nodes_of(source) for node in column)
    is_int96 = [leaf.physical[0] == footer.INT96 for leaf in leaves]
    with open_exact(source) as opened:
        end = 0
        for field in opened.schema:
            start, end = end, end + len(leaf_types(field.type))
            batches = functools.partial(
                _column_batches, source, opened.file, range(start, end), max_expansion
            )
            marks = is_int96[start:end]
            if any(marks):
                found["units"] += _units(
                    f"{printable(source.path)}: the column {printable(field.name)}", batches(), marks
                )
            if small := [
                at for at, kind in enumerate(leaf_types(field.type), start) if has_small_index(kind)
            ]:
                found["wide"] += [opened.file.schema.column(at).path for at in small if _overflows(batches())]
    return {name: values for name, values in found.items() if values}


def _column_batches(
    source: Source, file: pq.ParquetFile, leaves: Iterable[int], max_expansion: int
) -> Iterator[pa.RecordBatch]:
    for group in range(file.num_row_groups):
        at_once = rows_at_once(source, file, group, max_expansion)
        yield from file.reader.iter_batches(at_once, row_groups=[group], column_indices=list(leaves))


def _overflows(batches: Iterable[pa.RecordBatch]) -> bool:
    """Whether a dictionary has too many values for its index type in the schema."""
    try:
        collections.deque(batches, maxlen=0)
    except pa.ArrowInvalid:
        return True
    return False


def _units(where: str, batches: Iterable[pa.RecordBatch], marks: Sequence[bool]) -> list[str]:
    """The unit of each INT96 leaf of one column; ``marks`` tells which leaves are INT96."""
    spans = [_Span() for _ in marks]
    for batch in batches:
        for span, leaf, is_int96 in zip(spans, leaf_arrays(batch.column(0)), marks, strict=True):
            if is_int96:
                span.add(_values(leaf, _INT96)[leaf.is_valid().to_numpy(zero_copy_only=False)])
    return [span.unit(where) for span, is_int96 in zip(spans, marks, strict=True) if is_int96]


class _Span:
    """The units that can hold all times of a column."""

    def __init__(self) -> None:
        self._fits = {"ns": True, "us": True}
        self._needs_nanoseconds = False
        """Whether any time needs nanoseconds."""

    def add(self, values: NDArray[Any]) -> None:
        """Add INT96 values."""
        seconds = _instants(values, "s")
        for unit, per_second in (("ns", 10**9), ("us", 10**6)):
            self._fits[unit] &= bool((_instants(values, unit) // per_second == seconds).all())
        self._needs_nanoseconds |= bool((values["nanoseconds"] % 1000).any())

    def unit(self, where: str) -> str:
        """Nanoseconds, as in Arrow, else microseconds, which hold anything that Spark, Hive and Impala write."""
        if self._fits["ns"]:
            return "ns"
        if self._fits["us"] and not self._needs_nanoseconds:
            return "us"
        raise DataError(
            f"{where} holds times of INT96 that no timestamp has room for: beyond the years 1677 to 2262 and finer than "
            "a microsecond, or beyond 290,000 years. Write it again with timestamps of microseconds."
        )


# -------------------------------------------------------------------------------------------------- what Arrow forgot

Nodes = list[Element]
"""The nodes of one column in a schema, depth first."""


def nodes_of(source: Source) -> list[Nodes]:
    """The schema nodes of each column of a file."""
    with source.path.open("rb") as file:
        return read_schema(file).columns()


def restore_annotations(out: IO[bytes], given: Sequence[Nodes]) -> None:
    """Give the columns of a file just written the annotations that Arrow has no types for.

    ``given``: for each column its nodes in the source file, or none; ``out`` is open for reading, too.
    """
    schema = read_schema(out)
    columns: Iterable[tuple[Nodes, Nodes]] = itertools.zip_longest(schema.columns(), given, fillvalue=[])
    elements = [schema.elements[0], *(node for ours, theirs in columns for node in _annotated(ours, theirs))]
    if elements != schema.elements:
        mend_schema(out, elements)


def _annotated(ours: Nodes, theirs: Nodes) -> Nodes:
    """The nodes of one column with the annotations of another file, where their structure is the same."""
    if [node.children for node in ours] == [node.children for node in theirs]:
        pairs = dict(enumerate(theirs))
    else:  # some files have other groups around the leaf of a list
        places = [place for place, node in enumerate(ours) if not node.children]
        leaves = _leaves(theirs)
        pairs = dict(zip(places, leaves, strict=True)) if len(places) == len(leaves) else {}
    return [
        node.annotated_like(pairs[place]) if place in pairs and _is_forgotten(node, pairs[place]) else node
        for place, node in enumerate(ours)
    ]


def _is_forgotten(ours: Element, theirs: Element) -> bool:
    if ours.physical != theirs.physical:
        return False
    is_bytes = ours.physical[0] in (footer.BYTE_ARRAY, footer.FIXED_LEN_BYTE_ARRAY)
    has_old_word = is_bytes and theirs.converted not in (None, ours.converted)
    return has_old_word or theirs.logical not in (None, ours.logical)
