"""Predictions in a folder for each value of a column, as Hive has them: ``predictions/day=2026-11-01/<input name>``.

The column is in the folder's name, and no longer in the file. Names are encoded as pyarrow does it: the UTF-8 bytes of what is
no letter, digit or one of ``-._~`` as ``%XX``, and ``__HIVE_DEFAULT_PARTITION__`` for null. One file is written at a time, from
the parts that have rows for it; which those are is on disk, 4 bytes a row.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from batchscore.errors import DataError, printable
from batchscore.formats.arrow_values import take_rows
from batchscore.formats.column_choice import refuse_named
from batchscore.formats.columns import texts_of
from batchscore.system.own_paths import AnyPath, own
from batchscore.system.storage import open_file

if TYPE_CHECKING:
    from batchscore.formats.staged import StagedPart
    from batchscore.records import InputFile, Layout, Part

MOST = 1000
"""Partitions of a run at most: more are small files that are slow to read, and a column that was not meant."""
NULL = "__HIVE_DEFAULT_PARTITION__"
_LONGEST = 255
"""Bytes of a folder's name."""
_UNFIT = {"object": "objects", "list": "lists", "binary": "bytes", "number": "numbers with decimals"}


def folder_of(column: str, value: str | None) -> str:
    """The name of a partition's folder.

    >>> folder_of("day", "2026-11-01"), folder_of("shop", "A/B ä"), folder_of("shop", None)
    ('day=2026-11-01', 'shop=A%2FB%20%C3%A4', 'shop=__HIVE_DEFAULT_PARTITION__')
    """
    text = NULL if value is None else urllib.parse.quote(value, safe="", errors="surrogatepass")
    return f"{column}={text}"


def value_of(folder: str) -> str | None:
    """The value that the name of a partition's folder stands for.

    >>> value_of("shop=A%2FB%20%C3%A4"), value_of("shop=__HIVE_DEFAULT_PARTITION__")
    ('A/B ä', None)
    """
    text = folder.partition("=")[2]
    return None if text == NULL else urllib.parse.unquote(text, errors="surrogatepass")


class PartitionValues:
    """The values of the column, seen while a run is planned; nothing without a column."""

    def __init__(self, column: str | None) -> None:
        self.column = column
        self._folders: set[str] = set()

    def refuse_column(self, layout: Layout, path: Path) -> None:
        """Refuse a column that a file does not have, or that cannot name folders.

        Raises:
            DataError: names the columns that there are.
        """
        name = self.column
        if name is None or not layout.columns:
            return
        found = [column for column in layout.columns if column.name == name]
        refuse_named("", name, found, layout, path, "--partition-by")
        if found[0].kind in _UNFIT:
            raise DataError(
                f"{printable(path)}: --partition-by {printable(name)}: the column holds {_UNFIT[found[0].kind]}, which name no "
                "folders. Choose one of texts, whole numbers or dates."
            )
        if name.startswith((".", "_")) or any(sign in name for sign in "=/\0"):
            raise DataError(
                f"{printable(path)}: --partition-by {printable(name)}: readers take no folder of such a name for a partition. "
                "Rename the column in the input."
            )

    def update(self, values: Sequence[str | None], path: Path) -> None:
        """Add the values of some rows of a file.

        Raises:
            DataError: they are too many, or one is too long.
        """
        self._add({folder_of(self.column or "", value) for value in set(values)}, path)

    def add(self, other: PartitionValues, path: Path) -> None:
        """Add those of a whole file; raises what :meth:`update` does."""
        self._add(other._folders, path)

    def _add(self, folders: set[str], path: Path) -> None:
        new = folders - self._folders
        self._folders |= new
        if len(self._folders) > MOST:
            raise DataError(
                f"{printable(path)}: --partition-by {printable(self.column)}: the column has more than {MOST:,} values, and each "
                "would be a folder. Choose one with fewer, such as a day."
            )
        if any(len(os.fsencode(name)) > _LONGEST for name in new):
            raise DataError(
                f"{printable(path)}: --partition-by {printable(self.column)}: a value is too long for the name of a folder, which has "
                f"at most {_LONGEST} bytes."
            )


class Partitions:
    """Which staged rows are in which partition."""

    def __init__(
        self,
        files: Sequence[InputFile],
        parts: Sequence[Part],
        column: str,
        path: AnyPath,
        open_part: Callable[[int], StagedPart],
    ) -> None:
        """Read the column of every part once; the number of each row's partition goes to the file ``path``."""
        self._parts, self._path, self._open = parts, path, open_part
        numbers: dict[str, int] = {}
        self._places: dict[int, list[int]] = {}
        """The places of the parts of each file."""
        for place, part in enumerate(parts):
            self._places.setdefault(part.file, []).append(place)
        self._has = np.zeros((len(parts), MOST), dtype=np.bool_)
        """``[parts, MOST]``: whether a part has rows of a partition."""
        self._ends = np.zeros(len(parts) + 1, dtype=np.int64)
        """Rows before each part."""
        with own(path).open_fresh() as out:
            for place, part in enumerate(parts):
                values = texts_of(open_part(part.number), files[part.file], [column])[column]
                folders = (numbers.setdefault(folder_of(column, value), len(numbers)) for value in values)
                found = np.fromiter(folders, dtype=np.int32, count=len(values))
                self._has[place, np.unique(found)] = True
                self._ends[place + 1] = self._ends[place] + len(found)
                out.write(found.tobytes())
        self._numbers = numbers

    def folders(self, file: int) -> list[str]:
        """The partitions that a file has rows of, by their folders' names in order."""
        has = np.logical_or.reduce(self._has[self._places.get(file, [])], axis=0)
        return sorted(name for name, number in self._numbers.items() if has[number])

    def parts(self, file: int, folder: str) -> Iterator[StagedPart]:
        """The rows of a file that are in a partition, in order; of each part that has any."""
        number = self._numbers[folder]
        for place in self._places.get(file, []):
            if self._has[place, number]:
                staged = self._open(self._parts[place].number)
                rows = np.flatnonzero(self._numbers_of(place) == number)
                yield staged.rows(take_rows(staged.batch, rows))

    def _numbers_of(self, place: int) -> np.ndarray:
        start, end = self._ends[place], self._ends[place + 1]
        with open_file(self._path) as file:
            return np.fromfile(file, dtype=np.int32, count=int(end - start), offset=int(start) * 4)
