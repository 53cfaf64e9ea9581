"""What staged rows say, for a run and for an evaluation with later labels: the metrics, the mismatches, the page.

The parts are read twice, each time one after the other: for the metrics, and for the mismatches, whose order depends on all rows.
Nothing is in memory that grows with the rows.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore.config import Acceptance
from batchscore.evaluation import (
    AcceptedRows,
    Basis,
    Distributions,
    Gate,
    claim_wrong_labels,
    evaluate_gates,
    flat_metrics,
    measure_drift,
    measures_of,
    promise_gate,
)
from batchscore.formats.columns import Texts, texts_of
from batchscore.formats.staged import Block, StagedPart
from batchscore.records import InputFile, Part, Predictions
from batchscore.reports import render_run, run_text
from batchscore.reports.row_groups import groups_of
from batchscore.reports.written_files import WrittenFile
from batchscore.runs import mismatches
from batchscore.runs.baselines import AMBIGUOUS, Baseline, match_rows
from batchscore.runs.folder import (
    LABELS,
    MISMATCHES,
    MISMATCHES_CSV,
    PAGE,
    PURPOSES,
    REJECTS,
    TEXT,
)
from batchscore.runs.grouped_rows import GroupedRows
from batchscore.runs.mismatch_columns import MismatchColumns, mismatch_columns_of
from batchscore.runs.mismatch_files import write_both
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import atomic_write, make_folder, to_json, write_bytes

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from batchscore.evaluation.tasks import TaskEvaluation, TaskIssues
    from batchscore.reports.row_groups import Group
    from batchscore.runs.mismatches import FoundMismatches, MismatchTable

_LOG = logging.getLogger(__name__)
_LISTED_FAILURES = 1000
MEASURED_BY = "measured_by"
"""The key in ``run.json``: :meth:`Yardstick.to_json`."""
_OF_TRAINING = ("reliability", "calibration_error")
"""What a claim about wrong labels needs of the metrics of the training."""
_GROUP_ROWS = 1024
"""Rows from which a part is evaluated by itself; small ones wait until they are as many together."""
_SHOWN_MISMATCHES = 50
"""Number of mismatches on the page."""


@dataclasses.dataclass(frozen=True, slots=True)
class StagedRows:
    """The staged rows of a run: what they are of, and how a part of them is opened."""

    files: Sequence[InputFile]
    parts: Sequence[Part]
    open: Callable[[int], StagedPart]
    folder: OwnPath
    """Where what is needed in between may lie."""
    schemas: Sequence[pa.Schema] | None = None
    """Of the input's columns in each file's parts; None: those of the files."""
    block: Callable[[int], Block] | None = None
    """The rows of a part, by its number, with those of the parts after it that lie together; None: each part lies alone."""

    @property
    def has_labels(self) -> bool:
        """Whether any file has labels that predictions are compared with."""
        return any(file.columns.given for file in self.files)

    def blocks(self) -> Iterator[tuple[Sequence[Part], Block]]:
        """The parts in order, those together that lie together."""
        at = 0
        while at < len(self.parts):
            number = self.parts[at].number
            block = Block.of(self.open(number)) if self.block is None else self.block(number)
            yield self.parts[at : at + len(block)], block
            at += len(block)


@dataclasses.dataclass(frozen=True, slots=True)
class Yardstick:
    """What rows are measured by."""

    basis: Basis
    model: str
    """Fingerprint of the model."""
    trained: Mapping[str, Any]
    """What its training measured on rows held out."""
    gates: Sequence[Gate] = ()
    promise: Acceptance | None = None
    """What was accepted, and under which promise, if the run decided."""
    slice_columns: Sequence[str] = ()
    baseline: Baseline | None = None
    is_first: bool = False
    """Whether there is no baseline because there is none yet."""
    unused_labels: str | None = None
    """Why given labels are not looked at, if they are not."""
    with_text: bool = True
    """Whether the page may show texts."""

    def to_json(self) -> dict[str, Any]:
        """What later labels are measured by too, as far as nothing else in ``run.json`` has it."""
        trained = {name: self.trained[name] for name in _OF_TRAINING if self.trained.get(name) is not None}
        basis = {"calibration_error": self.basis.calibration_error, "temperature": self.basis.temperature}
        return {**basis, "trained": trained}


class Measuring:
    """Measures the rows of a run, and writes what they say."""

    def __init__(self, rows: StagedRows, by: Yardstick) -> None:
        self._rows, self._by = rows, by
        self._measures = measures_of(by.basis.task)
        self._issues: TaskIssues | None = None
        """The ranking of mismatches, if rows have labels: :meth:`metrics` makes its first pass."""

    # ------------------------------------------------------------------------------------------------- metrics

    def metrics(self) -> dict[str, Any]:
        """All metrics but the label issues, with drift against the baseline and the gates' results."""
        metrics, by = self._counted(), self._by
        if by.baseline is not None:
            report = measure_drift(by.baseline.distributions, Distributions.from_metrics(metrics))
            metrics["drift"] = report.to_json()
        gates = [*by.gates, *promise_gate(metrics, by.gates)]
        results = evaluate_gates(gates, flat_metrics(metrics), is_first=by.is_first)
        return {**metrics, "gates": [result.to_json() for result in results]}

    def _counted(self) -> dict[str, Any]:
        """All metrics of the rows, in one pass over the parts."""
        evaluation, baseline = self._measures.evaluation(self._by.basis), self._by.baseline
        self._issues = self._measures.issues(self._by.basis) if self._rows.has_labels else None
        evaluated = _InGroups(evaluation)
        compared = _BaselineComparison(baseline, self._rows, self._by) if baseline else None
        files, promise = self._rows.files, self._by.promise
        accepted = AcceptedRows.empty(len(self._by.basis.labels))
        duplicates = 0
        failures: list[dict[str, Any]] = []
        for parts, block in self._rows.blocks():
            given, predictions = block.whole.given, block.whole.predictions
            rejects = sum(part.rows for part in parts) - len(given)
            evaluated.add(_Evaluated(given, predictions, self._slices(parts, block), rejects))
            if self._issues is not None:
                self._issues.update_thresholds(given, predictions.probabilities)
            if promise is not None:
                accepted.update(given, predictions, promise.thresholds)
            if compared is not None:
                for part, staged in zip(parts, block.parts(), strict=True):
                    compared.update(part, staged, self._slices([part], Block.of(staged)))
            for part, told in zip(parts, block.facts, strict=True):
                duplicates += told["duplicates"]
                failures += [
                    {"file": files[part.file].name, "row": row, "reason": reason}
                    for row, reason in told["failures"]
                ]
        evaluated.flush()
        metrics = evaluation.metrics()
        metrics["counts"]["duplicate"] = duplicates
        if promise is not None:
            metrics["acceptance"] = accepted.summary(self._by.basis.labels, promise)
        if compared is not None:
            metrics["comparison"] = compared.summary()
            counts = metrics["counts"]
            _warn_if_no_id_matches(metrics["comparison"], counts["read"] - counts["rejects"])
        metrics["unknown_labels"] = {
            file.name: dict(file.unknown_labels) for file in files if file.unknown_labels
        }
        if self._by.unused_labels:
            metrics["unused_labels"] = self._by.unused_labels
        metrics["failed_rows"] = failures[:_LISTED_FAILURES]
        return metrics

    def _slices(self, parts: Sequence[Part], block: Block) -> dict[str, Sequence[str | None] | str]:
        """Slice name → values for the rows of some parts, besides length: the file, and the slice columns."""
        files = [self._rows.files[part.file] for part in parts]
        columns: Texts = {name: [] for name in self._by.slice_columns}
        if columns:
            for file, staged in zip(files, block.parts(), strict=True):
                for name, texts in texts_of(staged, file, self._by.slice_columns).items():
                    columns[name] += texts
        names = [file.name for file in files]
        file_names = (
            names[0] if len(names) == 1 else block.of_each_row(np.array(names, dtype=object)).tolist()
        )
        return {"file": file_names} | {f"{n} (input)" if n == "file" else n: v for n, v in columns.items()}

    # ---------------------------------------------------------------------------------------------- mismatches

    def list_mismatches(self, metrics: dict[str, Any], final: OwnPath) -> MismatchesShown:
        """Write the files of mismatches, if rows have labels, and add to the metrics what they tell; after :meth:`metrics`."""
        if self._issues is None:
            return MismatchesShown()
        rows, issues, columns = self._rows, self._issues, mismatch_columns_of(self._by.basis)
        table = mismatches.MismatchTable(rows.files, rows.parts, columns, rows.open, rows.schemas)
        grouped, found = GroupedRows(groups_of(metrics), columns), self._found(table, columns)
        for parts, block in rows.blocks():
            whole, predictions = block.whole, block.whole.predictions
            given, predicted = whole.given, predictions.predicted
            qualities = issues.quality(given, predictions.probabilities, predicted)
            at, keys = mismatches.keys_of([part.number for part in parts], block, qualities, columns)
            if len(keys):
                grouped.add(keys, given[at], predicted[at])
                found.add(whole, at, keys)
        metrics["label_issues"] = {**issues.summary(), "claim": self._wrong_labels_claim(metrics)}
        make_folder(final)
        with atomic_write(final / MISMATCHES) as parquet, atomic_write(final / MISMATCHES_CSV) as csv:
            listed = write_both(table, found.chunks(issues.is_label_issue), parquet, csv)
        metrics["mismatches"] = listed if columns.most is None else None
        worst = table.head(found.first(_SHOWN_MISMATCHES, issues.is_label_issue), _SHOWN_MISMATCHES)
        found.close()
        return MismatchesShown(worst, grouped.read(table, issues.is_label_issue))

    def _found(self, table: MismatchTable, columns: MismatchColumns) -> FoundMismatches:
        if columns.most is not None:
            return mismatches.FirstMismatches(table, columns.most)
        return mismatches.AllMismatches(table, self._rows.folder / "mismatches")

    def _wrong_labels_claim(self, metrics: Mapping[str, Any]) -> dict[str, Any] | None:
        """The claim about the number of wrong labels; None without evaluated rows, and where the task has no such claim."""
        if metrics.get("reliability") is None:
            return None
        compared, n_labels = metrics.get("comparison"), len(self._by.basis.labels)
        return claim_wrong_labels(metrics["reliability"], self._by.trained, n_labels, compared).to_json()

    # ---------------------------------------------------------------------------------------------------- pages

    def write_pages(
        self,
        facts: Mapping[str, Any],
        metrics: Mapping[str, Any],
        listed: MismatchesShown,
        final: OwnPath,
        place: str,
    ) -> None:
        """Write the page, and its gist; ``place`` is the folder that they will be in, whose other files are built."""
        before = self._by.baseline.metrics if self._by.baseline else None
        names = [PAGE, *(name for name in (MISMATCHES_CSV, REJECTS) if (final / name).exists())]
        text = run_text(facts, metrics, before, place=place, names=names)
        write_bytes(final / TEXT, text.encode())
        page = render_run(
            facts,
            metrics,
            listed.worst,
            before,
            with_text=self._by.with_text,
            grouped=listed.grouped,
            written=_written(final),
        )
        write_bytes(final / PAGE, page.encode())


@dataclasses.dataclass(frozen=True, slots=True)
class MismatchesShown:
    """The mismatches that the page shows: the first of all, and of each group that a number leads to."""

    worst: Sequence[Mapping[str, Any]] = ()
    grouped: Mapping[Group, Sequence[Mapping[str, Any]]] = dataclasses.field(default_factory=dict)


def build(path: OwnPath, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file of a run, and the folder that it is in."""
    make_folder(path.parent)
    with atomic_write(path) as out:
        write(out)


def write_json(path: OwnPath, value: Any) -> None:
    """Write a document of a run."""
    write_bytes(path, to_json(value))


def _written(final: OwnPath) -> list[WrittenFile]:
    """The files that are built, as the page links to them."""
    purposes = {**PURPOSES, LABELS: "the labels that came later"}
    order = list(purposes)
    found = [
        (order.index(entry.name.partition("/")[0]), entry.name, entry.facts.st_size)
        for entry in final.walk()
        if not entry.is_folder
    ]
    return [WrittenFile(name, purposes[order[place]], size) for place, name, size in sorted(found)]


def _warn_if_no_id_matches(comparison: Mapping[str, Any], rows: int) -> None:
    """Warn if no id of this run is in the baseline: the runs may write ids differently."""
    if comparison["matched_by"] == "id" and rows and comparison["unmatched"] == rows:
        _LOG.warning(
            "None of %d rows has an id that is in the --baseline once (%d have one that is there more often), so nothing is "
            "compared row by row. Where the same rows were expected, look at how both runs write their ids.",
            rows,
            comparison["ambiguous"],
        )


class _Evaluated(NamedTuple):
    """Rows of one part or of several, as an evaluation takes them."""

    given: NDArray[Any]
    predictions: Predictions
    slices: Mapping[str, Sequence[str | None] | str]
    rejects: int

    @classmethod
    def joined(cls, pieces: Sequence[_Evaluated]) -> _Evaluated:
        """Several as one."""
        every = [piece.predictions for piece in pieces]
        names = ("status", "predicted", "probabilities", "n_tokens", "truncated")
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(one, name) for one in every]) for name in names
        }
        slices = {
            column: [value for piece in pieces for value in _each(piece.slices[column], len(piece.given))]
            for column in pieces[0].slices
        }
        given = np.concatenate([piece.given for piece in pieces])
        return cls(given, Predictions(**arrays), slices, sum(piece.rejects for piece in pieces))


def _each(values: Sequence[str | None] | str, rows: int) -> Sequence[str | None]:
    return [values] * rows if isinstance(values, str) else values


class _InGroups:
    """Gives small parts to an evaluation many at a time: its sums are exact, so that it does not matter how rows are divided."""

    def __init__(self, evaluation: TaskEvaluation) -> None:
        self._evaluation = evaluation
        self._pieces: list[_Evaluated] = []
        self._rows = 0

    def add(self, piece: _Evaluated) -> None:
        """The rows of a part."""
        self._pieces.append(piece)
        self._rows += len(piece.given)
        if self._rows >= _GROUP_ROWS or len(self._pieces) >= _GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Evaluate what waits."""
        if self._pieces:
            given, predictions, slices, rejects = (
                self._pieces[0] if len(self._pieces) == 1 else _Evaluated.joined(self._pieces)
            )
            self._evaluation.update(given, predictions, slices=slices, rejects=rejects)
        self._pieces, self._rows = [], 0


class _BaselineComparison:
    """Compares the rows of this run with those of the baseline."""

    def __init__(self, baseline: Baseline, rows: StagedRows, by: Yardstick) -> None:
        self._by = by
        self._its_model = (baseline.facts.get("model") or {}).get("fingerprint")
        self._matcher = match_rows(baseline, rows.files, rows.folder / "baseline")
        measures = measures_of(by.basis.task)
        self._comparison = measures.comparison(by.basis)
        self._slices = measures.slice_changes(by.basis)
        self._unmatched = self._ambiguous = 0

    def update(
        self, part: Part, staged: StagedPart, slices: Mapping[str, Sequence[str | None] | str]
    ) -> None:
        """Add the rows of a part; parts come in plan order."""
        earlier = self._matcher.before(part, staged)
        given, predictions, matched = staged.given, staged.predictions, earlier.found >= 0
        self._ambiguous += int((earlier.found == AMBIGUOUS).sum())
        self._unmatched += int((~matched).sum())
        self._comparison.update(
            given[matched],
            earlier.predicted[matched],
            predictions.predicted[matched],
            earlier.given[matched],
        )
        lengths = predictions.truncated, predictions.n_tokens
        self._slices.update(given, earlier.predicted, predictions.predicted, lengths, slices)

    def summary(self) -> dict[str, Any]:
        """:meth:`Comparison.summary` with ``slices`` and facts about the comparison.

        These are ``same_model``, ``matched_by`` and ``unmatched`` rows (``ambiguous`` ones included).
        """
        return {
            "same_model": self._its_model == self._by.model,
            "matched_by": self._matcher.matched_by,
            "unmatched": self._unmatched,
            "ambiguous": self._ambiguous,
            **self._comparison.summary(self._by.basis.labels),
            "slices": self._slices.summary(),
        }
