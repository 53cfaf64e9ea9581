"""How many processor cores this process may use."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(cpus: Path = _CPUS, quota: Path = _QUOTA) -> int:
    """Physical cores in the CPU affinity of this process, limited by its cgroup quota. At least 1.

    Two hardware threads of one core share its matmul units, so they count as one.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = {_siblings(cpus, cpu) for cpu in allowed}
    return max(1, min(len(cores), _quota(quota)))


def tokenising_threads(cores: int | None = None) -> int:
    """How many threads tokenise where the cores are not the device: one less than ``cores``, but of two both.

    The one that is left reads, stages and feeds the device, which takes about a tenth of what tokenising does.
    """
    cores = usable_cores() if cores is None else cores
    return min(cores, max(cores - 1, 2))


def _siblings(cpus: Path, cpu: int) -> str:
    """An id of the core of a hardware thread; the thread's own number if the kernel does not say."""
    try:
        return (cpus / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quota(path: Path) -> int:
    """Cores granted by a cgroup (v2), rounded up."""
    with contextlib.suppress(OSError, ValueError):
        granted, _, period = path.read_text().partition(" ")
        return math.ceil(int(granted) / int(period))
    return os.cpu_count() or 1
