"""Reading and rewriting the schema in a Parquet footer, for annotations that Arrow has no type for.

Arrow has no INTERVAL, ENUM, BSON, GEOMETRY or VARIANT, and drops them when it writes. A footer is a struct in Thrift's
compact protocol (https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md); field numbers are in
``parquet.thrift`` (https://github.com/apache/parquet-format). Only the schema is decoded and encoded again; every other
byte of a footer stays.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, NamedTuple

import pyarrow.parquet as pq

INT96, BYTE_ARRAY, FIXED_LEN_BYTE_ARRAY = 3, 6, 7
"""Physical types."""
ENUM, INTERVAL = 4, 21
"""Annotations of the old kind ("converted types")."""
LOGICAL_ENUM = 4
"""An annotation of the new kind ("logical type")."""
_TYPE, _TYPE_LENGTH, _CHILDREN, _CONVERTED, _LOGICAL = 1, 2, 5, 6, 10
"""Fields of a schema element."""
_SCHEMA = 2
"""The field of a footer that holds the schema elements."""
_UTF8, _STRING = 0, 1
_MAGIC = b"PAR1"
_TAIL_BYTES = 8
"""After a footer: its length in four bytes, and ``PAR1``."""

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)

Fields = dict[int, tuple[int, Any]]
"""A Thrift struct: number → type and value of each field. Integers are as they are encoded (zigzag)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Element:
    """A node of the schema: a group, or a leaf with a physical type."""

    fields: Fields

    def _integer(self, number: int) -> int | None:
        if number not in self.fields:
            return None
        encoded: int = self.fields[number][1]
        return (encoded >> 1) ^ -(encoded & 1)

    @property
    def physical(self) -> tuple[int | None, int | None]:
        """Physical type and, for fixed-length types, the length in bytes; ``(None, None)`` for a group."""
        return self._integer(_TYPE), self._integer(_TYPE_LENGTH)

    @property
    def children(self) -> int:
        """Number of direct children of this group; 0 for a leaf."""
        return self._integer(_CHILDREN) or 0

    @property
    def converted(self) -> int | None:
        """The annotation of the old kind."""
        return self._integer(_CONVERTED)

    @property
    def logical(self) -> Fields | None:
        """The annotation of the new kind: a union, whose only field says what it is."""
        return self.fields[_LOGICAL][1] if _LOGICAL in self.fields else None

    def annotated_like(self, other: Element) -> Element:
        """The node with the annotations of another node."""
        own = {number: field for number, field in self.fields.items() if number not in {_CONVERTED, _LOGICAL}}
        theirs = {number: other.fields[number] for number in (_CONVERTED, _LOGICAL) if number in other.fields}
        return Element(own | theirs)

    def as_bytes(self, length: int) -> Element:
        """The leaf as plain bytes of this fixed length."""
        kept = {n: f for n, f in self.fields.items() if n not in {_CONVERTED, _LOGICAL}}
        return Element(kept | {_TYPE: (5, FIXED_LEN_BYTE_ARRAY << 1), _TYPE_LENGTH: (5, length << 1)})

    def as_string(self) -> Element:
        """The leaf as a UTF-8 string."""
        return Element(
            self.fields | {_CONVERTED: (5, _UTF8 << 1), _LOGICAL: (_STRUCT, {_STRING: (_STRUCT, {})})}
        )


class Schema(NamedTuple):
    """A footer: the bytes before its schema, the nodes in depth-first order (root first), the bytes after."""

    before: bytes
    elements: list[Element]
    behind: bytes

    def to_bytes(self) -> bytes:
        """The footer with this schema."""
        nodes = (_STRUCT, [element.fields for element in self.elements])
        return self.before + _encoded(_LIST, nodes) + self.behind

    def columns(self) -> list[list[Element]]:
        """The nodes of each column, depth first."""
        columns: list[list[Element]] = []
        open_nodes = 0
        for element in self.elements[1:]:
            if not open_nodes:
                columns.append([])
                open_nodes = 1
            columns[-1].append(element)
            open_nodes += element.children - 1
        return columns

    def metadata(self) -> pq.FileMetaData:
        """The footer as Arrow's metadata, with which a file can be read."""
        footer = self.to_bytes()
        return pq.read_metadata(io.BytesIO(_MAGIC + footer + _tail(footer)))


def read_schema(file: IO[bytes]) -> Schema:
    """The schema of a file.

    Raises:
        EOFError: the footer is malformed.
    """
    return _schema(_footer(file))


def mend_schema(file: IO[bytes], elements: Iterable[Element]) -> None:
    """Replace the schema nodes of a file just written; ``file`` is open for reading and writing."""
    footer = _footer(file)
    changed = _schema(footer)._replace(elements=list(elements)).to_bytes()
    file.seek(-_TAIL_BYTES - len(footer), io.SEEK_END)
    file.truncate()
    file.write(changed + _tail(changed))


def _footer(file: IO[bytes]) -> bytes:
    end = file.seek(0, io.SEEK_END)
    file.seek(max(end - _TAIL_BYTES, 0))
    tail = file.read()
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or length + _TAIL_BYTES > end:
        raise EOFError("it does not end with a footer")
    file.seek(end - _TAIL_BYTES - length)
    return file.read(length)


def _tail(footer: bytes) -> bytes:
    return len(footer).to_bytes(4, "little") + _MAGIC


def _schema(footer: bytes) -> Schema:
    reader = _Reader(footer)
    try:
        for number, kind in reader.headers():
            start = reader.at
            value = reader.value(kind)
            if number == _SCHEMA:
                return Schema(footer[:start], [_element(fields) for fields in value[1]], footer[reader.at :])
    except (IndexError, ValueError, TypeError, RecursionError) as error:
        raise EOFError("its footer makes no sense") from error
    raise EOFError("its footer holds no schema")


def _element(fields: Fields) -> Element:
    kinds = {_LOGICAL: (_STRUCT,), **dict.fromkeys((_TYPE, _TYPE_LENGTH, _CHILDREN, _CONVERTED), _INTEGERS)}
    if any(fields[number][0] not in allowed for number, allowed in kinds.items() if number in fields):
        raise ValueError("a field of another kind")
    return Element(fields)


# Thrift's compact protocol


class _Reader:
    """Bytes with a read position."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def _take(self, count: int) -> bytes:
        data = self._data[self.at : self.at + count]
        if len(data) < count:
            raise IndexError("cut short")
        self.at += count
        return data

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._take(1)[0]) > 0x7F:
            value |= (byte & 0x7F) << shift
            shift += 7
        return value | byte << shift

    def headers(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a struct; the caller reads the value before the next."""
        number = 0
        while (head := self._take(1)[0]) != 0:
            delta, kind = head >> 4, head & 0x0F
            encoded = 0 if delta else self._varint()
            number = number + delta if delta else (encoded >> 1) ^ -(encoded & 1)
            yield number, kind

    def value(self, kind: int) -> Any:
        """The value of a field; a boolean's is in its type."""
        if kind in (_TRUE, _FALSE):
            return kind
        if kind == _BYTE:
            return self._take(1)[0]
        if kind in _INTEGERS:
            return self._varint()
        if kind == _DOUBLE:
            return self._take(8)
        if kind == _BINARY:
            return self._take(self._varint())
        if kind in (_LIST, _SET):
            return self._list()
        if kind == _STRUCT:
            return {number: (each, self.value(each)) for number, each in self.headers()}
        raise ValueError(f"no type has the number {kind}")

    def _list(self) -> tuple[int, list[Any]]:
        head = self._take(1)[0]
        count, kind = head >> 4, head & 0x0F
        count = self._varint() if count == 0x0F else count
        each = _BYTE if kind in (_TRUE, _FALSE) else kind
        return kind, [self.value(each) for _ in range(count)]


def _encoded(kind: int, value: Any) -> bytes:
    if kind in (_TRUE, _FALSE):
        return b""
    if kind == _BYTE:
        return bytes([value])
    if kind in _INTEGERS:
        return _varint(value)
    if kind == _DOUBLE:
        return bytes(value)
    if kind == _BINARY:
        return _varint(len(value)) + bytes(value)
    if kind in (_LIST, _SET):
        return _encoded_list(*value)
    return _encoded_struct(value)


def _encoded_list(kind: int, values: Sequence[Any]) -> bytes:
    count = len(values)
    head = bytes([count << 4 | kind]) if count < 0x0F else bytes([0xF0 | kind]) + _varint(count)
    each = _BYTE if kind in (_TRUE, _FALSE) else kind
    return head + b"".join(_encoded(each, value) for value in values)


def _encoded_struct(fields: Fields) -> bytes:
    pieces, before = [], 0
    for number, (kind, value) in sorted(fields.items()):
        delta = number - before
        pieces.append(bytes([delta << 4 | kind]) if delta <= 0x0F else bytes([kind]) + _varint(number << 1))
        pieces.append(_encoded(kind, value))
        before = number
    return b"".join([*pieces, b"\0"])


def _varint(value: int) -> bytes:
    pieces = bytearray()
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*pieces, value])
