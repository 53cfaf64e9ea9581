"""JSON Lines: one object per line; each row keeps the exact bytes of its line."""

from __future__ import annotations

import abc
import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa

from batchscore.errors import DataError, printable
from batchscore.formats.arrow_values import records_of
from batchscore.formats.cutting import Item, cut
from batchscore.formats.format import (
    NUL,
    Format,
    Output,
    RecordFormat,
    Texts,
    Unheld,
    format_of,
    is_input_format,
)
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.paths import MAX_LEVELS, nested_details, path_of, value_at
from batchscore.formats.pieces import RowEnds
from batchscore.formats.source import HEAD_BYTES, Source, head_of, open_bytes, seek_to
from batchscore.records import Column, ColumnChoice, Layout, Position, Reject, Rows

if TYPE_CHECKING:
    from batchscore.config import ReadSettings
    from batchscore.formats.staged import StagedPart
    from batchscore.records import InputFile

_BOM = b"\xef\xbb\xbf"
_HEAD_RECORDS = 1000
_KEPT_BYTES = 64 * 1024
"""Maximum bytes of an oversized line in its reject."""
_MAX_DEPTH = 200
"""Maximum nesting; Python's own limit depends on the call stack, so a plan could not rely on it."""


def describe(source: Source, settings: ReadSettings) -> Layout:
    """Find the columns in the first records; later rows may have other fields."""
    head = refuse_encoding(source, settings)
    offset = len(_BOM) if head.startswith(_BOM) else 0
    with open_bytes(source, settings.max_expansion) as stream:
        stream.read(offset)
        layout = layout_of(_head_lines(stream, settings))
    return dataclasses.replace(layout, details={**layout.details, "bom": offset})


def refuse_encoding(source: Source, settings: ReadSettings) -> bytes:
    """The head of a JSON file, which must be UTF-8."""
    head = head_of(source, settings.max_expansion)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or not _is_utf8(settings.encoding):
        raise DataError(f"{printable(source.path)}: JSON is read as UTF-8; convert the file first.")
    return head


def _is_utf8(encoding: str | None) -> bool:
    return encoding is None or encoding.lower().replace("_", "-") in {"utf-8", "utf8", "utf-8-sig"}


def layout_of(records: Iterable[bytes]) -> Layout:
    """The columns of the first records, and fields of nested objects under their dotted names."""
    objects = [fields for raw in records if isinstance(fields := _parse(raw), dict)]
    columns = tuple(Column(name, kind) for name, kind in _kinds(objects).items())
    nested: dict[tuple[str, ...], str] = {}
    for column in columns:
        if column.kind == "object":
            nested |= _nested((column.name,), [fields.get(column.name) for fields in objects])
    return Layout(columns=columns, details=nested_details(nested))


def _nested(path: tuple[str, ...], values: Iterable[object]) -> dict[tuple[str, ...], str]:
    """Path → kind of each field in objects, recursively."""
    found: dict[tuple[str, ...], str] = {}
    objects = [value for value in values if isinstance(value, dict)]
    for name, kind in _kinds(objects).items():
        if len(path) < MAX_LEVELS:
            found[*path, name] = kind
            if kind == "object":
                found |= _nested((*path, name), [fields.get(name) for fields in objects])
    return found


def _head_lines(stream: IO[bytes], settings: ReadSettings) -> Iterator[bytes]:
    """The first lines with objects: some hundred, and at least one if the file has any."""
    size = found = 0
    for raw, length in _lines(stream, settings.max_row_bytes):
        if length <= settings.max_row_bytes and isinstance(_parse(raw), dict):
            yield raw
            found += 1
        size += length
        if found and (size > HEAD_BYTES or found == _HEAD_RECORDS):
            return


def _kinds(records: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Name → kind of each field; ``mixed`` if it has values of several kinds.

    Names with half of a surrogate pair are left out: a record that has one is a reject, and no other format can hold it.
    """
    kinds: dict[str, str] = {}
    for fields in records:
        for name, value in fields.items():
            if not _is_encodable(name):
                continue
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
    kinds = {str: "string", int: "integer", float: "number", dict: "object", list: "list"}
    return kinds.get(type(value), "other")


def _parse(line: bytes) -> Any:
    """The value of one line; raises ``ValueError`` with the reason if it is invalid."""
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
    """Whether arrays and objects are nested more than ``_MAX_DEPTH`` deep."""
    if line.count(b"[") + line.count(b"{") <= _MAX_DEPTH:
        return False
    level = [value]
    for _ in range(_MAX_DEPTH + 1):
        level = [item for each in level for item in _children(each)]
    return bool(level)


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def read(
    source: Source, layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
) -> Iterator[Rows]:
    """Yield the lines as parts; one that is not an object, or whose text is not a string, is a reject."""
    if start == Position():
        start = Position(0, layout.details["bom"], 1)
    with open_bytes(source, settings.max_expansion) as stream:
        seek_to(stream, source, start.offset)
        items = _items(stream, layout, columns, settings, start)
        yield from cut(items, columns, settings, start)


def _items(
    stream: IO[bytes], layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
) -> Iterator[Item | Reject]:
    offset, line = start.offset, start.line
    for raw, size in _lines(stream, settings.max_row_bytes):
        if size > settings.max_row_bytes:
            yield Reject(0, line, offset, too_long(size, settings.max_row_bytes), None, raw)
        elif raw.strip():
            yield item(raw, line, offset, layout, columns)
        offset += size
        line += 1


def too_long(size: int, max_bytes: int) -> str:
    """Why a row of ``size`` bytes is a reject."""
    return f"{size} bytes; the longest row allowed has {max_bytes} (--max-row-bytes)"


def _lines(stream: IO[bytes], max_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Each line and its size in bytes; only the first bytes of a line longer than ``max_bytes``."""
    while raw := stream.readline(max_bytes + 1):
        size = len(raw)
        if size > max_bytes:
            last = raw[-1:]
            raw = raw[:_KEPT_BYTES]
            while last != b"\n" and (more := stream.readline(1 << 20)):
                size, last = size + len(more), more[-1:]
        yield raw, size


def item(raw: bytes, line: int, offset: int, layout: Layout, columns: ColumnChoice) -> Item | Reject:
    """One record as an item, or as a reject with the reason."""
    fields = _parse(raw)
    if isinstance(fields, ValueError):
        return Reject(0, line, offset, str(fields), None, raw)
    if not isinstance(fields, dict):
        return Reject(0, line, offset, f"a JSON {_json_type(fields)}, not an object", None, raw)
    if b"\\u" in raw and not _is_encodable("".join(fields)):
        return Reject(0, line, offset, "a field's name holds half of a surrogate pair", None, raw)
    texts = [value_at(fields, path_of(layout, name)) for name in columns.texts]
    for name, text in zip(columns.texts, texts, strict=True):
        if problem := _problem(text):
            return Reject(0, line, offset, problem, name, raw)
    label = value_at(fields, path_of(layout, columns.label)) if columns.label else None
    return Item(raw, line, offset, texts[0], label, fields, *texts[1:])


def _problem(text: object) -> str:
    """Why a value cannot be scored as a text; empty if it can."""
    if text is None:
        return ""
    if not isinstance(text, str):
        return f"the text is a JSON {_json_type(text)}, not a string"
    return "" if _is_encodable(text) else "the text holds half of a surrogate pair"


def _json_type(value: object) -> str:
    """The JSON name of a value's type."""
    words = {str: "string", bool: "boolean", dict: "object", list: "array"}
    return "null" if value is None else words.get(type(value), "number")


def _is_encodable(text: str) -> bool:
    """Whether every character can be written as UTF-8 (JSON's escapes can name half a surrogate pair)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# ------------------------------------------------------------------------------------------------ the cells of a record

_JSON = json.JSONDecoder()
_JSON_SPACE = re.compile(r"[ \t\r\n]*+")


def json_cells(record: bytes) -> dict[str, str | None]:
    """The fields of a JSON object: strings decoded, every other value as its text in the record.

    So is a string that UTF-8 cannot hold (half of a surrogate pair). Of two fields with the same name, the last counts.

    >>> json_cells(b'{"id": 1.10, "a": [1,  2], "text": "fine", "b": null}')
    {'id': '1.10', 'a': '[1,  2]', 'text': 'fine', 'b': None}
    """
    text = record.decode()
    cells: dict[str, str | None] = {}
    at = _skip_space(text, _skip_space(text, 0) + 1)
    while text[at] != "}":
        name, at = _JSON.raw_decode(text, at)
        at = _skip_space(text, _skip_space(text, at) + 1)  # after the colon
        value, end = _JSON.raw_decode(text, at)
        cells[name] = value if value is None or _is_plain(value) else text[at:end]
        at = _skip_space(text, end)
        at = _skip_space(text, at + 1) if text[at] == "," else at
    return cells


def held_fields(record: bytes, columns: OutputColumns) -> bytes:
    """An object with the fields that predictions hold, under their names there; each value keeps its bytes.

    >>> held_fields(b'{"id": 1.10, "text": "fine", "b":null}', OutputColumns(drop=("text",), renames={"id": "n"}))
    b'{"n": 1.10, "b": null}'
    """
    text = record.decode()
    fields: list[str] = []
    at = _skip_space(text, _skip_space(text, 0) + 1)
    while text[at] != "}":
        name, end = _JSON.raw_decode(text, at)
        key = text[at:end]
        at = _skip_space(text, _skip_space(text, end) + 1)  # after the colon
        _, end = _JSON.raw_decode(text, at)
        if columns.holds(name):
            key = json.dumps(columns.renames[name], ensure_ascii=False) if name in columns.renames else key
            fields.append(f"{key}: {text[at:end]}")
        at = _skip_space(text, end)
        at = _skip_space(text, at + 1) if text[at] == "," else at
    return ("{" + ", ".join(fields) + text[at:]).encode()


def _skip_space(text: str, at: int) -> int:
    match = _JSON_SPACE.match(text, at)
    return match.end() if match else at


def _is_plain(value: object) -> bool:
    return isinstance(value, str) and (value.isascii() or not re.search("[\ud800-\udfff]", value))


def _cell_at(cells: Mapping[str, str | None], path: Sequence[str]) -> str | None:
    """The cell at the end of a path, each step but the last being the text of a JSON object."""
    for name in path[:-1]:
        inside = cells.get(name)
        cells = json_cells(inside.encode()) if inside is not None and inside.startswith("{") else {}
    return cells.get(path[-1])


# ------------------------------------------------------------------------------------------------------- the format

_SPACE = b" \t\r\n"
_BLANK = b" \t\r\n\x0b\x0c"
"""What a line that is no row consists of."""
_LINE_END = re.compile(rb"[\r\n][ \t\r\n]*+")
"""In valid JSON, line ends occur only between values."""
_NO_LIMIT = 2**40
"""No limit for a file that the run itself wrote."""


class JsonFormat(RecordFormat):
    """JSON objects: one per line, or in an array."""

    family = "json"
    rows_have_own_names = True

    def refuse_head(self, source: Source, head: bytes) -> None:
        """Refuse a single object over several lines."""
        if is_multiline(head):
            raise DataError(
                f"{printable(source.path)}: a JSON object that is spread over several lines. What is read is an object a "
                "line, or an array of objects: jq -c . makes the one of it, jq -s . the other."
            )

    def cells(self, records: Sequence[bytes], layout: Layout) -> Iterator[Sequence[str | None]]:
        """Strings decoded, every other value as its exact JSON text; null and absent as None."""
        names = [column.name for column in layout.columns]
        return ([cells.get(name) for name in names] for cells in map(json_cells, records))

    def texts_of_records(self, records: Sequence[bytes], layout: Layout, names: Sequence[str]) -> Texts:
        """Strings decoded, other values as their JSON text."""
        paths = {name: path_of(layout, name) for name in names}
        columns: Texts = {name: [] for name in names}
        for record in records:
            cells = json_cells(record)
            for name, path in paths.items():
                columns[name].append(_cell_at(cells, path))
        return columns

    def json_objects(self, part: StagedPart, file: InputFile) -> Iterator[bytes]:
        """Each record's own bytes."""
        yield from records_of(part.inputs[0])

    def held_rows(self, rows: Rows, columns: OutputColumns) -> Rows:
        """The fields that are held, of records with an escape alone: others are held in any format."""
        records = [held_fields(raw, columns) if b"\\u0000" in raw else raw for raw in rows.raw or ()]
        return dataclasses.replace(rows, raw=records)

    def first_unheld(self, rows: Rows, target: Format) -> Unheld | None:
        """The first string with a NUL, which JSON has as an escape."""
        for row, record in enumerate(() if target.holds_nul else rows.raw or ()):
            if b"\\u0000" in record:
                for name, cell in json_cells(record).items():
                    if "\0" in name or "\0" in (cell or ""):
                        return Unheld(row, name, NUL)
        return None

    @abc.abstractmethod
    def write(self, parts: Iterable[StagedPart], output: Output, out: IO[bytes]) -> None:
        """From JSON the objects' own bytes, from CSV each cell as a string, from columnar formats plain values."""


class JsonLines(JsonFormat):
    """One object per line."""

    name = "jsonl"
    has_row_ends = True

    def begins(self, head: bytes) -> bool:
        """True for an object."""
        return bool(re.match(rb"\{\s*[\"}]", head.removeprefix(_BOM).lstrip(_SPACE)))

    def describe(self, source: Source, settings: ReadSettings) -> Layout:
        """See :func:`describe`."""
        return describe(source, settings)

    def read(
        self, source: Source, layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
    ) -> Iterator[Rows]:
        """See :func:`read`."""
        return read(source, layout, columns, settings, start)

    def row_ends(self, layout: Layout) -> RowEnds:
        """At every line feed."""
        return RowEnds(Position(0, layout.details["bom"], 1), b"", _BLANK)

    def write(self, parts: Iterable[StagedPart], output: Output, out: IO[bytes]) -> None:
        """One object per line, with its original line end."""
        if output.file.layout.details.get("bom") == len(_BOM):
            out.write(_BOM)
        own = is_input_format(self, output.file)
        for body, end in scored_objects(parts, output):
            out.write(body + (end or b"\n") if own else _LINE_END.sub(b" ", body) + b"\n")

    def count_rows(self, source: Source, output: Output) -> int:
        """Lines that are not blank."""
        with open_bytes(source, _NO_LIMIT) as stream:
            return sum(not line.isspace() for line in stream)


FORMAT = JsonLines()


def is_multiline(head: bytes) -> bool:
    """Whether JSON that begins with ``head`` is an object over several lines, outside an array."""
    text = head.removeprefix(_BOM).lstrip(_SPACE)
    first, feed, _ = text.partition(b"\n")
    return bool(feed) and text.startswith(b"{") and first.rstrip().endswith((b"{", b"[", b","))


def scored_objects(parts: Iterable[StagedPart], output: Output) -> Iterator[tuple[bytes, bytes]]:
    """Each row as an object with the added fields, and the white space after it."""
    keys = [json.dumps(name, ensure_ascii=False) for name in output.added_names]
    fmt, columns = format_of(output.file.format), output.columns
    for part in parts:
        added = zip(*_added_json(part, output), strict=True)
        for whole, values in zip(fmt.json_objects(part, output.file), added, strict=True):
            record = whole if columns.are_as_read else held_fields(whole, columns)
            body = record.rstrip()
            extra = ", ".join(f"{key}: {value}" for key, value in zip(keys, values, strict=True))
            comma = b"" if body[:-1].rstrip() == b"{" else b", "
            yield b"".join((body[:-1], comma, extra.encode(), b"}")), record[len(body) :]


def _added_json(part: StagedPart, output: Output) -> list[list[str]]:
    columns = []
    for array, texts in zip(output.added(part), output.added_texts(part), strict=True):
        if pa.types.is_list(array.type):
            columns.append([json.dumps(value) for value in array.to_pylist()])
            continue
        quoted = pa.types.is_string(array.type)
        columns.append([("null" if not text else json.dumps(text) if quoted else text) for text in texts])
    return columns
