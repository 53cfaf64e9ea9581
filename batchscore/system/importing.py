"""Heavy libraries imported by a thread while the program does something else.

Reading inputs, computing and writing leave a second core and much of the interpreter's time free, and torch, cleanlab
and the chart engine take seconds to import. Who needs a library imports it as ever, and waits only for what is left.
"""

from __future__ import annotations

import contextlib
import importlib
import queue
import threading
from collections.abc import Callable, Iterator

__all__ = ["imports_ahead"]


@contextlib.contextmanager
def imports_ahead() -> Iterator[Callable[..., None]]:
    """Give a function that takes names of modules and returns at once; a thread imports them, one after the other.

    Leaving the block waits for the module at hand and drops the rest, so that nothing is half imported when the
    interpreter ends. A module that cannot be imported says so where it is needed.
    """
    wanted: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def run() -> None:
        while (name := wanted.get()) is not None and not stopped.is_set():
            with contextlib.suppress(Exception):
                importlib.import_module(name)

    def want(*names: str) -> None:
        for name in names:
            wanted.put(name)

    thread = threading.Thread(target=run, name="imports", daemon=True)
    thread.start()
    try:
        yield want
    finally:
        stopped.set()
        wanted.put(None)
        thread.join()
