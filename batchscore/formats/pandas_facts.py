"""What a pandas DataFrame says of itself in the metadata of an Arrow schema: which columns are its index, and their types.

The layout is described in pandas' developer documentation, "Storing pandas DataFrame objects in Apache Parquet format". Files may
hold anything under that key: what is no such description is left as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

KEY = b"pandas"
Metadata = Mapping[bytes, bytes] | None


def facts_of(metadata: Metadata) -> dict[str, Any] | None:
    """The description in a schema's metadata; None if there is none that can be understood."""
    try:
        facts = json.loads((metadata or {}).get(KEY, b"null"))
    except ValueError:
        return None
    has_lists = isinstance(facts, dict) and all(
        isinstance(facts.get(name), list) for name in ("index_columns", "columns")
    )
    return facts if has_lists and all(isinstance(each, dict) for each in facts["columns"]) else None


def with_facts(schema: pa.Schema, facts: Mapping[str, Any]) -> pa.Schema:
    """A schema with this description beside its other metadata."""
    return schema.with_metadata({**(schema.metadata or {}), KEY: json.dumps(facts).encode()})


def index_names(schema: pa.Schema) -> list[str]:
    """The columns of a schema that are the index of a DataFrame; none if that only counts the rows."""
    facts = facts_of(schema.metadata) or {"index_columns": []}
    return [name for name in facts["index_columns"] if isinstance(name, str) and name in schema.names]


def field_name(column: Mapping[str, Any]) -> Any:
    """The name in the file of a column that is described; old versions have but one name."""
    return column.get("field_name", column.get("name"))


def renamed(metadata: Metadata, names: Mapping[str, str]) -> Metadata:
    """The metadata of a schema whose columns were renamed, old → new.

    >>> facts = {"index_columns": ["id"], "columns": [{"name": "id", "field_name": "id"}]}
    >>> facts_of(renamed({KEY: json.dumps(facts).encode()}, {"id": "key"}))
    {'index_columns': ['key'], 'columns': [{'name': 'key', 'field_name': 'key'}]}
    """
    facts = facts_of(metadata)
    if facts is None or metadata is None or not names:
        return metadata
    index = [names.get(each, each) if isinstance(each, str) else each for each in facts["index_columns"]]
    columns = [_renamed_column(each, names) for each in facts["columns"]]
    return {**metadata, KEY: json.dumps({**facts, "index_columns": index, "columns": columns}).encode()}


def _renamed_column(column: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    old = field_name(column)
    if not isinstance(old, str) or old not in names:
        return column
    return {**column, "name": names[old], "field_name": names[old]}
