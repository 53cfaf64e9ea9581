"""Moving a file of a drop folder, with its marker: by one rename, under a free name."""

from __future__ import annotations

from pathlib import Path

from batchscore.errors import printable, storage_error
from batchscore.inbox.whole_files import (
    MARKER,
    is_marked,
    is_plain_name,
)
from batchscore.system.own_paths import OwnPath, own
from batchscore.system.storage import (
    make_folder,
    sha256_of,
    sync_folder,
)

MAX_NAME_BYTES = 150
"""Maximum bytes of a file's name in the name of its run folder."""


def move(path: Path, folder: Path, digest: str) -> None:
    """Move a file into a folder of the inbox, under its name or, if other content has that name, a numbered one."""
    place = make_inbox_folder(folder)
    rename(path, free_name(path, place, digest))


def make_inbox_folder(folder: Path) -> OwnPath:
    """Make a folder of the inbox; raises :class:`~batchscore.errors.OutputError` where it is a link."""
    place = own(folder)
    make_folder(
        place, "The files of the inbox are moved there: make room for it, or let the scorer write there."
    )
    return place


def free_name(path: Path, folder: OwnPath, digest: str) -> OwnPath:
    """A name in ``folder`` that is free, or holds the same content."""
    name = cut_name(path.name if is_plain_name(path.name) else printable(path.name), 255)
    target = folder / name
    number = 1
    while target.exists() and not (digest and target.is_file() and sha256_of(target) == digest):
        number += 1
        stem, dot, suffix = name.partition(".")
        target = folder / f"{cut_name(stem, MAX_NAME_BYTES)}-{number}{dot}{cut_name(suffix, 60)}"
    return target


def cut_name(name: str, size: int) -> str:
    """At most the first ``size`` bytes of a name, cut between characters."""
    return name.encode("utf-8", "surrogateescape")[:size].decode("utf-8", "ignore")


def rename(path: Path, target: OwnPath) -> None:
    """Rename a file together with its marker.

    Raises:
        StorageError: it cannot be renamed.
        OutputError: a link lies in the place of the folder.
    """
    file = own(path)
    marker = file.with_name(path.name + MARKER)
    try:
        has_mark = is_marked(path)
        file.replace(target)  # renames a link itself, not its target
        if has_mark:
            marker.replace(target.with_name(cut_name(target.name, 255 - len(MARKER)) + MARKER))
        sync_folder(target.parent)
        sync_folder(file.parent)
    except OSError as error:
        raise storage_error("Moving", path, error) from error
