"""From which probability a prediction may be accepted unseen: a threshold for each label, with a promise that is kept.

The promise, for each label that gets a threshold: of rows that are predicted so with at least this probability, a share of at
least ``precision`` is right. It fails for one label or more with a probability of at most ``1 - confidence``, over the draw of
the calibration rows, however many these are; tonight's rows must come from where they came from. What holds for every label
holds for all accepted rows together.

This is *Learn then Test* (Angelopoulos, Bates, Candès, Jordan and Lei 2025, Ann. Appl. Stat. 19:1641-1662; arXiv 2110.01052) with
fixed-sequence testing. Each threshold of a grid that no row has a say in is a hypothesis, "of what it accepts less than ``precision``
is right"; of ``n`` accepted rows the number of right ones is binomial, so its exact tail is the p-value. They are tested one
after the other, strictest first, each at the whole error of the label, until one is not rejected: only the first true
hypothesis can be rejected falsely. Labels share the error by Bonferroni's correction.

Thresholds that too few rows reach to be rejected whatever comes are skipped. Where the first true hypothesis is among them, the error
is kept too if, below the probability where the promise is lost, no stretch of the grid is right more often than ``precision``
again (then the right rows among any that were counted are at most binomial); so it is wherever more probable means more
often right. Nothing else is assumed about the model.

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


_STEPS = 20
"""Thresholds in a decade of ``1 - probability``."""
_DECADES = 7
_DIGITS = 7
"""Of a threshold; float32 has no more near 1."""


def thresholds_to_try(temperature: float = 1.0) -> list[float]:
    """The grid, strictest first; the last, 0, accepts whatever is predicted.

    ``1 - probability`` is even on a logarithmic scale before ``temperature``.
    """
    found = [_calibrated(10 ** (-step / _STEPS), temperature) for step in range(_DECADES * _STEPS, 0, -1)]
    return [*dict.fromkeys(found), 0.0]


def _calibrated(rest: float, temperature: float) -> float:
    """The probability after ``temperature`` of what had ``1 - rest`` before."""
    logit = math.log1p(-rest) - math.log(rest)
    return round(1 / (1 + math.exp(-logit / temperature)), _DIGITS)


def _least_rows(precision: float, error: float, rows: int) -> int:
    """How many rows the first threshold that is tested accepts, at least.

    So many that one of them may be wrong, so that one sure but wrong row does not end the search; where there are less than
    twice as many ``rows`` in all, so many that none may.
    """
    none = math.ceil(math.log(error) / math.log(precision))
    one = none
    while binomial_tail(one, 1, 1 - precision) > error:
        one += 1
    return one if rows >= 2 * one else none


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
    order = np.argsort(probability, kind="stable")
    values, wrong = probability[order], np.cumsum(~right[order][::-1])
    least, found = _least_rows(precision, error, len(values)), None
    for threshold in thresholds_to_try(temperature):
        rows = len(values) - int(np.searchsorted(values, np.float32(threshold), side="left"))
        if rows < least:
            continue
        if binomial_tail(rows, int(wrong[rows - 1]), 1 - precision) > error:
            break
        found = threshold
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
