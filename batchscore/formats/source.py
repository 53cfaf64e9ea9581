"""A file to read: path, format and compression, and its bytes, decompressed within limits."""

from __future__ import annotations

import contextlib
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from batchscore.errors import DataError, printable, storage_error
from batchscore.formats.first_pass import FirstPass, open_passed
from batchscore.formats.unpacking import Unpacked

if TYPE_CHECKING:
    from batchscore.records import InputFile

HEAD_BYTES = 256 * 1024
_FREE_BYTES = 64 * 2**20
"""A small compressed file may expand to this much, whatever its ratio."""


class Source(NamedTuple):
    """A file to read: path, format and compression (``""``, ``gzip``, ``zstd`` or ``bz2``)."""

    path: Path
    format: str
    compression: str
    first_pass: FirstPass | None = None
    """What hashes the bytes that are read, if this is the first time that all are."""
    awaits_first_pass: bool = False
    """Whether there will be such a time, at which it is seen what only all bytes tell."""
    content: bytes | None = None
    """All its bytes, if it is small and they have been read; for :func:`open_bytes` alone."""


def source_of(file: InputFile) -> Source:
    """The source of a planned file."""
    return Source(Path(file.path), file.format, file.compression)


@contextlib.contextmanager
def reading(source: Source) -> Iterator[None]:
    """Name the file in errors, and separate damage (exit code 65) from a failing disk (74)."""
    try:
        yield
    except MemoryError:  # Arrow's is one of its own errors, too
        raise
    except (EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError) as error:
        raise _damaged(source, error) from error
    except OSError as error:
        if error.errno is None:  # Arrow and bz2 raise an OSError without errno for malformed data
            raise _damaged(source, error) from error
        raise storage_error("Reading", source.path, error) from error


def _damaged(source: Source, error: Exception) -> DataError:
    reason = printable(str(error).strip().partition("\n")[0])[:200]
    if re.search(r"(?i)encrypt|decrypt", reason):
        return DataError(f"{printable(source.path)} is encrypted, and read without keys. Decrypt it first.")
    return DataError(f"{printable(source.path)} is damaged or cut short ({reason}). Get a whole copy of it.")


class _Bounded(io.RawIOBase):
    """A decompressed stream that raises once it expands beyond the limit."""

    def __init__(self, stream: IO[bytes], packed: IO[bytes], max_expansion: int, name: str) -> None:
        self._stream, self._packed, self._max, self._name = stream, packed, max_expansion, name
        self._total = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._total += len(data)
        if self._total > _FREE_BYTES + self._max * self._packed.tell():
            raise DataError(
                f"{self._name} unfolds to more than {self._max} times its size. If that is as it should be, raise "
                "--max-expansion."
            )
        return len(data)

    def close(self) -> None:
        self._stream.close()
        self._packed.close()
        super().close()


def open_bytes(source: Source, max_expansion: int = 200) -> IO[bytes]:
    """Open a file for reading, decompressed, with at most ``max_expansion`` bytes out per byte in."""
    file = _opened(source)
    if not source.compression:
        return file
    stream: Any
    if source.compression == "zstd":  # the zstandard package ends a truncated stream silently; Arrow raises
        stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
    else:
        stream = Unpacked(file, source.compression)
    return io.BufferedReader(_Bounded(stream, file, max_expansion, printable(source.path)), HEAD_BYTES)


def _opened(source: Source) -> IO[bytes]:
    if source.content is not None:
        return io.BytesIO(source.content)
    return open_passed(source.path, source.first_pass) if source.first_pass else source.path.open("rb")


def head_of(source: Source, max_expansion: int) -> bytes:
    """The first bytes of a file, decompressed."""
    with open_bytes(source, max_expansion) as stream:
        return stream.read(HEAD_BYTES)


def seek_to(stream: IO[bytes], source: Source, offset: int) -> None:
    """Seek to ``offset`` of the decompressed stream; a compressed one is read up to there."""
    if not source.compression:
        stream.seek(offset)
        return
    while offset > 0:
        data = stream.read(min(offset, 1 << 20))
        if not data:
            raise EOFError("it ends before the place where a part starts")
        offset -= len(data)
