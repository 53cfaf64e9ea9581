"""What a format is: how its files are recognised, read and written, in one object.

A row is kept as it was read: in record formats (CSV, JSON) as the exact bytes of its record, in columnar formats (Parquet,
Arrow) as its values in every column. A prediction file in the input's own format has exactly these; for another format a
value is converted once, from :meth:`Format.columns` or :meth:`Format.json_objects`.
"""

from __future__ import annotations

import abc
import functools
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

import pyarrow as pa

from batchscore.errors import DataError, printable
from batchscore.formats import pandas_facts
from batchscore.formats.answers import LIST_JOINT, Answers
from batchscore.formats.arrow_values import plain_values, texts_of_values
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.paths import field_of, path_of
from batchscore.formats.registry import ENTRIES
from batchscore.formats.text_values import as_text, distinct, plain_json
from batchscore.records import ColumnChoice, Position

if TYPE_CHECKING:
    from batchscore.config import ReadSettings
    from batchscore.formats.exact import Nodes
    from batchscore.formats.source import Source
    from batchscore.formats.staged import StagedPart
    from batchscore.records import InputFile, Layout, Rows

Texts = dict[str, list[str | None]]
"""Column → one text per row; None for null."""
_CELLS_AT_ONCE = 1 << 20
"""Cells of records that are made into columns at a time."""
_OBJECTS_AT_ONCE = 1 << 17
"""Cells of records that are Python objects at a time."""
NUL = "a NUL character"
NOT_UTF8 = "a string that is not UTF-8"


class Output(NamedTuple):
    """What a prediction file is made from, besides its parts."""

    file: InputFile
    answers: Answers
    columns: OutputColumns = OutputColumns()

    @property
    def added_fields(self) -> list[pa.Field]:
        """The added columns."""
        fields = self.answers.fields()
        return [fields[k].with_name(name) for k, name in self.columns.added(self.answers).items()]

    @property
    def added_names(self) -> list[str]:
        """Names of the added columns."""
        return list(self.columns.added(self.answers).values())

    def added(self, part: StagedPart) -> list[pa.Array]:
        """The added columns of a part."""
        added = part.added
        return [added[place] for place in self.columns.places(self.answers)]

    def added_texts(self, part: StagedPart) -> list[list[str]]:
        """The same as text.

        Null is an empty text, a float32 the shortest text that reads back equal, a list its labels with ``;`` between them.
        """
        name = ("texts", *self.columns.places(self.answers))
        columns = part.together(name, lambda whole: [_added_texts(array) for array in self.added(whole)])
        return [column[part.start : part.start + part.batch.num_rows] for column in columns]

    def pieces(self, part: StagedPart) -> Iterator[StagedPart]:
        """A part in as many as it takes for its cells to be made into columns, if they are not yet."""
        rows = part.batch.num_rows
        has_columns = not isinstance(format_of(self.file.format), RecordFormat)
        size = rows if has_columns else max(1, _CELLS_AT_ONCE // max(len(self.file.layout.columns), 1))
        if rows <= size:
            yield part
            return
        for start in range(0, rows, size):
            yield part.rows(part.batch.slice(start, size))

    @property
    def held(self) -> list[int]:
        """Places of the input's columns that are held."""
        return [k for k, c in enumerate(self.file.layout.columns) if self.columns.holds(c.name)]

    @property
    def input_names(self) -> list[str]:
        """Names of the input's columns that are held."""
        columns = self.file.layout.columns
        return [self.columns.name_of(columns[place].name) for place in self.held]

    @property
    def has_own_header(self) -> bool:
        """Whether the input's columns are all held, under their own names."""
        return self.input_names == [column.name for column in self.file.layout.columns]

    def input_schema(self) -> pa.Schema:
        """The Arrow schema of :meth:`inputs`."""
        schema, columns = format_of(self.file.format).schema(self.file), self.file.layout.columns
        names = self.columns.renames
        fields = [(schema.field(place), columns[place].name) for place in self.held]
        renamed = [field.with_name(names[name]) if name in names else field for field, name in fields]
        return pa.schema(renamed, pandas_facts.renamed(schema.metadata, names))

    def inputs(self, part: StagedPart) -> list[pa.Array]:
        """The input's columns of a part that are held, as Arrow arrays."""
        columns = format_of(self.file.format).columns(part, self.file)
        return [columns[place] for place in self.held]


class Unheld(NamedTuple):
    """A value that an output format cannot hold: index of the row in its part, column, and the reason."""

    row: int
    column: str
    what: str


@functools.cache
def format_of(name: str) -> Format:
    """The format with this name."""
    module = importlib.import_module(f"batchscore.formats.{ENTRIES[name].module}")
    return cast("Format", module.FORMAT)


class Format(abc.ABC):
    """A file format; the only instance of each subclass is its module's ``FORMAT``."""

    name: str
    """As in :data:`~batchscore.formats.registry.ENTRIES`."""
    family = ""
    """Within a family, the first bytes decide the format, whatever the file's name."""
    has_magic = False
    """Whether every non-empty file begins with bytes that identify the format."""
    can_be_compressed = True
    """Whether a file may be compressed as a whole; otherwise the format compresses internally."""
    rows_have_own_names = False
    """Whether later rows may have fields that are not in the head."""
    rows_read_on: float = 0
    """So many rows further on it is cheaper to read on than to open the file anew there, if it is not compressed."""
    has_notes = False
    """Whether a file with this format's suffix may be metadata about the tables beside it; see :meth:`is_note`."""
    holds_any_bytes = False
    """Whether strings may have bytes that are not UTF-8."""
    holds_lists = True
    """Whether a value may be a list; else the labels of a row are one text."""
    holds_nul = True
    """Whether strings may have NUL characters."""
    longest_text: int | None = None
    """Characters that a text may have."""
    most_rows: int | None = None
    """Rows that a file may have."""
    is_for_people = False
    """Whether people look at it in a spreadsheet, and may count its rows from 1."""

    # ---------------------------------------------------------------------------------------------------- reading

    @abc.abstractmethod
    def begins(self, head: bytes) -> bool:
        """Whether a file that begins with ``head`` must be of this format."""

    def refuse_head(self, source: Source, head: bytes) -> None:
        """Raise :class:`~batchscore.errors.DataError` for an unsupported variant of this format, by its first bytes."""

    def is_note(self, head: bytes) -> bool:
        """Whether a file is metadata about the tables beside it, by its first bytes."""
        return False

    @abc.abstractmethod
    def describe(self, source: Source, settings: ReadSettings) -> Layout:
        """Columns and reading details of a file, from its head.

        Raises:
            DataError: the file is damaged or not of this format.
        """

    @abc.abstractmethod
    def read(
        self, source: Source, layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
    ) -> Iterator[Rows]:
        """Yield the rows of a file, one :class:`~batchscore.records.Rows` per part, from the part that starts at ``start``.

        Parts do not depend on where reading starts.

        Raises:
            DataError: the file is damaged; with the position if known.
        """

    def header_advice(self, source: Source, layout: Layout, settings: ReadSettings) -> str:
        """What else may be wrong with a file without a text column."""
        return ""

    def settings_like(self, details: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of :class:`~batchscore.config.ReadSettings` to read predictions back.

        ``details`` is the ``dialect`` of a file in ``run.json``.
        """
        return {}

    # ------------------------------------------------------------------------------------------ rows as they were read

    @abc.abstractmethod
    def columns(self, part: StagedPart, file: InputFile) -> Sequence[pa.Array]:
        """The input's columns in a part, as Arrow arrays."""

    def column(self, part: StagedPart, file: InputFile, name: str) -> pa.Array:
        """One column of a part, or a field within one, in its type in Parquet predictions."""
        path = path_of(file.layout, name)
        place = [column.name for column in file.layout.columns].index(path[0])
        return field_of(self.columns(part, file)[place], path[1:])

    def schema(self, file: InputFile) -> pa.Schema:
        """The Arrow schema of :meth:`columns`."""
        names = distinct([column.name for column in file.layout.columns])
        return pa.schema([pa.field(name, pa.large_string()) for name in names])

    @abc.abstractmethod
    def texts(self, part: StagedPart, file: InputFile, names: Sequence[str]) -> Texts:
        """The columns ``names`` of a part as text; a missing one is all None."""

    @abc.abstractmethod
    def texts_of_rows(self, rows: Rows, layout: Layout, names: Sequence[str]) -> Texts:
        """The same of rows that were just read."""

    @abc.abstractmethod
    def texts_of_file(self, source: Source, settings: ReadSettings, names: Sequence[str]) -> Iterator[Texts]:
        """The columns ``names`` of a finished prediction file, in chunks of rows.

        Raises:
            DataError: a row cannot be read.
        """

    def json_objects(self, part: StagedPart, file: InputFile) -> Iterator[bytes]:
        """Each row as a JSON object."""
        names = distinct([column.name for column in file.layout.columns])
        for values in zip(*map(plain_values, self.columns(part, file)), strict=True):
            yield json.dumps(
                dict(zip(names, map(plain_json, values), strict=True)), ensure_ascii=False
            ).encode()

    def annotations(self, file: InputFile) -> list[Nodes]:
        """The nodes of each column in a Parquet schema, for annotations that Arrow has no types for."""
        return []

    def first_unheld(self, rows: Rows, target: Format) -> Unheld | None:
        """The first string of some rows of this format that ``target`` cannot hold."""
        return None

    def held_rows(self, rows: Rows, columns: OutputColumns) -> Rows:
        """Rows of this format with only the columns that predictions hold, to look for values that cannot be written."""
        return rows

    # ---------------------------------------------------------------------------------------------------- writing

    def first_unwritable(self, rows: Rows) -> Unheld | None:
        """The first value of some rows of whatever format that a file of this one cannot hold, strings apart."""
        return None

    def refuse_names(self, source: Source, layout: Layout, added: Sequence[str]) -> None:
        """Raise :class:`~batchscore.errors.DataError` for column names that a file of this format cannot hold.

        ``layout`` has the columns that predictions hold, as they are called there; ``added`` are new names, of added and of
        renamed columns. A file whose rows have names of their own is looked at again when all are known.
        """

    @abc.abstractmethod
    def write(self, parts: Iterable[StagedPart], output: Output, out: IO[bytes]) -> None:
        """Write a prediction file; ``out`` is also readable, unless it is compressed."""

    @abc.abstractmethod
    def count_rows(self, source: Source, output: Output) -> int:
        """Rows in a prediction file of this format, by reading whatever of it could be damaged.

        Raises:
            DataError: it cannot be read.
        """


class RecordFormat(Format):
    """A format whose rows are kept as the exact bytes of their records."""

    is_stream = True
    """Whether a file is read from its start to its end, and opened by :func:`~batchscore.formats.source.open_bytes` alone."""

    @abc.abstractmethod
    def cells(self, records: Sequence[bytes], layout: Layout) -> Iterator[Sequence[str | None]]:
        """The cells of each record, in the order of the layout's columns, as text."""

    @abc.abstractmethod
    def texts_of_records(self, records: Sequence[bytes], layout: Layout, names: Sequence[str]) -> Texts:
        """The columns ``names`` of records, as text."""

    def columns(self, part: StagedPart, file: InputFile) -> Sequence[pa.Array]:
        """The cells as strings."""
        records, size = part.inputs[0], max(1, _OBJECTS_AT_ONCE // max(len(file.layout.columns), 1))
        pieces: list[list[pa.Array]] = [[] for _ in file.layout.columns]
        for start in range(0, max(len(records), 1), size):
            rows = list(self.cells(records.slice(start, size).to_pylist(), file.layout))
            columns = zip(*rows, strict=True) if rows else [()] * len(pieces)
            for column, values in zip(pieces, columns, strict=True):
                column.append(pa.array(values, pa.large_string()))
            del rows, columns
        return [some[0] if len(some) == 1 else pa.concat_arrays(some) for some in pieces]

    def column(self, part: StagedPart, file: InputFile, name: str) -> pa.Array:
        """One column of a part as strings."""
        return pa.array(self.texts(part, file, [name])[name], pa.large_string())

    def texts(self, part: StagedPart, file: InputFile, names: Sequence[str]) -> Texts:
        """The columns ``names`` of a part; a missing one is all None."""
        return self.texts_of_records(part.inputs[0].to_pylist(), file.layout, names)

    def texts_of_rows(self, rows: Rows, layout: Layout, names: Sequence[str]) -> Texts:
        """The same of rows that were just read."""
        return self.texts_of_records(rows.raw or [], layout, names)

    def texts_of_file(self, source: Source, settings: ReadSettings, names: Sequence[str]) -> Iterator[Texts]:
        """The columns ``names`` of a file, one part at a time."""
        layout = self.describe(source, settings)
        for rows in self.read(source, layout, ColumnChoice(text=names[0]), settings, Position()):
            if rows.rejects:
                raise DataError(
                    f"{printable(source.path)}: {rows.rejects[0].reason}. Score that run again with --force."
                )
            yield self.texts_of_rows(rows, layout, names)


def is_input_format(fmt: Format, file: InputFile) -> bool:
    """Whether ``fmt`` is the format of the input."""
    return format_of(file.format) is fmt


def _added_texts(array: pa.Array) -> list[str]:
    if not pa.types.is_list(array.type):
        return texts_of_values(array)
    return [
        LIST_JOINT.join(value) if isinstance(value, list) else as_text(value) for value in plain_values(array)
    ]
