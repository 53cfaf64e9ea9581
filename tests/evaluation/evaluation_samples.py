"""Rows for the tests of ``batchscore.evaluation``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchscore.evaluation import Evaluation, apply_temperature
from batchscore.records import Predictions, Status


class Sample(NamedTuple):
    given: NDArray[np.int32]
    predictions: Predictions

    @property
    def evaluated(self) -> NDArray[np.bool_]:
        return np.asarray((self.given >= 0) & (self.predictions.predicted >= 0))

    def known(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
        """Given, predicted and float64 probabilities of the evaluated rows: what an oracle needs."""
        rows = self.evaluated
        return (
            self.given[rows],
            self.predictions.predicted[rows],
            self.predictions.probabilities[rows].astype(np.float64),
        )

    def rows(self, chosen: NDArray[np.int64] | slice) -> Sample:
        p = self.predictions
        return Sample(
            self.given[chosen],
            Predictions(
                p.status[chosen],
                p.predicted[chosen],
                p.probabilities[chosen],
                p.n_tokens[chosen],
                p.truncated[chosen],
            ),
        )


def literal(given: Sequence[int], probabilities: Sequence[Sequence[float]], n_tokens: int = 10) -> Sample:
    """Rows that are all scored; the prediction is the first of the highest probabilities."""
    table, n = np.array(probabilities, dtype=np.float32), len(given)
    predictions = Predictions(
        status=np.zeros(n, dtype=np.int8),
        predicted=table.argmax(axis=1).astype(np.int32),
        probabilities=table,
        n_tokens=np.full(n, n_tokens, dtype=np.int32),
        truncated=np.zeros(n, dtype=np.bool_),
    )
    return Sample(np.array(given, dtype=np.int32), predictions)


def random_sample(
    n: int, n_labels: int, seed: int, sharpness: float = 2.0, all_known: bool = False
) -> Sample:
    """Rows whose given label is drawn near the logits; some unlabelled, unknown or not scored unless ``all_known``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_labels)) * sharpness
    given = (logits + rng.gumbel(size=logits.shape) * sharpness).argmax(axis=1).astype(np.int32)
    probabilities = apply_temperature(logits, 1.0)
    status = np.zeros(n, dtype=np.int8)
    predicted = probabilities.argmax(axis=1).astype(np.int32)
    if not all_known:
        given = np.where(rng.random(n) < 0.2, rng.integers(-2, 0, n), given).astype(np.int32)
        status = np.where(rng.random(n) < 0.1, rng.integers(1, 4, n), status).astype(np.int8)
        predicted = np.where(status == Status.OK, predicted, -1).astype(np.int32)
        probabilities[status != Status.OK] = np.nan
    n_tokens = np.where(status == Status.OK, rng.integers(2, 900, n), -1).astype(np.int32)
    return Sample(given, Predictions(status, predicted, probabilities, n_tokens, n_tokens > 512))


def evaluate(sample: Sample, labels: Sequence[str] | None = None) -> Evaluation:
    n_labels = sample.predictions.probabilities.shape[1]
    evaluation = Evaluation(labels or [f"L{k}" for k in range(n_labels)])
    evaluation.update(sample.given, sample.predictions)
    return evaluation
