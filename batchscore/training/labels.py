"""Given label values in, label names and their order out: pure.

Values are compared as in the scorer (:func:`batchscore.model.labels.label_key`): ``1``, ``1.0`` and ``"1"`` are one value, as
are ``Sports`` and ``sports``.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from batchscore.errors import DataError, UsageError, printable
from batchscore.model.labels import is_missing, label_key, shown_value

NEGATIVE_POSITIVE = ("NEGATIVE", "POSITIVE")
_NEGATIVE, _POSITIVE = {"0", "neg", "negative"}, {"1", "pos", "positive"}
_LISTED = 20


@dataclasses.dataclass(frozen=True, slots=True)
class LabelTable:
    """Label names in the order of the logits, and the index of each given value."""

    names: tuple[str, ...]
    by_key: Mapping[str, int]

    def index(self, value: object) -> int | None:
        """The label's index; ``None`` for an unknown value."""
        return self.by_key.get(label_key(value))


def label_table(
    values: Sequence[Any], class_names: Sequence[str] | None, given: Mapping[str, str]
) -> LabelTable:
    """Name the labels of the training rows.

    ``class_names`` are those that a data set declares for 0, 1, …; ``given`` is the user's mapping (value → name), and wins.
    Two values 0 and 1, or neg and pos, are NEGATIVE and POSITIVE; other integers keep their number, in numerical
    order; other texts keep their most frequent spelling, sorted.

    >>> label_table([1, 0, 1], None, {}).names
    ('NEGATIVE', 'POSITIVE')
    >>> label_table(["b", "a", "B", "B"], None, {}).names
    ('a', 'B')

    Raises:
        DataError: fewer than two labels, or so many that the column is hardly a label.
        UsageError: ``given`` has a value that does not occur.
    """
    spellings = _spellings(values, class_names)
    keys = list(spellings)
    names = {**spellings, **_sentiment(keys), **_wanted(given, keys, bool(class_names))}
    labels = tuple(dict.fromkeys(names[key] for key in keys))
    known = sum(not is_missing(value) for value in values)
    if len(labels) < 2 or len(labels) * 2 > known:
        raise DataError(
            f"The label column has {len(labels)} different values in {known} rows ({_listed(labels)}); training needs two "
            "labels or more, and two rows or more of each. Name another column with --label-column."
        )
    _refuse_alike(labels)
    numbers = {str(number): key for number, key in enumerate(keys)} if class_names else {}
    by_key = {key: labels.index(names[key]) for key in keys}
    return LabelTable(labels, {**{number: by_key[key] for number, key in numbers.items()}, **by_key})


def names_of(
    items: Sequence[Any], class_names: Sequence[str] | None, given: Mapping[str, str]
) -> dict[str, str]:
    """The name of each value, by its key; values and ``given`` as for :func:`label_table`, but 0 and 1 keep their numbers.

    Raises:
        UsageError: ``given`` has a value that does not occur, or two names differ in their case only.
    """
    spellings = _spellings(items, class_names)
    names = {**spellings, **_wanted(given, list(spellings), bool(class_names))}
    _refuse_alike({*names.values()})
    return names


def _refuse_alike(labels: Collection[str]) -> None:
    if len({name.casefold() for name in labels}) < len(labels):
        raise UsageError(
            f"Two labels differ in their case only: {_listed(sorted(labels))}. See --label-name."
        )


def _spellings(values: Sequence[Any], class_names: Sequence[str] | None) -> dict[str, str]:
    """Key → spelling of each value, in label order."""
    if class_names:
        return {label_key(name): name.strip() for name in class_names}
    seen: dict[str, collections.Counter[str]] = {}
    for value in values:
        if not is_missing(value):
            seen.setdefault(label_key(value), collections.Counter())[str(value).strip()] += 1
    are_numbers = all(re.fullmatch(r"-?\d+", key) for key in seen)
    keys = sorted(seen, key=int) if are_numbers else sorted(seen)
    return {key: key if are_numbers else min(seen[key], key=lambda t: (-seen[key][t], t)) for key in keys}


def _sentiment(keys: Sequence[str]) -> dict[str, str]:
    if len(keys) == 2 and keys[0] in _NEGATIVE and keys[1] in _POSITIVE:
        return dict(zip(keys, NEGATIVE_POSITIVE, strict=True))
    return {}


def _wanted(given: Mapping[str, str], keys: Sequence[str], are_classes: bool) -> dict[str, str]:
    wanted = {}
    for value, name in given.items():
        key = label_key(value)
        if key not in keys and are_classes and key.isdecimal() and int(key) < len(keys):
            key = keys[int(key)]
        if key not in keys:
            raise UsageError(
                f"--label-name {printable(value)}={printable(name)}: there is no such label value. There are: {_listed(keys)}."
            )
        wanted[key] = name
    return wanted


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(map(shown_value, names[:_LISTED])) + more
