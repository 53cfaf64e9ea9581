"""Finding and removing old run folders: only files that the tool wrote and nobody changed.

Of a finished run, the files in its manifest whose hash matches. Of an unfinished run, the staging folder, files already
published that are in the staged manifest, the note of a refusal, and the list of rejects if the folder's name is that of a
scheduled run (a copy elsewhere belongs to somebody).
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from batchscore.errors import BatchscoreError, printable
from batchscore.runs.folder import (
    ALWAYS_WRITTEN,
    BEFORE_SCORING,
    DAMAGE,
    FACTS,
    MANIFEST,
    NOTE,
    STAGING,
    STAGING_NAMES,
    is_finished,
    read_facts,
    staged_manifests,
)
from batchscore.runs.refusals import read_refusal
from batchscore.system.documents import checked, parse_json
from batchscore.system.locks import locked
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import damage, read_manifest, remove_file, remove_tree

_REJECT_FIELDS = {"file", "row", "line", "byte_offset", "reason", "column", "raw"}
"""Fields of a line of the rejects."""
_SCHEDULED = re.compile(r"\d{4}-\d\d-\d\d(/.+-[0-9a-f]{16}(-\d+)?)?")
"""How the path of a scheduled run ends: ``<date>``, or ``<date>/<name>-<content hash>`` from ``inbox``."""


def old_runs(folder: Path, days: int, now: datetime.datetime) -> list[Path]:
    """Runs below ``folder`` that ended, or were last touched, more than ``days`` days before ``now``; links are not followed."""
    limit = now - datetime.timedelta(days=days)
    return [path for path in _runs(folder) if (end := _ended(path)) is not None and end < limit]


class OldRun(NamedTuple):
    """A run that is too old, and whether it was removed."""

    path: Path
    changed: tuple[str, ...] = ()
    """Files that were changed since they were written, and so stay."""
    problem: str = ""
    """Why it could not be removed; empty if it was, or would be."""


def remove_old_runs(
    folder: Path,
    days: int,
    now: datetime.datetime,
    *,
    kept: Path | None = None,
    dry_run: bool = False,
) -> Iterator[OldRun]:
    """Remove the runs that :func:`old_runs` finds, except ``kept``; yields each once it is removed.

    A run that cannot be removed is no reason to fail: it is yielded with its ``problem``, and found again next time.
    With ``dry_run`` nothing is removed, and what would be is yielded.
    """
    for path in old_runs(folder, days, now):
        if kept is not None and path.resolve() == kept.resolve():
            continue
        try:
            old = OldRun(path, () if dry_run else tuple(remove_run(path, folder)))
        except (BatchscoreError, OSError) as error:
            old = OldRun(path, problem=printable(error))
        yield old


def _runs(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        if MANIFEST in files or STAGING in folders or (files and set(files) <= BEFORE_SCORING):
            yield Path(root)
        if MANIFEST in files:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _ended(path: Path) -> datetime.datetime | None:
    """When the run finished, or was last touched; None if the folder is not a run."""
    try:
        return _finished(path) if is_finished(path) else _last_touched(path)
    except (*DAMAGE, BatchscoreError):
        return None


def _finished(path: Path) -> datetime.datetime | None:
    names = read_manifest(path)
    if not set(names) >= ALWAYS_WRITTEN:
        return None
    run = OwnPath(path)
    if not (run / FACTS).exists():  # a removal that was killed
        return datetime.datetime.fromtimestamp((run / MANIFEST).stat().st_mtime, datetime.UTC)
    finished = datetime.datetime.fromisoformat(read_facts(path)["finished"])
    return finished if finished.tzinfo is not None else None


def _last_touched(path: Path) -> datetime.datetime | None:
    """The newest modification time in an unfinished run; files that no run wrote do not count."""
    run = OwnPath(path)
    ours = [run / name for name in (STAGING, *BEFORE_SCORING) if _is_ours(run / name)]
    found = [one.stat() for one in ours]
    found += [entry.facts for one in ours if one.is_folder() for entry in one.walk()]
    newest = max((facts.st_mtime for facts in found), default=None)
    return datetime.datetime.fromtimestamp(newest, datetime.UTC) if newest is not None else None


def _is_ours(path: OwnPath) -> bool:
    """Whether a run wrote this staging folder, note or list of rejects."""
    if path.name == STAGING:
        return path.is_folder() and all(map(STAGING_NAMES.fullmatch, path.names()))
    if not path.is_file():
        return False
    run = path.parent
    if path.name == NOTE:
        return read_refusal(run) is not None
    ends = (run.name, f"{run.path.parent.name}/{run.name}")
    return any(_SCHEDULED.fullmatch(end) for end in ends) and _holds_rejects(path)


def _holds_rejects(path: OwnPath) -> bool:
    with path.open_read() as file:
        return all(checked(parse_json(line), {str: object}).keys() <= _REJECT_FIELDS for line in file)


def remove_run(path: Path, below: Path) -> list[str]:
    """Remove what the run wrote, and the folders that are then empty, up to ``below``.

    Anything else stays, and so do files that were changed since; the names of these are returned. The manifest is removed
    last, so that the next call completes a removal that was killed.

    Raises:
        BatchscoreError: another process has locked the run, or its manifest cannot be read.
        OSError: a file cannot be removed.
    """
    run = OwnPath(below) / str(path.relative_to(below))
    with locked(run):
        if is_finished(run):
            changed = _remove_listed(run, read_manifest(run))
            remove_file(run, MANIFEST)
        else:
            changed = _remove_unfinished(run)
    while run.parts and not run.names():
        run.rmdir()
        run = run.parent
    return changed


def _remove_listed(run: OwnPath, hashes: dict[str, str]) -> list[str]:
    """Remove the files whose hash matches; returns the names of those whose hash does not."""
    changed = []
    for name in sorted(hashes, key=lambda name: name == FACTS):
        if not (run / name).exists():
            continue
        if damage(run / name, hashes[name]):
            changed.append(name)
        else:
            remove_file(run, name)
    return changed


def _remove_unfinished(run: OwnPath) -> list[str]:
    changed: list[str] = []
    staging = run / STAGING
    if _is_ours(staging):
        for manifest in staged_manifests(run):
            changed += _remove_listed(run, read_manifest(manifest.parent))
    for name in BEFORE_SCORING:
        if name not in changed and _is_ours(run / name):
            remove_file(run, name)
    if _is_ours(staging):
        remove_tree(staging)
    return changed
