"""Histograms of the scored rows of a multi-label model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.histograms import (
    KINDS,
    PROBABILITY_BINS,
    TOKEN_EDGES,
    kinds_of,
    lengths_of,
    twentieths,
)
from batchscore.evaluation.tally import Counts, Tally

if TYPE_CHECKING:
    from batchscore.evaluation.label_sets import LabelSets

MOST_LABELS = 20
"""Rows with this many labels or more are counted together."""


@dataclasses.dataclass(slots=True)
class LabelHistograms(Tally):
    """Counts of the scored rows."""

    least: Counts
    """``[3, 20]``: correct, wrong, not evaluated; by confidence in the row's least sure decision."""
    label_probability: Counts
    """``[C, 20]``: by the probability of each label."""
    predicted: Counts
    """``[C]``: rows for which the label is predicted."""
    per_row: Counts
    """``[21]``: rows by how many labels are predicted."""
    n_tokens: Counts
    truncated: Counts
    """``[2]``: no, yes."""

    @classmethod
    def empty(cls, n_labels: int) -> Self:
        """No rows yet."""
        shapes = (
            (len(KINDS), PROBABILITY_BINS), (n_labels, PROBABILITY_BINS), n_labels, MOST_LABELS + 1, len(TOKEN_EDGES), 2,
        )  # fmt: skip
        return cls(*(np.zeros(shape, dtype=np.int64) for shape in shapes))

    def update(self, sets: LabelSets) -> None:
        """Add the scored rows among ``sets``."""
        rows = sets.rows.scored
        self.least += kinds_of(sets.rows)
        for label in range(len(self.predicted)):
            bins = twentieths(sets.probabilities[rows, label])
            self.label_probability[label] += np.bincount(bins, minlength=PROBABILITY_BINS)
        predicted = sets.predicted[rows]
        self.predicted += predicted.sum(axis=0)
        self.per_row += np.bincount(np.minimum(predicted.sum(axis=1), MOST_LABELS), minlength=MOST_LABELS + 1)
        self.n_tokens += lengths_of(sets.rows)
        self.truncated += np.bincount(sets.rows.truncated[rows].astype(np.int64), minlength=2)

    def summary(self, labels: Sequence[str]) -> dict[str, Any]:
        """The counts by name, as :meth:`Histograms.summary` has them.

        ``probability`` is of the least sure decision of a row; ``label_probability`` maps each label to its counts [20];
        ``labels_per_row`` are rows with 0, 1, ... 20 or more labels predicted. In ``predicted_labels`` a row counts for each
        of its labels.
        """
        kinds = dict(zip(KINDS, self.least.tolist(), strict=True))
        return {
            "probability": {"edges": [k / PROBABILITY_BINS for k in range(PROBABILITY_BINS + 1)], **kinds},
            "label_probability": dict(zip(labels, self.label_probability.tolist(), strict=True)),
            "predicted_labels": dict(zip(labels, self.predicted.tolist(), strict=True)),
            "labels_per_row": self.per_row.tolist(),
            "n_tokens": {"edges": list(TOKEN_EDGES), "counts": self.n_tokens.tolist()},
            "truncated": {"no": int(self.truncated[0]), "yes": int(self.truncated[1])},
        }
