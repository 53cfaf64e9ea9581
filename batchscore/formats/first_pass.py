"""The SHA-256 of a file, made of the bytes that are read anyway when it is read for the first time."""

from __future__ import annotations

import collections
import hashlib
import io
import time
from pathlib import Path
from typing import NamedTuple

_AT_ONCE = 1 << 20
BLOCK = 1 << 18
"""Bytes."""
MOST_BLOCKS = 128
"""Blocks of a file that are kept: 32 MiB."""


class Hashed(NamedTuple):
    """What a file's bytes were, and when that was found out."""

    sha256: str
    begun: int
    """When hashing began, in nanoseconds since 1970."""


class FirstPass:
    """Hashes the bytes of a file in their order, as they pass by.

    Bytes that a reader leaps over are read here; those that it reads a second time are not hashed again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = hashlib.sha256()
        self._begun = time.time_ns()
        self._sought, self._tail = b"", b""
        self.found: list[int] = []
        """Where the bytes were that are sought."""
        self.position = 0
        """All bytes before this one are hashed."""
        self._has_ended = False
        """Whether a reader was told that there are no more."""

    def seek_bytes(self, sought: bytes) -> None:
        """Look for some bytes among those that are not hashed yet."""
        self._sought = sought

    def take(self, offset: int, data: memoryview | bytes | bytearray) -> None:
        """Bytes of the file that were just read, from ``offset`` on; none where it ends."""
        if not data:
            self._has_ended = offset == self.position
            return
        if offset > self.position:
            self._read_up_to(offset)
        behind = self.position - offset
        if behind < len(data):
            self._pass(memoryview(data)[behind:])

    def read_rest(self) -> None:
        """Read what no reader asked for.

        Raises:
            OSError: the file cannot be read.
        """
        self._read_up_to(None)

    def finish(self) -> Hashed:
        """The hash of all bytes, those that no reader asked for included; raises what :meth:`read_rest` does."""
        self.read_rest()
        return Hashed(self._digest.hexdigest(), self._begun)

    def _read_up_to(self, end: int | None) -> None:
        if end is None and self._has_ended:
            return
        with self._path.open("rb", buffering=0) as file:
            file.seek(self.position)
            while end is None or self.position < end:
                data = file.read(_AT_ONCE if end is None else min(_AT_ONCE, end - self.position))
                if not data:
                    break
                self._pass(memoryview(data))

    def _pass(self, data: memoryview) -> None:
        self._digest.update(data)
        self._has_ended = False
        if self._sought:
            self._seek_in(self._tail + bytes(data))
        self.position += len(data)

    def _seek_in(self, data: bytes) -> None:
        """``data`` begins with the last bytes before the present position, among which the sought ones may have begun."""
        start = self.position - len(self._tail)
        at = data.find(self._sought)
        while at >= 0:
            self.found.append(start + at)
            at = data.find(self._sought, at + 1)
        self._tail = data[-(len(self._sought) - 1) :]


class BlockFile:
    """A file for a library that reads it here and there: what lies near is read in order, and kept for a while.

    What is read is hashed if there is a ``first_pass``; what is far ahead of that is left for later.
    """

    def __init__(self, path: Path, first_pass: FirstPass | None = None) -> None:
        """Raise :class:`OSError` if it cannot be opened."""
        self._file = path.open("rb", buffering=0)
        self._first_pass = first_pass
        self._at = 0
        self._blocks: collections.OrderedDict[int, bytes] = collections.OrderedDict()
        """Those that were asked for last, the last one last."""

    def read(self, size: int = -1) -> bytes:
        """The bytes at the present position, fewer at the end of the file."""
        found = bytearray()
        while size < 0 or len(found) < size:
            number, start = divmod(self._at, BLOCK)
            end = BLOCK if size < 0 else start + size - len(found)
            piece = self._block(number)[start:end]
            if not piece:
                break
            found += piece
            self._at += len(piece)
        return bytes(found)

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        if self._first_pass is not None:
            behind = self._first_pass.position // BLOCK
            if number - behind <= MOST_BLOCKS // 2:  # these will be asked for soon
                for near in range(behind, number):
                    self._load(near)
        return self._load(number)

    def _load(self, number: int) -> bytes:
        self._file.seek(number * BLOCK)
        data = bytearray()
        while len(data) < BLOCK and (more := self._file.read(BLOCK - len(data))):
            data += more
        if self._first_pass is not None and number * BLOCK <= self._first_pass.position:
            self._first_pass.take(number * BLOCK, data)
        self._blocks[number] = bytes(data)
        if len(self._blocks) > MOST_BLOCKS:
            self._blocks.popitem(last=False)
        return self._blocks[number]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the present position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence)
        self._at = offset + (self._file.seek(0, io.SEEK_END) if base is None else base)
        return self._at

    def tell(self) -> int:
        """The present position."""
        return self._at

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def writable(self) -> bool:
        """False."""
        return False

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._file.closed

    def close(self) -> None:
        """Close the file."""
        self._blocks.clear()
        self._file.close()


class _Passed(io.FileIO):
    """A file whose bytes are hashed as they are read."""

    def __init__(self, path: Path, first_pass: FirstPass) -> None:
        super().__init__(path, "rb")
        self._first_pass = first_pass

    def readinto(self, buffer: bytearray | memoryview) -> int | None:  # type: ignore[override]
        at = self.tell()
        size = super().readinto(buffer)
        if len(buffer):
            self._first_pass.take(at, memoryview(buffer)[:size])
        return size

    def read(self, size: int | None = -1, /) -> bytes:
        at = self.tell()
        data = super().read(-1 if size is None else size)
        if size != 0:
            self._first_pass.take(at, data)
        return data

    def readall(self) -> bytes:
        return self.read(-1)


def open_passed(path: Path, first_pass: FirstPass) -> io.BufferedReader:
    """Open a file for reading; what is read is hashed.

    Raises:
        OSError: it cannot be opened.
    """
    return io.BufferedReader(_Passed(path, first_pass), _AT_ONCE)
