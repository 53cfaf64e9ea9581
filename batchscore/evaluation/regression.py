"""All metrics of scored rows of a regression, in one mergeable object."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.evaluation.accumulation import Accumulation
from batchscore.evaluation.cells import Cells
from batchscore.evaluation.counts import RowCounts
from batchscore.evaluation.error_moments import ErrorMoments, correlation_json
from batchscore.evaluation.error_slices import ErrorSlices
from batchscore.evaluation.grids import histogram, joint_histogram
from batchscore.evaluation.histograms import TOKEN_EDGES, lengths_of
from batchscore.evaluation.numbers import Numbers
from batchscore.evaluation.ranks import spearman
from batchscore.evaluation.significance import wilson
from batchscore.evaluation.tally import Counts, Tally
from batchscore.records import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.records import Predictions

_MOST_PAIRS, _MOST_CELLS, _MOST_STORED = 2**16, 2**12, 2**9
"""Cells of given numbers with their values; of errors and of values; of values in ``metrics.json``."""
_BINS, _JOINT_BINS = 40, 24
_SHARES = (0.5, 0.9, 0.95, 0.99)


@dataclasses.dataclass(slots=True)
class Lengths(Tally):
    """Scored rows by length and truncation."""

    n_tokens: Counts
    truncated: Counts

    @classmethod
    def empty(cls) -> Self:
        """No rows yet."""
        return cls(np.zeros(len(TOKEN_EDGES), dtype=np.int64), np.zeros(2, dtype=np.int64))

    def update(self, numbers: Numbers) -> None:
        """Add the scored rows among ``numbers``."""
        rows = numbers.rows
        self.n_tokens += lengths_of(rows)
        self.truncated += np.bincount(rows.truncated[rows.scored].astype(np.int64), minlength=2)


class RegressionEvaluation(Accumulation):
    """Evaluate rows part by part, as :class:`Evaluation` does, where each has one number.

    ``name`` is that of the value. With a ``tolerance``, a value is right if it is at most that far from the given one. Memory is
    constant: 2 MB, plus 200 slices a column. All but Spearman's correlation is exact, whatever the range of the values;
    that is exact up to 65,536 different pairs of given and predicted value, and has an ``error_bound`` beyond (see
    :mod:`ranks`).
    """

    STATE_FORMAT = 2
    slices: ErrorSlices

    def __init__(self, name: str = "value", tolerance: float | None = None) -> None:
        if tolerance is not None and not 0 <= tolerance < math.inf:
            raise ValueError(f"a tolerance is a number of 0 or more, not {tolerance}")
        self.name = name
        self.tolerance = tolerance
        self.counts = RowCounts()
        self.moments = ErrorMoments()
        self.pairs = Cells.empty(_MOST_PAIRS, 2)
        self.errors = Cells.empty(_MOST_CELLS)
        self.sizes = Cells.empty(_MOST_CELLS)
        self.values = Cells.empty(_MOST_CELLS)
        self.lengths = Lengths.empty()
        self.slices = ErrorSlices()

    def update(
        self,
        given: NDArray[np.floating[Any]],
        predictions: Predictions,
        *,
        slices: Mapping[str, Sequence[object] | str] | None = None,
        rejects: int = 0,
    ) -> None:
        """Add the rows of one part (or any other subset).

        ``given[n]``: float64, NaN without a number, infinite if the cell holds none. ``slices`` and ``rejects`` as in
        :meth:`Evaluation.update`. Raises ``ValueError`` if the arrays do not belong together.
        """
        numbers = Numbers.of(given, predictions, self.tolerance)
        rows = numbers.rows.evaluated
        self.counts.update(numbers.rows, rejects)
        self.moments.update(numbers)
        self.pairs.add(numbers.given[rows], numbers.value[rows])
        self.errors.add(numbers.error)
        self.sizes.add(np.abs(numbers.error))
        self.values.add(numbers.value[numbers.rows.scored])
        self.lengths.update(numbers)
        self.slices.add(numbers, slices or {})

    @property
    def _basis(self) -> dict[str, Any]:
        return {"name": self.name, "tolerance": self.tolerance}

    @classmethod
    def _of_state(cls, state: Mapping[str, Any]) -> Self:
        return cls(state["name"], state["tolerance"])

    def metrics(self) -> dict[str, Any]:
        """Everything as JSON values: plain numbers, None where undefined, never NaN; keys always in this order.

        ``task``; ``labels`` [the value's name]; ``tolerance``; ``counts`` (:class:`RowCounts`; ``correct``: within the
        tolerance, 0 without one); ``quality``, None without evaluated rows: what :meth:`ErrorMoments.summary` has,
        ``spearman`` {value, low, high, error_bound}, ``within_tolerance`` {value, low, high} or None, ``within`` [{share, error}]
        (at least this share of rows is at most so far off), ``residuals`` (value - given) {edges, counts, below, above},
        ``predicted_vs_given`` {edges: [given, value], counts: given x value}; ``histograms`` {value {shift, lows, counts},
        values {edges, counts, below, above}, n_tokens, truncated}; ``slices`` (:meth:`ErrorSlices.summary`).
        """
        axis = self.values.axis()
        return {
            "task": Task.REGRESSION.value,
            "labels": [self.name],
            "tolerance": self.tolerance,
            "counts": self.counts.summary(),
            "quality": self._quality() if self.counts.evaluated else None,
            "histograms": {
                "value": axis.within(_MOST_STORED).to_json(),
                "values": histogram(axis, _BINS),
                "n_tokens": {"edges": list(TOKEN_EDGES), "counts": self.lengths.n_tokens.tolist()},
                "truncated": {
                    "no": int(self.lengths.truncated[0]),
                    "yes": int(self.lengths.truncated[1]),
                },
            },
            "slices": self.slices.summary(),
        }

    def _quality(self) -> dict[str, Any]:
        ranked, sizes = spearman(self.pairs), self.sizes.axis()
        near = wilson(self.counts.correct, self.counts.evaluated) if self.tolerance is not None else None
        return {
            **self.moments.summary(),
            "spearman": ranked
            and {
                **correlation_json(ranked.value, self.counts.evaluated, is_of_ranks=True),
                "error_bound": ranked.error_bound,
            },
            "within_tolerance": near.to_json() if near else None,
            "within": [{"share": share, "error": sizes.quantile(share)} for share in _SHARES],
            "residuals": histogram(self.errors.axis(), _BINS),
            "predicted_vs_given": joint_histogram(self.pairs, _JOINT_BINS),
        }
