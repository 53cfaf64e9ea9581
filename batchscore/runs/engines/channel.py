"""A child process with a pipe to it, over which both send what can be pickled: each trusts the other, which runs the same code.

It is started anew, not forked, and does not import the caller's main module, so that scripts and notebooks need no guard. It
ends when the parent does, however that ends; what it logs, the parent logs.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from batchscore.errors import BatchscoreError
from batchscore.system.surroundings import settle_in, shortage

_PR_SET_PDEATHSIG = 1
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from batchscore.runs.engines.channel import begin; begin(sys.argv[2], int(sys.argv[3]))"
)
LOG = "log"
"""The first word of a message that is a log record."""


class Child:
    """A child process that runs ``main``, a function of a module, with its end of the pipe: ``"package.module:function"``."""

    def __init__(self, main: str, environment: Mapping[str, str], *, is_silent: bool = False) -> None:
        """``environment`` is added to that of this process; a silent one has a library that writes to standard error at will."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            arguments = [json.dumps(sys.path), main, str(theirs.fileno())]
            self._process = subprocess.Popen(  # noqa: S603 - our own code, in the same Python
                [sys.executable, "-P", "-c", _START, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if is_silent else None,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, **environment},
            )
            self.pipe = Connection(ours.detach())

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def received(self) -> list[tuple[Any, ...]]:
        """All messages that are there; log records among them are logged.

        Raises:
            EOFError: there are none, nor will there be: it is dead.
        """
        found: list[tuple[Any, ...]] = []
        try:
            while self.pipe.poll():
                message = self.pipe.recv()
                if message[0] == LOG:
                    _, level, name, text = message
                    logging.getLogger(name).log(level, "%s", text)
                else:
                    found.append(message)
        except (OSError, EOFError):
            if not found:
                raise EOFError from None
        return found

    def send(self, *message: Any) -> None:
        """Send a message; one to a dead process is dropped, since its death is seen where messages are received."""
        with contextlib.suppress(OSError):
            self.pipe.send(message)

    def end(self, seconds: float = 0.0) -> str:
        """End it, giving it ``seconds`` to end by itself once its pipe is closed; returns how it ended, in words."""
        self.pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        return in_words(self._process.returncode)


def in_words(code: int) -> str:
    """How a process ended, by its exit code."""
    if code >= 0:
        return f"it ended with the exit code {code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-code).name
        hint = " (out of memory?)" if -code in (signal.SIGKILL, signal.SIGABRT) else ""
        return f"it died of {name}{hint}"
    return f"it died of signal {-code}"


def begin(main: str, descriptor: int) -> None:
    """What a child does first, and last."""
    import importlib

    settle_in()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends us
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    end = ParentsEnd(Connection(descriptor))
    logging.getLogger("batchscore").addHandler(end.handler)
    logging.getLogger("batchscore").setLevel(logging.INFO)
    module, _, name = main.partition(":")
    with contextlib.suppress(EOFError, OSError):
        getattr(importlib.import_module(module), name)(end)
    os._exit(0)  # whatever threads there are: nobody listens


class ParentsEnd:
    """The parent, as a child sees it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._lock = pipe, threading.Lock()
        self.handler = _ToParent(self)

    def receive(self, seconds: float | None = None) -> tuple[Any, ...] | None:
        """The next message; None if none came for so long. Raises ``EOFError`` when the parent is gone."""
        if seconds is not None and not self._pipe.poll(seconds):
            return None
        message: tuple[Any, ...] = self._pipe.recv()
        return message

    def send(self, *message: Any) -> None:
        """Send a message, from any thread."""
        with self._lock:
            self._pipe.send(message)


class _ToParent(logging.Handler):
    """Hands log records to the parent, which knows how they are shown."""

    def __init__(self, parent: ParentsEnd) -> None:
        super().__init__()
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._parent.send(LOG, record.levelno, record.name, record.getMessage())


def sendable(error: BaseException) -> Exception:
    """The error as it can travel: one of ours as it is, any other with its traceback as text."""
    told = shortage(error) or error
    if isinstance(told, BatchscoreError):
        return type(told)(str(told))
    return RuntimeError("".join(traceback.format_exception(error)))


def tried(task: Callable[[], Any]) -> tuple[str, Any]:
    """``("answer", its result)`` of a function, or ``("failed", its error)``."""
    try:
        return "answer", task()
    except Exception as error:  # noqa: BLE001 - raised by the parent
        return "failed", sendable(error)
