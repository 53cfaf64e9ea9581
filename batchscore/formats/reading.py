"""Reading files of any format.

``describe`` reads the head of a file and returns its :class:`~batchscore.records.Layout`; ``read`` yields the file
as :class:`~batchscore.records.Rows`, one per part, from any part's start. Both are deterministic, so the plan made in the
first pass over a file holds for every later one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from batchscore.formats.format import format_of
from batchscore.formats.identification import identify
from batchscore.formats.source import Source, reading
from batchscore.records import ColumnChoice, Layout, Position, Rows

if TYPE_CHECKING:
    from batchscore.config import ReadSettings
    from batchscore.formats.format import Texts

__all__ = ["describe", "header_advice", "identify", "read", "texts_of_file"]


def describe(source: Source, settings: ReadSettings) -> Layout:
    """Columns and reading details of a file, from its head.

    Raises:
        DataError: the file is damaged or not of its format.
        StorageError: it cannot be read.
    """
    with reading(source):
        return format_of(source.format).describe(source, settings)


def header_advice(source: Source, layout: Layout, settings: ReadSettings) -> Callable[[], str]:
    """A function that returns what else may be wrong with a file without a text column."""
    return lambda: format_of(source.format).header_advice(source, layout, settings)


def read(
    source: Source,
    layout: Layout,
    columns: ColumnChoice,
    settings: ReadSettings,
    start: Position | None = None,
) -> Iterator[Rows]:
    """Yield the rows of a file, one :class:`Rows` per part, from the part that starts at ``start``.

    Raises:
        DataError: the file is damaged; with the position if known.
        StorageError: it cannot be read.
    """
    fmt = format_of(source.format)
    with reading(source):
        for rows in fmt.read(source, layout, columns, settings, start or Position()):
            if columns.labels:
                texts = fmt.texts_of_rows(rows, layout, columns.labels)
                rows.labels = list(zip(*(texts[name] for name in columns.labels), strict=True))
            yield rows
            del rows


def texts_of_file(source: Source, settings: ReadSettings, names: Sequence[str]) -> Iterator[Texts]:
    """The columns ``names`` of a file as text, in chunks of rows.

    Raises:
        DataError: the file is damaged, or a row cannot be read.
        StorageError: it cannot be read.
    """
    with reading(source):
        yield from format_of(source.format).texts_of_file(source, settings, names)
