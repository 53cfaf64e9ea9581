"""What the machine may refuse: closed streams, limits on memory, files, processes and CPU time, a folder that is gone.

None of it is a fault of the program or of an input. It ends with 74 and a sentence, and what was finished is kept.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import signal
import sys
from collections.abc import Iterator

from batchscore.errors import BatchscoreError, StorageError, printable
from batchscore.system.silence import allow

_SHORTAGES = {
    errno.EMFILE: "it may not open more files",
    errno.ENFILE: "it cannot open more files",
    errno.ENOMEM: "there is no more memory",
    errno.EAGAIN: "it may not start more processes or threads",
    errno.ENOSPC: "there is no more space",
    errno.EDQUOT: "there is no more space for this user",
    errno.EFBIG: "files may not be that large",
    errno.EIO: "reading or writing failed",
    errno.ESTALE: "a network share has gone",
}
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_MEMORY = re.compile(
    "failed to map segment|cannot allocate memory|can't allocate memory|not enough memory|std::bad_alloc|cannot create shared object|"
    "unable to mmap|malloc of size .* failed|realloc of size .* failed",
    re.IGNORECASE,
)
_NO_THREADS = re.compile("can't start new thread|resource temporarily unavailable", re.IGNORECASE)
_LIMITS = {
    resource.RLIMIT_AS: ("-v", 1 << 10, " KiB of addresses"),
    resource.RLIMIT_DATA: ("-d", 1 << 10, " KiB of data"),
    resource.RLIMIT_NOFILE: ("-n", 1, " open files"),
    resource.RLIMIT_NPROC: ("-u", 1, " processes and threads"),
    resource.RLIMIT_FSIZE: ("-f", 1 << 10, " KiB a file"),
    resource.RLIMIT_CPU: ("-t", 1, " seconds of CPU time"),
}
_GONE = "the folder in which the command was started is gone; start it in another"
_USUAL = {resource.RLIMIT_NOFILE: 256, resource.RLIMIT_NPROC: 256}
"""A limit above this is not worth a word."""
_CPU_SPARE = 5
"""Seconds of CPU time in which to stop orderly."""
_CRASHES = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGTRAP, signal.SIGILL, signal.SIGFPE}


def settle_in() -> None:
    """What a command does first: hold the standard streams, and hear of the end of its CPU time before it comes.

    With standard error closed, the next file that is opened would get its number, and every message in its midst.
    """
    allow()
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(
                os.open(os.devnull, os.O_RDWR), True
            )  # the lowest free number, which is this one
    for name, mode, descriptor in (("stdin", "r", 0), ("stdout", "w", 1), ("stderr", "w", 2)):
        if getattr(sys, name) is None:
            setattr(
                sys,
                name,
                open(descriptor, mode, encoding="utf-8", errors="backslashreplace", closefd=False),  # noqa: SIM115
            )
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard != resource.RLIM_INFINITY and (soft == resource.RLIM_INFINITY or soft > hard - _CPU_SPARE):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CPU, (max(hard - _CPU_SPARE, (hard + 1) // 2), hard))


def refuse_missing_folder() -> None:
    """Raise :class:`StorageError` if the working directory is gone: no relative name means anything, and libraries fail oddly."""
    if not _has_working_directory():
        raise StorageError(f"The machine refused: {_GONE}.")


def shortage(error: BaseException) -> StorageError | None:
    """The exit-74 error for what the machine refused; None if ``error`` is something else.

    Also where a library, or one of our errors, hides it behind an exception of its own.
    """
    if isinstance(error, StorageError):
        return None
    reason = next(filter(None, map(_refused, _chain(error))), "")
    if not reason and isinstance(error, OSError) and not _has_working_directory():
        reason = _GONE
    if not reason:
        return None
    advice = "Free the cause and run the same command again: what was finished is kept."
    return StorageError(f"The machine refused: {reason}{_limits_text()}. {advice}")


def died_of_a_limit(number: int) -> str:
    """Why a process that died of this signal died of a limit of its own, and not of what it worked on; else empty."""
    if number == signal.SIGXCPU:
        return f"its CPU time was over{_limits_text()}"
    is_limited = any(
        resource.getrlimit(limit)[0] != resource.RLIM_INFINITY
        for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    )
    return f"perhaps there was no more memory{_limits_text()}" if is_limited and number in _CRASHES else ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those behind it; of ours only what they were made from."""
    seen: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in seen:
        seen.append(found)
        yield found
        is_ours = isinstance(found, BatchscoreError)
        found = (
            found.__cause__ if is_ours or found.__suppress_context__ else found.__cause__ or found.__context__
        )


def _refused(error: BaseException) -> str:
    if isinstance(error, BatchscoreError):
        return ""
    if isinstance(error, MemoryError):
        return _SHORTAGES[errno.ENOMEM]
    if isinstance(error, OSError) and error.errno in _SHORTAGES:
        is_stream = (
            error.filename is None and error.errno in _OF_WRITING
        )  # our files are named by who writes them
        where = "standard output" if is_stream else printable(error.filename or "")
        return _SHORTAGES[error.errno] + (f" ({where})" if where else "")
    if isinstance(error, (ImportError, OSError, RuntimeError)):
        if _NO_MEMORY.search(str(error)):
            return _SHORTAGES[errno.ENOMEM]
        if _NO_THREADS.search(str(error)):
            return _SHORTAGES[errno.EAGAIN]
    return ""


def _has_working_directory() -> bool:
    try:
        os.getcwd()  # noqa: PTH109
    except OSError:
        return False
    return True


def _limits_text() -> str:
    """The limits that are set, as the shell's ``ulimit`` has them, in brackets."""
    found = []
    for limit, (flag, unit, words) in _LIMITS.items():
        soft = resource.getrlimit(limit)[limit == resource.RLIMIT_CPU]  # that one is lowered, see settle_in
        if soft != resource.RLIM_INFINITY and soft <= _USUAL.get(limit, soft):
            found.append(f"ulimit {flag}: {soft // unit}{words}")
    return f" ({', '.join(found)})" if found else ""
