"""Match the values of a label column to the model's labels: by name, by id, or by ``--label-map``.

All values of a file are matched together. ``1`` alone could be a label id, but not in a column of star ratings: numbers are
ids only if *all* numbers in the column can be, and nothing else explains them. An ambiguous column is refused, and the
message names the option that resolves it.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from batchscore.errors import UsageError, printable
from batchscore.pairs import pair_of
from batchscore.records import UNKNOWN_LABEL, UNLABELLED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAMES, IDS = "names", "ids"
"""How the values of a file are matched."""
MEANINGLESS = (
    "the labels of the model are only LABEL_0, LABEL_1 and so on. Say what each value means with --label-map, for example "
    "--label-map 1=LABEL_1"
)
"""Why given labels cannot be compared with such a model."""
NO_LABEL = ""
"""``--label-map`` maps a value to this if it is no label."""
_IDS_KEY = ""
"""The key in a label map that stands for ``--label-map ids``: numbers are the model's ids."""
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?(?:e[+-]?\d+)?")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
_MOST_IN_RANGE = 10_000
_LISTED = 100
"""Distinct values listed; the rest are counted together."""
_MAX_SHOWN = 12
"""Values named in a message."""
_LONGEST_SHOWN = 32
OTHERS = "(other)"
_ALIASES = {"negative": ("neg",), "neg": ("negative",), "positive": ("pos",), "pos": ("positive",)}


def label_key(value: object) -> str:
    """The lookup key of a given label value: ``1``, ``1.0``, ``"1"`` and ``" 1 "`` have the same one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip().casefold()
    return text[:-2] if text.endswith(".0") and text[:-2].lstrip("-").isdigit() else text


def is_missing(value: object) -> bool:
    """Whether a label value is null, NaN or blank."""
    return value is None or value != value or not str(value).strip()  # noqa: PLR0124 - NaN


def counted(values: Iterable[Any]) -> Iterable[tuple[Any, int]]:
    """Some values with how often each comes, in the order in which they come first: most columns have few.

    What is equal without being the same, as 1, 1.0 and true are, is kept apart.

    >>> list(counted(["good", None, "good"])), list(counted([1, True, 1]))
    ([('good', 2), (None, 1)], [(1, 1), (True, 1), (1, 1)])
    """
    values = list(values)
    kinds = {*map(type, values)} - {type(None)}
    if len(kinds) == 1 and kinds <= {str, int, bool}:
        return collections.Counter(values).items()
    return ((value, 1) for value in values)


def parse_label_map(texts: Iterable[str]) -> dict[str, str]:
    """Parse ``GIVEN=LABEL``: ``1..2=NEGATIVE`` maps both numbers, ``3=`` makes 3 no label; one text may hold several.

    ``ids`` alone means that numbers are the model's ids. A name with a ``=`` stands in quotes (:mod:`batchscore.pairs`).

    >>> parse_label_map(["1..2=NEGATIVE 3=", "good film=POSITIVE", 'good="rating=5"'])
    {'1': 'NEGATIVE', '2': 'NEGATIVE', '3': '', 'good film': 'POSITIVE', 'good': 'rating=5'}

    Raises:
        UsageError: no ``=``, nothing before it, or a value mapped to two labels.
    """
    found: dict[str, str] = {}
    for text in texts:
        if text.strip() == IDS:
            found[_IDS_KEY] = IDS
            continue
        pieces = text.split()
        is_list = len(pieces) > 1 and '"' not in text and all("=" in piece for piece in pieces)
        for given, label in map(_pair, pieces if is_list else [text]):
            for value in _values(given):
                if found.setdefault(value, label) != label:
                    raise UsageError(
                        f"--label-map says of {printable(value)} both {printable(found[value])!r} and {printable(label)!r}."
                    )
    return found


def _pair(text: str) -> tuple[str, str]:
    pair = pair_of(text)
    if pair is None:
        raise UsageError(
            f"--label-map {printable(text)!r} is not GIVEN=LABEL, such as pos=POSITIVE, 4..5=POSITIVE or 3= (no label)."
        )
    return pair


def _values(given: str) -> list[str]:
    match = _RANGE.fullmatch(given.strip())
    if match is None:
        return [given]
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < _MOST_IN_RANGE:
        raise UsageError(f"--label-map {given}: from {first} to {last} is no range.")
    return [str(value) for value in range(first, last + 1)]


class LabelNames:
    """Lookup tables, key → label index: ``by_name``, ``by_id`` and ``given`` (from ``--label-map``)."""

    def __init__(
        self, labels: Sequence[str], label_map: Mapping[str, str], *, one_of_them: bool = True
    ) -> None:
        """``one_of_them``: a row has exactly one, so that of two labels 0 and 1, or false and true, are the two."""
        self.labels = tuple(labels)
        self.are_two = one_of_them and len(labels) == 2
        self.by_name = _names(self.labels, has_booleans=self.are_two)
        self.are_ids = _IDS_KEY in label_map
        """Whether the user declared numbers to be ids."""
        pairs = [(value, label) for value, label in label_map.items() if value != _IDS_KEY]
        self.given = {label_key(value): self._target(value, label) for value, label in pairs}
        ids = {str(index): index for index in range(len(self.labels))}
        mapped = {key: index for key, index in self.given.items() if _NUMBER.fullmatch(key) and index >= 0}
        numbers = [_number_in(label) for label in self.labels]
        self.has_own_numbers = None not in numbers and numbers != list(range(len(self.labels)))
        """Whether the labels' names hold numbers other than their ids (``1 star``): a number is then ambiguous."""
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


def _names(labels: Sequence[str], *, has_booleans: bool) -> dict[str, int]:
    """Key → index by name, ignoring case, with aliases of ``pos`` and ``neg``, and booleans for one of two labels.

    A name that two labels share up to case matches neither.
    """
    keys = [label_key(label) for label in labels]
    names = {key: index for index, key in enumerate(keys) if keys.count(key) == 1}
    aliases = {alias: index for name, index in names.items() for alias in _ALIASES.get(name, ())}
    return {**(_booleans(names) if has_booleans else {}), **aliases, **names}


def _booleans(names: Mapping[str, int]) -> dict[str, int]:
    """The indices of true and false of two labels: by their names, else 1 and 0."""
    no = next((names[name] for name in ("negative", "neg") if name in names), 0)
    yes = next((names[name] for name in ("positive", "pos") if name in names), 1 - no)
    return {"true": yes, "false": 1 - yes}


def _number_in(label: str) -> int | None:
    found = re.search(r"\d+", label)
    return int(found[0]) if found else None


class GivenLabels:
    """Maps the given label values of one file to indices of the model's labels."""

    def __init__(self, names: LabelNames, reading: str, class_names: Sequence[str] = ()) -> None:
        """``class_names`` are the names that the file declares for 0, 1 and so on."""
        self._class_names = tuple(class_names)
        self._given = names.given
        self._table = {**(names.by_id if reading == IDS else {}), **names.by_name, **names.given}

    def index(self, value: object) -> int:
        """The label's index; ``UNLABELLED`` for null, NaN and blank; ``UNKNOWN_LABEL`` if no label matches."""
        if is_missing(value):
            return UNLABELLED
        key = label_key(value)
        if self._class_names and key not in self._given:
            key = named_key(key, self._class_names)
            if not key:
                return UNLABELLED
        return self._table.get(key, UNKNOWN_LABEL)

    def indices(self, labels: Sequence[object] | None, rows: int) -> NDArray[np.int32]:
        """Label indices of a part, int32 ``[rows]``."""
        import numpy as np

        if labels is None:
            return np.full(rows, UNLABELLED, dtype=np.int32)
        return np.fromiter((self.index(value) for value in labels), dtype=np.int32, count=rows)


def named_key(key: str, class_names: Sequence[str]) -> str:
    """The key of a number's class name; empty for -1, which is "no label" in ``datasets``; other keys unchanged."""
    if key == "-1":
        return ""
    if key.isdecimal() and int(key) < len(class_names):
        return label_key(class_names[int(key)])
    return key


class Meaning(NamedTuple):
    """How the values of a file's label column were matched."""

    reading: str
    labelled: int
    """Rows with a label that the model knows."""
    values: dict[str, str]
    """The label of each matched value, ``""`` if it is no label; at most a hundred."""
    unknown: dict[str, int]
    """Unmatched values, with the number of rows of each."""


class LabelValues:
    """Counts the values in a label column of one file, in bounded memory."""

    def __init__(self, names: LabelNames, class_names: Sequence[str] = ()) -> None:
        self._names, self._class_names = names, tuple(class_names)
        self._most = max(1000, 2 * len(names.labels))
        self._known: collections.Counter[str] = collections.Counter()
        """Rows per key that is a label's name or in ``--label-map``."""
        self._numbers: collections.Counter[str] = collections.Counter()
        self._words: collections.Counter[str] = collections.Counter()
        self._spelling: dict[str, str] = {}

    def update(self, values: Iterable[object]) -> None:
        """Count some values."""
        self.count(counted(values))

    def count(self, values: Iterable[tuple[object, int]]) -> None:
        """Count values of so many rows each."""
        for value, rows in values:
            if not is_missing(value):
                self._count(value, rows)

    def _count(self, value: object, rows: int) -> None:
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
        counter[key] += rows

    @property
    def counts_from_0(self) -> bool:
        """Whether 0 is among the numbers, so that they count from 0 as ids do, and not from 1."""
        return "0" in self._numbers

    def meaning(self, *, counts_from_0: bool = False) -> Meaning | None:
        """How the values match, or None if that is ambiguous.

        ``counts_from_0``: another file of the run has 0 in a column of the same name.
        """
        if not self._numbers or self._has_label_names:
            return self._match(NAMES, {})
        if not set(self._numbers) <= set(self._names.by_id):
            return None
        is_certain = self._names.are_two or self._names.are_ids
        from_0 = is_certain or counts_from_0 or self.counts_from_0
        return self._match(IDS, self._names.by_id) if from_0 else None

    @property
    def _has_label_names(self) -> bool:
        """Whether some values match labels by name: numbers beside them are no ids."""
        table = {**self._names.by_name, **self._names.given}
        return any(not _NUMBER.fullmatch(key) and table[key] >= 0 for key in self._known)

    def _match(self, reading: str, ids: Mapping[str, int]) -> Meaning | None:
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
        """The most frequent values as spelled, the rest as one count."""
        most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        listed = {self._spelling[key]: count for key, count in most[:_LISTED] if key != OTHERS}
        rest = sum(counts.values()) - sum(listed.values())
        return dict(sorted(listed.items())) | ({OTHERS: rest} if rest else {})

    def problem(self, column: str) -> str:
        """Why the values do not match: names them, and the option that maps them."""
        unknown = self._numbers or self._words
        labels = ", ".join(f"{index} {label}" for index, label in enumerate(self._names.labels[:_MAX_SHOWN]))
        more = (
            f" and {len(self._names.labels) - _MAX_SHOWN} more"
            if len(self._names.labels) > _MAX_SHOWN
            else ""
        )
        if not self._numbers:
            what = "none of the values in"
            tail = "is a label of the model"
        elif set(self._numbers) <= set(self._names.by_id):
            what, tail = "the numbers in", "may count the model's labels from 0 or from 1"
        else:
            what, tail = "the numbers in", "are neither names nor exactly the ids of the model's labels"
        return (
            f"{what} its label column {printable(column)} ({self._shown(unknown)}) {tail} ({printable(labels)}{more}). "
            f"Say what they mean: {self._example(unknown)}; or name another --label-column; or score without labels: --no-labels"
        )

    def _shown(self, counts: Mapping[str, int]) -> str:
        keys = sorted(counts, key=_sort_key)
        shown = [shown_value(self._spelling.get(key, key)) for key in keys[:_MAX_SHOWN]]
        return ", ".join(shown) + (f" and {len(keys) - _MAX_SHOWN} more" if len(keys) > _MAX_SHOWN else "")

    def _example(self, counts: Mapping[str, int]) -> str:
        """An example option, with the column's own values in order if they are few; only the user knows if it is right."""
        labels = self._names.labels
        numbers = sorted((key for key in counts if re.fullmatch(r"-?\d+", key)), key=int)
        if set(numbers) <= set(self._names.by_id) and numbers:
            return "--label-map ids if they count from 0, else --label-map GIVEN=LABEL"
        if len(numbers) == len(labels) <= _MAX_SHOWN:
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


def _sort_key(key: str) -> tuple[float, str]:
    return (float(key), key) if re.fullmatch(r"[+-]?\d+(\.\d+)?", key) else (float("inf"), key)


def shown_value(value: str) -> str:
    """A label value for a message, unless it is so long that it may be part of a review."""
    is_short = len(value) <= _LONGEST_SHOWN and value.count(" ") < 3
    return printable(value) if is_short else f"(a text of {len(value)} characters)"
