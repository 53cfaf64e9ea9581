"""Accuracy by slice, and which slices are significantly worse than the rest.

A column may have any number of values, but memory is bounded: the first 200 values in alphabetical order are kept, the rest
are counted together as ``(other)``. Which values are kept does not depend on the order of rows or parts: a value that
dropped out of the first 200 never returns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from batchscore.errors import DataError
from batchscore.evaluation.significance import holm, wilson, worse_p
from batchscore.evaluation.tally import exact_mean, exact_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.evaluation.outcomes import RowOutcomes

Columns = Mapping[str, Sequence[object] | str]
"""Columns to slice by: one value per row, or one string for all rows."""

MOST_VALUES = 200
LONGEST_VALUE = 100
"""Characters of a value; values with the same prefix are one slice."""
OTHER, NULL = "(other)", "(null)"
LEAST_ROWS = 20
"""A slice with fewer evaluated rows is not tested."""
SIGNIFICANT = 0.05
LENGTHS = (64, 128, 256, 512)
LENGTH_BANDS = ("1-64", "65-128", "129-256", "257-512", ">512")
_TRUNCATED = ("no", "yes")
_BUILT_IN = {"truncated": _TRUNCATED, "n_tokens": LENGTH_BANDS}

Group = list[int]
"""Scored rows, evaluated rows, correct rows, exact sum of the probabilities of the scored rows."""


@dataclasses.dataclass(slots=True)
class Slices:
    """Tallies by column and value; ``groups[column][value]`` is (scored, evaluated, correct, exact sum of probability)."""

    WIDTH: ClassVar[int] = 4
    """Numbers of a group."""

    groups: dict[str, dict[str, Group]] = dataclasses.field(default_factory=dict)

    def update(self, outcomes: RowOutcomes, columns: Columns) -> None:
        """Add the scored rows among ``outcomes``, by each column of :func:`encoded`."""
        for column, values, codes in encoded(outcomes.truncated, outcomes.n_tokens, columns):
            self._add(column, outcomes, values, codes)

    def _add(
        self, column: str, outcomes: RowOutcomes, values: Sequence[str], codes: NDArray[np.int64]
    ) -> None:
        n = len(values)
        scored, evaluated, correct = (
            np.bincount(codes[rows], minlength=n)
            for rows in (outcomes.scored, outcomes.evaluated, outcomes.correct)
        )
        probability = exact_sums(outcomes.top[outcomes.scored], codes[outcomes.scored], n)
        groups = {
            value: [int(scored[k]), int(evaluated[k]), int(correct[k]), probability[k]]
            for k, value in enumerate(values)
            if scored[k]
        }
        add_groups(self.groups.setdefault(column, {}), groups)

    def merge(self, other: Self) -> None:
        """Add the rows of ``other``."""
        for column, groups in other.groups.items():
            add_groups(self.groups.setdefault(column, {}), groups)

    def summary(self) -> list[dict[str, Any]]:
        """One entry per slice, by column and value: the built-in columns first, ``(null)`` and ``(other)`` last.

        ``worse`` is True if the error rate is significantly higher than in the other slices of the column: one-sided z
        test for two proportions (Fisher's exact test if a cell expects fewer than 5 rows), ``p_value`` adjusted by Holm
        over all tested slices of all columns, below 0.05. Slices with fewer than 20 evaluated rows, and those that are
        the whole column, are not tested (``p_value`` None).
        """
        wholes = {column: sum_of(groups.values()) for column, groups in self.groups.items() if groups}
        entries = [
            _entry(column, value, group, wholes[column]) for column, value, group in in_order(self.groups)
        ]
        tested = [entry for entry in entries if entry["p_value"] is not None]
        for entry, adjusted in zip(tested, holm([entry["p_value"] for entry in tested]), strict=True):
            entry["p_value"], entry["worse"] = adjusted, adjusted < SIGNIFICANT
        return entries

    def to_state(self) -> dict[str, Any]:
        """The groups as JSON values."""
        return {
            column: {value: list(group) for value, group in sorted(groups.items())}
            for column, groups in sorted(self.groups.items())
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_state`; raises :class:`DataError` if the groups cannot be read."""
        try:
            groups = {
                c: {v: [int(x) for x in group] for v, group in values.items()} for c, values in state.items()
            }
        except (AttributeError, TypeError, ValueError) as error:
            raise DataError(f"the stored slices cannot be read ({error}); run the scoring again") from error
        if any(len(group) != cls.WIDTH for values in groups.values() for group in values.values()):
            raise DataError("the stored slices cannot be read; run the scoring again")
        return cls(groups)


def _entry(column: str, value: str, group: Group, whole: Group) -> dict[str, Any]:
    rows, evaluated, correct, probability = group
    rest, rest_correct = whole[1] - evaluated, whole[2] - correct
    accuracy = wilson(correct, evaluated)
    is_tested = evaluated >= LEAST_ROWS and rest > 0
    return {
        "column": column,
        "value": value,
        "rows": rows,
        "evaluated": evaluated,
        "accuracy": accuracy.to_json() if accuracy else None,
        "expected_accuracy": exact_mean(probability, rows),
        "p_value": worse_p(evaluated - correct, evaluated, rest - rest_correct, rest) if is_tested else None,
        "worse": False,
    }


def encoded(
    truncated: NDArray[np.bool_], n_tokens: NDArray[np.integer[Any]], columns: Columns
) -> Iterator[tuple[str, Sequence[str], NDArray[np.int64]]]:
    """Each column of ``n`` rows with its values, and the index of each row's value ``[n]``: the built-in ones first.

    A column with the name of a built-in one gets ``(input)`` after its name.
    """
    yield "truncated", _TRUNCATED, truncated.astype(np.int64)
    yield "n_tokens", LENGTH_BANDS, np.searchsorted(LENGTHS, n_tokens, side="left")
    for name, values in columns.items():
        one = isinstance(values, str)
        texts, codes = _factorize([values] if one else values)
        column = f"{name} (input)" if name in _BUILT_IN else name
        yield column, texts, np.zeros(len(n_tokens), dtype=np.int64) if one else codes


def add_groups(mine: dict[str, Group], groups: Mapping[str, Group]) -> None:
    """Add tallies by value to those of a column, and merge values beyond the first 200."""
    for value, group in groups.items():
        mine[value] = sum_of((mine[value], group)) if value in mine else list(group)
    surplus = sorted(mine.keys() - {OTHER})[MOST_VALUES:]
    if surplus:
        rest = [mine.pop(value) for value in surplus]
        mine[OTHER] = sum_of([*rest, mine[OTHER]] if OTHER in mine else rest)


def in_order(groups: Mapping[str, Mapping[str, Group]]) -> Iterator[tuple[str, str, Group]]:
    """Column, value and tally: the built-in columns first, ``(null)`` and ``(other)`` last."""
    for column in sorted(groups, key=lambda name: (name not in _BUILT_IN, name)):
        for value in sorted(groups[column], key=lambda value: _place(column, value)):
            yield column, value, groups[column][value]


def _factorize(values: Sequence[object]) -> tuple[list[str], NDArray[np.int64]]:
    index: dict[str, int] = {}
    texts = (NULL if value is None else str(value)[:LONGEST_VALUE] for value in values)
    codes = np.fromiter(
        (index.setdefault(text, len(index)) for text in texts), dtype=np.int64, count=len(values)
    )
    return list(index), codes


def sum_of(groups: Iterable[Group]) -> Group:
    """Groups put together."""
    return [sum(column) for column in zip(*groups, strict=True)]


def _place(column: str, value: str) -> tuple[int, int, str]:
    order = _BUILT_IN.get(column, ())
    return (value == OTHER) * 2 + (value == NULL), order.index(value) if value in order else 0, value
