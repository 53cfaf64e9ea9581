"""What the values in a label column mean: as names of the model's labels, as exactly their ids, or as ``--label-map`` says.

The values of a file are looked at together. One star in a file of stars is no label id, though ``1`` by itself could be one:
so numbers mean ids only where *all* numbers in the column do, and nothing else is known of them. What cannot be told is
refused, and the message says how to tell it.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from batchscore.errors import UsageError, printable
from batchscore.records import UNKNOWN_LABEL, UNLABELLED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAMES, IDS = "names", "ids"
"""How the values of a file are read."""
NO_LABEL = ""
"""What ``--label-map`` maps a value to that is to count as none."""
_ASSERTED = ""
"""The value under which a label map keeps that numbers are the model's ids (``--label-map ids``)."""
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?(?:e[+-]?\d+)?")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
_MOST_IN_RANGE = 10_000
_LISTED = 100
"""Distinct values that are listed; further ones are counted together."""
_SAID = 12
"""Values that a message names."""
_LONGEST_SAID = 32
OTHERS = "(other)"
_ALIASES = {"negative": ("neg",), "neg": ("negative",), "positive": ("pos",), "pos": ("positive",)}


def label_key(value: object) -> str:
    """A given label value as it is looked up: ``1``, ``1.0``, ``"1"`` and ``" 1 "`` are one value."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip().casefold()
    return text[:-2] if text.endswith(".0") and text[:-2].lstrip("-").isdigit() else text


def is_missing(value: object) -> bool:
    """Whether a label value is null, NaN or blank."""
    return value is None or value != value or not str(value).strip()  # noqa: PLR0124 - NaN


def parse_label_map(texts: Iterable[str]) -> dict[str, str]:
    """Read ``GIVEN=LABEL``; ``1..2=NEGATIVE`` means both numbers, ``3=`` that 3 is no label; several may stand in one text.

    ``ids`` by itself says that numbers are the model's ids.

    >>> parse_label_map(["1..2=NEGATIVE 3=", "good film=POSITIVE"])
    {'1': 'NEGATIVE', '2': 'NEGATIVE', '3': '', 'good film': 'POSITIVE'}

    Raises:
        UsageError: there is no ``=``, or nothing before it, or a value is mapped twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        if text.strip() == IDS:
            found[_ASSERTED] = IDS
            continue
        pieces = text.split()
        pairs = pieces if len(pieces) > 1 and all("=" in piece for piece in pieces) else [text]
        for given, label in map(_pair, pairs):
            for value in _values(given):
                if found.setdefault(value, label) != label:
                    raise UsageError(
                        f"--label-map says of {printable(value)} both {found[value]!r} and {label!r}."
                    )
    return found


def _pair(text: str) -> tuple[str, str]:
    given, equals, label = text.rpartition("=")
    if not equals or not given.strip():
        raise UsageError(
            f"--label-map {printable(text)!r} is not GIVEN=LABEL, such as pos=POSITIVE, 4..5=POSITIVE or 3= (no label)."
        )
    return given, label.strip()


def _values(given: str) -> list[str]:
    match = _RANGE.fullmatch(given.strip())
    if match is None:
        return [given]
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < _MOST_IN_RANGE:
        raise UsageError(f"--label-map {given}: from {first} to {last} is no range.")
    return [str(value) for value in range(first, last + 1)]


class LabelNames:
    """What values may mean to a model: ``by_name``, ``by_id`` and ``given`` (by ``--label-map``), each key → index."""

    def __init__(self, labels: Sequence[str], label_map: Mapping[str, str]) -> None:
        self.labels = tuple(labels)
        self.by_name = _names(self.labels)
        self.are_ids = _ASSERTED in label_map
        """Whether the user says that numbers are ids."""
        pairs = [(value, label) for value, label in label_map.items() if value != _ASSERTED]
        self.given = {label_key(value): self._target(value, label) for value, label in pairs}
        ids = {str(index): index for index in range(len(self.labels))}
        mapped = {key: index for key, index in self.given.items() if _NUMBER.fullmatch(key) and index >= 0}
        numbers = [_number_in(label) for label in self.labels]
        self.has_own_numbers = None not in numbers and numbers != list(range(len(self.labels)))
        """Whether each label's name holds a number that is not its id (``1 star``): then a number may mean either."""
        is_free = all(ids.get(key) == index for key, index in mapped.items())
        self.by_id = ids if self.are_ids or (is_free and not self.has_own_numbers) else {}

    def _target(self, value: str, label: str) -> int:
        if label == NO_LABEL:
            return UNLABELLED
        index = self.labels.index(label) if label in self.labels else self.by_name.get(label_key(label))
        if index is None:
            raise UsageError(
                f"--label-map {printable(value)}={printable(label)}: the model's labels are "
                f"{printable(', '.join(self.labels))}."
            )
        return index


def _names(labels: Sequence[str]) -> dict[str, int]:
    """Key → index by name, without case; of ``pos`` and ``neg`` either spelling; for two labels booleans.

    A name that two labels have but for their case matches neither.
    """
    keys = [label_key(label) for label in labels]
    names = {key: index for index, key in enumerate(keys) if keys.count(key) == 1}
    aliases = {alias: index for name, index in names.items() for alias in _ALIASES.get(name, ())}
    return {**(_booleans(names) if len(labels) == 2 else {}), **aliases, **names}


def _booleans(names: Mapping[str, int]) -> dict[str, int]:
    """Of two labels, which is meant by true and which by false: as their names say, else as the ids 1 and 0."""
    no = next((names[name] for name in ("negative", "neg") if name in names), 0)
    yes = next((names[name] for name in ("positive", "pos") if name in names), 1 - no)
    return {"true": yes, "false": 1 - yes}


def _number_in(label: str) -> int | None:
    found = re.search(r"\d+", label)
    return int(found[0]) if found else None


class GivenLabels:
    """Given label values of one file as indices of the model's labels."""

    def __init__(self, names: LabelNames, reading: str, class_names: Sequence[str] = ()) -> None:
        """``class_names`` are those that the file itself gives its numbers 0, 1 and so on."""
        self._class_names = tuple(class_names)
        self._given = names.given
        self._table = {**(names.by_id if reading == IDS else {}), **names.by_name, **names.given}

    def index(self, value: object) -> int:
        """The label's index; ``UNLABELLED`` for null, NaN and empty; ``UNKNOWN_LABEL`` for what no label matches."""
        if is_missing(value):
            return UNLABELLED
        key = label_key(value)
        if self._class_names and key not in self._given:
            key = named_key(key, self._class_names)
            if not key:
                return UNLABELLED
        return self._table.get(key, UNKNOWN_LABEL)

    def indices(self, labels: Sequence[object] | None, rows: int) -> NDArray[np.int32]:
        """The indices of a part's label values, int32 ``[rows]``."""
        import numpy as np

        if labels is None:
            return np.full(rows, UNLABELLED, dtype=np.int32)
        return np.fromiter((self.index(value) for value in labels), dtype=np.int32, count=rows)


def named_key(key: str, class_names: Sequence[str]) -> str:
    """The key of a number's class name; empty for -1, by which ``datasets`` means none; any other key as it is."""
    if key == "-1":
        return ""
    if key.isdecimal() and int(key) < len(class_names):
        return label_key(class_names[int(key)])
    return key


class Meaning(NamedTuple):
    """What the values of a file's label column were found to mean."""

    reading: str
    labelled: int
    """Rows with a label that the model knows."""
    values: dict[str, str]
    """The label of each value that has one, ``""`` of those that are to count as none; a hundred at the most."""
    unknown: dict[str, int]
    """Values without a label, with how many rows have each."""


class LabelValues:
    """The values in a label column of one file, counted as they come; memory does not grow with them."""

    def __init__(self, names: LabelNames, class_names: Sequence[str] = ()) -> None:
        self._names, self._class_names = names, tuple(class_names)
        self._most = max(1000, 2 * len(names.labels))
        self._known: collections.Counter[str] = collections.Counter()
        """Rows by the key of a name, or of what ``--label-map`` has."""
        self._numbers: collections.Counter[str] = collections.Counter()
        self._words: collections.Counter[str] = collections.Counter()
        self._spelling: dict[str, str] = {}

    def update(self, values: Iterable[object]) -> None:
        """Count some values."""
        for value in values:
            if not is_missing(value):
                self._count(value)

    def _count(self, value: object) -> None:
        given, raw = self._names.given, label_key(value)
        key = raw if raw in given or not self._class_names else named_key(raw, self._class_names)
        if not key:
            return
        if key in given or key in self._names.by_name:
            counter = self._known
        else:
            counter = self._numbers if _NUMBER.fullmatch(key) else self._words
        if counter is self._known or key in counter or len(counter) < self._most:
            spelling = str(value).strip() if key == raw else f"{raw} ({self._class_names[int(raw)]})"
            self._spelling.setdefault(key, printable(spelling)[:100])
        else:
            key = OTHERS
        counter[key] += 1

    @property
    def counts_from_0(self) -> bool:
        """Whether 0 is among the numbers: then they are ids, if they are within them, and do not count from 1."""
        return "0" in self._numbers

    def meaning(self, *, counts_from_0: bool = False) -> Meaning | None:
        """What they mean together, or None where nobody can tell.

        ``counts_from_0`` says that another file of the run, with a column of the same name, has 0.
        """
        if not self._numbers or self._has_words_for_labels:
            return self._read_as(NAMES, {})
        if not set(self._numbers) <= set(self._names.by_id):
            return None
        is_certain = len(self._names.labels) == 2 or self._names.are_ids
        from_0 = is_certain or counts_from_0 or self.counts_from_0
        return self._read_as(IDS, self._names.by_id) if from_0 else None

    @property
    def _has_words_for_labels(self) -> bool:
        """Whether some values are labels by their names: numbers beside them are no ids."""
        table = {**self._names.by_name, **self._names.given}
        return any(not _NUMBER.fullmatch(key) and table[key] >= 0 for key in self._known)

    def _read_as(self, reading: str, ids: Mapping[str, int]) -> Meaning | None:
        table = {**ids, **self._names.by_name, **self._names.given}
        counts = self._known + self._numbers + self._words
        labelled = sum(count for key, count in counts.items() if table.get(key, UNKNOWN_LABEL) >= 0)
        unknown = {key: count for key, count in counts.items() if key not in table}
        if unknown and not labelled and not any(key in self._names.given for key in counts):
            return None
        values = {
            self._spelling[key]: self._names.labels[table[key]] if table[key] >= 0 else NO_LABEL
            for key in sorted(counts)[: 10 * _LISTED]
            if key in table
        }
        return Meaning(reading, labelled, dict(list(values.items())[:_LISTED]), self._listed(unknown))

    def _listed(self, counts: Mapping[str, int]) -> dict[str, int]:
        """The commonest values as they are spelled, the rest together."""
        most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        listed = {self._spelling[key]: count for key, count in most[:_LISTED] if key != OTHERS}
        rest = sum(counts.values()) - sum(listed.values())
        return dict(sorted(listed.items())) | ({OTHERS: rest} if rest else {})

    def problem(self, column: str) -> str:
        """Why they mean nothing that is known, naming the values and the option that tells it."""
        unknown = self._numbers or self._words
        labels = ", ".join(f"{index} {label}" for index, label in enumerate(self._names.labels[:_SAID]))
        more = f" and {len(self._names.labels) - _SAID} more" if len(self._names.labels) > _SAID else ""
        if not self._numbers:
            what = "none of the values in"
            tail = "is a label of the model"
        elif set(self._numbers) <= set(self._names.by_id):
            what, tail = "the numbers in", "may count the model's labels from 0 or from 1"
        else:
            what, tail = "the numbers in", "are neither names nor exactly the ids of the model's labels"
        return (
            f"{what} its label column {printable(column)} ({self._said(unknown)}) {tail} ({printable(labels)}{more}). "
            f"Say what they mean: {self._example(unknown)}; or name another --label-column; or score without labels: --no-labels"
        )

    def _said(self, counts: Mapping[str, int]) -> str:
        keys = sorted(counts, key=_in_order)
        shown = [said_value(self._spelling.get(key, key)) for key in keys[:_SAID]]
        return ", ".join(shown) + (f" and {len(keys) - _SAID} more" if len(keys) > _SAID else "")

    def _example(self, counts: Mapping[str, int]) -> str:
        """The option with these very values, in their order, where there are few; nobody but the user knows if it is right."""
        labels = self._names.labels
        numbers = sorted((key for key in counts if re.fullmatch(r"-?\d+", key)), key=int)
        if set(numbers) <= set(self._names.by_id) and numbers:
            return "--label-map ids if they count from 0, else --label-map GIVEN=LABEL"
        if len(numbers) == len(labels) <= _SAID:
            return f"for example {_maps(zip(numbers, labels, strict=True))}"
        if len(labels) == 2 and len(numbers) > 2:
            half = len(numbers) // 2
            low, high = numbers[:half], numbers[-half:]
            middle = [(each, NO_LABEL) for each in numbers[half:-half]]
            pairs = [(_span(low), labels[0]), *middle, (_span(high), labels[1])]
            return f"for example {_maps(pairs)}{f' ({middle[0][0]}= is no label)' if middle else ''}"
        return _maps([("GIVEN", "LABEL")])


def _maps(pairs: Iterable[tuple[str, str]]) -> str:
    return " ".join(
        "--label-map " + (f"'{given}={label}'" if " " in label else f"{given}={label}")
        for given, label in pairs
    )


def _span(numbers: Sequence[str]) -> str:
    return numbers[0] if len(numbers) == 1 else f"{numbers[0]}..{numbers[-1]}"


def _in_order(key: str) -> tuple[float, str]:
    return (float(key), key) if re.fullmatch(r"[+-]?\d+(\.\d+)?", key) else (float("inf"), key)


def said_value(value: str) -> str:
    """A label value for a message, unless it is so long that it may be a piece of a review."""
    is_short = len(value) <= _LONGEST_SAID and value.count(" ") < 3
    return printable(value) if is_short else f"(a text of {len(value)} characters)"
