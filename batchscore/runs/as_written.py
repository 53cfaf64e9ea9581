"""Whether the files of a finished run are still those that it wrote, told without reading the large ones.

``run.json`` has the size, the time of the last change and the inode of every other file that was there when it was written, and
``_SUCCESS`` is put in place after all of them, in a later tick of the file system's clock. So a file is as it was written if these
are the same, and if nothing was done to it since that tick began, which its ctime would show: no program can set that. Any other file
is hashed, so that a copied or restored run is a run as before. What came after ``run.json`` is small, and always hashed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from batchscore.errors import DataError, OutputError, printable
from batchscore.runs.folder import (
    DAMAGE,
    FACTS,
    MANIFEST,
    METRICS,
    PURPOSES,
    STAGING,
    read_facts,
)
from batchscore.system.own_paths import AnyPath, Entry, OwnPath, own_folder
from batchscore.system.storage import damage, damaged_files, hashes_in_manifest, read_manifest

WRITTEN = "written"
"""The key in ``run.json``: name → size, mtime in nanoseconds and inode of a file."""
_MOST_TOLD = 20


def written_facts(final: OwnPath) -> dict[str, list[int]]:
    """What ``run.json`` says about the files that are built in a folder; to rename them changes none of it."""
    return {
        entry.name: _identity(entry.facts) for entry in sorted(_files(final), key=lambda entry: entry.name)
    }


def _identity(facts: os.stat_result) -> list[int]:
    return [facts.st_size, facts.st_mtime_ns, facts.st_ino]


def changes_in(folder: AnyPath, *, hash_all: bool = False) -> list[str]:
    """One sentence for each file of a finished run that is missing, is another one, or came into its predictions.

    A file beside them that no run writes is somebody's own. With ``hash_all`` everything is hashed and must be in the manifest.

    Raises:
        DataError: ``_SUCCESS`` is missing or damaged.
    """
    run = own_folder(folder)
    hashes = read_manifest(run)
    if hash_all:
        return damaged_files(run, hashes)
    written = _written(run)
    present = {entry.name: entry.facts for entry in _files(run)}
    sealed = _sealed(run)
    problems = [f"{printable(name)}: missing" for name in sorted(hashes.keys() - present.keys())]
    problems += [
        f"{printable(name)}: not in the manifest"
        for name in sorted(present.keys() - hashes.keys())
        if name.partition("/")[0] in PURPOSES
    ]
    for name in sorted(hashes.keys() & present.keys()):
        facts = present[name]
        is_untouched = written.get(name) == _identity(facts) and facts.st_ctime_ns < sealed
        if not is_untouched and (problem := damage(run / name, hashes[name])):
            problems.append(f"{printable(name)}: {problem}")
    return problems


def _sealed(run: OwnPath) -> int:
    """When ``_SUCCESS`` was put in place, as the file system's clock tells it."""
    return (run / MANIFEST).stat().st_ctime_ns


def refuse_changed(folder: AnyPath, *, hash_all: bool = False) -> None:
    """Refuse to call a run finished that is not as it was written.

    Raises:
        OutputError: names the files.
    """
    try:
        problems = changes_in(folder, hash_all=hash_all)
    except DataError as error:
        problems = [str(error)]
    refuse_problems(str(folder), problems)


def refuse_problems(run: str, problems: list[str]) -> None:
    """The same of what was found already, in words.

    Raises:
        OutputError: there are any.
    """
    if problems:
        raise OutputError(
            f"{printable(run)} holds this run, finished, but not as it was written: {told(problems)}. Add --force to score it "
            "again, or name another --output."
        )


def refuse_changed_figures(folder: AnyPath) -> None:
    """Refuse a finished run whose facts or metrics are not those that it wrote.

    Raises:
        ValueError: names the file.
    """
    run = own_folder(folder)
    hashes = hashes_in_manifest(run)
    for name in (FACTS, METRICS):
        if name in hashes and (problem := damage(run / name, hashes[name])):
            raise ValueError(f"{name}: {problem}")


def told(problems: list[str]) -> str:
    """Changes as they are told in a message."""
    return "; ".join(problems[:_MOST_TOLD])


def _written(run: OwnPath) -> Mapping[str, Any]:
    """What ``run.json`` says; nothing where it cannot be read, or is of an earlier version, so that all is hashed."""
    try:
        written = read_facts(run)[WRITTEN]
        return written if isinstance(written, dict) and all(map(_is_identity, written.values())) else {}
    except DAMAGE:
        return {}


def written_sizes(folder: AnyPath) -> dict[str, int]:
    """Name → bytes of the files that ``run.json`` knows."""
    return {name: identity[0] for name, identity in _written(own_folder(folder)).items()}


def _is_identity(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(each, int) for each in value)


def _files(run: OwnPath) -> list[Entry]:
    """What is in a run folder but folders, without its staging folder."""
    return [entry for entry in run.walk(without={STAGING}) if not entry.is_folder and entry.name != MANIFEST]
