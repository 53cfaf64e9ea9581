"""Drift: whether the rows of two runs have the same distributions.

Four distributions are compared, as counts over fixed bins: predicted labels, probability of the predicted label (20
bins), ``n_tokens`` (14 bins), truncated or not. Thresholds: the convention of credit scoring for the population
stability index, under 0.1 no change and over 0.25 a clear one (Lewis 1994, *An Introduction to Credit Scoring*; Siddiqi
2006). They ignore the number of rows, so a PSI within chance is "no change" too: with equal
distributions PSI is about (1/n + 1/m) times chi-square with bins - 1 degrees (Yurdakul and Naranjo 2020, J. Risk Model
Validation 14), and ``noise`` is the 99 % point of that.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.errors import DataError
from batchscore.evaluation.histograms import KINDS, PROBABILITY_BINS, TOKEN_EDGES
from batchscore.evaluation.significance import chi_square_99

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL, CLEAR = 0.1, 0.25
"""PSI from which there is a small shift, and above which a clear one."""
NOTHING_TO_COMPARE = "nothing to compare"
VERDICTS = ("no change", "small shift", "clear shift")


@dataclasses.dataclass(frozen=True, slots=True)
class Distributions:
    """The distributions that drift is measured on: scored rows by bin."""

    predicted_labels: Mapping[str, int]
    probability: tuple[int, ...]
    n_tokens: tuple[int, ...]
    truncated: tuple[int, int]

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, Any]) -> Self:
        """Read them from ``Evaluation.metrics()`` or a ``metrics.json``.

        Raises :class:`DataError` if they are missing or have other bins than this version.
        """
        try:
            histograms = metrics["histograms"]
            probability, n_tokens = histograms["probability"], histograms["n_tokens"]
            truncated = histograms["truncated"]
            found = cls(
                predicted_labels={
                    str(label): int(rows) for label, rows in histograms["predicted_labels"].items()
                },
                probability=tuple(
                    sum(map(int, kinds)) for kinds in zip(*(probability[k] for k in KINDS), strict=True)
                ),
                n_tokens=tuple(map(int, n_tokens["counts"])),
                truncated=(int(truncated["no"]), int(truncated["yes"])),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"the metrics hold no histograms to compare with ({error!r}); score that run again"
            ) from error
        bins = (len(found.probability), list(n_tokens.get("edges", ())), len(found.n_tokens))
        if bins != (PROBABILITY_BINS, list(TOKEN_EDGES), len(TOKEN_EDGES)):
            raise DataError(
                "the metrics were counted in other bins, by another version; score that run again"
            )
        return found


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

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, slots=True)
class DriftReport:
    """The four comparisons and their worst verdict."""

    distributions: tuple[Drift, ...]

    @property
    def value(self) -> float | None:
        """For gates: the largest PSI beyond its noise, 0 if there is none; None without rows to compare."""
        if any(d.psi is None for d in self.distributions):
            return None
        return max((d.psi for d in self.distributions if d.psi and d.psi > (d.noise or 0)), default=0.0)

    @property
    def verdict(self) -> str:
        """The worst of the four, in words."""
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


def measure_drift(baseline: Distributions, current: Distributions) -> DriftReport:
    """Compare two runs; labels are matched by name, a missing one counts 0."""
    labels = sorted({*baseline.predicted_labels, *current.predicted_labels})
    before, after = ([d.predicted_labels.get(label, 0) for label in labels] for d in (baseline, current))
    pairs = {
        "predicted_labels": (before, after, False),
        "probability": (baseline.probability, current.probability, True),
        "n_tokens": (baseline.n_tokens, current.n_tokens, True),
        "truncated": (baseline.truncated, current.truncated, True),
    }
    return DriftReport(
        tuple(
            _compare(name, np.array(old, dtype=np.int64), np.array(new, dtype=np.int64), is_ordered)
            for name, (old, new, is_ordered) in pairs.items()
        )
    )


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


def _compare(name: str, before: NDArray[np.int64], after: NDArray[np.int64], is_ordered: bool) -> Drift:
    n, m = int(before.sum()), int(after.sum())
    if not n or not m:
        return Drift(name, None, None, None, None, NOTHING_TO_COMPARE)
    index = psi(before, after)
    noise = chi_square_99(int(((before + after) > 0).sum()) - 1) * (1 / n + 1 / m)
    level = 0 if index < SMALL or index <= noise else 1 + (index > CLEAR)
    distance = ks(before, after) if is_ordered else None
    return Drift(name, index, noise, distance, js_distance(before, after), VERDICTS[level])
