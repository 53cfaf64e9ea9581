"""Some input columns of a part as text, whatever the format: what slices are named by and rows are matched by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from batchscore import delimited
from batchscore.parts import StagedPart
from batchscore.readers.arrow_values import plain_values
from batchscore.readers.csv_file import dialect_of
from batchscore.records import InputFile, Layout
from batchscore.writers import as_text, json_cells

Texts = dict[str, list[str | None]]
"""By column, one text a row; None for null."""


def texts_of(part: StagedPart, file: InputFile, names: Sequence[str]) -> Texts:
    """The columns ``names`` of a staged part; one that the file lacks is all None."""
    if not names:
        return {}
    if file.format != "parquet":
        return texts_of_records(part.inputs[0].to_pylist(), file.format, file.layout, names)
    places = {column.name: place for place, column in enumerate(file.layout.columns)}
    found = {name: part.inputs[places[name]] for name in names if name in places}
    return texts_of_arrays(found, names, part.batch.num_rows)


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
    fields_of = _csv_fields(layout, names) if kind == "csv" else json_cells
    for record in records:
        fields = fields_of(record)
        for name in names:
            columns[name].append(fields.get(name))
    return columns


def _csv_fields(layout: Layout, names: Sequence[str]) -> Callable[[bytes], dict[str, str | None]]:
    dialect, wanted = dialect_of(layout), set(names)
    places = [(place, column.name) for place, column in enumerate(layout.columns) if column.name in wanted]

    def fields(record: bytes) -> dict[str, str | None]:
        cells = delimited.parse_record(record, dialect)
        return {name: cells[place] for place, name in places}

    return fields
