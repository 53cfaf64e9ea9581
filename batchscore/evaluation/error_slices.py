"""Mean absolute error by slice of a regression, and which slices are significantly further off than the rest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.evaluation.error_moments import mean_json, spread_of
from batchscore.evaluation.significance import holm
from batchscore.evaluation.slices import (
    LEAST_ROWS,
    SIGNIFICANT,
    Columns,
    Group,
    Slices,
    add_groups,
    encoded,
    in_order,
    sum_of,
)
from batchscore.evaluation.wide_sums import wide_mean, wide_products, wide_sums

if TYPE_CHECKING:
    from batchscore.evaluation.numbers import Numbers


class ErrorSlices(Slices):
    """As :class:`Slices`; a group is (scored, evaluated, wide sums of the absolute error, error^2, error and value)."""

    WIDTH = 6

    def add(self, numbers: Numbers, columns: Columns) -> None:
        """Add the scored rows among ``numbers``."""
        rows = numbers.rows
        error, value = numbers.error, numbers.value[rows.scored]
        for column, values, codes in encoded(rows.truncated, rows.n_tokens, columns):
            n, scored, evaluated = len(values), codes[rows.scored], codes[rows.evaluated]
            tallies = (
                np.bincount(scored, minlength=n),
                np.bincount(evaluated, minlength=n),
                wide_sums(np.abs(error), evaluated, n),
                wide_products(error, error, evaluated, n),
                wide_sums(error, evaluated, n),
                wide_sums(value, scored, n),
            )
            groups = {
                name: [int(tally[k]) for tally in tallies] for k, name in enumerate(values) if tallies[0][k]
            }
            add_groups(self.groups.setdefault(column, {}), groups)

    def summary(self) -> list[dict[str, Any]]:
        """One entry per slice, in the order of :meth:`Slices.summary`.

        ``column``, ``value``, ``rows``, ``evaluated``, ``mae`` {value, low, high}, ``bias``, ``mean_value``; ``worse`` if the
        mean absolute error is significantly larger than in the other slices of the column: one-sided z test of two means (Welch),
        ``p_value`` adjusted by Holm over all tested slices of all columns, below 0.05. Slices with fewer than 20 evaluated rows,
        and those whose rest has fewer, are not tested.
        """
        wholes = {column: sum_of(groups.values()) for column, groups in self.groups.items() if groups}
        entries = [
            _entry(column, value, group, wholes[column]) for column, value, group in in_order(self.groups)
        ]
        tested = [entry for entry in entries if entry["p_value"] is not None]
        for entry, adjusted in zip(tested, holm([entry["p_value"] for entry in tested]), strict=True):
            entry["p_value"], entry["worse"] = adjusted, adjusted < SIGNIFICANT
        return entries


def _entry(column: str, value: str, group: Group, whole: Group) -> dict[str, Any]:
    rows, evaluated, absolute, squares, error, total = group
    rest = [all_of - own for all_of, own in zip(whole, group, strict=True)]
    is_tested = evaluated >= LEAST_ROWS and rest[1] >= LEAST_ROWS
    return {
        "column": column,
        "value": value,
        "rows": rows,
        "evaluated": evaluated,
        "mae": mean_json(absolute, squares, evaluated) if evaluated else None,
        "bias": wide_mean(error, evaluated),
        "mean_value": wide_mean(total, rows),
        "p_value": _larger_p(group, rest) if is_tested else None,
        "worse": False,
    }


def _larger_p(group: Group, rest: Group) -> float:
    """One-sided p-value that the mean absolute error of a group is larger than that of the rest."""
    (mean, variance), (mean_rest, variance_rest) = (_mean_and_variance(each) for each in (group, rest))
    spread = math.sqrt(variance + variance_rest)
    if spread == 0:
        return 1.0
    return 0.5 * math.erfc((mean - mean_rest) / spread / math.sqrt(2))


def _mean_and_variance(group: Group) -> tuple[float, float]:
    _, rows, absolute, squares, *_ = group
    return wide_mean(absolute, rows) or 0.0, spread_of(absolute, squares, rows) ** 2 / rows
