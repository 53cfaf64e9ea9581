"""Histograms of the scored rows: probabilities by correctness, lengths, labels, truncation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.tally import Counts, Tally

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.evaluation.outcomes import Outcomes, RowOutcomes

PROBABILITY_BINS = 20
"""Of equal width over [0, 1]; bin k is [k/20, (k+1)/20), the last one with its end."""
TOKEN_EDGES = (0, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)
"""Lower edges of the bins of ``n_tokens``; the last bin is open."""
KINDS = ("correct", "wrong", "unlabelled")


@dataclasses.dataclass(slots=True)
class Histograms(Tally):
    """Counts of the scored rows."""

    probability: Counts
    """``[3, 20]``: correct, wrong, not evaluated; by probability of the predicted label."""
    n_tokens: Counts
    predicted: Counts
    """``[C]``."""
    truncated: Counts
    """``[2]``: no, yes."""

    @classmethod
    def empty(cls, n_labels: int) -> Self:
        """No rows yet."""
        shapes = ((len(KINDS), PROBABILITY_BINS), len(TOKEN_EDGES), n_labels, 2)
        return cls(*(np.zeros(shape, dtype=np.int64) for shape in shapes))

    def update(self, outcomes: Outcomes) -> None:
        """Add the scored rows among ``outcomes``."""
        rows = outcomes.scored
        self.probability += kinds_of(outcomes)
        self.n_tokens += lengths_of(outcomes)
        self.predicted += np.bincount(outcomes.predicted[rows], minlength=len(self.predicted))
        self.truncated += np.bincount(outcomes.truncated[rows].astype(np.int64), minlength=2)

    def summary(self, labels: Sequence[str]) -> dict[str, Any]:
        """The counts by name.

        ``probability`` has ``edges`` [21] and the three kinds [20 each], ``n_tokens`` lower ``edges`` and ``counts``
        [14 each]; ``predicted_labels`` and ``truncated`` map a value to its rows.
        """
        kinds = dict(zip(KINDS, self.probability.tolist(), strict=True))
        return {
            "probability": {"edges": [k / PROBABILITY_BINS for k in range(PROBABILITY_BINS + 1)], **kinds},
            "n_tokens": {"edges": list(TOKEN_EDGES), "counts": self.n_tokens.tolist()},
            "predicted_labels": dict(zip(labels, self.predicted.tolist(), strict=True)),
            "truncated": {"no": int(self.truncated[0]), "yes": int(self.truncated[1])},
        }


def twentieths(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """The bin of each probability."""
    bins = (probabilities.astype(np.float64) * PROBABILITY_BINS).astype(np.int64)
    return np.minimum(bins, PROBABILITY_BINS - 1)


def kinds_of(outcomes: RowOutcomes) -> Counts:
    """``[3, 20]``: scored rows by :data:`KINDS` and ``top``."""
    rows = outcomes.scored
    kind = np.where(outcomes.evaluated[rows], np.where(outcomes.correct[rows], 0, 1), 2)
    cells = kind * PROBABILITY_BINS + twentieths(outcomes.top[rows])
    shape = (len(KINDS), PROBABILITY_BINS)
    return np.bincount(cells, minlength=len(KINDS) * PROBABILITY_BINS).reshape(shape)


def lengths_of(outcomes: RowOutcomes) -> Counts:
    """``[14]``: scored rows by ``n_tokens``."""
    lengths = np.maximum(outcomes.n_tokens[outcomes.scored], 0)
    bins = np.searchsorted(TOKEN_EDGES, lengths, side="right") - 1
    return np.bincount(bins, minlength=len(TOKEN_EDGES))
