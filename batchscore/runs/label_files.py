"""Files of labels that came after a run: which column is what, and what their values mean, by the rules that the inputs of a run follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from batchscore.errors import DataError, NoInputError, printable
from batchscore.formats.column_choice import choose_given, refuse_named
from batchscore.formats.format import RecordFormat, format_of
from batchscore.formats.identification import identify
from batchscore.formats.known_names import name_key
from batchscore.formats.label_columns import choose_label_columns
from batchscore.formats.reading import describe, read, texts_of_file
from batchscore.model.given import given_of
from batchscore.model.heads import are_generic
from batchscore.model.labels import MEANINGLESS
from batchscore.records import ColumnChoice, InputFile, Task
from batchscore.system.storage import sha256_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.config import EvaluateSettings
    from batchscore.evaluation import Basis
    from batchscore.formats.format import Texts
    from batchscore.model.given import Reader

_NO_LABELS = "; or score without labels: --no-labels"
"""What the message about a label column of a run ends with; here it would help nobody."""


class Places(NamedTuple):
    """The columns that say which row a label is for, as far as a file has them."""

    id: str | None
    file: str | None
    row: str | None
    first_row: int | None
    """The number of the first row; None if that cannot be told."""


class LabelRows(NamedTuple):
    """Some rows of a file of labels."""

    texts: Texts
    """The columns of :class:`Places`."""
    given: NDArray[Any]
    """What each says, in the array of the task."""
    cells: Sequence[Any]
    """The labels as they stand there."""


@dataclasses.dataclass(frozen=True, slots=True)
class LabelFile:
    """A file of labels that was read once, so that it is known what its values mean."""

    path: Path
    sha256: str
    places: Places
    reading: str
    """How its values are read (:attr:`InputFile.label_reading`)."""
    counts_from_0: bool
    _read: Any

    def rows(self) -> Iterator[LabelRows]:
        """Its rows, a few thousand at a time.

        Raises:
            DataError: a row cannot be read.
        """
        rows: Iterator[LabelRows] = self._read()
        return rows


def open_labels(
    paths: Sequence[Path], settings: EvaluateSettings, basis: Basis, names: Sequence[str]
) -> list[LabelFile]:
    """Read each file once, and find what its columns and values are; ``names`` are those of the run's inputs.

    Raises:
        NoInputError: a file is not there.
        DataError: a file is damaged, or a column or the meaning of a value cannot be told; the message names the option.
        UsageError: options that contradict each other.
    """
    label_map = dict(settings.label_map)
    if basis.task != Task.REGRESSION and are_generic(basis.labels) and not label_map:
        raise DataError(f"--labels {printable(paths[0])} cannot be compared with predictions: {MEANINGLESS}.")
    surveys = [_Survey(path, settings, basis, len(names)) for path in paths]
    from_0 = {survey.columns.given for survey in surveys if survey.values.counts_from_0}
    return [survey.result(counts_from_0=survey.columns.given in from_0) for survey in surveys]


class _Survey:
    """The first pass over one file."""

    def __init__(self, path: Path, settings: EvaluateSettings, basis: Basis, files: int) -> None:
        if not path.is_file():
            raise NoInputError(f"--labels {printable(path)}: there is no such file.")
        self._path, self._settings = path, settings
        self._given = given_of(basis, settings.label_map)
        self._source = identify(path, settings.read.format)
        self._sha256 = sha256_of(path)
        self._layout = describe(self._source, settings.read)
        if not self._layout.columns:
            raise DataError(f"--labels {printable(path)} holds no rows.")
        self.columns = self._choose(basis)
        self._places = self._choose_places(files)
        class_names = self._layout.details.get("class_names", {}).get(self.columns.label, ())
        self.values = self._given.survey(self.columns, class_names)
        for texts in self._texts():
            self.values.update(self._cells(texts))

    def _choose(self, basis: Basis) -> ColumnChoice:
        read, path = self._settings.read, self._path
        columns = choose_given(self._layout, read, path, self._given.more_names)
        if self._given.has_label_columns:
            columns = choose_label_columns(
                columns, self._layout, path, read, basis.labels, self._settings.label_map
            )
        if not columns.given:
            raise DataError(
                f"{printable(path)}: no label column by its name. Name it with --label-column. Columns: {self._columns()}."
            )
        return columns

    def _columns(self) -> str:
        return printable(", ".join(column.name for column in self._layout.columns[:40]))

    def _choose_places(self, files: int) -> Places:
        settings = self._settings
        file = self._named("file", settings.file_column)
        row = self._named("row", settings.row_column)
        if self.columns.id is None and (row is None or (file is None and files > 1)):
            what = "a column of ids" if files == 1 else "a column of ids, or of files and rows,"
            raise DataError(
                f"{printable(self._path)}: nothing says which row a label is for: no column is called like ids, or like the row of a "
                f"file. Name {what} with --id-column, or --row-column{' and --file-column' if files > 1 else ''}. Columns: "
                f"{self._columns()}."
            )
        first = settings.first_row
        if first is None and not format_of(self._source.format).is_for_people:
            first = 0
        return Places(self.columns.id, file, row, first)

    def _named(self, role: str, wanted: str | None) -> str | None:
        found = [column for column in self._layout.columns if column.name == wanted]
        if wanted is not None:
            refuse_named("", wanted, found, self._layout, self._path, f"--{role}-column")
            return wanted
        taken = {self.columns.id, *self.columns.given}
        named = [c.name for c in self._layout.columns if name_key(c.name) == role and c.name not in taken]
        return named[0] if len(named) == 1 else None

    def _texts(self) -> Iterator[Texts]:
        """The columns that matter as text, a few thousand rows at a time."""
        names = [*dict.fromkeys([*self.columns.given, *(name for name in self._places[:3] if name)])]
        read_as, fmt = self._settings.read, format_of(self._source.format)
        if not isinstance(fmt, RecordFormat):
            yield from texts_of_file(self._source, read_as, names)
            return
        for rows in read(self._source, self._layout, ColumnChoice(text=names[0]), read_as):
            if rows.rejects:
                first = rows.rejects[0]
                where = f"line {first.line}" if first.line else f"row {first.row}"
                raise DataError(f"{printable(self._path)}, {where}: {first.reason}. Mend it, and try again.")
            yield fmt.texts_of_rows(rows, self._layout, names)

    def _cells(self, texts: Texts) -> Sequence[Any]:
        """The label of each row: a text, or a tuple of one for each label."""
        given = self.columns.given
        return list(zip(*(texts[n] for n in given), strict=True)) if self.columns.labels else texts[given[0]]

    def result(self, *, counts_from_0: bool) -> LabelFile:
        """The file, with what its values mean.

        Raises:
            DataError: that cannot be told.
        """
        meaning = self.values.meaning(counts_from_0=counts_from_0)
        if meaning is None:
            problem = self.values.problem(self.columns.label or "").replace(_NO_LABELS, "")
            raise DataError(f"{printable(self._path)}: {problem}")
        reader = self._given.reader(self._as_input(meaning.reading))
        from_0 = self.values.counts_from_0
        return LabelFile(
            self._path, self._sha256, self._places, meaning.reading, from_0, lambda: self._rows(reader)
        )

    def _rows(self, reader: Reader) -> Iterator[LabelRows]:
        for texts in self._texts():
            cells = self._cells(texts)
            yield LabelRows(texts, reader.indices(cells, len(cells)), cells)

    def _as_input(self, reading: str) -> InputFile:
        path, fmt, compression = self._source[:3]
        return InputFile(
            str(path),
            path.name,
            fmt,
            compression,
            0,
            self._sha256,
            self._layout,
            self.columns,
            rows=0,
            rejects=0,
            label_reading=reading,
        )
