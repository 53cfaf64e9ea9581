"""Files in, rows out: a format is one ``describe``, one ``read`` and one entry in ``FORMATS``.

``describe`` looks at the head of a file and returns its :class:`~batchscore.records.Layout`; ``read`` yields the file
as :class:`~batchscore.records.Rows`, one a part, from any part's start. Both are deterministic, so the plan that the
first pass over a file makes holds for every later one.

Rows of text formats keep the exact bytes of their record; rows of Parquet keep every column as an Arrow array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from batchscore.formats import csv as csv_file
from batchscore.formats import json_array as json_file
from batchscore.formats import jsonl as jsonl_file
from batchscore.formats import parquet as parquet_file
from batchscore.formats.source import Source, format_of_name, identify, plain_name, reading
from batchscore.records import ColumnChoice, Layout, Position, Rows

if TYPE_CHECKING:
    from batchscore.config import ReadSettings

__all__ = [
    "FORMATS",
    "Format",
    "Source",
    "describe",
    "format_of_name",
    "header_advice",
    "identify",
    "plain_name",
    "read",
]


class Format(NamedTuple):
    """The two functions that make a format."""

    describe: Callable[[Source, ReadSettings], Layout]
    read: Callable[[Source, Layout, ColumnChoice, ReadSettings, Position], Iterator[Rows]]
    rows_have_own_names: bool = False
    """Whether later rows may have fields that the head did not have."""


FORMATS = {
    "csv": Format(csv_file.describe, csv_file.read),
    "jsonl": Format(jsonl_file.describe, jsonl_file.read, rows_have_own_names=True),
    "json": Format(json_file.describe, json_file.read, rows_have_own_names=True),
    "parquet": Format(parquet_file.describe, parquet_file.read),
}


def describe(source: Source, settings: ReadSettings) -> Layout:
    """Columns and reading details of a file, from its head.

    Raises:
        DataError: the file is damaged or is not what its format says.
        StorageError: it cannot be read.
    """
    with reading(source):
        return FORMATS[source.format].describe(source, settings)


def header_advice(source: Source, layout: Layout, settings: ReadSettings) -> Callable[[], str]:
    """What tells, where no text was found among the columns, what else may be wrong with the file."""
    if source.format != "csv":
        return str
    return lambda: csv_file.header_advice(source, layout, settings)


def read(
    source: Source,
    layout: Layout,
    columns: ColumnChoice,
    settings: ReadSettings,
    start: Position | None = None,
) -> Iterator[Rows]:
    """Yield the rows of a file, one :class:`Rows` a part, from the part that starts at ``start``.

    Raises:
        DataError: the file is damaged, with the place as far as it is known.
        StorageError: it cannot be read.
    """
    with reading(source):
        yield from FORMATS[source.format].read(source, layout, columns, settings, start or Position())
