"""Several labels of a row: a list, a text with ``;`` between them, or a column of 0 and 1 for each label.

The items of all rows are matched together, as the values of a single label are (:mod:`batchscore.model.labels`). Numbers are
ids only where rows are seen to hold lists: a lone 0 or 1 more often says of one label whether it holds.
"""

from __future__ import annotations

import ast
import collections
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from batchscore.errors import printable
from batchscore.model.labels import (
    IDS,
    NAMES,
    GivenLabels,
    LabelNames,
    LabelValues,
    Meaning,
    counted,
    is_missing,
    label_key,
    shown_value,
)
from batchscore.records import UNKNOWN_LABEL, UNLABELLED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLUMNS = "columns"
"""How values are read that have a column for each label."""
_JOINT = ";"
_LONGEST_LITERAL = 10_000
_YES, _NO = frozenset({"1", "true"}), frozenset({"0", "false"})
_MOST_ODD = 1000
_SHOWN = 6


def items_of(cell: Any, *, is_joined: bool = True) -> list[Any] | None:
    """The labels in a cell; None for null, NaN and blank text.

    A list, also as JSON or as Python prints it; else a text with ``;`` between them (``is_joined``), or one label.

    >>> items_of("toxic; insult"), items_of('["toxic"]'), items_of("[]"), items_of(" "), items_of(3)
    (['toxic', 'insult'], ['toxic'], [], None, [3])
    """
    if isinstance(cell, list | tuple):
        return list(cell)
    if is_missing(cell):
        return None
    if not isinstance(cell, str):
        return [cell]
    text = cell.strip()
    if text.startswith("[") and text.endswith("]") and (items := _literal(text)) is not None:
        return items
    pieces = text.split(_JOINT) if is_joined else [text]
    return [piece for piece in pieces if piece.strip()]


def is_list(cell: Any) -> bool:
    """Whether a cell shows by its form that it may hold several labels."""
    if isinstance(cell, str):
        return _JOINT in cell or cell.strip().startswith("[")
    return isinstance(cell, list | tuple)


def _literal(text: str) -> list[Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _python_literal(text)
    return value if isinstance(value, list) and not any(isinstance(v, list | dict) for v in value) else None


def _python_literal(text: str) -> Any:
    """A list as ``str`` of Python makes it, which pandas writes into CSV."""
    if len(text) > _LONGEST_LITERAL:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


class SetsReader:
    """Reads cells of several labels."""

    def __init__(self, names: LabelNames, reading: str, class_names: Sequence[str] = ()) -> None:
        self._reader = GivenLabels(names, reading, class_names)
        self._n_labels = len(names.labels)
        self._is_joined = is_joined(names)

    def chosen(self, cell: Any) -> list[int] | int:
        """The indices of a cell's labels; ``UNLABELLED`` if it is missing, ``UNKNOWN_LABEL`` if it holds no label's value."""
        items = items_of(cell, is_joined=self._is_joined)
        if items is None:
            return UNLABELLED
        found = [UNKNOWN_LABEL if is_missing(item) else self._reader.index(item) for item in items]
        return UNKNOWN_LABEL if UNKNOWN_LABEL in found else [index for index in found if index >= 0]

    def indices(self, labels: Sequence[Any] | None, rows: int) -> NDArray[np.int8]:
        """0 and 1 for each label, int8 ``[rows, C]``; a row of -1 is unlabelled, one of -2 holds an unknown value."""
        import numpy as np

        given = np.full((rows, self._n_labels), UNLABELLED, dtype=np.int8)
        for row, cell in enumerate(labels or ()):
            chosen = self.chosen(cell)
            if isinstance(chosen, int):
                given[row] = chosen
            else:
                given[row] = 0
                given[row, chosen] = 1
        return given


def is_joined(names: LabelNames) -> bool:
    """Whether ``;`` in a text stands between labels, and not within one."""
    return not any(_JOINT in name for name in (*names.labels, *names.given))


class SetsSurvey:
    """Counts the labels in cells of one file."""

    def __init__(self, names: LabelNames, class_names: Sequence[str] = ()) -> None:
        self._names, self._values = names, LabelValues(names, class_names)
        self._readers = {reading: SetsReader(names, reading, class_names) for reading in (NAMES, IDS)}
        self._labelled: collections.Counter[str] = collections.Counter()
        """Rows all of whose labels are known, by reading."""
        self._is_joined = is_joined(names)
        self._has_lists = bool(class_names) or names.are_ids

    @property
    def counts_from_0(self) -> bool:
        """Whether 0 is among the numbers in lists."""
        return self._has_lists and self._values.counts_from_0

    def update(self, values: Iterable[Any]) -> None:
        """Count some cells."""
        self.count(counted(values))

    def count(self, values: Iterable[tuple[Any, int]]) -> None:
        """Count cells of so many rows each."""
        for cell, rows in values:
            items = items_of(cell, is_joined=self._is_joined)
            if items is None:
                continue
            self._has_lists = self._has_lists or is_list(cell)
            self._values.count(("null" if is_missing(item) else item, rows) for item in items)
            for reading, reader in self._readers.items():
                self._labelled[reading] += rows * (not isinstance(reader.chosen(cell), int))

    def meaning(self, *, counts_from_0: bool = False) -> Meaning | None:
        """How the labels match, or None if that is ambiguous."""
        found = self._values.meaning(counts_from_0=counts_from_0)
        if found is None or (found.reading == IDS and not self._has_lists):
            return None
        return found._replace(labelled=self._labelled[found.reading])

    def problem(self, column: str) -> str:
        """Why the labels do not match: names them, and the option that maps them."""
        if self._has_lists or not self._values.counts_from_0:
            return self._values.problem(column)
        return (
            f"each row of its label column {printable(column)} holds one number, which may be the id of a label, or say of one "
            "label whether it holds. Say what they mean: --label-map ids, or --label-map GIVEN=LABEL (0= is no label); or "
            "name a column of 0 and 1 for each label: --label-columns NAME,NAME; or score without labels: --no-labels"
        )


class ColumnsReader:
    """Reads a column of 0 and 1 for each label; a cell that is blank or -1 leaves the row unlabelled."""

    def __init__(self, n_labels: int) -> None:
        self._n_labels = n_labels

    def indices(self, labels: Sequence[Any] | None, rows: int) -> NDArray[np.int8]:
        """As :meth:`SetsReader.indices`."""
        import numpy as np

        given = np.full((rows, self._n_labels), UNLABELLED, dtype=np.int8)
        for row, cells in enumerate(labels or ()):
            given[row] = _flags(cells)
        return given


def _flags(cells: Sequence[Any]) -> list[int] | int:
    keys = [label_key(cell) if not is_missing(cell) else "-1" for cell in cells]
    if any(key not in _YES and key not in _NO and key != "-1" for key in keys):
        return UNKNOWN_LABEL
    return UNLABELLED if "-1" in keys else [int(key in _YES) for key in keys]


class ColumnsSurvey:
    """Counts the values in the columns of one file; anything but 0, 1, false, true, -1 and blank is a problem."""

    counts_from_0 = False

    def __init__(self, labels: Sequence[str], columns: Sequence[str]) -> None:
        self._labels, self._columns = labels, columns
        self._labelled = 0
        self._odd: dict[str, set[str]] = {}
        """Column → values that are neither yes nor no."""

    def update(self, values: Iterable[Sequence[Any]]) -> None:
        """Count some rows."""
        self.count((cells, 1) for cells in values)

    def count(self, values: Iterable[tuple[Sequence[Any], int]]) -> None:
        """Count the cells of so many rows each."""
        for cells, rows in values:
            found = _flags(cells)
            self._labelled += rows * (not isinstance(found, int))
            if found == UNKNOWN_LABEL:
                self._note_odd(cells)

    def _note_odd(self, cells: Sequence[Any]) -> None:
        for column, cell in zip(self._columns, cells, strict=True):
            key = "-1" if is_missing(cell) else label_key(cell)
            odd = self._odd.setdefault(column, set())
            if key not in {*_YES, *_NO, "-1"} and len(odd) < _MOST_ODD:
                odd.add(key)

    def meaning(self, *, counts_from_0: bool = False) -> Meaning | None:  # noqa: ARG002
        """Each column is its label, or None if one holds anything but 0 and 1."""
        if self._odd:
            return None
        values = dict(list(zip(self._columns, self._labels, strict=True))[:100])
        return Meaning(COLUMNS, self._labelled, values, {})

    def problem(self, column: str) -> str:  # noqa: ARG002
        """Which column holds what."""
        name, odd = next((name, odd) for name, odd in self._odd.items() if odd)
        shown = ", ".join(map(shown_value, sorted(odd)[:_SHOWN]))
        more = f" and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
        return (
            f"its column {printable(name)}, taken for the given labels, holds values that are neither 0 nor 1 ({shown}{more}). "
            "Name other columns with --label-columns, or one column of lists with --label-column; or score without labels: "
            "--no-labels"
        )
