"""How much memory this process may still take, and what is said where there is none."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

from batchscore.errors import StorageError

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
ROOM = 3 << 30
"""Bytes in which any file can be scored, as no row is larger than ``--max-row-bytes``: about twice what was measured."""
NO_MEMORY = (
    "There was not enough memory. Give it more, or have less else run beside it, and run the same command again: what was "
    "finished is kept."
)


def has_room(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> bool:
    """Whether there is so much memory that a process which lacks some has itself to blame; True if nobody says."""
    free = [_available(meminfo), _left_in_cgroup(cgroup), *_limits()]
    return min((each for each in free if each is not None), default=ROOM) >= ROOM


def _available(meminfo: Path) -> int | None:
    """Bytes that the kernel says are available."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = meminfo.read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) << 10
    return None


def _left_in_cgroup(cgroup: Path) -> int | None:
    """Bytes that a cgroup (v2) has left, cached files not counted."""
    with contextlib.suppress(OSError, ValueError):
        most, used = (int((cgroup / name).read_text()) for name in ("memory.max", "memory.current"))
        facts = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return most - used + int(facts.get("file", 0))
    return None


def _limits() -> list[int]:
    """The limits of the process on its address space and its data."""
    found = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return [limit for limit in found if limit != resource.RLIM_INFINITY]


@contextlib.contextmanager
def shortage_told() -> Iterator[None]:
    """Turn a lack of memory into an error with an exit code; Arrow's is a ``MemoryError`` too.

    Raises:
        StorageError: there was not enough.
    """
    try:
        yield
    except MemoryError as error:
        raise StorageError(NO_MEMORY) from error
