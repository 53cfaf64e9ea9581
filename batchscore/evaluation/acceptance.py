"""From which probability a prediction may be accepted unseen: a threshold for each label, with a promise that is kept.

The promise, for each label that gets a threshold: of rows that are predicted so with at least this probability, a share of at
least ``precision`` is right. It fails for one label or more with a probability of at most ``1 - confidence``, over the draw of
the calibration rows, whatever the model and the number of rows; tonight's rows must only come from where these came from. What
holds for every label holds for all accepted rows together.

This is *Learn then Test* (Angelopoulos, Bates, Candès, Jordan and Lei 2025, Ann. Appl. Stat. 19:1641-1662; arXiv 2110.01052).
Each threshold of a grid that no row has a say in is a hypothesis, "of what it accepts less than ``precision`` is right", and the
number of right rows among ``n`` accepted ones is binomial: its exact upper tail is the p-value. Labels share the error by
Bonferroni's correction. Along the grid, from the strictest threshold on, it is spent by the *fallback procedure* (Wiens and
Dmitrienko 2005, J. Biopharm. Stat. 15:929-942): some thresholds are given a part of it, each passes what it had to the next, looser
one if it was rejected, and loses it if not. So one sure but wrong row does not end the search, as it does where a fixed sequence
stops for good. The first false rejection can only have spent what was given since the last true hypothesis before it; these
parts add up to no more than all, whatever the dependence, so that the error is bounded without any assumption about how
right a probability is.

The grid is even in the logits *before* the temperature: that was fitted on the same rows, and of two labels the rows that a
threshold accepts are then the same whatever it is. Of more labels, whose order it can change, this holds nearly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore.config import Acceptance
from batchscore.evaluation.significance import binomial_tail

if TYPE_CHECKING:
    from numpy.typing import NDArray


class AnsweredRows(NamedTuple):
    """Rows with a prediction and a known label."""

    predicted: NDArray[np.integer[Any]]
    """``[n]``: an index."""
    probability: NDArray[np.float32]
    """``[n]``: of the predicted label."""
    right: NDArray[np.bool_]


_STEPS = 10
"""Thresholds in a decade of ``1 - probability``."""
_DECADES = 6
_STARTS = {0.0: 0.25, -0.5: 0.45, -1.0: 0.2}
"""Decades of ``1 - probability`` beyond ``1 - precision`` → the part of the error that the threshold there is given."""
_REST = 0.1
"""The part that is given to the starts of all stricter thresholds together, one each half decade."""


def thresholds_to_try(temperature: float = 1.0) -> list[float]:
    """The grid, strictest first; the last, 0, accepts whatever is predicted.

    ``1 - probability`` is even on a logarithmic scale before ``temperature``; each is rounded to six digits.
    """
    found = [_calibrated(10 ** (-step / _STEPS), temperature) for step in range(_DECADES * _STEPS, 0, -1)]
    return [*dict.fromkeys(found), 0.0]


def _calibrated(rest: float, temperature: float) -> float:
    """The probability after ``temperature`` of what had ``1 - rest`` before."""
    logit = math.log1p(-rest) - math.log(rest)
    return round(1 / (1 + math.exp(-logit / temperature)), 6)


def _parts(precision: float, tried: Sequence[float]) -> list[float]:
    """The part of the error that each threshold is given; they sum to 1."""
    target, parts = math.log10(1 - precision), [0.0] * len(tried)

    def nearest(decade: float) -> int:
        return min(range(len(tried) - 1), key=lambda k: abs(math.log10(max(1 - tried[k], 1e-9)) - decade))

    for decades, part in _STARTS.items():
        parts[nearest(min(target + decades, -0.1))] += part
    stricter = target + min(_STARTS) - 0.5
    rest = [stricter - 0.5 * k for k in range(2 * _DECADES) if stricter - 0.5 * k >= -_DECADES] or [target]
    for decade in rest:
        parts[nearest(decade)] += _REST / len(rest)
    return parts


def chosen_threshold(
    precision: float,
    error: float,
    probability: NDArray[np.float32],
    right: NDArray[np.bool_],
    temperature: float = 1.0,
) -> float | None:
    """The loosest threshold that keeps the promise for rows of one predicted label, with probability ``1 - error``.

    ``probability[n]`` of the predicted label and whether it was ``right[n]``; None if no threshold can be promised.
    """
    tried = thresholds_to_try(temperature)
    order = np.argsort(probability, kind="stable")
    values, wrong = probability[order], np.cumsum(~right[order][::-1])
    left, found = 0.0, None
    for threshold, part in zip(tried, _parts(precision, tried), strict=True):
        left += part * error
        rows = len(values) - int(np.searchsorted(values, np.float32(threshold), side="left"))
        p_value = binomial_tail(rows, int(wrong[rows - 1]), 1 - precision) if rows else 1.0
        if left > 0 and p_value <= left:
            found = threshold
        else:
            left = 0.0
    return found


def chosen_acceptance(
    precision: float, confidence: float, rows: AnsweredRows, n_labels: int, temperature: float = 1.0
) -> Acceptance:
    """The thresholds of all labels, chosen on calibration ``rows``; ``temperature`` is the one that was fitted on them."""
    thresholds, counts = [], []
    for label in range(n_labels):
        here = rows.predicted == label
        error = (1 - confidence) / n_labels
        found = chosen_threshold(precision, error, rows.probability[here], rows.right[here], temperature)
        accepted = here & is_accepted([found] * n_labels, rows.predicted, rows.probability)
        thresholds.append(found)
        counts.append((int(here.sum()), int(accepted.sum()), int((accepted & rows.right).sum())))
    every, accepted_rows, right = zip(*counts, strict=True)
    return Acceptance(precision, confidence, tuple(thresholds), every, accepted_rows, right)


def is_accepted(
    thresholds: Sequence[float | None], predicted: NDArray[np.integer[Any]], probability: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """``[n]``: the rows whose predicted label has a threshold that their probability reaches; none where ``predicted`` is -1.

    Compared as float32, as other thresholds are.
    """
    least = np.array([math.inf if each is None else each for each in thresholds], dtype=np.float32)
    accepted: NDArray[np.bool_] = (predicted >= 0) & (probability >= least[np.maximum(predicted, 0)])
    return accepted
