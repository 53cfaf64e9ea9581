"""How many given labels are wrong: a number only where the model's own reliability bears it out.

A disagreement is a mistake of the model or of the label, and a single one does not say which. Many together do, by the
confidence at which they come. Say that the model errs in a share r of the rows of some confidence. If a share e of labels is
wrong whatever the text, and there are C labels, it disagrees with r + e (1 - r C / (C - 1)) of them: wrong labels add most
where the model is surest, and nothing where it guesses. A model that got worse, or texts that were cut, add most where it is
unsure.

So two sets of rows are fitted together, by maximum likelihood of the wrong ones in each bin of confidence: held-out rows of
the training, and those of this run. Both share a curve of r, whose log-odds may take any shape that is smooth (small second
differences: Eilers and Marx 1996, Statistical Science 11:89-121). The run may lie off that curve by a shift and a slope, since
no two sets of rows are equally hard; normal priors keep both moderate. What they cannot explain is e: wrong labels *beyond*
those that the held-out rows have. Its interval is that of the profile likelihood, the values of e that a likelihood-ratio test
at 5 % does not reject, whatever curve, shift and slope go best with each.
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
"""Verdicts: labels are wrong; the model or the texts; nothing but the model's usual mistakes; no answer."""
GOT_WORSE = "accuracy fell on the same rows under the same labels"
_CHANCE = (
    "model and labels agree no better than chance, as on too few rows, or where names of labels are mixed up"
)
_WIDEST = 0.05
"""An answer that leaves open whether more than one label in twenty is wrong is none."""
_MOSTLY = 0.5
_CLEAR = 0.05
_ROUGHNESS = 0.3
"""Standard deviation of the second differences of the curve, in log-odds from bin to bin."""
_FAR = 5.0
"""And of the curve itself about honest probabilities: hardly a bound."""
_SHIFT, _SLOPE = 1.0, 0.4
"""Standard deviations of what sets a run apart: errors in these log-odds more or less frequent, and more so with each unit of
the log-odds of the stated probability. Reviews that were cut to 120 characters are 0.8 and 0.4 off, other reviews 0.1 and 0.0."""
_MIDDLE, _END = -2.0, -6.0
"""Log-odds of a mistake at which the slope turns, 88 % sure, and beyond which it goes no further, 99.75 % sure."""
_STARTS = (0.001, 0.2)
"""Shares of wrong labels that the search begins with."""
_MOST_WRONG = 0.6
_HALF_CHI_SQUARE_95, _HALF_CHI_SQUARE_99_OF_TWO = 1.9207294103, 4.6051701860
"""Half the 95 % point of chi-square with one degree, and half the 99 % point with two."""
_B = len(EDGES)
_AT_SHIFT, _AT_SLOPE, _AT_WRONG = _B, _B + 1, _B + 2
"""Places of the parameters behind the curve's."""

Vector: TypeAlias = "NDArray[np.float64]"


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """What can be said of wrong labels, and why."""

    verdict: str
    why: str
    mismatches: int
    expected_mismatches: float | None = None
    """The model's own mistakes, if it errs as often at each confidence as it is known to."""
    interval: Estimate | None = None
    """Rows whose label may be wrong, beyond those that the held-out rows have; None where nothing could be fitted."""
    held_out_rows: int | None = None
    """On which the model's reliability was measured; None where only its stated probabilities are known."""

    def to_json(self) -> dict[str, Any]:
        """The fields by name, and ``wrong_labels``: the interval where it is claimed, by the verdicts ``labels`` and ``none``."""
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
    """What the evaluated rows of a run say, by their ``reliability`` (:meth:`Reliability.summary`).

    ``trained``: the metrics of the bundle, with ``reliability`` of its held-out rows, or at least ``calibration_error``; from
    neither nothing can be told. ``compared``: :meth:`Comparison.summary` of the same rows in an earlier run. An answer that
    was right then and is wrong now, under the same label, is no mistake of the label.
    """
    seen = _Seen(*_counts(reliability))
    known = _known(trained, seen)
    rows, mismatches = int(seen.rows.sum()), int(seen.wrong.sum())
    fitted = _Fitted.of(seen, known, n_labels) if known and rows else None
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
    fitted: _Fitted | None, rows: int, mismatches: int, compared: Mapping[str, Any] | None
) -> tuple[str, str]:
    """The verdict, and what speaks for it."""
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
    """How many rows more are wrong than in the earlier run, under the same labels; 0 where that is not clear.

    Most of the ``rows`` must have been in the earlier run, and stand for all.
    """
    if not compared or not compared["evaluated"] or compared["evaluated"] < _MOSTLY * rows:
        return 0.0
    lost = (compared["broken"] - compared["fixed"]) * rows / compared["evaluated"]
    return float(max(lost, 0.0)) if compared["p_value"] < _CLEAR else 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    """Rows by confidence: how many, how many of them wrong, and their mean stated probability (NaN without rows), ``[B]`` each."""

    rows: Vector
    wrong: Vector
    probability: Vector
    is_measured: bool = True
    """Whether there were such rows; else they stand for what a model says of itself."""

    def as_stated(self, calibration_error: float) -> _Seen:
        """Rows of the same confidence that are wrong as often as their probability says.

        In each bin they are as many as tell a share to within the error that all bins together may have on average, so that
        the model is believed as far as it was found honest.
        """
        share = np.nan_to_num(1 - self.probability)
        error = calibration_error * max(float((self.rows > 0).sum()), 1.0) ** 0.5
        rows = np.where(self.rows > 0, np.maximum(share * (1 - share) / error**2, 1 / error), 0.0)
        return _Seen(rows, rows * share, self.probability, is_measured=False)


def _counts(reliability: Mapping[str, Any]) -> tuple[Vector, Vector, Vector]:
    """``rows``, wrong ones and ``mean_probability``, float64 ``[B]`` each."""
    names = ("rows", "correct", "mean_probability")
    rows, correct, probability = (np.array(reliability[name], dtype=np.float64) for name in names)
    return rows, rows - correct, probability


def _known(trained: Mapping[str, Any], seen: _Seen) -> _Seen | None:
    """How often the model is wrong at each confidence, as far as its bundle knows; bins of another version are no help."""
    held_out, error = trained.get("reliability"), trained.get("calibration_error")
    if held_out and held_out["edges"] == list(EDGES) and any(held_out["rows"]):
        return _Seen(*_counts(held_out))
    return seen.as_stated(float(error)) if error else None


@dataclasses.dataclass(frozen=True, slots=True)
class _Fitted:
    """What came of the fit."""

    wrong: Estimate
    """The share of wrong labels."""
    expected: float
    """Wrong rows of this run if the model errs as it is known to, and no label is wrong."""
    is_shifted: bool
    """Whether the run, with no label wrong, lies off the curve by more than chance."""

    @classmethod
    def of(cls, seen: _Seen, known: _Seen, n_labels: int) -> _Fitted:
        model = _Likelihood(seen, known, n_labels / (n_labels - 1))
        best = max((model.maximum(model.start(share)) for share in _STARTS), key=lambda found: found[1])
        without, reached = model.maximum(_with(best[0], _AT_WRONG, 0.0), fixed=(_AT_WRONG,))
        same = _with(_with(without, _AT_SHIFT, 0.0), _AT_SLOPE, 0.0)
        _, reached_same = model.maximum(same, fixed=(_AT_SHIFT, _AT_SLOPE, _AT_WRONG))
        return cls(
            wrong=_interval(model, *best),
            expected=float((_logistic(without[:_B]) * seen.rows).sum()),
            is_shifted=reached - reached_same > _HALF_CHI_SQUARE_99_OF_TWO,
        )


class _Likelihood:
    """Of the wrong rows in each bin of both sets, at parameters ``point[B + 3]``: the curve, shift, slope, wrong labels."""

    def __init__(self, seen: _Seen, known: _Seen, turn: float) -> None:
        self._rows = np.stack([known.rows, seen.rows])
        self._wrong = np.stack([known.wrong, seen.wrong])
        self._turn = turn
        """C / (C - 1)."""
        self._honest = _log_odds_wrong(seen, known)
        self._tilt = np.maximum(self._honest, _END) - _MIDDLE
        differences: Vector = np.diff(np.eye(_B), 2, axis=0) / _ROUGHNESS
        self._precision = np.zeros((_B + 3, _B + 3))
        self._precision[:_B, :_B] = differences.T @ differences + np.eye(_B) / _FAR**2
        self._precision[_AT_SHIFT, _AT_SHIFT] = 1 / _SHIFT**2
        self._precision[_AT_SLOPE, _AT_SLOPE] = 1 / _SLOPE**2

    def start(self, wrong: float) -> Vector:
        """Honest probabilities, and a share of ``wrong`` labels."""
        return np.concatenate([self._honest, [0.0, 0.0, wrong]])

    def _rates(self, point: Vector) -> tuple[Vector, Vector]:
        """Share of wrong rows in each bin ``[2, B]``: by the model's mistakes alone, and with the wrong labels."""
        curve = point[:_B]
        moved = curve + point[_AT_SHIFT] + point[_AT_SLOPE] * self._tilt
        mistakes = _logistic(np.stack([curve, moved]))
        share = np.array([[0.0], [point[_AT_WRONG]]])
        return mistakes, np.clip(mistakes + share * (1 - self._turn * mistakes), 1e-9, 1 - 1e-9)

    def __call__(self, point: Vector) -> float:
        """The log likelihood with the priors, but for constants."""
        _, rates = self._rates(point)
        binomial = self._wrong * np.log(rates) + (self._rows - self._wrong) * np.log1p(-rates)
        off = self._off(point)
        return float(binomial.sum() - off @ self._precision @ off / 2)

    def _off(self, point: Vector) -> Vector:
        return point - self.start(0.0)

    def _score(self, point: Vector) -> tuple[Vector, Vector]:
        """The slope of the log likelihood ``[B + 3]``, and Fisher's information ``[B + 3, B + 3]``."""
        mistakes, rates = self._rates(point)
        steep = mistakes * (1 - mistakes) * (1 - self._turn * np.array([[0.0], [point[_AT_WRONG]]]))
        slopes = np.zeros((2, _B, _B + 3))
        slopes[:, np.arange(_B), np.arange(_B)] = steep
        slopes[1, :, _AT_SHIFT] = steep[1]
        slopes[1, :, _AT_SLOPE] = steep[1] * self._tilt
        slopes[1, :, _AT_WRONG] = 1 - self._turn * mistakes[1]
        weight = 1 / (rates * (1 - rates))
        slope = np.einsum("sb,sbk->k", (self._wrong - self._rows * rates) * weight, slopes)
        information = np.einsum("sb,sbk,sbl->kl", self._rows * weight, slopes, slopes, optimize=True)
        return slope - self._precision @ self._off(point), information + self._precision

    def maximum(self, start: Vector, fixed: tuple[int, ...] = ()) -> tuple[Vector, float]:
        """The likeliest parameters and their log likelihood, by Fisher scoring with Levenberg's damping; ``fixed`` ones stay."""
        free = np.array([place for place in range(len(start)) if place not in fixed])
        point, reached, damping = start, self(start), 1e-3
        for _ in range(100):
            slope, information = (each[np.ix_(*[free] * each.ndim)] for each in self._score(point))
            gain = -1.0
            while gain < 0 and damping < 1e9:
                move = np.linalg.solve(information + damping * np.diag(np.diag(information)), slope)
                there = point.copy()
                there[free] += move
                there[_AT_WRONG] = min(max(there[_AT_WRONG], 0.0), _MOST_WRONG)
                gain = self(there) - reached
                damping *= 4
            if gain < 0:
                break
            point, reached, damping = there, reached + gain, max(damping / 40, 1e-9)
            if gain < 1e-4:
                break
        return point, reached


def _log_odds_wrong(seen: _Seen, known: _Seen) -> Vector:
    """Of each bin ``[B]``: by its mean stated probability in this run, else in the other rows, else by its middle."""
    edges = np.array([*EDGES, 1.0])
    mean = np.where(seen.rows > 0, seen.probability, known.probability)
    mean = np.clip(np.where(np.isnan(mean), (edges[:-1] + edges[1:]) / 2, mean), 1e-6, 1 - 1e-6)
    found: Vector = np.log1p(-mean) - np.log(mean)
    return found


def _logistic(values: Vector) -> Vector:
    found: Vector = 1 / (1 + np.exp(-np.clip(values, -40, 40)))
    return found


def _with(point: Vector, place: int, value: float) -> Vector:
    changed = point.copy()
    changed[place] = value
    return changed


def _interval(model: _Likelihood, best: Vector, reached: float) -> Estimate:
    """The share of wrong labels with its 95 % interval of the profile likelihood; an end lies just outside of it."""

    def is_inside(share: float) -> bool:
        _, likelihood = model.maximum(_with(best, _AT_WRONG, share), fixed=(_AT_WRONG,))
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
