"""The GPUs of this machine, and which of them a run takes: all of one kind, so that an answer does not depend on which computed it."""

from __future__ import annotations

import collections
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_VISIBLE = "CUDA_VISIBLE_DEVICES"


class Gpu(NamedTuple):
    """A GPU that this process may use."""

    place: int
    """Among those that it may use."""
    kind: str
    """Its model and memory."""


def usable_gpus() -> list[Gpu]:
    """The GPUs that torch sees; none without CUDA."""
    import torch

    if not torch.cuda.is_available() or torch.cuda.device_count() < 2:
        return [Gpu(0, "")] if torch.cuda.is_available() else []
    found = []
    for place in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(place)
        found.append(Gpu(place, f"{facts.name} with {round(facts.total_memory / 2**30)} GiB"))
    return found


def of_one_kind(gpus: Sequence[Gpu]) -> list[Gpu]:
    """Those of the kind of which there are most; of several, that of the first one.

    >>> of_one_kind([Gpu(0, "T4"), Gpu(1, "H100"), Gpu(2, "H100")])
    [Gpu(place=1, kind='H100'), Gpu(place=2, kind='H100')]
    """
    counts = collections.Counter(gpu.kind for gpu in gpus)
    most = max(counts.values(), default=0)
    chosen = next((gpu.kind for gpu in gpus if counts[gpu.kind] == most), "")
    return [gpu for gpu in gpus if gpu.kind == chosen]


def alone(gpu: Gpu, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a process that is to see this GPU only, as ``cuda:0``.

    >>> alone(Gpu(1, "H100"), {"CUDA_VISIBLE_DEVICES": "4,GPU-5d"})
    {'CUDA_VISIBLE_DEVICES': 'GPU-5d'}
    """
    visible = [name.strip() for name in environment.get(_VISIBLE, "").split(",") if name.strip()]
    return {_VISIBLE: visible[gpu.place] if gpu.place < len(visible) else str(gpu.place)}
