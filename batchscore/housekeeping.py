"""Old run folders, found and removed: only what a run's own manifest lists, and only from runs that are whole in it."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator
from pathlib import Path

from batchscore.errors import BatchscoreError
from batchscore.storage import MANIFEST, locked, read_manifest, remove_file


def old_runs(folder: Path, days: int, now: datetime.datetime) -> list[Path]:
    """Finished runs below ``folder`` that finished more than ``days`` days before ``now``; links are not followed."""
    limit = now - datetime.timedelta(days=days)
    return [path for path in _finished_runs(folder) if (end := _finished(path)) is not None and end < limit]


def _finished_runs(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        if MANIFEST in files:
            yield Path(root)
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _finished(path: Path) -> datetime.datetime | None:
    """When the run finished; None for a folder that is no run of ours."""
    try:
        names = read_manifest(path)
        if not {"run.json", "metrics.json", "report.html"} <= set(names):
            return None
        if not (path / "run.json").exists():  # a removal that was killed
            return datetime.datetime.fromtimestamp((path / MANIFEST).stat().st_mtime, datetime.UTC)
        finished = datetime.datetime.fromisoformat(json.loads((path / "run.json").read_bytes())["finished"])
    except (OSError, ValueError, KeyError, TypeError, BatchscoreError):
        return None
    return finished if finished.tzinfo is not None else None


def remove_run(path: Path, below: Path) -> None:
    """Remove what the run's manifest lists, the manifest, and the folders that are then empty, up to ``below``.

    Whatever else lies there stays. The manifest goes last, so that the next call ends what a kill broke off.

    Raises:
        BatchscoreError: the run is held by another process, or its manifest cannot be read.
        OSError: a file cannot be removed.
    """
    with locked(path):
        for name in sorted(read_manifest(path), key=lambda name: name == "run.json"):
            remove_file(path, name)
        remove_file(path, MANIFEST)
    while path != below and not any(path.iterdir()):
        path.rmdir()
        path = path.parent
