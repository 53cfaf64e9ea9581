"""``evaluate``: a finished run measured with labels that came later, in a folder beside it. Nothing is scored, and no model is loaded.

::

    <run>.evaluation/
      mismatches.parquet, .csv, metrics.json, report.html, report.txt, _SUCCESS    as those of a run
      run.json        that of the run, with ``evaluates`` and ``labels``
      labels.arrow    the labels that came later, so far

The folder is built aside and takes its place at once, so that there is the old evaluation or the new one. It keeps the labels: with those of
the run they are the same set, and the results the same bytes, in however many calls they came.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.config import LATEST, EvaluateSettings, fingerprint
from batchscore.errors import DataError, NoInputError, OutputError, UsageError, printable
from batchscore.evaluation import Basis, needs_baseline, parse_gates
from batchscore.formats.column_choice import refuse_named
from batchscore.records import InputFile, Task
from batchscore.runs.accepting import accepting_of
from batchscore.runs.as_written import WRITTEN, refuse_changed, written_facts
from batchscore.runs.baselines import Baseline, earlier_run, open_baseline, refuse_unmatchable
from batchscore.runs.evaluation_folder import EvaluationFolder, evaluation_of, held
from batchscore.runs.folder import (
    DAMAGE,
    FACTS,
    LABELS,
    MANIFEST,
    METRICS,
    RunFolder,
    is_evaluation,
    is_finished,
    read_run,
)
from batchscore.runs.label_files import LabelFile, open_labels
from batchscore.runs.late_labels import Joined, LateLabels
from batchscore.runs.late_rows import LateRows
from batchscore.runs.latest import latest_run
from batchscore.runs.measuring import MEASURED_BY, Measuring, StagedRows, Yardstick, build, write_json
from batchscore.runs.result import refuse_missed_gates
from batchscore.runs.task_options import HALF
from batchscore.system.locks import locked
from batchscore.system.memory import shortage_told
from batchscore.system.own_paths import own_folder
from batchscore.system.storage import failing, make_folder, sha256_of
from batchscore.system.terminal import NOTICE
from batchscore.version import __version__

if TYPE_CHECKING:
    pass

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluationResult:
    """The result of one call of ``evaluate``; ``outcome()`` raises if a gate failed."""

    output: Path
    status: str
    """``evaluated``, or ``done`` (it was evaluated with these labels before)."""
    rows: int
    labelled: int
    """Rows with a label by now."""
    metrics: Mapping[str, Any]
    facts: Mapping[str, Any]
    joined: Mapping[str, Joined]
    """What became of the labels of each file of this call."""
    seconds: float

    def outcome(self) -> None:
        """Raise :class:`GateFailedError` if a gate did not pass."""
        refuse_missed_gates(self.metrics, self.output)


def evaluate(settings: EvaluateSettings) -> EvaluationResult:
    """Join labels to the rows of a finished run, and measure it anew.

    Raises:
        BatchscoreError: see :mod:`batchscore.errors` for the kinds.
    """
    started = time.monotonic()
    run, output = _opened(settings.run), settings.output or evaluation_of(settings.run)
    with shortage_told(), failing(output), locked(own_folder(run.path)):
        refuse_changed(run.path)
        with held(output, run.path) as folder:
            return _Evaluation(run, settings, folder, started).go()


def _opened(folder: Path) -> RunFolder:
    """A finished run.

    Raises:
        NoInputError: there is none.
        DataError: it is damaged, or an evaluation itself.
    """
    if not is_finished(folder):
        raise NoInputError(f"{printable(folder)} is no finished run. Name the folder of one.")
    try:
        run = read_run(folder)
        run.fingerprint, run.files, run.model["labels"], run.options, run.counts["read"]
    except DAMAGE as error:
        raise DataError(
            f"{printable(folder)} is damaged: {printable(error)}. Score that run again with --force."
        ) from error
    if is_evaluation(run.facts):
        raise UsageError(
            f"{printable(folder)} is an evaluation. Name the run itself: {printable(run.facts['evaluates']['path'])}."
        )
    return run


class _Evaluation:
    """One evaluation; the caller holds the locks of the run and of the folder."""

    def __init__(
        self, run: RunFolder, settings: EvaluateSettings, folder: EvaluationFolder, started: float
    ) -> None:
        label_map = {**(run.options.get("label_map") or {}), **settings.label_map}
        self._settings = dataclasses.replace(settings, label_map=label_map)
        self._run, self._folder, self._started = run, folder, started
        self._begun = datetime.datetime.now().astimezone()
        self._basis = _basis_of(run)
        self._names = [str(file["name"]) for file in run.files]
        self._manifest = sha256_of(own_folder(run.path) / MANIFEST)

    def go(self) -> EvaluationResult:
        """Join, measure, write, put in place."""
        settings, basis = self._settings, self._basis
        gates = parse_gates(settings.fail_below, settings.fail_above, basis.labels, basis.task)
        compared = [gate.metric for gate in gates if needs_baseline(gate.metric)]
        if settings.baseline is None and compared:
            raise UsageError(
                f"A gate on {compared[0]} needs an earlier run to compare with: add --baseline RUN_DIR, or --baseline latest."
            )
        if settings.tolerance is not None and basis.task != Task.REGRESSION:
            raise UsageError("--tolerance is for models that give a number, and this one gives labels.")
        before = self._folder.before(self._run.path, self._manifest, force=settings.force)
        baseline = self._baseline()
        surveyed = open_labels(list(dict.fromkeys(settings.labels)), settings, basis, self._names)
        taken, new = self._new(before, surveyed)
        mark = self._mark([*taken, *new.values()], baseline)
        if before is not None and before.fingerprint == mark:
            return self._result("done", before.metrics, before.facts, {})
        rows = LateRows(
            self._run,
            basis,
            self._folder.work,
            run_id_column=settings.run_id_column,
            label_map=settings.label_map,
        )
        self._tell(rows)
        labels = LateLabels(rows, basis.task, settings.conflicts)
        if before is not None:
            self._take_over(labels)
        joined = {str(file.path): labels.join(file) for file in surveyed if file.path in new}
        for path, each in joined.items():
            level = logging.WARNING if each.corrected or each.conflicting or each.several_rows else NOTICE
            _LOG.log(level, "%s: %s (by %s)", printable(path), each.words(), labels.matched_by)
        metrics, facts = self._write(rows, labels, baseline, [*taken, *_entries(new, joined, labels)], mark)
        self._folder.put_in_place()
        return self._result("evaluated", metrics, facts, joined)

    def _result(
        self,
        status: str,
        metrics: Mapping[str, Any],
        facts: Mapping[str, Any],
        joined: Mapping[str, Joined],
    ) -> EvaluationResult:
        return EvaluationResult(
            self._folder.place.path,
            status,
            int(metrics["counts"]["read"]),
            int(facts["labels"]["rows"]),
            metrics,
            facts,
            joined,
            time.monotonic() - self._started,
        )

    # -------------------------------------------------------------------------------------------- what there was before

    def _new(
        self, before: RunFolder | None, surveyed: Sequence[LabelFile]
    ) -> tuple[list[Mapping[str, Any]], dict[Path, dict[str, Any]]]:
        """What was taken by earlier calls, and the files that were not yet: a file that is named again changes nothing."""
        taken = list(before.facts["labels"]["files"]) if before is not None else []
        known = {entry["key"] for entry in taken}
        new: dict[Path, dict[str, Any]] = {}
        for file in surveyed:
            key = fingerprint({"sha256": file.sha256, **self._settings.reading()})
            if key in known:
                _LOG.log(NOTICE, "%s: taken before", printable(file.path))
                continue
            known.add(key)
            new[file.path] = {"key": key, "sha256": file.sha256}
        return taken, new

    def _mark(self, entries: Sequence[Mapping[str, Any]], baseline: Baseline | None) -> str:
        """SHA-256 over everything that the results depend on."""
        return fingerprint(
            {
                "run": self._manifest,
                "version": __version__,
                "labels": [entry["key"] for entry in entries],
                "options": self._settings.measuring(),
                "baseline": baseline.fingerprint if baseline else None,
            }
        )

    def _take_over(self, labels: LateLabels) -> None:
        try:
            labels.take_over(self._folder.place / LABELS, self._basis.labels)
        except DAMAGE as error:
            raise OutputError(
                f"{printable(self._folder.place)}/{LABELS} cannot be read: {printable(error)}. Add --force to begin anew, with all labels so far."
            ) from error

    def _tell(self, rows: LateRows) -> None:
        where = printable(self._run.path)
        if rows.lacks_own_labels:
            _LOG.warning(
                "%s: labels came with the run, but its predictions do not hold them, so they do not count",
                where,
            )
        if rows.lacks_texts:
            _LOG.warning("%s: its predictions do not hold the texts, so mismatches come without", where)

    # ---------------------------------------------------------------------------------------------------- what is compared

    def _baseline(self) -> Baseline | None:
        wanted, run = self._settings.baseline, self._run
        if wanted is None:
            return None
        if not isinstance(wanted, Path):
            path = self._latest()
            if path is None:
                _LOG.log(NOTICE, "--baseline latest: none before this run; nothing is compared")
                return None
            _LOG.log(NOTICE, "--baseline latest: compared with %s", printable(path))
            wanted = path
        if wanted.resolve() == run.path.resolve():
            raise UsageError("--baseline is the run itself; name the folder of an earlier one.")
        baseline = open_baseline(wanted, self._basis.labels, self._basis.task)
        baseline.verify()
        return baseline

    def _latest(self) -> Path | None:
        """The run before this one: the one that it was compared with itself, or the latest that had finished by then."""
        facts = self._run.facts
        if self._run.options.get("baseline") == LATEST:
            earlier = facts.get("baseline")
            return Path(earlier["path"]) if earlier else None
        finished = datetime.datetime.fromisoformat(self._run.finished).astimezone()
        night = datetime.date.fromisoformat(facts["date"]) if facts.get("date") else None
        labels, task = self._basis.labels, self._basis.task
        return latest_run(self._run.path, self._names, labels, task, before=finished, night=night)

    def _slices(self, files: Sequence[InputFile]) -> list[str]:
        """The columns that figures are broken down by: those of the run, as far as predictions hold them, and more."""
        read = [file for file in files if file.layout.columns]
        names = {column.name for file in read for column in file.layout.columns}
        own = list(self._run.options.get("slice_columns") or ())
        if lost := [name for name in own if name not in names and read]:
            _LOG.warning("no slices by %s, which the predictions do not hold", printable(", ".join(lost)))
        for name in self._settings.slice_columns:
            for file in read:
                found = [column for column in file.layout.columns if column.name == name]
                refuse_named("slice", name, found, file.layout, Path(file.name))
        return list(dict.fromkeys([*(name for name in own if name in names), *self._settings.slice_columns]))

    # ----------------------------------------------------------------------------------------------------------- results

    def _write(
        self,
        rows: LateRows,
        labels: LateLabels,
        baseline: Baseline | None,
        entries: Sequence[Mapping[str, Any]],
        mark: str,
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        settings, final = self._settings, self._folder.final
        make_folder(final)
        unknown = labels.unknown_labels()
        files = [
            dataclasses.replace(file, unknown_labels=values)
            for file, values in zip(rows.files, unknown, strict=True)
        ]
        if baseline is not None:
            refuse_unmatchable(baseline, files)
        basis = dataclasses.replace(self._basis, tolerance=self._tolerance(labels))
        by = Yardstick(
            basis=basis,
            model=str(self._run.model["fingerprint"]),
            trained=(self._run.facts.get(MEASURED_BY) or {}).get("trained")
            or {"calibration_error": basis.calibration_error},
            gates=parse_gates(settings.fail_below, settings.fail_above, basis.labels, basis.task),
            promise=accepting_of(self._run),
            slice_columns=self._slices(files),
            baseline=baseline,
            is_first=baseline is None and settings.baseline == LATEST,
            with_text=settings.with_text and not rows.lacks_texts,
        )
        staged = StagedRows(files, rows.parts, rows.open, self._folder.work, rows.schemas)
        measuring = Measuring(staged, by)
        metrics = measuring.metrics()
        listed = measuring.list_mismatches(metrics, final)
        build(final / LABELS, lambda out: labels.keep(basis.labels, out))
        write_json(final / METRICS, metrics)
        facts = {**self._facts(entries, labels.labelled(), mark, baseline, by), WRITTEN: written_facts(final)}
        write_json(final / FACTS, facts)
        measuring.write_pages(facts, metrics, listed, final, str(self._folder.place.path.absolute()))
        return metrics, facts

    def _tolerance(self, labels: LateLabels) -> float | None:
        """As asked for now or when the run was scored, or half a unit if all given numbers are whole."""
        asked = self._settings.tolerance
        asked = self._run.options.get("tolerance") if asked is None else asked
        if asked is not None or self._basis.task != Task.REGRESSION:
            return asked
        return HALF if labels.labelled() and labels.are_whole() else None

    def _facts(
        self,
        entries: Sequence[Mapping[str, Any]],
        labelled: int,
        mark: str,
        baseline: Baseline | None,
        by: Yardstick,
    ) -> dict[str, Any]:
        """``run.json``: that of the run, and what is other."""
        run, now = self._run, datetime.datetime.now().astimezone()
        baseline_asked = self._settings.baseline
        options = {
            **run.options,
            **self._settings.measuring(),
            "slice_columns": list(by.slice_columns),
            "baseline": baseline_asked if baseline_asked is None else str(baseline_asked),
            "label_map": dict(self._settings.label_map),
        }
        kept = {name: value for name, value in run.facts.items() if name not in {WRITTEN, "work"}}
        return {
            **kept,
            "fingerprint": mark,
            "version": __version__,
            "evaluates": {
                "name": run.path.resolve().name,
                "path": str(run.path.absolute()),
                "manifest": self._manifest,
                "finished": run.finished,
            },
            "labels": {"rows": labelled, "files": list(entries)},
            "started": self._begun.isoformat(timespec="seconds"),
            "finished": now.isoformat(timespec="seconds"),
            "baseline": earlier_run(baseline) if baseline else None,
            "options": options,
            MEASURED_BY: by.to_json(),
            "python": platform.python_version(),
            "seconds": round(time.monotonic() - self._started, 3),
        }


def _entries(
    new: Mapping[Path, Mapping[str, Any]], joined: Mapping[str, Joined], labels: LateLabels
) -> Iterator[dict[str, Any]]:
    """What ``run.json`` says of the files of labels of this call."""
    for path, entry in new.items():
        counts = dataclasses.asdict(joined[str(path)])
        yield {**entry, "path": str(path), "matched_by": labels.matched_by, **counts}


def _basis_of(run: RunFolder) -> Basis:
    """What the rows of a run were measured by, but for the tolerance.

    Raises:
        DataError: that is not in its ``run.json``.
    """
    try:
        facts, model = run.facts, run.model
        by = facts.get(MEASURED_BY)
        if by is None:  # of an earlier version
            expected = run.metrics.get("expected_accuracy") or {}
            long_texts = {run.options.get("long_text"), (facts.get("compute") or {}).get("long_text")}
            temperature = None if "windows" in long_texts else model.get("temperature")
            by = {"calibration_error": expected.get("calibration_error"), "temperature": temperature}
        return Basis(
            task=Task(run.metrics.get("task", Task.SINGLE_LABEL)),
            labels=tuple(model["labels"]),
            calibration_error=by.get("calibration_error"),
            temperature=by.get("temperature"),
            thresholds=tuple(model.get("thresholds") or ()),
        )
    except DAMAGE as error:
        raise DataError(
            f"{printable(run.path)}/{FACTS} is damaged: {printable(error)}. Score that run again with --force."
        ) from error
