"""From staged parts to the final files of a run: built in the staging folder, counted, hashed, renamed, ``_SUCCESS`` last.

Finishing may be killed and restarted at any point: it reads only the plan and the parts, and every file it builds
has the same bytes each time (except for times in ``run.json``, ``report.html`` and ``report.txt``).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from batchscore.evaluation import (
    AcceptedRows,
    Basis,
    Distributions,
    claim_wrong_labels,
    evaluate_gates,
    flat_metrics,
    measure_drift,
    measures_of,
    parse_gates,
    promise_gate,
)
from batchscore.formats.columns import texts_of
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.staged import StagedPart, read_part
from batchscore.formats.writing import Output, count_rows, write_predictions
from batchscore.model.given import uses_labels
from batchscore.model.loading import ModelSettings
from batchscore.model.thresholds import thresholds_of
from batchscore.records import Part
from batchscore.reports import render_run, run_text
from batchscore.reports.row_groups import groups_of
from batchscore.reports.written_files import WrittenFile
from batchscore.runs import mismatches
from batchscore.runs.accepting import answers_of_run
from batchscore.runs.as_written import WRITTEN, written_facts
from batchscore.runs.baselines import AMBIGUOUS, Baseline, match_rows
from batchscore.runs.choices import unused_labels
from batchscore.runs.folder import (
    FACTS,
    MANIFEST,
    METRICS,
    MISMATCHES,
    MISMATCHES_CSV,
    PAGE,
    PREDICTIONS,
    PURPOSES,
    REJECTS,
    TEXT,
    Staging,
    output_of,
    prediction_names,
)
from batchscore.runs.grouped_rows import GroupedRows
from batchscore.runs.mismatch_columns import Keys, MismatchColumns, mismatch_columns_of
from batchscore.runs.partitions import Partitions
from batchscore.runs.task_options import tolerance_of
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import (
    atomic_write,
    files_below,
    make_folder,
    manifest,
    publish,
    remove_file,
    remove_tree,
    sha256_of,
    sync_folder,
    to_json,
    write_bytes,
)

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings
    from batchscore.evaluation.tasks import TaskIssues
    from batchscore.model.bundle import Bundle
    from batchscore.reports.row_groups import Group
    from batchscore.runs.planning import Plan

_LOG = logging.getLogger(__name__)
_ROW_PARTITIONS = "partitions"
"""In the staging folder: the partition of each row."""
_LISTED_FAILURES = 1000
_SHOWN_MISMATCHES = 50
"""Number of mismatches on the page."""


def outputs_of(plan: Plan, bundle: Bundle, settings: ScoreSettings) -> list[Output]:
    """What the prediction files of a run are made from, one for each input."""
    answers, columns = answers_of_run(bundle, settings), OutputColumns.of(settings)
    return [Output(file, answers, columns) for file in plan.files]


class Finish:
    """Builds the final files of one run and publishes them."""

    def __init__(
        self,
        staging: Staging,
        plan: Plan,
        bundle: Bundle,
        settings: ScoreSettings,
        baseline: Baseline | None = None,
    ) -> None:
        self._staging, self._plan, self._bundle, self._settings = staging, plan, bundle, settings
        self._baseline = baseline
        self._answers = answers_of_run(bundle, settings)
        self._partitions: Partitions | None = None
        self._measures = measures_of(bundle.task)
        self._basis = Basis(
            task=bundle.task,
            labels=bundle.labels,
            calibration_error=self._calibration_error(),
            temperature=self._temperature(),
            thresholds=thresholds_of(bundle, settings.thresholds),
            tolerance=tolerance_of(bundle, plan, settings),
        )

    def run(self, make_facts: Callable[[Mapping[str, int]], Mapping[str, Any]]) -> dict[str, Any]:
        """Build everything, rename it into the run folder, and return the metrics.

        ``make_facts`` makes ``run.json`` from the row counts, called after the other files are built so that their time counts.
        """
        remove_tree(self._staging.final)
        make_folder(self._staging.final / PREDICTIONS)
        metrics = self._with_drift_and_gates(self._metrics())
        if (column := self._settings.partition_by) is not None:
            path = self._staging.folder / _ROW_PARTITIONS
            self._partitions = Partitions(self._plan.files, self._plan.parts, column, path, self._open)
        self._predictions()
        worst: list[dict[str, Any]] = []
        grouped: Mapping[Group, list[dict[str, Any]]] = {}
        if self._plan.has_labels:
            columns = mismatch_columns_of(self._basis)
            table = mismatches.MismatchTable(self._plan.files, self._plan.parts, columns, self._open)
            issues, first = self._measures.issues(self._basis), GroupedRows(groups_of(metrics), columns)
            keys = self._find_mismatches(columns, issues, first)
            metrics["label_issues"] = {**issues.summary(), "claim": self._wrong_labels_claim(metrics)}
            self._build(MISMATCHES, lambda out: mismatches.write_parquet(table, keys, out))
            self._build(MISMATCHES_CSV, lambda out: mismatches.write_csv(table, keys, out))
            worst = table.head(keys, _SHOWN_MISMATCHES)
            grouped = first.read(table, issues.is_label_issue)
            metrics["mismatches"] = len(keys) if columns.most is None else None
        if self._plan.rejects:
            self._build(REJECTS, self._copy_rejects)
        write_bytes(self._staging.final / METRICS, to_json(metrics))
        facts = {**make_facts(metrics["counts"]), WRITTEN: written_facts(self._staging.final)}
        write_bytes(self._staging.final / FACTS, to_json(facts))
        before = self._baseline.metrics if self._baseline else None
        place, names = str(self._settings.output.absolute()), [PAGE, *self._worth_naming()]
        text = run_text(facts, metrics, before, place=place, names=names)
        write_bytes(self._staging.final / TEXT, text.encode())
        with_text, written = self._settings.with_text, self._written()
        page = render_run(
            facts, metrics, worst, before, with_text=with_text, grouped=grouped, written=written
        )
        write_bytes(self._staging.final / PAGE, page.encode())
        self._assert_conserved()
        self._put_in_place()
        return metrics

    def _worth_naming(self) -> list[str]:
        """The files that a reader of a mail opens, if they are built."""
        return [name for name in (MISMATCHES_CSV, REJECTS) if (self._staging.final / name).exists()]

    def _written(self) -> list[WrittenFile]:
        """The files that are built, as the page links to them."""
        final = self._staging.final
        names, order = files_below(final), list(PURPOSES)
        found = [(order.index(name.partition("/")[0]), name) for name in names]
        return [
            WrittenFile(name, PURPOSES[order[place]], (final / name).stat().st_size)
            for place, name in sorted(found)
        ]

    def _build(self, name: str, write: Callable[[IO[bytes]], None]) -> None:
        path = self._staging.final / name
        make_folder(path.parent)
        with atomic_write(path) as out:
            write(out)

    def _copy_rejects(self, out: IO[bytes]) -> None:
        with self._staging.rejects.open_read() as rejects:
            shutil.copyfileobj(rejects, out)

    def _parts(self, file: int | None = None) -> Iterator[tuple[Part, StagedPart]]:
        for part in self._plan.parts:
            if file is None or part.file == file:
                yield part, self._open(part.number)

    def _open(self, number: int) -> StagedPart:
        return read_part(self._staging.part(number), self._answers)

    def _outputs(self) -> Iterator[tuple[int, OwnPath, Output, str]]:
        """File index, staging path and :class:`Output` of each prediction file, and the folder of its partition or none."""
        names = prediction_names([file.name for file in self._plan.files], self._settings.output_format)
        outputs = outputs_of(self._plan, self._bundle, self._settings)
        for index, (output, name) in enumerate(zip(outputs, names, strict=True)):
            for folder in [""] if self._partitions is None else self._partitions.folders(index):
                yield index, self._staging.final / f"{PREDICTIONS}/{folder}/{name}", output, folder

    def _predictions(self) -> None:
        for index, path, output, folder in self._outputs():
            parts: Iterator[StagedPart] = (part for _, part in self._parts(index))
            if self._partitions is not None:
                parts = self._partitions.parts(index, folder)
            make_folder(path.parent)
            with atomic_write(path) as out:
                write_predictions(parts, output, self._settings.output_format, out)

    def _metrics(self) -> dict[str, Any]:
        """All metrics but the label issues, in one pass over the staged parts."""
        evaluation = self._measures.evaluation(self._basis)
        promise, accepted = self._settings.accepting, AcceptedRows.empty(len(self._bundle.labels))
        compared = (
            _BaselineComparison(self._baseline, self._plan, self._basis, self._staging.folder)
            if self._baseline
            else None
        )
        duplicates = 0
        failures: list[dict[str, Any]] = []
        for part, staged in self._parts():
            name, given = self._plan.files[part.file].name, staged.given
            rejects = part.rows - len(given)
            slices = self._slices(part, staged)
            evaluation.update(given, staged.predictions, slices=slices, rejects=rejects)
            if promise is not None:
                accepted.update(given, staged.predictions, promise.thresholds)
            if compared is not None:
                compared.update(part, staged, slices)
            duplicates += staged.facts["duplicates"]
            failures += [
                {"file": name, "row": row, "reason": reason} for row, reason in staged.facts["failures"]
            ]
        metrics = evaluation.metrics()
        metrics["counts"]["duplicate"] = duplicates
        if promise is not None:
            metrics["acceptance"] = accepted.summary(self._bundle.labels, promise)
        if compared is not None:
            metrics["comparison"] = compared.summary(self._bundle)
            counts = metrics["counts"]
            _warn_if_no_id_matches(metrics["comparison"], counts["read"] - counts["rejects"])
        metrics["unknown_labels"] = {
            file.name: dict(file.unknown_labels) for file in self._plan.files if file.unknown_labels
        }
        used = uses_labels(self._bundle, self._settings.label_map)
        if reason := unused_labels(self._plan, uses_labels=used):
            metrics["unused_labels"] = reason
        metrics["failed_rows"] = failures[:_LISTED_FAILURES]
        return metrics

    def _assert_conserved(self) -> None:
        """Count rows in the finished files: for each file, rows read = rows in predictions + rejects."""
        found = [0] * len(self._plan.files)
        for index, path, output, _ in self._outputs():
            found[index] += count_rows(path, output, self._settings.output_format)
        for file, rows in zip(self._plan.files, found, strict=True):
            if rows + file.rejects != file.rows:
                raise RuntimeError(
                    f"{file.name}: {file.rows} rows were read and {file.rejects} of them rejected, but its predictions "
                    f"have {rows}. Nothing was put in place; please report this."
                )
        listed = 0
        if self._plan.rejects:
            with (self._staging.final / REJECTS).open_read() as rejects:
                listed = sum(not line.isspace() for line in rejects)
        if listed != self._plan.rejects:
            raise RuntimeError(f"{self._plan.rejects} rows were rejected, but {listed} are listed.")

    def _with_drift_and_gates(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Add drift against the baseline, and the gates' results."""
        if self._baseline is not None:
            report = measure_drift(self._baseline.distributions, Distributions.from_metrics(metrics))
            metrics["drift"] = report.to_json()
        gates = parse_gates(
            self._settings.fail_below, self._settings.fail_above, self._bundle.labels, self._bundle.task
        )
        results = evaluate_gates([*gates, *promise_gate(metrics, gates)], flat_metrics(metrics))
        return {**metrics, "gates": [result.to_json() for result in results]}

    def _calibration_error(self) -> float | None:
        error = self._bundle.facts.get("metrics", {}).get("calibration_error")
        return None if error is None else float(error)

    def _temperature(self) -> float | None:
        """The temperature that calibrated the probabilities; None with ``windows``, where means cannot be uncalibrated."""
        long_text = ModelSettings.of(self._settings, self._bundle).long_text
        return None if long_text == "windows" else self._bundle.calibration_temperature

    def _slices(self, part: Part, staged: StagedPart) -> dict[str, Sequence[str | None] | str]:
        """Slice name → values for the rows of a part, besides length: the file, and the slice columns."""
        file = self._plan.files[part.file]
        columns = texts_of(staged, file, self._settings.slice_columns)
        return {"file": file.name} | {f"{n} (input)" if n == "file" else n: v for n, v in columns.items()}

    def _find_mismatches(self, columns: MismatchColumns, issues: TaskIssues, first: GroupedRows) -> Keys:
        """Keys of all mismatches in their final order; ``issues`` and ``first`` learn of them."""
        for _, staged in self._parts():
            issues.update_thresholds(staged.given, staged.predictions.probabilities)
        found = (
            (part.number, staged, issues.quality(staged.given, found.probabilities, found.predicted))
            for part, staged in self._parts()
            for found in (staged.predictions,)
        )
        return mismatches.gather(first.watch(found), columns, issues.is_label_issue)

    def _wrong_labels_claim(self, metrics: Mapping[str, Any]) -> dict[str, Any] | None:
        """The claim about the number of wrong labels; None without evaluated rows, and where the task has no such claim."""
        if metrics.get("reliability") is None:
            return None
        trained, compared = self._bundle.facts.get("metrics", {}), metrics.get("comparison")
        n_labels = len(self._bundle.labels)
        return claim_wrong_labels(metrics["reliability"], trained, n_labels, compared).to_json()

    def _put_in_place(self) -> None:
        """Remove files of an earlier run and rename every file to its final name, the manifest last."""
        output, final = output_of(self._settings), self._staging.final
        names = files_below(final)
        hashes = {name: sha256_of(final / name) for name in names}
        write_bytes(final / MANIFEST, manifest(hashes))
        before = self._staging.replaced()
        self._staging.note_replaced(before | set(names))
        (output / MANIFEST).unlink(missing_ok=True)
        sync_folder(output)
        for stale in before - set(names):
            remove_file(output, stale)
        for name in [*names, MANIFEST]:
            publish(final / name, output / name)


def _warn_if_no_id_matches(comparison: Mapping[str, Any], rows: int) -> None:
    """Warn if no id of this run is in the baseline: the runs may write ids differently."""
    if comparison["matched_by"] == "id" and rows and comparison["unmatched"] == rows:
        _LOG.warning(
            "None of %d rows has an id that is in the --baseline once (%d have one that is there more often), so nothing is "
            "compared row by row. Where the same rows were expected, look at how both runs write their ids.",
            rows,
            comparison["ambiguous"],
        )


class _BaselineComparison:
    """Compares the rows of this run with those of the baseline."""

    def __init__(self, baseline: Baseline, plan: Plan, basis: Basis, staging: OwnPath) -> None:
        self._its_model = (baseline.facts.get("model") or {}).get("fingerprint")
        self._matcher = match_rows(baseline, plan.files, staging / "baseline")
        measures = measures_of(basis.task)
        self._comparison = measures.comparison(basis)
        self._slices = measures.slice_changes(basis)
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

    def summary(self, bundle: Bundle) -> dict[str, Any]:
        """:meth:`Comparison.summary` with ``slices`` and facts about the comparison.

        These are ``same_model``, ``matched_by`` and ``unmatched`` rows (``ambiguous`` ones included).
        """
        return {
            "same_model": self._its_model == bundle.fingerprint,
            "matched_by": self._matcher.matched_by,
            "unmatched": self._unmatched,
            "ambiguous": self._ambiguous,
            **self._comparison.summary(bundle.labels),
            "slices": self._slices.summary(),
        }
