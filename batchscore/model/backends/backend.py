"""What a backend is, to those that implement one and those that use it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from batchscore.records import MicroBatch

PLAIN = ("transformers", "fresh")
"""Names of the backends by which transformers computes."""


class OutOfDeviceMemoryError(Exception):
    """A micro-batch did not fit the device; fewer rows may."""


class Backend(Protocol):
    """A loaded model on a device, at a precision."""

    name: str
    """What it is called in ``BACKENDS``."""
    device: str
    precision: str

    def logits(self, batch: MicroBatch) -> NDArray[np.float32]:
        """Logits ``[b, C]`` float32 of one micro-batch.

        Raises:
            OutOfDeviceMemoryError: it does not fit.
        """

    def one_core_each(self) -> AbstractContextManager[Callable[[], None]]:
        """While it is entered, each thread that calls ``logits`` computes on one core; gives what such a thread calls first."""

    def release(self) -> None:
        """Give back what the device holds beyond the weights, after it ran out of memory."""
