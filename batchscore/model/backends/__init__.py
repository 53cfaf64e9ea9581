"""Token ids in, logits out: a backend is one class with ``logits`` and ``release``, and one entry in ``BACKENDS``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from batchscore.errors import UsageError
from batchscore.model.backends.backend import PLAIN, Backend, OutOfDeviceMemoryError

if TYPE_CHECKING:
    from batchscore.model.bundle import Bundle

__all__ = ["BACKENDS", "PLAIN", "Backend", "BackendSpec", "OutOfDeviceMemoryError", "open_backend"]


@dataclasses.dataclass(frozen=True, slots=True)
class BackendSpec:
    """What it takes to open the same backend elsewhere."""

    name: str
    device: str
    precision: str

    @classmethod
    def of(cls, backend: Backend) -> BackendSpec:
        """The spec of a loaded backend."""
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


BACKENDS: dict[str, Callable[[Bundle, str, str], Backend]] = {
    "torch": _torch,
    "transformers": _transformers,
    "fresh": _fresh,
    "compiled": _compiled,
    "openvino": _openvino,
}


def open_backend(name: str, bundle: Bundle, device: str, precision: str) -> Backend:
    """Load the bundle's model; ``auto`` is ``openvino`` for ``int8``, else ``torch``.

    Raises:
        ModelError: the model cannot be loaded.
        UsageError: no such backend or device.
    """
    kind = ("openvino" if precision == "int8" else "torch") if name == "auto" else name
    if kind not in BACKENDS:
        raise UsageError(f"There is no backend {name!r}; there are: {', '.join(BACKENDS)}.")
    return BACKENDS[kind](bundle, device, precision)
