"""Labelled rows whose prediction differs, most suspicious first: for programs (Parquet) and for people (CSV).

Only the sort keys of the mismatches are in memory (17 bytes each); the rows are taken from the staged parts, a few
thousand at a time, in their final order.
"""

from __future__ import annotations

import codecs
import dataclasses
import decimal
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from batchscore.formats.answers import LIST_JOINT
from batchscore.formats.arrow_values import plain_values, take_rows, without_dictionaries
from batchscore.formats.columns import input_columns, input_schema, named_column
from batchscore.formats.delimited import Dialect, encode_fields
from batchscore.formats.exact import Nodes, restore_annotations
from batchscore.formats.format import RecordFormat, format_of
from batchscore.formats.parquet import write_row_groups
from batchscore.formats.paths import path_of
from batchscore.formats.staged import StagedPart
from batchscore.formats.text_values import as_text
from batchscore.records import InputFile, Part
from batchscore.reports.formats import SHOWN_OF_TEXT
from batchscore.runs.mismatch_columns import Keys, MismatchColumns

if TYPE_CHECKING:
    from numpy.typing import NDArray


TEXT_CUT = 2000
"""Characters of a text in ``mismatches.csv``."""
_VISIBLE_NUL = "\u2400"
_CHUNK_ROWS = 4096
_CHUNK_TOKENS = 2**21
"""Maximum tokens of the rows gathered at once: about 8 MiB of text."""
_HIDDEN = r"[\s\x00-\x1f\x7f\"'\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]*"
_FORMULA = re.compile(_HIDDEN + r"[=+\-@\uff1d\uff0b\uff0d\uff20]| *[\t\r\n]")
"""What a spreadsheet may take for a formula: a sign at the start, or after characters that it drops or does not show;
the last four are the full-width signs."""
_PLAIN_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_LINE = "line"
_PLACE = (("file", pa.string()), ("row", pa.int64()))
_TEXT, _PAIR = ("text", pa.large_string()), ("text_pair", pa.large_string())
"""The last columns of the report's own: the text, and where rows are two texts the second."""


def in_order(keys: Keys) -> Keys:
    """Sort mismatches by label quality, lowest first; ties keep the order of files and rows."""
    return keys.at(np.lexsort((keys.index, keys.part, keys.quality)))


def gather(
    found: Iterable[tuple[int, StagedPart, NDArray[np.float32]]],
    columns: MismatchColumns,
    is_issue: Callable[[NDArray[np.float32]], NDArray[np.bool_]],
) -> Keys:
    """The mismatches of all parts in their final order.

    ``found``: each part's number, the part, and the label quality of its rows; ``is_issue`` is called after the last part.
    """
    pieces: list[Keys] = []
    for part, staged, qualities in found:
        at = columns.found(staged)
        place, none = np.full(len(at), part, dtype=np.int32), np.zeros(len(at), dtype=np.bool_)
        tokens = staged.predictions.n_tokens[at]
        pieces.append(Keys(place, at.astype(np.int32), qualities[at].astype(np.float32), none, tokens))
        if columns.most is not None and sum(map(len, pieces)) > 2 * columns.most:
            pieces = [in_order(_joined(pieces)).at(slice(columns.most))]
    keys = in_order(_joined(pieces)).at(slice(columns.most))
    return dataclasses.replace(keys, is_issue=is_issue(keys.quality))


def _joined(pieces: Sequence[Keys]) -> Keys:
    if not pieces:
        none = np.empty(0, dtype=np.int32)
        return Keys(none, none, none.astype(np.float32), none.astype(np.bool_), none)
    names = [field.name for field in dataclasses.fields(Keys)]
    return Keys(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in names))


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
        self._schemas = [input_schema(file) for file in files] if schemas is None else [*schemas]
        ids = (file.columns.id for file in files if file.columns.id is not None)
        self.id_name = next((self._free(name) for name in ids), None)
        self._other_columns = [
            self._others_of(schema, file) for schema, file in zip(self._schemas, files, strict=True)
        ]
        self.others = self._other_fields()
        place = [pa.field(name, kind) for name, kind in _PLACE]
        identifier = [pa.field(self.id_name, self._id_type())] if self.id_name is not None else []
        has_pairs = any(file.columns.text_pair is not None for file in files)
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
            for schema, file in zip(self._schemas, self._files, strict=True)
            if file.columns.id is not None
        }
        return kinds.pop() if len(kinds) == 1 else pa.large_string()

    def _other_fields(self) -> dict[str, pa.Field]:
        """The remaining columns of all files; text if files have different types."""
        fields: dict[str, pa.Field] = {}
        for schema, others in zip(self._schemas, self._other_columns, strict=True):
            for name, place in others.items():
                field = schema.field(place)
                kind = without_dictionaries(field.type)
                if name in fields and fields[name].type != kind:
                    kind = pa.large_string()
                fields[name] = pa.field(name, kind)
        return fields

    def batches(self, keys: Keys) -> Iterator[pa.RecordBatch]:
        """The rows of ``keys`` in order, in batches of bounded rows and tokens."""
        for batch, _ in self.with_lines(keys):
            yield batch

    def with_lines(self, keys: Keys) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
        """The same, each with the line where each row begins in its file; null where the format has no lines."""
        tokens = np.cumsum(keys.n_tokens, dtype=np.int64)
        start = 0
        while start < len(keys):
            before = int(tokens[start - 1]) if start else 0
            end = int(np.searchsorted(tokens, before + _CHUNK_TOKENS, side="right"))
            end = min(max(end, start + 1), start + _CHUNK_ROWS)
            whole = self._chunk(keys.at(slice(start, end)))
            columns = whole.columns
            yield pa.RecordBatch.from_arrays(columns[:-1], schema=self.schema), columns[-1]
            start = end

    def nodes(self) -> list[Nodes]:
        """For each column its schema nodes in the first Parquet file that has it with this type, or none."""
        found: dict[str, Nodes] = {}
        for file, schema, others in zip(self._files, self._schemas, self._other_columns, strict=True):
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
            for batch in self.batches(keys.at(slice(rows)))
            for row in zip(*(plain_values(batch.column(name)) for name in self.own_names), strict=True)
        ]

    @property
    def has_lines(self) -> bool:
        """Whether the rows of any file begin on a line."""
        return any(isinstance(format_of(file.format), RecordFormat) for file in self._files)

    @property
    def own_names(self) -> list[str]:
        """The report's own columns, without the other input columns."""
        return [name for name in self.schema.names if name not in self.others]

    def _chunk(self, keys: Keys) -> pa.RecordBatch:
        pieces: list[pa.RecordBatch] = []
        places: list[NDArray[np.int64]] = []
        for number in np.unique(keys.part):
            at = np.flatnonzero(keys.part == number)
            pieces.append(self._rows(int(number), keys.at(at)))
            places.append(at)
        back = np.argsort(np.concatenate(places), kind="stable")
        return take_rows(pa.concat_batches(pieces), back)

    def _rows(self, number: int, keys: Keys) -> pa.RecordBatch:
        """The rows ``keys.index`` of one part, in the columns of the report, then the line of each."""
        whole = self._open(number)
        part = whole.rows(take_rows(whole.batch, keys.index))
        place = self._parts[number].file
        file = self._files[place]
        columns = input_columns(part, file)
        rows = len(keys)
        values: dict[str, Any] = {
            "file": pa.array([_storable(file.name)] * rows, pa.string()),
            "row": part.row_numbers,
            **self._columns.arrays(part, keys),
            **{
                name: _cast(named_column(part, file, column), kind)
                for (name, kind), column in zip((_TEXT, _PAIR), file.columns.texts, strict=False)
            },
        }
        if self.id_name is not None:
            kind = self.schema.field(self.id_name).type
            ids = named_column(part, file, file.columns.id) if file.columns.id is not None else None
            values[self.id_name] = _cast(ids, kind) if ids is not None else pa.nulls(rows, kind)
        others = self._other_columns[place]
        for name, field in self.others.items():
            values[name] = (
                _cast(columns[others[name]], field.type) if name in others else pa.nulls(rows, field.type)
            )
        arrays = [*(values[name] for name in self.schema.names), part.line]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema.append(pa.field(_LINE, pa.int64())))


def _shown(text: str | None) -> str | None:
    """As much of a text as :func:`batchscore.reports.formats.review` looks at; of a short one, itself."""
    return None if text is None else text[:SHOWN_OF_TEXT]


def _storable(name: str) -> str:
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


def write_parquet(table: MismatchTable, keys: Keys, out: IO[bytes]) -> None:
    """``mismatches.parquet``: exact values, every input column."""
    write_row_groups(table.batches(keys), table.schema, out)
    restore_annotations(out, table.nodes())


def write_csv(table: MismatchTable, keys: Keys, out: IO[bytes]) -> None:
    """``mismatches.csv``: a mark that says UTF-8, no cell that a spreadsheet takes for a formula, texts cut.

    Rows are counted from 1, and their ``line`` is told where any file has lines.
    """
    names, dialect = table.schema.names, Dialect()
    header = _csv_header(table)
    out.write(codecs.BOM_UTF8 + encode_fields([_cell(name) for name in header], dialect) + b"\n")
    for batch, lines in table.with_lines(keys):
        columns = [
            [_cell(value, joint) for value in plain_values(batch.column(name))]
            for name, joint in _joints(table)
        ]
        row = names.index("row")
        numbers = batch.column("row").to_pylist()
        columns[row] = ["" if number is None else str(number + 1) for number in numbers]
        if table.has_lines:
            columns.insert(row + 1, [_cell(value) for value in lines.to_pylist()])
        out.writelines(encode_fields(cells, dialect) + b"\n" for cells in zip(*columns, strict=True))


def _csv_header(table: MismatchTable) -> list[str]:
    """The names of ``mismatches.csv``: those of the Parquet file, and ``line``, which a column of the input gives way to."""
    names = list(table.schema.names)
    if not table.has_lines:
        return names
    free, count = f"input_{_LINE}", 2
    while free in names:
        free, count = f"input_{_LINE}_{count}", count + 1
    names = [free if name == _LINE else name for name in names]
    names.insert(names.index("row") + 1, _LINE)
    return names


def _joints(table: MismatchTable) -> Iterator[tuple[str, str]]:
    """Each column with what stands between the labels of a list; nothing where a list is one of the input's own."""
    for name in table.schema.names:
        yield name, "" if name in table.others else LIST_JOINT


def _cell(value: Any, joint: str = "") -> str:
    text = joint.join(value) if joint and isinstance(value, list) else as_text(value)
    text = text.replace("\0", _VISIBLE_NUL)  # a spreadsheet ends a cell, or the file, at a NUL
    is_number = isinstance(value, bool | int | float | decimal.Decimal)
    return text if is_number else for_spreadsheet(text[:TEXT_CUT])


def for_spreadsheet(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would take for a formula (OWASP, "CSV Injection").

    A number stays one, so that a column of them can be summed.

    >>> for_spreadsheet("=1+1"), for_spreadsheet("1+1"), for_spreadsheet("-2+1"), for_spreadsheet("-2.50")
    ("'=1+1", '1+1', "'-2+1", '-2.50')
    """
    return f"'{text}" if _FORMULA.match(text) and not _PLAIN_NUMBER.fullmatch(text) else text
