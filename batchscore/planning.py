"""Everything that can be known about the inputs is known before the first row is scored.

One pass over each file, far faster than scoring it, finds its parts, its rejects and its label values. So a file with
too many bad rows, without a text column or with labels that the model does not know costs seconds, not the night; and
the plan, kept in the run's staging folder, is what a resumed run goes on with.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from batchscore.bundle import label_key, match_labels
from batchscore.errors import DataError, printable
from batchscore.inputs import FoundFile
from batchscore.parts import added_names
from batchscore.readers import Source, describe, read
from batchscore.readers.digests import digest_of
from batchscore.readers.source import source_of
from batchscore.records import (
    UNKNOWN_LABEL,
    UNLABELLED,
    Column,
    ColumnChoice,
    InputFile,
    Layout,
    Part,
    Position,
    Reject,
    Rows,
)
from batchscore.writers import refuse_unwritable, refuse_unwritable_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.bundle import Bundle
    from batchscore.config import ReadSettings, ScoreSettings

_KNOWN_NAMES = {
    "text": {
        *("text", "review", "review_text", "reviewtext", "content", "body", "comment"),
        *("sentence", "message", "document"),
    },
    "label": {"label", "labels", "sentiment", "target", "class", "given_label"},
    "id": {"id", "review_id", "uuid", "row_id", "doc_id", "document_id", "key", "guid", "idx"},
}
_TEXT_KINDS = {"string", "null", "mixed"}
_LISTED_LABELS = 100
"""Distinct unknown label values that are listed; further ones are counted together."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do: its files, their parts, and how rows are counted."""

    files: tuple[InputFile, ...]
    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        """Rows of all files, rejects included."""
        return sum(file.rows for file in self.files)

    @property
    def rejects(self) -> int:
        """Rows that cannot be read."""
        return sum(file.rejects for file in self.files)

    @property
    def has_labels(self) -> bool:
        """Whether any file has a label column that the model's labels are held against."""
        return any(file.columns.label for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "files": [dataclasses.asdict(file) for file in self.files],
            "parts": [list(_flat(p)) for p in self.parts],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        """The inverse of :meth:`to_json`."""
        parts = (
            Part(number, file, Position(row, offset, line), rows, digest)
            for number, file, row, offset, line, rows, digest in value["parts"]
        )
        return cls(tuple(_file_from_json(file) for file in value["files"]), tuple(parts))


def _flat(part: Part) -> tuple[int | str, ...]:
    return part.number, part.file, *part.start, part.rows, part.digest


def _file_from_json(value: Mapping[str, Any]) -> InputFile:
    layout = value["layout"]
    columns = tuple(Column(*column) for column in layout["columns"])
    return InputFile(
        **{
            **value,
            "layout": Layout(columns, layout["details"]),
            "columns": ColumnChoice(**value["columns"]),
        }
    )


class GivenLabels:
    """Given label values as indices of the model's labels; the same table for every file of a run."""

    def __init__(self, bundle: Bundle, label_map: Mapping[str, str]) -> None:
        self._table = match_labels(bundle.labels, label_map)

    def index(self, value: object) -> int:
        """The label's index; ``UNLABELLED`` for null, NaN and empty; ``UNKNOWN_LABEL`` for what no label matches."""
        if value is None or (isinstance(value, float) and value != value):  # noqa: PLR0124 - NaN
            return UNLABELLED
        key = label_key(value)
        return self._table.get(key, UNKNOWN_LABEL) if key else UNLABELLED

    def indices(self, labels: Sequence[object] | None, rows: int) -> NDArray[np.int32]:
        """The indices of a part's label values, int32 ``[rows]``."""
        if labels is None:
            return np.full(rows, UNLABELLED, dtype=np.int32)
        return np.fromiter((self.index(value) for value in labels), dtype=np.int32, count=rows)


def make_plan(
    found: Sequence[FoundFile], bundle: Bundle, settings: ScoreSettings, rejects: IO[bytes]
) -> Plan:
    """Read every file once; unreadable rows are written to ``rejects`` as JSON Lines.

    Raises:
        DataError: a damaged file, a schema that cannot be scored, a name that is taken, or labels of which the model
            knows none.
    """
    use_labels = not bundle.has_generic_labels or bool(settings.label_map)
    looks = [_look(file, settings.read, use_labels) for file in found]
    names = added_names(bundle.labels, settings.prefix)
    added, texts = set(names), [*bundle.labels, *names]
    for file, (layout, _) in zip(found, looks, strict=True):
        if file.source.format != "jsonl":  # its later rows may have more fields
            _refuse_unsliceable(file.source.path, layout, settings.slice_columns)
        _refuse_taken(file.source, {column.name for column in layout.columns} & added)
        refuse_unwritable_names(file.source, layout, texts, settings.output_format)
    given = GivenLabels(bundle, settings.label_map)
    files: list[InputFile] = []
    parts: list[Part] = []
    left = settings.limit
    for file, (layout, columns) in zip(found, looks, strict=True):
        survey = _Survey(file, layout, columns, given)
        for rows in survey.read(settings.read, left):
            _refuse_taken(file.source, rows.names & added)
            refuse_unwritable(file.source, rows, settings.output_format)
            parts.append(Part(len(parts), len(files), rows.start, rows.rows_in, digest_of(rows)))
            rejects.writelines(_reject_line(file.name, reject) for reject in rows.rejects)
        file.assert_unchanged()  # so what was planned is what was hashed
        files.append(survey.result())
        _refuse_unsliceable(file.source.path, files[-1].layout, settings.slice_columns)
        left = None if left is None else left - files[-1].rows
    _refuse_unknown_labels(files, bundle)
    return Plan(tuple(files), tuple(parts))


def read_parts(plan: Plan, wanted: Sequence[Part], settings: ReadSettings) -> Iterator[tuple[Part, Rows]]:
    """Read the rows of the wanted parts again, in their order; a file is opened once for parts that follow each other.

    Raises:
        DataError: they are not those that were planned.
    """
    stream: Iterator[Rows] | None = None
    following: tuple[int, int] | None = None
    for part in wanted:
        file = plan.files[part.file]
        if stream is None or following != (part.file, part.number):
            stream = read(source_of(file), file.layout, file.columns, settings, part.start)
        rows = next(stream, None)
        rows = rows.head(part.rows) if rows else None
        if rows is None or digest_of(rows) != part.digest:
            raise DataError(
                f"{printable(file.path)} changed while it was being read (row {part.start.row}). Write it under another "
                "name, rename it when it is whole, and run the same command again."
            )
        following = (part.file, part.number + 1)
        yield part, rows


class _Survey:
    """The first pass over one file."""

    def __init__(self, file: FoundFile, layout: Layout, columns: ColumnChoice, given: GivenLabels) -> None:
        self._file, self._layout, self._columns, self._given = file, layout, columns, given
        self._rows = self._rejects = self._labelled = 0
        self._unknown: collections.Counter[str] = collections.Counter()
        self._known = {column.name for column in layout.columns}
        self._more: list[str] = []
        """Fields that only later rows have."""

    def read(self, settings: ReadSettings, limit: int | None) -> Iterator[Rows]:
        """Yield the file's parts, ``limit`` rows at the most, and count what is in them."""
        for whole in read(self._file.source, self._layout, self._columns, settings):
            if limit is not None and self._rows >= limit:
                return
            rows = whole if limit is None else whole.head(limit - self._rows)
            self._rows += rows.rows_in
            self._rejects += len(rows.rejects)
            self._note_names(rows.names, settings)
            self._count_labels(rows.labels or ())
            yield rows

    def _note_names(self, names: set[str], settings: ReadSettings) -> None:
        """Take in the fields that this part of a JSON Lines file brings with it."""
        path = self._file.source.path
        if names and not self._columns.text:
            raise DataError(
                f"{printable(path)}: its first rows are empty objects. Name the text with --text-column."
            )
        self._more += sorted(names - self._known)
        self._known |= names
        if len(self._known) > settings.max_columns:
            raise DataError(
                f"{printable(path)}: its rows have more than {settings.max_columns} fields of different names. Raise "
                "--max-columns if they are meant."
            )

    def _count_labels(self, labels: Sequence[object]) -> None:
        for value in labels:
            index = self._given.index(value)
            self._labelled += index >= 0
            if index == UNKNOWN_LABEL:
                name = printable(value)[:100]
                known = name in self._unknown or len(self._unknown) < _LISTED_LABELS
                self._unknown[name if known else "(other)"] += 1

    def result(self) -> InputFile:
        """What the plan keeps of the file."""
        source = self._file.source
        more = (Column(name, "other") for name in self._more)
        return InputFile(
            path=str(source.path),
            name=self._file.name,
            format=source.format,
            compression=source.compression,
            size=self._file.identity.size,
            sha256=self._file.sha256,
            layout=dataclasses.replace(self._layout, columns=(*self._layout.columns, *more)),
            columns=self._columns,
            rows=self._rows,
            rejects=self._rejects,
            labelled=self._labelled,
            unknown_labels=dict(sorted(self._unknown.items())),
        )


def _look(file: FoundFile, settings: ReadSettings, use_labels: bool) -> tuple[Layout, ColumnChoice]:
    layout = describe(file.source, settings)
    if not layout.columns:  # an empty file has no columns to choose from
        return layout, ColumnChoice(text=settings.text_column or "")
    return layout, choose_columns(layout, settings, file.source.path, use_labels)


def choose_columns(
    layout: Layout, settings: ReadSettings, path: Path, use_labels: bool = True
) -> ColumnChoice:
    """Find the text, label and id columns by name and type; what is given by name wins.

    Raises:
        DataError: no text column, several candidates, or a named column that is not there; the message lists the columns.
    """
    label = _pick("label", settings, layout, path) if use_labels else None
    identifier = _pick("id", settings, layout, path)
    text = _pick("text", settings, layout, path)
    if text is None:
        strings = [c.name for c in layout.columns if c.kind == "string" and c.name not in {label, identifier}]
        if len(strings) != 1:
            what = "no text column by name" if not strings else f"{len(strings)} columns could be the text"
            raise DataError(
                f"{printable(path)}: {what}. Name it with --text-column. Columns: {_listed(layout)}."
            )
        text = strings[0]
        _refuse_named("text", text, [c for c in layout.columns if c.name == text], layout, path)
    return ColumnChoice(text, label, identifier)


def _pick(role: str, settings: ReadSettings, layout: Layout, path: Path) -> str | None:
    given = {"text": settings.text_column, "label": settings.label_column, "id": settings.id_column}
    wanted = given[role]
    if wanted == "":
        return None
    if wanted is not None:
        found = [column for column in layout.columns if column.name == wanted]
        _refuse_named(role, wanted, found, layout, path)
        return wanted
    found = [c for c in layout.columns if c.name not in given.values() and _may_be(role, c)]
    if len(found) > 1:
        raise DataError(
            f"{printable(path)}: {len(found)} columns could be the {role} "
            f"({printable(', '.join(column.name for column in found))}). Choose one with --{role}-column. "
            f"Columns: {_listed(layout)}."
        )
    return found[0].name if found else None


def _refuse_named(role: str, wanted: str, found: Sequence[Column], layout: Layout, path: Path) -> None:
    """Refuse a column that was named on the command line and is not there, is there twice, or is no text."""
    if not found:
        close = difflib.get_close_matches(wanted, [column.name for column in layout.columns], 1)
        hint = f" Did you mean {printable(close[0])}?" if close else ""
        raise DataError(
            f"{printable(path)} has no column {printable(wanted)} (--{role}-column).{hint} Columns: {_listed(layout)}."
        )
    if len(found) > 1:
        raise DataError(
            f"{printable(path)} has {len(found)} columns named {printable(wanted)}. Rename one of them."
        )
    if role == "text" and found[0].kind not in _TEXT_KINDS:
        raise DataError(
            f"{printable(path)}: the column {printable(wanted)} (--text-column) holds no text. Columns: {_listed(layout)}."
        )


def _refuse_unsliceable(path: Path, layout: Layout, wanted: Sequence[str]) -> None:
    for name in wanted if layout.columns else ():
        _refuse_named("slice", name, [c for c in layout.columns if c.name == name], layout, path)


def _may_be(role: str, column: Column) -> bool:
    is_known = column.name.strip().casefold() in _KNOWN_NAMES[role]
    return is_known and (role != "text" or column.kind in _TEXT_KINDS)


def _listed(layout: Layout) -> str:
    names = [f"{printable(column.name)} ({column.kind})" for column in layout.columns]
    more = f" and {len(names) - 40} more" if len(names) > 40 else ""
    return ", ".join(names[:40]) + more


def _refuse_taken(source: Source, taken: set[str]) -> None:
    if taken:
        raise DataError(
            f"{printable(source.path)} already has {printable(', '.join(sorted(taken)))}, which the scorer adds. Put a "
            "prefix before the added names, for example --prefix batchscore_"
        )


def _refuse_unknown_labels(files: Sequence[InputFile], bundle: Bundle) -> None:
    for file in files:
        if file.unknown_labels and not file.labelled:
            values = ", ".join(list(file.unknown_labels)[:10])
            raise DataError(
                f"{printable(file.path)}: none of the values in its label column {printable(file.columns.label)} "
                f"({values}) is a label of the model ({printable(', '.join(bundle.labels))}). Say what they mean with "
                "--label-map GIVEN=LABEL, name another --label-column, or score without labels: --no-labels"
            )


def _reject_line(name: str, reject: Reject) -> bytes:
    value = {
        "file": name,
        "row": reject.row,
        "line": reject.line,
        "byte_offset": reject.offset,
        "reason": reject.reason,
        "column": reject.column,
        "raw": base64.b64encode(reject.raw).decode(),
    }
    return json.dumps(value, ensure_ascii=True).encode() + b"\n"
