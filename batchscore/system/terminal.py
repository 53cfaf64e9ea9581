"""The terminal: error messages and exit codes, signals, progress and logs.

Data goes to stdout, messages to stderr. Only this module turns an error into a message and an exit code.
"""

from __future__ import annotations

import _thread
import contextlib
import inspect
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import click

from batchscore.errors import BatchscoreError, InterruptedRunError, printable, printable_json, printable_lines
from batchscore.system.silence import speak
from batchscore.system.surroundings import shortage

_LINE_SECONDS = 30.0
_FIRST_LINE_SECONDS = 3.0
_GRACE_SECONDS = 1.5
"""The longest time from a signal to the end of the process, to which a busy machine adds its own: a process that gets a
fiftieth of a core needs seconds to wake up and to give back its memory."""
_ASK_SECONDS = 0.02
"""From one try to raise the exception to the next."""
_LONGEST_MESSAGE = 4000
"""Characters of an error's message."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU)
_WAKE_SIGNAL = signal.SIGURG
"""Interrupts what the main thread waits for. Where nobody handles it any more it is ignored, so it can come at any time."""
_CODES = {signal.SIGXCPU: 128 + signal.SIGTERM}
"""The end of a process's CPU time (``ulimit -t``) is as good as being terminated."""
_AGAIN = "run the same command again to go on"


@contextlib.contextmanager
def boundary(as_json: bool = False, go_on: str = _AGAIN) -> Iterator[None]:
    """Turn errors into a message on stderr and an exit code; other exceptions are bugs and keep their traceback.

    ``go_on`` says what to do after a signal stopped the command.
    """
    try:
        with _signals(as_json, go_on):
            yield
        sys.stdout.flush()
    except InterruptedRunError as error:
        _tell_and_exit(error, as_json)
    except BrokenPipeError:
        _close_stdout()
        sys.exit(74)
    except Exception as error:
        told = shortage(error) or (error if isinstance(error, BatchscoreError) else None)
        if told is None:
            raise
        if told is not error:
            _LOG.debug("what the machine refused", exc_info=error)
        _tell_and_exit(told, as_json)


def _tell_and_exit(error: BatchscoreError | InterruptedRunError, as_json: bool) -> NoReturn:
    """Say what went wrong, as far as somebody can hear it, and exit with its code."""
    message, summary = _error_texts(error, as_json)
    with contextlib.suppress(OSError, ValueError):
        if _logs_are_json():
            _json_log.error(_cut(str(error)), extra={"event": "error", "exit_code": error.exit_code})
        else:
            show(message.removesuffix("\n"), err=True)
    try:
        click.echo(summary, nl=False)
        sys.stdout.flush()
    except (OSError, ValueError):
        _close_stdout()
    sys.exit(error.exit_code)


def _close_stdout() -> None:
    """Let nothing more be written to a standard output that takes nothing; else Python complains when it exits."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.close(descriptor)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()


def end_at_once(code: int) -> NoReturn:
    """End the process without what the interpreter does last, which a signal need not wait for."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _cut(message: str) -> str:
    """A message without its middle, if it is longer than any message should be."""
    if len(message) <= _LONGEST_MESSAGE:
        return message
    return f"{message[: _LONGEST_MESSAGE // 2]} […] {message[-_LONGEST_MESSAGE // 2 :]}"


def _error_texts(error: BatchscoreError | InterruptedRunError, as_json: bool) -> tuple[str, str]:
    """The texts for stderr and stdout."""
    done = error.summary if isinstance(error, BatchscoreError) and error.summary else {"status": "error"}
    message = _cut(str(error))
    summary = {**done, "exit_code": error.exit_code, "error": message}
    return f"error: {message}\n", f"{printable_json(summary)}\n" if as_json else ""


@contextlib.contextmanager
def _signals(as_json: bool, go_on: str) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the command with 143 and 130, SIGXCPU as SIGTERM.

    Python handles a signal between bytecodes, which may be long after it arrived (a forward pass, a large write). So a
    watchdog ends a process that is still running ``_GRACE_SECONDS`` after the signal, as a kill would. The run can be resumed
    all the same. Until then it asks again where the exception could not be raised (amid an import, after which a native
    library that is imported a second time aborts the process) or was dropped (in a finaliser).
    """
    stop = _Stop(go_on)
    threads = set(threading.enumerate())
    before = {number: signal.getsignal(number) for number in (*_STOP_SIGNALS, _WAKE_SIGNAL)}
    with _watchdog(stop, as_json), stop.heard_in_finalisers():
        signal.signal(_WAKE_SIGNAL, lambda *_: None)
        for number in _STOP_SIGNALS:
            signal.signal(number, stop)
        try:
            yield
        except KeyboardInterrupt:  # a library may have turned our exception into this
            if not stop.number:
                raise
            raise _interrupted(stop.number, go_on) from None
        finally:
            if stop.number:  # the interpreter waits for threads when it ends, where no watchdog is
                _wait_for_threads(threads)
            for number, handler in before.items():
                signal.signal(number, handler)


class _Stop:
    """The handler of the signals that stop a command: the first of them is raised, once."""

    def __init__(self, go_on: str) -> None:
        self.go_on = go_on
        """What to do after it."""
        self.number = 0
        """The first signal that came, or 0."""
        self._is_raised = False
        self._imports_outside = _imports(inspect.currentframe())

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        if not self._is_raised and _imports(frame) == self._imports_outside:
            self._is_raised = True
            raise _interrupted(self.number, self.go_on)

    def ask_again(self, number: int) -> None:
        """Let the main thread run the handler once more, if it is still there and has raised nothing."""
        main_thread = threading.main_thread().ident
        if main_thread and not self._is_raised:
            _thread.interrupt_main(signal.Signals(number))
            signal.pthread_kill(main_thread, _WAKE_SIGNAL)

    @contextlib.contextmanager
    def heard_in_finalisers(self) -> Iterator[None]:
        """Notice where Python drops the exception, without a word of it, during the block."""

        def dropped(what: sys.UnraisableHookArgs) -> None:
            if isinstance(what.exc_value, InterruptedRunError):
                self._is_raised = False
            else:
                before(what)

        before, sys.unraisablehook = sys.unraisablehook, dropped
        try:
            yield
        finally:
            sys.unraisablehook = before


def _imports(frame: FrameType | None) -> int:
    """How many frames of the import system are in this frame's stack: more than before while a module is imported."""
    count = 0
    while frame is not None:
        count += "importlib._bootstrap" in frame.f_code.co_filename
        frame = frame.f_back
    return count


def _wait_for_threads(but: set[threading.Thread]) -> None:
    """Wait for those that keep the process alive.

    A pool waits for its threads itself, but not for one that it was starting when the signal came.
    """
    for thread in set(threading.enumerate()) - but:
        if not thread.daemon:
            thread.join()


def _interrupted(number: int, go_on: str) -> InterruptedRunError:
    name = signal.Signals(number).name
    why = " (its CPU time is over, ulimit -t)" if number == signal.SIGXCPU else ""
    error = InterruptedRunError(f"stopped by {name}{why}; {go_on}", number)
    error.exit_code = _CODES.get(signal.Signals(number), error.exit_code)
    return error


@contextlib.contextmanager
def _watchdog(stop: _Stop, as_json: bool) -> Iterator[None]:
    """Run a watchdog thread during the block; signals reach it at once through Python's wake-up descriptor."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    threading.Thread(
        target=_wait_for_signal, args=(reader, stop, as_json), name="signals", daemon=True
    ).start()
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)


def _wait_for_signal(reader: int, stop: _Stop, as_json: bool) -> None:
    """Wait for a signal that stops, then for the end of the block; if that does not come in time, end the process."""
    with open(reader, "rb", buffering=0) as pipe:
        while number := pipe.read(1):
            if number[0] in _STOP_SIGNALS:
                break
        else:
            return
        deadline = time.monotonic() + _GRACE_SECONDS
        _hurry()
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([pipe], [], [], min(left, _ASK_SECONDS))[0]:
                stop.ask_again(number[0])
            elif not pipe.read(64):
                return
    error = _interrupted(number[0], stop.go_on)
    speak()
    for descriptor, text in zip((2, 1), _error_texts(error, as_json), strict=True):
        with contextlib.suppress(OSError):
            os.write(descriptor, printable_lines(text).encode())
    os._exit(error.exit_code)


def _hurry() -> None:
    """Take back the niceness, where that is allowed: a process that shall end must be given time to."""
    with contextlib.suppress(OSError, ValueError):
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208
            os.setpriority(os.PRIO_PROCESS, int(thread), 0)


def say(text: str, **facts: Any) -> None:
    """Print one message; with JSON logs, an event with the ``facts``."""
    if _logs_are_json():
        _json_log.info(text, extra=facts)
    else:
        show(text, err=True)


def show(text: str, *, err: bool = False) -> None:
    """Print lines on stdout, or stderr; what a terminal could obey is escaped, as in all that is printed."""
    click.echo(printable_lines(text), err=err)


def show_json(value: Any) -> None:
    """Print a JSON value on stdout, in one line."""
    click.echo(printable_json(value))


class Logs(NamedTuple):
    """The log settings of a command."""

    verbosity: int = 0
    """-1 is quiet (errors only), 0 notices, warnings and progress, 1 information, 2 everything."""
    format: str = "text"
    """``text`` for people, ``json`` for machines: one object per line, with time, level, message and ``run_id``."""
    run_id: str = ""


PLAIN = Logs()
_LOG = logging.getLogger(__name__)
NOTICE = 25
"""The level of messages shown unless quiet, below a warning."""
logging.addLevelName(NOTICE, "NOTICE")
_json_log = logging.getLogger("batchscore.talk")
_json_log.disabled = True  # unless logs are JSON


def _logs_are_json() -> bool:
    """Whether logs are JSON, as set by :func:`set_up_logs`."""
    return not _json_log.disabled


def set_up_logs(logs: Logs) -> None:
    """Let our loggers write to stderr, and :func:`say` through them if logs are JSON."""
    levels = {-1: logging.ERROR, 0: NOTICE, 1: logging.INFO}
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(logs))
    logger = logging.getLogger("batchscore")
    logger.handlers[:] = [handler]
    logger.setLevel(levels.get(logs.verbosity, logging.DEBUG))
    logger.propagate = False
    _json_log.disabled = logs.format != "json"
    _json_log.handlers[:] = [handler]
    _json_log.setLevel(logging.ERROR if logs.verbosity < 0 else logging.INFO)
    _json_log.propagate = False


def _formatter(logs: Logs) -> logging.Formatter:
    if logs.format != "json":
        return _EscapedFormatter("%(levelname)s: %(message)s")
    from pythonjsonlogger.json import JsonFormatter

    class EscapedJsonFormatter(JsonFormatter):
        def serialize_log_record(self, log_record: dict[str, Any]) -> str:
            return printable_json(json.loads(super().serialize_log_record(log_record)))

    return EscapedJsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger"},
        static_fields={"run_id": logs.run_id} if logs.run_id else {},
        timestamp=True,
        json_ensure_ascii=True,
    )


class _EscapedFormatter(logging.Formatter):
    """Lower-case level names, none for a notice; control characters are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        if record.levelno == NOTICE:
            return printable(record.getMessage())
        record.levelname = record.levelname.lower()
        return printable_lines(super().format(record))


class Progress:
    """A bar on a terminal; elsewhere a plain line after some seconds, then every ``line_seconds``; nothing if quiet."""

    def __init__(
        self, total: int, unit: str = "rows", *, quiet: bool = False, line_seconds: float = _LINE_SECONDS
    ) -> None:
        self._line_seconds = line_seconds
        self._total, self._unit, self._quiet = total, unit, quiet
        self._done = self._counted = 0
        self._started = time.monotonic()
        self._next_line = self._started + min(line_seconds, _FIRST_LINE_SECONDS)
        self._bar: Any = None
        if not quiet and sys.stderr.isatty() and not _logs_are_json():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit=f" {unit}", smoothing=0.05, dynamic_ncols=True)

    def add(self, amount: int, *, counted: bool = True) -> None:
        """Add ``amount``; work of an earlier start is not ``counted`` for the speed."""
        self._done += amount
        if self._bar is not None:
            if not counted:
                self._bar.initial += amount
            self._bar.update(amount)
            return
        self._counted += amount if counted else 0
        now = time.monotonic()
        if not self._quiet and now >= self._next_line:
            self._next_line = now + self._line_seconds
            facts = {"event": "progress", "done": self._done, "total": self._total}
            say(self._line(now), **facts)

    def _line(self, now: float) -> str:
        speed = self._counted / max(now - self._started, 1e-9)
        left = f", {(self._total - self._done) / speed:.0f} s left" if speed and self._total else ""
        return f"{self._done} of {self._total} {self._unit}, {speed:.1f} {self._unit}/s{left}"

    def close(self) -> None:
        """Close the bar, leaving it on the screen."""
        if self._bar is not None:
            self._bar.close()


ProgressFactory = Callable[[int], Progress]
