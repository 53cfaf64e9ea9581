"""Processes beside this one that help with work which is otherwise done here.

Each is told once how to work, and then handed task after task. Where a process says nothing of a task, because something stood
in the way or because it died, the caller does that task itself: so results, errors and their order are the same whatever the
number of processes, and one that dies costs time only. They are started by a command of their own, so that the program
that called is not imported a second time, and they end with this process, however that ends.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import gc
import itertools
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from batchscore.system.memory import rare_collections

MOST = 16
"""Processes beside this one at most."""
_PR_SET_PDEATHSIG = 1
_COMMAND = "import sys; sys.path[:] = {path!r}; from batchscore.system.helpers import serve; serve({fd})"


class Helpers:
    """Some processes; the caller closes them."""

    def __init__(self, count: int, make: Callable[..., Callable[[Any], Any]], *told: Any) -> None:
        """``make`` makes of ``told``, in each process, the function that does a task; all of them can be pickled."""
        self._running: dict[Connection, subprocess.Popen[bytes]] = {}
        try:
            for _ in range(count):
                self._start()
            for pipe in self._running:
                pipe.send((make, told))
        except OSError:  # the machine has no room for them: what they do not do is done here
            self.close()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = _COMMAND.format(path=sys.path, fd=theirs.fileno())
            process = subprocess.Popen(  # noqa: S603 - our own interpreter
                [sys.executable, "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # what the keyboard sends comes to us, and we end them
            )
        self._running[Connection(ours.detach())] = process

    @property
    def count(self) -> int:
        """How many there are still."""
        return len(self._running)

    def results(self, tasks: Iterable[Any], ahead: int | None = None) -> Iterator[Any]:
        """What came of each task, in order; None where a process said nothing.

        Tasks are made as processes are free for them, and one while they are at work. ``ahead`` is how many per process may be done
        before an earlier one is taken.
        """
        given, ready = enumerate(tasks), collections.deque[tuple[int, Any]]()
        done: dict[int, Any] = {}
        at_work: dict[Connection, int] = {}
        for place in itertools.count():
            while place not in done:
                most = math.inf if ahead is None else place + ahead * max(len(self._running), 1)
                for pipe in [each for each in self._running if each not in at_work]:
                    if _has_next(given, ready, most):
                        self._hand_out(pipe, *ready.popleft(), at_work, done)
                has_more = _has_next(given, ready, most)
                if place not in done and not at_work:  # no process is left, or no task
                    if not has_more:
                        return
                    done[ready.popleft()[0]] = None
                self._take(at_work, done)
            yield done.pop(place)

    def _hand_out(
        self, pipe: Connection, place: int, task: Any, at_work: dict[Connection, int], done: dict[int, Any]
    ) -> None:
        at_work[pipe] = place
        try:
            pipe.send(task)
        except OSError:
            self._give_up(pipe, at_work, done)

    def _take(self, at_work: dict[Connection, int], done: dict[int, Any]) -> None:
        """Wait until a process answers, or dies."""
        for pipe in wait(list(at_work)) if at_work else ():
            assert isinstance(pipe, Connection)  # noqa: S101 - we wait for nothing else
            try:
                with _without_collections():
                    done[at_work[pipe]] = pipe.recv()
                del at_work[pipe]
            except (EOFError, OSError, pickle.UnpicklingError):
                self._give_up(pipe, at_work, done)

    def _give_up(self, pipe: Connection, at_work: dict[Connection, int], done: dict[int, Any]) -> None:
        """Go on without a process: its task is done by the caller."""
        done[at_work.pop(pipe)] = None
        _end(pipe, self._running.pop(pipe))

    def kill(self) -> None:
        """Let :meth:`results`, in another thread, come to its end at once, with None for what is not done."""
        for process in list(self._running.values()):
            process.kill()

    def close(self) -> None:
        """End the processes, whatever they do."""
        while self._running:
            _end(*self._running.popitem())


def _has_next(
    given: Iterator[tuple[int, Any]], ready: collections.deque[tuple[int, Any]], most: float
) -> bool:
    """Whether a task before the ``most``-th is ready, made now if there is none."""
    if not ready:
        ready.extend(itertools.islice(given, 1))
    return bool(ready) and ready[0][0] < most


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Within the block nothing is searched for cycles: thousands of objects come at once, and all of them stay."""
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_on:
            gc.enable()


def _end(pipe: Connection, process: subprocess.Popen[bytes]) -> None:
    pipe.close()
    process.kill()
    process.wait()


# ---------------------------------------------------------------------------------------------- in such a process


def serve(descriptor: int) -> None:
    """Do tasks until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.set_inheritable(descriptor, False)
    with contextlib.suppress(EOFError, OSError), Connection(descriptor) as pipe, rare_collections():
        make, told = pipe.recv()
        work = make(*told)
        while True:
            pipe.send(work(pipe.recv()))
