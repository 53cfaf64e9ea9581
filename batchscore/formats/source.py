"""A file to read: what it is, and its bytes, decompressed within bounds."""

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
from batchscore.formats import foreign
from batchscore.formats.unpacking import Unpacked

if TYPE_CHECKING:
    from batchscore.records import InputFile

HEAD_BYTES = 256 * 1024
_LOOK_BYTES = 16 * 1024
_FREE_BYTES = 64 * 2**20
"""A small compressed file may unfold to this much whatever its ratio."""

_MAGIC = {
    "gzip": re.compile(rb"\x1f\x8b\x08"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),  # a frame, or one to be skipped (pzstd)
    "bz2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),  # a header of CSV may begin with BZh
}
_COMPRESSION_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd", ".bz2")
_FORMAT_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".psv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
}
_JSON = frozenset({"json", "jsonl"})
_SPACE = b" \t\r\n"
_WORDS = {"csv": "CSV", "parquet": "Parquet", "jsonl": "JSON Lines", "json": "a JSON array"}


class Source(NamedTuple):
    """A file to read: where it is, its format and its compression (``""``, ``gzip``, ``zstd`` or ``bz2``)."""

    path: Path
    format: str
    compression: str


def source_of(file: InputFile) -> Source:
    """What a planned file is read from."""
    return Source(Path(file.path), file.format, file.compression)


def plain_name(name: str) -> str:
    """A file name without the suffix of its compression: ``a.csv.gz`` is ``a.csv``."""
    return next((name[: -len(end)] for end in _COMPRESSION_SUFFIXES if name.lower().endswith(end)), name)


def format_of_name(name: str) -> str | None:
    """The format that a file name tells, or ``None``."""
    return _FORMAT_SUFFIXES.get(Path(plain_name(name)).suffix.lower())


def identify(path: Path, given_format: str | None = None) -> Source:
    """Find format and compression of a file from its first bytes and its name; ``given_format`` wins.

    Of JSON its first bytes tell whether it is an array of objects or an object a line, whatever the name says.

    Raises:
        DataError: it is something else than its name, or the format given, says.
        StorageError: it cannot be read.
    """
    source = Source(path, given_format or format_of_name(path.name) or "", "")
    with reading(source), path.open("rb") as file:
        magic = file.read(_LOOK_BYTES)
    compression = next((kind for kind, start in _MAGIC.items() if start.match(magic)), "")
    _refuse_foreign(path, magic)
    if not compression and plain_name(path.name) != path.name:
        raise DataError(
            f"{printable(path)} is not compressed as its name says, or damaged. Rename it, or get a whole copy of it."
        )
    source = source._replace(compression=compression)
    head = magic
    if compression:
        with reading(source), open_bytes(source) as stream:
            head = stream.read(_LOOK_BYTES)
        _refuse_foreign(path, head)
    source = source._replace(format=_format_of(source, head, is_given=given_format is not None))
    if source.format == "parquet" and compression:
        raise DataError(f"{printable(path)} is a Parquet file inside {compression}; unpack it first.")
    return source


def is_lone_object(path: Path) -> bool:
    """Whether a file holds one JSON object spread over lines, as what is said about the tables beside it does."""
    try:
        with path.open("rb") as file:
            return _is_spread(file.read(_LOOK_BYTES))
    except OSError:
        return False


def _refuse_foreign(path: Path, head: bytes) -> None:
    if kind := foreign.recognised(head[: foreign.HEAD_BYTES]):
        raise DataError(f"{printable(path)} is {kind.what}. {kind.advice}")


def _format_of(source: Source, head: bytes, *, is_given: bool) -> str:
    """The format of a file that begins with ``head``, which must not be another than the name or the option says."""
    found = _format_of_bytes(head)
    wanted = source.format or found or "csv"
    if wanted in _JSON and found in _JSON:
        if _is_spread(head):
            raise DataError(
                f"{printable(source.path)}: a JSON object that is spread over several lines. What is read is an object a "
                "line, or an array of objects: jq -c . makes the one of it, jq -s . the other."
            )
        return found
    if found not in {"", wanted}:
        said = f"--format {wanted}" if is_given else f"its name says {_WORDS[wanted]}"
        advice = f"--format {found}" if is_given else f"Rename it, or say --format {found}"
        raise DataError(f"{printable(source.path)} is {_WORDS[found]}, but {said}. {advice}.")
    if wanted == "parquet" and not found and head:
        raise DataError(f"{printable(source.path)} is no Parquet file: it does not begin like one.")
    return wanted


def _format_of_bytes(head: bytes) -> str:
    """The format that the first bytes tell; empty where they may be anything."""
    if head.startswith(b"PAR1"):
        return "parquet"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(_SPACE)
    if text.startswith(b"["):
        return "json" if text[1:].lstrip(_SPACE).startswith((b"{", b"]")) else ""
    return "jsonl" if re.match(rb"\{\s*[\"}]", text) else ""


def _is_spread(head: bytes) -> bool:
    """Whether JSON that begins so has an object that is spread over lines, without an array around it."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(_SPACE)
    first, feed, _ = text.partition(b"\n")
    return bool(feed) and text.startswith(b"{") and first.rstrip().endswith((b"{", b"[", b","))


@contextlib.contextmanager
def reading(source: Source) -> Iterator[None]:
    """Say which file it was when reading fails, and tell damage (65) from a failing disk (74)."""
    try:
        yield
    except (EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError) as error:
        raise _damaged(source, error) from error
    except OSError as error:
        if error.errno is None:  # Arrow and bz2 raise a bare OSError for bytes that make no sense
            raise _damaged(source, error) from error
        raise storage_error("Reading", source.path, error) from error


def _damaged(source: Source, error: Exception) -> DataError:
    reason = printable(str(error).strip().partition("\n")[0])[:200]
    if re.search(r"(?i)encrypt|decrypt", reason):
        return DataError(f"{printable(source.path)} is encrypted, and read without keys. Decrypt it first.")
    return DataError(f"{printable(source.path)} is damaged or cut short ({reason}). Get a whole copy of it.")


class _Bounded(io.RawIOBase):
    """A decompressed stream that ends in an error once it unfolds beyond reason."""

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
    """Open a file for reading, decompressed, within ``max_expansion`` bytes out for each byte in."""
    file = source.path.open("rb")
    if not source.compression:
        return file
    stream: Any
    if source.compression == "zstd":  # the zstandard package ends a cut stream without a word; Arrow raises
        stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
    else:
        stream = Unpacked(file, source.compression)
    return io.BufferedReader(_Bounded(stream, file, max_expansion, printable(source.path)), HEAD_BYTES)


def head_of(source: Source, max_expansion: int) -> bytes:
    """The first bytes of a file, decompressed."""
    with open_bytes(source, max_expansion) as stream:
        return stream.read(HEAD_BYTES)


def go_to(stream: IO[bytes], source: Source, offset: int) -> None:
    """Go to ``offset`` of the decompressed stream; a compressed one is read up to there."""
    if not source.compression:
        stream.seek(offset)
        return
    while offset > 0:
        data = stream.read(min(offset, 1 << 20))
        if not data:
            raise EOFError("it ends before the place where a part starts")
        offset -= len(data)
