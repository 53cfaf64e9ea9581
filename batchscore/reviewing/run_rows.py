"""A finished run as a reviewer needs it: every row with its text, what it was given and what was predicted, read once in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from batchscore.errors import DataError, NoInputError, UsageError, printable
from batchscore.formats.answers import answers_of
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.reading import texts_of_file
from batchscore.records import Status, Task
from batchscore.reviewing.later_labels import LaterLabels, later_labels
from batchscore.runs.as_written import changes_in, told
from batchscore.runs.baselines import RowsRead
from batchscore.runs.earlier_answers import EarlierAnswers, earlier_answers_of
from batchscore.runs.earlier_files import EarlierFile, files_of, settings_of
from batchscore.runs.folder import DAMAGE, MISMATCHES, RunFolder, is_evaluation, is_finished, read_run
from batchscore.runs.mismatches import storable
from batchscore.system.own_paths import own_folder
from batchscore.system.storage import names_in_manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILE_BITS = 40
_PROBABILITY = "probability"


def key_of(file: int, row: int) -> int:
    """A row of a run as one number: the place of its file among the inputs, and its 0-based row there, rejects counted."""
    return file << _FILE_BITS | row


def place_of(key: int) -> tuple[int, int]:
    """The inverse of :func:`key_of`.

    >>> place_of(key_of(3, 17))
    (3, 17)
    """
    return key >> _FILE_BITS, key & ((1 << _FILE_BITS) - 1)


class RowChunk(NamedTuple):
    """Some rows of a file, in order: all ``[n]``."""

    keys: NDArray[np.int64]
    given: NDArray[np.int32]
    """Index of the label; below 0 if there is none, or none that the model knows."""
    predicted: NDArray[np.int32]
    """Index of the label; -1 if there is none."""
    abstained: NDArray[np.bool_]
    """Rows that were scored, where no label reached its threshold."""
    probability: NDArray[np.float64]
    """Of the predicted label; NaN where it is not known."""
    texts: Sequence[str | None]
    pairs: Sequence[str | None] | None
    """Second texts, if rows are two."""
    ids: Sequence[str | None] | None
    slices: dict[str, Sequence[str | None]]
    """The columns by whose values the run's page has slices."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReviewedRun:
    """A finished run that was not changed, of a model with one label a text."""

    path: Path
    run: RunFolder
    files: tuple[EarlierFile, ...]
    answers: EarlierAnswers
    called: OutputColumns
    later: LaterLabels | None = None
    """Labels that came after the run; None without any."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over everything that its results depend on."""
        return self.run.fingerprint

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of its model."""
        return self.answers.labels

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its inputs, below ``predictions/``."""
        return tuple(file.name for file in self.files)

    @property
    def slices(self) -> tuple[str, ...]:
        """The input columns by whose values its page has slices, as far as predictions hold them."""
        names: Sequence[str] = self.run.options.get("slice_columns") or ()
        return tuple(name for name in dict.fromkeys(names) if self.called.found(name) is not None)

    @property
    def mark(self) -> str:
        """By which the run is known together with the labels that it has now."""
        return self.fingerprint + (self.later.mark if self.later else "")

    def chunks(self) -> Iterator[RowChunk]:
        """Every row in the order of the inputs, a few thousand at a time, with the newest label of each.

        Raises:
            DataError: a file is damaged.
            StorageError: it cannot be read.
        """
        later = _Later(self._later_batches())
        for number, file in enumerate(self.files):
            if file.has_rows:
                for chunk in self._chunks(number, file):
                    yield later.over(chunk)

    def _later_batches(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
        if self.later is not None:
            names = {storable(name): number for number, name in enumerate(self.names)}
            for file, rows, given in self.later.of_files(names, self.labels):
                yield rows + (file << _FILE_BITS), given

    def _chunks(self, number: int, file: EarlierFile) -> Iterator[RowChunk]:
        answers, held = self.answers, self.called.added_names(answers_of(Task.SINGLE_LABEL, self.labels))
        probability = held.get(_PROBABILITY)
        slices = {name: self.called.found(name) or "" for name in self.slices}
        columns = file.columns
        wanted = [
            *answers.columns,
            answers.status,
            *filter(None, [probability, *columns.texts, columns.id, *columns.given]),
            *slices.values(),
        ]
        rows = RowsRead(self.path, file)
        for texts in texts_of_file(file.source, settings_of(file), list(dict.fromkeys(wanted))):
            predicted = answers.predicted(texts)
            status = np.array(
                [each == Status.ABSTAINED.text for each in texts[answers.status]], dtype=np.bool_
            )
            given = answers.none_given(len(predicted))
            if columns.given:
                given = answers.given(texts, columns, file.meanings)
            yield RowChunk(
                rows.rows(len(predicted)) + (number << _FILE_BITS),
                given,
                predicted,
                status,
                _numbers(texts[probability] if probability else [None] * len(predicted)),
                texts[columns.text],
                None if columns.text_pair is None else texts[columns.text_pair],
                None if columns.id is None else texts[columns.id],
                {name: texts[column] for name, column in slices.items()},
            )

    def mismatches(self, most: int) -> tuple[NDArray[np.int64], NDArray[np.bool_], int]:
        """The keys of the first mismatches in their order, whether each is worth checking first, and how many there are in all."""
        folder = self.later.place if self.later else own_folder(self.path)
        if MISMATCHES not in names_in_manifest(folder):
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.bool_), 0
        place = {name: number for number, name in enumerate(map(storable, self.names))}
        keys: list[int] = []
        issues: list[bool] = []
        with (folder / MISMATCHES).open_read() as file:
            table = pq.ParquetFile(file)
            for batch in table.iter_batches(columns=["file", "row", "is_label_issue"]):
                found = zip(*(column.to_pylist() for column in batch.columns), strict=True)
                for name, row, is_issue in found:
                    keys.append(key_of(place[name], row))
                    issues.append(bool(is_issue))
                if len(keys) >= most:
                    break
            total = table.metadata.num_rows
        return np.array(keys[:most], dtype=np.int64), np.array(issues[:most], dtype=np.bool_), total


class _Later:
    """Labels that came later, put over those of the run chunk by chunk: both are in the order of keys."""

    def __init__(self, batches: Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]) -> None:
        self._batches = batches
        self._keys, self._given = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32)

    def over(self, chunk: RowChunk) -> RowChunk:
        """The chunk with the newest label of each row."""
        if not len(chunk.keys):
            return chunk
        while not len(self._keys) or self._keys[-1] < chunk.keys[-1]:
            batch = next(self._batches, None)
            if batch is None:
                break
            self._keys, self._given = np.append(self._keys, batch[0]), np.append(self._given, batch[1])
        _, there, here = np.intersect1d(self._keys, chunk.keys, assume_unique=True, return_indices=True)
        given = chunk.given.copy()
        given[here] = self._given[there]
        rest = np.searchsorted(self._keys, chunk.keys[-1], side="right")
        self._keys, self._given = self._keys[rest:], self._given[rest:]
        return chunk._replace(given=given)


def open_run(folder: Path) -> ReviewedRun:
    """Open a finished run for review.

    Raises:
        NoInputError: there is no finished run.
        UsageError: it is an evaluation.
        DataError: it is not as it was written, or lacks what a review needs; the message says what helps.
    """
    if not is_finished(folder):
        raise NoInputError(f"{printable(folder)} is no finished run. Name the folder of one.")
    if problems := changes_in(folder):
        raise DataError(
            f"{printable(folder)} is not as it was written: {told(problems)}. Score again with --force."
        )
    try:
        run = read_run(folder)
        if is_evaluation(run.facts):
            raise UsageError(
                f"{printable(folder)} is an evaluation. Name the run itself, {printable(run.facts['evaluates']['path'])}: a review of it "
                "takes the newest labels from the evaluation beside it."
            )
        task = run.metrics.get("task", Task.SINGLE_LABEL)
        called = OutputColumns.of_options(run.options)
        files = files_of(run, names_in_manifest(folder))
        labels = tuple(run.model["labels"])
    except DAMAGE as error:
        raise DataError(
            f"{printable(folder)}: its facts cannot be read: {printable(repr(error))}. Score again with --force."
        ) from error
    _refuse(folder, task, called, files)
    answers = earlier_answers_of(Task.SINGLE_LABEL, labels, called)
    return ReviewedRun(folder, run, files, answers, called, later_labels(folder))


def _refuse(folder: Path, task: object, called: OutputColumns, files: Sequence[EarlierFile]) -> None:
    name = printable(folder)
    if task != Task.SINGLE_LABEL:
        raise DataError(
            f"{name} is the run of a model with another task ({printable(task)}); a review is of one label a text. Its mismatches "
            "are in the folder, for a spreadsheet and for programs."
        )
    if called.partition is not None:
        raise DataError(
            f"{name}: its predictions are divided by --partition-by, so that it cannot be told which rows of the input they are. "
            "Score again without it to review that run."
        )
    lacking = next((file for file in files if file.has_rows and not file.has_texts), None)
    if lacking is not None:
        raise DataError(
            f"{name}: its predictions do not hold the texts ({printable(', '.join(lacking.chosen.texts))}), so there is nothing to "
            "read. Score again with that column among them (see --keep-columns and --drop-columns)."
        )


def _numbers(texts: Sequence[str | None]) -> NDArray[np.float64]:
    return np.array([float(text) if text else np.nan for text in texts], dtype=np.float64)
