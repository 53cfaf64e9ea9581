"""JSON Lines: one object a line; each row keeps the exact bytes of its line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

from batchscore.errors import DataError, printable
from batchscore.readers.cutting import Item, cut
from batchscore.readers.source import HEAD_BYTES, Source, go_to, head_of, open_bytes
from batchscore.records import Column, ColumnChoice, Layout, Position, Reject, Rows

if TYPE_CHECKING:
    from batchscore.config import ReadSettings

_BOM = b"\xef\xbb\xbf"
_HEAD_RECORDS = 1000
_KEPT_BYTES = 64 * 1024
"""Of an oversized line, this much is kept in the reject."""
_MAX_DEPTH = 200
"""Arrays and objects within each other; Python's own limit depends on who calls, so that a plan could not rely on it."""


def describe(source: Source, settings: ReadSettings) -> Layout:
    """Find the columns among the first records; rows may still have fields of their own."""
    head = head_of(source, settings.max_expansion)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or not _is_utf8(settings.encoding):
        raise DataError(f"{printable(source.path)}: JSON Lines is read as UTF-8; convert the file first.")
    offset = len(_BOM) if head.startswith(_BOM) else 0
    with open_bytes(source, settings.max_expansion) as stream:
        stream.read(offset)
        kinds = _kinds(_head_records(stream, settings))
    columns = tuple(Column(name, kind) for name, kind in kinds.items())
    return Layout(columns=columns, details={"bom": offset})


def _is_utf8(encoding: str | None) -> bool:
    return encoding is None or encoding.lower().replace("_", "-") in {"utf-8", "utf8", "utf-8-sig"}


def _head_records(stream: IO[bytes], settings: ReadSettings) -> Iterator[dict[str, Any]]:
    """The objects of the first lines: some hundred, and at least one if the file has any."""
    size = found = 0
    for raw, length in _lines(stream, settings.max_row_bytes):
        fields = _parse(raw) if length <= settings.max_row_bytes else None
        if isinstance(fields, dict):
            yield fields
            found += 1
        size += length
        if found and (size > HEAD_BYTES or found == _HEAD_RECORDS):
            return


def _kinds(records: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Name → kind of each field; one that holds values of several kinds is ``mixed``."""
    kinds: dict[str, str] = {}
    for fields in records:
        for name, value in fields.items():
            kind = _kind(value)
            if kinds.get(name, "null") == "null":
                kinds[name] = kind
            elif kind not in {"null", kinds[name]}:
                kinds[name] = "mixed"
    return kinds


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if value is None:
        return "null"
    return {str: "string", int: "integer"}.get(type(value), "other")


def _parse(line: bytes) -> Any:
    """The value of one line, or the reason as a ``ValueError``'s text where it has none."""
    try:
        value = json.loads(line.decode("utf-8"))
        return ValueError("nested too deeply") if _is_too_deep(line, value) else value
    except UnicodeDecodeError as error:
        return ValueError(f"byte {error.start} of the line is not UTF-8")
    except json.JSONDecodeError as error:
        return ValueError(f"not JSON: {error.msg} at character {error.pos}")
    except RecursionError:
        return ValueError("nested too deeply")
    except ValueError as error:
        return ValueError(f"not JSON that can be read: {error}")


def _is_too_deep(line: bytes, value: object) -> bool:
    """Whether arrays and objects stand more than ``_MAX_DEPTH`` within each other."""
    if line.count(b"[") + line.count(b"{") <= _MAX_DEPTH:
        return False
    level = [value]
    for _ in range(_MAX_DEPTH + 1):
        level = [item for each in level for item in _inside(each)]
    return bool(level)


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


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
    for raw, size in _lines(stream, settings.max_row_bytes):
        if size > settings.max_row_bytes:
            reason = f"{size} bytes; the longest row allowed has {settings.max_row_bytes} (--max-row-bytes)"
            yield Reject(0, line, offset, reason, None, raw)
        elif raw.strip():
            yield _item(raw, line, offset, columns)
        offset += size
        line += 1


def _lines(stream: IO[bytes], max_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Each line and its size in bytes; of one longer than ``max_bytes`` only the first bytes."""
    while raw := stream.readline(max_bytes + 1):
        size = len(raw)
        if size > max_bytes:
            last = raw[-1:]
            raw = raw[:_KEPT_BYTES]
            while last != b"\n" and (more := stream.readline(1 << 20)):
                size, last = size + len(more), more[-1:]
        yield raw, size


def _item(raw: bytes, line: int, offset: int, columns: ColumnChoice) -> Item | Reject:
    fields = _parse(raw)
    if isinstance(fields, ValueError):
        return Reject(0, line, offset, str(fields), None, raw)
    if not isinstance(fields, dict):
        return Reject(0, line, offset, f"a JSON {_json_type(fields)}, not an object", None, raw)
    if b"\\u" in raw and not _is_scalar("".join(fields)):
        return Reject(0, line, offset, "a field's name holds half of a surrogate pair", None, raw)
    text = fields.get(columns.text)
    if not isinstance(text, str | None):
        return Reject(
            0, line, offset, f"the text is a JSON {_json_type(text)}, not a string", columns.text, raw
        )
    if text is not None and not _is_scalar(text):
        return Reject(0, line, offset, "the text holds half of a surrogate pair", columns.text, raw)
    label = fields.get(columns.label) if columns.label else None
    return Item(raw, line, offset, text, label, fields)


def _json_type(value: object) -> str:
    """The word that JSON has for a kind of value."""
    words = {str: "string", bool: "boolean", dict: "object", list: "array"}
    return "null" if value is None else words.get(type(value), "number")


def _is_scalar(text: str) -> bool:
    """Whether every character can be written as UTF-8 (JSON's escapes can name half a surrogate pair)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
