"""The prediction files of a finished run, whatever their format: where they are, and their rows as Arrow record batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from batchscore.errors import DataError, printable
from batchscore.formats.arrow_values import plain_values
from batchscore.formats.format import RecordFormat, Texts, format_of
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.reading import read
from batchscore.formats.source import Source
from batchscore.formats.text_values import as_text
from batchscore.model.label_sets import items_of
from batchscore.records import ColumnChoice, InputFile, Status
from batchscore.runs.accepting import answers_of_earlier
from batchscore.runs.earlier_files import EarlierFile, described, files_of, settings_of
from batchscore.runs.folder import PREDICTIONS, RunFolder
from batchscore.runs.partitions import value_of
from batchscore.system.storage import names_in_manifest

if TYPE_CHECKING:
    from batchscore.config import ReadSettings
    from batchscore.records import Layout, Rows

_TRUE = "true"


class Predictions(NamedTuple):
    """The rows of one prediction file: the ``schema`` of its :meth:`batches`."""

    source: Source
    settings: ReadSettings
    schema: pa.Schema
    layout: Layout
    status: str
    """Name of the column with the status of each row."""
    file: EarlierFile
    partition: pa.Scalar | None = None
    """The value of the last column, where the folder that the file lies in has it."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Every row in order, a few thousand at a time, read anew each time.

        Raises:
            DataError: the file is damaged.
            StorageError: it cannot be read.
        """
        for batch, _ in self.with_texts(()):
            yield batch

    def with_texts(self, names: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, Texts]]:
        """The same, each with the columns ``names``, or fields within one (``review.body``), as text."""
        if not self.layout.columns:
            return
        fmt = format_of(self.source.format)
        columns = ColumnChoice(text=self.status)  # a text that any row has
        for rows in read(self.source, self.layout, columns, self.settings):
            if rows.rejects:
                raise DataError(
                    f"{printable(self.source.path)}: {rows.rejects[0].reason}. Score that run again with --force."
                )
            yield self._batch(rows), fmt.texts_of_rows(rows, self.layout, names)

    def _batch(self, rows: Rows) -> pa.RecordBatch:
        arrays = self._arrays(rows)
        if self.partition is not None:
            arrays.append(pa.repeat(self.partition, len(arrays[0])))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _arrays(self, rows: Rows) -> list[pa.Array]:
        if rows.table is not None:
            return list(rows.table.columns)
        fmt = format_of(self.source.format)
        assert isinstance(fmt, RecordFormat)  # noqa: S101 - there are no others
        columns = list(zip(*fmt.cells(rows.raw or [], self.layout), strict=True))
        statuses = columns[self.schema.get_field_index(self.status)]
        kinds = self.schema.types[: len(columns)]
        return [_array(cells, kind, statuses) for cells, kind in zip(columns, kinds, strict=True)]


def predictions_of(run: RunFolder) -> list[Predictions]:
    """The prediction files of a run, in the order of its inputs, and within one in that of its partitions' names.

    Columns of a columnar format have its types. In formats of records (CSV, JSON, Excel) the input's columns are text, as they are
    in Parquet predictions of such a file, and the added ones have their types. A column that names folders comes last, as text.

    Raises:
        DataError: a file is damaged; or ``run.json`` is, as one of ``DAMAGE``.
    """
    answers = answers_of_earlier(run)
    called = OutputColumns.of_options(run.options)
    fields = answers.fields()
    added = {name: fields[place].type for place, name in called.added(answers).items()}
    status = called.added_names(answers)["status"]
    found = []
    for file in files_of(run, sorted(names_in_manifest(run.path))):
        layout = described(file)
        schema = _schema(file.source, layout, added)
        partition = None
        if called.partition is not None:
            partition = pa.scalar(value_of(partition_folder(file.path, run)), pa.large_string())
            schema = schema.append(pa.field(called.partition, partition.type))
        found.append(Predictions(file.source, settings_of(file), schema, layout, status, file, partition))
    return found


def partition_folder(path: Path, run: RunFolder) -> str:
    """The name of the folder of a prediction file's partition."""
    return path.relative_to(run.path / PREDICTIONS).parts[0]


def _schema(source: Source, layout: Layout, added: Mapping[str, pa.DataType]) -> pa.Schema:
    fmt = format_of(source.format)
    path, form, compression = source[:3]
    columns = ColumnChoice(text="")
    file = InputFile(str(path), path.name, form, compression, 0, "", layout, columns, rows=0, rejects=0)
    schema = fmt.schema(file)
    if not isinstance(fmt, RecordFormat):
        return schema
    return pa.schema([field.with_type(added.get(field.name, field.type)) for field in schema])


def _array(cells: Sequence[str | None], kind: pa.DataType, statuses: Sequence[str | None]) -> pa.Array:
    """The cells of a column in its type; an empty cell of an added column is null."""
    if pa.types.is_large_string(kind):
        return pa.array(cells, kind)
    if pa.types.is_list(kind):
        pairs = zip(cells, statuses, strict=True)
        return pa.array(
            [(items_of(cell) or []) if status == Status.OK.text else None for cell, status in pairs], kind
        )
    texts = [cell or None for cell in cells]
    if pa.types.is_boolean(kind):
        return pa.array([text if text is None else text.lower() == _TRUE for text in texts], kind)
    return pa.array(texts, pa.string()).cast(kind)


# ------------------------------------------------------------------------------------------------------ several files


def common_schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """One schema for several files: every column of any of them; one whose types differ is text.

    Raises:
        DataError: a file has two columns of one name, so that nobody can tell which is which.
    """
    first = schemas[0]
    if all(schema.equals(first) for schema in schemas):
        return first
    kinds: dict[str, pa.DataType] = {}
    for schema in schemas:
        if len(set(schema.names)) < len(schema.names):
            twice = next(name for name in schema.names if schema.names.count(name) > 1)
            raise DataError(
                f"The files have different columns, and one has {printable(twice)} twice. Read the files by themselves."
            )
        for field in schema:
            kinds[field.name] = _common(kinds.get(field.name, pa.null()), field.type)
    return pa.schema(list(kinds.items()), first.metadata)


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if pa.types.is_null(one) or one == other:
        return other
    return one if pa.types.is_null(other) else pa.large_string()


def in_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with the columns of a :func:`common_schema`; null where it has none."""
    if batch.schema.equals(schema):
        return batch
    names = batch.schema.names
    arrays = [
        _as(batch.column(names.index(field.name)), field.type)
        if field.name in names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _as(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type == kind:
        return array
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), kind)
    return pa.array([None if value is None else as_text(value) for value in plain_values(array)], kind)
