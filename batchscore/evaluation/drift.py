"""Drift: whether the rows of two runs have the same distributions.

Which distributions are compared is in :mod:`distributions`. Thresholds: the convention of credit scoring for the population
stability index, under 0.1 no change and over 0.25 a clear one (Lewis 1994, *An Introduction to Credit Scoring*; Siddiqi
2006). They ignore the number of rows, so a PSI within chance is "no change" too: with equal
distributions PSI is about (1/n + 1/m) times chi-square with bins - 1 degrees (Yurdakul and Naranjo 2020, J. Risk Model
Validation 14), and ``noise`` is the 99 % point of that.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.evaluation.significance import chi_square_99

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL, CLEAR = 0.1, 0.25
"""PSI from which there is a small shift, and above which a clear one."""
NOTHING_TO_COMPARE = "nothing to compare"
VERDICTS = ("no change", "small shift", "clear shift")


@dataclasses.dataclass(frozen=True, slots=True)
class Drift:
    """The drift of one distribution; distances are None if a side has no rows."""

    distribution: str
    psi: float | None
    noise: float | None
    """99 % of comparisons of equal distributions have a smaller PSI."""
    ks: float | None
    """Largest difference of the cumulative shares at the bin edges; None for unordered bins."""
    js_distance: float | None
    verdict: str
    label: str | None = None
    """The label that it is about, of several labels the one that drifted most."""

    def to_json(self) -> dict[str, Any]:
        """The fields by name, ``label`` only if there is one."""
        return {
            key: value
            for key, value in dataclasses.asdict(self).items()
            if key != "label" or value is not None
        }


@dataclasses.dataclass(frozen=True, slots=True)
class DriftReport:
    """The comparisons and their worst verdict."""

    distributions: tuple[Drift, ...]

    @property
    def value(self) -> float | None:
        """For gates: the largest PSI beyond its noise, 0 if there is none; None without rows to compare."""
        if any(d.psi is None for d in self.distributions):
            return None
        return max((d.psi for d in self.distributions if d.psi and d.psi > (d.noise or 0)), default=0.0)

    @property
    def verdict(self) -> str:
        """The worst of them, in words."""
        verdicts = {d.verdict for d in self.distributions}
        return next(
            (v for v in (NOTHING_TO_COMPARE, *reversed(VERDICTS)) if v in verdicts), NOTHING_TO_COMPARE
        )

    def to_json(self) -> dict[str, Any]:
        """``value``, ``verdict``, ``thresholds`` and ``distributions``."""
        return {
            "value": self.value,
            "verdict": self.verdict,
            "thresholds": {"small_shift": SMALL, "clear_shift": CLEAR},
            "distributions": [d.to_json() for d in self.distributions],
        }


def psi(before: NDArray[np.int64], after: NDArray[np.int64]) -> float:
    """Population stability index of two count arrays ``[B]``: sum of (q - p) ln(q / p).

    Bins empty on both sides are left out; half a row is added to each other bin, so that the PSI stays finite.
    """
    used = (before + after) > 0
    p, q = (counts[used] + 0.5 for counts in (before, after))
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def ks(before: NDArray[np.int64], after: NDArray[np.int64]) -> float:
    """Kolmogorov-Smirnov distance of two binned distributions: a lower bound of that of the values."""
    gaps = np.cumsum(before) / before.sum() - np.cumsum(after) / after.sum()
    return float(np.abs(gaps).max())


def js_distance(before: NDArray[np.int64], after: NDArray[np.int64]) -> float:
    """Jensen-Shannon distance in base 2, 0 (equal) to 1 (nothing in common); Endres and Schindelin 2003."""
    p, q = before / before.sum(), after / after.sum()
    middle = (p + q) / 2
    divergence = sum(float((x[x > 0] * np.log2(x[x > 0] / middle[x > 0])).sum()) for x in (p, q)) / 2
    return math.sqrt(min(1.0, max(0.0, divergence)))


def compare(
    name: str,
    before: Sequence[int] | NDArray[np.int64],
    after: Sequence[int] | NDArray[np.int64],
    *,
    is_ordered: bool = True,
    among: int = 1,
) -> Drift:
    """The drift of one distribution from its counts by bin; the largest ``among`` so many has more noise (Bonferroni)."""
    before, after = (np.asarray(counts, dtype=np.int64) for counts in (before, after))
    n, m = int(before.sum()), int(after.sum())
    if not n or not m:
        return Drift(name, None, None, None, None, NOTHING_TO_COMPARE)
    index = psi(before, after)
    noise = chi_square_99(int(((before + after) > 0).sum()) - 1, among) * (1 / n + 1 / m)
    level = 0 if index < SMALL or index <= noise else 1 + (index > CLEAR)
    distance = ks(before, after) if is_ordered else None
    return Drift(name, index, noise, distance, js_distance(before, after), VERDICTS[level])
