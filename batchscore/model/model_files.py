"""The files that a model is loaded from: all in its own folder, all hashed, and the same when it is loaded as when they were hashed.

Settings of models may name files: a shard of the weights, a vocabulary. Libraries open some of these as they are written, so
that a name such as ``../x`` or ``/tmp/x`` leads out of the folder. Each is refused, wherever it is in the settings.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from batchscore.errors import ModelError, printable
from batchscore.model.bundle_facts import json_object
from batchscore.model.weights import WEIGHTS
from batchscore.system.storage import sha256_of

COMMIT = re.compile(r"[0-9a-f]{40}")
_NAMES_FILES = re.compile(r".*_files?|transformers_weights")
"""Settings whose values are names of files."""
_ATTENTION = re.compile(r"_?(attn|experts)_implementation(_internal)?")
"""Settings whose values are the names of kernels; one with a slash is fetched from a hub and run."""
Times = tuple[int, ...]


class ModelFiles(NamedTuple):
    """The files below a model's folder."""

    hashes: dict[str, str]
    """SHA-256 by name."""
    times: dict[str, Times]
    """Size, inode and times of each, and of the folders, from before they were hashed."""


def model_files(folder: Path) -> ModelFiles:
    """Hash every file below the folder; the only links allowed are those of a hub snapshot into its blobs.

    Raises:
        ModelError: a link, a pipe or a device, or a file that cannot be read.
    """
    hashes: dict[str, str] = {}
    paths = sorted(folder.rglob("*"))
    for path in paths:
        if path.is_symlink() and not _is_blob(path, folder.resolve()):
            raise ModelError(
                f"{printable(path)} is a link; a bundle holds files only. Copy the file itself there."
            )
    times = times_of(folder)
    for path in paths:
        if path.is_file():
            hashes[path.relative_to(folder).as_posix()] = _digest(path)
        elif not path.is_dir():
            raise ModelError(f"{printable(path)} is neither a file nor a folder. Remove it.")
    return ModelFiles(hashes, times)


def _is_blob(path: Path, folder: Path) -> bool:
    """Whether a link in ``…/snapshots/<commit>`` leads to a file in ``…/blobs``, as in the hub cache."""
    is_snapshot = folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name) is not None
    try:
        return is_snapshot and path.is_file() and path.resolve().parent == folder.parent.parent / "blobs"
    except (OSError, RuntimeError):  # a loop of links
        return False


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise ModelError(f"{printable(path)} cannot be read: {error.strerror}.") from error


def times_of(folder: Path) -> dict[str, Times]:
    """Size, inode and times of every file and folder, by name; links are followed.

    Raises:
        ModelError: one cannot be looked at.
    """
    try:
        found = {path.relative_to(folder).as_posix(): path.stat() for path in (folder, *folder.rglob("*"))}
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{printable(folder)} cannot be read: {printable(error)}.") from error
    return {name: _times(each) for name, each in found.items()}


def _times(facts: os.stat_result) -> Times:
    is_folder = stat.S_ISDIR(facts.st_mode)
    size = 0 if is_folder else facts.st_size
    return facts.st_dev, facts.st_ino, size, facts.st_mtime_ns, facts.st_ctime_ns


def refuse_changed(folder: Path, times: Mapping[str, Times]) -> None:
    """Raise if a file was changed, added, removed or replaced since ``times``, so that what was loaded may be another one.

    Raises:
        ModelError: names the file.
    """
    now = times_of(folder)
    for name in sorted(now.keys() | times.keys()):
        if now.get(name) != times.get(name):
            raise ModelError(
                f"{printable(folder)}: {printable(name)} was changed while the model was loaded, so what was loaded is not "
                "what was checked. Run the same command again when nobody writes there."
            )


# ----------------------------------------------------------------------------------------- what settings may name


def refuse_elsewhere(folder: Path, hashes: Mapping[str, str]) -> None:
    """Raise for settings that lead to a file which is none of the folder's own.

    A name that leads nowhere is no fault: settings often still have a path of the machine where they were saved.

    Raises:
        ModelError: names the setting.
    """
    for name in hashes:
        if "/" in name or not name.endswith("config.json"):
            continue
        settings = json_object(folder, name)
        for key, value in _texts(settings):
            last = key.rpartition(".")[2]
            if last == "transformers_weights" and value != WEIGHTS:
                raise ModelError(
                    f"{printable(folder / name)}: {printable(key)} names other weights, {printable(value)[:200]}. Rename them to "
                    f"{WEIGHTS}, and remove it."
                )
            if _ATTENTION.fullmatch(last) and "/" in value:
                raise ModelError(
                    f"{printable(folder / name)}: {printable(key)} names code to be fetched, {printable(value)[:200]}, which is "
                    "never run. Remove it."
                )
            if _NAMES_FILES.fullmatch(last) and _leads_elsewhere(folder, value, hashes):
                raise ModelError(
                    f"{printable(folder / name)}: {printable(key)} leads to {printable(value)[:200]}, which is none of the "
                    "folder's own files. Put the file into the folder, and remove the setting."
                )


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text among settings, with its dotted name."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _texts(each, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, key)
    elif isinstance(value, str):
        yield key, value


def _leads_elsewhere(folder: Path, text: str, hashes: Mapping[str, str]) -> bool:
    """Whether a name leads to something that is not a listed file, seen from the folder or from where we are."""
    own = {(folder / name).absolute() for name in hashes}
    for place in (folder, Path()):
        path = Path(os.path.normpath((place / text).absolute()))
        try:
            is_there = bool(text) and os.path.lexists(path)
        except ValueError:  # a NUL
            return True
        if is_there and path not in own:
            return True
    return False
