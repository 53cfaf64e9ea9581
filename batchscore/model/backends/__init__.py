"""Token ids in, logits out: a backend is one class with ``logits`` and ``release``, and one entry in ``BACKENDS``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from batchscore.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from batchscore.model.bundle import Bundle
    from batchscore.records import MicroBatch

__all__ = ["BACKENDS", "PLAIN", "Backend", "BackendSpec", "OutOfDeviceMemoryError", "open_backend"]


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


@dataclasses.dataclass(frozen=True, slots=True)
class BackendSpec:
    """What a backend is opened again from, on whatever machine."""

    name: str
    device: str
    precision: str

    @classmethod
    def of(cls, backend: Backend) -> BackendSpec:
        """That of a loaded one."""
        return cls(**{field.name: getattr(backend, field.name) for field in dataclasses.fields(cls)})

    def open(self, bundle: Bundle) -> Backend:
        """Load the bundle's model; errors as :func:`open_backend`."""
        return open_backend(self.name, bundle, self.device, self.precision)


def _torch(bundle: Bundle, device: str, precision: str) -> Backend:
    from batchscore.model.backends.torch_backend import TorchBackend

    return TorchBackend(bundle, device, precision)


def _transformers(bundle: Bundle, device: str, precision: str) -> Backend:
    from batchscore.model.backends.torch_backend import TorchBackend

    return TorchBackend(bundle, device, precision, "transformers")


def _fresh(bundle: Bundle, device: str, precision: str) -> Backend:
    from batchscore.model.backends.torch_backend import TorchBackend

    return TorchBackend(bundle, device, precision, "fresh")


def _compiled(bundle: Bundle, device: str, precision: str) -> Backend:
    from batchscore.model.backends.torch_backend import TorchBackend

    return TorchBackend(bundle, device, precision, "compiled")


def _openvino(bundle: Bundle, device: str, precision: str) -> Backend:
    from batchscore.model.backends.openvino_backend import OpenVinoBackend

    return OpenVinoBackend(bundle, device, precision)


PLAIN = ("transformers", "fresh")
"""Those by which transformers computes."""
BACKENDS: dict[str, Callable[[Bundle, str, str], Backend]] = {
    "torch": _torch,
    "transformers": _transformers,
    "fresh": _fresh,
    "compiled": _compiled,
    "openvino": _openvino,
}


def open_backend(name: str, bundle: Bundle, device: str, precision: str) -> Backend:
    """Load the bundle's model; ``name`` ``auto`` is torch, for ``int8`` openvino.

    Raises:
        ModelError: the model cannot be loaded.
        UsageError: no such backend or device.
    """
    kind = ("openvino" if precision == "int8" else "torch") if name == "auto" else name
    if kind not in BACKENDS:
        raise UsageError(f"There is no backend {name!r}; there are: {', '.join(BACKENDS)}.")
    return BACKENDS[kind](bundle, device, precision)
