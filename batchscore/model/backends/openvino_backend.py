"""The int8 variant that ``batchscore export`` added to a bundle, run by OpenVINO on a CPU."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.errors import ModelError, UsageError, missing_extra, printable
from batchscore.model.bundle import Canaries, int8_variant
from batchscore.system.cores import usable_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.model.bundle import Bundle
    from batchscore.records import MicroBatch


class OpenVinoBackend:
    """A compiled int8 model, without torch."""

    name = "openvino"
    rows_are_alone = False

    def __init__(self, bundle: Bundle, device: str, precision: str) -> None:
        if precision not in ("auto", "int8"):
            raise UsageError(f"--precision {precision} is not for the openvino backend; it has: int8.")
        if device not in ("auto", "cpu"):
            raise UsageError(f"--device {device} is not for the openvino backend; it has: cpu.")
        self.device, self.precision = "cpu", "int8"
        self._requests = threading.local()
        """An infer request serves one caller at a time, so each thread has its own."""
        variant = int8_variant(bundle)
        openvino = import_openvino()
        try:
            core = openvino.Core()
            model = core.read_model(bundle.path / variant["file"])
            # Everything else stays float32, as when parity was measured.
            streams = usable_cores()  # one thread each, one stream per worker
            options = {
                "INFERENCE_PRECISION_HINT": "f32",
                "NUM_STREAMS": streams,
                "INFERENCE_NUM_THREADS": streams,
            }
            self._model = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise ModelError(
                f"{printable(bundle.path)}: its int8 variant cannot be loaded ({printable(error)}). Make it again with: "
                f"batchscore export {printable(bundle.path)}"
            ) from error

    def logits(self, batch: MicroBatch) -> NDArray[np.float32]:
        """Logits ``[b, C]`` float32."""
        if not hasattr(self._requests, "own"):
            self._requests.own = self._model.create_infer_request()
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        return np.array(self._requests.own.infer(inputs)[0], dtype=np.float32)

    def one_core_each(self) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """See :class:`~batchscore.model.backends.Backend`: a stream of the compiled model has one thread."""
        return contextlib.nullcontext(lambda: None)

    def release(self) -> None:
        """Nothing to free: no memory is kept between batches."""


def import_openvino() -> Any:
    """The ``openvino`` package.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise missing_extra("int8", "openvino", ModelError) from error
    return openvino


def int8_bundle(bundle: Bundle) -> Bundle:
    """The bundle with the canary probabilities that int8 gave at export.

    The difference from float32 was measured and limited then; a load only has to show that int8 is unchanged.
    """
    variant = int8_variant(bundle)
    if bundle.canaries is None:
        return bundle
    answers = np.array(variant["canaries"], dtype=np.float32)
    return dataclasses.replace(bundle, canaries=Canaries(bundle.canaries.texts, answers))
