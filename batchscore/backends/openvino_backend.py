"""The int8 variant that ``batchscore export`` put into a bundle, as OpenVINO runs it on a CPU."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.bundle import Canaries, int8_variant
from batchscore.errors import ModelError, UsageError, printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.bundle import Bundle
    from batchscore.records import MicroBatch


class OpenVinoBackend:
    """A compiled int8 model; torch is not imported."""

    name = "openvino"

    def __init__(self, bundle: Bundle, device: str, precision: str) -> None:
        if precision not in ("auto", "int8"):
            raise UsageError(f"--precision {precision} is not for the openvino backend; it has: int8.")
        if device not in ("auto", "cpu"):
            raise UsageError(f"--device {device} is not for the openvino backend; it has: cpu.")
        self.device, self.precision = "cpu", "int8"
        variant = int8_variant(bundle)
        openvino = import_openvino()
        try:
            core = openvino.Core()
            model = core.read_model(bundle.path / variant["file"])
            # What is not int8 stays float32: the parity figures were measured so.
            options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
            self._model = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise ModelError(
                f"{printable(bundle.path)}: its int8 variant cannot be loaded ({printable(error)}). Make it again with: "
                f"batchscore export {printable(bundle.path)}"
            ) from error

    def logits(self, batch: MicroBatch) -> NDArray[np.float32]:
        """Logits ``[b, C]`` float32."""
        logits = self._model({"input_ids": batch.input_ids, "attention_mask": batch.attention_mask})[0]
        return np.array(logits, dtype=np.float32)

    def release(self) -> None:
        """Nothing is kept between batches that could be given back."""


def import_openvino() -> Any:
    """The ``openvino`` package.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise ModelError(
            "int8 needs the package openvino. Install it with: pip install 'batchscore[openvino]'"
        ) from error
    return openvino


def int8_bundle(bundle: Bundle) -> Bundle:
    """The bundle with the canaries as int8 answered them when it was exported.

    How far int8 is from float32 was measured then, and held against limits; what a load has to show is that it is
    still the same.
    """
    variant = int8_variant(bundle)
    if bundle.canaries is None:
        return bundle
    answers = np.array(variant["canaries"], dtype=np.float32)
    return dataclasses.replace(bundle, canaries=Canaries(bundle.canaries.texts, answers))
