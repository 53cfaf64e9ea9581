"""One call of ``score``: from settings to a finished run folder.

Everything that can be refused is refused before the first row is scored. Scored parts are staged one by one, so that a
killed run resumes where it was; the final files are built and renamed at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchscore.config import ScoreSettings, fingerprint
from batchscore.errors import (
    BatchscoreError,
    NothingToDoError,
    TakenError,
    printable,
)
from batchscore.formats.inputs import FoundFile
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.staged import stage_part
from batchscore.model.answer_bits import deciding_fingerprint, goes_alone
from batchscore.model.bundle import Bundle
from batchscore.model.given import uses_labels
from batchscore.model.loading import BUNDLE_SETTINGS, Models, ModelSettings
from batchscore.model.references import RowsToScore
from batchscore.model.scoring import Model
from batchscore.model.tuning import is_worth_tuning, tuned_budget
from batchscore.records import Part, Predictions, Rows
from batchscore.runs import shapes
from batchscore.runs.accepting import answers_of_run, refuse_other_precision
from batchscore.runs.as_written import refuse_changed
from batchscore.runs.baselines import Baseline, refuse_unmatchable
from batchscore.runs.calibration_rows import with_acceptance
from batchscore.runs.choices import choices_of, label_warnings, left_out
from batchscore.runs.chosen_baseline import comparable, keep
from batchscore.runs.dataset import refuse_unappendable
from batchscore.runs.dates import date_of_run
from batchscore.runs.engines import ENGINES, refuse_unusable
from batchscore.runs.finishing import Finish, outputs_of
from batchscore.runs.folder import (
    BEFORE_SCORING,
    DAMAGE,
    NOTE,
    PREDICTIONS,
    STAGING,
    Staging,
    is_finished,
    output_of,
    prediction_names,
    read_run,
)
from batchscore.runs.kept_acceptance import keep_acceptance
from batchscore.runs.opening import Opened, night_of, open_inputs, refuse_foreign, standard_input
from batchscore.runs.planning import Plan, given_labels, make_plan, read_parts
from batchscore.runs.refusals import refusals_noted
from batchscore.runs.rejects import refuse_rejects
from batchscore.runs.result import RunResult, with_appended
from batchscore.runs.reuse import Reuse, facts_of_reuse, identity_of, open_reuse
from batchscore.runs.run_facts import RunTimes, facts_of_run, work_facts
from batchscore.runs.work import MicroBatches, WorkDone
from batchscore.system.allocator import give_back_freed_memory
from batchscore.system.documents import checked
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
STAGING_FORMAT = 8
_FINISHING_MODULES = ("jinja2",)
_LABEL_ISSUES_MODULE = "cleanlab.experimental.label_issues_batched"
"""Modules that finishing a run imports, and the one that it imports only if rows have labels."""


def score(settings: ScoreSettings, progress: ProgressFactory, models: Models | None = None) -> RunResult:
    """Score files into a run folder, resuming where an earlier call of the same was stopped.

    ``models`` loads the model; a caller with many runs gives one that keeps it.

    Raises:
        BatchscoreError: see :mod:`batchscore.errors` for the kinds.
    """
    started = time.monotonic()
    models = models or Models()
    refuse_unusable(settings.engine)
    night = night_of(settings)
    if date_of_run(settings.output) is not None:  # then --date adds nothing
        settings = dataclasses.replace(settings, date=None)
    with shortage_told(), failing(settings.output):
        if settings.dry_run:
            with standard_input(settings) as stdin:
                return _planned(open_inputs(settings, models, stdin), settings, started)
        with (
            locked(output_of(settings)),  # the lock first: a second call fails at once
            refusals_noted(output_of(settings), night),
            failing(settings.output),
            imports_ahead() as want,
            standard_input(settings) as stdin,
        ):
            opened = open_inputs(settings, models, stdin, want)
            decided = with_acceptance(settings, opened.bundle)
            return _Run(opened, decided, models, progress, started, want).go()


def _planned(opened: Opened, settings: ScoreSettings, started: float) -> RunResult:
    settings = with_acceptance(settings, opened.bundle)
    with tempfile.TemporaryFile() as rejects:
        plan = make_plan(opened.found, opened.bundle, settings, rejects)
    comparable(opened.chosen, lambda baseline: refuse_unmatchable(baseline, plan.files))
    refuse_unappendable(settings, outputs_of(plan, opened.bundle, settings))
    _log_label_warnings(plan, opened.bundle, settings)
    seconds = time.monotonic() - started
    return RunResult(settings.output, "planned", plan.rows, plan.rejects, {}, seconds, plan)


def _log_choices(plan: Plan, bundle: Bundle, settings: ScoreSettings) -> None:
    missed = left_out(plan, OutputColumns.of(settings))
    for line in [*choices_of(plan), *([missed] if missed else [])]:
        _LOG.log(NOTICE, "%s", line)
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
        opened: Opened,
        settings: ScoreSettings,
        models: Models,
        progress: ProgressFactory,
        started: float,
        want: Callable[..., None],
    ) -> None:
        self._want = want
        self._found, self._bundle, self._chosen, self._source = opened
        self._settings, self._models = settings, models
        self._progress, self._started = progress, started
        self._output = output_of(settings)
        staged = run_fingerprint(self._found, self._bundle, settings.part_options())
        self._staging = Staging(self._output / STAGING / staged[:32])
        self._begun = _now()
        self._spent = WorkDone()
        self._deciding: str | None = None
        """By what its answers are known another night; None if not all are known by the same."""

    def go(self) -> RunResult:
        """Do what is left of the run."""
        if (done := self._finished_before()) is not None:
            return done
        self._chosen = comparable(self._chosen, Baseline.verify)
        self._prepare_folder()
        try:
            self._refuse_long_names()
            plan = self._plan()
            _log_choices(plan, self._bundle, self._settings)
            self._chosen = comparable(self._chosen, lambda baseline: refuse_unmatchable(baseline, plan.files))
            keep(self._chosen, self._output, [file.name for file in self._found], self._bundle)
            keep_acceptance(self._settings, self._bundle)
            give_back_freed_memory()  # memory used while reading every file
            if not plan.rows and self._settings.skip_empty:
                raise NothingToDoError("The input holds no row.")
            refuse_rejects(plan, self._settings.max_rejects, self._staging, self._output)
            refuse_unappendable(self._settings, outputs_of(plan, self._bundle, self._settings))
            compute = self._score(plan)
        except BaseException:
            self._drop_unscored()
            raise
        for file in self._found:
            file.assert_unchanged()
        give_back_freed_memory()  # memory used while scoring the last part
        finish = Finish(self._staging, plan, self._bundle, self._settings, self._chosen.baseline)
        metrics = finish.run(lambda counts: self._facts(plan, compute, counts))
        remove_tree(self._output / STAGING)
        sync_folder(self._output)
        result = self._result("scored", plan.rows, plan.rejects, metrics, plan)
        return with_appended(result, self._settings)

    def _fingerprint(self) -> str:
        """That of the results; the baseline counts by its content, not its path."""
        options = self._settings.result_options() | {"baseline": self._chosen.content}
        return run_fingerprint(self._found, self._bundle, options)

    def _result(
        self, status: str, rows: int, rejects: int, metrics: Mapping[str, Any], plan: Plan | None = None
    ) -> RunResult:
        seconds = time.monotonic() - self._started
        return RunResult(self._settings.output, status, rows, rejects, metrics, seconds, plan)

    def _finished_before(self) -> RunResult | None:
        """The result of this same run, if the folder holds it finished."""
        if not is_finished(self._output) or self._settings.force:
            return None
        try:
            run = read_run(self._output)
            is_this = run.fingerprint == self._fingerprint()
            counts = run.counts
        except DAMAGE:
            is_this = False
        if not is_this:
            raise TakenError(
                f"{printable(self._output)} holds a finished run of other inputs, another model or other options. Name "
                "another --output, or add --force to replace it."
            )
        refuse_changed(self._output, hash_all=self._settings.verify)
        remove_tree(self._output / STAGING)
        result = self._result("done", counts["read"], counts["rejects"], run.metrics)
        return with_appended(result, self._settings)

    def _prepare_folder(self) -> None:
        """Refuse a folder that holds anything else; with ``--force`` replace another run."""
        refuse_foreign(self._output)
        staging = self._output / STAGING
        make_folder(staging)
        begun = [staging / entry.name for entry in staging.entries() if entry.is_folder]
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
        final = f"{self._staging.final.name}/{PREDICTIONS}"
        refuse_long_names(self._staging.folder, [f"{final}/{name}" for name in names])

    def _plan(self) -> Plan:
        """The plan of an earlier start, if it and its rejects are intact, or a new one."""
        path, rejects = self._staging.plan, self._staging.rejects
        saved = read_checked(path)
        with contextlib.suppress(*DAMAGE):  # made by hand: planned anew
            if saved is not None and sha256_of(rejects) == checked(saved, shapes.PLAN)["rejects"]:
                return Plan.from_json(saved["plan"]).of(self._found)
        with atomic_write(rejects) as out:
            plan = make_plan(self._found, self._bundle, self._settings, out)
        write_checked(path, {"plan": plan.to_json(), "rejects": sha256_of(rejects)})
        return plan

    def _score(self, plan: Plan) -> dict[str, Any]:
        """Score the parts that are not staged yet; returns the facts of the computation (device, precision and so on)."""
        journal = Journal(self._staging.journal, shapes.JOURNAL)
        try:
            compute, done = self._resume(journal)
            self._spent.take_over(entry for entry in journal.entries if entry.get("part") in done)
            todo = [part for part in plan.parts if part.number not in done]
            self._deciding = _only_one(journal.entries)
            if not todo:
                return compute
            self._want(*_FINISHING_MODULES, *[_LABEL_ISSUES_MODULE] * plan.has_labels)
            wanted = ModelSettings.of(self._settings, self._bundle)
            rows = RowsToScore(plan.rows, lambda: self._first_texts(plan))
            model, compute = self._models.load(self._bundle, wanted, compute, rows)
            refuse_other_precision(self._settings, compute)
            if (
                not journal.entries
            ):  # nor was this decided before, so what may be noted was made in another way
                remove_tree(self._staging.micro_batches)
                compute = self._tuned(plan, model, compute)
                journal.append({"compute": compute})
            model = model.with_inference(max_batch_tokens=compute["max_batch_tokens"])
            deciding = deciding_fingerprint(self._bundle, compute, STAGING_FORMAT, alone=goes_alone(model))
            journal.append({"deciding": deciding})
            self._deciding = _only_one(journal.entries)
            reuse = open_reuse(
                self._source, self._settings, model, deciding, self._fingerprint(), self._staging.reused
            )
            bar = self._progress(plan.rows)
            bar.add(sum(part.rows for part in plan.parts if part.number in done), counted=False)
            micro_batches = MicroBatches(
                self._staging.micro_batches, lambda rows, is_new: bar.add(rows, counted=is_new)
            )
            try:
                self._run_parts(plan, todo, model, journal, micro_batches, reuse)
            finally:
                micro_batches.close()
                bar.close()
                if reuse is not None:
                    reuse.close()
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
        """The facts of an earlier start's computation, and the numbers of its intact parts.

        A part with answers of a store or run counts only while that is named still: its audit may not have come to an end.
        """
        compute: dict[str, Any] = {}
        done: set[int] = set()
        taken_from = {entry["reused_from"] for entry in journal.entries if "reused_from" in entry}
        trusted = identity_of(self._source) if taken_from else None
        for entry in journal.entries:
            if entry.get("compute"):
                compute = entry["compute"]
            elif entry.get("reused_from", trusted) == trusted and self._is_whole(entry):
                done.add(entry["part"])
        return compute, done

    def _is_whole(self, entry: Mapping[str, Any]) -> bool:
        if entry.get("part") is None:
            return False
        path = self._staging.part(entry["part"])
        return path.exists() and sha256_of(path) == entry.get("sha256")

    def _run_parts(
        self,
        plan: Plan,
        todo: list[Part],
        model: Model,
        journal: Journal,
        micro_batches: MicroBatches,
        reuse: Reuse | None,
    ) -> None:
        given = given_labels(plan, self._bundle, self._settings.label_map)
        answers = answers_of_run(self._bundle, self._settings)
        self._spent.start(model.workers)

        def sink(part: Part, rows: Rows, predictions: Predictions) -> None:
            path = self._staging.part(part.number)
            if reuse is not None:
                predictions = reuse.completed(part, predictions)
            indices = given[part.file].indices(rows.labels, len(rows.texts))
            stage_part(path, rows, predictions, indices, answers)
            work = self._spent.add(predictions.work, micro_batches.earlier_seconds(part))
            source = {"reused_from": reuse.identity} if reuse is not None and work.get("reused") else {}
            journal.append({"part": part.number, "sha256": sha256_of(path), "work": work, **source})
            micro_batches.staged(part)
            give_back_freed_memory()

        parts = read_parts(plan, todo, self._settings.read)
        engine = ENGINES[self._settings.engine]
        if reuse is None:
            engine(parts, model, sink, micro_batches.watch)
        else:
            engine(
                reuse.unknown(parts), model, sink, lambda part: micro_batches.watch(part, reuse.without(part))
            )
            reuse.finish()

    def _facts(self, plan: Plan, compute: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
        seconds = time.monotonic() - self._started + self._spent.earlier
        times = RunTimes(self._begun, _now(), seconds)
        facts = facts_of_run(
            self._fingerprint(), plan, self._bundle, self._settings, self._chosen.baseline, times
        )
        facts |= work_facts(compute, self._spent, counts, seconds)
        return {
            **facts,
            "deciding": self._deciding,
            "reuse": facts_of_reuse(self._settings, self._source, self._spent.total),
        }


def _only_one(entries: Sequence[Mapping[str, Any]]) -> str | None:
    """By what the answers of all starts are known, if they are alike."""
    found = {entry["deciding"] for entry in entries if "deciding" in entry}
    return found.pop() if len(found) == 1 else None


def _now() -> datetime.datetime:
    """Local time with its offset; its date is the night's if there is no other."""
    return datetime.datetime.now().astimezone()
