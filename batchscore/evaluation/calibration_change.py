"""Whether a model is worse calibrated than another on the same rows, beyond chance."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.evaluation.calibration import BINS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Probabilities = NDArray[np.float32]
    Right = NDArray[np.bool_]

PERMUTATIONS = 1999
_SEED = 20_260_101


@dataclasses.dataclass(frozen=True, slots=True)
class CalibrationChange:
    """Calibration errors (15 bins) before and after, and how often chance alone makes the second as much larger."""

    before: float
    after: float
    p_value: float
    """One-sided."""

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return dataclasses.asdict(self)


def calibration_change(
    before: tuple[Probabilities, Right], after: tuple[Probabilities, Right]
) -> CalibrationChange:
    """Compare two models on the same ``n`` > 0 rows: each one's probability ``[n]`` of its prediction, and whether that was right.

    A paired permutation test (Fisher 1935; see Good 2005, *Permutation, Parametric and Bootstrap Tests*): were the models alike,
    which of both gave a row's answer would be a coin toss. So the answers of each row are exchanged with probability 1/2, and the
    difference of both calibration errors counted that is at least as large as the real one; exact up to the number of
    permutations, whose seed is fixed.
    """
    gaps = [_gaps(*each) for each in (before, after)]
    cells = [cell for cell, _ in gaps]
    differences = [_error(*each) for each in gaps]
    found = differences[1] - differences[0]
    rng, larger = np.random.default_rng(_SEED), 1
    total = [np.bincount(cell, weights=gap, minlength=BINS) for cell, gap in gaps]
    for _ in range(PERMUTATIONS):
        swapped = rng.random(len(cells[0])) < 0.5
        moved = [np.bincount(cell[swapped], weights=gap[swapped], minlength=BINS) for cell, gap in gaps]
        first, second = total[0] - moved[0] + moved[1], total[1] - moved[1] + moved[0]
        difference = (np.abs(second).sum() - np.abs(first).sum()) / len(swapped)
        larger += difference >= found - 1e-12
    return CalibrationChange(differences[0], differences[1], larger / (PERMUTATIONS + 1))


def _gaps(probability: Probabilities, right: Right) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The bin of each row, and its probability less what it was worth."""
    top = probability.astype(np.float64)
    return np.clip(np.ceil(top * BINS).astype(np.int64) - 1, 0, BINS - 1), top - right


def _error(cells: NDArray[np.int64], gaps: NDArray[np.float64]) -> float:
    return float(np.abs(np.bincount(cells, weights=gaps, minlength=BINS)).sum() / len(gaps))
