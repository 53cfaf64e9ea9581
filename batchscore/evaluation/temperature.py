"""Temperature scaling of a classifier's probabilities (Guo et al. 2017, arXiv:1706.04599)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
"""Range of the search; for perfectly separating logits the optimum is at 0."""


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Probabilities ``[n, C]`` float64 from ``logits[n, C]``; row by row, safe for any finite logits."""
    values = np.ascontiguousarray(logits, dtype=np.float64)
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float64)


def apply_temperature(logits: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float32]:
    """Calibrated probabilities ``[n, C]`` float32: ``softmax(logits / temperature)`` in float64, rounded once.

    Each value is correct to half a unit in the last place, so a row's float32 values sum to 1 within 2**-24.
    Raises ``ValueError`` for a temperature that is not a positive number.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"a temperature is a positive number, not {temperature}")
    return softmax(np.asarray(logits, dtype=np.float64) / temperature).astype(np.float32)


def undo_temperature(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """``softmax(logits)``, float64 ``[n, C]``, from ``softmax(logits / temperature)``; NaN rows stay NaN.

    ``logits / temperature`` is the logarithm of the probabilities up to a constant per row. Raises
    ``ValueError`` for a temperature that is not a positive number.

    >>> undo_temperature(np.array([[0.75, 0.25]], dtype=np.float32), 2.0).round(6).tolist()
    [[0.9, 0.1]]
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"a temperature is a positive number, not {temperature}")
    with np.errstate(divide="ignore"):
        return softmax(np.log(np.asarray(probabilities, dtype=np.float64)) * temperature)


def fit_temperature(logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> float:
    """The temperature that minimises the negative log-likelihood of ``labels[n]`` given ``logits[n, C]``.

    The likelihood is convex in 1/T, and its slope there is the mean of (expected logit - logit of the label), which
    is monotone: 60 bisections of ``ln T`` between 0.05 and 20 find its only zero, or the nearer end.
    1.0 without rows.
    """
    if len(labels) == 0:
        return 1.0
    values = np.asarray(logits, dtype=np.float64)
    values = values - values.max(axis=1, keepdims=True)
    chosen = float(values[np.arange(len(labels)), labels].mean())
    cold, hot = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)
    for _ in range(60):
        middle = (cold + hot) / 2
        expected = float((softmax(values / math.exp(middle)) * values).sum(axis=1).mean())
        if expected > chosen:
            cold = middle
        else:
            hot = middle
    return math.exp((cold + hot) / 2)


def undo_sigmoid_temperature(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """``sigmoid(logits)``, float32 of any shape, from ``sigmoid(logits / temperature)``; NaN stays NaN.

    With p the probability, that is p**t / (p**t + (1 - p)**t). Raises ``ValueError`` as :func:`undo_temperature`.

    >>> undo_sigmoid_temperature(np.array([0.75, 0.5], dtype=np.float32), 2.0).tolist()
    [0.8999999761581421, 0.5]
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"a temperature is a positive number, not {temperature}")
    p = np.asarray(probabilities, dtype=np.float64)
    with np.errstate(divide="ignore", over="ignore"):
        odds = np.exp(temperature * (np.log1p(-p) - np.log(p)))
        return np.asarray(1 / (1 + odds), dtype=np.float32)


def fit_sigmoid_temperature(logits: NDArray[np.floating[Any]], given: NDArray[np.integer[Any]]) -> float:
    """The temperature that minimises the mean binary cross-entropy of ``given[n, C]`` (0 or 1) under ``logits[n, C]``.

    As :func:`fit_temperature`: convex in 1/T, with the slope mean of logit times (probability - given). 1.0 without rows.
    """
    if len(given) == 0:
        return 1.0
    values, wanted = np.asarray(logits, dtype=np.float64), np.asarray(given, dtype=np.float64)
    cold, hot = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)
    for _ in range(60):
        middle = (cold + hot) / 2
        expected = (1 + np.tanh(values / math.exp(middle) / 2)) / 2
        if float((values * (expected - wanted)).mean()) > 0:
            cold = middle
        else:
            hot = middle
    return math.exp((cold + hot) / 2)
