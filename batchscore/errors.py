"""Every error a user can meet, each with the exit code of its kind.

A message says what is wrong, where (file, line, column) and what to do next. The command line is the only place that
turns one of these into a message and an exit; a library caller catches :class:`BatchscoreError`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


class BatchscoreError(Exception):
    """The root of the tree; ``exit_code`` follows ``sysexits.h`` where it has a code for the case."""

    exit_code = 1
    summary: Mapping[str, Any] | None = None
    """What was done all the same, for the line that ``--json`` prints."""


class UsageError(BatchscoreError):
    """The options contradict each other, or one cannot be meant."""

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
    """The output cannot be created, or holds another run."""

    exit_code = 73


class StorageError(BatchscoreError):
    """Reading or writing failed on the way."""

    exit_code = 74


class BusyError(BatchscoreError):
    """Another run holds the folder."""

    exit_code = 75


class ModelError(BatchscoreError):
    """The model or the configuration is unusable."""

    exit_code = 78


class NothingToDoError(BatchscoreError):
    """There was nothing to do, and the caller asked to be told so by an exit code."""

    exit_code = 99


class InterruptedRunError(BaseException):
    """A signal stopped the run; what was staged is kept, and the same command goes on from there.

    Like ``KeyboardInterrupt`` it is no ``Exception``: a signal comes at any line, also one of a library that carries on
    after whatever ``Exception`` it meets.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def missing_extra(feature: str, extra: str, kind: type[BatchscoreError] = UsageError) -> BatchscoreError:
    """Name the optional dependency that ``feature`` needs and the command that installs it, in an error of this ``kind``."""
    return kind(f"{feature} needs the extra {extra!r}; install it with: pip install 'batchscore[{extra}]'")


def printable(text: object) -> str:
    """Make ``text`` safe for a terminal or a log line: control characters become escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )


def storage_error(action: str, path: object, error: OSError) -> StorageError:
    """Turn an ``OSError`` into the exit-74 error that names the action, the path and the next step."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StorageError(
        f"{action} {printable(path)} failed: {printable(reason)}. Free the cause (space, permission, connection) and run the same "
        "command again: what was finished is kept."
    )
