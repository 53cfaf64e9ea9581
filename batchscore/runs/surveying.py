"""The survey of one file: its columns from its head, then one pass over it for its parts, rejects and label values.

The pass hashes the file as well, unless its hash is known. What it finds can be sent from one process to another
(:mod:`batchscore.runs.survey_processes`).
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from batchscore.errors import DataError, printable
from batchscore.formats.column_choice import choose_columns, has_label_column, refuse_named
from batchscore.formats.digests import digest_of
from batchscore.formats.first_pass import FirstPass
from batchscore.formats.format import format_of
from batchscore.formats.inputs import FoundFile
from batchscore.formats.label_columns import choose_label_columns
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.reading import describe, header_advice, read
from batchscore.formats.source import Source, reading
from batchscore.formats.writing import refuse_unwritable, refuse_unwritable_names
from batchscore.model.given import Survey, given_of, uses_labels
from batchscore.records import Column, ColumnChoice, InputFile, Layout, Part, Position, Reject, Rows
from batchscore.runs.accepting import answers_of_run
from batchscore.runs.partitions import PartitionValues

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings
    from batchscore.model.bundle import Bundle


class Look(NamedTuple):
    """What the head of a file tells."""

    layout: Layout
    columns: ColumnChoice


class FoundPart(NamedTuple):
    """A part of a file, before it has its number in the plan."""

    start: Position
    rows: int
    digest: str
    bytes: int
    """As :attr:`batchscore.records.Part.bytes`."""


@dataclasses.dataclass(slots=True)
class Surveyed:
    """What a file holds."""

    file: FoundFile
    """With its hash."""
    layout: Layout
    """With the fields that only later rows have."""
    columns: ColumnChoice
    has_label_column: bool
    values: Survey
    """The values of its label column."""
    partitions: PartitionValues
    parts: list[FoundPart] = dataclasses.field(default_factory=list)
    rejects: int = 0

    @property
    def rows(self) -> int:
        """Rows, rejects included."""
        return sum(part.rows for part in self.parts)

    def numbered(self, file: int, first: int) -> Iterator[Part]:
        """Its parts in the plan, as those of the file ``file``; the first has the number ``first``."""
        for number, part in enumerate(self.parts, first):
            yield Part(number, file, *part)

    def result(self, *, counts_from_0: bool) -> InputFile:
        """The file's entry in the plan.

        Raises:
            DataError: the meaning of the values in its label column is ambiguous.
        """
        source = self.file.source
        meaning = self.values.meaning(counts_from_0=counts_from_0)
        if meaning is None:
            raise DataError(f"{printable(source.path)}: {self.values.problem(self.columns.label or '')}")
        return InputFile(
            path=str(source.path),
            name=self.file.name,
            format=source.format,
            compression=source.compression,
            size=self.file.identity.size,
            sha256=self.file.sha256,
            layout=self.layout,
            columns=self.columns,
            rows=self.rows,
            rejects=self.rejects,
            labelled=meaning.labelled,
            unknown_labels=meaning.unknown,
            label_values=meaning.values,
            label_reading=meaning.reading,
            has_label_column=self.has_label_column,
            given_as=self.file.given_as,
        )


class Surveyor:
    """Surveys files for one run."""

    def __init__(self, bundle: Bundle, settings: ScoreSettings) -> None:
        """Raise :class:`UsageError` where the options do not fit the model's labels."""
        self._bundle, self._settings = bundle, settings
        self._given = given_of(bundle, settings.label_map)
        self._answers = answers_of_run(bundle, settings)
        self._outputs = OutputColumns.of(settings)
        self._outputs.refuse_equal_names(self._answers)
        self._last_format, self._last = "", None  # type: str, Look | None
        """The last look with which nothing was wrong."""

    def look(self, file: FoundFile) -> Look:
        """The columns of a file, from its head.

        Raises:
            DataError: it is damaged, or its columns cannot be scored.
        """
        layout = describe(file.source._replace(awaits_first_pass=True), self._settings.read)
        if self._last is not None and (file.source.format, layout) == (self._last_format, self._last.layout):
            return self._last  # as often in a folder of many files
        columns = self._choose(file, layout)
        path = file.source.path
        if not format_of(file.source.format).rows_have_own_names:
            self._refuse_missing(layout, path)
        self._refuse_names(file, layout)
        self._last_format, self._last = file.source.format, Look(layout, columns)
        return self._last

    def survey(self, file: FoundFile, look: Look, rejects: IO[bytes], limit: int | None = None) -> Surveyed:
        """Read a file, or its first ``limit`` rows; its unreadable rows are written to ``rejects`` as JSON Lines.

        Raises:
            DataError: it is damaged, or it holds what cannot be scored or written.
            StorageError: it cannot be read.
        """
        surveyed = self.begun(file, look)
        first_pass = FirstPass(file.source.path)
        source = file.source._replace(first_pass=first_pass)
        for rows in self._rows(self.rows_of(source, look), limit):
            self.add(surveyed, rows, rejects)
            del rows
        self.finish(surveyed, first_pass)
        return surveyed

    def begun(self, file: FoundFile, look: Look, values: Survey | None = None) -> Surveyed:
        """A survey of a file to which no rows were added; the values of its labels go to ``values`` instead, if given."""
        layout, columns = look
        if values is None:
            names = layout.details.get("class_names", {}).get(columns.label, ())
            values = self._given.survey(columns, names)
        has_labels = bool(columns.given) or has_label_column(layout, self._given.more_names)
        partitions = PartitionValues(self._settings.partition_by)
        return Surveyed(file, layout, columns, has_labels, values, partitions)

    def rows_of(self, source: Source, look: Look, start: Position | None = None) -> Iterator[Rows]:
        """The parts of a file, from the one on that begins at ``start``; raises what :func:`read` does."""
        return read(source, *look, self._settings.read, start)

    def finish(self, surveyed: Surveyed, first_pass: FirstPass) -> None:
        """What can be said of a file when all its parts were added; raises what :meth:`survey` does."""
        file = surveyed.file
        with reading(file.source):
            hashed = first_pass.finish()
        file.assert_read(hashed)  # so what was planned is what was hashed
        if format_of(file.source.format).rows_have_own_names:
            self._refuse_missing(surveyed.layout, file.source.path)
            self._refuse_names(file, surveyed.layout)

    @staticmethod
    def _rows(parts: Iterator[Rows], limit: int | None) -> Iterator[Rows]:
        left = limit
        for whole in parts:
            if left is not None and left <= 0:
                return
            rows = whole if left is None else whole.head(left)
            left = None if left is None else left - rows.rows_in
            yield rows
            del whole, rows  # before the next part is read

    def add(self, surveyed: Surveyed, rows: Rows, rejects: IO[bytes]) -> None:
        """Count a part and the values in it, refuse what cannot be written, and write its unreadable rows to ``rejects``."""
        source, partitions = surveyed.file.source, surveyed.partitions
        if rows.names:
            self._note_names(surveyed, rows.names)
            self._outputs.refuse_taken(rows.names, self._answers, source.path)
        refuse_unwritable(source, surveyed.layout, rows, self._outputs, self._settings.output_format)
        if (name := partitions.column) is not None:
            texts = format_of(source.format).texts_of_rows(rows, surveyed.layout, [name])
            partitions.update(texts[name], source.path)
        surveyed.values.update(rows.labels or ())
        surveyed.rejects += len(rows.rejects)
        surveyed.parts.append(FoundPart(rows.start, rows.rows_in, digest_of(rows), rows.weight))
        rejects.writelines(_reject_line(surveyed.file.name, reject) for reject in rows.rejects)

    def _note_names(self, surveyed: Surveyed, names: set[str]) -> None:
        """Add the field names of a part of a JSON file."""
        path, most = surveyed.file.source.path, self._settings.read.max_columns
        if not surveyed.columns.text:
            raise DataError(
                f"{printable(path)}: its first rows are empty objects. Name the text with --text-column."
            )
        columns = surveyed.layout.columns
        new = sorted(names.difference(column.name for column in columns))
        if len(columns) + len(new) > most:
            raise DataError(
                f"{printable(path)}: its rows have more than {most} fields of different names. Raise --max-columns if they "
                "are meant."
            )
        if new:
            more = (Column(name, "other") for name in new)
            surveyed.layout = dataclasses.replace(surveyed.layout, columns=(*columns, *more))

    def _choose(self, file: FoundFile, layout: Layout) -> ColumnChoice:
        read, path = self._settings.read, file.source.path
        if not layout.columns:  # an empty file has no columns to choose from
            return ColumnChoice(read.text_column or "", text_pair=read.text_pair_column)
        advice = header_advice(file.source, layout, read)
        use_labels = uses_labels(self._bundle, self._settings.label_map)
        columns = choose_columns(layout, read, path, use_labels, advice, self._given.more_names)
        if use_labels and self._given.has_label_columns:
            columns = choose_label_columns(
                columns, layout, path, read, self._bundle.labels, self._settings.label_map
            )
        return columns

    def _refuse_missing(self, layout: Layout, path: Path) -> None:
        """Refuse a file without a column that an option names."""
        _refuse_unsliceable(path, layout, self._settings.slice_columns)
        self._outputs.refuse_unknown(self._answers, layout, path)
        PartitionValues(self._settings.partition_by).refuse_column(layout, path)

    def _refuse_names(self, file: FoundFile, layout: Layout) -> None:
        """Refuse names of columns that predictions add, or cannot hold."""
        names = [column.name for column in layout.columns]
        self._outputs.refuse_taken(names, self._answers, file.source.path)
        refuse_unwritable_names(
            file.source, layout, self._answers, self._outputs, self._settings.output_format
        )


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
