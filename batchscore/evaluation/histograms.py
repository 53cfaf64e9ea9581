"""Histograms of the scored rows: probabilities by correctness, lengths, labels, truncation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.tally import Counts, Tally

if TYPE_CHECKING:
    from batchscore.evaluation.outcomes import Outcomes

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
        bins = np.minimum(
            (outcomes.top[rows].astype(np.float64) * PROBABILITY_BINS).astype(np.int64), PROBABILITY_BINS - 1
        )
        kind = np.where(outcomes.evaluated[rows], np.where(outcomes.correct[rows], 0, 1), 2)
        cells = np.bincount(kind * PROBABILITY_BINS + bins, minlength=self.probability.size)
        self.probability += cells.reshape(self.probability.shape)
        lengths = np.searchsorted(TOKEN_EDGES, np.maximum(outcomes.n_tokens[rows], 0), side="right") - 1
        self.n_tokens += np.bincount(lengths, minlength=len(TOKEN_EDGES))
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
