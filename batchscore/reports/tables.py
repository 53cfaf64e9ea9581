"""Tables as data: what a template needs to lay one out, and nothing of HTML."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """Something in a table: text, and what is to be seen of it."""

    text: str
    mark: str = ""
    """A CSS class: ``good``, ``look``, ``bad`` or none."""
    tint: int | None = None
    """How strongly the cell is coloured, 0 to 100."""
    span: tuple[float, float, float] | None = None
    """An interval and a point in it, each 0 to 100, drawn as a small bar."""
    link: str = ""
    """A relative address, quoted already."""


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """Columns named in ``head``; the first ``words`` of them hold words, the others numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    words: int = 1
    note: str = ""
    """Said below the table."""

    def cells(self) -> list[list[Cell]]:
        """The rows with every cell as a :class:`Cell`."""
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]
