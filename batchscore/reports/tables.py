"""Tables as data for a template, without HTML."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """A table cell: text and its appearance."""

    text: str
    mark: str = ""
    """A CSS class: ``good``, ``look``, ``bad`` or none."""
    tint: int | None = None
    """Strength of the cell's colour, 0 to 100."""
    span: tuple[float, float, float] | None = None
    """An interval and a point in it, each 0 to 100, drawn as a small bar."""
    link: str = ""
    """A relative URL or a fragment of the page, already quoted."""


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """Columns named in ``head``; the first ``words`` of them are text, the others numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    words: int = 1
    note: str = ""
    """Text below the table."""

    def cells(self) -> list[list[Cell]]:
        """The rows with every cell as a :class:`Cell`."""
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]
