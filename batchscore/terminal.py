"""What a person or a scheduler sees: errors as messages with exit codes, signals, progress and logs.

Data goes to stdout, talk to stderr. This is the only place that turns an error into a message and an exit.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import click

from batchscore.errors import BatchscoreError, InterruptedRunError, printable

_LINE_SECONDS = 30.0


@contextlib.contextmanager
def boundary(as_json: bool = False) -> Iterator[None]:
    """Turn errors into a message on stderr and an exit code; other exceptions are faults and keep their traceback."""
    try:
        with _signals():
            yield
    except BatchscoreError as error:
        say(f"error: {error}")
        if as_json:
            summary = {"status": "error", "exit_code": error.exit_code, "error": str(error)}
            click.echo(json.dumps(summary, ensure_ascii=False))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - or Python complains at exit
        sys.exit(74)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM and SIGINT end the command with 143 and 130."""

    def stop(number: int, _frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        name = signal.Signals(number).name
        raise InterruptedRunError(f"stopped by {name}; run the same command again to go on", number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(text: str) -> None:
    """One line of talk."""
    click.echo(text, err=True)


def set_up_logs(verbosity: int) -> None:
    """-1 is quiet (errors alone), 0 warnings and progress, 1 information, 2 everything."""
    level = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_EscapedFormatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("batchscore")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


class _EscapedFormatter(logging.Formatter):
    """Lower-case level names; control characters of a message become escapes."""

    def format(self, record: logging.LogRecord) -> str:
        record.levelname = record.levelname.lower()
        return "\n".join(printable(line) for line in super().format(record).split("\n"))


class Progress:
    """A bar on a terminal; elsewhere one plain line every 30 seconds; nothing when quiet."""

    def __init__(self, total: int, unit: str = "rows", *, quiet: bool = False) -> None:
        self._total, self._unit, self._quiet = total, unit, quiet
        self._done = self._counted = 0
        self._started = self._said = time.monotonic()
        self._bar: Any = None
        if not quiet and sys.stderr.isatty():
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
        if not self._quiet and now - self._said >= _LINE_SECONDS:
            self._said = now
            say(self._line(now))

    def _line(self, now: float) -> str:
        speed = self._counted / max(now - self._started, 1e-9)
        left = f", {(self._total - self._done) / speed:.0f} s left" if speed and self._total else ""
        return f"{self._done} of {self._total} {self._unit}, {speed:.1f} {self._unit}/s{left}"

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


ProgressFactory = Callable[[int], Progress]
