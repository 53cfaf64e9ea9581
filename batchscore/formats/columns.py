"""Some input columns of a part as text, whatever the format: what slices are named by and rows are matched by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from batchscore.formats import delimited
from batchscore.formats.arrow_values import plain_values
from batchscore.formats.csv import dialect_of
from batchscore.formats.paths import field_of, path_of
from batchscore.formats.staged import StagedPart
from batchscore.formats.writers import as_text, input_columns, json_cells
from batchscore.records import InputFile, Layout

Texts = dict[str, list[str | None]]
"""By column, one text a row; None for null."""


def texts_of(part: StagedPart, file: InputFile, names: Sequence[str]) -> Texts:
    """The columns ``names`` of a staged part; one that the file lacks is all None."""
    if not names:
        return {}
    if file.format != "parquet":
        return texts_of_records(part.inputs[0].to_pylist(), file.format, file.layout, names)
    places = {column.name: place for place, column in enumerate(file.layout.columns)}
    paths = {name: path_of(file.layout, name) for name in names}
    found = {
        n: field_of(part.inputs[places[path[0]]], path[1:]) for n, path in paths.items() if path[0] in places
    }
    return texts_of_arrays(found, names, part.batch.num_rows)


def named_column(part: StagedPart, file: InputFile, name: str) -> pa.Array:
    """One column of a staged part, or a field within one, in the type that predictions in Parquet give it."""
    path = path_of(file.layout, name)
    if len(path) > 1 and file.format != "parquet":
        return pa.array(texts_of(part, file, [name])[name], pa.large_string())
    place = [column.name for column in file.layout.columns].index(path[0])
    return field_of(input_columns(part, file)[place], path[1:])


def texts_of_arrays(arrays: Mapping[str, pa.Array], names: Sequence[str], rows: int) -> Texts:
    """Arrow arrays as text: a string as it is, any other value as predictions in CSV show it."""
    return {
        name: [None if value is None else as_text(value) for value in plain_values(arrays[name])]
        if name in arrays
        else [None] * rows
        for name in names
    }


def texts_of_records(records: Sequence[bytes], kind: str, layout: Layout, names: Sequence[str]) -> Texts:
    """Records of CSV (each cell as it is) or JSON Lines (a string as it is, any other value as its JSON text)."""
    columns: Texts = {name: [] for name in names}
    fields_of = _csv_fields(layout, names) if kind == "csv" else _json_fields(layout, names)
    for record in records:
        fields = fields_of(record)
        for name in names:
            columns[name].append(fields.get(name))
    return columns


def _json_fields(layout: Layout, names: Sequence[str]) -> Callable[[bytes], dict[str, str | None]]:
    paths = {name: path_of(layout, name) for name in names}

    def fields(record: bytes) -> dict[str, str | None]:
        cells = json_cells(record)
        return {name: _cell_at(cells, path) for name, path in paths.items()}

    return fields


def _cell_at(cells: Mapping[str, str | None], path: Sequence[str]) -> str | None:
    """The cell at the end of a path, where each but the last is the text of a JSON object."""
    for name in path[:-1]:
        inside = cells.get(name)
        cells = json_cells(inside.encode()) if inside is not None and inside.startswith("{") else {}
    return cells.get(path[-1])


def _csv_fields(layout: Layout, names: Sequence[str]) -> Callable[[bytes], dict[str, str | None]]:
    dialect, wanted = dialect_of(layout), set(names)
    places = [(place, column.name) for place, column in enumerate(layout.columns) if column.name in wanted]

    def fields(record: bytes) -> dict[str, str | None]:
        cells = delimited.parse_record(record, dialect)
        return {name: cells[place] for place, name in places}

    return fields
