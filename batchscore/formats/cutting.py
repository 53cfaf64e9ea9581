"""Cutting the records of a text format into parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from batchscore.records import ColumnChoice, Position, Reject, Rows

if TYPE_CHECKING:
    from batchscore.config import ReadSettings


class Item(NamedTuple):
    """One readable record: its bytes and position, its text, label and second text, and its own field names in JSON."""

    raw: bytes
    line: int
    offset: int
    text: str | None
    label: Any
    names: Iterable[str] = ()
    pair: str | None = None


def cut(
    items: Iterable[Item | Reject], columns: ColumnChoice, settings: ReadSettings, start: Position
) -> Iterator[Rows]:
    """Cut records into parts of at most ``part_rows`` rows and ``part_bytes`` bytes; a part is never empty."""
    part = _new_part(start, columns)
    row, size = start.row, 0
    for item in items:
        if part.rows_in and (
            part.rows_in >= settings.part_rows or size + len(item.raw) > settings.part_bytes
        ):
            yield part
            part = _new_part(Position(row, item.offset or 0, item.line or 1), columns)
            size = 0
        _add(part, row, item)
        row += 1
        size += len(item.raw)
        del item  # before the next one is read
    if part.rows_in:
        yield part


def _new_part(start: Position, columns: ColumnChoice) -> Rows:
    return Rows(
        start=start,
        row=[],
        texts=[],
        labels=[] if columns.label is not None else None,
        rejects=[],
        raw=[],
        lines=[],
        pairs=[] if columns.text_pair is not None else None,
    )


def _add(part: Rows, row: int, item: Item | Reject) -> None:
    if isinstance(item, Reject):
        part.rejects.append(dataclasses.replace(item, row=row))
        return
    part.row.append(row)
    part.texts.append(item.text)
    part.names.update(item.names)
    assert part.raw is not None and part.lines is not None  # noqa: S101, PT018 - _new_part made them
    part.raw.append(item.raw)
    part.lines.append(item.line)
    if part.labels is not None:
        part.labels.append(item.label)
    if part.pairs is not None:
        part.pairs.append(item.pair)
