"""How far a Parquet row group can expand, from the footer and dictionaries, before a row of it is decoded.

A dictionary page has each value once, and every row has an index of a few bits: four kilobytes can expand to gigabytes, in
one batch of rows or, within a list, in a single row.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.errors import DataError, printable
from batchscore.formats.arrow_files import path_or_memory
from batchscore.formats.first_pass import BlockFile
from batchscore.formats.source import Source

FREE_BYTES = 64 * 2**20
"""A small file may expand to this much, whatever its ratio."""
_MOST_ROWS = 128
_BYTES_AT_ONCE = 64 * 2**20
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}


@contextlib.contextmanager
def open_parquet(source: Source, blocks: BlockFile | None = None, **options: Any) -> Iterator[pq.ParquetFile]:
    """Open a file for streaming: a buffered reader instead of whole column chunks, page checksums verified.

    It is read through ``blocks`` if that is given.
    """
    options |= {"buffer_size": 1 << 20, "pre_buffer": False, "page_checksum_verification": True}
    opened = path_or_memory(source.path) if blocks is None else pa.PythonFile(blocks, "r")
    with pq.ParquetFile(opened, **options) as file:
        yield file


class _Leaf(NamedTuple):
    """One column chunk of a row group, with its schema; ``chunk`` is its metadata in the footer."""

    path: str
    kind: str
    length: int
    """Bytes of a fixed-length value."""
    is_repeated: bool
    chunk: Any


def unfolds_beyond(source: Source, max_expansion: int) -> DataError:
    """The error for a file that expands to more than ``max_expansion`` times its size."""
    return DataError(
        f"{printable(source.path)} unfolds to more than {max_expansion} times its size. If that is as it should be, "
        "raise --max-expansion."
    )


def allowed_bytes(source: Source, max_expansion: int) -> int:
    """Bytes that a file may expand to."""
    return FREE_BYTES + max_expansion * source.path.stat().st_size


def rows_at_once(
    source: Source, file: pq.ParquetFile, group: int, max_expansion: int, blocks: BlockFile | None = None
) -> int:
    """How many rows of a row group to decode at once, so that they stay near 64 MiB; ``blocks`` as in :func:`open_parquet`.

    Raises:
        DataError: the lists of a single row may expand beyond the limit.
    """
    leaves = _leaves(file, group)
    widths = {leaf.path: _fixed_width(leaf) for leaf in leaves}
    _refuse_lists(leaves, widths, source, max_expansion)
    metadata = file.metadata.row_group(group)
    if (
        metadata.total_byte_size > metadata.num_rows * _BYTES_AT_ONCE // 4
    ):  # a look at the widest would take the most memory
        return 1
    if _MOST_ROWS * metadata.total_byte_size > _BYTES_AT_ONCE or any(leaf.is_repeated for leaf in leaves):
        widths |= _widest_values(source, leaves, group, blocks)
        _refuse_lists(leaves, widths, source, max_expansion)
    average = int(metadata.total_byte_size) // max(int(metadata.num_rows), 1)
    widest = average + sum(widths[leaf.path] for leaf in leaves if not leaf.is_repeated)
    return max(1, min(_MOST_ROWS, _BYTES_AT_ONCE // max(widest, 1)))


def _leaves(file: pq.ParquetFile, group: int) -> list[_Leaf]:
    # Reading no rows makes Arrow check every column's footer and report damage on which column() would crash.
    next(iter(file.reader.iter_batches(0, row_groups=[group])), None)
    metadata = file.metadata.row_group(group)
    columns = [file.schema.column(index) for index in range(metadata.num_columns)]
    return [
        _Leaf(
            path=column.path,
            kind=column.physical_type,
            length=column.length,
            is_repeated=column.max_repetition_level > 0,
            chunk=metadata.column(index),
        )
        for index, column in enumerate(columns)
    ]


def _refuse_lists(leaves: list[_Leaf], widths: dict[str, int], source: Source, max_expansion: int) -> None:
    size = sum(leaf.chunk.num_values * widths[leaf.path] for leaf in leaves if leaf.is_repeated)
    if size > allowed_bytes(source, max_expansion):
        raise unfolds_beyond(source, max_expansion)


def _fixed_width(leaf: _Leaf) -> int:
    """Bytes of a value; for variable length, at least those of its offset."""
    return int(leaf.length) if leaf.kind == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS[leaf.kind]


def _widest_values(
    source: Source, leaves: list[_Leaf], group: int, blocks: BlockFile | None
) -> dict[str, int]:
    """Bytes of the longest value in the dictionary of each chunk of strings, read without expanding it."""
    paths = [leaf.path for leaf in leaves if leaf.kind == "BYTE_ARRAY"]
    widths = dict.fromkeys(paths, 0)
    with open_parquet(source, blocks, read_dictionary=paths) as file:
        for path in paths:
            for batch in itertools.islice(file.iter_batches(1, row_groups=[group], columns=[path]), 1):
                widths[path] = max(map(_longest, batch.columns), default=0)
    for leaf in leaves:
        if "DELTA_BYTE_ARRAY" in leaf.chunk.encodings:  # a value may repeat the entire previous one
            widths[leaf.path] = int(leaf.chunk.total_uncompressed_size)
    return widths


def _longest(array: pa.Array) -> int:
    """Bytes of the longest value in the dictionaries of an array, at any depth."""
    if isinstance(array, pa.ExtensionArray):
        return _longest(array.storage)
    if isinstance(array, pa.DictionaryArray):
        return pc.max(pc.binary_length(array.dictionary)).as_py() or 0
    if isinstance(array, pa.StructArray):
        return max(map(_longest, array.flatten()), default=0)
    if isinstance(array, pa.MapArray):
        return max(_longest(array.keys), _longest(array.items))
    return _longest(array.values) if hasattr(array, "values") else 0
