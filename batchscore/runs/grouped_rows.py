"""The first mismatches of each group that a run's page leads to, found while the mismatches are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore.runs.mismatch_columns import Keys, MismatchColumns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.reports.row_groups import Group, RowGroup
    from batchscore.runs.mismatches import MismatchTable


class _Place(NamedTuple):
    """One mismatch; in order, that is the order of the report: by label quality, then by part and row."""

    quality: float
    part: int
    row: int
    n_tokens: int


class GroupedRows:
    """For each group the rows that are first in the order of the report, however many mismatches there are."""

    def __init__(self, groups: Sequence[RowGroup], columns: MismatchColumns) -> None:
        self._columns = columns
        self._most = {each.group: each.most for each in groups}
        self._first: dict[Group, list[_Place]] = {group: [] for group in self._most}

    def add(self, keys: Keys, given: NDArray[Any], predicted: NDArray[Any]) -> None:
        """Keep the first rows of each group, of ``m`` mismatches in the order of parts and rows, and what these were given and got."""
        order = np.argsort(keys.quality, kind="stable")
        keys, given, predicted = keys.at(order), given[order], predicted[order]
        for group, most in self._most.items():
            chosen = np.flatnonzero(self._columns.is_in(given, predicted, group))[:most]
            if len(chosen):
                found = keys.at(chosen)
                each = (found.quality, found.part, found.index, found.n_tokens)
                places = map(_Place, *(values.tolist() for values in each))
                self._first[group] = sorted([*self._first[group], *places])[:most]

    def read(
        self, table: MismatchTable, is_issue: Callable[[NDArray[np.float32]], NDArray[np.bool_]]
    ) -> Mapping[Group, list[dict[str, Any]]]:
        """The rows of each group as :meth:`MismatchTable.head` gives them, those that several groups share read once.

        ``is_issue``: label quality, float32 ``[n]`` -> whether each is worth checking first.
        """
        places = sorted({place for first in self._first.values() for place in first})
        quality = np.array([place.quality for place in places], dtype=np.float32)
        part, index, n_tokens = (
            np.array([getattr(place, name) for place in places], dtype=np.int32)
            for name in ("part", "row", "n_tokens")
        )
        keys = Keys(part, index, quality, is_issue(quality), n_tokens)
        read = dict(zip(places, table.head(keys, len(keys)), strict=True))
        return {group: [read[place] for place in first] for group, first in self._first.items()}
