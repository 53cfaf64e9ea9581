"""Labelled rows whose prediction differs, most suspicious first: the columns and rows of their report.

How they come into their order, however many there are: :mod:`batchscore.runs.sorted_mismatches`; how they are written:
:mod:`batchscore.runs.mismatch_files`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from batchscore.formats.arrow_values import plain_values, take_rows, without_dictionaries
from batchscore.formats.columns import input_columns, input_schema, named_column
from batchscore.formats.exact import Nodes
from batchscore.formats.format import RecordFormat, format_of
from batchscore.formats.paths import path_of
from batchscore.formats.staged import Block, StagedPart
from batchscore.formats.text_values import as_text
from batchscore.records import InputFile, Part
from batchscore.reports.formats import SHOWN_OF_TEXT
from batchscore.runs.mismatch_columns import IS_ISSUE, Keys, MismatchColumns, joined_keys
from batchscore.runs.sorted_mismatches import SortedMismatches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.system.own_paths import OwnPath


_CHUNK_ROWS = 4096
_CHUNK_TOKENS = 2**21
"""Maximum tokens of the rows gathered at once: about 8 MiB of text."""
LINE = "line"
"""The column with the line where a row begins, in ``mismatches.csv`` alone."""
_PLACE = (("file", pa.string()), ("row", pa.int64()))
_TEXT, _PAIR = ("text", pa.large_string()), ("text_pair", pa.large_string())
"""The last columns of the report's own: the text, and where rows are two texts the second."""


Chunk = tuple[pa.RecordBatch, pa.Array]
"""Rows of the report, and the line where each begins in its file; null where the format has no lines."""
IsIssue = Callable[["NDArray[np.float32]"], "NDArray[np.bool_]"]
"""Label quality of some mismatches -> whether each is worth checking first."""


def keys_of(
    numbers: Sequence[int], block: Block, qualities: NDArray[np.float32], columns: MismatchColumns
) -> tuple[NDArray[np.int64], Keys]:
    """Where the mismatches of some parts are in their block, ``[m]``, given their numbers and the label quality of all rows.

    Whether they are issues is told later.
    """
    at = columns.found(block.whole)
    starts = np.asarray(block.starts)
    place = np.searchsorted(starts, at, side="right") - 1
    number, index = np.asarray(numbers, dtype=np.int32)[place], (at - starts[place]).astype(np.int32)
    none, tokens = np.zeros(len(at), dtype=np.bool_), block.whole.n_tokens[at]
    return at, Keys(number, index, qualities[at].astype(np.float32), none, tokens)


class MismatchTable:
    """The columns of the mismatch report over all files of a run, and its rows chunk by chunk."""

    def __init__(
        self,
        files: Sequence[InputFile],
        parts: Sequence[Part],
        columns: MismatchColumns,
        open_part: Callable[[int], StagedPart],
        schemas: Sequence[pa.Schema] | None = None,
    ) -> None:
        """``schemas``: of the input's columns in the parts of each file, where they are not those of the file itself."""
        self._files, self._parts, self._columns = files, parts, columns
        self._open = open_part
        self._own = {name for name, _ in (*_PLACE, _TEXT, _PAIR)} | {field.name for field in columns.fields}
        self._kind, self._kinds = _kinds_of(files, schemas)
        ids = (kind.file.columns.id for kind in self._kinds if kind.file.columns.id is not None)
        self.id_name = next((self._free(name) for name in ids), None)
        self._other_columns = [self._others_of(kind.schema, kind.file) for kind in self._kinds]
        self.others = self._other_fields()
        place = [pa.field(name, kind) for name, kind in _PLACE]
        identifier = [pa.field(self.id_name, self._id_type())] if self.id_name is not None else []
        has_pairs = any(kind.file.columns.text_pair is not None for kind in self._kinds)
        texts = [pa.field(name, kind) for name, kind in (_TEXT, *[_PAIR] * has_pairs)]
        self.schema = pa.schema([*place, *identifier, *columns.fields, *texts, *self.others.values()])

    def _free(self, name: str) -> str:
        """An input column's name in the report, distinct from the report's own names."""
        return f"input_{name}" if name in self._own else name

    def _others_of(self, schema: pa.Schema, file: InputFile) -> dict[str, int]:
        """Name in the report → index of every column that is neither a text nor the id; a repeated name is numbered."""
        taken = [
            schema.names.index(name)
            for name in (*file.columns.texts, file.columns.id)
            if name in schema.names
        ]
        places: dict[str, int] = {}
        for place, name in enumerate(schema.names):
            if place not in taken:
                free, count = self._free(name), 2
                while free in places or free == self.id_name:
                    free, count = f"{self._free(name)}_{count}", count + 1
                places[free] = place
        return places

    def _id_type(self) -> pa.DataType:
        kinds = {
            without_dictionaries(_type_at(schema, path_of(file.layout, file.columns.id)))
            for schema, file in self._kinds
            if file.columns.id is not None
        }
        return kinds.pop() if len(kinds) == 1 else pa.large_string()

    def _other_fields(self) -> dict[str, pa.Field]:
        """The remaining columns of all files; text if files have different types."""
        fields: dict[str, pa.Field] = {}
        for (schema, _), others in zip(self._kinds, self._other_columns, strict=True):
            for name, place in others.items():
                field = schema.field(place)
                kind = without_dictionaries(field.type)
                if name in fields and fields[name].type != kind:
                    kind = pa.large_string()
                fields[name] = pa.field(name, kind)
        return fields

    @property
    def sorting_schema(self) -> pa.Schema:
        """The columns of :meth:`rows_of`: those of the report, and the line."""
        return self.schema.append(pa.field(LINE, pa.int64()))

    def chunks(self, keys: Keys) -> Iterator[Chunk]:
        """The rows of ``keys`` in order, in chunks of bounded rows and tokens; each chunk opens the parts it is of."""
        start = 0
        while start < len(keys):
            end = start + _fitting(keys.n_tokens[start : start + _CHUNK_ROWS])
            yield self._told(self._chunk(keys.at(slice(start, end))))
            start = end

    def sorted_chunks(self, found: SortedMismatches, is_issue: IsIssue) -> Iterator[Chunk]:
        """All mismatches in order, in the same chunks."""
        waiting: list[pa.RecordBatch] = []
        tokens = np.empty(0, dtype=np.int32)
        for batch, keys in found.in_order():
            waiting.append(self._with_issues(batch, is_issue(keys.quality)))
            tokens = np.concatenate([tokens, keys.n_tokens])
            while (end := _fitting(tokens[:_CHUNK_ROWS])) < len(tokens):
                whole = pa.concat_batches(waiting)
                yield self._told(whole.slice(0, end))
                waiting, tokens = [whole.slice(end)], tokens[end:]
        if len(tokens):
            yield self._told(pa.concat_batches(waiting))

    def _with_issues(self, batch: pa.RecordBatch, is_issue: NDArray[np.bool_]) -> pa.RecordBatch:
        if IS_ISSUE not in self.own_names:
            return batch
        place = batch.schema.names.index(IS_ISSUE)
        return batch.set_column(place, batch.schema.field(place), pa.array(is_issue))

    def _told(self, rows: pa.RecordBatch) -> Chunk:
        return pa.RecordBatch.from_arrays(rows.columns[:-1], schema=self.schema), rows.columns[-1]

    def nodes(self) -> list[Nodes]:
        """For each column its schema nodes in the first Parquet file that has it with this type, or none."""
        found: dict[str, Nodes] = {}
        for (schema, file), others in zip(self._kinds, self._other_columns, strict=True):
            given = format_of(file.format).annotations(file)
            places = dict(others)
            if self.id_name is not None and file.columns.id in schema.names:
                places[self.id_name] = schema.names.index(file.columns.id)
            for name, place in places.items() if given else ():
                if self.schema.field(name).type == without_dictionaries(schema.field(place).type):
                    found.setdefault(name, given[place])
        return [found.get(name, []) for name in self.schema.names]

    def head(self, keys: Keys, rows: int) -> list[dict[str, Any]]:
        """The first ``rows`` mismatches as Python values, without the other input columns; texts as far as a page shows them."""
        texts = {_TEXT[0], _PAIR[0]}
        return [
            {
                name: _shown(value) if name in texts else value
                for name, value in zip(self.own_names, row, strict=True)
            }
            for batch, _ in self.chunks(keys.at(slice(rows)))
            for row in zip(*(plain_values(batch.column(name)) for name in self.own_names), strict=True)
        ]

    @property
    def has_lines(self) -> bool:
        """Whether the rows of any file begin on a line."""
        return any(isinstance(format_of(kind.file.format), RecordFormat) for kind in self._kinds)

    @property
    def own_names(self) -> list[str]:
        """The report's own columns, without the other input columns."""
        return [name for name in self.schema.names if name not in self.others]

    def _chunk(self, keys: Keys) -> pa.RecordBatch:
        pieces: list[pa.RecordBatch] = []
        places: list[NDArray[np.int64]] = []
        for number in np.unique(keys.part):
            at = np.flatnonzero(keys.part == number)
            found = keys.at(at)
            pieces.append(self.rows_of(self._open(int(number)), found.index, found))
            places.append(at)
        back = np.argsort(np.concatenate(places), kind="stable")
        return take_rows(pa.concat_batches(pieces), back)

    def rows_of(self, whole: StagedPart, at: NDArray[np.integer[Any]], keys: Keys) -> pa.RecordBatch:
        """The rows of ``keys``, one at least, which are ``at`` these places in ``whole``, in the columns of the report, then the line of each.

        ``whole`` are the rows of a part, or of a block of them.
        """
        files = np.array([self._parts[part].file for part in keys.part.tolist()])
        cuts = [0, *(np.flatnonzero(np.diff(self._kind[files])) + 1).tolist(), len(files)]
        pieces = []
        for start, end in itertools.pairwise(cuts):
            part = whole.rows(take_rows(whole.batch, at[start:end]))
            pieces.append(self._rows_of_kind(part, files[start:end], keys.at(slice(start, end))))
        return pieces[0] if len(pieces) == 1 else pa.concat_batches(pieces)

    def _rows_of_kind(self, part: StagedPart, files: NDArray[np.int64], keys: Keys) -> pa.RecordBatch:
        """The rows of ``part``, each of the file of this index; all files are of one kind."""
        kind = int(self._kind[files[0]])
        file, others = self._kinds[kind].file, self._other_columns[kind]
        columns = input_columns(part, file)
        rows = len(keys)
        values: dict[str, Any] = {
            "file": pa.array([storable(self._files[each].name) for each in files.tolist()], pa.string()),
            "row": part.row_numbers,
            **self._columns.arrays(part, keys),
            **{
                name: _cast(_column(part, file, columns, column), text_type)
                for (name, text_type), column in zip((_TEXT, _PAIR), file.columns.texts, strict=False)
            },
        }
        if self.id_name is not None:
            id_type, given = self.schema.field(self.id_name).type, file.columns.id
            ids = _column(part, file, columns, given) if given is not None else None
            values[self.id_name] = _cast(ids, id_type) if ids is not None else pa.nulls(rows, id_type)
        for name, field in self.others.items():
            values[name] = (
                _cast(columns[others[name]], field.type) if name in others else pa.nulls(rows, field.type)
            )
        arrays = [*(values[name] for name in self.schema.names), part.line]
        return pa.RecordBatch.from_arrays(arrays, schema=self.sorting_schema)


class _Kind(NamedTuple):
    """Files whose rows become rows of the report in the same way: one of them, and the schema of its columns."""

    schema: pa.Schema
    file: InputFile


def _kinds_of(
    files: Sequence[InputFile], schemas: Sequence[pa.Schema] | None
) -> tuple[NDArray[np.int64], list[_Kind]]:
    """The place of each file's kind, and the kinds; files of one kind often follow each other, and only these are told."""
    places, kinds = np.zeros(len(files), dtype=np.int64), []  # type: NDArray[np.int64], list[_Kind]
    for place, file in enumerate(files):
        last = kinds[-1] if kinds else None
        schema = None if schemas is None else schemas[place]
        if (
            last is None
            or (last.file.format, last.file.columns, last.file.layout)
            != (file.format, file.columns, file.layout)
            or (schema is not None and not schema.equals(last.schema, check_metadata=True))
        ):
            kinds.append(_Kind(input_schema(file) if schema is None else schema, file))
        places[place] = len(kinds) - 1
    return places, kinds


def _column(part: StagedPart, file: InputFile, columns: Sequence[pa.Array], name: str) -> pa.Array:
    """A column of a part, of whose columns are given, or a field within one."""
    names = [column.name for column in file.layout.columns]
    return columns[names.index(name)] if name in names else named_column(part, file, name)


def _fitting(tokens: NDArray[np.int32]) -> int:
    """How many of the rows with these tokens are a chunk, if more follow: one at least."""
    return max(1, int(np.searchsorted(np.cumsum(tokens, dtype=np.int64), _CHUNK_TOKENS, side="right")))


def _shown(text: str | None) -> str | None:
    """As much of a text as :func:`batchscore.reports.formats.review` looks at; of a short one, itself."""
    return None if text is None else text[:SHOWN_OF_TEXT]


def storable(name: str) -> str:
    """A file name with escapes for bytes that are not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def _type_at(schema: pa.Schema, path: Sequence[str]) -> pa.DataType:
    """The type of a column, or of a field within one; text for a field within JSON."""
    kind = schema.field(path[0]).type
    for name in path[1:]:
        kind = kind.field(name).type if pa.types.is_struct(kind) else pa.large_string()
    return kind


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type == kind:
        return array
    if without_dictionaries(array.type) == kind:
        return array.cast(kind)
    return pa.array([None if value is None else as_text(value) for value in plain_values(array)], kind)


class FoundMismatches(Protocol):
    """Takes the mismatches of part after part, and gives the rows of the report in their order."""

    def add(self, whole: StagedPart, at: NDArray[np.integer[Any]], keys: Keys) -> None:
        """Those of a block, one at least, and where they are in it."""

    def chunks(self, is_issue: IsIssue) -> Iterator[Chunk]:
        """All that are listed, sorted by label quality, lowest first; ties keep the order of files and rows."""

    def first(self, most: int, is_issue: IsIssue) -> Keys:
        """The keys of the first rows."""

    def close(self) -> None:
        """Remove what was kept on disk."""


class FirstMismatches:
    """At most so many are listed: their keys are in memory, and their parts are opened again."""

    def __init__(self, table: MismatchTable, most: int) -> None:
        self._table, self._most = table, most
        self._pieces: list[Keys] = []

    def add(self, whole: StagedPart, at: NDArray[np.integer[Any]], keys: Keys) -> None:  # noqa: ARG002
        """See :class:`FoundMismatches`."""
        self._pieces.append(keys)
        if sum(map(len, self._pieces)) > 2 * self._most:
            self._pieces = [self._in_order()]

    def _in_order(self) -> Keys:
        return joined_keys(self._pieces).in_order().at(slice(self._most))

    def first(self, most: int, is_issue: IsIssue) -> Keys:
        """See :class:`FoundMismatches`."""
        keys = self._in_order().at(slice(most))
        return dataclasses.replace(keys, is_issue=is_issue(keys.quality))

    def chunks(self, is_issue: IsIssue) -> Iterator[Chunk]:
        """See :class:`FoundMismatches`."""
        return self._table.chunks(self.first(self._most, is_issue))

    def close(self) -> None:
        """Nothing."""


class AllMismatches:
    """All are listed: their rows are sorted on disk."""

    def __init__(self, table: MismatchTable, folder: OwnPath) -> None:
        self._table = table
        self._sorted = SortedMismatches(folder, table.sorting_schema)

    def add(self, whole: StagedPart, at: NDArray[np.integer[Any]], keys: Keys) -> None:
        """See :class:`FoundMismatches`."""
        self._sorted.add(self._table.rows_of(whole, at, keys), keys)

    def first(self, most: int, is_issue: IsIssue) -> Keys:
        """See :class:`FoundMismatches`."""
        keys = self._sorted.first(most)
        return dataclasses.replace(keys, is_issue=is_issue(keys.quality))

    def chunks(self, is_issue: IsIssue) -> Iterator[Chunk]:
        """See :class:`FoundMismatches`."""
        return self._table.sorted_chunks(self._sorted, is_issue)

    def close(self) -> None:
        """See :class:`FoundMismatches`."""
        self._sorted.close()
