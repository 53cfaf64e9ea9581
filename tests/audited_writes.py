"""What this process makes, opens for writing, renames and removes below some folders, and whether by a name or below a handle."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from batchscore.system import own_paths

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PLACES: dict[
    str, list[tuple[int, int | None]]
] = {  # event → positions of each path and of the descriptor of its folder among the arguments
    "os.mkdir": [(0, 2)],
    "os.remove": [(0, 1)],
    "os.rmdir": [(0, 1)],
    "os.rename": [(0, 2), (1, 3)],
    "os.link": [(1, 3)],
    "os.symlink": [(1, 2)],
    "shutil.rmtree": [(0, 1)],
    "shutil.copyfile": [(1, None)],
    "shutil.move": [(1, None)],
}


def opened_path(path: str | bytes | os.PathLike[str], caller: FrameType) -> tuple[Path, bool]:
    """The path that the ``caller`` of an ``open`` event means, and whether it opens it below a handle."""
    name = os.fsdecode(path)
    if caller.f_code.co_filename == own_paths.__file__ and "/" not in name and "self" in caller.f_locals:
        return caller.f_locals["self"].path, True
    return Path(name), False


def path_below(handle: int | None, path: str | bytes | os.PathLike[str]) -> Path:
    """The path of a name below the descriptor of a folder; -1 or none is the working folder."""
    is_named = handle is None or handle < 0
    return (Path() if is_named else Path(f"/proc/self/fd/{handle}").readlink()) / os.fsdecode(path)


class Writes:
    """What was seen below the folders, which need not exist yet."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self.made: set[Path] = set()
        """Files and folders that were made or opened for writing, or got this name."""
        self.removed: set[Path] = set()
        self.by_name: set[str] = set()
        """Event and path of what was not done below a handle."""

    def hear(self, event: str, args: tuple[Any, ...], caller: FrameType) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(path, str | bytes | os.PathLike) and (flags or 0) & _WRITES:
                found, is_own = opened_path(path, caller)
                self._note(event, found, is_by_name=not is_own)
        for place, folder in _PLACES.get(event, ()):
            handle = None if folder is None else args[folder]
            is_by_name = handle is None or handle < 0
            self._note(event, path_below(handle, args[place]), is_by_name=is_by_name)

    def _note(self, event: str, path: Path, *, is_by_name: bool) -> None:
        path = path.absolute()
        if not any(folder in path.parents for folder in self._folders):
            return
        if event not in {"os.remove", "os.rmdir"}:
            self.made.add(path)
        elif os.path.lexists(path):  # else it is only made sure of
            self.removed.add(path)
        if is_by_name:
            self.by_name.add(f"{event} {path}")


_HEARING: list[Writes] = []
_IS_HOOKED: list[bool] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    for writes in _HEARING:
        if event == "open" or event in _PLACES:
            writes.hear(event, args, sys._getframe(1))


@contextlib.contextmanager
def writes_below(*folders: Path) -> Iterator[Writes]:
    """See what is done below some folders meanwhile; what libraries do by themselves, outside of Python, is not heard."""
    if not _IS_HOOKED:
        sys.addaudithook(_hook)  # for good: there is no way to take one back
        _IS_HOOKED.append(True)
    _HEARING.append(writes := Writes(folders))
    try:
        yield writes
    finally:
        _HEARING.remove(writes)
