"""Import heavy libraries in a background thread.

Reading inputs, computing and writing leave a second core and much of the interpreter's time idle, and torch and cleanlab
take seconds to import. Code that needs a library imports it as usual, and waits only for the rest.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import queue
import threading
from collections.abc import Callable, Iterator

__all__ = ["imports_ahead", "installed_version"]


@functools.cache
def installed_version(package: str) -> str:
    """The version of an installed package; looked up once, as that parses its whole description."""
    return importlib.metadata.version(package)


@contextlib.contextmanager
def imports_ahead() -> Iterator[Callable[..., None]]:
    """Yield a function that takes module names and returns at once; a thread imports them, one after the other.

    Leaving the block waits for the current import and drops the rest, so that nothing is half imported when the
    interpreter exits. A failed import is raised again where the module is needed.
    """
    requested: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def run() -> None:
        while (name := requested.get()) is not None and not stopped.is_set():
            with contextlib.suppress(Exception):
                importlib.import_module(name)

    def request(*names: str) -> None:
        for name in names:
            requested.put(name)

    thread = threading.Thread(target=run, name="imports", daemon=True)
    thread.start()
    try:
        yield request
    finally:
        stopped.set()
        requested.put(None)
        thread.join()
