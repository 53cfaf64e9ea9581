"""Every error a user can meet, each with its exit code.

A message says what is wrong, where (file, line, column) and what to do next. Only the command line turns an error into a
message and an exit; a library caller catches :class:`BatchscoreError`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any


class BatchscoreError(Exception):
    """The base class; ``exit_code`` follows ``sysexits.h`` where it has a code for the case."""

    exit_code = 1
    summary: Mapping[str, Any] | None = None
    """What was done nevertheless, for the line that ``--json`` prints."""
    run: Any = None
    """From Python: the finished run (:class:`batchscore.api.Run`), where everything was scored and written nevertheless."""


class UsageError(BatchscoreError):
    """The options contradict each other, or one makes no sense."""

    exit_code = 2


class GateFailedError(BatchscoreError):
    """Everything was scored and written, but a quality gate failed."""

    exit_code = 3


class DataError(BatchscoreError):
    """The input cannot be scored as it is: damaged, without a text column, or with too many rejects."""

    exit_code = 65


class NoInputError(BatchscoreError):
    """No such input."""

    exit_code = 66


class OutputError(BatchscoreError):
    """The output cannot be created, or another run is in it."""

    exit_code = 73


class TakenError(OutputError):
    """The output holds another run, or something that is no run: another folder would do."""


class StorageError(BatchscoreError):
    """Reading or writing failed."""

    exit_code = 74


class BusyError(BatchscoreError):
    """Another process has locked the folder."""

    exit_code = 75


class ModelError(BatchscoreError):
    """The model or the configuration is unusable."""

    exit_code = 78


class NothingToDoError(BatchscoreError):
    """There was nothing to do, and the caller asked for an exit code that says so."""

    exit_code = 99


class InterruptedRunError(BaseException):
    """A signal stopped the run; staged parts are kept, and the same command resumes from there.

    Like ``KeyboardInterrupt``, not an ``Exception``: a signal may arrive inside a library that swallows any ``Exception``.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class NotOursError(OSError):
    """A link, a pipe or the like lies where a file or folder of ours should be; nothing is written or read through it."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(errno.ELOOP, f"it is {what}", path)


def missing_extra(feature: str, extra: str, kind: type[BatchscoreError] = UsageError) -> BatchscoreError:
    """The error for a missing optional dependency of ``feature``, with the command that installs it."""
    return kind(f"{feature} needs the extra {extra!r}; install it with: pip install 'batchscore[{extra}]'")


_SHOWN: dict[str, str] = {}
"""Path → what messages call it."""


@contextlib.contextmanager
def shown_as(path: os.PathLike[str], name: str) -> Iterator[None]:
    """Have messages call a file by ``name`` within the block: one that stands for something else, and that nobody has named."""
    _SHOWN[os.fspath(path)] = name
    try:
        yield
    finally:
        _SHOWN.pop(os.fspath(path), None)


_SHOWN_BELOW: dict[str, str] = {}
"""Folder → what messages call it, and thereby all that is in it."""


@contextlib.contextmanager
def shown_below(folder: os.PathLike[str], name: str) -> Iterator[None]:
    """Have messages call what is in a folder by names below ``name``: where it is a copy of what the user named."""
    _SHOWN_BELOW[os.fspath(folder)] = name
    try:
        yield
    finally:
        _SHOWN_BELOW.pop(os.fspath(folder), None)


def as_named(text: object) -> str:
    """A text with each folder in it as it is :func:`shown_below`: what to write where the user reads it."""
    plain = str(text)
    for folder, name in reversed(_SHOWN_BELOW.items()):  # what lies in another one came later
        plain = plain.replace(folder, name)
    return plain


_SPACE_OF_SCRIPTS = "\u3000"
"""The space of Chinese and Japanese."""
_JOINERS = "\u200c\u200d"
"""Between letters of some scripts, and between emoji."""


def printable(text: object) -> str:
    r"""Make ``text`` safe for a terminal or a log line; a path as it is :func:`shown_as`.

    Whatever a terminal could obey, or a reader not see, becomes an escape: control characters (C0, DEL, C1), marks of direction,
    separators of lines, spaces of no width, tags, halves of surrogates. Letters, signs and emoji of all scripts stay.

    >>> printable("Größe 漢字 👩‍🚀 \x9b31m")
    'Größe 漢字 👩‍🚀 \\x9b31m'
    """
    plain = str(text)
    return _escaped(_SHOWN.get(plain) or as_named(plain), lambda char: char.encode("unicode_escape").decode())


def printable_lines(text: str) -> str:
    """The same for several lines, whose ends stay."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(value: Any) -> str:
    r"""A JSON value in one line, with what :func:`printable` escapes as JSON's own escapes, so that it reads back the same.

    >>> printable_json({"größe": "\x7f"})
    '{"größe": "\\u007f"}'
    """
    return _escaped(json.dumps(value, ensure_ascii=False), _in_json)


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == _SPACE_OF_SCRIPTS or _joins(text, at) else escape(char)
        for at, char in enumerate(text)
    )


def _joins(text: str, at: int) -> bool:
    """Whether a joiner stands between two characters that it can join, none of them ASCII."""
    if text[at] not in _JOINERS or not 0 < at < len(text) - 1:
        return False
    return all(char.isprintable() and not char.isascii() for char in (text[at - 1], text[at + 1]))


def _in_json(char: str) -> str:
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def storage_error(action: str, path: object, error: OSError) -> StorageError | OutputError:
    """The exit-74 error for an ``OSError``: names the action, the path and the next step; exit 73 for :class:`NotOursError`."""
    if isinstance(error, NotOursError):
        return OutputError(
            f"{printable(error.filename)}: {error.strerror}, where a file or folder of the program's own should be. Nothing is "
            "written or read through it, since it may lead anywhere. Look who put it there, remove it, and run the same command "
            "again; a folder that is to be elsewhere is to be named itself."
        )
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StorageError(
        f"{action} {printable(path)} failed: {printable(reason)}. Free the cause (space, permission, connection) and run the same "
        "command again: what was finished is kept."
    )
