"""A drop folder, emptied: each whole file becomes a run of its own and then lies in ``done/`` or ``failed/``.

A file stays where it is until its run has finished, and is then moved by one rename. So a call that is killed leaves
nothing to mend: the next one finds the file, finds its run by the hash of its content, and goes on. One call at a time
holds the inbox (an OS lock, which dies with it). A file that calls die with comes after the others, and is set aside in
the end (:mod:`batchscore.inbox.attempts`).

``DIR/<date>/<name>-<first 16 digits of the content's SHA-256>/`` is a file's run folder; the date is the local one of the
call that began it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import errno
import fcntl
import logging
import os
import re
import signal
import stat
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from batchscore.config import InboxSettings
from batchscore.errors import (
    BatchscoreError,
    BusyError,
    DataError,
    GateFailedError,
    ModelError,
    NoInputError,
    NothingToDoError,
    OutputError,
    StorageError,
    UsageError,
    missing_extra,
    printable,
    storage_error,
)
from batchscore.formats.registry import format_of_name
from batchscore.inbox.attempts import MOST_DEATHS, Attempts
from batchscore.inbox.scoring_process import Job, Outcome, ScoringProcess
from batchscore.runs.folder import STAGING, staged_parts
from batchscore.system.storage import (
    locked,
    make_folder,
    remove_tree,
    sha256_of,
    sync_folder,
    write_bytes,
)
from batchscore.system.terminal import PLAIN, Logs

_LOG = logging.getLogger(__name__)
DONE, FAILED = "done", "failed"
_MARKER = ".done"
_ERROR = ".error.txt"
_UNFINISHED = re.compile(r"(?i)\.(part|partial|tmp|temp|crdownload|filepart|download|swp|upload)$|~$")
_LITTER = re.compile(r"(?i)thumbs\.db|ehthumbs.*\.db|desktop\.ini|icon\r|~\$.*|\.~lock.*")
"""What desktops and office programs leave in a folder."""
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_RUN = re.compile(r"-([0-9a-f]{16})(-\d+)?$")
_LONGEST_NAME = 150
"""Bytes of a file's name that its run folder keeps."""
_NOT_THE_FILE = {cls.exit_code: cls for cls in (UsageError, OutputError, StorageError)}
"""What is likely not the file's fault: it stays where it is, the others are tried, and the call ends with the code."""
_NO_NAME = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories that a name may not have: control characters, bytes that are no text, separators of lines."""


class FileOutcome(NamedTuple):
    """What became of one file of the inbox."""

    name: str
    status: str
    """``scored``, ``done`` (the same content had been scored), ``failed``, or ``waiting`` (it stays: it changed, its run is
    held, or something that is not its fault is in the way, as ``exit_code`` tells)."""
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
    """What met every file alike (the model, the device) and ended the call before its time."""
    settling: tuple[str, ...] = ()
    """Names of files that were left for a later call, since they may still be written."""

    @property
    def metrics(self) -> dict[str, Any]:
        """What :func:`batchscore.cli.prometheus.write_metrics` takes."""
        statuses = collections.Counter({"scored": 0, "done": 0, "failed": 0, "waiting": 0})
        statuses.update(each.status for each in self.files)
        return {"files": dict(statuses), "counts": {"read": sum(each.rows for each in self.files)}}

    def summary(self) -> dict[str, Any]:
        """What machines read of it, as JSON values."""
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
        """What a command that did this alone ends with."""
        return self.problem.exit_code if self.problem is not None else 0

    def outcome(self) -> None:
        """Raise if less was done than was asked for.

        In this order: what ended the call, what was in the way of a file, a file that failed, a gate that did.
        """
        if self.error is not None:
            raise self.error
        stuck = [each for each in self.files if each.exit_code in _NOT_THE_FILE]
        if stuck:
            message = f"{len(stuck)} of {len(self.files)} files stay; the first, {printable(stuck[0].name)}: "
            raise _NOT_THE_FILE[stuck[0].exit_code](message + stuck[0].message)
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
    """Score whatever is new and whole, once; what went wrong after that began is in the result.

    ``tell`` gets each file as soon as it is clear what became of it; ``logs`` is how the process that scores tells the rest.

    Raises:
        NoInputError: there is no such inbox.
        BusyError: another call holds it.
        NothingToDoError: nothing is new, and ``skip_empty`` is set.
        BatchscoreError: the inbox or the output cannot be used at all.
    """
    with _held(settings) as process:
        result = _once(settings, process(logs), tell)
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
    """Score whatever comes, until a signal ends it, or what would meet every file alike.

    ``conclude`` gets what each round did that found anything; what went wrong in it is logged before, but for the error
    that ends the watch. Raises as :func:`empty` does, the ``error`` of a round, and
    for a missing ``watchfiles``.
    """
    try:
        import watchfiles
    except ImportError as error:
        raise missing_extra("--watch", "watch") from error
    pause = max(1000, round(settings.settle * 1000))  # a file that settles makes no event
    with _held(settings) as process:
        scoring = process(logs)

        def round_() -> None:
            result = _once(settings, scoring, tell)
            if result.error is None and (problem := result.problem) is not None:
                _LOG.error("%s", problem, extra={"event": "error", "exit_code": problem.exit_code})
            if result.files or result.error is not None:
                conclude(result)
            if result.error is not None:
                raise result.error

        round_()
        for _ in watchfiles.watch(
            settings.inbox,
            recursive=False,
            rust_timeout=pause,
            yield_on_timeout=True,
            raise_interrupt=True,
        ):
            round_()


@contextlib.contextmanager
def _held(settings: InboxSettings) -> Iterator[Callable[[Logs], ScoringProcess]]:
    """Hold the inbox; gives what makes the process that scores, which ends with the block."""
    _refuse_missing(settings.inbox)
    started: list[ScoringProcess] = []

    def start(logs: Logs) -> ScoringProcess:
        started.append(ScoringProcess(settings.score, logs))
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


def _refuse_missing(inbox: Path) -> None:
    if not inbox.is_dir():
        raise NoInputError(f"There is no folder {printable(inbox)}. Make it, or name another inbox.")


class _Call(NamedTuple):
    """What every file of one call meets."""

    settings: InboxSettings
    process: ScoringProcess
    runs: _Runs
    attempts: Attempts


def _once(
    settings: InboxSettings, process: ScoringProcess, tell: Callable[[FileOutcome], None]
) -> InboxResult:
    started = time.monotonic()
    outcomes: list[FileOutcome] = []
    ended_by: BatchscoreError | None = None
    found = contents(settings)
    call = _Call(settings, process, _Runs(settings.output), Attempts(settings.inbox))
    try:
        for path in sorted(found.whole, key=lambda path: call.attempts.deaths_of_name(path.name)):
            each = _take(path, call)
            tell(each)
            outcomes.append(each)
    except BatchscoreError as error:
        ended_by = error
    finally:
        call.attempts.close()
    return InboxResult(tuple(outcomes), time.monotonic() - started, ended_by, tuple(found.settling))


def settling_line(names: Sequence[str], settings: InboxSettings) -> str:
    """What is said of files that may still be written."""
    first = printable(names[0])
    which = first if len(names) == 1 else f"{len(names)} files, {first} the first,"
    if settings.require_done:
        return f"{which} left for a later call: no {_MARKER} lies beside it"
    return f"{which} left for a later call: not unchanged for {settings.settle:g} s yet, or open for writing (--settle)"


def line(outcome: FileOutcome) -> str:
    """What became of a file, for people."""
    name = printable(outcome.name)
    if outcome.status in {"scored", "done"}:
        again = "scored before" if outcome.status == "done" else f"{outcome.rows} rows"
        gate = f"; {outcome.message}" if outcome.message else ""
        return f"{name}: {again}, {printable(outcome.folder)}{gate}"
    return f"{name}: {outcome.status}: {outcome.message}"


# ------------------------------------------------------------------------------------------------- what is whole


class Contents(NamedTuple):
    """What lies in an inbox, oldest first."""

    whole: list[Path]
    """Everything that is complete, or never will be (a link, a pipe)."""
    settling: list[str]
    """Names of what may still be written: changed a moment ago, open for writing, or without its mark."""


def contents(settings: InboxSettings) -> Contents:
    """Look into the inbox.

    Raises:
        NoInputError: there is no such inbox.
    """
    _refuse_missing(settings.inbox)
    found = []
    for entry in os.scandir(settings.inbox):
        name = entry.name
        if _is_passed_over(name):
            continue
        with contextlib.suppress(FileNotFoundError):
            facts = entry.stat(follow_symlinks=False)
            if not stat.S_ISDIR(facts.st_mode):
                found.append((_is_whole(Path(entry.path), facts, settings), facts.st_mtime_ns, name))
    by_age = sorted(found, key=lambda each: each[1:])
    return Contents(
        whole=[settings.inbox / name for is_whole, _, name in by_age if is_whole],
        settling=[name for is_whole, _, name in by_age if not is_whole],
    )


def _is_passed_over(name: str) -> bool:
    """Whether a name says that this is no file to score: hidden, in the making, a mark, or what a desktop left."""
    is_ours = name.endswith((_MARKER, _ERROR))
    return bool(name.startswith(".") or is_ours or _UNFINISHED.search(name) or _LITTER.fullmatch(name))


def _is_whole(path: Path, facts: os.stat_result, settings: InboxSettings) -> bool:
    if not stat.S_ISREG(facts.st_mode):
        return True
    if _is_marked(path):
        return True
    if settings.require_done:
        return False
    now = time.time()
    changed = facts.st_mtime if facts.st_mtime <= now else facts.st_ctime  # a clock elsewhere may be ahead
    return now - changed >= settings.settle and not _is_being_written(path)


def _is_marked(path: Path) -> bool:
    """Whether ``NAME.done`` lies beside the file, and not from before the file was last written."""
    with contextlib.suppress(OSError):
        mark = path.with_name(path.name + _MARKER).lstat()
        return stat.S_ISREG(mark.st_mode) and mark.st_mtime_ns >= path.lstat().st_mtime_ns
    return False


def _is_being_written(path: Path) -> bool:
    """Whether a process of this machine has the file open for writing; Linux then grants no read lease."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False  # scoring will say why it cannot be read
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except (
        OSError
    ) as error:  # others' files and some file systems have no leases: then the settled time alone counts
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False


def _is_plain(name: str) -> bool:
    """Whether a name can stand on a line of its own; spaces of any kind are no harm."""
    return not any(unicodedata.category(char) in _NO_NAME for char in name)


def _refusal(path: Path, given_format: str | None) -> str:
    """Why what lies there is not scored; empty for a plain file with a plain name."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return "It is a link, and links are not followed. Put the file itself here."
    if not stat.S_ISREG(mode):
        return "It is a pipe, a socket or a device, not a file."
    if not _is_plain(path.name):
        return "Its name holds line breaks or other control characters. Give it a plain name."
    if given_format is None and format_of_name(path.name) is None:
        return "Its name ends neither with .csv, .tsv, .parquet nor .jsonl (or one of these and .gz, .zst, .bz2)."
    return ""


# -------------------------------------------------------------------------------------------------- one file


def _identity(path: Path) -> tuple[int, ...]:
    """What a change shows in; the last, when it was made, can be set by no program."""
    facts = path.lstat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_ctime_ns


def _take(path: Path, call: _Call) -> FileOutcome:
    """Score one file and move it; a file with something in its way stays.

    Raises:
        BatchscoreError: what would meet every file alike.
    """
    settings = call.settings
    outcome, digest = _scored(path, call)
    if outcome.exit_code == ModelError.exit_code:
        raise ModelError(outcome.message)
    try:
        if outcome.status == "waiting":
            return FileOutcome(path.name, "waiting", outcome.exit_code, 0, "", outcome.message)
        if outcome.status == "failed":
            return _set_aside(path, settings, outcome, digest)
        _move(path, settings.inbox / DONE, digest)
    except BatchscoreError as error:
        return FileOutcome(path.name, "waiting", error.exit_code, 0, outcome.folder, str(error))
    rows = outcome.counts.get("read", 0)
    return FileOutcome(path.name, outcome.status, outcome.exit_code, rows, outcome.folder, outcome.message)


def _scored(path: Path, call: _Call) -> tuple[Outcome, str]:
    """What became of a file, and the SHA-256 of its content; it lies where it lay."""
    digest = ""
    try:
        if refusal := _refusal(path, call.settings.score.read.format):
            return _failed(refusal), digest
        before = _identity(path)
        digest = sha256_of(path)
        outcome = _tried(path, Job(str(path), digest, call.runs.folders(path.name, digest)), call)
        if outcome.folder:
            call.runs.note(outcome.folder, digest)
        if _identity(path) != before:
            return _waiting("it changed while it was being scored; left for the next call"), digest
        if outcome.exit_code in _NOT_THE_FILE:
            return _waiting(outcome.message, outcome.exit_code), digest
        return (_waiting(outcome.message) if outcome.exit_code == BusyError.exit_code else outcome), digest
    except FileNotFoundError:
        return _waiting("somebody took it away"), digest
    except PermissionError:
        return _failed("It cannot be read. Give the scorer's user permission to read it."), digest
    except OSError as error:
        found = storage_error("Reading", path, error)
        return _waiting(str(found), found.exit_code), digest


def _tried(path: Path, job: Job, call: _Call) -> Outcome:
    """Score a file, under a mark that outlives us; once more if its process died: it may have been somebody else's signal."""
    parts = sum(1 for folder in job.folders for _ in staged_parts(Path(folder)))
    deaths = call.attempts.deaths(job.sha256, parts)
    if deaths >= MOST_DEATHS:
        outcome = Outcome(1, "failed", _DEADLY.format(deaths), "", {})
    else:
        call.process.prepare()  # a death while the model is loaded is not the file's
        try:
            with call.attempts.noted(path.name, job.sha256, parts):
                outcome = call.process.score(job)
                if outcome.exit_code < 0:
                    _LOG.warning("%s: %s Trying once more.", printable(path.name), outcome.message)
                    outcome = call.process.score(job)
        except StorageError as error:
            return _waiting(str(error), error.exit_code)
    if outcome.exit_code < 0 or deaths >= MOST_DEATHS:
        for folder in job.folders:
            _forget(Path(folder))
    return outcome


_DEADLY = (
    "The last {} calls died while they scored it, and none was left to say of what. Perhaps memory ran out, or it crashes "
    "the reader. Try it alone with `batchscore score`."
)


def _failed(message: str) -> Outcome:
    return Outcome(DataError.exit_code, "failed", message, "", {})


def _waiting(message: str, exit_code: int = 0) -> Outcome:
    return Outcome(exit_code, "waiting", message, "", {})


def _forget(folder: Path) -> None:
    """Remove what a process that died left of a run that had scored nothing."""
    if not any(staged_parts(folder)):
        remove_tree(folder / STAGING)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _set_aside(path: Path, settings: InboxSettings, outcome: Outcome, digest: str = "") -> FileOutcome:
    """Write what was wrong for a person, then move the file: a kill in between does it once more."""
    folder = settings.inbox / FAILED
    _make_own(folder)
    target = _target(path, folder, digest)
    code = outcome.exit_code if outcome.exit_code > 0 else 1
    text = (
        f"{printable(path.name)} could not be scored.\n\n{outcome.message}\n\n"
        f"Put it into {printable(settings.inbox)} again once this is mended.\n"
        f"(exit code {code}, {datetime.datetime.now().astimezone().isoformat(timespec='seconds')})\n"
    )
    note = _cut(target.name, 255 - len(_ERROR)) + _ERROR
    write_bytes(folder / note, text.encode("utf-8", "surrogateescape"))
    _rename(path, target)
    return FileOutcome(path.name, "failed", code, 0, "", outcome.message.partition("\n")[0])


def _move(path: Path, folder: Path, digest: str) -> None:
    _make_own(folder)
    _rename(path, _target(path, folder, digest))


def _make_own(folder: Path) -> None:
    if folder.is_symlink():
        raise OutputError(
            f"{printable(folder)} is a link. Remove it; the folder itself must be in the inbox."
        )
    make_folder(folder)


def _target(path: Path, folder: Path, digest: str) -> Path:
    """A name in ``folder`` that is free, or holds the same content."""
    name = _cut(path.name if _is_plain(path.name) else printable(path.name), 255)
    target = folder / name
    number = 1
    while os.path.lexists(target) and not (digest and target.is_file() and sha256_of(target) == digest):
        number += 1
        stem, dot, suffix = name.partition(".")
        target = folder / f"{_cut(stem, _LONGEST_NAME)}-{number}{dot}{_cut(suffix, 60)}"
    return target


def _cut(name: str, size: int) -> str:
    """The first ``size`` bytes of a name at the most, and no half of a character."""
    return name.encode("utf-8", "surrogateescape")[:size].decode("utf-8", "ignore")


def _rename(path: Path, target: Path) -> None:
    marker = path.with_name(path.name + _MARKER)
    try:
        is_marked = _is_marked(path)
        path.rename(target)  # of a link itself, wherever it leads
        if is_marked:
            marker.rename(target.with_name(_cut(target.name, 255 - len(_MARKER)) + _MARKER))
        sync_folder(target.parent)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error("Moving", path, error) from error


# ----------------------------------------------------------------------------------------------- run folders


class _Runs:
    """The run folders below ``output``, by the content of the file that each is of."""

    def __init__(self, output: Path) -> None:
        self._today = output / datetime.datetime.now().astimezone().date().isoformat()
        self._known: dict[str, list[str]] = {}
        days = (path for path in _folders(output) if _DAY.fullmatch(path.name))
        for day in sorted(days, reverse=True):
            for path in _folders(day):
                if match := _RUN.search(path.name):
                    self._known.setdefault(match[1], []).append(str(path))

    def folders(self, name: str, digest: str) -> list[str]:
        """Run folders of this content, finished or not, newest first; and behind them one of today that is free."""
        known = self._known.get(digest[:16], [])
        kept = _cut(name, _LONGEST_NAME)
        first = new = f"{self._today / kept}-{digest[:16]}"
        number = 1
        while new in known:
            number += 1
            new = f"{first}-{number}"
        return [*known, new]

    def note(self, folder: str, digest: str) -> None:
        """A file of this content has a run in ``folder`` now."""
        known = self._known.setdefault(digest[:16], [])
        if folder not in known:
            known.insert(0, folder)


def _folders(folder: Path) -> Iterable[Path]:
    return (Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
