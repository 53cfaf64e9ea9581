"""The files of a run as its page links to them."""

from __future__ import annotations

import dataclasses
import os
import urllib.parse
from collections.abc import Mapping, Sequence

from batchscore.reports.formats import shown
from batchscore.reports.tables import Cell, Table

_MOST_FILES = 30


@dataclasses.dataclass(frozen=True, slots=True)
class WrittenFile:
    """One file below the run folder."""

    name: str
    """Its path below the folder, with ``/``."""
    what: str
    """What it holds, in words."""
    size: int | None = None
    """Bytes; None where that is not known yet."""

    @property
    def link(self) -> str:
        """Its URL, relative to the folder: percent-encoded, so that no name is taken for a scheme, a query or a fragment."""
        return urllib.parse.quote(os.fsencode(self.name))


def links(files: Sequence[WrittenFile]) -> Mapping[str, str]:
    """Name → URL of the files directly in the folder, whose names are the run's own and not from outside."""
    return {file.name: file.link for file in files if "/" not in file.name}


def table(files: Sequence[WrittenFile]) -> Table | None:
    """Each file with what it holds and its size; None without files. Of many, the first thirty."""
    if not files:
        return None
    lines: list[list[str | Cell]] = [
        [Cell(shown(file.name), link=file.link), file.what, _size(file.size)] for file in files[:_MOST_FILES]
    ]
    surplus = len(files) - _MOST_FILES
    note = f"{surplus:,} more are in the same folders." if surplus > 0 else ""
    return Table(["file", "what it holds", "size"], lines, words=2, note=note)


def _size(size: int | None) -> str:
    """A size in words.

    >>> _size(999), _size(1_234_567), _size(None)
    ('999 B', '1.23 MB', '')
    """
    if size is None:
        return ""
    if size < 1000:
        return f"{size} B"
    for unit, factor in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if size < 999.5 * factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size / 1e12:.3g} TB"
