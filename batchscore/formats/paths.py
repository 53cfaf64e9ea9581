"""Nested columns: ``review.body`` is the field ``body`` of the objects in the column ``review``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.records import Column, Layout

MAX_LEVELS = 5
"""Fields deeper than this are not offered as columns."""
_MOST_NESTED = 500


def nested_details(kinds: Mapping[tuple[str, ...], str]) -> dict[str, Any]:
    """Layout details for nested fields (path → kind): ``nested``, dotted name → path and kind.

    A dotted name shared by two paths is left out.
    """
    names = [".".join(path) for path in kinds]
    pairs = [(name, path) for name, path in zip(names, kinds, strict=True) if names.count(name) == 1]
    return (
        {"nested": {name: [list(path), kinds[path]] for name, path in pairs[:_MOST_NESTED]}} if pairs else {}
    )


def nested_columns(layout: Layout) -> tuple[Column, ...]:
    """The nested fields that can be chosen, under their dotted names."""
    top = {column.name for column in layout.columns}
    nested = layout.details.get("nested", {})
    return tuple(Column(name, kind) for name, (_, kind) in nested.items() if name not in top)


def path_of(layout: Layout, name: str) -> tuple[str, ...]:
    """The path of the column ``name``: a column of exactly that name, else a nested field."""
    if any(column.name == name for column in layout.columns):
        return (name,)
    nested = layout.details.get("nested", {})
    return tuple(nested[name][0]) if name in nested else (name,)


def value_at(fields: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The value at the end of a path; None if any step is missing or not an object."""
    value: Any = fields
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def array_at(batch: pa.RecordBatch, path: Sequence[str]) -> pa.Array | None:
    """The column at the end of a path, null where any step is null; None if there is no such column."""
    place = batch.schema.get_field_index(path[0])
    return field_of(batch.column(place), path[1:]) if place >= 0 else None


def field_of(array: pa.Array, path: Sequence[str]) -> pa.Array:
    """The field at the end of a path within an array of structs; the array itself for an empty path."""
    return pc.struct_field(array, list(path)) if path else array
