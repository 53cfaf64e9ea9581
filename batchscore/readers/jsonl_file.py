"""JSON Lines: one object a line; each row keeps the exact bytes of its line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from batchscore.errors import DataError, printable
from batchscore.readers.cutting import Item, cut
from batchscore.readers.source import Source, go_to, head_of, open_bytes
from batchscore.records import Column, ColumnChoice, Layout, Position, Reject, Rows

if TYPE_CHECKING:
    from batchscore.config import ReadSettings

_BOM = b"\xef\xbb\xbf"
_HEAD_RECORDS = 1000
_KEPT_BYTES = 64 * 1024
"""Of an oversized line, this much is kept in the reject."""


def describe(source: Source, settings: ReadSettings) -> Layout:
    """Find the columns among the first records; rows may still have fields of their own."""
    head = head_of(source, settings.max_expansion)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or settings.encoding not in {
        None,
        "utf-8",
        "utf8",
        "UTF-8",
    }:
        raise DataError(f"{printable(source.path)}: JSON Lines is read as UTF-8; convert the file first.")
    kinds: dict[str, str] = {}
    for line in head.removeprefix(_BOM).split(b"\n")[:_HEAD_RECORDS]:
        fields = _parse(line)
        for name, value in fields.items() if isinstance(fields, dict) else ():
            kind = _kind(value)
            if kinds.get(name, "null") == "null":
                kinds[name] = kind
            elif kind not in {"null", kinds[name]}:
                kinds[name] = "other"
    columns = tuple(Column(name, kind) for name, kind in kinds.items())
    return Layout(columns=columns, details={"bom": len(_BOM) if head.startswith(_BOM) else 0})


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if value is None:
        return "null"
    return {str: "string", int: "integer"}.get(type(value), "other")


def _parse(line: bytes) -> Any:
    """The value of one line, or the reason as a ``ValueError``'s text where it has none."""
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return ValueError(f"byte {error.start} of the line is not UTF-8")
    except json.JSONDecodeError as error:
        return ValueError(f"not JSON: {error.msg} at character {error.pos}")
    except RecursionError:
        return ValueError("nested too deeply")
    except ValueError as error:
        return ValueError(f"not JSON that can be read: {error}")


def read(
    source: Source, layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
) -> Iterator[Rows]:
    """Yield the lines as parts; one that is no object, or whose text is not a string, is a reject."""
    if start == Position():
        start = Position(0, layout.details["bom"], 1)
    with open_bytes(source, settings.max_expansion) as stream:
        go_to(stream, source, start.offset)
        yield from cut(_items(stream, columns, settings, start), columns.label is not None, settings, start)


def _items(
    stream: IO[bytes], columns: ColumnChoice, settings: ReadSettings, start: Position
) -> Iterator[Item | Reject]:
    offset, line = start.offset, start.line
    while raw := stream.readline(settings.max_row_bytes + 1):
        size = len(raw)
        if size > settings.max_row_bytes:
            while not raw.endswith(b"\n") and (more := stream.readline(1 << 20)):
                size += len(more)
                raw = raw[:_KEPT_BYTES] + more[-1:]
            reason = f"{size} bytes; the longest row allowed has {settings.max_row_bytes} (--max-row-bytes)"
            yield Reject(0, line, offset, reason, None, raw[:_KEPT_BYTES])
        elif raw.strip():
            yield _item(raw, line, offset, columns)
        offset += size
        line += 1


def _item(raw: bytes, line: int, offset: int, columns: ColumnChoice) -> Item | Reject:
    fields = _parse(raw)
    if isinstance(fields, ValueError):
        return Reject(0, line, offset, str(fields), None, raw)
    if not isinstance(fields, dict):
        return Reject(0, line, offset, f"a JSON {_kind(fields)}, not an object", None, raw)
    text = fields.get(columns.text)
    if not isinstance(text, str | None):
        return Reject(
            0, line, offset, f"the text is a {type(text).__name__}, not a string", columns.text, raw
        )
    if text is not None and not _is_scalar(text):
        return Reject(0, line, offset, "the text holds half of a surrogate pair", columns.text, raw)
    label = fields.get(columns.label) if columns.label else None
    return Item(raw, line, offset, text, label, fields)


def _is_scalar(text: str) -> bool:
    """Whether every character can be written as UTF-8 (JSON's escapes can name half a surrogate pair)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
