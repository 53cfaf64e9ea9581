"""A separate process that keeps the model and scores files, so that a file that crashes it does not crash the caller.

A file can crash a reader written in C. Then this process dies, the caller sees it, and the next file gets a new process.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import multiprocessing
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from batchscore.errors import BatchscoreError, ModelError, StorageError, TakenError, printable
from batchscore.system.locks import locked
from batchscore.system.memory import NO_MEMORY
from batchscore.system.storage import failing
from batchscore.system.surroundings import died_of_a_limit, settle_in, shortage
from batchscore.system.terminal import Logs, Progress, set_up_logs

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from batchscore.config import ScoreSettings
    from batchscore.model.loading import Models
    from batchscore.runs.result import RunResult

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 1.0
STARVED = (-signal.SIGKILL, -signal.SIGABRT)
"""Exit codes of a process that may have lacked memory: the kernel killed it, or a library gave up."""
_ERRORS = {error.exit_code: error for error in BatchscoreError.__subclasses__()}


class Job(NamedTuple):
    """One file to score: where it is, the SHA-256 of its content, and run folders to try, in this order."""

    path: str
    sha256: str
    folders: Sequence[str]


class Outcome(NamedTuple):
    """The outcome of one file."""

    exit_code: int
    """As in :mod:`batchscore.errors`; ``-N`` if signal *N* killed the process."""
    status: str
    """``scored``, ``done`` (it was scored before) or ``failed``."""
    message: str
    """Why it failed, or which gate did, or that nothing was appended to the data set."""
    folder: str
    """The run folder, or empty."""
    counts: Mapping[str, int]
    crashed: bool = False
    """Whether it crashed under a limit on its memory: the exit code is then that of a lack, but it may be the file's fault."""

    @property
    def is_starved(self) -> bool:
        """Whether the process died, perhaps for lack of memory."""
        return self.crashed or self.exit_code in STARVED


class ScoringProcess:
    """A process that scores one file after another; started when first needed, and again after it died."""

    def __init__(self, settings: ScoreSettings, logs: Logs) -> None:
        self._settings, self._logs = settings, logs
        self._running: tuple[BaseProcess, Connection] | None = None
        self._is_prepared = False
        self.starts = 0
        """How often a process was started."""

    @property
    def pid(self) -> int | None:
        """The running process's id; None if none runs."""
        return self._running[0].pid if self._running is not None else None

    def prepare(self) -> None:
        """Start the process and load the model, so that a failure there is not blamed on a file.

        Raises:
            BatchscoreError: the model or the settings cannot be used, or the process died loading them.
        """
        if self._running is not None and self._is_prepared:
            return
        outcome = self._request(None)
        if outcome.exit_code in STARVED:
            raise StorageError(
                f"{outcome.message} That was while it loaded the model, before any file. {NO_MEMORY}"
            )
        if outcome.exit_code < 0:
            raise ModelError(f"{outcome.message} That was while it loaded the model, before any file.")
        if outcome.exit_code:
            raise _ERRORS.get(outcome.exit_code, BatchscoreError)(outcome.message)
        self._is_prepared = True

    def score(self, job: Job) -> Outcome:
        """Score one file. If the process dies, the outcome says so; nothing is raised."""
        return self._request(job)

    def _request(self, job: Job | None) -> Outcome:
        self._running = self._running or self._start()
        process, pipe = self._running
        try:
            pipe.send(job and tuple(job))
            return Outcome(*pipe.recv())
        except (EOFError, OSError):
            process.join()
            code = process.exitcode or 0
            self._running = None
            if limit := died_of_a_limit(-code):
                message = f"{_death_message(code)[:-1]}: {limit}."
                crashed = code != -signal.SIGXCPU  # the end of CPU time is no crash, and no file's fault
                return Outcome(StorageError.exit_code, "failed", message, "", {}, crashed)
            return Outcome(code if code < 0 else 1, "failed", _death_message(code), "", {})

    def _start(self) -> tuple[BaseProcess, Connection]:
        context = multiprocessing.get_context("spawn")  # a fork of a parent with threads may hang
        ours, theirs = context.Pipe()
        arguments = (theirs, self._settings, self._logs)
        process = context.Process(target=_work, args=arguments, name="scoring", daemon=True)
        process.start()
        theirs.close()
        self._is_prepared = False
        self.starts += 1
        return process, ours

    def close(self) -> None:
        """End the process; a run in progress is resumed another time."""
        if self._running is not None:
            process, pipe = self._running
            process.terminate()
            process.join(_GRACE_SECONDS)
            process.kill()
            process.join()
            pipe.close()
        self._running = None


def _death_message(code: int) -> str:
    if code >= 0:
        return f"The process that scored it ended without a word (exit code {code})."
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory?)" if code in STARVED else ""
    return f"The process that scored it died of {name}{hint}."


def _work(pipe: Connection, settings: ScoreSettings, logs: Logs) -> None:
    """Score the jobs from the pipe until it is closed."""
    settle_in()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends us
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    set_up_logs(logs)
    from batchscore.model.loading import KeptModels

    models = KeptModels()
    with contextlib.suppress(EOFError, OSError):
        while True:
            asked = pipe.recv()
            job = Job(*asked) if asked is not None else None
            pipe.send(tuple(_outcome(job, settings, models, quiet=logs.verbosity < 0)))


def _outcome(job: Job | None, settings: ScoreSettings, models: Models, *, quiet: bool) -> Outcome:
    try:
        if job is None:
            return _load(settings, models)
        return _score(job, settings, models, quiet=quiet)
    except Exception as error:  # noqa: BLE001 - a bug of ours must not fail the other files
        told = shortage(error) or error
        if isinstance(told, BatchscoreError):
            return Outcome(told.exit_code, "failed", str(told), "", {})
        return Outcome(1, "failed", f"A fault in the program:\n{traceback.format_exc()}", "", {})


def _load(settings: ScoreSettings, models: Models) -> Outcome:
    """Load the model before there is a file to score."""
    from batchscore.model.loading import ModelSettings

    bundle = models.open(settings.model, settings.revision, settings.trust)
    models.load(bundle, ModelSettings.of(settings, bundle), {})
    return Outcome(0, "loaded", "", "", {})


def _score(job: Job, settings: ScoreSettings, models: Models, *, quiet: bool) -> Outcome:
    """Score a file into the first of its folders that holds no other run; a finished one is only appended where it lacks."""
    from batchscore.runs.run import score

    bundle = models.open(settings.model, settings.revision, settings.trust)
    for folder in job.folders:
        one = dataclasses.replace(settings, inputs=(job.path,), output=Path(folder))
        if (done := _finished_run(job.sha256, bundle.fingerprint, one)) is not None:
            return _outcome_of(_with_appended(done, one))
    for folder in job.folders:
        one = dataclasses.replace(settings, inputs=(job.path,), output=Path(folder))
        try:
            result = score(one, lambda total: Progress(total, quiet=quiet), models)
        except TakenError:
            if folder == job.folders[-1]:
                raise
            continue  # an earlier run of this content with another model or other options
        return _outcome_of(result)
    raise ModelError(f"{printable(job.path)} has no folder to be scored into.")


def _with_appended(done: RunResult, settings: ScoreSettings) -> RunResult:
    """A finished run, put into the data set if there is one: its call may have been killed, or failed, just before."""
    from batchscore.runs.folder import output_of
    from batchscore.runs.result import with_appended

    if settings.append_to is None:
        return done
    with locked(output_of(settings)), failing(done.output):
        return with_appended(done, settings)


def _outcome_of(result: RunResult) -> Outcome:
    """The outcome of a finished run, including one with a failed gate or failed rows."""
    before = ", ".join(printable(path) for path in result.appended_before)
    code, message = 0, f"in the data set already: {before}" if before else ""
    try:
        result.outcome()
    except BatchscoreError as error:
        code, message = error.exit_code, str(error)
    return Outcome(code, result.status, message, str(result.output), result.metrics["counts"])


def _finished_run(sha256: str, bundle_fingerprint: str, settings: ScoreSettings) -> RunResult | None:
    """The finished run in the output if it is of this content (under any name), this model and these options."""
    from batchscore.runs.as_written import refuse_changed
    from batchscore.runs.folder import DAMAGE, is_finished, output_of, read_run
    from batchscore.runs.result import RunResult

    folder = output_of(settings)
    if not is_finished(folder):
        return None
    try:
        run = read_run(folder)
        is_same = (
            [file["sha256"] for file in run.files] == [sha256]
            and run.model["fingerprint"] == bundle_fingerprint
            and run.options == json.loads(json.dumps(settings.result_options()))
        )
        done = RunResult(folder.path, "done", run.counts["read"], run.counts["rejects"], run.metrics, 0.0)
    except DAMAGE:
        return None
    if not is_same:
        return None
    refuse_changed(folder, hash_all=settings.verify)
    return done
