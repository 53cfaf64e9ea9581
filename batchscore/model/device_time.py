"""How long a device had nothing to do: what faster reading and tokenising would save."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator


class DeviceTime:
    """The seconds before each micro-batch in which the device had none, from when this is made.

    A device may have several micro-batches at once, given to it by several threads: it waits only while it has none. What it
    idles after the last one is no waiting.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy, self._idle_since, self._waited = 0, time.monotonic(), 0.0

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Inside the block the device has a micro-batch."""
        with self._lock:
            if not self._busy:
                self._waited += time.monotonic() - self._idle_since
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
                self._idle_since = time.monotonic()

    def waited(self) -> float:
        """Seconds that it waited since this was last asked."""
        with self._lock:
            waited, self._waited = self._waited, 0.0
        return waited
