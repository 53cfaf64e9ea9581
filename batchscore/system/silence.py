"""What native code says of itself on standard error, kept back: Rust prints a panic with a backtrace, and perhaps a piece of a text.

Nobody can tell Rust not to, and it writes to the descriptor, whatever ``sys.stderr`` is. So the descriptor leads to memory for a
while. That is for the processes of the commands alone (:func:`allow`): from Python standard error is the caller's, as are
threads that may write to it, or start a process that has it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator

_PANIC_LINES = re.compile(
    rb"\n?^thread '[^\n]*' (?:\(\d+\) )?panicked at .*?(?:^note: [^\n]*\n|\Z)", re.S | re.M
)
_STDERR = 2
_one_at_a_time = threading.Lock()
_is_allowed = False
_kept: _Kept | None = None


def allow() -> None:
    """Say that the process is one of ours, from its start to its end."""
    global _is_allowed  # noqa: PLW0603
    _is_allowed = True


def speak() -> None:
    """Have standard error lead where it should, for the last words of a program that ends within :func:`silent_panics`."""
    if (kept := _kept) is not None:
        kept.end()


@contextlib.contextmanager
def silent_panics() -> Iterator[None]:
    """Keep what is written to standard error within the block, and write it afterwards, but for what Rust says of panics.

    Where that cannot be (no more descriptors, say), it is written as it comes.
    """
    global _kept  # noqa: PLW0603
    if not _is_allowed or not _has_stderr():
        yield
        return
    with _one_at_a_time:
        kept = _Kept()
        atexit.register(kept.end)  # a signal may end the program meanwhile, and its last word be kept
        try:
            _kept = kept
            kept.begin()
            yield
        finally:
            kept.end()
            _kept = None
            atexit.unregister(kept.end)


def _has_stderr() -> bool:
    """Whether standard error is where it should be, so that nothing else is taken for it."""
    try:
        return (
            sys.__stderr__ is not None and sys.__stderr__.fileno() == _STDERR and hasattr(os, "memfd_create")
        )
    except (OSError, ValueError):  # closed
        return False


class _Kept:
    """Standard error while it goes to memory, from :meth:`begin` to :meth:`end`."""

    def __init__(self) -> None:
        self._ending = threading.Lock()
        self._real = self._memory = -1

    def begin(self) -> None:
        with contextlib.suppress(OSError):
            self._memory = os.memfd_create("stderr")
            self._real = os.dup(_STDERR)
            os.dup2(self._memory, _STDERR)

    def end(self) -> None:
        """Write what was kept; nothing the second time."""
        with self._ending:
            real, memory, self._real, self._memory = self._real, self._memory, -1, -1
        if real < 0:
            if memory >= 0:
                os.close(memory)
            return
        os.dup2(real, _STDERR)
        with os.fdopen(memory, "rb") as kept, os.fdopen(real, "wb") as out:
            kept.seek(0)
            with contextlib.suppress(OSError):  # nobody listens
                out.write(_PANIC_LINES.sub(b"", kept.read()))
