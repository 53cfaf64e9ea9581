"""Histograms for the page, from counts by cell: round edges over the range that holds nearly all rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.evaluation.cells import Axis, Cells

_TAIL = 0.002
"""Share of the rows at each end that may lie outside of the edges."""


def round_edges(axis: Axis, bins: int) -> NDArray[np.float64]:
    """About ``bins`` bins of equal width 1, 2 or 5 times a power of ten, over all rows but few at each end.

    Whole numbers, if there are few, are in the middle of a bin each.
    """
    numbers = axis.lows
    if axis.is_exact and len(numbers) <= bins and (numbers == np.rint(numbers)).all():
        low, high = float(numbers[0]), float(numbers[-1])
        if high - low < bins:
            return np.arange(low - 0.5, high + 1, dtype=np.float64)
    low, high = -axis.mirrored().quantile(1 - _TAIL), axis.quantile(1 - _TAIL)
    width = round_step((high - low) / bins) if high > low else round_step(max(abs(low), 1e-300) / bins)
    first, last = math.floor(low / width), math.floor(high / width) + 1
    edges = np.arange(first, last + 1, dtype=np.float64) * width
    return np.round(edges, min(300, max(0, 1 - math.floor(math.log10(width)))))


def round_step(width: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not less.

    >>> [round_step(width) for width in (0.04, 0.3, 1.0)]
    [0.05, 0.5, 1.0]
    """
    power = math.floor(math.log10(width))
    return next(
        float(f"{digit}e{power + (digit == 10)}".replace("10e", "1e"))
        for digit in (1, 2, 5, 10)
        if digit * 10.0**power >= width * (1 - 1e-12)
    )


def histogram(axis: Axis, bins: int) -> dict[str, Any]:
    """``edges`` [B + 1], ``counts`` [B], and the rows ``below`` and ``above`` them; all empty without rows."""
    if not len(axis.counts):
        return {"edges": [], "counts": [], "below": 0, "above": 0}
    edges, counts = axis.between(round_edges(axis, bins))
    below = int(axis.counts[axis.lows < edges[0]].sum())
    return {
        "edges": edges,
        "counts": counts,
        "below": below,
        "above": int(axis.counts.sum()) - below - sum(counts),
    }


def joint_histogram(cells: Cells, bins: int) -> dict[str, Any]:
    """Both coordinates: ``edges`` of the first and the second, ``counts`` [first, second]; rows beyond an edge are in the last bin."""
    cells.settle()
    sides = [cells.axis(number) for number in (0, 1)]
    if not len(cells.counts):
        return {"edges": [[], []], "counts": []}
    edges = [axis.between(round_edges(axis, bins))[0] for axis in sides]
    places = []
    for number, axis in enumerate(sides):
        lows = axis.lows[np.searchsorted(axis.keys, cells.keys[:, number])]
        place = np.searchsorted(edges[number], lows, side="right") - 1
        places.append(np.clip(place, 0, len(edges[number]) - 2))
    shape = tuple(len(each) - 1 for each in edges)
    counts = np.zeros(shape, dtype=np.int64)
    np.add.at(counts, tuple(places), cells.counts)
    return {"edges": edges, "counts": counts.tolist()}
