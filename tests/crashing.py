"""A run in a child process that is killed, or whose disk fails, at a chosen step.

A step is anything that leaves a trace below the run folder: opening a file for writing, syncing, renaming, making or
removing something. The interpreter tells of them itself (audit events), whichever library takes them.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audited_writes import opened_path, path_below

from batchscore.errors import BatchscoreError

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
KILLED = -signal.SIGKILL


@dataclass
class Fault:
    """What happens at step ``at`` (from 1) of those below ``folder``."""

    folder: Path
    at: int = 0
    """0 is never."""
    kind: str = "kill"
    """``kill``; ``power`` (half of what was not synced is lost too); ``full`` (the disk, from here on); ``read`` (one
    file cannot be opened for reading, a step is then such an opening)."""
    error: int = errno.ENOSPC
    steps: list[str] = field(default_factory=list)
    durable: dict[str, int] = field(default_factory=dict)
    """Bytes that are safe of each file that was opened for writing."""

    def install(self) -> None:
        """From now on, in this process, for good."""
        fsync = os.fsync

        def watched(descriptor: int) -> None:
            path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
            self._step("fsync", path)
            fsync(descriptor)
            if path in self.durable:
                self.durable[path] = os.fstat(descriptor).st_size

        os.fsync = watched  # type: ignore[assignment]
        sys.addaudithook(self._hear)

    def _hear(self, event: str, facts: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(facts[0], str | bytes | os.PathLike):
            path, flags = str(opened_path(facts[0], sys._getframe(1))[0]), facts[2]
            if flags & WRITING:
                self._step("open", path)
                if self._is_below(path):
                    self.durable[path] = size(path)
            elif self.kind == "read" and not flags & os.O_DIRECTORY:
                self._step("read", path)
        elif event == "os.rename":
            source, target = (str(path_below(facts[2 + k], facts[k])) for k in (0, 1))
            self._step("rename", target)
            if source in self.durable:
                self.durable[target] = self.durable.pop(source)
        elif event in {"os.mkdir", "os.remove", "os.rmdir"}:
            self._step(event[3:], str(path_below(facts[-1], facts[0])))

    def _is_below(self, path: str) -> bool:
        return Path(path).is_relative_to(self.folder)

    def _step(self, what: str, path: str) -> None:
        if (what == "read") != (self.kind == "read") or not self._is_below(path):
            return
        self.steps.append(f"{what} {path}")
        if self.kind in {"kill", "power"} and len(self.steps) == self.at:
            if self.kind == "power":
                self._lose()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "read" and len(self.steps) == self.at:
            raise OSError(self.error, os.strerror(self.error), path)
        if self.kind == "full" and self.at and len(self.steps) >= self.at and what not in {"remove", "rmdir"}:
            raise OSError(self.error, os.strerror(self.error), path)

    def _lose(self) -> None:
        for path, safe in list(self.durable.items()):  # other threads open files meanwhile
            if size(path) > safe:
                os.truncate(path, safe + (size(path) - safe) // 2)


def size(path: str) -> int:
    """Bytes of a file, 0 if there is none."""
    return Path(path).stat().st_size if Path(path).exists() else 0


def in_child(work: Callable[[], object], fault: Fault | None = None, most_bytes: int | None = None) -> int:
    """Run ``work`` in a child and give its exit code, that of a signal negative; 1 is a fault of the program.

    ``most_bytes``: no file may grow beyond, as on a disk that is full (``EFBIG`` then).
    """
    if (child := os.fork()) == 0:
        try:
            if fault is not None:
                fault.install()
            if most_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
            work()
        except BatchscoreError as error:
            os.write(2, f"{error}\n".encode())
            os._exit(error.exit_code)
        except BaseException:  # noqa: BLE001 - it is the end of the process
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
