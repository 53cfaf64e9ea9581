"""Canaries: texts whose answers a bundle carries, scored before anything else on the device and in the precision about to be used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from batchscore import records
from batchscore.errors import ModelError, printable
from batchscore.model.scoring import Computation, Model, conclude, prepare

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.records import Text

CANARY_TOLERANCE = 0.01
"""The largest change in a canary's probability that a precision may cause."""


class CanaryCheck(NamedTuple):
    """Result of scoring the canaries: changed labels, and the largest change in a probability."""

    labels_changed: int
    largest_change: float

    @property
    def agrees(self) -> bool:
        """Whether the model predicts as it did when trained."""
        return not self.labels_changed and self.largest_change <= CANARY_TOLERANCE


def check_canaries(model: Model) -> CanaryCheck | None:
    """Score the bundle's canaries on this device and precision; ``None`` if it has none.

    Raises:
        ModelError: the model cannot score a text at all.
    """
    canaries = model.bundle.canaries
    model = model.with_inference(long_text=model.bundle.long_text, missing_pair=model.bundle.missing_pair)
    model = model.with_inference(thresholds=(), below="next")
    nothing: Text = ("batchscore", "batchscore") if model.bundle.takes_pairs else "batchscore"
    texts: tuple[Text, ...] = canaries.texts if canaries else (nothing,)
    prepared = prepare(texts, model)
    with (
        model.backend.one_core_each() as begin,  # as for the rows
        ThreadPoolExecutor(model.workers, "canaries", begin) as workers,
    ):
        computed = Computation(prepared, model, workers.map).result()
    predictions = conclude(prepared, computed, model)
    if predictions.failures:
        raise ModelError(
            f"{printable(model.bundle.path)} cannot score on {model.backend.device} in {model.backend.precision}: "
            f"{predictions.failures[0][1]}. Try --device cpu --precision fp32."
        )
    if canaries is None:
        return None
    return canary_check(predictions.probabilities, canaries.probabilities, model.bundle.task)


def canary_check(
    found: NDArray[np.floating],
    expected: NDArray[np.floating],
    kind: records.Task = records.Task.SINGLE_LABEL,
) -> CanaryCheck:
    """Compare two arrays of answers ``[n, C]`` to the same texts.

    Probabilities of several labels have no likeliest one that could change. Numbers change in shares of the range of those
    expected (of 1 plus their size, if they are all the same).
    """
    change = np.abs(found - expected)
    if kind == records.Task.REGRESSION:
        spread = float(np.ptp(expected)) or 1 + float(np.abs(expected).max())
        return CanaryCheck(0, float(change.max()) / spread)
    is_one = kind == records.Task.SINGLE_LABEL
    changed = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum()) if is_one else 0
    return CanaryCheck(changed, float(change.max()))
