"""Finished files, read once more: how many rows a prediction file holds, told by the reader and not by its writer."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from batchscore.config import ReadSettings
from batchscore.formats import delimited
from batchscore.formats.csv import dialect_of
from batchscore.formats.json_array import count_elements
from batchscore.formats.registry import Source
from batchscore.formats.source import open_bytes
from batchscore.formats.unfolding import open_parquet
from batchscore.formats.writers import Output

_ANY_RATIO = 2**40
"""What a run has just written may unfold as far as it likes."""
_ANY_ROW = delimited.Limits(max_row_bytes=2**40, max_columns=2**31)


def count_rows(path: Path, output: Output, output_format: str) -> int:
    """Rows in a prediction file; a text file is read to its end, of a Parquet file the footer is asked.

    Raises:
        DataError: a record in it cannot be read.
    """
    kind = output.file.format if output_format == "same" else output_format
    compression = output.file.compression if output_format == "same" else ""
    source = Source(path, kind, compression)
    if kind == "parquet":
        with open_parquet(source) as file:
            return int(file.metadata.num_rows)
    with open_bytes(source, _ANY_RATIO) as stream:
        if kind == "json":
            return count_elements(stream, source, ReadSettings(max_row_bytes=2**40))
        return _csv_rows(stream, output) if kind == "csv" else count_lines(stream)


def _csv_rows(stream: IO[bytes], output: Output) -> int:
    dialect = dialect_of(output.file.layout) if output.file.format == "csv" else delimited.Dialect()
    header = delimited.read_header(stream, dialect, _ANY_ROW)  # type: ignore[arg-type]
    if header is None:
        return 0
    start = delimited.next_position(header, dialect)
    blocks = delimited.read_records(
        stream,  # type: ignore[arg-type]
        dialect,
        len(header.fields),
        _ANY_ROW,
        offset=start.offset,
        line=start.line,
    )
    return sum(isinstance(record, delimited.Record) for block in blocks for record in block)


def count_lines(stream: IO[bytes]) -> int:
    """Lines that are not blank."""
    return sum(not line.isspace() for line in stream)
