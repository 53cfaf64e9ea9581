"""The interface of a backend."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from batchscore.records import MicroBatch

PLAIN = ("transformers", "fresh")
"""Names of the backends that run transformers' own model."""


class OutOfDeviceMemoryError(Exception):
    """A micro-batch did not fit the device; fewer rows may."""


class Backend(Protocol):
    """A model loaded on a device in a precision."""

    name: str
    """Its key in ``BACKENDS``."""
    device: str
    precision: str
    rows_are_alone: bool
    """Whether the logits of a row are the same bits whatever rows are beside it, as far as is known."""

    def logits(self, batch: MicroBatch) -> NDArray[np.float32]:
        """Logits ``[b, C]`` float32 of one micro-batch.

        Raises:
            OutOfDeviceMemoryError: it does not fit.
        """

    def one_core_each(self) -> AbstractContextManager[Callable[[], None]]:
        """Inside the context each thread that calls ``logits`` uses one core; yields a function for threads to call first."""

    def release(self) -> None:
        """Free device memory beyond the weights, after running out of it."""
