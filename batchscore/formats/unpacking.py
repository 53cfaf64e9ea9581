"""Decompression of concatenated gzip and bzip2 streams without skipping a byte.

The standard library's ``GzipFile`` skips zeros between members and ``BZ2File`` drops anything that does not begin a stream:
a damaged header then silently costs every later row. Here each stream must be complete, with valid checksums, and the next
one must begin where it ends. ``gzip -t`` and ``bzip2 -t`` are the reference, except that what they only warn about
("trailing garbage ignored") is damage too. Zeros up to the end of a gzip file are padding of blocks, as in ``gzip``.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Callable
from typing import IO, Protocol

_PACKED_BYTES = 64 * 1024


class _Stream(Protocol):
    """The decompressor of one stream, with the interface of ``bz2.BZ2Decompressor``."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Member:
    """A gzip member; zlib checks its header (flags and checksum), its CRC-32 and its length."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)


_STREAMS: dict[str, Callable[[], _Stream]] = {"gzip": _Member, "bz2": bz2.BZ2Decompressor}


class Unpacked:
    """The content of all streams of a file, concatenated."""

    def __init__(self, packed: IO[bytes], compression: str) -> None:
        """``packed`` is at the first byte of the first stream; ``compression`` is ``gzip`` or ``bz2``."""
        self._packed, self._compression = packed, compression
        self._stream: _Stream | None = _STREAMS[compression]()
        self._ahead = b""
        """Bytes read from the file, not yet given to the decompressor."""

    def read(self, size: int) -> bytes:
        """At least one byte and at most ``size``; nothing at the end of the last stream.

        Raises:
            EOFError, OSError, zlib.error: a stream is damaged or truncated, or data after one is not another stream.
        """
        while self._stream is not None:
            data = self._stream.decompress(self._input(self._stream), size)
            if self._stream.eof:
                self._begin_next(self._stream.unused_data)
            if data:
                return data
        return b""

    def _input(self, stream: _Stream) -> bytes:
        if not stream.needs_input:
            return b""
        data, self._ahead = self._ahead or self._packed.read(_PACKED_BYTES), b""
        if not data:
            raise EOFError(f"its last {self._compression} stream is cut short")
        return data

    def _begin_next(self, unused: bytes) -> None:
        self._ahead = unused or self._packed.read(_PACKED_BYTES)
        is_padding = self._compression == "gzip" and self._ahead.startswith(b"\0")
        if is_padding:
            self._refuse_all_but_zeros()
        self._stream = _STREAMS[self._compression]() if self._ahead and not is_padding else None

    def _refuse_all_but_zeros(self) -> None:
        while self._ahead:
            if self._ahead.strip(b"\0"):
                raise EOFError("something stands behind the zeros that follow a gzip stream")
            self._ahead = self._packed.read(_PACKED_BYTES)

    def close(self) -> None:
        """Nothing to release: the caller closes ``packed``."""
