"""Compare two runs of a regression over the same rows: how far values moved, and whether they came closer to the given ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.evaluation.error_moments import mean_json, spread_of
from batchscore.evaluation.significance import holm, mean_interval, student_p
from batchscore.evaluation.slices import (
    LEAST_ROWS,
    SIGNIFICANT,
    Columns,
    Group,
    add_groups,
    encoded,
    in_order,
)
from batchscore.evaluation.tally import ExactSums, Tally, exact_zeros
from batchscore.evaluation.wide_sums import wide_mean, wide_products, wide_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.floating[Any]]

SAME = 1e-5
"""Values that differ by less, of 1 or of their own size, are the same: the limit for answers of two ways to compute."""


@dataclasses.dataclass(slots=True)
class ValueComparison(Tally):
    """Tally of matched rows (the caller pairs them up)."""

    rows: int = 0
    """Rows with a value in both runs."""
    changed: int = 0
    not_compared: int = 0
    evaluated: int = 0
    closer: int = 0
    further: int = 0
    numbers_compared: int = 0
    """Evaluated rows whose given number in the earlier run is known."""
    relabelled: int = 0
    moved: ExactSums = dataclasses.field(default_factory=lambda: exact_zeros(2))
    """``[2]``: wide sums of the change of the value, and of its size."""
    errors: ExactSums = dataclasses.field(default_factory=lambda: exact_zeros(6))
    """``[6]``: wide sums of the absolute error before and its square, after and its square, their difference and its square."""

    def update(
        self, given: Values, before: Values, after: Values, given_before: Values | None = None
    ) -> None:
        """Add ``n`` rows: given numbers (not finite if unknown) and values of both runs (NaN if none).

        ``given_before``: given numbers in the earlier run, likewise.
        """
        given, before, after = (np.asarray(each, dtype=np.float64) for each in (given, before, after))
        both = np.isfinite(before) & np.isfinite(after)
        truth, old, new = given[both], before[both], after[both]
        known = np.isfinite(truth)
        then = np.full(len(truth), np.nan) if given_before is None else np.asarray(given_before)[both]
        has_both = known & np.isfinite(then)
        was_off, is_off = np.abs(old - truth)[known], np.abs(new - truth)[known]
        self.rows += len(truth)
        self.changed += int(_differs(old, new).sum())
        self.not_compared += int((~both).sum())
        self.evaluated += int(known.sum())
        self.closer += int((is_off < was_off).sum())
        self.further += int((is_off > was_off).sum())
        self.numbers_compared += int(has_both.sum())
        self.relabelled += int((has_both & (then != truth)).sum())
        self.moved += np.concatenate([wide_sums(new - old), wide_sums(np.abs(new - old))])
        self.errors += np.concatenate([sums for each in _terms(was_off, is_off) for sums in each])

    def summary(self, _labels: Sequence[str] = (), /) -> dict[str, Any]:
        """JSON values; those about errors are None without evaluated rows.

        ``rows`` compared, ``not_compared``, ``changed`` values, ``mean_change``, ``mean_absolute_change``, ``evaluated`` rows,
        ``closer`` and ``further`` ones, ``relabelled`` (evaluated rows whose given number changed; None if no number of the earlier
        run is known), ``mae_before`` and ``mae_after`` {value, low, high}, ``mae_change`` {value, low, high} and ``p_value``
        (paired t test, two-sided; None for one row).
        """
        sums = [int(each) for each in self.errors]
        return {
            "rows": self.rows,
            "not_compared": self.not_compared,
            "changed": self.changed,
            "mean_change": wide_mean(self.moved[0], self.rows),
            "mean_absolute_change": wide_mean(self.moved[1], self.rows),
            "evaluated": self.evaluated,
            "closer": self.closer,
            "further": self.further,
            "relabelled": self.relabelled if self.numbers_compared else None,
            "mae_before": mean_json(sums[0], sums[1], self.evaluated) if self.evaluated else None,
            "mae_after": mean_json(sums[2], sums[3], self.evaluated) if self.evaluated else None,
            **_paired(sums[4], sums[5], self.evaluated),
        }


def _differs(old: Values, new: Values) -> NDArray[np.bool_]:
    return np.asarray(np.abs(new - old) > SAME * np.maximum(1.0, np.abs(old)))


def _terms(
    was_off: Values, is_off: Values, codes: NDArray[np.int64] | None = None, n: int = 1
) -> list[tuple[ExactSums, ExactSums]]:
    """Wide sums of each of three terms and of its square, by slice: the errors before and after, and their difference."""
    return [
        (wide_sums(term, codes, n), wide_products(term, term, codes, n))
        for term in (was_off, is_off, is_off - was_off)
    ]


def _paired(total: int, squares: int, rows: int) -> dict[str, Any]:
    """``mae_change`` and ``p_value`` from the wide sum of the differences and that of their squares."""
    if not rows:
        return {"mae_change": None, "p_value": None}
    mean, spread = wide_mean(total, rows) or 0.0, spread_of(total, squares, rows)
    within = mean_interval(mean, spread, rows)
    if within is None:
        return {"mae_change": {"value": mean}, "p_value": None}
    if spread == 0:
        p_value = 1.0 if mean == 0 else 0.0
    else:
        p_value = student_p(mean / spread * math.sqrt(rows), rows - 1)
    return {"mae_change": {"value": mean, "low": within[0], "high": within[1]}, "p_value": p_value}


@dataclasses.dataclass(slots=True)
class ValueSliceChanges:
    """The same by column and value; at most 200 values a column.

    ``groups[column][value]`` is (rows, changed, evaluated, closer, further, and the six wide sums of the errors).
    """

    groups: dict[str, dict[str, Group]] = dataclasses.field(default_factory=dict)

    def update(
        self,
        given: Values,
        before: Values,
        after: Values,
        lengths: tuple[NDArray[np.bool_], NDArray[np.integer[Any]]],
        columns: Columns,
    ) -> None:
        """Add ``n`` rows as :meth:`ValueComparison.update` takes them; ``lengths``: ``truncated`` and ``n_tokens`` [n] now."""
        given, before, after = (np.asarray(each, dtype=np.float64) for each in (given, before, after))
        both = np.isfinite(before) & np.isfinite(after)
        known = both & np.isfinite(given)
        old, new = np.where(both, before, 0.0), np.where(both, after, 0.0)
        truth = np.where(known, given, 0.0)
        was_off, is_off = np.abs(old - truth), np.abs(new - truth)
        kinds = (
            both,
            both & _differs(old, new),
            known,
            known & (is_off < was_off),
            known & (is_off > was_off),
        )
        for column, values, codes in encoded(*lengths, columns):
            n = len(values)
            tallies: list[NDArray[Any]] = [np.bincount(codes[kind], minlength=n) for kind in kinds]
            terms = _terms(was_off[known], is_off[known], codes[known], n)
            tallies += [sums for each in terms for sums in each]
            groups = {
                value: [int(each[k]) for each in tallies] for k, value in enumerate(values) if tallies[0][k]
            }
            add_groups(self.groups.setdefault(column, {}), groups)

    def summary(self) -> list[dict[str, Any]]:
        """One entry per slice, in the order of :meth:`Slices.summary`.

        ``column``, ``value``, ``rows`` with a value in both runs, ``changed``, ``evaluated``, ``closer``, ``further``,
        ``mae_before``, ``mae_after``, ``mae_change`` {value, low, high} and ``p_value`` (paired t test, adjusted by Holm over all
        tested slices: at least 20 evaluated rows, and not the whole column); ``worse`` if it is below 0.05 and the error grew.
        """
        entries = [
            _entry(column, value, group, is_all=len(self.groups[column]) == 1)
            for column, value, group in in_order(self.groups)
        ]
        tested = [entry for entry in entries if entry["p_value"] is not None]
        for entry, adjusted in zip(tested, holm([entry["p_value"] for entry in tested]), strict=True):
            entry["p_value"] = adjusted
            entry["worse"] = adjusted < SIGNIFICANT and entry["mae_change"]["value"] > 0
        return entries


def _entry(column: str, value: str, group: Group, *, is_all: bool) -> dict[str, Any]:
    rows, changed, evaluated, closer, further, before, _, after, _, change, squares = group
    entry = {
        "column": column,
        "value": value,
        "rows": rows,
        "changed": changed,
        "evaluated": evaluated,
        "closer": closer,
        "further": further,
        "mae_before": wide_mean(before, evaluated),
        "mae_after": wide_mean(after, evaluated),
        **_paired(change, squares, evaluated),
        "worse": False,
    }
    return entry if evaluated >= LEAST_ROWS and not is_all else {**entry, "p_value": None}
