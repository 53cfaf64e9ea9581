"""What the footer of an ORC file says of its columns' types, read before Arrow sees it.

Arrow ends the whole process, and raises nothing, where a decimal column is wider than it can hold. The footer is a Protocol
Buffers message behind which the postscript tells its length and compression (ORC specification v1, "File Tail").
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa
import zstandard

_NONE, _ZLIB, _SNAPPY, _ZSTD = 0, 1, 2, 5
_FOOTER_LENGTH, _COMPRESSION = 1, 2
"""Fields of the postscript."""
_TYPES, _KIND, _PRECISION, _DECIMAL = 4, 1, 5, 14
"""Fields of the footer and of a type, and the kind of a decimal one."""
_MOST_BYTES = 64 << 20
"""Of a footer, packed or not."""
_MOST_BITS = 64
_NO_FOOTER = (
    LookupError,
    ValueError,
    TypeError,
    OverflowError,
    zlib.error,
    zstandard.ZstdError,
    pa.ArrowException,
)
"""What is raised for bytes that are no footer, or are packed in another way than is known here."""


def decimal_precisions(path: Path) -> list[int]:
    """How many digits each decimal column has; nothing where the footer cannot be read here, which is for Arrow to say.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        try:
            types = [dict(_fields(each)) for number, each in _fields(_footer(file)) if number == _TYPES]
            return [int(each.get(_PRECISION, 38)) for each in types if each.get(_KIND) == _DECIMAL]
        except _NO_FOOTER:
            return []


def _footer(file: IO[bytes]) -> bytes:
    end = file.seek(0, 2) - 1
    file.seek(max(end, 0))
    size = file.read(1)[0]
    if size > end:
        raise ValueError("the postscript is longer than the file")
    file.seek(end - size)
    postscript = dict(_fields(file.read(size)))
    length = int(postscript.get(_FOOTER_LENGTH, 0))
    if length > min(end - size, _MOST_BYTES):
        raise ValueError("the footer is longer than the file")
    file.seek(end - size - length)
    packed = file.read(length)
    kind = postscript.get(_COMPRESSION, _NONE)
    return packed if kind == _NONE else b"".join(_chunks(packed, int(kind)))


def _chunks(packed: bytes, kind: int) -> Iterator[bytes]:
    """What is in each chunk; before it stand three bytes, its length and whether it is packed at all."""
    at, left = 0, _MOST_BYTES
    while at < len(packed):
        head = int.from_bytes(packed[at : at + 3], "little")
        chunk = packed[at + 3 : at + 3 + (head >> 1)]
        content = chunk if head & 1 else _unpacked(chunk, kind, left)
        left -= len(content)
        if left < 0:
            raise ValueError("the footer unfolds to more than any footer has")
        yield content
        at += 3 + (head >> 1)


def _unpacked(chunk: bytes, kind: int, most: int) -> bytes:
    """The bytes in a packed chunk, at most one more than ``most``."""
    if kind == _ZLIB:
        return zlib.decompressobj(-15).decompress(chunk, most + 1)
    if kind == _ZSTD:
        return zstandard.ZstdDecompressor().stream_reader(chunk).read(most + 1)
    if kind == _SNAPPY:
        size, _ = _varint(chunk, 0)
        if size <= most:
            unpacked: bytes = pa.Codec("snappy").decompress(chunk, size, asbytes=True)
            return unpacked
    raise ValueError("another compression, or too much")


def _fields(message: bytes | int) -> Iterator[tuple[int, bytes | int]]:
    """Number and value of each field of a message: whole numbers, and bytes."""
    if isinstance(message, int):
        raise TypeError("no message")
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
        elif key & 7 == 2:
            size, at = _varint(message, at)
            yield key >> 3, message[at : at + size]
            at += size
        else:
            at += {1: 8, 5: 4}[key & 7]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A whole number of as many bytes as it needs, and the place behind it."""
    value = shift = 0
    while data[at] > 0x7F:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if shift >= _MOST_BITS:
            raise ValueError("a number that no file has")
    return value | data[at] << shift, at + 1
