"""Emptying a drop folder: each complete file is scored as a run of its own, then moved to ``done/`` or ``failed/``.

A file stays in place until its run has finished, and is then moved by one rename. So a killed call needs no repair: the
next one finds the file, finds its run by the hash of its content, and resumes. One call at a time holds the inbox (an OS
lock, released when the process ends). A file that calls died on comes after the others, and is set aside in the end
(:mod:`batchscore.inbox.attempts`).

``DIR/<date>/<name>-<first 16 digits of the content's SHA-256>/`` is a file's run folder; the date is the local date of the
call that began it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import logging
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from batchscore.config import InboxSettings
from batchscore.errors import (
    BatchscoreError,
    BusyError,
    DataError,
    GateFailedError,
    ModelError,
    NothingToDoError,
    OutputError,
    StorageError,
    UsageError,
    missing_extra,
    printable,
    storage_error,
)
from batchscore.inbox.attempts import MAX_DEATHS, Attempts
from batchscore.inbox.filing import MAX_NAME_BYTES, cut_name, free_name, make_inbox_folder, move, rename
from batchscore.inbox.scoring_process import Job, Outcome, ScoringProcess
from batchscore.inbox.whole_files import (
    ERROR,
    contents,
    refusal,
    refuse_missing,
    settling_line,
)
from batchscore.runs.folder import STAGING, staged_shards
from batchscore.system.locks import locked
from batchscore.system.memory import NO_MEMORY, has_room
from batchscore.system.own_paths import OwnPath, own
from batchscore.system.storage import make_folder, remove_tree, sha256_of, write_bytes
from batchscore.system.terminal import PLAIN, Logs

_LOG = logging.getLogger(__name__)
DONE, FAILED = "done", "failed"
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_RUN = re.compile(r"-([0-9a-f]{16})(-\d+)?$")
_NOT_THE_FILES_FAULT = {cls.exit_code: cls for cls in (UsageError, OutputError, StorageError)}
"""Errors that are likely not the file's fault: it stays in place, the others are tried, and the call exits with the code."""


class FileOutcome(NamedTuple):
    """The outcome of one file of the inbox."""

    name: str
    status: str
    """``scored``, ``done`` (the same content was scored before), ``failed``, or ``waiting`` (it stays: it changed, its run is
    locked, or an error that is not its fault, see ``exit_code``)."""
    exit_code: int
    rows: int
    folder: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class InboxResult:
    """What one call did."""

    files: tuple[FileOutcome, ...]
    seconds: float
    error: BatchscoreError | None = None
    """An error that would affect every file (the model, the device) and ended the call early."""
    settling: tuple[str, ...] = ()
    """Names of files left for a later call, since they may still be written."""

    @property
    def metrics(self) -> dict[str, Any]:
        """What :func:`batchscore.cli.prometheus.write_metrics` takes."""
        statuses = collections.Counter({"scored": 0, "done": 0, "failed": 0, "waiting": 0})
        statuses.update(each.status for each in self.files)
        return {"files": dict(statuses), "counts": {"read": sum(each.rows for each in self.files)}}

    def summary(self) -> dict[str, Any]:
        """The result for ``--json``, as JSON values."""
        return {
            "status": "emptied",
            "exit_code": 0,
            **self.metrics["files"],
            "rows": self.metrics["counts"]["read"],
            "files": [each._asdict() for each in self.files],
            "settling": list(self.settling),
            "seconds": round(self.seconds, 3),
        }

    @property
    def problem(self) -> BatchscoreError | None:
        """What :meth:`outcome` raises, if it does."""
        try:
            self.outcome()
        except BatchscoreError as error:
            return error
        return None

    @property
    def exit_code(self) -> int:
        """The exit code of a command that makes this one call."""
        return self.problem.exit_code if self.problem is not None else 0

    def outcome(self) -> None:
        """Raise if the call did less than it was asked to.

        In this order: the error that ended the call, one that kept a file waiting, a failed file, a failed gate.
        """
        if self.error is not None:
            raise self.error
        stuck = [each for each in self.files if each.exit_code in _NOT_THE_FILES_FAULT]
        if stuck:
            message = f"{len(stuck)} of {len(self.files)} files stay; the first, {printable(stuck[0].name)}: "
            raise _NOT_THE_FILES_FAULT[stuck[0].exit_code](message + stuck[0].message)
        failed = [each for each in self.files if each.status == "failed"]
        if failed:
            first = failed[0]
            message = f"{len(failed)} of {len(self.files)} files failed; the first, {printable(first.name)}: {first.message}"
            error: BatchscoreError = DataError(message)
            error.exit_code = 1 if first.exit_code == 1 else DataError.exit_code
            raise error
        partly = [each for each in self.files if each.exit_code == DataError.exit_code]
        if partly:
            raise DataError(f"{printable(partly[0].name)}: {partly[0].message}")
        missed = [each for each in self.files if each.exit_code == GateFailedError.exit_code]
        if missed:
            raise GateFailedError(f"{printable(missed[0].name)}: {missed[0].message}")


def empty(settings: InboxSettings, tell: Callable[[FileOutcome], None], logs: Logs = PLAIN) -> InboxResult:
    """Score every complete file once; errors after the start are in the result.

    ``tell`` is called with each file's outcome as soon as it is known; ``logs`` are the log settings of the scoring process.

    Raises:
        NoInputError: there is no such inbox.
        BusyError: another call holds it.
        NothingToDoError: no file is ready, and ``skip_empty`` is set.
        BatchscoreError: the inbox or the output cannot be used.
    """
    with _held(settings) as process:
        result = _score_new_files(settings, process(logs), tell)
    if not result.files and result.error is None and settings.skip_empty:
        left = f" {settling_line(result.settling, settings)}." if result.settling else ""
        raise NothingToDoError(f"Nothing to score in {printable(settings.inbox)}.{left}")
    return result


def watch(
    settings: InboxSettings,
    tell: Callable[[FileOutcome], None],
    logs: Logs = PLAIN,
    conclude: Callable[[InboxResult], None] = lambda _: None,
) -> None:
    """Score files as they come, until a signal or an error that would affect every file.

    ``conclude`` is called with the result of each round that found a file; its errors are logged before, except the one that
    ends the watch. Raises what :func:`empty` raises, the ``error`` of a round, and :class:`UsageError` without
    ``watchfiles``.
    """
    try:
        import watchfiles
    except ImportError as error:
        raise missing_extra("--watch", "watch") from error
    pause = max(1000, round(settings.settle * 1000))  # a file that settles causes no event
    with _held(settings) as process:
        scoring = process(logs)

        def score_round() -> None:
            result = _score_new_files(settings, scoring, tell)
            if result.error is None and (problem := result.problem) is not None:
                _LOG.error("%s", problem, extra={"event": "error", "exit_code": problem.exit_code})
            if result.files or result.error is not None:
                conclude(result)
            if result.error is not None:
                raise result.error

        score_round()
        for _ in watchfiles.watch(
            settings.inbox,
            recursive=False,
            rust_timeout=pause,
            yield_on_timeout=True,
            raise_interrupt=True,
        ):
            score_round()


@contextlib.contextmanager
def _held(settings: InboxSettings) -> Iterator[Callable[[Logs], ScoringProcess]]:
    """Lock the inbox; yields a function that makes the scoring process, which ends with the block."""
    refuse_missing(settings.inbox)
    started: list[ScoringProcess] = []

    def start(logs: Logs) -> ScoringProcess:
        within = dataclasses.replace(settings.score, within=settings.output)
        started.append(ScoringProcess(within, logs))
        return started[-1]

    with locked(settings.inbox):
        signal.signal(
            signal.SIGIO, signal.SIG_IGN
        )  # comes when a writer breaks a lease; see _is_being_written
        make_folder(settings.output)
        try:
            yield start
        finally:
            for process in started:
                process.close()


class _Call(NamedTuple):
    """What the files of one call share."""

    settings: InboxSettings
    process: ScoringProcess
    runs: _Runs
    attempts: Attempts


def _score_new_files(
    settings: InboxSettings, process: ScoringProcess, tell: Callable[[FileOutcome], None]
) -> InboxResult:
    started = time.monotonic()
    outcomes: list[FileOutcome] = []
    ended_by: BatchscoreError | None = None
    found = contents(settings)
    call = _Call(settings, process, _Runs(settings.output), Attempts(settings.inbox))
    try:
        for path in sorted(found.whole, key=lambda path: call.attempts.deaths_of_name(path.name)):
            each = _process_file(path, call)
            tell(each)
            outcomes.append(each)
    except BatchscoreError as error:
        ended_by = error
    finally:
        call.attempts.close()
    return InboxResult(tuple(outcomes), time.monotonic() - started, ended_by, tuple(found.settling))


def line(outcome: FileOutcome) -> str:
    """A file's outcome as a line for people."""
    name = printable(outcome.name)
    if outcome.status in {"scored", "done"}:
        again = "scored before" if outcome.status == "done" else f"{outcome.rows} rows"
        gate = f"; {outcome.message}" if outcome.message else ""
        return f"{name}: {again}, {printable(outcome.folder)}{gate}"
    return f"{name}: {outcome.status}: {outcome.message}"


# -------------------------------------------------------------------------------------------------- one file


def _identity(path: Path) -> tuple[int, ...]:
    """Size, mtime, inode and ctime: a change shows in them, and no program can set the ctime."""
    facts = path.lstat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_ctime_ns


def _process_file(path: Path, call: _Call) -> FileOutcome:
    """Score one file and move it, unless it is ``waiting``.

    Raises:
        BatchscoreError: an error that would affect every file.
    """
    settings = call.settings
    outcome, digest = _score_in_place(path, call)
    if outcome.exit_code == ModelError.exit_code:
        raise ModelError(outcome.message)
    try:
        if outcome.status == "waiting":
            return FileOutcome(path.name, "waiting", outcome.exit_code, 0, "", outcome.message)
        if outcome.status == "failed":
            return _set_aside(path, settings, outcome, digest)
        move(path, settings.inbox / DONE, digest)
    except BatchscoreError as error:
        return FileOutcome(path.name, "waiting", error.exit_code, 0, outcome.folder, str(error))
    rows = outcome.counts.get("read", 0)
    return FileOutcome(path.name, outcome.status, outcome.exit_code, rows, outcome.folder, outcome.message)


def _score_in_place(path: Path, call: _Call) -> tuple[Outcome, str]:
    """Score a file without moving it; returns the outcome and the SHA-256 of its content."""
    digest = ""
    try:
        if reason := refusal(path, call.settings.score.read.format):
            return _failed(reason), digest
        before = _identity(path)
        digest = sha256_of(own(path))
        outcome = _score_with_retry(path, Job(str(path), digest, call.runs.folders(path.name, digest)), call)
        if outcome.folder:
            call.runs.note(outcome.folder, digest)
        if _identity(path) != before:
            return _waiting("it changed while it was being scored; left for the next call"), digest
        if outcome.exit_code in _NOT_THE_FILES_FAULT:
            return _waiting(outcome.message, outcome.exit_code), digest
        return (_waiting(outcome.message) if outcome.exit_code == BusyError.exit_code else outcome), digest
    except FileNotFoundError:
        return _waiting("somebody took it away"), digest
    except PermissionError:
        return _failed("It cannot be read. Give the scorer's user permission to read it."), digest
    except OSError as error:
        found = storage_error("Reading", path, error)
        return _waiting(str(found), found.exit_code), digest


def _score_with_retry(path: Path, job: Job, call: _Call) -> Outcome:
    """Score a file while its mark is on disk; try once more if the process died, since it may have been killed from outside."""
    parts = sum(1 for folder in job.folders for _ in staged_shards(call.runs.place_of(folder)))
    deaths, room = call.attempts.deaths(job.sha256, parts), has_room()
    is_culprit = call.attempts.deaths_with_room(job.sha256, parts) >= MAX_DEATHS
    if is_culprit:
        outcome = Outcome(1, "failed", _DIED_REPEATEDLY.format(deaths), "", {})
    elif deaths >= MAX_DEATHS and not room:
        return _waiting(_NO_ROOM.format(deaths), StorageError.exit_code)
    else:
        call.process.prepare()  # a death while loading the model is not the file's fault
        try:
            with call.attempts.marked(path.name, job.sha256, parts, has_room=room) as mark:
                outcome = call.process.score(job)
                if outcome.exit_code < 0:
                    _LOG.warning("%s: %s Trying once more.", printable(path.name), outcome.message)
                    outcome = call.process.score(job)
                mark.died = outcome.is_starved
        except (StorageError, OutputError) as error:
            return _waiting(str(error), error.exit_code)
    if outcome.exit_code < 0 or outcome.crashed or is_culprit:
        for folder in job.folders:
            _remove_unscored(call.runs.place_of(folder))
    if outcome.is_starved:
        return _waiting(f"{outcome.message} {NO_MEMORY}", StorageError.exit_code)
    return outcome


_DIED_REPEATEDLY = (
    "The last {} calls died while they scored it, and none was left to say of what. Perhaps memory ran out, or it crashes "
    "the reader. Try it alone with `batchscore score`."
)


_NO_ROOM = (
    "The last {} calls died while they scored it, and there is not much more memory now, so it was not tried again. Give it more: "
    "it is tried as soon as there is."
)


def _failed(message: str) -> Outcome:
    return Outcome(DataError.exit_code, "failed", message, "", {})


def _waiting(message: str, exit_code: int = 0) -> Outcome:
    return Outcome(exit_code, "waiting", message, "", {})


def _remove_unscored(folder: OwnPath) -> None:
    """Remove what a process that died left of a run, if nothing was scored."""
    if not any(staged_shards(folder)):
        remove_tree(folder / STAGING)
        for each in (folder, folder.parent):  # and that of the day, unless it holds other runs
            with contextlib.suppress(OSError):
                each.rmdir()


def _set_aside(path: Path, settings: InboxSettings, outcome: Outcome, digest: str = "") -> FileOutcome:
    """Write a note that says why, then move the file; after a kill in between, both are done again."""
    folder = make_inbox_folder(settings.inbox / FAILED)
    target = free_name(path, folder, digest)
    code = outcome.exit_code if outcome.exit_code > 0 else 1
    text = (
        f"{printable(path.name)} could not be scored.\n\n{outcome.message}\n\n"
        f"Put it into {printable(settings.inbox)} again once this is mended.\n"
        f"(exit code {code}, {datetime.datetime.now().astimezone().isoformat(timespec='seconds')})\n"
    )
    note = cut_name(target.name, 255 - len(ERROR)) + ERROR
    write_bytes(folder / note, text.encode("utf-8", "surrogateescape"))
    rename(path, target)
    return FileOutcome(path.name, "failed", code, 0, "", outcome.message.partition("\n")[0])


# ----------------------------------------------------------------------------------------------- run folders


class _Runs:
    """The run folders below ``output``, by the hash of their input's content."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._today = output / datetime.datetime.now().astimezone().date().isoformat()
        self._known: dict[str, list[str]] = {}
        days = (path for path in _folders(output) if _DAY.fullmatch(path.name))
        for day in sorted(days, reverse=True):
            for path in _folders(day):
                if match := _RUN.search(path.name):
                    self._known.setdefault(match[1], []).append(str(path))

    def folders(self, name: str, digest: str) -> list[str]:
        """Run folders of this content, finished or not, newest first, then a free name of today."""
        known = self._known.get(digest[:16], [])
        kept = cut_name(name, MAX_NAME_BYTES)
        first = new = f"{self._today / kept}-{digest[:16]}"
        number = 1
        while new in known:
            number += 1
            new = f"{first}-{number}"
        return [*known, new]

    def place_of(self, folder: str) -> OwnPath:
        """A run folder, as one of our own below ``output``."""
        return OwnPath(self._output) / str(Path(folder).relative_to(self._output))

    def note(self, folder: str, digest: str) -> None:
        """Remember that ``folder`` is a run of this content."""
        known = self._known.setdefault(digest[:16], [])
        if folder not in known:
            known.insert(0, folder)


def _folders(folder: Path) -> Iterable[Path]:
    return (Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
