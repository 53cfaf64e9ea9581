"""Parquet: row groups are decoded a few rows at a time, checksums verified, every column kept as it was."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.errors import DataError, printable
from batchscore.formats.arrow_values import joining, leaf_types
from batchscore.formats.columnar import ColumnFormat, cut, layout_of, refuse_too_wide, texts_of_batches
from batchscore.formats.exact import (
    Nodes,
    nodes_of,
    open_exact,
    open_options,
    recast,
    restore_annotations,
    storable,
)
from batchscore.formats.first_pass import BlockFile
from batchscore.formats.format import Output, Texts, format_of
from batchscore.formats.source import Source, source_of
from batchscore.formats.staged import StagedPart
from batchscore.formats.unfolding import allowed_bytes, open_parquet, rows_at_once, unfolds_beyond
from batchscore.records import ColumnChoice, InputFile, Layout, Position, Rows

if TYPE_CHECKING:
    from batchscore.config import ReadSettings


_MAGIC = b"PAR1"
_JOINT = 2 * _MAGIC
"""What stands where one file ends and another begins."""


def describe(source: Source, settings: ReadSettings) -> Layout:
    """Columns from the footer, and the options from :func:`~batchscore.formats.exact.open_options`."""
    with open_exact(source) as opened:
        schema, metadata = opened.schema, opened.file.metadata
    refuse_too_wide(source, schema, settings)
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != metadata.num_rows:
        raise EOFError("its row groups do not have as many rows as the file")
    unpacked = sum(group.total_byte_size for group in groups)
    if unpacked > allowed_bytes(source, settings.max_expansion):
        raise unfolds_beyond(source, settings.max_expansion)
    if not source.awaits_first_pass:
        _refuse_joined(source)
    return layout_of(schema, {"exact": open_options(source, settings.max_expansion)})


def _refuse_joined(source: Source, places: Iterable[int] | None = None) -> None:
    """Refuse concatenated files: the last footer would be read with the first file's pages.

    ``places``: where one file may end and another begin, if all bytes were searched for that already.

    Raises:
        DataError: one Parquet file ends inside this one, and another begins.
    """
    with source.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for at in _places(data) if places is None else places:
            if _ends_a_file(data, at + len(_MAGIC)):
                raise DataError(
                    f"{printable(source.path)} is several Parquet files joined into one, which no reader takes apart. Score "
                    "the files themselves."
                )


def _places(data: mmap.mmap) -> Iterator[int]:
    at = data.find(_JOINT)
    while at >= 0:
        yield at
        at = data.find(_JOINT, at + 1)


def _ends_a_file(data: mmap.mmap, end: int) -> bool:
    """Whether a Parquet footer ends at ``end``; a text may have the same eight letters."""
    tail = end - len(_MAGIC) - 4
    size = int.from_bytes(data[max(tail, 0) : tail + 4], "little")
    if tail - size < len(_MAGIC):
        return False
    footer = _MAGIC + data[tail - size : end]
    try:
        pq.read_metadata(pa.BufferReader(footer))
    except (pa.ArrowException, OSError):
        return False
    return True


def read(
    source: Source, layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
) -> Iterator[Rows]:
    """Yield the rows as parts; the row groups before ``start`` are not read."""
    first_pass = source.first_pass
    if first_pass is not None:
        first_pass.seek_bytes(_JOINT)
    yield from cut(
        _batches(source, layout, settings, start.row), source, layout, columns, settings, start.row
    )
    if first_pass is not None:
        first_pass.read_rest()
        _refuse_joined(source, first_pass.found)


def _batches(source: Source, layout: Layout, settings: ReadSettings, skip: int) -> Iterator[pa.RecordBatch]:
    """Small batches from row ``skip`` on; they restart with each row group, so their boundaries do not depend on ``skip``."""
    with (
        contextlib.closing(BlockFile(source.path, source.first_pass)) as blocks,
        open_exact(source, **layout.details["exact"], blocks=blocks) as opened,
    ):
        file = opened.file
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if skip >= rows:
                skip -= rows
                continue
            at_once = rows_at_once(source, file, group, settings.max_expansion, blocks)
            for batch in file.iter_batches(at_once, row_groups=[group]):
                rows -= batch.num_rows
                dropped = min(skip, batch.num_rows)
                skip -= dropped
                yield opened.exact(batch).slice(dropped)
            if rows:  # a page with a damaged header may be skipped silently
                raise EOFError(f"row group {group} lacks {rows} of its rows")


# ------------------------------------------------------------------------------------------------------- the format

_GROUP_ROWS = 32_768
_GROUP_BYTES = 64 * 2**20
_TEXT_ROWS = 4096


class Parquet(ColumnFormat):
    """Parquet."""

    name = "parquet"

    def begins(self, head: bytes) -> bool:
        """The magic bytes at the start (and end) of a file."""
        return head.startswith(_MAGIC)

    def describe(self, source: Source, settings: ReadSettings) -> Layout:
        """See :func:`describe`."""
        return describe(source, settings)

    def read(
        self, source: Source, layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
    ) -> Iterator[Rows]:
        """See :func:`read`."""
        return read(source, layout, columns, settings, start)

    def schema(self, file: InputFile) -> pa.Schema:
        """The file's schema."""
        with open_exact(source_of(file), **file.layout.details["exact"]) as opened:
            return opened.schema

    def texts_of_file(self, source: Source, settings: ReadSettings, names: Sequence[str]) -> Iterator[Texts]:
        """See :meth:`Format.texts_of_file`; other columns are not read."""
        with open_exact(source) as opened:
            batches = map(opened.exact, opened.file.iter_batches(_TEXT_ROWS, columns=list(names)))
            yield from texts_of_batches(batches, names)

    def annotations(self, file: InputFile) -> list[Nodes]:
        """The nodes of each column in the file's own schema."""
        return nodes_of(source_of(file))

    def write(self, parts: Iterable[StagedPart], output: Output, out: IO[bytes]) -> None:
        """Every column in its type; strings if the input is of a record format."""
        schema = output.input_schema()
        schema = pa.schema([*schema, *output.added_fields], metadata=schema.metadata)
        batches = (
            pa.RecordBatch.from_arrays([*output.inputs(part), *output.added(part)], schema=schema)
            for whole in parts
            for part in output.pieces(whole)
        )
        write_row_groups(batches, schema, out)
        if nodes := format_of(output.file.format).annotations(output.file):
            restore_annotations(out, [nodes[place] for place in output.held])

    def count_rows(self, source: Source, output: Output) -> int:
        """The number in the footer."""
        with open_parquet(source) as file:
            return int(file.metadata.num_rows)


FORMAT = Parquet()


def write_row_groups(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, out: Any, *, is_packed: bool = True
) -> None:
    """Write record batches as row groups of a bounded size, with page checksums.

    What is not packed is written faster, and never unfolds beyond what may be read: only columns that are dictionaries have
    one, and nothing is compressed.
    """
    schema = storable(schema)
    has_dictionary = any(pa.types.is_dictionary(leaf) for kind in schema.types for leaf in leaf_types(kind))
    packing = {
        "compression": "zstd" if is_packed else "none",
        "use_dictionary": is_packed or has_dictionary,
    }
    with pq.ParquetWriter(out, schema, write_page_checksum=True, **packing) as writer:
        for group in _row_groups(map(partial(recast, schema=schema), batches), joining(schema)):
            writer.write_table(pa.Table.from_batches(group, schema))
            del group  # before the next one is made


def _row_groups(
    batches: Iterable[pa.RecordBatch], can_be_joined: Callable[[Sequence[pa.RecordBatch]], bool]
) -> Iterator[list[pa.RecordBatch]]:
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if group and not can_be_joined([*group, batch]):  # readers merge the dictionaries of a row group
            yield group
            group, rows, size = [], 0, 0
        group.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        del batch  # before the next one is made
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group
