"""An earlier run to compare with: opened and checked before anything is scored, then read in step with the parts.

Rows are matched by id if both runs have an id column and the earlier predictions hold it (``7`` and ``7.0`` are the same number, ``07`` is another text), else by
file name and row. A file that changed since (by its SHA-256) may have other rows in the same places: there a row is matched
only if its text is the same. Only a few thousand rows of the earlier predictions are in memory; ids are looked up in a table
on disk. Given labels of both runs are compared too: accuracy of both runs is computed with tonight's labels, which may
differ from the earlier ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from batchscore.errors import DataError, ModelError, NoInputError, as_named, printable
from batchscore.evaluation import Distributions
from batchscore.formats.columns import Texts, texts_of
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.reading import texts_of_file
from batchscore.formats.staged import StagedPart
from batchscore.records import InputFile, Part, Task
from batchscore.runs import shapes
from batchscore.runs.earlier_answers import EarlierAnswers, earlier_answers_of
from batchscore.runs.earlier_files import EarlierFile, described, files_of, settings_of
from batchscore.runs.folder import (
    DAMAGE,
    FACTS,
    METRICS,
    PREDICTIONS,
    REJECTS,
    TIMED,
    is_finished,
    read_run,
)
from batchscore.runs.matching_ids import ABSENT, AMBIGUOUS, MatchingIds
from batchscore.system.documents import checked, parse_json
from batchscore.system.own_paths import AnyPath, OwnPath, own_folder
from batchscore.system.storage import make_folder, read_manifest, remove_tree, sha256_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


__all__ = [
    "ABSENT",
    "AMBIGUOUS",
    "Baseline",
    "Earlier",
    "Matcher",
    "RowsRead",
    "earlier_run",
    "match_rows",
    "open_baseline",
    "refuse_unmatchable",
]


class EarlierRows(NamedTuple):
    """Some predictions of one file, in order: ``row[n]`` in the input, and ``predicted`` and ``given`` as their task has them."""

    row: NDArray[np.int64]
    predicted: NDArray[Any]
    given: NDArray[Any]
    texts: Texts


@dataclasses.dataclass(frozen=True, slots=True)
class Baseline:
    """An earlier run whose model has the same labels as tonight's."""

    path: Path
    facts: Mapping[str, Any]
    """``run.json``."""
    metrics: Mapping[str, Any]
    """``metrics.json``."""
    files: tuple[EarlierFile, ...]
    hashes: Mapping[str, str]
    """Path → SHA-256 of its files, from its ``_SUCCESS``."""
    answers: EarlierAnswers
    """How its files are read, with tonight's labels."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all its files except those that hold times: the same results are the same baseline."""
        lasting = sorted(pair for pair in self.hashes.items() if pair[0] not in TIMED)
        return hashlib.sha256(json.dumps(lasting).encode()).hexdigest()

    @property
    def distributions(self) -> Distributions:
        """The distributions that drift is measured against."""
        return Distributions.from_metrics(self.metrics)

    def verify(self) -> None:
        """Check the hash of every file that the comparison needs.

        Raises:
            DataError: a file is missing or was changed.
        """
        for name, digest in self.hashes.items():
            if name.startswith(f"{PREDICTIONS}/") or name in {FACTS, METRICS, REJECTS}:
                _check(self.path, name, digest)
        for file in self.files:
            columns = {column.name for column in described(file).columns}
            missing = [name for name in self.answers.columns if columns and name not in columns]
            if missing:
                raise _damaged(self.path, f"{printable(file.path)} has no column {printable(missing[0])}")

    def chunks(self, file: EarlierFile, names: Sequence[str]) -> Iterator[EarlierRows]:
        """The predictions of one file in order, a few thousand rows at a time, with the columns ``names``."""
        wanted = list(dict.fromkeys([*self.answers.columns, *file.columns.given, *names]))
        rejected = RowsRead(self.path, file)
        for texts in texts_of_file(file.source, settings_of(file), wanted):
            try:
                predicted = self.answers.predicted(texts)
            except KeyError as error:
                raise _damaged(
                    self.path, f"{printable(file.path)} holds the label {printable(error.args[0])[:40]}"
                ) from None
            given = self.answers.none_given(len(predicted))
            if file.columns.given:
                given = self.answers.given(texts, file.columns, file.meanings)
            yield EarlierRows(rejected.rows(len(predicted)), predicted, given, texts)


def open_baseline(folder: Path, labels: Sequence[str], task: Task = Task.SINGLE_LABEL) -> Baseline:
    """Open a finished run to compare with; tonight's model has these ``labels``, and does this ``task``.

    Raises:
        NoInputError: there is no finished run.
        DataError: it is damaged, or of another version.
        ModelError: its model has other labels, or another task.
    """
    if not is_finished(folder):
        raise NoInputError(
            f"--baseline {printable(folder)} is no finished run. Name the folder of one, or leave it out."
        )
    hashes = read_manifest(folder)
    try:
        run = read_run(folder)
        its_labels, called = tuple(run.model["labels"]), OutputColumns.of_options(run.options)
        files = files_of(run, hashes)
        Distributions.from_metrics(run.metrics)
    except DataError as error:
        raise _damaged(folder, str(error)) from error
    except DAMAGE as error:
        raise _damaged(
            folder, f"its {FACTS} and {METRICS} cannot be read: {printable(repr(error))}"
        ) from error
    its_task = run.metrics.get("task", Task.SINGLE_LABEL)
    if its_task != task:
        raise ModelError(
            f"--baseline {printable(folder)}: its model's task is {printable(its_task)}, this one's is {task}. Compare with a "
            "run of the same task, or leave --baseline out."
        )
    if set(its_labels) != set(labels):
        raise ModelError(
            f"--baseline {printable(folder)}: its model has the labels {printable(', '.join(its_labels))}, this one "
            f"{printable(', '.join(labels))}. Compare with a run of the same labels, or leave --baseline out."
        )
    answers = earlier_answers_of(task, labels, called)
    return Baseline(folder, run.facts, run.metrics, files, hashes, answers)


def _check(folder: Path, name: str, digest: str) -> None:
    try:
        is_whole = sha256_of(own_folder(folder) / name) == digest
    except OSError as error:
        raise _damaged(folder, f"{printable(name)} cannot be read ({error.strerror})") from error
    if not is_whole:
        raise _damaged(folder, f"{printable(name)} is not as it was written")


def _damaged(folder: Path, what: str) -> DataError:
    return DataError(
        f"--baseline {printable(folder)}: {what.rstrip('.')}. Score that run again with --force, or name another."
    )


class RowsRead:
    """Input rows of the predictions of a file: consecutive, except for the rejects between them."""

    def __init__(self, folder: Path, file: EarlierFile) -> None:
        self._rejects = _reject_rows(folder / REJECTS, file.name) if file.rejects else iter(())
        self._reject = next(self._rejects, None)
        self._next = 0

    def rows(self, count: int) -> NDArray[np.int64]:
        """Input rows of the next ``count`` predictions, int64."""
        rows = np.arange(self._next, self._next + count, dtype=np.int64)
        while self._reject is not None and count and self._reject <= rows[-1]:
            rows[np.searchsorted(rows, self._reject) :] += 1
            self._reject = next(self._rejects, None)
        self._next = int(rows[-1]) + 1 if count else self._next
        return rows


def _reject_rows(path: Path, name: str) -> Iterator[int]:
    try:
        with path.open("rb") as lines:
            for line in lines:
                reject = checked(parse_json(line), shapes.REJECT)
                if reject["file"] == name:
                    yield reject["row"]
    except ValueError as error:
        raise _damaged(path.parent, f"{REJECTS} cannot be read ({printable(error)})") from error


class Earlier(NamedTuple):
    """What each of ``n`` rows was predicted and given in the earlier run, in the arrays of the task."""

    found: NDArray[np.int64]
    """``[n]``: ``ABSENT`` if the row did not occur, ``AMBIGUOUS`` if its id occurred more than once, else 0 or more."""
    predicted: NDArray[Any]
    given: NDArray[Any]


class Matcher(Protocol):
    """Finds the earlier prediction and label of each row; parts must come in plan order."""

    matched_by: str
    """``id``, or ``file and row``."""

    def before(self, part: Part, staged: StagedPart) -> Earlier:
        """The rows' earlier predictions and labels."""


def match_rows(baseline: Baseline, files: Sequence[InputFile], folder: AnyPath) -> Matcher:
    """Match the rows of ``files`` with those of an earlier run; the id table is made in ``folder``."""
    is_by_id = _have_ids(baseline, files) and all(f.columns.id for f in baseline.files if f.has_rows)
    return _ById(baseline, files, folder) if is_by_id else _ByRow(baseline, files)


def _have_ids(baseline: Baseline, files: Sequence[InputFile]) -> bool:
    """Whether every file of both runs has a column of ids, whether or not the earlier predictions hold it."""
    before = all(file.chosen.id is not None for file in baseline.files if file.has_rows)
    # an empty file has no columns to choose from
    return before and all(file.columns.id is not None for file in files if file.columns.text)


def refuse_unmatchable(baseline: Baseline, files: Sequence[InputFile]) -> None:
    """Refuse an earlier run whose predictions lack what its rows would be told by.

    Raises:
        DataError: names the columns, and what helps.
    """
    earlier = {file.name: file for file in baseline.files if file.has_rows}
    lacking = [file for file in earlier.values() if file.chosen.id is not None and file.columns.id is None]
    if _have_ids(baseline, files) and not lacking:
        return
    if any(file.is_partitioned for file in baseline.files):
        has_had_ids = bool(lacking)
        help_ = (
            "Leave --baseline out"
            if has_had_ids
            else "Name the ids with --id-column, or leave --baseline out"
        )
        what = "its predictions do not hold the ids" if has_had_ids else "not both runs have ids"
        raise DataError(
            f"--baseline {printable(baseline.path)}: its predictions are divided by --partition-by, so its rows can be matched by id "
            f"alone, and {what}. {help_}."
        )
    pairs = [(file, earlier[file.name]) for file in files if file.columns.text and file.name in earlier]
    changed = [(now, then) for now, then in pairs if now.sha256 != then.input_sha256 and not then.has_texts]
    if changed:
        what = f"{printable(changed[0][0].name)} has changed since then, and its predictions hold neither its ids nor its texts"
    elif lacking and not pairs and _have_ids(baseline, files):
        what = f"its predictions do not hold the ids ({printable(lacking[0].chosen.id)}), and no file has a name that it knows"
    else:
        return
    raise DataError(
        f"--baseline {printable(baseline.path)}: {what}, so its rows cannot be matched. Score that run again with those "
        "columns among its predictions (see --keep-columns and --drop-columns), or leave --baseline out."
    )


class _ById:
    """The ids lead to the place of each earlier row; what was predicted and given there lies in two files beside them."""

    matched_by = "id"

    def __init__(self, baseline: Baseline, files: Sequence[InputFile], folder: AnyPath) -> None:
        self._files, self._answers = files, baseline.answers
        remove_tree(folder)
        folder = own_folder(folder)
        make_folder(folder)
        self._ids = MatchingIds(folder, int(baseline.metrics["counts"]["read"]))
        self._predicted, self._given = folder / "predicted", folder / "given"
        rows = 0
        with self._predicted.open_fresh() as predicted, self._given.open_fresh() as given:
            for file in baseline.files:
                if (name := file.columns.id) is not None:
                    for chunk in baseline.chunks(file, [name]):
                        ids, places = chunk.texts[name], np.arange(rows, rows + len(chunk.row))
                        self._ids.add(ids, places)
                        predicted.write(np.ascontiguousarray(chunk.predicted).tobytes())
                        given.write(np.ascontiguousarray(chunk.given).tobytes())
                        rows += len(chunk.row)
        self._ids.seal()

    def before(self, part: Part, staged: StagedPart) -> Earlier:
        file = self._files[part.file]
        assert file.columns.id is not None  # noqa: S101 - match_rows made sure
        ids = texts_of(staged, file, [file.columns.id])[file.columns.id]
        found = self._ids.find(ids)
        at, answers = np.flatnonzero(found >= 0), self._answers
        predicted, given = answers.none_predicted(len(found)), answers.none_given(len(found))
        if len(at):
            predicted[at] = self._mapped(self._predicted, answers.predicted_type)[found[at]]
            given[at] = self._mapped(self._given, answers.given_type)[found[at]]
        return Earlier(found, predicted, given)

    def _mapped(self, path: OwnPath, kind: Any) -> NDArray[Any]:
        """A file of rows, mapped anew each time, so that pages once read do not count as memory for ever."""
        with path.open_read() as file:
            return np.memmap(file, dtype=kind, mode="r").reshape(-1, *self._answers.row_shape)


class _ByRow:
    matched_by = "file and row"

    def __init__(self, baseline: Baseline, files: Sequence[InputFile]) -> None:
        self._baseline, self._files = baseline, files
        self._earlier = {file.name: file for file in baseline.files}
        self._current = -1
        self._chunks: Iterator[EarlierRows] = iter(())
        self._held: EarlierRows | None = None

    def before(self, part: Part, staged: StagedPart) -> Earlier:
        file, rows = self._files[part.file], staged.row
        answers = self._baseline.answers
        found = np.full(len(rows), ABSENT, dtype=np.int64)
        predicted, given = answers.none_predicted(len(rows)), answers.none_given(len(rows))
        earlier = self._earlier.get(file.name)
        if earlier is None:
            return Earlier(found, predicted, given)
        # a file with the same bytes has the same rows in the same places; otherwise texts are compared
        is_same = earlier.input_sha256 == file.sha256
        compared = [] if is_same else [*zip(file.columns.texts, earlier.columns.texts, strict=False)]
        if self._current != part.file:
            self._current, self._held = part.file, None
            self._chunks = self._baseline.chunks(earlier, [then for _, then in compared])
        texts = texts_of(staged, file, [now for now, _ in compared])
        for chunk in self._up_to(int(rows[-1]) if len(rows) else -1):
            here, there = (np.flatnonzero(np.isin(*pair)) for pair in ((rows, chunk.row), (chunk.row, rows)))
            for now, then in compared:
                pairs = zip(here, there, strict=True)
                same = [texts[now][a] == chunk.texts[then][b] for a, b in pairs]
                here, there = here[same], there[same]
            found[here] = chunk.row[there]
            predicted[here] = chunk.predicted[there]
            given[here] = chunk.given[there]
        return Earlier(found, predicted, given)

    def _up_to(self, last: int) -> Iterator[EarlierRows]:
        """Chunks that may have rows up to ``last``; the last one is kept, since it may have later rows too."""
        while True:
            if self._held is None:
                self._held = next(self._chunks, None)
            if self._held is None:
                return
            if len(self._held.row):
                yield self._held
                if self._held.row[-1] > last:
                    return
            self._held = None


def earlier_run(baseline: Baseline) -> dict[str, Any]:
    """The entry about the baseline in ``run.json``: ``path``, ``fingerprint``, when it ``finished``, and its ``content``."""
    return {
        "path": as_named(baseline.path),
        "fingerprint": baseline.facts.get("fingerprint"),
        "finished": baseline.facts.get("finished"),
        "content": baseline.fingerprint,
    }
