"""How many processor cores this process may use."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(cpus: Path = _CPUS, quota: Path = _QUOTA) -> int:
    """Physical cores that the scheduler may put this process on, at most as many as its control group may use at a time.

    Two hardware threads of one core share its units for products of matrices, so they count as one. At least 1.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = {_siblings(cpus, cpu) for cpu in allowed}
    return max(1, min(len(cores), _quota(quota)))


def _siblings(cpus: Path, cpu: int) -> str:
    """What names the core of a hardware thread; the thread's own number where the kernel does not tell."""
    try:
        return (cpus / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quota(path: Path) -> int:
    """Cores that a control group (version 2) grants, rounded up."""
    with contextlib.suppress(OSError, ValueError):
        granted, _, period = path.read_text().partition(" ")
        return math.ceil(int(granted) / int(period))
    return os.cpu_count() or 1
