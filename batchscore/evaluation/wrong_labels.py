"""Estimate how many given labels are wrong, if the model's known reliability allows it.

A disagreement is an error of the model or of the label, and a single one does not tell which. Many together do, by the
confidence at which they occur. Let the model err in a share r of the rows of some confidence. If a share e of labels is wrong
independently of the text, and there are C labels, it disagrees with r + e (1 - r C / (C - 1)) of them: wrong labels add most
where the model is most confident, and nothing where it guesses. A worse model, or truncated texts, add most where it is
unsure.

So two sets of rows are fitted jointly, by maximum likelihood of the errors in each confidence bin: the held-out rows of the
training, and those of this run. Both share a curve of r, smooth in log-odds (small second differences: Eilers and Marx 1996,
Statistical Science 11:89-121). The run may deviate from it by a shift and a slope, since no two sets of rows are equally
hard; normal priors keep both moderate. What they cannot explain is e: wrong labels *beyond* those in the held-out rows. Its
interval is by profile likelihood: the values of e that a likelihood-ratio test at 5 % does not reject, with the best curve,
shift and slope for each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from batchscore.evaluation.reliability import EDGES
from batchscore.evaluation.significance import Estimate, wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

LABELS, MODEL, NONE, CANNOT_TELL = "labels", "model", "none", "cannot tell"
"""Verdicts: labels are wrong; the model or the texts changed; only the model's usual errors; undecided."""
GOT_WORSE = "accuracy fell on the same rows under the same labels"
_CHANCE = (
    "model and labels agree no better than chance, as on too few rows, or where names of labels are mixed up"
)
_WIDEST = 0.05
"""If the interval reaches beyond this share, the result is no answer."""
_MOSTLY = 0.5
_CLEAR = 0.05
_ROUGHNESS = 0.3
"""Standard deviation of the second differences of the curve, in log-odds from bin to bin."""
_FAR = 5.0
"""And of the curve about calibrated probabilities: nearly no constraint."""
_SHIFT, _SLOPE = 1.0, 0.4
"""Prior standard deviations of a run's deviation: a shift of the log-odds of an error, and a slope per unit of the log-odds of
the predicted probability. Reviews truncated to 120 characters are 0.8 and 0.4 off, other reviews 0.1 and 0.0."""
_MIDDLE, _END = -2.0, -6.0
"""Log-odds of an error at which the slope is centred (confidence 88 %) and beyond which it is constant (99.75 %)."""
_STARTS = (0.001, 0.2)
"""Starting points of the search: shares of wrong labels."""
_MOST_WRONG = 0.6
_HALF_CHI_SQUARE_95, _HALF_CHI_SQUARE_99_OF_TWO = 1.9207294103, 4.6051701860
"""Half the 95 % point of chi-square with one degree, and half the 99 % point with two."""
_B = len(EDGES)
_AT_SHIFT, _AT_SLOPE, _AT_WRONG = _B, _B + 1, _B + 2
"""Indices of the parameters after the curve's."""

Vector: TypeAlias = "NDArray[np.float64]"


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """The conclusion about wrong labels, with its reason."""

    verdict: str
    why: str
    mismatches: int
    expected_mismatches: float | None = None
    """The model's own errors, at its known error rate for each confidence."""
    interval: Estimate | None = None
    """Rows with a wrong label, beyond the share in the held-out rows; None without a fit."""
    held_out_rows: int | None = None
    """Rows that the model's reliability was measured on; None if only its probabilities are known."""

    def to_json(self) -> dict[str, Any]:
        """The fields by name, and ``wrong_labels``: the interval if the verdict is ``labels`` or ``none``."""
        interval = self.interval.to_json() if self.interval else None
        return {
            "verdict": self.verdict,
            "wrong_labels": interval if self.verdict in {LABELS, NONE} else None,
            "why": self.why,
            "interval": interval,
            "mismatches": self.mismatches,
            "expected_mismatches": self.expected_mismatches,
            "held_out_rows": self.held_out_rows,
        }


def claim_wrong_labels(
    reliability: Mapping[str, Any],
    trained: Mapping[str, Any],
    n_labels: int,
    compared: Mapping[str, Any] | None = None,
) -> Claim:
    """Estimate wrong labels from a run's ``reliability`` (:meth:`Reliability.summary`).

    ``trained``: the metrics of the bundle, with ``reliability`` of its held-out rows, or at least ``calibration_error``; without
    both the result is ``cannot tell``. ``compared``: :meth:`Comparison.summary` of the same rows in an earlier run. A prediction
    that was right then and is wrong now, under the same label, is no label error.
    """
    seen = _ConfidenceBins(*_counts(reliability))
    known = _reference(trained, seen)
    rows, mismatches = int(seen.rows.sum()), int(seen.wrong.sum())
    fitted = _Fit.of(seen, known, n_labels) if known and rows else None
    verdict, why = _verdict(fitted, rows, mismatches, compared)
    agreement = wilson(rows - mismatches, rows)
    if agreement is None or agreement.low * n_labels <= 1:
        verdict, why = CANNOT_TELL, _CHANCE
    return Claim(
        verdict=verdict,
        why=why,
        mismatches=mismatches,
        expected_mismatches=fitted.expected if fitted else None,
        interval=Estimate(*(share * rows for share in fitted.wrong)) if fitted else None,
        held_out_rows=int(known.rows.sum()) if known and known.is_measured else None,
    )


def _verdict(
    fitted: _Fit | None, rows: int, mismatches: int, compared: Mapping[str, Any] | None
) -> tuple[str, str]:
    """The verdict and its reason."""
    lost = _lost(compared, rows)
    if fitted is None:
        why = "how often this model is wrong at each confidence was never measured"
        return (MODEL, GOT_WORSE) if lost > 0 else (CANNOT_TELL, why)
    surplus = mismatches - fitted.expected
    if lost > 0 and lost >= _MOSTLY * surplus:
        return MODEL, GOT_WORSE
    if fitted.wrong.low * rows >= 1 and surplus > 0:
        return LABELS, "there are more disagreements, and most where the model is surest"
    if fitted.is_shifted and surplus > 0:
        if fitted.wrong.value * rows <= _MOSTLY * surplus:
            return MODEL, "there are more disagreements, but not where the model is surest"
        return CANNOT_TELL, "wrong labels would explain the disagreements, and a worse model would too"
    if fitted.wrong.high > _WIDEST:
        return (
            CANNOT_TELL,
            "there are too few rows, or the model is too weak, to tell its mistakes from wrong labels",
        )
    return NONE, "the model's own mistakes explain the disagreements"


def _lost(compared: Mapping[str, Any] | None, rows: int) -> float:
    """How many more rows are wrong than in the earlier run, under the same labels; 0 if not significant.

    Most of the ``rows`` must be in the earlier run; the result is scaled up to all.
    """
    if not compared or not compared["evaluated"] or compared["evaluated"] < _MOSTLY * rows:
        return 0.0
    lost = (compared["broken"] - compared["fixed"]) * rows / compared["evaluated"]
    return float(max(lost, 0.0)) if compared["p_value"] < _CLEAR else 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class _ConfidenceBins:
    """By confidence bin: rows, wrong rows and mean predicted probability (NaN without rows), ``[B]`` each."""

    rows: Vector
    wrong: Vector
    probability: Vector
    is_measured: bool = True
    """Whether these are real rows; else pseudo-counts from the model's own probabilities."""

    def as_pseudo_counts(self, calibration_error: float) -> _ConfidenceBins:
        """Pseudo-counts with the error rate that the probabilities imply.

        Their number in each bin corresponds to a standard error that matches ``calibration_error`` over all bins, so that
        the model's probabilities count as far as it is calibrated.
        """
        share = np.nan_to_num(1 - self.probability)
        error = calibration_error * max(float((self.rows > 0).sum()), 1.0) ** 0.5
        rows = np.where(self.rows > 0, np.maximum(share * (1 - share) / error**2, 1 / error), 0.0)
        return _ConfidenceBins(rows, rows * share, self.probability, is_measured=False)


def _counts(reliability: Mapping[str, Any]) -> tuple[Vector, Vector, Vector]:
    """``rows``, wrong ones and ``mean_probability``, float64 ``[B]`` each."""
    names = ("rows", "correct", "mean_probability")
    rows, correct, probability = (np.array(reliability[name], dtype=np.float64) for name in names)
    return rows, rows - correct, probability


def _reference(trained: Mapping[str, Any], seen: _ConfidenceBins) -> _ConfidenceBins | None:
    """The model's error rates by confidence from its bundle, unless it has the bins of another version; else pseudo-counts."""
    held_out, error = trained.get("reliability"), trained.get("calibration_error")
    if held_out and held_out["edges"] == list(EDGES) and any(held_out["rows"]):
        return _ConfidenceBins(*_counts(held_out))
    return seen.as_pseudo_counts(float(error)) if error else None


@dataclasses.dataclass(frozen=True, slots=True)
class _Fit:
    """The result of the fit."""

    wrong: Estimate
    """The share of wrong labels."""
    expected: float
    """Wrong rows of this run if no label is wrong."""
    is_shifted: bool
    """Whether the run, if no label is wrong, deviates significantly from the curve."""

    @classmethod
    def of(cls, seen: _ConfidenceBins, known: _ConfidenceBins, n_labels: int) -> _Fit:
        model = _Likelihood(seen, known, n_labels / (n_labels - 1))
        best = max((model.maximum(model.start(share)) for share in _STARTS), key=lambda found: found[1])
        without, reached = model.maximum(_replace(best[0], _AT_WRONG, 0.0), fixed=(_AT_WRONG,))
        same = _replace(_replace(without, _AT_SHIFT, 0.0), _AT_SLOPE, 0.0)
        _, reached_same = model.maximum(same, fixed=(_AT_SHIFT, _AT_SLOPE, _AT_WRONG))
        return cls(
            wrong=_interval(model, *best),
            expected=float((_logistic(without[:_B]) * seen.rows).sum()),
            is_shifted=reached - reached_same > _HALF_CHI_SQUARE_99_OF_TWO,
        )


class _Likelihood:
    """Likelihood of the wrong rows per bin in both sets, at ``point[B + 3]``: curve, shift, slope, share of wrong labels."""

    def __init__(self, seen: _ConfidenceBins, known: _ConfidenceBins, turn: float) -> None:
        self._rows = np.stack([known.rows, seen.rows])
        self._wrong = np.stack([known.wrong, seen.wrong])
        self._turn = turn
        """C / (C - 1)."""
        self._calibrated = _log_odds_wrong(seen, known)
        self._slope_at = np.maximum(self._calibrated, _END) - _MIDDLE
        differences: Vector = np.diff(np.eye(_B), 2, axis=0) / _ROUGHNESS
        self._precision = np.zeros((_B + 3, _B + 3))
        self._precision[:_B, :_B] = differences.T @ differences + np.eye(_B) / _FAR**2
        self._precision[_AT_SHIFT, _AT_SHIFT] = 1 / _SHIFT**2
        self._precision[_AT_SLOPE, _AT_SLOPE] = 1 / _SLOPE**2

    def start(self, wrong: float) -> Vector:
        """A starting point: calibrated probabilities, and a share of ``wrong`` labels."""
        return np.concatenate([self._calibrated, [0.0, 0.0, wrong]])

    def _rates(self, point: Vector) -> tuple[Vector, Vector]:
        """Error rates per bin ``[2, B]``: of the model alone, and including wrong labels."""
        curve = point[:_B]
        shifted = curve + point[_AT_SHIFT] + point[_AT_SLOPE] * self._slope_at
        errors = _logistic(np.stack([curve, shifted]))
        share = np.array([[0.0], [point[_AT_WRONG]]])
        return errors, np.clip(errors + share * (1 - self._turn * errors), 1e-9, 1 - 1e-9)

    def __call__(self, point: Vector) -> float:
        """The log posterior up to a constant."""
        _, rates = self._rates(point)
        binomial = self._wrong * np.log(rates) + (self._rows - self._wrong) * np.log1p(-rates)
        deviation = self._deviation(point)
        return float(binomial.sum() - deviation @ self._precision @ deviation / 2)

    def _deviation(self, point: Vector) -> Vector:
        return point - self.start(0.0)

    def _score(self, point: Vector) -> tuple[Vector, Vector]:
        """The gradient of the log posterior ``[B + 3]``, and the Fisher information ``[B + 3, B + 3]``."""
        errors, rates = self._rates(point)
        steep = errors * (1 - errors) * (1 - self._turn * np.array([[0.0], [point[_AT_WRONG]]]))
        slopes = np.zeros((2, _B, _B + 3))
        slopes[:, np.arange(_B), np.arange(_B)] = steep
        slopes[1, :, _AT_SHIFT] = steep[1]
        slopes[1, :, _AT_SLOPE] = steep[1] * self._slope_at
        slopes[1, :, _AT_WRONG] = 1 - self._turn * errors[1]
        weight = 1 / (rates * (1 - rates))
        slope = np.einsum("sb,sbk->k", (self._wrong - self._rows * rates) * weight, slopes)
        information = np.einsum("sb,sbk,sbl->kl", self._rows * weight, slopes, slopes, optimize=True)
        return slope - self._precision @ self._deviation(point), information + self._precision

    def maximum(self, start: Vector, fixed: tuple[int, ...] = ()) -> tuple[Vector, float]:
        """The maximum and its value, by Fisher scoring with Levenberg damping; ``fixed`` parameters stay."""
        free = np.array([place for place in range(len(start)) if place not in fixed])
        point, reached, damping = start, self(start), 1e-3
        for _ in range(100):
            slope, information = (each[np.ix_(*[free] * each.ndim)] for each in self._score(point))
            gain = -1.0
            while gain < 0 and damping < 1e9:
                step = np.linalg.solve(information + damping * np.diag(np.diag(information)), slope)
                candidate = point.copy()
                candidate[free] += step
                candidate[_AT_WRONG] = min(max(candidate[_AT_WRONG], 0.0), _MOST_WRONG)
                gain = self(candidate) - reached
                damping *= 4
            if gain < 0:
                break
            point, reached, damping = candidate, reached + gain, max(damping / 40, 1e-9)
            if gain < 1e-4:
                break
        return point, reached


def _log_odds_wrong(seen: _ConfidenceBins, known: _ConfidenceBins) -> Vector:
    """Log-odds of an error per bin ``[B]``, by the mean probability in this run, else in the held-out rows, else the bin's centre."""
    edges = np.array([*EDGES, 1.0])
    mean = np.where(seen.rows > 0, seen.probability, known.probability)
    mean = np.clip(np.where(np.isnan(mean), (edges[:-1] + edges[1:]) / 2, mean), 1e-6, 1 - 1e-6)
    found: Vector = np.log1p(-mean) - np.log(mean)
    return found


def _logistic(values: Vector) -> Vector:
    found: Vector = 1 / (1 + np.exp(-np.clip(values, -40, 40)))
    return found


def _replace(point: Vector, place: int, value: float) -> Vector:
    changed = point.copy()
    changed[place] = value
    return changed


def _interval(model: _Likelihood, best: Vector, reached: float) -> Estimate:
    """The share of wrong labels with its 95 % interval of the profile likelihood; ends lie just outside."""

    def is_inside(share: float) -> bool:
        _, likelihood = model.maximum(_replace(best, _AT_WRONG, share), fixed=(_AT_WRONG,))
        return likelihood >= reached - _HALF_CHI_SQUARE_95

    def end(inside: float, outside: float) -> float:
        for _ in range(12):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if is_inside(middle) else (inside, middle)
        return outside

    value, width = float(best[_AT_WRONG]), 0.01
    while value + width < _MOST_WRONG and is_inside(value + width):
        width *= 2
    high = end(value, value + width) if value + width < _MOST_WRONG else _MOST_WRONG
    return Estimate(value, 0.0 if is_inside(0.0) else end(value, 0.0), high)
