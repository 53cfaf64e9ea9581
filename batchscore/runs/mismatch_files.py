"""The files of a run's mismatches: for programs (Parquet) and for people (CSV)."""

from __future__ import annotations

import codecs
import decimal
import re
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa

from batchscore.formats.answers import LIST_JOINT
from batchscore.formats.arrow_values import plain_values
from batchscore.formats.delimited import Dialect, encode_fields
from batchscore.formats.exact import restore_annotations
from batchscore.formats.parquet import write_row_groups
from batchscore.formats.text_values import as_text
from batchscore.runs.mismatches import LINE

if TYPE_CHECKING:
    from batchscore.runs.mismatches import Chunk, MismatchTable

TEXT_CUT = 2000
"""Characters of a text in ``mismatches.csv``."""
_VISIBLE_NUL = "\u2400"
_HIDDEN = r"[\s\x00-\x1f\x7f\"'\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]*"
_FORMULA = re.compile(_HIDDEN + r"[=+\-@\uff1d\uff0b\uff0d\uff20]| *[\t\r\n]")
"""What a spreadsheet may take for a formula: a sign at the start, or after characters that it drops or does not show;
the last four are the full-width signs."""
_PLAIN_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_DIALECT = Dialect()


def write_both(table: MismatchTable, chunks: Iterable[Chunk], parquet: IO[bytes], csv: IO[bytes]) -> int:
    """Write ``mismatches.parquet`` and ``mismatches.csv`` beside each other; returns the number of rows.

    The Parquet file has exact values and every input column. The CSV file has a mark that says UTF-8, no cell that a
    spreadsheet takes for a formula, and texts cut; rows are counted from 1, and their ``line`` is told where any file has lines.
    """
    rows = 0
    csv.write(codecs.BOM_UTF8 + _csv_line(_cell(name) for name in _csv_header(table)))

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal rows
        for batch, lines in chunks:
            csv.writelines(_csv_lines(table, batch, lines))
            rows += batch.num_rows
            yield batch

    write_row_groups(batches(), table.schema, parquet)
    restore_annotations(parquet, table.nodes())
    return rows


def _csv_lines(table: MismatchTable, batch: pa.RecordBatch, lines: pa.Array) -> Iterator[bytes]:
    columns = [_cells(batch.column(name), joint) for name, joint in _joints(table)]
    row = table.schema.names.index("row")
    numbers = batch.column("row").to_pylist()
    columns[row] = ["" if number is None else str(number + 1) for number in numbers]
    if table.has_lines:
        columns.insert(row + 1, [_cell(value) for value in lines.to_pylist()])
    return map(_csv_line, zip(*columns, strict=True))


def _csv_line(cells: Iterable[str]) -> bytes:
    return encode_fields([*cells], _DIALECT) + b"\n"


def _csv_header(table: MismatchTable) -> list[str]:
    """The names of ``mismatches.csv``: those of the Parquet file, and ``line``, which a column of the input gives way to."""
    names = list(table.schema.names)
    if not table.has_lines:
        return names
    free, count = f"input_{LINE}", 2
    while free in names:
        free, count = f"input_{LINE}_{count}", count + 1
    names = [free if name == LINE else name for name in names]
    names.insert(names.index("row") + 1, LINE)
    return names


def _joints(table: MismatchTable) -> Iterator[tuple[str, str]]:
    """Each column with what stands between the labels of a list; nothing where a list is one of the input's own."""
    for name in table.schema.names:
        yield name, "" if name in table.others else LIST_JOINT


def _cells(column: pa.Array, joint: str) -> list[str]:
    values = plain_values(column)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return [_cell(value, joint) for value in values]
    cells = {value: _cell(value, joint) for value in set(values)}  # names and labels come again and again
    return [cells[value] for value in values]


def _cell(value: Any, joint: str = "") -> str:
    if isinstance(value, bool | int | float | decimal.Decimal):
        return as_text(value)
    text = joint.join(value) if joint and isinstance(value, list) else as_text(value)
    text = text[:TEXT_CUT].replace("\0", _VISIBLE_NUL)  # a spreadsheet ends a cell, or the file, at a NUL
    return text if text[:1].isalnum() else for_spreadsheet(text)


def for_spreadsheet(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would take for a formula (OWASP, "CSV Injection").

    A number stays one, so that a column of them can be summed.

    >>> for_spreadsheet("=1+1"), for_spreadsheet("1+1"), for_spreadsheet("-2+1"), for_spreadsheet("-2.50")
    ("'=1+1", '1+1', "'-2+1", '-2.50')
    """
    return f"'{text}" if _FORMULA.match(text) and not _PLAIN_NUMBER.fullmatch(text) else text
