"""Arrow IPC: the file (Feather, version 2) and the stream, as ``datasets`` saves it.

Arrow does not check what it reads: the stated length of a compressed buffer, offsets within their values, a stream that ends
before the file does. So the messages of a file are checked before a row of it is read, and every batch is validated.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from batchscore.errors import DataError, printable
from batchscore.formats.arrow_files import mapped
from batchscore.formats.arrow_values import without_dictionaries
from batchscore.formats.columnar import (
    ColumnFormat,
    cut,
    layout_of,
    refuse_too_wide,
    refuse_unstorable,
    sliced,
    texts_of_batches,
)
from batchscore.formats.format import Output, Texts, is_input_format
from batchscore.formats.source import Source, source_of
from batchscore.formats.staged import StagedPart
from batchscore.formats.unfolding import allowed_bytes, unfolds_beyond
from batchscore.records import ColumnChoice, InputFile, Layout, Position, Rows

if TYPE_CHECKING:
    from batchscore.config import ReadSettings

_MAGIC = b"ARROW1"
_STREAM_START = 8
"""Offset of a file's first message, after the magic bytes and their padding."""
_TAIL = len(_MAGIC) + 4
"""Bytes at the end of a file: the length of its footer, and the magic bytes again."""
_CONTINUATION = b"\xff\xff\xff\xff"
_DICTIONARY, _RECORDS = 2, 3
"""Message.fbs: types of message."""
_CODECS = ("lz4", "zstd")


def describe(source: Source, settings: ReadSettings) -> Layout:
    """Columns from the schema.

    Raises:
        DataError: the file is not one complete table, expands too far, or has a type that Parquet cannot hold.
    """
    with _opened(source) as reader:
        schema = reader.schema
        is_stream = not isinstance(reader, pa.RecordBatchFileReader)
        batches = None if is_stream else reader.num_record_batches
    refuse_too_wide(source, schema, settings)
    codec = _check_messages(source, batches, settings.max_expansion)
    refuse_unstorable(source, schema)
    return layout_of(schema, {"stream": is_stream, "codec": codec})


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[pa.RecordBatchFileReader | pa.RecordBatchStreamReader]:
    with mapped(source.path) as file:
        is_file = file.read(len(_MAGIC)) == _MAGIC
        file.seek(0)
        with pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file) as reader:
            yield reader


def _check_messages(source: Source, batches: int | None, max_expansion: int) -> str:
    """Check the messages; ``batches`` is their number in a file's footer. Returns the compression of buffers.

    Raises:
        DataError: they expand to more than is allowed, or something follows them.
        EOFError: they are cut short.
    """
    left, found, codec = allowed_bytes(source, max_expansion), 0, ""
    size = source.path.stat().st_size
    with mapped(source.path) as file:
        start = 0 if batches is None else _STREAM_START
        file.seek(start)
        for message in pa.ipc.MessageReader.open_stream(file):
            body = _body(message)
            if body is not None:
                left -= body.unfolded
                codec = body.codec or codec
                found += body.has_rows
            if left < 0:
                raise unfolds_beyond(source, max_expansion)
        end = file.tell()
        file.seek(max(end - 8, 0))
        has_end = file.read(8) == _CONTINUATION + bytes(4)
        file.seek(size - _TAIL if batches is not None else size)
        tail = file.read(_TAIL)
    if not has_end:
        raise EOFError("its stream has no end")
    rest = size - end - (_TAIL + int.from_bytes(tail[:4], "little") if batches is not None else 0)
    if rest or batches not in (None, found):
        raise DataError(
            f"{printable(source.path)}: something follows its end. Where several files were joined, score the files "
            "themselves."
        )
    return codec


class _Body(NamedTuple):
    """The body of a message: decompressed bytes, compression, and whether it is rows or a dictionary."""

    unfolded: int
    codec: str
    has_rows: bool


def _body(message: pa.Message) -> _Body | None:
    """The body of a message, from its metadata; None for a schema.

    Raises:
        EOFError: the metadata points beyond its end.
    """
    try:
        return _read_body(message)
    except (struct.error, IndexError) as error:
        raise EOFError("a message points beyond its end") from error


def _read_body(message: pa.Message) -> _Body | None:
    header = _Table.root(message.metadata.to_pybytes())
    kind = header.number(1, "<B")
    batch = header.table(2)
    if kind not in (_DICTIONARY, _RECORDS) or batch is None:
        return None
    if kind == _DICTIONARY:
        batch = batch.table(1)
        if batch is None:
            return None
    compression = batch.table(3)
    lengths = list(batch.structs(2, "<qq"))
    if compression is None:
        return _Body(sum(length for _, length in lengths), "", kind == _RECORDS)
    body = memoryview(message.body or b"")
    unfolded = 0
    for start, length in lengths:
        if length:
            (size,) = struct.unpack_from("<q", body, start)
            unfolded += length if size < 0 else size
    return _Body(unfolded, _CODECS[compression.number(0, "<b")], kind == _RECORDS)


class _Table(NamedTuple):
    """A table of FlatBuffers, as far as the messages of Arrow need it (flatbuffers.dev, "Internals")."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> _Table:
        """The root table."""
        return cls(data, *struct.unpack_from("<I", data))

    def _place(self, field: int) -> int:
        """Offset of a field; 0 if it is absent."""
        table = self.at - struct.unpack_from("<i", self.data, self.at)[0]
        (size,) = struct.unpack_from("<H", self.data, table)
        slot = 4 + 2 * field
        (offset,) = struct.unpack_from("<H", self.data, table + slot) if slot < size else (0,)
        return self.at + offset if offset else 0

    def number(self, field: int, kind: str) -> int:
        """A number; 0 if it is absent."""
        place = self._place(field)
        return int(struct.unpack_from(kind, self.data, place)[0]) if place else 0

    def _target(self, field: int) -> int:
        place = self._place(field)
        return place + int(struct.unpack_from("<I", self.data, place)[0]) if place else 0

    def table(self, field: int) -> _Table | None:
        """A nested table."""
        place = self._target(field)
        return _Table(self.data, place) if place else None

    def structs(self, field: int, kind: str) -> Iterator[tuple[int, ...]]:
        """The structs of a vector."""
        place = self._target(field)
        if place:
            (count,) = struct.unpack_from("<I", self.data, place)
            yield from struct.iter_unpack(
                kind, self.data[place + 4 : place + 4 + count * struct.calcsize(kind)]
            )


def _batches(source: Source, skip: int) -> Iterator[pa.RecordBatch]:
    """Small batches from row ``skip`` on; their boundaries do not depend on ``skip``."""
    with _opened(source) as reader:
        yield from sliced(_whole_batches(reader), skip)


def _whole_batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.RecordBatchFileReader):
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        yield from reader


class ArrowIpc(ColumnFormat):
    """Arrow IPC; predictions are a file, or a stream where the input is one."""

    name = "arrow"
    holds_any_bytes = False

    def begins(self, head: bytes) -> bool:
        """The magic bytes of a file, or a first message after the marker of a stream."""
        return head.startswith(_MAGIC) or (len(head) > 8 and head.startswith(_CONTINUATION))

    def describe(self, source: Source, settings: ReadSettings) -> Layout:
        """See :func:`describe`."""
        return describe(source, settings)

    def read(
        self, source: Source, layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
    ) -> Iterator[Rows]:
        """Yield the rows as parts."""
        yield from cut(_batches(source, start.row), source, layout, columns, settings, start.row)

    def schema(self, file: InputFile) -> pa.Schema:
        """The file's schema."""
        with _opened(source_of(file)) as reader:
            return reader.schema

    def texts_of_file(self, source: Source, settings: ReadSettings, names: Sequence[str]) -> Iterator[Texts]:
        """The columns ``names``, a few rows at a time."""
        yield from texts_of_batches(_batches(source, 0), names)

    def write(self, parts: Iterable[StagedPart], output: Output, out: IO[bytes]) -> None:
        """Every column in its type; from other formats without dictionaries, since a file can have only one per column."""
        details = output.file.layout.details
        own = is_input_format(self, output.file)
        given = output.input_schema()
        if not own:
            given = pa.schema([f.with_type(without_dictionaries(f.type)) for f in given], given.metadata)
        schema = pa.schema([*given, *output.added_fields], given.metadata)
        options = pa.ipc.IpcWriteOptions(
            compression=(details["codec"] or None) if own else None, emit_dictionary_deltas=True
        )
        make = pa.ipc.new_stream if own and details["stream"] else pa.ipc.new_file
        with make(out, schema, options=options) as writer:
            for part in (each.alone for each in parts):
                columns = [
                    column if column.type == kind else column.cast(kind)
                    for column, kind in zip(output.inputs(part), given.types, strict=True)
                ]
                writer.write_batch(pa.RecordBatch.from_arrays([*columns, *output.added(part)], schema=schema))

    def count_rows(self, source: Source, output: Output) -> int:
        """Rows of all batches."""
        with _opened(source) as reader:
            return sum(batch.num_rows for batch in _whole_batches(reader))


FORMAT = ArrowIpc()
