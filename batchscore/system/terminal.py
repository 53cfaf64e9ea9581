"""What a person or a scheduler sees: errors as messages with exit codes, signals, progress and logs.

Data goes to stdout, talk to stderr. This is the only place that turns an error into a message and an exit.
"""

from __future__ import annotations

import contextlib
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
from typing import Any, NamedTuple

import click

from batchscore.errors import BatchscoreError, InterruptedRunError, printable

_LINE_SECONDS = 30.0
_GRACE_SECONDS = 4.0
"""From a signal to the end of the process, at the most."""
_LONGEST_MESSAGE = 4000
"""Characters of an error's message."""
_STOPPING = (signal.SIGTERM, signal.SIGINT)
_AGAIN = "run the same command again to go on"


@contextlib.contextmanager
def boundary(as_json: bool = False, go_on: str = _AGAIN) -> Iterator[None]:
    """Turn errors into a message on stderr and an exit code; other exceptions are faults and keep their traceback.

    ``go_on`` is what to do after a signal has stopped the command.
    """
    try:
        with _signals(as_json, go_on):
            yield
    except (BatchscoreError, InterruptedRunError) as error:
        message, summary = _last_words(error, as_json)
        if _machines_read():
            _machine.error(_cut(str(error)), extra={"event": "error", "exit_code": error.exit_code})
        else:
            click.echo(message, err=True, nl=False)
        click.echo(summary, nl=False)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - or Python complains at exit
        sys.exit(74)


def _cut(message: str) -> str:
    """A message without its middle, where it is so long that something must have got into it."""
    if len(message) <= _LONGEST_MESSAGE:
        return message
    return f"{message[: _LONGEST_MESSAGE // 2]} […] {message[-_LONGEST_MESSAGE // 2 :]}"


def _last_words(error: BatchscoreError | InterruptedRunError, as_json: bool) -> tuple[str, str]:
    """What goes to stderr, and what to stdout."""
    done = error.summary if isinstance(error, BatchscoreError) and error.summary else {"status": "error"}
    message = _cut(str(error))
    summary = {**done, "exit_code": error.exit_code, "error": message}
    return f"error: {message}\n", f"{json.dumps(summary, ensure_ascii=False)}\n" if as_json else ""


@contextlib.contextmanager
def _signals(as_json: bool, go_on: str) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the command with 143 and 130.

    Python hears a signal between two of its own steps, which may be long after it came (a forward pass, a large write),
    and an exception that is raised in a finaliser is dropped. So the command is also watched: what has not ended
    ``_GRACE_SECONDS`` after the signal is ended at once, as a kill would. The folder goes on from there just so.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        heard.append(number)
        raise _interrupted(number, go_on)

    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in _STOPPING}
    with _watched(as_json, go_on):
        for number in before:
            signal.signal(number, stop)
        try:
            yield
        except KeyboardInterrupt:  # a library may make this of our exception
            if not heard:
                raise
            raise _interrupted(heard[0], go_on) from None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _interrupted(number: int, go_on: str) -> InterruptedRunError:
    name = signal.Signals(number).name
    return InterruptedRunError(f"stopped by {name}; {go_on}", number)


@contextlib.contextmanager
def _watched(as_json: bool, go_on: str) -> Iterator[None]:
    """Have a thread told of each signal as it comes (Python's wake-up descriptor), while the block runs."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    threading.Thread(target=_watch, args=(told, as_json, go_on), name="signals", daemon=True).start()
    before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(tell)


def _watch(told: int, as_json: bool, go_on: str) -> None:
    """Wait for a signal that stops, then for the end of the block; where that does not come, end the process."""
    with open(told, "rb", buffering=0) as pipe:
        while number := pipe.read(1):
            if number[0] in _STOPPING:
                break
        else:
            return
        ended = time.monotonic() + _GRACE_SECONDS
        while (left := ended - time.monotonic()) > 0:
            if select.select([pipe], [], [], left)[0] and not pipe.read(64):
                return
    error = _interrupted(number[0], go_on)
    for descriptor, text in zip((2, 1), _last_words(error, as_json), strict=True):
        with contextlib.suppress(OSError):
            os.write(descriptor, text.encode())
    os._exit(error.exit_code)


def say(text: str, **facts: Any) -> None:
    """One line of talk; for machines an event with the ``facts``."""
    if _machines_read():
        _machine.info(text, extra=facts)
    else:
        click.echo(text, err=True)


class Logs(NamedTuple):
    """How a command tells what happens."""

    verbosity: int = 0
    """-1 is quiet (errors alone), 0 notices, warnings and progress, 1 information, 2 everything."""
    format: str = "text"
    """``text`` for people, ``json`` for machines: one object a line, with time, level, message and ``run_id``."""
    run_id: str = ""


PLAIN = Logs()
NOTICE = 25
"""The level of what everybody should know, unless they asked for quiet: less than a warning."""
logging.addLevelName(NOTICE, "NOTICE")
_machine = logging.getLogger("batchscore.talk")
_machine.disabled = True  # until machines read


def _machines_read() -> bool:
    """Whether what is said goes to machines, as :func:`set_up_logs` was told."""
    return not _machine.disabled


def set_up_logs(logs: Logs) -> None:
    """Have the program's own loggers write to stderr, and :func:`say` with them if it is machines that read."""
    levels = {-1: logging.ERROR, 0: NOTICE, 1: logging.INFO}
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(logs))
    logger = logging.getLogger("batchscore")
    logger.handlers[:] = [handler]
    logger.setLevel(levels.get(logs.verbosity, logging.DEBUG))
    logger.propagate = False
    _machine.disabled = logs.format != "json"
    _machine.handlers[:] = [handler]
    _machine.setLevel(logging.ERROR if logs.verbosity < 0 else logging.INFO)
    _machine.propagate = False


def _formatter(logs: Logs) -> logging.Formatter:
    if logs.format != "json":
        return _EscapedFormatter("%(levelname)s: %(message)s")
    from pythonjsonlogger.json import JsonFormatter

    return JsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger"},
        static_fields={"run_id": logs.run_id} if logs.run_id else {},
        timestamp=True,
        json_ensure_ascii=True,
    )


class _EscapedFormatter(logging.Formatter):
    """Lower-case level names, none of a notice; control characters of a message become escapes."""

    def format(self, record: logging.LogRecord) -> str:
        if record.levelno == NOTICE:
            return printable(record.getMessage())
        record.levelname = record.levelname.lower()
        return "\n".join(printable(line) for line in super().format(record).split("\n"))


class Progress:
    """A bar on a terminal; elsewhere one plain line every 30 seconds (or another time); nothing when quiet."""

    def __init__(
        self, total: int, unit: str = "rows", *, quiet: bool = False, line_seconds: float = _LINE_SECONDS
    ) -> None:
        self._line_seconds = line_seconds
        self._total, self._unit, self._quiet = total, unit, quiet
        self._done = self._counted = 0
        self._started = self._said = time.monotonic()
        self._bar: Any = None
        if not quiet and sys.stderr.isatty() and not _machines_read():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit=f" {unit}", smoothing=0.05, dynamic_ncols=True)

    def add(self, amount: int, *, counted: bool = True) -> None:
        """Note ``amount`` more; what was done before this start is not ``counted`` for the speed."""
        self._done += amount
        if self._bar is not None:
            if not counted:
                self._bar.initial += amount
            self._bar.update(amount)
            return
        self._counted += amount if counted else 0
        now = time.monotonic()
        if not self._quiet and now - self._said >= self._line_seconds:
            self._said = now
            facts = {"event": "progress", "done": self._done, "total": self._total}
            say(self._line(now), **facts)

    def _line(self, now: float) -> str:
        speed = self._counted / max(now - self._started, 1e-9)
        left = f", {(self._total - self._done) / speed:.0f} s left" if speed and self._total else ""
        return f"{self._done} of {self._total} {self._unit}, {speed:.1f} {self._unit}/s{left}"

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


ProgressFactory = Callable[[int], Progress]
