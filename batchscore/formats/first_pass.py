"""The SHA-256 of a file, made of the bytes that are read anyway when it is read for the first time."""

from __future__ import annotations

import hashlib
import io
import time
from pathlib import Path
from typing import NamedTuple

_AT_ONCE = 1 << 20


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
        self.position = 0
        """All bytes before this one are hashed."""

    def take(self, offset: int, data: memoryview | bytes) -> None:
        """Bytes of the file that were just read, from ``offset`` on."""
        if offset > self.position:
            self._read_up_to(offset)
        behind = self.position - offset
        if behind < len(data):
            self._digest.update(memoryview(data)[behind:])
            self.position = offset + len(data)

    def finish(self) -> Hashed:
        """The hash of all bytes, those that no reader asked for included.

        Raises:
            OSError: the file cannot be read.
        """
        self._read_up_to(None)
        return Hashed(self._digest.hexdigest(), self._begun)

    def _read_up_to(self, end: int | None) -> None:
        with self._path.open("rb", buffering=0) as file:
            file.seek(self.position)
            while end is None or self.position < end:
                data = file.read(_AT_ONCE if end is None else min(_AT_ONCE, end - self.position))
                if not data:
                    break
                self._digest.update(data)
                self.position += len(data)


class _Passed(io.FileIO):
    """A file whose bytes are hashed as they are read."""

    def __init__(self, path: Path, first_pass: FirstPass) -> None:
        super().__init__(path, "rb")
        self._first_pass = first_pass

    def readinto(self, buffer: bytearray | memoryview) -> int | None:  # type: ignore[override]
        at = self.tell()
        size = super().readinto(buffer)
        if size:
            self._first_pass.take(at, memoryview(buffer)[:size])
        return size

    def read(self, size: int | None = -1, /) -> bytes:
        at = self.tell()
        data = super().read(-1 if size is None else size)
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
