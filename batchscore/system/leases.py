"""The lock of a place in a bucket: a key that one holder creates, and renews while it works.

The lock of a folder goes with its process. A bucket knows no processes: the holder writes the key anew from time to time, and one who has
not done so for as long as the lease lasts is taken for dead. What that weakens: a holder that was paused for longer than its lease, and
wakes in the midst of a request, sends it all the same. So each of its writes is conditional on what it saw, and it looks at its lease
before each; whoever lost it ends. Time is the store's own, so clocks of machines do not matter.

On one machine a holder that is gone is known at once, by its process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

from batchscore.errors import BatchscoreError, BusyError, OutputError, printable
from batchscore.system.documents import DocumentError, checked, parse_json
from batchscore.system.stores import ChangedError, Store, Stored, Version, bytes_of

_LOG = logging.getLogger(__name__)
LEASE_SECONDS = 60.0
"""For how long a lease is held without being renewed."""
_RENEWALS = 4
"""How often it is renewed in that time."""
_PATIENCE = 2.0
"""Seconds for which a renewal under way is waited for at the end."""
_LOCK = {"holder": str, "pid": int, "host": str, "machine": str, "began": str, "seconds": float, "beat": int}
_LOCK_BYTES = 4096
_PROBE = "probe-"


class Lease:
    """The exclusive hold of a place in a store, for as long as the block lasts."""

    def __init__(self, store: Store, folder: str) -> None:
        """``folder`` is where the key lies, below the store's place."""
        self._store, self._folder = store, folder
        self.name = f"{folder}/lock.json"
        self._holder, self._seconds, self._beat = secrets.token_hex(16), LEASE_SECONDS, 0
        self._version: Version | None = None
        self._until = 0.0
        self._is_lost = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        """Take the lease.

        Raises:
            BusyError: another one holds it; the message names it.
            OutputError: the store keeps no conditions, so that two could hold it.
            StorageError: the store fails.
        """
        now = self._probe()
        begun = _seconds()
        try:
            self._version = self._store.create(self.name, self._note())
        except FileExistsError:
            begun = _seconds()
            self._version = self._take_over(now)
        self._until = begun + self._seconds
        self._forget_probes(now)
        self._thread = threading.Thread(target=self._renew_until_ended, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back, if it is held still."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE)
        with contextlib.suppress(BatchscoreError, OSError):
            if not self._is_lost and _seconds() < self._until - self._seconds / _RENEWALS:
                self._store.delete(self.name)

    def assert_held(self) -> None:
        """Raise :class:`BusyError` if another one may have it by now: called before each write that it protects."""
        if self._is_lost or _seconds() >= self._until:
            with contextlib.suppress(BatchscoreError, OSError):
                if not self._is_lost:
                    self._renew()  # nobody took it, where this succeeds
        if self._is_lost or _seconds() >= self._until:
            raise BusyError(
                f"The lease of {printable(self._store)} was not renewed for {self._seconds:g} s, and another run may hold it by now. "
                "Run the same command again: what was finished is kept."
            )

    def _probe(self) -> Stored:
        """See that the store keeps conditions; returns what was written just now, by the store's clock."""
        name = f"{self._folder}/{_PROBE}{self._holder}"
        first = self._store.create(name, self._note())
        try:
            if not (
                _is_refused(self._store, name, first) and _is_replaced(self._store, name, first, self._note())
            ):
                raise OutputError(
                    f"{printable(self._store)}: this store lets two create one key, or replace what has changed. No lock holds "
                    "there, so two runs could mix. Name a folder, or a bucket of a store that honours If-None-Match and If-Match."
                )
            return next(each for each in self._store.list(self._folder) if each.name == name)
        finally:
            self._store.delete(name)

    def _forget_probes(self, now: Stored) -> None:
        """Remove what starts that were killed while they probed have left."""
        with contextlib.suppress(BatchscoreError, OSError):
            for each in self._store.list(self._folder):
                if not each.name.startswith(f"{self._folder}/{_PROBE}"):
                    continue
                holder = self._holder_of(each)
                age = (now.modified - each.modified).total_seconds()
                if age > self._seconds or (holder and _is_gone(holder)):
                    self._store.delete(each.name)

    def _take_over(self, now: Stored) -> Version:
        found = next((each for each in self._store.list(self._folder) if each.name == self.name), None)
        if found is None:  # given back meanwhile
            raise BusyError(
                f"Another run has just left {printable(self._store)}. Run the same command again."
            )
        holder = self._holder_of(found)
        age = (now.modified - found.modified).total_seconds()
        seconds = holder["seconds"] if holder else self._seconds
        if age <= seconds and not (holder and _is_gone(holder)):
            who = (
                f"process {holder['pid']} on {printable(holder['host'])}"
                if holder
                else "its key is damaged, so by whom is not known"
            )
            raise BusyError(
                f"Another run holds {printable(self._store)} ({who}). Wait for it, or name another --output. If it was killed, "
                f"its lease ends within {max(seconds - age, 0) + 1:.0f} s."
            )
        _LOG.info("%s: taken over from a run that has gone", printable(self._store))
        try:
            return self._store.replace(self.name, self._note(), found.version)
        except ChangedError:
            raise BusyError(
                f"Another run has just taken {printable(self._store)}. Wait for it, or name another --output."
            ) from None

    def _holder_of(self, found: Stored) -> dict[str, Any] | None:
        """Who holds it; None if the key is damaged."""
        try:
            if found.size > _LOCK_BYTES:
                return None
            holder: dict[str, Any] = checked(parse_json(bytes_of(self._store, found.name)), _LOCK)
            return holder
        except (DocumentError, FileNotFoundError):
            return None

    def _note(self) -> bytes:
        self._beat += 1
        facts = {
            "holder": self._holder,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "machine": _machine(),
            "began": _beginning_of(os.getpid()),
            "seconds": float(self._seconds),
            "beat": self._beat,
        }
        return json.dumps(facts).encode()

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(self._seconds / _RENEWALS) and not self._is_lost:
            with contextlib.suppress(BatchscoreError, OSError):  # tried again, until the lease is over
                self._renew()

    def _renew(self) -> None:
        with self._lock:
            begun = _seconds()
            try:
                self._version = self._replaced()
                self._until = begun + self._seconds
            except (ChangedError, FileNotFoundError):
                self._is_lost = True
                raise

    def _replaced(self) -> Version:
        assert self._version is not None  # noqa: S101 - set when it was taken
        try:
            return self._store.replace(self.name, self._note(), self._version)
        except ChangedError:  # by an earlier beat of ours, whose answer was lost?
            with self._store.open(self.name) as file:
                is_ours = self._holder.encode() in file.read(_LOCK_BYTES)
            found = next((each for each in self._store.list(self._folder) if each.name == self.name), None)
            if not is_ours or found is None:
                raise
            return self._store.replace(self.name, self._note(), found.version)


def _is_refused(store: Store, name: str, first: Version) -> bool:
    """Whether other bytes are not created in the place of what is there, nor put in that of a version that never was."""
    try:
        store.create(name, b"2")
        return False
    except FileExistsError:
        pass
    try:
        store.replace(name, b"3", Version('"00000000000000000000000000000000"', first.number and "1"))
        return False
    except ChangedError:
        return True


def _is_replaced(store: Store, name: str, first: Version, note: bytes) -> bool:
    try:
        store.replace(name, note, first)
        return True
    except ChangedError:
        return False


def _seconds() -> float:
    """Seconds that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _machine() -> str:
    """The name of this machine, and the space of its process numbers, of which each container has its own; empty if the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116 - it is no file
    except OSError:
        return ""


def _beginning_of(pid: int) -> str:
    """When a process began, as the system counts it; empty if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine, and is none any more."""
    is_here = bool(holder["machine"]) and holder["machine"] == _machine() and bool(holder["began"])
    return is_here and _beginning_of(holder["pid"]) != holder["began"]
