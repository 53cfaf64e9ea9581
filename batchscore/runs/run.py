"""One call of ``score``: from settings to a finished run folder.

Everything that can be refused is refused before the first row is scored. Scored parts are staged one by one, so that a
killed run resumes where it was; the final files are built and renamed at the end.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import json
import logging
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from batchscore.config import ScoreSettings, fingerprint
from batchscore.errors import (
    BatchscoreError,
    DataError,
    GateFailedError,
    NoInputError,
    NothingToDoError,
    TakenError,
    UsageError,
    printable,
)
from batchscore.evaluation import Gate, needs_baseline, parse_gates
from batchscore.formats.answers import answers_of
from batchscore.formats.inputs import FoundFile, find_files
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.staged import stage_part
from batchscore.formats.standard_input import ARGUMENT, kept_in
from batchscore.model.bundle import Bundle
from batchscore.model.given import uses_labels
from batchscore.model.loading import BUNDLE_SETTINGS, Models, ModelSettings, needs_torch
from batchscore.model.references import RowsToScore
from batchscore.model.scoring import Model
from batchscore.model.thresholds import thresholds_of
from batchscore.model.tuning import is_worth_tuning, tuned_budget
from batchscore.records import OUT_OF_MEMORY, Part, Predictions, Rows
from batchscore.runs.baselines import Baseline, earlier_run, open_baseline, refuse_unmatchable
from batchscore.runs.choices import choices_of, label_warnings, left_out
from batchscore.runs.dataset import DataSet, refuse_unappendable
from batchscore.runs.dates import date_of_run
from batchscore.runs.engines import ENGINES, refuse_unusable
from batchscore.runs.finishing import Finish, outputs_of
from batchscore.runs.folder import (
    BEFORE_SCORING,
    METRICS,
    NOTE,
    PREDICTIONS,
    REJECTS,
    STAGING,
    Staging,
    foreign_names,
    is_finished,
    prediction_names,
    read_facts,
    read_run,
)
from batchscore.runs.planning import Plan, given_labels, make_plan, read_parts
from batchscore.runs.refusals import refusals_noted
from batchscore.runs.task_options import refuse_foreign_options
from batchscore.runs.work import MicroBatches, WorkDone
from batchscore.system.allocator import give_back_freed_memory
from batchscore.system.importing import imports_ahead, installed_version
from batchscore.system.journal import Journal, read_checked, write_checked
from batchscore.system.memory import shortage_told
from batchscore.system.storage import (
    atomic_write,
    failing,
    locked,
    make_folder,
    names_in_manifest,
    note_holder,
    publish,
    refuse_long_names,
    remove_file,
    remove_tree,
    sha256_of,
    sync_folder,
)
from batchscore.system.terminal import NOTICE
from batchscore.version import __version__

if TYPE_CHECKING:
    from batchscore.system.terminal import ProgressFactory

_LOG = logging.getLogger(__name__)
STAGING_FORMAT = 7
_FINISHING_MODULES = ("jinja2", "vl_convert")
_LABEL_ISSUES_MODULE = "cleanlab.experimental.label_issues_batched"
"""Modules that finishing a run imports, and the one that it imports only if rows have labels."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunResult:
    """The result of one call of ``score``; ``outcome()`` raises if rows or gates failed."""

    output: Path
    status: str
    """``scored``, ``done`` (it was finished before) or ``planned`` (``--dry-run``)."""
    rows: int
    rejects: int
    metrics: Mapping[str, Any]
    seconds: float
    plan: Plan | None = None
    appended: tuple[Path, ...] = ()
    """Its files in the data set, with ``append_to``."""
    appended_before: tuple[Path, ...] = ()
    """Those of them that were there already, and stayed as they were."""

    def outcome(self) -> None:
        """Raise :class:`DataError` if rows of the finished run failed, or :class:`GateFailedError` if a gate did."""
        failed = self.metrics.get("counts", {}).get("failed", 0)
        if failed:
            raise DataError(
                f"{failed} rows could not be scored and are kept with status=failed; the reasons are in "
                f"{printable(self.output)}/{METRICS} (failed_rows). {self._advice()}"
            )
        self._refuse_missed_gates()

    def _advice(self) -> str:
        """What may help failed rows: the same again only where something else held the memory."""
        reasons = [str(row["reason"]) for row in self.metrics.get("failed_rows", [])]
        if reasons and all(reason.startswith(OUT_OF_MEMORY) for reason in reasons):
            return "Free memory, or give --device cpu, and score again with --force."
        return (
            "Scored again in the same way they would fail again: try --device cpu, --precision fp32 or another --long-text, with "
            "--force, or take those rows out."
        )

    def _refuse_missed_gates(self) -> None:
        missed = [gate["reason"] for gate in self.metrics.get("gates", []) if not gate["passed"]]
        if missed:
            raise GateFailedError(
                f"Quality gate failed: {'; '.join(missed)}. Everything is in {printable(self.output)}."
            )


def score(settings: ScoreSettings, progress: ProgressFactory, models: Models | None = None) -> RunResult:
    """Score files into a run folder, resuming where an earlier call of the same was stopped.

    ``models`` loads the model; a caller with many runs gives one that keeps it.

    Raises:
        BatchscoreError: see :mod:`batchscore.errors` for the kinds.
    """
    started = time.monotonic()
    models = models or Models()
    refuse_unusable(settings.engine)
    night = _night(settings)
    if date_of_run(settings.output) is not None:  # then --date adds nothing
        settings = dataclasses.replace(settings, date=None)
    with shortage_told(), failing(settings.output):
        if settings.dry_run:
            with _standard_input(settings) as stdin:
                return _planned(_open(settings, models, stdin), settings, started)
        with (
            locked(settings.output),  # the lock first: a second call fails at once
            refusals_noted(settings.output, night),
            failing(settings.output),
            imports_ahead() as want,
            _standard_input(settings) as stdin,
        ):
            opened = _open(settings, models, stdin, want)
            return _Run(opened, settings, models, progress, started, want).go()


def with_appended(result: RunResult, settings: ScoreSettings) -> RunResult:
    """The result of a finished run with its files in the data set, if there is one; put there unless they are.

    A run with failed rows or a failed gate is not put there. The caller holds the lock of the run's folder.

    Raises:
        UsageError, DataError, OutputError: as :class:`DataSet` has them.
    """
    if settings.append_to is None:
        return result
    try:
        result.outcome()
    except (DataError, GateFailedError):
        _LOG.warning("not appended to %s, for what is told below", printable(settings.append_to))
        return result
    data_set = DataSet(settings.append_to)
    data_set.refuse_misplaced(result.output)
    there = data_set.append(result.output, read_facts(result.output), replace=settings.force)
    return dataclasses.replace(result, appended=there.files, appended_before=there.before)


def _night(settings: ScoreSettings) -> datetime.date | None:
    """The date that the run is for, if it is known before the run has finished.

    Raises:
        UsageError: the folder's date differs from ``--date``.
    """
    found = date_of_run(settings.output)
    if settings.date is not None and found not in (None, settings.date):
        raise UsageError(
            f"--date {settings.date} but --output {printable(settings.output)} is the folder of {found}. Leave --date "
            "out, or name another --output."
        )
    return settings.date or found


class _Opened(NamedTuple):
    """Inputs, model and baseline of a run, all hashed."""

    found: list[FoundFile]
    bundle: Bundle
    baseline: Baseline | None


@contextlib.contextmanager
def _standard_input(settings: ScoreSettings) -> Iterator[Path | None]:
    """Standard input in a file of the run's staging folder, if it is an input; ``None`` if it is not.

    It is read anew by each start: with other bytes the run is another one.
    """
    if ARGUMENT not in settings.inputs:
        yield None
        return
    with contextlib.ExitStack() as stack:
        if settings.dry_run:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            _refuse_foreign(settings.output)
            folder = settings.output / STAGING
            make_folder(folder)
            stack.callback(_remove_if_empty, folder)
        try:
            yield stack.enter_context(kept_in(folder))
        except NoInputError as error:
            raise NothingToDoError(str(error)) if settings.skip_empty else error from None


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _refuse_foreign(output: Path) -> None:
    """Raise :class:`TakenError` for a folder that holds something else than a run, or whose staging folder is a link."""
    staging = output / STAGING
    foreign = foreign_names(output)
    if foreign and not is_finished(output) and not staging.exists():
        raise TakenError(
            f"{printable(output)} holds something that is no run ({printable(min(foreign))}). Name another --output."
        )
    if staging.is_symlink():
        raise TakenError(f"{printable(staging)} is a link. Remove it, or name another --output.")


def _open(
    settings: ScoreSettings,
    models: Models,
    stdin: Path | None = None,
    want: Callable[..., None] = lambda *_: None,
) -> _Opened:
    try:
        found = find_files(settings.inputs, settings.read.format, settings.output, stdin)
    except NoInputError as error:
        raise NothingToDoError(str(error)) if settings.skip_empty else error from None
    is_open = settings.force or not is_finished(settings.output)  # otherwise there is likely nothing to score
    if is_open and needs_torch(settings.compute.backend, settings.compute.precision):
        want("torch")
    bundle = models.open(settings.model, settings.revision)
    bundle = bundle.for_texts(are_pairs=settings.read.text_pair_column is not None)
    refuse_foreign_options(settings, bundle)
    _refuse_misplaced(settings, bundle)
    _refuse_gates(parse_gates(settings.fail_below, settings.fail_above, bundle.labels, bundle.task), settings)
    baseline = _open_baseline(settings, bundle)
    for warning in bundle.warnings:
        _LOG.warning("%s", warning)
    return _Opened(found, bundle, baseline)


def _refuse_misplaced(settings: ScoreSettings, bundle: Bundle) -> None:
    """Refuse what is only for one text a row, or only for two."""
    long_text = settings.long_text or bundle.long_text
    if bundle.takes_pairs and long_text != "head":
        raise UsageError(
            f"--long-text {long_text} is for one text a row; two are cut longest first. Say --long-text head."
        )
    if settings.missing_pair is not None and not bundle.takes_pairs:
        raise UsageError(
            "--missing-pair is for two texts a row: name the second one with --text-pair-column."
        )


def _refuse_gates(gates: list[Gate], settings: ScoreSettings) -> None:
    compared = [gate.metric for gate in gates if needs_baseline(gate.metric)]
    if settings.baseline is None and compared:
        raise UsageError(
            f"A gate on {compared[0]} needs an earlier run to compare with: add --baseline RUN_DIR."
        )


def _open_baseline(settings: ScoreSettings, bundle: Bundle) -> Baseline | None:
    if settings.baseline is None:
        return None
    if settings.baseline.resolve() == settings.output.resolve():
        raise UsageError("--baseline is the --output itself; name the folder of an earlier run.")
    return open_baseline(settings.baseline, bundle.labels, bundle.task)


def _planned(opened: _Opened, settings: ScoreSettings, started: float) -> RunResult:
    with tempfile.TemporaryFile() as rejects:
        plan = make_plan(opened.found, opened.bundle, settings, rejects)
    if opened.baseline is not None:
        refuse_unmatchable(opened.baseline, plan.files)
    refuse_unappendable(settings, outputs_of(plan, opened.bundle, settings))
    _log_label_warnings(plan, opened.bundle, settings)
    seconds = time.monotonic() - started
    return RunResult(settings.output, "planned", plan.rows, plan.rejects, {}, seconds, plan)


def _log_choices(plan: Plan, bundle: Bundle, settings: ScoreSettings) -> None:
    for line in choices_of(plan):
        _LOG.log(NOTICE, "%s", line)
    if missed := left_out(plan, OutputColumns.of(settings)):
        _LOG.log(NOTICE, "%s", missed)
    _log_label_warnings(plan, bundle, settings)


def _log_label_warnings(plan: Plan, bundle: Bundle, settings: ScoreSettings) -> None:
    for line in label_warnings(plan, uses_labels=uses_labels(bundle, settings.label_map)):
        _LOG.warning("%s", line)


def run_fingerprint(found: list[FoundFile], bundle: Bundle, options: Mapping[str, Any]) -> str:
    """SHA-256 over everything that results depend on: inputs, bundle, ``options``, and versions of the main libraries.

    Where the options leave something to the bundle, the bundle's setting counts.
    """
    options = {**options, **{name: options[name] or getattr(bundle, name) for name in BUNDLE_SETTINGS}}
    inputs = [[file.name, file.sha256, file.source.format, file.source.compression] for file in found]
    libraries = ("torch", "transformers", "tokenizers", "numpy", "pyarrow")
    versions = {name: installed_version(name) for name in libraries} | {"batchscore": __version__}
    return fingerprint(
        {
            "format": STAGING_FORMAT,
            "inputs": inputs,
            "bundle": bundle.fingerprint,
            "options": options,
            "versions": versions,
        }
    )


class _Run:
    """One run; the caller holds the lock of its folder."""

    def __init__(
        self,
        opened: _Opened,
        settings: ScoreSettings,
        models: Models,
        progress: ProgressFactory,
        started: float,
        want: Callable[..., None],
    ) -> None:
        self._want = want
        self._found, self._bundle, self._baseline = opened
        self._settings, self._models = settings, models
        self._progress, self._started = progress, started
        self._output = settings.output
        # The baseline counts by its content, not its path.
        compared = {"baseline": self._baseline.fingerprint if self._baseline else None}
        self._fingerprint = run_fingerprint(self._found, self._bundle, settings.result_options() | compared)
        staged = run_fingerprint(self._found, self._bundle, settings.part_options())
        self._staging = Staging(settings.output / STAGING / staged[:32])
        self._begun = _now()
        self._spent = WorkDone()

    def go(self) -> RunResult:
        """Do what is left of the run."""
        if (done := self._finished_before()) is not None:
            return done
        if self._baseline is not None:
            self._baseline.verify()
        self._prepare_folder()
        try:
            self._refuse_long_names()
            plan = self._plan()
            _log_choices(plan, self._bundle, self._settings)
            if self._baseline is not None:
                refuse_unmatchable(self._baseline, plan.files)
            give_back_freed_memory()  # memory used while reading every file
            if not plan.rows and self._settings.skip_empty:
                raise NothingToDoError("The input holds no row.")
            self._refuse_rejects(plan)
            refuse_unappendable(self._settings, outputs_of(plan, self._bundle, self._settings))
            compute = self._score(plan)
        except BaseException:
            self._drop_unscored()
            raise
        for file in self._found:
            file.assert_unchanged()
        finish = Finish(self._staging, plan, self._bundle, self._settings, self._baseline)
        metrics = finish.run(lambda counts: self._facts(plan, compute, counts))
        remove_tree(self._output / STAGING)
        sync_folder(self._output)
        result = self._result("scored", plan.rows, plan.rejects, metrics, plan)
        return with_appended(result, self._settings)

    def _result(
        self, status: str, rows: int, rejects: int, metrics: Mapping[str, Any], plan: Plan | None = None
    ) -> RunResult:
        seconds = time.monotonic() - self._started
        return RunResult(self._output, status, rows, rejects, metrics, seconds, plan)

    def _finished_before(self) -> RunResult | None:
        """The result of this same run, if the folder holds it finished."""
        if not is_finished(self._output) or self._settings.force:
            return None
        try:
            run = read_run(self._output)
            is_this = run.fingerprint == self._fingerprint
            counts = run.counts
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            is_this = False
        if not is_this:
            raise TakenError(
                f"{printable(self._output)} holds a finished run of other inputs, another model or other options. Name "
                "another --output, or add --force to replace it."
            )
        remove_tree(self._output / STAGING)
        result = self._result("done", counts["read"], counts["rejects"], run.metrics)
        return with_appended(result, self._settings)

    def _prepare_folder(self) -> None:
        """Refuse a folder that holds anything else; with ``--force`` replace another run."""
        _refuse_foreign(self._output)
        staging = self._output / STAGING
        make_folder(staging)
        begun = [folder for folder in staging.iterdir() if folder.is_dir()]
        if not self._settings.force and any(
            Staging(folder).holds_work for folder in begun if folder != self._staging.folder
        ):
            raise TakenError(
                f"{printable(self._output)} holds an unfinished run of other inputs, another model or other options. "
                "Name another --output, or add --force to drop what it has scored."
            )
        replaced = names_in_manifest(self._output) | self._staging.replaced()
        replaced |= {name for name in BEFORE_SCORING if (self._output / name).exists()}
        if replaced:  # before anything is removed, so that a kill forgets nothing
            self._staging.note_replaced(replaced)
        remove_file(self._output, NOTE)  # this call got further than the refused one
        for folder in begun:
            if folder != self._staging.folder:  # a stopped run with --force is resumed like any other
                remove_tree(folder)
        make_folder(self._staging.parts)
        note_holder(self._output)

    def _drop_unscored(self) -> None:
        """Remove the staging folder if nothing was scored, unless it lists files that an earlier run left."""
        with contextlib.suppress(
            BatchscoreError, OSError
        ):  # the error that brought us here is the one to report
            is_mixed = not is_finished(self._output) and self._staging.replaced() - BEFORE_SCORING
            if not self._staging.holds_work and not is_mixed:
                remove_tree(self._output / STAGING)

    def _refuse_long_names(self) -> None:
        names = prediction_names([file.name for file in self._found], self._settings.output_format)
        final = self._staging.final.relative_to(self._staging.folder)
        refuse_long_names(self._staging.folder, [str(final / PREDICTIONS / name) for name in names])

    def _plan(self) -> Plan:
        """The plan of an earlier start, if it and its rejects are intact, or a new one."""
        path, rejects = self._staging.plan, self._staging.rejects
        saved = read_checked(path)
        if saved is not None and rejects.exists() and sha256_of(rejects) == saved["rejects"]:
            return Plan.from_json(saved["plan"]).of(self._found)
        with atomic_write(rejects) as out:
            plan = make_plan(self._found, self._bundle, self._settings, out)
        write_checked(path, {"plan": plan.to_json(), "rejects": sha256_of(rejects)})
        return plan

    def _refuse_rejects(self, plan: Plan) -> None:
        allowed = self._settings.max_rejects
        if allowed.allows(plan.rejects, plan.rows):
            return
        with self._staging.rejects.open("rb") as file:
            first = json.loads(file.readline())
        where = f"line {first['line']}" if first["line"] else f"row {first['row']}"
        if is_finished(self._output):  # a finished run stays as it is
            listed = "Name another --output to have all of them listed"
        else:
            self._publish_rejects()
            listed = f"All are in {printable(self._output)}/{REJECTS}"
        raise DataError(
            f"{plan.rejects} of {plan.rows} rows cannot be read, {allowed} are allowed. The first: "
            f"{printable(first['file'])}, {where}: {first['reason']}. {listed}. "
            f"{_advice(first)}Mend them, or allow them with --max-rejects."
        )

    def _publish_rejects(self) -> None:
        copy = self._staging.rejects_copy
        with self._staging.rejects.open("rb") as rejects, atomic_write(copy) as out:
            shutil.copyfileobj(rejects, out)
        publish(copy, self._output / REJECTS)

    def _score(self, plan: Plan) -> dict[str, Any]:
        """Score the parts that are not staged yet; returns the facts of the computation (device, precision and so on)."""
        journal = Journal(self._staging.journal)
        try:
            compute, done = self._resume(journal)
            self._spent.take_over(entry for entry in journal.entries if entry.get("part") in done)
            todo = [part for part in plan.parts if part.number not in done]
            if not todo:
                return compute
            self._want(*_FINISHING_MODULES, *[_LABEL_ISSUES_MODULE] * plan.has_labels)
            wanted = ModelSettings.of(self._settings, self._bundle)
            rows = RowsToScore(plan.rows, lambda: self._first_texts(plan))
            model, compute = self._models.load(self._bundle, wanted, compute, rows)
            if (
                not journal.entries
            ):  # nor was this decided before, so what may be noted was made in another way
                remove_tree(self._staging.micro_batches)
                compute = self._tuned(plan, model, compute)
                journal.append({"compute": compute})
            model = model.with_inference(max_batch_tokens=compute["max_batch_tokens"])
            bar = self._progress(plan.rows)
            bar.add(sum(part.rows for part in plan.parts if part.number in done), counted=False)
            micro_batches = MicroBatches(
                self._staging.micro_batches, lambda rows, is_new: bar.add(rows, counted=is_new)
            )
            try:
                self._run_parts(plan, todo, model, journal, micro_batches)
            finally:
                micro_batches.close()
                bar.close()
            return compute
        finally:
            journal.close()

    def _tuned(self, plan: Plan, model: Model, compute: Mapping[str, Any]) -> dict[str, Any]:
        """The facts of a new run's computation, with the token budget tuned on the run's first rows if that pays."""
        wanted = self._settings.compute.max_batch_tokens
        if wanted is not None or not is_worth_tuning(model, plan.rows):
            return dict(compute)
        budget = tuned_budget(model, self._first_texts(plan))
        _LOG.info("%d tokens in a micro-batch are best on %s", budget, model.backend.device)
        return {**compute, "max_batch_tokens": budget}

    def _first_texts(self, plan: Plan) -> Sequence[Any]:
        """The texts of the first part, or its pairs of texts."""
        ((_, rows),) = read_parts(plan, plan.parts[:1], self._settings.read)
        return rows.given_texts

    def _resume(self, journal: Journal) -> tuple[dict[str, Any], set[int]]:
        """The facts of an earlier start's computation, and the numbers of its intact parts."""
        compute: dict[str, Any] = {}
        done: set[int] = set()
        for entry in journal.entries:
            if "compute" in entry:
                compute = entry["compute"]
            elif self._is_whole(entry):
                done.add(entry["part"])
        return compute, done

    def _is_whole(self, entry: Mapping[str, Any]) -> bool:
        path = self._staging.part(entry["part"])
        return path.exists() and sha256_of(path) == entry["sha256"]

    def _run_parts(
        self, plan: Plan, todo: list[Part], model: Model, journal: Journal, micro_batches: MicroBatches
    ) -> None:
        given = given_labels(plan, self._bundle, self._settings.label_map)
        answers = answers_of(self._bundle.task, self._bundle.labels)
        self._spent.start(model.workers)

        def sink(part: Part, rows: Rows, predictions: Predictions) -> None:
            path = self._staging.part(part.number)
            indices = given[part.file].indices(rows.labels, len(rows.texts))
            stage_part(path, rows, predictions, indices, answers)
            work = self._spent.add(predictions.work, micro_batches.earlier_seconds(part))
            journal.append({"part": part.number, "sha256": sha256_of(path), "work": work})
            micro_batches.staged(part)
            give_back_freed_memory()

        parts = read_parts(plan, todo, self._settings.read)
        ENGINES[self._settings.engine](parts, model, sink, micro_batches.watch)

    def _facts(self, plan: Plan, compute: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
        """``run.json``: everything about the run but its results."""
        seconds = time.monotonic() - self._started + self._spent.earlier
        return {
            "fingerprint": self._fingerprint,
            "version": __version__,
            "date": night.isoformat() if (night := _night(self._settings)) else None,
            "started": self._begun.isoformat(timespec="seconds"),
            "finished": _now().isoformat(timespec="seconds"),
            "files": [
                {
                    "path": file.shown,
                    "name": file.name,
                    "format": file.format,
                    "compression": file.compression,
                    "size": file.size,
                    "sha256": file.sha256,
                    "rows": file.rows,
                    "rejects": file.rejects,
                    "columns": dataclasses.asdict(file.columns),
                    "dialect": file.layout.details.get("dialect"),
                    "label_values": dict(file.label_values),
                    "unknown_labels": dict(file.unknown_labels),
                }
                for file in plan.files
            ],
            "model": {
                "path": str(self._bundle.path),
                "fingerprint": self._bundle.fingerprint,
                "task": self._bundle.task,
                "labels": list(self._bundle.labels),
                "thresholds": list(thresholds_of(self._bundle, self._settings.thresholds)),
                "max_length": self._bundle.max_length,
                "temperature": self._bundle.calibration_temperature,
            },
            "added_columns": OutputColumns.of(self._settings).added_names(
                answers_of(self._bundle.task, self._bundle.labels)
            ),
            "compute": {"device": "auto", "precision": "auto", **compute},
            "baseline": earlier_run(self._baseline) if self._baseline else None,
            "options": self._settings.result_options(),
            "python": platform.python_version(),
            "seconds": round(seconds, 3),
            "work": self._spent.summary(counts["scored"] + counts["abstained"], seconds),
            "counts": counts,
        }


def _advice(reject: Mapping[str, Any]) -> str:
    """The option that may help with a reject of a CSV file."""
    if "quote" not in reject["reason"]:
        return ""
    if b'\\"' in base64.b64decode(reject["raw"]):
        return "If a backslash takes its meaning from a quote: --escapechar '\\'. "
    return "If quotes mean nothing in this file: --quotechar ''. "


def _now() -> datetime.datetime:
    """Local time with its offset; its date is the night's if there is no other."""
    return datetime.datetime.now().astimezone()
