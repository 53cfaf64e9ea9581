"""Emptying a drop folder in a bucket: each object below it is scored as a run of its own, once for each of its versions.

An object is whole when it is there, so none is waited for. What was scored is entered in a ledger, ``INBOX/.inbox/<name and ETag>.json``, after
the run's ``_SUCCESS``; then ``--after`` says what becomes of the object: it is kept, moved to ``done/`` or ``failed/``, or removed if it was scored.
A call that was killed in between finds the entry, and does what was left. One call at a time holds the inbox, by a lease.

An entry is made before an object is scored, too: if calls die on it again and again, it is not tried any more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import itertools
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from batchscore.addresses import Address, Place, copy_of
from batchscore.config import ScoreSettings
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
    printable,
)
from batchscore.formats.registry import format_of_name, suffixes
from batchscore.inbox.attempts import MAX_DEATHS
from batchscore.inbox.drop_folder import DONE, FAILED, FileOutcome, InboxResult
from batchscore.inbox.filing import MAX_NAME_BYTES, cut_name
from batchscore.inbox.whole_files import ERROR, MARKER, is_plain_name
from batchscore.model.loading import Models
from batchscore.runs.anywhere import score
from batchscore.runs.bucket_run import copy_object
from batchscore.runs.copies import open_bucket
from batchscore.runs.folder import STAGING, staged_shards
from batchscore.system.documents import DocumentError, checked, parse_json
from batchscore.system.leases import Lease
from batchscore.system.scratch import scratch_folder
from batchscore.system.storage import to_json
from batchscore.system.stores import ChangedError, Store, Stored, bytes_of
from batchscore.system.terminal import ProgressFactory

_LOG = logging.getLogger(__name__)
LEDGER = ".inbox"
"""The folder of the ledger and the lease, below the inbox."""
AFTER = ("keep", "move", "delete")
_ENTRY = {
    "name": str,
    "version": str,
    "status": str,
    "exit_code": int,
    "rows": int,
    "run": str,
    "message": str,
    "deaths": int,
    "parts": int,
}
_BEGUN = "begun"
_STAYS = {cls.exit_code for cls in (UsageError, OutputError, StorageError, BusyError)}
"""Exit codes of errors that are likely not the file's fault: it stays, and is tried by the next call."""


@dataclasses.dataclass(frozen=True, slots=True)
class BucketInboxSettings:
    """Settings of one ``inbox`` call on a bucket."""

    inbox: Address
    output: Place
    """Where the run folders are, each ``<date>/<name>-<16 digits of name and ETag>``."""
    score: ScoreSettings
    """How each file is scored; ``inputs``, ``output`` and ``bucket`` are ignored."""
    after: str = "keep"
    require_done: bool = False
    skip_empty: bool = False


class _Entry(NamedTuple):
    """What the ledger says of one version of an object."""

    name: str
    version: str
    status: str
    """``begun``, ``scored`` or ``failed``."""
    exit_code: int
    rows: int
    run: str
    message: str
    deaths: int
    """How many calls in a row began, did not tell how it ended, and staged nothing more."""
    parts: int
    """How many shards were staged when the last one began."""


def empty(
    settings: BucketInboxSettings, tell: Callable[[FileOutcome], None], progress: ProgressFactory
) -> InboxResult:
    """Score every object that was not, once; errors after the start are in the result.

    Raises:
        BusyError: another call holds the inbox.
        NothingToDoError: no object is ready, and ``skip_empty`` is set.
        BatchscoreError: the inbox or the output cannot be used.
    """
    started = time.monotonic()
    store = open_bucket(settings.inbox)
    outcomes: list[FileOutcome] = []
    ended_by: BatchscoreError | None = None
    with Lease(store, LEDGER) as lease:
        call = _Call(settings, store, lease, progress)
        settling = call.settling()
        try:
            for found in call.ready():
                if (outcome := call.take(found)) is not None:
                    tell(outcome)
                    outcomes.append(outcome)
        except BatchscoreError as error:
            ended_by = error
    if not outcomes and ended_by is None and settings.skip_empty:
        raise NothingToDoError(f"Nothing to score in {printable(settings.inbox)}.")
    return InboxResult(tuple(outcomes), time.monotonic() - started, ended_by, settling)


class _Call:
    """One call; it holds the lease of the inbox."""

    def __init__(
        self, settings: BucketInboxSettings, store: Store, lease: Lease, progress: ProgressFactory
    ) -> None:
        self._settings, self._store, self._lease, self._progress = settings, store, lease, progress
        self._models = Models()
        found = [each for each in store.list() if "/" not in each.name]
        self._marked = {each.name.removesuffix(MARKER): each for each in found if each.name.endswith(MARKER)}
        files = [
            each
            for each in found
            if not each.name.endswith((MARKER, ERROR)) and not each.name.startswith(".")
        ]
        self._files = sorted(files, key=lambda each: (each.modified, each.name))

    def ready(self) -> list[Stored]:
        """Objects that may be scored, oldest first."""
        return [each for each in self._files if self._is_marked(each)]

    def settling(self) -> tuple[str, ...]:
        """Names of those that lack their marker."""
        return tuple(each.name for each in self._files if not self._is_marked(each))

    def _is_marked(self, found: Stored) -> bool:
        mark = self._marked.get(found.name)
        return not self._settings.require_done or (mark is not None and mark.modified >= found.modified)

    def take(self, found: Stored) -> FileOutcome | None:
        """Score an object and do with it as ``--after`` says; None if that was done before.

        Raises:
            ModelError: an error that would affect every object.
        """
        key, entry = _key_of(found), self._entry(found)
        is_new = entry is None or entry.status == _BEGUN
        if is_new:
            entry = self._scored(found, key, entry)
        assert entry is not None  # noqa: S101 - made above
        if entry.status == "waiting":
            return FileOutcome(found.name, "waiting", entry.exit_code, 0, "", entry.message)
        was_moved = self._put_away(found, entry)
        if not is_new and not was_moved:
            return None
        status = "done" if entry.status == "scored" and not is_new else entry.status
        return FileOutcome(found.name, status, entry.exit_code, entry.rows, entry.run, entry.message)

    def _entry(self, found: Stored) -> _Entry | None:
        try:
            return _Entry(**checked(parse_json(bytes_of(self._store, _key_of(found))), _ENTRY))
        except FileNotFoundError:
            return None
        except DocumentError:
            _LOG.warning(
                "the entry of %s in the ledger is damaged, and counts no more", printable(found.name)
            )
            return None

    def _note(self, key: str, entry: _Entry) -> None:
        self._lease.assert_held()
        self._store.put(key, to_json(entry._asdict()))

    def _scored(self, found: Stored, key: str, earlier: _Entry | None) -> _Entry:
        run = self._run_of(found, earlier)
        parts = _staged_in(run) if earlier else 0
        deaths = earlier.deaths if earlier and parts <= earlier.parts else 0
        version = found.version.e_tag or ""
        begun = _Entry(found.name, version, _BEGUN, 0, 0, str(run), "", deaths, parts)
        if message := _refusal(found, self._settings.score.read.format):
            entry = begun._replace(status="failed", exit_code=DataError.exit_code, run="", message=message)
        elif deaths >= MAX_DEATHS:
            message = (
                f"The last {deaths} calls died while they scored it. Try it alone with `batchscore score`."
            )
            entry = begun._replace(status="failed", exit_code=1, message=message)
        else:
            self._note(key, begun._replace(deaths=deaths + 1))
            try:
                entry = self._run(found, run, begun)
            except BaseException:  # stopped by a signal, or for what it shares with all: not a death
                with contextlib.suppress(BatchscoreError, OSError):
                    self._note(key, begun)
                raise
        if entry.status == "waiting":
            self._note(key, begun)  # it was told how it ended
        else:
            self._note(key, entry._replace(deaths=0))
        return entry

    def _run(self, found: Stored, run: Place, begun: _Entry) -> _Entry:
        place = str(self._settings.inbox / found.name)
        settings = dataclasses.replace(
            self._settings.score,
            inputs=(place,),
            pinned={place: begun.version},
            output=copy_of(run),
            bucket=run if isinstance(run, Address) else None,
        )
        counts: dict[str, Any] = {}
        code, message, status = 0, "", "scored"
        try:
            result = score(settings, self._progress, self._models)
            counts = dict(result.metrics.get("counts", {}))
            result.outcome()
        except ModelError:
            raise
        except BatchscoreError as error:
            code, message = error.exit_code, str(error)
            if not counts:
                status = "waiting" if code in _STAYS or self._has_changed(found) else "failed"
            elif not isinstance(error, GateFailedError | DataError):
                status = "waiting"
        return begun._replace(
            status=status, exit_code=code, rows=int(counts.get("read", 0)), run=str(run), message=message
        )

    def _has_changed(self, found: Stored) -> bool:
        """Whether this version of an object is there no more."""
        try:
            with self._store.open(found.name, found.version):
                return False
        except (ChangedError, FileNotFoundError):
            return True

    def _run_of(self, found: Stored, entry: _Entry | None) -> Place:
        """The run folder: that of an earlier call on this version, which may have been on another day."""
        output = self._settings.output
        name = f"{cut_name(found.name, MAX_NAME_BYTES)}-{_digest_of(found)[:16]}"
        day = datetime.datetime.now().astimezone().date().isoformat()
        if entry is not None and entry.run:
            day = entry.run.rpartition("/")[0].rpartition("/")[2]
        return output / f"{day}/{name}"

    def _put_away(self, found: Stored, entry: _Entry) -> bool:
        """Do what ``--after`` says; returns whether anything was left to do."""
        after, is_scored = self._settings.after, entry.status == "scored"
        if after == "keep" or (after == "delete" and not is_scored):
            return False
        self._lease.assert_held()
        try:
            if after == "move":
                name = self._move(found, DONE if is_scored else FAILED)
                if not is_scored:
                    self._store.put(f"{name}{ERROR}", f"{printable(entry.message)}\n".encode())
        except (ChangedError, FileNotFoundError):
            return False  # written anew meanwhile: for the next call
        if self._has_changed(found):
            return False
        self._lease.assert_held()
        self._store.delete(found.name)
        if found.name in self._marked:
            self._store.delete(found.name + MARKER)
        return True

    def _move(self, found: Stored, folder: str) -> str:
        """Copy an object into a folder, under its name or, if other content has that name, a numbered one; returns it."""
        with scratch_folder(f"{self._settings.inbox} ({folder})") as scratch:
            content = scratch / "object"
            copy_object(self._store, found, content)
            stem, dot, suffix = found.name.partition(".")
            for number in itertools.count(1):
                name = f"{folder}/{found.name if number == 1 else f'{stem}-{number}{dot}{suffix}'}"
                with contextlib.suppress(FileExistsError):
                    self._store.create(name, content)
                    return name
        raise AssertionError


def _staged_in(run: Place) -> int:
    """How many shards of a run are staged."""
    if isinstance(run, Path):
        return sum(1 for _ in staged_shards(run))
    return sum("/parts/" in each.name for each in open_bucket(run).list(STAGING))


def _digest_of(found: Stored) -> str:
    return hashlib.sha256(f"{found.name}\n{found.version.e_tag}".encode("utf-8", "surrogatepass")).hexdigest()


def _key_of(found: Stored) -> str:
    return f"{LEDGER}/{_digest_of(found)[:32]}.json"


def _refusal(found: Stored, given_format: str | None) -> str:
    """Why this is not scored; empty for a plain name with a known suffix."""
    if not is_plain_name(found.name):
        return "Its name holds line breaks or other control characters. Give it a plain name."
    if given_format is None and format_of_name(found.name) is None:
        return f"Its name ends with none of {', '.join(suffixes())} (or one of these and .gz, .zst, .bz2)."
    return ""


def refuse_unfit(after: str | None, options: dict[str, Any], inbox: Place, output: Place) -> None:
    """Refuse options that an inbox in a bucket does not have, or that only one there has.

    Raises:
        UsageError: names the option.
    """
    if isinstance(inbox, Path):
        if isinstance(output, Address):
            raise UsageError(
                f"INBOX {printable(inbox)} is on this machine and --output {printable(output)} is not. Let both be in buckets."
            )
        if after not in (None, "move"):
            raise UsageError(
                f"--after {after} is for an INBOX in a bucket; files of a folder are moved to done/ and failed/."
            )
        return
    for name in ("watch", "dry_run", "append_to"):
        if options[name]:
            raise UsageError(f"--{name.replace('_', '-')} is not for an INBOX in a bucket. Leave it out.")
    if isinstance(output, Address):
        if options["keep_days"]:
            raise UsageError(
                "--keep-days is for run folders on this machine, and --output is in a bucket. Leave it out."
            )
        if "latest" in (options["baseline"], options["reuse"]):
            raise UsageError(
                "latest looks among the runs beside --output, and that is in a bucket. Name the run."
            )
