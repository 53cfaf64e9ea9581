"""Compare two runs over the same rows by slice: where the predictions got better or worse."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.evaluation.significance import holm, mcnemar_p, paired_difference
from batchscore.evaluation.slices import LEAST_ROWS, SIGNIFICANT, Columns, add_groups, encoded, in_order
from batchscore.evaluation.tally import ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclasses.dataclass(slots=True)
class SliceChanges:
    """Tally of the rows that both runs predicted, by column and value; at most 200 values a column.

    ``groups[column][value]`` is (rows, changed, evaluated, right before, right after, fixed, broken).
    """

    groups: dict[str, dict[str, list[int]]] = dataclasses.field(default_factory=dict)

    def update(
        self,
        given: NDArray[np.integer[Any]],
        before: NDArray[np.integer[Any]],
        after: NDArray[np.integer[Any]],
        lengths: tuple[NDArray[np.bool_], NDArray[np.integer[Any]]],
        columns: Columns,
    ) -> None:
        """Add ``n`` rows as :meth:`Comparison.update` takes them; ``lengths``: ``truncated`` and ``n_tokens`` [n] now."""
        both = (before >= 0) & (after >= 0)
        known, was_right, is_right = both & (given >= 0), before == given, after == given
        kinds = (
            both,
            both & (before != after),
            known,
            known & was_right,
            known & is_right,
            known & ~was_right & is_right,
            known & was_right & ~is_right,
        )
        for column, values, codes in encoded(*lengths, columns):
            counts = [np.bincount(codes[kind], minlength=len(values)) for kind in kinds]
            groups = {
                value: [int(count[k]) for count in counts] for k, value in enumerate(values) if counts[0][k]
            }
            add_groups(self.groups.setdefault(column, {}), groups)

    def summary(self) -> list[dict[str, Any]]:
        """One entry per slice, in the order of :meth:`Slices.summary`.

        ``column``, ``value``, ``rows`` that both runs predicted, ``changed`` predictions, ``evaluated`` rows, ``fixed``,
        ``broken``, ``accuracy_before``, ``accuracy_after``, ``accuracy_change`` {value, low, high} (paired) and
        ``p_value`` (McNemar, adjusted by Holm over all tested slices: at least 20 evaluated rows, and not the whole
        column); ``worse`` if it is below 0.05 and more were broken than fixed.
        """
        entries = [
            _entry(column, value, group, is_all=len(self.groups[column]) == 1)
            for column, value, group in in_order(self.groups)
        ]
        tested = [entry for entry in entries if entry["p_value"] is not None]
        for entry, adjusted in zip(tested, holm([entry["p_value"] for entry in tested]), strict=True):
            entry["p_value"] = adjusted
            entry["worse"] = adjusted < SIGNIFICANT and entry["broken"] > entry["fixed"]
        return entries


def _entry(column: str, value: str, group: list[int], *, is_all: bool) -> dict[str, Any]:
    rows, changed, evaluated, right_before, right_after, fixed, broken = group
    change = paired_difference(fixed, broken, evaluated)
    is_tested = evaluated >= LEAST_ROWS and not is_all
    return {
        "column": column,
        "value": value,
        "rows": rows,
        "changed": changed,
        "evaluated": evaluated,
        "fixed": fixed,
        "broken": broken,
        "accuracy_before": ratio(right_before, evaluated),
        "accuracy_after": ratio(right_after, evaluated),
        "accuracy_change": change.to_json() if change else None,
        "p_value": mcnemar_p(fixed, broken) if is_tested else None,
        "worse": False,
    }
