"""Which files of a drop folder are complete: unchanged for a while and closed, or with a marker beside them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import stat
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from batchscore.config import InboxSettings
from batchscore.errors import (
    NoInputError,
    printable,
)
from batchscore.formats.registry import format_of_name, suffixes

_LOG = logging.getLogger(__name__)
MARKER = ".done"


ERROR = ".error.txt"


_UNFINISHED = re.compile(r"(?i)\.(part|partial|tmp|temp|crdownload|filepart|download|swp|upload)$|~$")


_DESKTOP_FILES = re.compile(r"(?i)thumbs\.db|ehthumbs.*\.db|desktop\.ini|icon\r|~\$.*|\.~lock.*")
"""What desktops and office programs leave in a folder."""


_FORBIDDEN_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories not allowed in a name: control characters, undecodable bytes, line separators."""


def refuse_missing(inbox: Path) -> None:
    """Raise :class:`~batchscore.errors.NoInputError` if there is no such folder."""
    if not inbox.is_dir():
        raise NoInputError(f"There is no folder {printable(inbox)}. Make it, or name another inbox.")


def settling_line(names: Sequence[str], settings: InboxSettings) -> str:
    """The message about files that may still be written."""
    first = printable(names[0])
    which = first if len(names) == 1 else f"{len(names)} files, {first} the first,"
    if settings.require_done:
        return f"{which} left for a later call: no {MARKER} lies beside it"
    return f"{which} left for a later call: not unchanged for {settings.settle:g} s yet, or open for writing (--settle)"


class Contents(NamedTuple):
    """The files in an inbox, oldest first."""

    whole: list[Path]
    """Complete files, and what never will be one (a link, a pipe)."""
    settling: list[str]
    """Names of files that may still be written: changed a moment ago, open for writing, or without their marker."""


def contents(settings: InboxSettings) -> Contents:
    """List the files of the inbox.

    Files that changed in the future, by a clock that was set back, have no age; they are watched for the settle time.

    Raises:
        NoInputError: there is no such inbox.
    """
    refuse_missing(settings.inbox)
    found = []
    ageless = _watched(settings)
    for entry in os.scandir(settings.inbox):
        name = entry.name
        if _is_ignored(name):
            continue
        with contextlib.suppress(FileNotFoundError):
            facts = entry.stat(follow_symlinks=False)
            if not stat.S_ISDIR(facts.st_mode):
                is_still = ageless.get(name) == _identity(facts) and not _is_being_written(Path(entry.path))
                is_whole = is_still or _is_whole(Path(entry.path), facts, settings)
                found.append((is_whole, facts.st_mtime_ns, name))
    by_age = sorted(found, key=lambda each: each[1:])
    return Contents(
        whole=[settings.inbox / name for is_whole, _, name in by_age if is_whole],
        settling=[name for is_whole, _, name in by_age if not is_whole],
    )


def _watched(settings: InboxSettings) -> dict[str, tuple[int, ...]]:
    """What files whose age no clock tells looked like a settle time ago: waits so long if there are any, and says so."""
    if settings.require_done:
        return {}
    seen: dict[str, tuple[int, ...]] = {}
    for entry in os.scandir(settings.inbox):
        with contextlib.suppress(FileNotFoundError):
            facts = entry.stat(follow_symlinks=False)
            is_ours = not _is_ignored(entry.name) and stat.S_ISREG(facts.st_mode)
            if is_ours and _is_ahead(facts, settings.settle) and not is_marked(Path(entry.path)):
                seen[entry.name] = _identity(facts)
    if seen:
        _LOG.warning(
            "%d files, %s the first, changed after the present time; was the clock set back? They are watched for %g s instead",
            len(seen),
            printable(min(seen)),
            settings.settle,
        )
        time.sleep(settings.settle)  # by a clock that nobody sets
    return seen


def _is_ahead(facts: os.stat_result, settle: float) -> bool:
    """Whether a file changed after now by this machine's clock.

    One that is less than the settle time ahead, as on a share of a machine whose clock is, will have an age soon.
    """
    return min(facts.st_mtime, facts.st_ctime) > time.time() + settle


def _identity(facts: os.stat_result) -> tuple[int, ...]:
    return facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_ctime_ns


def _is_ignored(name: str) -> bool:
    """Whether a file is ignored by its name: hidden, temporary, a marker, or a desktop's file."""
    is_ours = name.endswith((MARKER, ERROR))
    return bool(name.startswith(".") or is_ours or _UNFINISHED.search(name) or _DESKTOP_FILES.fullmatch(name))


def _is_whole(path: Path, facts: os.stat_result, settings: InboxSettings) -> bool:
    if not stat.S_ISREG(facts.st_mode):
        return True
    if is_marked(path):
        return True
    if settings.require_done:
        return False
    now = time.time()
    changed = (
        facts.st_mtime if facts.st_mtime <= now else facts.st_ctime
    )  # the clock of another machine may be ahead
    return now - changed >= settings.settle and not _is_being_written(path)


def is_marked(path: Path) -> bool:
    """Whether ``NAME.done`` is beside the file and not older than it."""
    with contextlib.suppress(OSError):
        mark = path.with_name(path.name + MARKER).lstat()
        return stat.S_ISREG(mark.st_mode) and mark.st_mtime_ns >= path.lstat().st_mtime_ns
    return False


def _is_being_written(path: Path) -> bool:
    """Whether a process on this machine has the file open for writing; Linux then grants no read lease."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False  # scoring reports why it cannot be read
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except (
        OSError
    ) as error:  # no leases on other users' files and some file systems: then only the settle time counts
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False


def is_plain_name(name: str) -> bool:
    """Whether a name has no control characters and fits on one line; any kind of space is fine."""
    return not any(unicodedata.category(char) in _FORBIDDEN_CATEGORIES for char in name)


def refusal(path: Path, given_format: str | None) -> str:
    """Why this is not scored; empty for a regular file with a plain name and a known suffix."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return "It is a link, and links are not followed. Put the file itself here."
    if not stat.S_ISREG(mode):
        return "It is a pipe, a socket or a device, not a file."
    if not is_plain_name(path.name):
        return "Its name holds line breaks, other control characters or bytes that are not UTF-8. Give it a plain name."
    if given_format is None and format_of_name(path.name) is None:
        return f"Its name ends with none of {', '.join(suffixes())} (or one of these and .gz, .zst, .bz2)."
    return ""
