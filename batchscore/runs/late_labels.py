"""Labels that came after a run, joined to its rows: by id, or by file and row.

Ids match as values (:mod:`batchscore.runs.matching_ids`). What is joined is an array on disk, one label a row, so that memory does not
grow with the rows; beside it stands for each row when its label came.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from batchscore.errors import DataError, printable
from batchscore.formats.arrow_files import mapped
from batchscore.model.labels import OTHERS
from batchscore.records import UNKNOWN_LABEL, UNLABELLED, Task
from batchscore.reports.run_tables import LATER_LABELS
from batchscore.runs.matching_ids import ABSENT, AMBIGUOUS, UNCLEAR, whole_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.runs.label_files import LabelFile, LabelRows, Places
    from batchscore.runs.late_rows import LateRows
    from batchscore.system.own_paths import OwnPath

_LOG = logging.getLogger(__name__)
_BEFORE, _NOW = 1, 2
"""When the label of a row came: with an earlier call, with this one; 0 with the run, or not at all."""
_CHUNK_ROWS = 65_536
_MOST_UNKNOWN = 1000


@dataclasses.dataclass(slots=True)
class Joined:
    """What became of the rows of one file of labels."""

    rows: int = 0
    new: int = 0
    """The row had no label."""
    equal: int = 0
    """The row had this label already."""
    corrected: int = 0
    """The row had another one, with the run or from an earlier call."""
    repeated: int = 0
    """The same label for the same row again, in this call."""
    conflicting: int = 0
    """Another label for the same row, in this call."""
    blank: int = 0
    """There is none."""
    unknown_label: int = 0
    """Its value is none that the model knows."""
    unknown_row: int = 0
    """No row has that id, or it was one that could not be read."""
    several_rows: int = 0
    """Several rows of the run have that id."""

    @property
    def matched(self) -> int:
        """Rows that say something of a row of the run."""
        return self.new + self.equal + self.corrected + self.repeated + self.conflicting

    def words(self) -> str:
        """Everything that is not nothing, in words."""
        said = [f"{self.rows:,} rows"]
        said += [
            f"{count:,} {words}" for name, words in LATER_LABELS.items() if (count := getattr(self, name))
        ]
        return ", ".join(said)


class LateLabels:
    """The labels of a run's rows: those that came with it, those of earlier calls, those of this one."""

    def __init__(self, rows: LateRows, task: Task, conflicts: str) -> None:
        self._rows, self._task, self._conflicts = rows, task, conflicts
        with (rows.folder / "came").open_fresh() as file:
            for start in range(0, rows.n, _CHUNK_ROWS):
                file.write(bytes(min(_CHUNK_ROWS, rows.n - start)))
        self.unknown: dict[int, str] = {}
        """The value of each row whose label came later and is none, up to a number."""
        self.matched_by = ""

    # ---------------------------------------------------------------------------------------- those of earlier calls

    def take_over(self, path: OwnPath, labels: Sequence[str]) -> None:
        """The labels that an earlier evaluation of the same run keeps."""
        index = {label: number for number, label in enumerate(labels)}
        with path.readable() as name, mapped(name) as file, pa.ipc.open_file(file) as reader:
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                places = np.asarray(batch.column("place"))
                if len(places) and not 0 <= places.min() <= places.max() < self._rows.n:
                    raise ValueError("it has a place that the run does not have")
                given, unknown = _given(batch.column("label"), batch.column("unknown"), self._task, index)
                self._write(places, given, _BEFORE)
                self._note_unknown(places, unknown)

    def keep(self, labels: Sequence[str], out: IO[bytes]) -> None:
        """Write the labels that came later, for :meth:`take_over`: an Arrow file of place, file, row and label."""
        schema = pa.schema(
            [
                ("place", pa.int64()),
                ("file", pa.string()),
                ("row", pa.int64()),
                ("label", _KEPT[self._task]),
                ("unknown", pa.string()),
            ]
        )
        with pa.ipc.new_file(out, schema) as writer:
            for part in self._rows.parts:
                start, end = self._rows.starts[part.number], self._rows.starts[part.number + 1]
                at = np.flatnonzero(self._came()[start:end]) + start if end > start else np.empty(0, np.int64)
                if not len(at):
                    continue
                given = np.array(self._rows.given_array()[at])
                rows = np.array(self._rows.rows_array()[at])
                name = self._rows.files[part.file].name.encode("utf-8", "backslashreplace").decode()
                unknown = [self.unknown.get(int(place)) for place in at]
                columns = [at, [name] * len(at), rows, _kept(given, self._task, labels), unknown]
                arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
                writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))

    # -------------------------------------------------------------------------------------------- those of this call

    def join(self, file: LabelFile) -> Joined:
        """Join the labels of a file.

        Raises:
            DataError: nothing says which rows they are for, an id or a label contradicts another, or not one is of a row of the run.
        """
        find = self._finder(file)
        told, first = Joined(), ""
        for rows in file.rows():
            count = len(rows.cells)
            told.rows += count
            places, named = find(rows), _kind(rows.given, self._task)
            is_blank = named == UNLABELLED
            told.blank += int(is_blank.sum())
            told.unknown_row += int(((places == ABSENT) & ~is_blank).sum())
            told.several_rows += int(((places == AMBIGUOUS) & ~is_blank).sum())
            first = first or _first_missing(rows, file.places, places, is_blank)
            at = np.flatnonzero((places >= 0) & ~is_blank)
            self._apply_each(places[at], rows.given[at], [rows.cells[int(k)] for k in at], told, file)
        if told.rows > told.blank and not told.matched and not told.unknown_label:
            raise DataError(
                f"--labels {printable(file.path)}: not one of {told.rows:,} rows is of a row of the run ({told.words()}). By "
                f"{self.matched_by}; {first}. Name other columns with --id-column, or --file-column and --row-column."
            )
        return told

    def _finder(self, file: LabelFile) -> Callable[[LabelRows], NDArray[np.int64]]:
        """The place of each row of a file of labels among those of the run, by id where both have ids."""
        places, rows = file.places, self._rows
        if places.id is not None and rows.has_ids:
            self.matched_by = "id"
            return lambda found: self._by_id(found.texts[places.id or ""], file)
        why = "the run has no ids" if places.id is not None else f"{printable(file.path)} has no ids"
        if places.id is not None and any(f.columns.text and f.columns.id is None for f in rows.files):
            why = "the predictions of the run hold no ids (say which column has them: --run-id-column)"
        if places.row is None or (places.file is None and len(rows.files) > 1):
            raise DataError(
                f"--labels {printable(file.path)}: {why}, so its labels must say their file and row: name those columns with "
                "--file-column and --row-column."
            )
        if not rows.has_rows:
            raise DataError(
                f"--labels {printable(file.path)}: {why}, and the predictions are divided by --partition-by, so that nothing says "
                "which row of its file is which. Give ids: --id-column, --run-id-column."
            )
        if places.first_row is None:
            raise DataError(
                f"--labels {printable(file.path)}: {why}, so labels are joined by row, and in such a file rows may count from 0 (as "
                "row in mismatches.parquet) or from 1 (as in mismatches.csv). Say which: --first-row 0 or --first-row 1."
            )
        self.matched_by = "file and row"
        first = places.first_row
        return lambda found: self._by_row(found.texts, places, first, file)

    def _by_id(self, ids: Sequence[str | None], file: LabelFile) -> NDArray[np.int64]:
        found = self._rows.ids.find(ids)
        if len(unclear := np.flatnonzero(found == UNCLEAR)):
            raise DataError(
                f"--labels {printable(file.path)}: the id {printable(ids[int(unclear[0])])[:60]} could be that of several rows, which "
                "differ only by how the number is written (leading zeros, decimals). Write it as the run has it."
            )
        return found

    def _by_row(
        self, texts: Mapping[str, Sequence[str | None]], places: Places, first: int, file: LabelFile
    ) -> NDArray[np.int64]:
        files = {
            f.name.encode("utf-8", "backslashreplace").decode(): k for k, f in enumerate(self._rows.files)
        }
        numbers = texts[places.row or ""]
        names = texts[places.file] if places.file else [next(iter(files), "")] * len(numbers)
        found = np.full(len(numbers), ABSENT, dtype=np.int64)
        wanted: dict[int, list[tuple[int, int]]] = collections.defaultdict(list)
        for at, (name, number) in enumerate(zip(names, numbers, strict=True)):
            text, known = whole_number((number or "").strip()), files.get(name or "")
            if text is None or known is None:
                continue
            row = int(text) - first
            if not 0 <= row < self._rows.files[known].rows:
                raise DataError(
                    f"--labels {printable(file.path)}: row {text} of {printable(name)}, whose {self._rows.files[known].rows:,} rows count "
                    f"from {first}. Say how they count in this file: --first-row 0 or --first-row 1."
                )
            wanted[known].append((at, row))
        for known, pairs in wanted.items():
            self._fill(found, known, np.array(pairs, dtype=np.int64))
        return found

    def _fill(self, found: NDArray[np.int64], file: int, pairs: NDArray[np.int64]) -> None:
        starts = [*self._rows.file_starts, self._rows.n]
        start, end = starts[file], starts[file + 1]
        if start == end:
            return
        rows = self._rows.rows_array()[start:end]
        at = np.minimum(np.searchsorted(rows, pairs[:, 1]), end - start - 1)
        is_there = rows[at] == pairs[:, 1]
        found[pairs[is_there, 0]] = at[is_there] + start

    # ------------------------------------------------------------------------------------------------------- one label

    def _apply_each(
        self,
        places: NDArray[np.int64],
        given: NDArray[Any],
        cells: Sequence[Any],
        told: Joined,
        file: LabelFile,
    ) -> None:
        left = np.arange(len(places))
        while len(left):  # of several labels for one row the first ones first
            _, first = np.unique(places[left], return_index=True)
            now = left[np.sort(first)]
            self._apply(places[now], given[now], [cells[int(k)] for k in now], told, file)
            left = np.delete(left, first)

    def _apply(
        self,
        places: NDArray[np.int64],
        given: NDArray[Any],
        cells: Sequence[Any],
        told: Joined,
        file: LabelFile,
    ) -> None:
        """Labels of rows that are all different."""
        before, came = np.array(self._rows.given_array()[places]), np.array(self._came()[places])
        kind, kind_before = _kind(given, self._task), _kind(before, self._task)
        is_known, was_known = kind >= 0, kind_before >= 0
        is_equal = is_known & was_known & _are_equal(given, before)
        is_other = is_known & was_known & ~is_equal
        is_late = came == _NOW
        conflicting = is_other & is_late
        told.unknown_label += int((~is_known).sum())
        told.new += int((is_known & ~was_known).sum())
        told.equal += int((is_equal & ~is_late).sum())
        told.repeated += int((is_equal & is_late).sum())
        told.corrected += int((is_other & ~is_late).sum())
        told.conflicting += int(conflicting.sum())
        if conflicting.any() and self._conflicts == "refuse":
            place = int(places[np.flatnonzero(conflicting)[0]])
            raise DataError(
                f"--labels {printable(file.path)}: {self._named(place)} has two different labels in this call. Say which counts: "
                "--conflicts first or --conflicts last; or mend the labels."
            )
        stays = conflicting if self._conflicts == "first" else np.zeros(len(places), dtype=np.bool_)
        taken = (is_known & ~stays) | (~is_known & ~was_known)
        self._write(places[taken], given[taken], _NOW)
        values = [None if known else str(cell) for known, cell in zip(is_known, cells, strict=True)]
        self._note_unknown(places[taken], [values[int(k)] for k in np.flatnonzero(taken)])

    def _named(self, place: int) -> str:
        """A row by its place, for messages."""
        file = int(np.searchsorted(np.array(self._rows.file_starts), place, side="right")) - 1
        name = printable(self._rows.files[file].name)
        return (
            f"row {int(self._rows.rows_array()[place])} of {name}"
            if self._rows.has_rows
            else f"a row of {name}"
        )

    def _write(self, places: NDArray[np.int64], given: NDArray[Any], came: int) -> None:
        if len(places):
            self._rows.given_array("r+")[places] = given
            self._came("r+")[places] = came

    def _came(self, mode: str = "r") -> NDArray[np.int8]:
        return self._rows.mapped("came", np.int8, mode, (self._rows.n,))

    def _note_unknown(self, places: NDArray[np.int64], values: Sequence[str | None]) -> None:
        for place, value in zip(places, values, strict=True):
            self.unknown.pop(int(place), None)
            if value is not None and len(self.unknown) < _MOST_UNKNOWN:
                self.unknown[int(place)] = printable(value.strip())[:100]

    # ---------------------------------------------------------------------------------------------------- what is known

    def unknown_labels(self) -> list[dict[str, int]]:
        """For each file, values that are no label, with the number of rows of each."""
        found = []
        starts = [*self._rows.file_starts, self._rows.n]
        for number, entry in enumerate(self._rows.run.files):
            start, end = starts[number], starts[number + 1]
            count = sum(int((kind == UNKNOWN_LABEL).sum()) for kind in self._kinds(start, end))
            own = {str(value): int(rows) for value, rows in (entry.get("unknown_labels") or {}).items()}
            late = collections.Counter(v for place, v in self.unknown.items() if start <= place < end)
            if late or sum(own.values()) != count:
                own = (
                    dict(sorted((collections.Counter(own) + late).items()))
                    if sum(own.values()) + late.total() == count
                    else {OTHERS: count}
                )
            found.append(own if count else {})
        return found

    def labelled(self) -> int:
        """Rows that have a label now."""
        return sum(int((kind >= 0).sum()) for kind in self._kinds(0, self._rows.n))

    def are_whole(self) -> bool:
        """Whether all given numbers are whole."""
        pieces = (
            np.array(self._rows.given_array()[s : s + _CHUNK_ROWS])
            for s in range(0, self._rows.n, _CHUNK_ROWS)
        )
        return all((piece[np.isfinite(piece)] % 1 == 0).all() for piece in pieces)

    def _kinds(self, start: int, end: int) -> Iterator[NDArray[np.int64]]:
        for at in range(start, end, _CHUNK_ROWS):
            yield _kind(np.array(self._rows.given_array()[at : min(at + _CHUNK_ROWS, end)]), self._task)


def _first_missing(
    rows: LabelRows, places: Places, found: NDArray[np.int64], is_blank: NDArray[np.bool_]
) -> str:
    """The first row of a file of labels that is not found, in words."""
    missing = np.flatnonzero((found < 0) & ~is_blank)
    if not len(missing):
        return ""
    names = [name for name in places[:3] if name]
    said = ", ".join(
        f"{printable(name)} {printable(rows.texts[name][int(missing[0])])[:60]}" for name in names
    )
    return f"the first: {said}"


def _kind(given: NDArray[Any], task: Task) -> NDArray[np.int64]:
    """0 or more with a known label, ``UNLABELLED`` without, ``UNKNOWN_LABEL`` of a value that is none: int64 ``[n]``."""
    if task is Task.REGRESSION:
        none = np.where(np.isnan(given), UNLABELLED, UNKNOWN_LABEL)
        return np.where(np.isfinite(given), 0, none).astype(np.int64)
    return (given.min(axis=1) if given.ndim > 1 else given).astype(np.int64)


def _are_equal(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    same = one == other
    return same.all(axis=1) if same.ndim > 1 else np.asarray(same)


_KEPT = {
    Task.SINGLE_LABEL: pa.string(),
    Task.MULTI_LABEL: pa.list_(pa.string()),
    Task.REGRESSION: pa.float64(),
}


def _kept(given: NDArray[Any], task: Task, labels: Sequence[str]) -> list[Any]:
    """Labels as they are kept: names, lists of names, numbers; None for what is none."""
    known = _kind(given, task) >= 0
    if task is Task.SINGLE_LABEL:
        return [labels[int(k)] if is_known else None for k, is_known in zip(given, known, strict=True)]
    if task is Task.MULTI_LABEL:
        return [
            [labels[int(k)] for k in np.flatnonzero(row > 0)] if is_known else None
            for row, is_known in zip(given, known, strict=True)
        ]
    return [float(number) if is_known else None for number, is_known in zip(given, known, strict=True)]


def _given(
    kept: pa.Array, unknown: pa.Array, task: Task, index: Mapping[str, int]
) -> tuple[NDArray[Any], list[str | None]]:
    """The inverse of :func:`_kept`; what is none was a value that no label has."""
    values: list[Any] = kept.to_pylist()
    if task is Task.SINGLE_LABEL:
        single = [UNKNOWN_LABEL if value is None else index[value] for value in values]
        return np.array(single, dtype=np.int32), unknown.to_pylist()
    if task is Task.MULTI_LABEL:
        several = np.full((len(values), len(index)), UNKNOWN_LABEL, dtype=np.int8)
        for row, names in enumerate(values):
            if names is not None:
                several[row] = 0
                several[row, [index[name] for name in names]] = 1
        return several, unknown.to_pylist()
    return np.array([np.inf if value is None else value for value in values]), unknown.to_pylist()
