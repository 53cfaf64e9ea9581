"""The shards that are staged, entered in a run's journal in groups: one sync of the folder and one of the journal for each.

What a run has said to be done outlives a kill of the machine. It is said at the latest a second after a shard was staged, or when
2,048 rows are.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from batchscore.errors import BatchscoreError, storage_error
from batchscore.system.storage import sync_folder

if TYPE_CHECKING:
    from types import TracebackType

    from batchscore.records import Shard
    from batchscore.system.journal import Journal
    from batchscore.system.own_paths import OwnPath

_SECONDS = 1.0
_ROWS = 2048


class DoneShards:
    """Enters shards in the journal; a context manager, which enters at its end what is left.

    May be told of shards by one thread while another, its own, enters what has waited for a second.
    """

    def __init__(self, journal: Journal, folder: OwnPath) -> None:
        """``folder`` is where the shards' files are."""
        self._journal, self._folder = journal, folder
        self._lock = threading.RLock()
        self._waiting: list[tuple[Mapping[str, Any], Shard, Callable[[Shard], None]]] = []
        self._entered = -_SECONDS
        self._timer: threading.Timer | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> DoneShards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with contextlib.nullcontext() if error is None else contextlib.suppress(BatchscoreError):
            self.flush()

    def add(self, entry: Mapping[str, Any], shard: Shard, then: Callable[[Shard], None]) -> None:
        """A shard is staged; ``then`` is called with it when its ``entry`` is in the journal.

        Raises:
            StorageError: the journal cannot be written, now or for shards before.
        """
        with self._lock:
            self._waiting.append((entry, shard, then))
            left = self._entered + _SECONDS - time.monotonic()
            if left <= 0 or sum(each.rows for _, each, _ in self._waiting) >= _ROWS:
                self.flush()
            elif self._timer is None:
                self._timer = threading.Timer(left, self._enter_in_time)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Enter what is left.

        Raises:
            StorageError: the journal cannot be written, now or for shards before.
        """
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._error is not None:
                raise self._error
            self._enter()

    def _enter_in_time(self) -> None:
        with self._lock:
            self._timer = None
            try:
                self._enter()
            except BaseException as error:  # noqa: BLE001 - raised by the next call
                self._error = error

    def _enter(self) -> None:
        if not self._waiting:
            return
        try:
            sync_folder(self._folder)
        except OSError as error:
            raise storage_error("Writing", self._folder, error) from error
        self._journal.extend([entry for entry, _, _ in self._waiting], is_durable=True)
        self._entered = time.monotonic()
        done, self._waiting = self._waiting, []
        for _, shard, then in done:
            then(shard)
