"""Planning: everything that can be known about the inputs is known before the first row is scored.

One pass over each file, far faster than scoring it, finds its parts, its rejects and its label values. So a file with
too many bad rows, without a text column or with labels that the model does not know costs seconds, not the night. The plan
is kept in the run's staging folder for a resumed run.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from batchscore.errors import DataError, printable
from batchscore.formats.column_choice import choose_columns, has_label_column, refuse_named
from batchscore.formats.digests import digest_of
from batchscore.formats.format import format_of
from batchscore.formats.inputs import FoundFile
from batchscore.formats.label_columns import choose_label_columns
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.reading import describe, header_advice, read
from batchscore.formats.source import source_of
from batchscore.formats.writing import refuse_unwritable, refuse_unwritable_names
from batchscore.model.given import Given, Reader, given_of, uses_labels
from batchscore.model.labels import MEANINGLESS
from batchscore.records import Column, ColumnChoice, InputFile, Layout, Part, Position, Reject, Rows
from batchscore.runs.accepting import answers_of_run
from batchscore.runs.partitions import PartitionValues

if TYPE_CHECKING:
    from batchscore.config import ReadSettings, ScoreSettings
    from batchscore.model.bundle import Bundle


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What a run will score: its files and their parts."""

    files: tuple[InputFile, ...]
    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        """Rows of all files, rejects included."""
        return sum(file.rows for file in self.files)

    @property
    def rejects(self) -> int:
        """Unreadable rows of all files."""
        return sum(file.rejects for file in self.files)

    @property
    def has_labels(self) -> bool:
        """Whether any file has a label column that predictions are compared with."""
        return any(file.columns.given for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "files": [dataclasses.asdict(file) for file in self.files],
            "parts": [list(_flat(p)) for p in self.parts],
        }

    def of(self, found: Sequence[FoundFile]) -> Plan:
        """The plan for the same files where they lie now.

        Raises:
            ValueError: it is one for other files.
        """
        planned = [(f.name, f.format, f.compression, f.sha256) for f in self.files]
        if planned != [(n.name, n.source.format, n.source.compression, n.sha256) for n in found]:
            raise ValueError("it is a plan for other files")
        files = (
            dataclasses.replace(f, path=str(n.source.path)) for f, n in zip(self.files, found, strict=True)
        )
        return dataclasses.replace(self, files=tuple(files))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        """The inverse of :meth:`to_json`.

        Raises:
            LookupError, TypeError, ValueError: it was not written by that.
        """
        files = tuple(_file_from_json(file) for file in value["files"])
        parts = tuple(_part_from_json(*part) for part in value["parts"])
        if any(
            part.number != place or part.file not in range(len(files)) for place, part in enumerate(parts)
        ):
            raise ValueError("its parts are not in order")
        return cls(files, parts)


def _flat(part: Part) -> tuple[int | str, ...]:
    return part.digest, part.number, part.file, *part.start, part.rows, part.bytes


def _part_from_json(digest: str, *numbers: int) -> Part:
    if not all(type(value) is int and value >= 0 for value in numbers):
        raise ValueError("a part begins or ends nowhere")
    number, file, row, offset, line, rows, size = numbers
    return Part(number, file, Position(row, offset, line), rows, digest, size)


def _file_from_json(value: Mapping[str, Any]) -> InputFile:
    layout = value["layout"]
    columns = tuple(Column(*column) for column in layout["columns"])
    return InputFile(
        **{
            **value,
            "layout": Layout(columns, layout["details"]),
            "columns": ColumnChoice.from_json(value["columns"]),
        }
    )


def make_plan(
    found: Sequence[FoundFile], bundle: Bundle, settings: ScoreSettings, rejects: IO[bytes]
) -> Plan:
    """Read every file once; unreadable rows are written to ``rejects`` as JSON Lines.

    Raises:
        DataError: a damaged file, a schema that cannot be scored, a column name that the scorer adds, or labels none of
            which the model knows.
    """
    use_labels = uses_labels(bundle, settings.label_map)
    _refuse_meaningless_labels(bundle, settings, uses_labels=use_labels)
    given, answers = given_of(bundle, settings.label_map), answers_of_run(bundle, settings)
    looks = [_look(file, settings, bundle, given) for file in found]
    outputs = OutputColumns.of(settings)
    outputs.refuse_equal_names(answers)
    partitions = PartitionValues(settings.partition_by)
    for file, (layout, _) in zip(found, looks, strict=True):
        if not format_of(file.source.format).rows_have_own_names:
            _refuse_unsliceable(file.source.path, layout, settings.slice_columns)
            outputs.refuse_unknown(answers, layout, file.source.path)
            partitions.refuse_column(layout, file.source.path)
        outputs.refuse_taken([column.name for column in layout.columns], answers, file.source.path)
        refuse_unwritable_names(file.source, layout, answers, outputs, settings.output_format)
    surveys: list[_Survey] = []
    parts: list[Part] = []
    left = settings.limit
    for file, (layout, columns) in zip(found, looks, strict=True):
        survey = _Survey(file, layout, columns, given)
        for rows in survey.read(settings.read, left):
            outputs.refuse_taken(rows.names, answers, file.source.path)
            refuse_unwritable(file.source, survey.layout, rows, outputs, settings.output_format)
            if (name := partitions.column) is not None:
                fmt = format_of(file.source.format)
                partitions.update(fmt.texts_of_rows(rows, layout, [name])[name], file.source.path)
            parts.append(
                Part(len(parts), len(surveys), rows.start, rows.rows_in, digest_of(rows), rows.weight)
            )
            rejects.writelines(_reject_line(file.name, reject) for reject in rows.rejects)
            del rows
        file.assert_unchanged()  # so what was planned is what was hashed
        surveys.append(survey)
        _refuse_unsliceable(file.source.path, survey.layout, settings.slice_columns)
        outputs.refuse_unknown(answers, survey.layout, file.source.path)
        partitions.refuse_column(survey.layout, file.source.path)
        outputs.refuse_taken([column.name for column in survey.layout.columns], answers, file.source.path)
        refuse_unwritable_names(file.source, survey.layout, answers, outputs, settings.output_format)
        left = None if left is None else left - survey.rows
    from_0 = {survey.columns.given for survey in surveys if survey.values.counts_from_0}
    files = [survey.result(counts_from_0=survey.columns.given in from_0) for survey in surveys]
    return Plan(tuple(files), tuple(parts))


def _refuse_meaningless_labels(bundle: Bundle, settings: ScoreSettings, *, uses_labels: bool) -> None:
    """Raise if a label column is asked for, but not said what its values mean to a model of ``LABEL_0`` and so on.

    Raises:
        DataError: the comparison that was asked for cannot be made.
    """
    if settings.read.label_column and not uses_labels:
        raise DataError(
            f"--label-column {printable(settings.read.label_column)} cannot be compared with the predictions of "
            f"{printable(bundle.path)}: {MEANINGLESS}; or --label-map ids if they are numbers that count from 0; or score without "
            "labels: --no-labels"
        )


def given_labels(plan: Plan, bundle: Bundle, label_map: Mapping[str, str]) -> list[Reader]:
    """How the label values of each file of a plan are read."""
    given = given_of(bundle, label_map)
    return [given.reader(file) for file in plan.files]


def read_parts(plan: Plan, wanted: Sequence[Part], settings: ReadSettings) -> Iterator[tuple[Part, Rows]]:
    """Read the rows of the wanted parts again, in order; a file is opened once for consecutive parts.

    Raises:
        DataError: the rows are not those that were planned.
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
        del rows  # before the next part is read


class _Survey:
    """The first pass over one file."""

    def __init__(self, file: FoundFile, layout: Layout, columns: ColumnChoice, given: Given) -> None:
        self._file, self._layout, self.columns = file, layout, columns
        self.rows = self._rejects = 0
        self.values = given.survey(columns, layout.details.get("class_names", {}).get(columns.label, ()))
        self._known = {column.name for column in layout.columns}
        self._more: list[str] = []
        """Fields that only later rows have."""
        self._has_label_column = bool(columns.given) or has_label_column(layout, given.more_names)

    def read(self, settings: ReadSettings, limit: int | None) -> Iterator[Rows]:
        """Yield the file's parts, at most ``limit`` rows, and count rows, rejects and label values."""
        for whole in read(self._file.source, self._layout, self.columns, settings):
            if limit is not None and self.rows >= limit:
                return
            rows = whole if limit is None else whole.head(limit - self.rows)
            self.rows += rows.rows_in
            self._rejects += len(rows.rejects)
            self._note_names(rows.names, settings)
            self.values.update(rows.labels or ())
            yield rows
            del whole, rows  # before the next part is read

    def _note_names(self, names: set[str], settings: ReadSettings) -> None:
        """Add the field names of a part of a JSON file."""
        path = self._file.source.path
        if names and not self.columns.text:
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

    @property
    def layout(self) -> Layout:
        """The layout with the fields that only later rows have."""
        more = (Column(name, "other") for name in self._more)
        return dataclasses.replace(self._layout, columns=(*self._layout.columns, *more))

    def result(self, *, counts_from_0: bool) -> InputFile:
        """The file's entry in the plan.

        Raises:
            DataError: the meaning of the values in its label column is ambiguous.
        """
        source = self._file.source
        meaning = self.values.meaning(counts_from_0=counts_from_0)
        if meaning is None:
            raise DataError(f"{printable(source.path)}: {self.values.problem(self.columns.label or '')}")
        return InputFile(
            path=str(source.path),
            name=self._file.name,
            format=source.format,
            compression=source.compression,
            size=self._file.identity.size,
            sha256=self._file.sha256,
            layout=self.layout,
            columns=self.columns,
            rows=self.rows,
            rejects=self._rejects,
            labelled=meaning.labelled,
            unknown_labels=meaning.unknown,
            label_values=meaning.values,
            label_reading=meaning.reading,
            has_label_column=self._has_label_column,
            given_as=self._file.given_as,
        )


def _look(
    file: FoundFile, settings: ScoreSettings, bundle: Bundle, given: Given
) -> tuple[Layout, ColumnChoice]:
    read, path = settings.read, file.source.path
    layout = describe(file.source, read)
    if not layout.columns:  # an empty file has no columns to choose from
        return layout, ColumnChoice(read.text_column or "", text_pair=read.text_pair_column)
    advice = header_advice(file.source, layout, read)
    use_labels = uses_labels(bundle, settings.label_map)
    columns = choose_columns(layout, read, path, use_labels, advice, given.more_names)
    if use_labels and given.has_label_columns:
        columns = choose_label_columns(columns, layout, path, read, bundle.labels, settings.label_map)
    return layout, columns


def _refuse_unsliceable(path: Path, layout: Layout, wanted: Sequence[str]) -> None:
    for name in wanted if layout.columns else ():
        refuse_named("slice", name, [c for c in layout.columns if c.name == name], layout, path)


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
