"""The rows of a finished run, staged again from its prediction files, so that they can be measured with other labels.

The parts have the rows that those of the run had, so that what depends on them has the same bits. Besides them there are, for any number of
rows in little memory: what each row was given (one array of the task), its row in the input, and its id.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.config import ReadSettings
from batchscore.errors import DataError, printable
from batchscore.formats.answers import Answers
from batchscore.formats.arrow_values import without_dictionaries
from batchscore.formats.columnar import layout_of
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.staged import COLUMNS, OwnColumns, StagedPart, read_part, stage_columns
from batchscore.model.given import given_of
from batchscore.records import ColumnChoice, InputFile, Part, Position, Status, Task
from batchscore.runs.accepting import answers_of_earlier
from batchscore.runs.baselines import RowsRead
from batchscore.runs.earlier_answers import earlier_answers_of
from batchscore.runs.folder import Staging
from batchscore.runs.matching_ids import MatchingIds
from batchscore.runs.prediction_files import Predictions, predictions_of
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import make_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.evaluation import Basis
    from batchscore.formats.format import Texts
    from batchscore.runs.earlier_files import EarlierFile
    from batchscore.runs.folder import RunFolder

_LATER = "(later)"
"""In the place of a label column's name, for rows whose labels came later."""
_NO_ROW = -1
_STATUSES = [status.text for status in Status]


class _Chunk(NamedTuple):
    """Some rows of a prediction file: its columns, the rows in the input, and columns as text."""

    batch: pa.RecordBatch
    row: NDArray[np.int64]
    texts: Texts


class _Columns:
    """Where in a prediction file the columns of the input and the added ones are, and what they were called."""

    def __init__(
        self, predictions: Predictions, called: OutputColumns, answers: Answers, run_id: str | None
    ) -> None:
        file, schema = predictions.file, predictions.schema
        added = called.added_names(answers)
        if missing := [name for name in answers.names() if name not in added]:
            raise DataError(
                f"{printable(file.path)} has no column {printable(missing[0])}, as --probabilities {called.probabilities} left it out: "
                "quality, calibration and the order of mismatches need all. Score that run again with --probabilities all."
            )
        if absent := [name for name in added.values() if schema.names and name not in schema.names]:
            raise DataError(
                f"{printable(file.path)} has no column {printable(absent[0])}. Score that run again."
            )
        self.added = [schema.names.index(added[name]) for name in answers.names()]
        own_names = {new: old for old, new in called.renames.items()}
        self.inputs = [place for place in range(len(schema.names)) if place not in set(self.added)]
        fields = [schema.field(place) for place in self.inputs]
        fields = [
            field.with_name(own_names.get(field.name, field.name)).with_type(without_dictionaries(field.type))
            for field in fields
        ]
        chosen, held = file.chosen, file.columns
        if run_id is not None and schema.names and run_id not in schema.names:
            raise DataError(
                f"{printable(file.path)} has no column {printable(run_id)} (--run-id-column). Columns: "
                f"{printable(', '.join(schema.names[:40]))}."
            )
        self.id = run_id if run_id is not None else held.id
        names = {*schema.names}
        self.nested = [name for name in (held.text, held.text_pair, self.id) if name and name not in names]
        """Chosen fields within a column, which the parts have as columns."""
        layout = layout_of(pa.schema(fields), {})
        inside = {*layout.details.get("nested", {})}
        self.nested = [name for name in dict.fromkeys(self.nested) if name not in inside]
        more = [pa.field(_chosen_name(name, file, self.id), pa.large_string()) for name in self.nested]
        gone = [
            name
            for name, there in zip(chosen.texts, held.texts, strict=False)
            if not there and name not in {field.name for field in fields}
        ]
        self.gone = [pa.field(name, pa.large_string()) for name in gone]
        self.schema = pa.schema([*self.gone, *fields, *more])
        label = chosen.label if held.label else (_LATER if not held.labels else None)
        identifier = own_names.get(run_id, run_id) if run_id is not None else (chosen.id if held.id else None)
        self.columns = ColumnChoice(chosen.text, label, identifier, chosen.text_pair, held.labels)
        self.given = list(held.given)
        self.lacks_own_labels = bool(chosen.given) and not held.given

    def inputs_of(self, chunk: _Chunk) -> list[pa.Array]:
        """The input's columns, without dictionaries."""
        rows = chunk.batch.num_rows
        arrays: list[pa.Array] = [pa.nulls(rows, field.type) for field in self.gone]
        for place in self.inputs:
            array = chunk.batch.column(place)
            kind = without_dictionaries(array.type)
            arrays.append(array if array.type == kind else array.cast(kind))
        return arrays + [pa.array(chunk.texts[name], pa.large_string()) for name in self.nested]


def _chosen_name(name: str, file: EarlierFile, run_id: str | None) -> str:
    """What a column that predictions call ``name`` was chosen as."""
    chosen, held = file.chosen, file.columns
    pairs = ((held.text, chosen.text), (held.text_pair, chosen.text_pair), (held.id, chosen.id))
    return next((own for there, own in pairs if there == name and own), run_id or name)


class LateRows:
    """The staged rows of a run."""

    def __init__(
        self,
        run: RunFolder,
        basis: Basis,
        folder: OwnPath,
        *,
        run_id_column: str | None,
        label_map: Mapping[str, str],
    ) -> None:
        """Stage all rows below ``folder``, which is empty.

        Raises:
            DataError: the predictions lack something, or are damaged.
        """
        self.run, self._basis, self.folder = run, basis, folder
        self.answers = answers_of_earlier(run)
        self._kinds = earlier_answers_of(basis.task, basis.labels, OutputColumns())
        self._given_of = given_of(basis, label_map)
        self._run_id = run_id_column
        self._staging = Staging(folder)
        make_folder(self._staging.parts)
        self.files: list[InputFile] = []
        self.schemas: list[pa.Schema] = []
        self.parts: list[Part] = []
        self.starts = [0]
        """Rows before each part."""
        self.file_starts: list[int] = []
        """Rows before each file."""
        self.has_ids = self.has_rows = True
        self.lacks_own_labels = self.lacks_texts = False
        make_folder(folder / "ids")
        self.ids = MatchingIds(folder / "ids", 3 * run.counts["read"], drops_zeros=True)
        self._stage()
        self.ids.seal()

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.starts[-1]

    # ------------------------------------------------------------------------------------------------ staging

    def _stage(self) -> None:
        called = OutputColumns.of_options(self.run.options)
        by_name: dict[str, list[Predictions]] = {str(file["name"]): [] for file in self.run.files}
        for predictions in predictions_of(self.run):
            by_name[predictions.file.name].append(predictions)
        failures = self.run.metrics.get("failed_rows") or []
        duplicates = int(self.run.counts.get("duplicate", 0))
        with (self.folder / "given").open_fresh() as given, (self.folder / "rows").open_fresh() as rows:
            for entry, pieces in zip(self.run.files, by_name.values(), strict=True):
                described = [piece for piece in pieces if piece.layout.columns]
                columns = [_Columns(piece, called, self.answers, self._run_id) for piece in described]
                place = len(self.files)
                self._note_file(entry, columns)
                self.file_starts.append(self.n)
                failed = [[each["row"], each["reason"]] for each in failures if each["file"] == entry["name"]]
                facts: dict[str, Any] = {"failures": failed, "duplicates": duplicates}
                rejects = int(entry["rejects"])
                for piece, each in zip(described, columns, strict=True):
                    for chunk in _in_parts(_chunks(self.run, piece, each)):
                        self._stage_part(place, piece, each, chunk, facts, rejects)
                        rows.write(chunk.row.tobytes())
                        given.write(
                            np.ascontiguousarray(self._own_labels(entry, piece.file, each, chunk)).tobytes()
                        )
                        facts, rejects, duplicates = {"failures": [], "duplicates": 0}, 0, 0
                if rejects or facts["failures"]:
                    self._stage_rejects(place, facts, rejects)

    def _note_file(self, entry: Mapping[str, Any], columns: Sequence[_Columns]) -> None:
        first = columns[0] if columns else None
        schema = first.schema if first else pa.schema([])
        self.schemas.append(schema)
        self.files.append(
            InputFile(
                path=str(entry["path"]),
                name=str(entry["name"]),
                format=COLUMNS,
                compression="",
                size=int(entry["size"]),
                sha256=str(entry["sha256"]),
                layout=layout_of(schema, {}),
                columns=first.columns if first else ColumnChoice("", _LATER),
                rows=int(entry["rows"]),
                rejects=int(entry["rejects"]),
            )
        )
        if first is not None:
            self.has_ids = self.has_ids and first.columns.id is not None
            self.lacks_own_labels = self.lacks_own_labels or first.lacks_own_labels
            self.lacks_texts = self.lacks_texts or bool(first.gone)

    def _stage_part(
        self,
        file: int,
        piece: Predictions,
        columns: _Columns,
        chunk: _Chunk,
        facts: Mapping[str, Any],
        rejects: int,
    ) -> None:
        count, number = chunk.batch.num_rows, len(self.parts)
        is_known = not piece.file.is_partitioned
        self.has_rows = self.has_rows and is_known
        added = [
            _as(chunk.batch.column(place), field.type)
            for place, field in zip(columns.added, self.answers.fields(), strict=True)
        ]
        status = np.asarray(pc.index_in(added[-1], pa.array(_STATUSES)).fill_null(_NO_ROW), dtype=np.int8)
        if count and status.min() < 0:
            raise DataError(
                f"{printable(piece.file.path)} holds a status that no row has. Score that run again."
            )
        own = OwnColumns(
            line=pa.nulls(count, pa.int64()),
            row=pa.array(chunk.row) if is_known else pa.nulls(count, pa.int64()),
            given=self._kinds.none_given(count),
            predicted=_PREDICTED[self._basis.task](added, self._basis.labels, status),
            status=status,
        )
        path = self.part(number)
        stage_columns(path, columns.schema, columns.inputs_of(chunk), added, own, facts, self.answers)
        first = int(chunk.row[0]) if count else 0
        self.parts.append(Part(number, file, Position(first), count + rejects, ""))
        self._note_ids(columns, chunk)
        self.starts.append(self.n + count)

    def _note_ids(self, columns: _Columns, chunk: _Chunk) -> None:
        if columns.id is not None and self.has_ids:
            places = np.arange(self.n, self.n + len(chunk.row), dtype=np.int64)
            self.ids.add(chunk.texts[columns.id], places)

    def _stage_rejects(self, file: int, facts: Mapping[str, Any], rejects: int) -> None:
        """A part without a row, for the rejects of a file that has no other."""
        number, schema = len(self.parts), self.schemas[file]
        none = self._kinds
        added = [pa.nulls(0, field.type) for field in self.answers.fields()]
        nothing = pa.nulls(0, pa.int64())
        own = OwnColumns(
            nothing,
            pa.array([], pa.int64()),
            none.none_given(0),
            none.none_predicted(0),
            np.empty(0, dtype=np.int8),
        )
        inputs = [pa.nulls(0, kind) for kind in schema.types]
        stage_columns(self.part(number), schema, inputs, added, own, facts, self.answers)
        self.parts.append(Part(number, file, Position(), rejects, ""))
        self.starts.append(self.n)

    def _own_labels(
        self, entry: Mapping[str, Any], file: EarlierFile, columns: _Columns, chunk: _Chunk
    ) -> NDArray[Any]:
        """What the rows were given when they were scored."""
        count = len(chunk.row)
        if not columns.given:
            return self._given_of.reader(self.files[-1]).indices(None, count)
        if "label_reading" not in entry:  # of an earlier version
            return self._kinds.given(chunk.texts, file.columns, file.meanings)
        labels = tuple(columns.given) if file.columns.labels else ()
        given = ColumnChoice("", None if labels else columns.given[0], labels=labels)
        class_names = {"class_names": {given.label: list(entry.get("class_names") or ())}}
        layout = dataclasses.replace(self.files[-1].layout, details=class_names)
        read = dataclasses.replace(
            self.files[-1], columns=given, layout=layout, label_reading=str(entry["label_reading"])
        )
        cells: list[Any] = chunk.texts[columns.given[0]] if not labels else _tuples(chunk.texts, labels)
        return self._given_of.reader(read).indices(cells, count)

    # ------------------------------------------------------------------------------------------------ reading

    def part(self, number: int) -> OwnPath:
        """The file of a staged part."""
        return self._staging.shard(number)

    def open(self, number: int) -> StagedPart:
        """A part, with what its rows are given now."""
        start, end = self.starts[number], self.starts[number + 1]
        kind = np.dtype((self._kinds.given_type, self._kinds.row_shape))
        with (self.folder / "given").open_read() as file:
            file.seek(start * kind.itemsize)
            given = np.fromfile(file, self._kinds.given_type, (end - start) * int(np.prod(kind.shape)))
        return read_part(self.part(number), self.answers).with_given(given.reshape(-1, *kind.shape))

    def given_array(self, mode: str = "r") -> NDArray[Any]:
        """What each row is given, mapped anew each time, so that pages once read do not count as memory for ever."""
        shape = (self.n, *self._kinds.row_shape)
        return self.mapped("given", self._kinds.given_type, mode, shape)

    def rows_array(self) -> NDArray[np.int64]:
        """The row in its input of each row, int64."""
        return self.mapped("rows", np.int64, "r", (self.n,))

    def mapped(self, name: str, kind: Any, mode: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """A file of values, one row after the other."""
        if not self.n:
            return np.empty(shape, dtype=kind)
        path = self.folder / name
        with path.open_append() if mode == "r+" else path.open_read() as file:
            return np.memmap(file, dtype=kind, mode=mode, shape=shape)  # type: ignore[call-overload,no-any-return]


def _chunks(run: RunFolder, piece: Predictions, columns: _Columns) -> Iterator[_Chunk]:
    names = [*dict.fromkeys([*columns.nested, *columns.given, *([columns.id] if columns.id else [])])]
    rows = RowsRead(run.path, piece.file)
    for batch, texts in piece.with_texts(names):
        yield _Chunk(batch, rows.rows(batch.num_rows), texts)


def _in_parts(chunks: Iterator[_Chunk]) -> Iterator[_Chunk]:
    """Rows cut where those of a run are, rejects counted."""
    pending: list[_Chunk] = []
    for chunk in chunks:
        numbers = chunk.row // PART_ROWS
        cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1), len(numbers)]
        for start, end in itertools.pairwise(cuts):
            if pending and end > start and pending[-1].row[-1] // PART_ROWS != numbers[start]:
                yield _joined(pending)
                pending = []
            if end > start:
                texts = {name: values[start:end] for name, values in chunk.texts.items()}
                batch = chunk.batch.slice(start, end - start)
                pending.append(_Chunk(batch, chunk.row[start:end], texts))
    if pending:
        yield _joined(pending)


def _joined(chunks: Sequence[_Chunk]) -> _Chunk:
    if len(chunks) == 1:
        return chunks[0]
    texts = {name: [text for chunk in chunks for text in chunk.texts[name]] for name in chunks[0].texts}
    plain = [_plain(chunk.batch) for chunk in chunks]
    return _Chunk(pa.concat_batches(plain), np.concatenate([chunk.row for chunk in chunks]), texts)


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch without dictionaries, which can be put together with others."""
    kinds = [without_dictionaries(kind) for kind in batch.schema.types]
    arrays = [
        column if column.type == kind else column.cast(kind)
        for column, kind in zip(batch.columns, kinds, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def _as(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return array if array.type == kind else array.cast(kind)


def _tuples(texts: Texts, names: Sequence[str]) -> list[Any]:
    return list(zip(*(texts[name] for name in names), strict=True))


def _one_label(added: Sequence[pa.Array], labels: Sequence[str], _: NDArray[np.int8]) -> NDArray[Any]:
    found = pc.index_in(added[0], pa.array(labels, pa.string())).fill_null(-1)
    return np.asarray(found, dtype=np.int32)


def _several_labels(
    added: Sequence[pa.Array], labels: Sequence[str], status: NDArray[np.int8]
) -> NDArray[Any]:
    found = np.full((len(status), len(labels)), -1, dtype=np.int8)
    found[status == Status.OK] = 0
    lengths = np.asarray(pc.list_value_length(added[0]).fill_null(0))
    rows = np.repeat(np.arange(len(status)), lengths)
    found[rows, np.asarray(pc.index_in(pc.list_flatten(added[0]), pa.array(labels, pa.string())))] = 1
    return found


def _one_value(added: Sequence[pa.Array], _: Sequence[str], __: NDArray[np.int8]) -> NDArray[Any]:
    return added[0].to_numpy(zero_copy_only=False).astype(np.float32)  # type: ignore[no-any-return]


_PREDICTED = {
    Task.SINGLE_LABEL: _one_label,
    Task.MULTI_LABEL: _several_labels,
    Task.REGRESSION: _one_value,
}
PART_ROWS = ReadSettings().part_rows
"""Rows of a part of a run."""
