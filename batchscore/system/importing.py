"""Import heavy libraries in a background thread.

Reading inputs, computing and writing leave a second core and much of the interpreter's time idle, and torch and cleanlab
take seconds to import. Code that needs a library imports it as usual, and waits only for the rest.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator

__all__ = ["imports_ahead", "installed_version"]
_LIBRARIES = {"torch": "lib/libtorch_cpu.so"}
"""Shared libraries of packages that take long to load."""


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
                _load_library(name.partition(".")[0])
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


@functools.cache
def _load_library(package: str) -> None:
    """Load the shared library of a package that is not imported yet, so that its import finds it loaded.

    An import holds the interpreter while it loads a library: on a busy machine seconds in which no other thread can run, not
    the one that waits for signals either. A call of ``dlopen`` from outside holds nothing. Where it fails, nothing is lost.
    """
    library = _LIBRARIES.get(package)
    if library is None or package in sys.modules:
        return
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        load = ctypes.CDLL(None).dlopen
        load.argtypes, load.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
        load(os.fsencode(f"{folder}/{library}"), os.RTLD_NOW)
