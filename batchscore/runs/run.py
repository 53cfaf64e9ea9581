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
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from batchscore.config import ScoreSettings, fingerprint
from batchscore.errors import (
    BatchscoreError,
    NothingToDoError,
    TakenError,
    printable,
)
from batchscore.formats.inputs import FoundFile, Noted, recognise
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.staged import SHARD_FORMAT
from batchscore.model.bundle import Bundle
from batchscore.model.given import uses_labels
from batchscore.model.loading import BUNDLE_SETTINGS, Models
from batchscore.runs import shapes
from batchscore.runs.as_written import refuse_changed
from batchscore.runs.baselines import Baseline, refuse_unmatchable
from batchscore.runs.calibration_rows import with_acceptance
from batchscore.runs.choices import choices_of, label_warnings, left_out
from batchscore.runs.chosen_baseline import comparable, keep
from batchscore.runs.dataset import refuse_unappendable
from batchscore.runs.dates import date_of_run
from batchscore.runs.engines import refuse_unusable
from batchscore.runs.finishing import Finish, outputs_of
from batchscore.runs.folder import (
    BEFORE_SCORING,
    DAMAGE,
    NOTE,
    PREDICTIONS,
    STAGING,
    UNNAMED,
    Keeper,
    Staging,
    is_finished,
    output_of,
    prediction_names,
    read_run,
)
from batchscore.runs.forecast import forecast
from batchscore.runs.kept_acceptance import keep_acceptance
from batchscore.runs.opening import Opened, night_of, open_inputs, refuse_foreign, standard_input
from batchscore.runs.planning import Plan, make_plan
from batchscore.runs.refusals import refusals_noted
from batchscore.runs.rejects import refuse_rejects
from batchscore.runs.result import RunResult, with_appended
from batchscore.runs.reuse import facts_of_reuse
from batchscore.runs.run_facts import NOTED, RunTimes, facts_of_run, noted_inputs, work_facts
from batchscore.runs.scoring_parts import STAGING_FORMAT, Scoring
from batchscore.system.allocator import give_back_freed_memory
from batchscore.system.documents import checked
from batchscore.system.importing import imports_ahead, installed_version
from batchscore.system.journal import read_checked, write_checked
from batchscore.system.locks import locked, note_holder
from batchscore.system.memory import rare_collections, shortage_told
from batchscore.system.names import refuse_long_names
from batchscore.system.storage import (
    atomic_write,
    failing,
    make_folder,
    names_in_manifest,
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


def score(
    settings: ScoreSettings,
    progress: ProgressFactory,
    models: Models | None = None,
    keeper: Keeper | None = None,
) -> RunResult:
    """Score files into a run folder, resuming where an earlier call of the same was stopped.

    ``models`` loads the model; a caller with many runs gives one that keeps it. ``keeper`` is the run folder itself, where this one is
    its copy.

    Raises:
        BatchscoreError: see :mod:`batchscore.errors` for the kinds.
    """
    started = time.monotonic()
    models = models or Models()
    refuse_unusable(settings)
    night = night_of(settings)
    if date_of_run(settings.output) is not None:  # then --date adds nothing
        settings = dataclasses.replace(settings, date=None)
    with shortage_told(), failing(settings.output), rare_collections():
        if settings.dry_run:
            with standard_input(settings) as stdin:
                return _planned(open_inputs(settings, models, stdin), settings, models, started)
        with (
            locked(output_of(settings)),  # the lock first: a second call fails at once
            refusals_noted(output_of(settings), night),
            failing(settings.output),
            imports_ahead() as want,
            standard_input(settings) as stdin,
        ):
            opened = open_inputs(settings, models, stdin, want)
            decided = with_acceptance(settings, opened.bundle)
            return _Run(opened, decided, models, progress, (started, want), keeper).go()


def _planned(opened: Opened, settings: ScoreSettings, models: Models, started: float) -> RunResult:
    settings = with_acceptance(settings, opened.bundle)
    with tempfile.TemporaryFile() as rejects:
        plan = make_plan(opened.found, opened.bundle, settings, rejects)
    comparable(opened.chosen, lambda baseline: refuse_unmatchable(baseline, plan.files))
    refuse_unappendable(settings, outputs_of(plan, opened.bundle, settings))
    _log_label_warnings(plan, opened.bundle, settings)
    ahead = forecast(plan, opened.bundle, settings, models, time.monotonic() - started)
    seconds = time.monotonic() - started
    return RunResult(settings.output, "planned", plan.rows, plan.rejects, {}, seconds, plan, forecast=ahead)


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
            "format": [STAGING_FORMAT, SHARD_FORMAT],
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
        start: tuple[float, Callable[..., None]],
        keeper: Keeper | None = None,
    ) -> None:
        """``start`` is when it was, and what imports ahead."""
        started, self._want = start
        self._opened = opened
        self._found, self._bundle, self._chosen, self._source = opened
        self._settings, self._models = settings, models
        self._progress, self._started = progress, started
        self._output = output_of(settings)
        self._keeper = keeper
        self._staging = Staging(self._output / STAGING / UNNAMED, keeper)
        self._begun = _now()

    def go(self) -> RunResult:
        """Do what is left of the run."""
        if (done := self._finished_before()) is not None:
            return done
        self._chosen = comparable(self._chosen, Baseline.verify)
        self._find_staging()
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
            scoring = Scoring(
                self._staging,
                self._opened,
                self._settings,
                self._models,
                self._fingerprint(),
                self._progress,
                self._want,
            )
            compute = scoring.score(plan)
        except BaseException:
            self._drop_unscored()
            raise
        for file in self._found:
            file.assert_unchanged()
        give_back_freed_memory()  # memory used while scoring the last part
        finish = Finish(self._staging, plan, self._bundle, self._settings, self._chosen.baseline)
        metrics = finish.run(lambda counts: self._facts(plan, compute, scoring, counts))
        remove_tree(self._output / STAGING)
        sync_folder(self._output)
        result = self._result("scored", plan.rows, plan.rejects, metrics, plan)
        return with_appended(result, self._settings)

    def _find_staging(self) -> None:
        """Where an earlier start of this run staged; without one the inputs are hashed later, as they are read for the plan."""
        staging = self._output / STAGING
        begun = staging.entries() if staging.is_folder() else []
        if any(entry.is_folder and entry.name != UNNAMED for entry in begun):
            recognise(self._found, self._noted_for_plans())
            self._staging = self._named_staging()

    def _named_staging(self) -> Staging:
        """The staging folder of these inputs, this model and these options."""
        staged = run_fingerprint(self._found, self._bundle, self._settings.part_options())
        return Staging(self._output / STAGING / staged[:32], self._keeper)

    def _noted_for_plans(self) -> list[Noted]:
        """What the inputs were when they were planned, by all plans in the folder."""
        if self._settings.verify_inputs:
            return []
        staging, noted = self._output / STAGING, []
        for name in staging.names():
            with contextlib.suppress(*DAMAGE):
                saved = checked(read_checked(Staging(staging / name).plan), shapes.PLAN)
                pairs = zip(saved["plan"]["files"], saved["noted"], strict=True)
                noted += [Noted.from_json(each, file["sha256"]) for file, each in pairs]
        return noted

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
            if not self._settings.verify_inputs:
                recognise(self._found, noted_inputs(run))
            is_this = run.fingerprint == self._fingerprint()
            counts = run.counts
        except DAMAGE:
            is_this = False
        if not is_this:
            raise TakenError(
                f"{printable(self._output)} holds a finished run of other inputs, another model or other options. Name "
                "another --output, or add --force to replace it."
            )
        if self._keeper is None:
            refuse_changed(self._output, hash_all=self._settings.verify)
        else:
            self._keeper.refuse_changed(hash_all=self._settings.verify)
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
        saved = read_checked(self._staging.plan)
        if self._staging.folder.name != UNNAMED:
            with contextlib.suppress(*DAMAGE):  # made by hand: planned anew
                if (
                    saved is not None
                    and sha256_of(self._staging.rejects) == checked(saved, shapes.PLAN)["rejects"]
                ):
                    return Plan.from_json(saved["plan"]).of(self._found)
        return self._new_plan()

    def _new_plan(self) -> Plan:
        """Plan, and give the staging folder its name, for which the inputs must be hashed."""
        with atomic_write(self._staging.rejects) as out:
            plan = make_plan(self._found, self._bundle, self._settings, out)
        noted = [file.noted.to_json() for file in self._found]
        rejects = sha256_of(self._staging.rejects)
        write_checked(self._staging.plan, {"plan": plan.to_json(), "rejects": rejects, "noted": noted})
        named = self._named_staging()
        if named != self._staging:
            self._staging.folder.replace(named.folder)
            sync_folder(named.folder.parent)
            self._staging = named
        return plan

    def _facts(
        self, plan: Plan, compute: Mapping[str, Any], scoring: Scoring, counts: Mapping[str, int]
    ) -> dict[str, Any]:
        seconds = time.monotonic() - self._started + scoring.spent.earlier
        times = RunTimes(self._begun, _now(), seconds)
        facts = facts_of_run(
            self._fingerprint(), plan, self._bundle, self._settings, self._chosen.baseline, times
        )
        facts |= work_facts(compute, scoring.spent, counts, seconds)
        return {
            **facts,
            NOTED: [found.noted.to_json() for found in self._found],
            "deciding": scoring.deciding,
            "reuse": facts_of_reuse(self._settings, self._source, scoring.spent.total),
        }


def _now() -> datetime.datetime:
    """Local time with its offset; its date is the night's if there is no other."""
    return datetime.datetime.now().astimezone()
