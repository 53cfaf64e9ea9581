"""Planning: everything that can be known about the inputs is known before the first row is scored.

One pass over each file, far faster than scoring it, finds its parts, its rejects and its label values. So a file with
too many bad rows, without a text column or with labels that the model does not know costs seconds, not the night. The plan
is kept in the run's staging folder for a resumed run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from batchscore.errors import DataError, printable
from batchscore.formats.inputs import FoundFile
from batchscore.model.given import Reader, given_of, uses_labels
from batchscore.model.labels import MEANINGLESS
from batchscore.records import Column, ColumnChoice, InputFile, Layout, Part, Position, Rows
from batchscore.runs.part_reading import PartReader
from batchscore.runs.partitions import PartitionValues
from batchscore.runs.survey_processes import surveys_of
from batchscore.runs.surveying import Surveyed

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
            "files": [_file_to_json(file) for file in self.files],
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


def _file_to_json(file: InputFile) -> dict[str, Any]:
    """As :func:`dataclasses.asdict`, which copies all that is in it."""
    layout = {"columns": file.layout.columns, "details": file.layout.details}
    return {**_fields(file), "layout": layout, "columns": _fields(file.columns)}


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


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

    The hash of each file is known afterwards.

    Raises:
        DataError: a damaged file, a schema that cannot be scored, a column name that the scorer adds, or labels none of
            which the model knows.
    """
    use_labels = uses_labels(bundle, settings.label_map)
    _refuse_meaningless_labels(bundle, settings, uses_labels=use_labels)
    surveys: list[Surveyed] = []
    parts: list[Part] = []
    partitions = PartitionValues(settings.partition_by)
    for surveyed in surveys_of(found, bundle, settings, rejects):
        parts.extend(surveyed.numbered(len(surveys), len(parts)))
        partitions.add(surveyed.partitions, surveyed.file.source.path)
        surveys.append(surveyed)
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
    """Read the rows of the wanted parts again, in order; a file is opened once for parts that follow each other.

    Raises:
        DataError: the rows are not those that were planned.
    """
    reader = PartReader(plan.files, settings)
    for part in wanted:
        yield part, reader.read(part)
