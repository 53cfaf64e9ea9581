"""How much memory this process may still take, and what is said where there is none."""

from __future__ import annotations

import contextlib
import gc
import resource
from collections.abc import Iterator
from pathlib import Path

from batchscore.errors import StorageError

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_V2 = ("memory.max", "memory.current", ("file",))
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_cache", "cache"))
"""Files of a cgroup with its limit and what is used, and the names of the cached files in ``memory.stat``."""
ROOM = 3 << 30
"""Bytes in which any file can be scored, as no row is larger than ``--max-row-bytes``: about twice what was measured."""
_RARELY = (20_000, 20, 20)
NO_MEMORY = (
    "There was not enough memory. Give it more, or have less else run beside it, and run the same command again: what was "
    "finished is kept."
)


def most_used() -> int:
    """Bytes of memory that this process has used at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@contextlib.contextmanager
def rare_collections() -> Iterator[None]:
    """Within the block cycles are searched for after 20,000 new objects, not 700: a plan of many files has a million that stay."""
    before = gc.get_threshold()
    if before == _RARELY:  # another run in this process puts back what was before both
        yield
        return
    gc.set_threshold(*_RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def has_room(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP, own_cgroups: Path = _OWN_CGROUPS) -> bool:
    """Whether there is so much memory that a process which lacks some has itself to blame; True if nobody says."""
    free = room(meminfo, cgroup, own_cgroups)
    return free is None or free >= ROOM


def room(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP, own_cgroups: Path = _OWN_CGROUPS) -> int | None:
    """Bytes that may still be taken; None if nobody says."""
    free = [_available(meminfo), *_left_in_cgroups(own_cgroups, cgroup), *_limits()]
    return min((each for each in free if each is not None), default=None)


def _available(meminfo: Path) -> int | None:
    """Bytes that the kernel says are available."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = meminfo.read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) << 10
    return None


def _left_in_cgroups(own_cgroups: Path, mount: Path) -> Iterator[int]:
    """Bytes that each cgroup around the process has left; a unit of systemd is limited by its slice too."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = own_cgroups.read_text("utf-8", "surrogateescape").splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # v2: "0::/path"
            yield from _left_on_the_way(mount, path, *_V2)
        elif "memory" in controllers.split(","):  # v1: "4:memory:/path"
            yield from _left_on_the_way(mount / "memory", path, *_V1)


def _left_on_the_way(
    mount: Path, path: str, limit: str, usage: str, cached: tuple[str, ...]
) -> Iterator[int]:
    """Bytes that the cgroup of a path and all above it have left, cached files not counted."""
    steps = path.strip("/").split("/")
    if ".." in steps or not mount.joinpath(*steps).is_dir():
        steps = []  # a container may see the path of its host, but below the mount only what is its own
    for count in range(len(steps) + 1):
        folder = mount.joinpath(*steps[:count])
        with contextlib.suppress(
            OSError, ValueError
        ):  # v2 says "max" for no limit; v1 nearly 2**63, which is room
            most, used = (int((folder / name).read_text()) for name in (limit, usage))
            facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            yield most - used + int(next((facts[name] for name in cached if name in facts), 0))


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
