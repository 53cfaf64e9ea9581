"""How far a Parquet row group can unfold, told from the footer and its dictionaries before a row of it is decoded.

A dictionary page holds a value once, and an index of a few bits stands for it in every row: four kilobytes can mean
gigabytes, in one batch of rows or, within a list, in a single row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.errors import DataError, printable
from batchscore.readers.source import Source

FREE_BYTES = 64 * 2**20
"""A small file may unfold to this much whatever its ratio."""
_MOST_ROWS = 128
_BYTES_AT_ONCE = 64 * 2**20
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}


@contextlib.contextmanager
def open_parquet(source: Source, **options: Any) -> Iterator[pq.ParquetFile]:
    """Open a file for streaming: a buffered reader instead of whole column chunks, page checksums verified."""
    options |= {"buffer_size": 1 << 20, "pre_buffer": False, "page_checksum_verification": True}
    with pq.ParquetFile(source.path, **options) as file:
        yield file


class _Leaf(NamedTuple):
    """One column chunk of a row group; ``width`` is the largest number of bytes that one of its values may take."""

    chunk: Any
    is_repeated: bool
    width: int


def unfolds_beyond(source: Source, max_expansion: int) -> DataError:
    """The error for a file that unfolds to more than ``max_expansion`` times its size."""
    return DataError(
        f"{printable(source.path)} unfolds to more than {max_expansion} times its size. If that is as it should be, "
        "raise --max-expansion."
    )


def allowed_bytes(source: Source, max_expansion: int) -> int:
    """Bytes that a file may unfold to."""
    return FREE_BYTES + max_expansion * source.path.stat().st_size


def rows_at_once(source: Source, file: pq.ParquetFile, group: int, max_expansion: int) -> int:
    """How many rows of a row group to decode at once, so that they stay near 64 MiB.

    Raises:
        DataError: the lists of a single row may unfold beyond what is allowed.
    """
    metadata = file.metadata.row_group(group)
    leaves = _leaves(source, file, group)
    repeated = sum(leaf.chunk.num_values * leaf.width for leaf in leaves if leaf.is_repeated)
    if repeated > allowed_bytes(source, max_expansion):
        raise unfolds_beyond(source, max_expansion)
    average = metadata.total_byte_size // max(metadata.num_rows, 1)
    widest = average + sum(leaf.width for leaf in leaves if not leaf.is_repeated)
    return max(1, min(_MOST_ROWS, _BYTES_AT_ONCE // max(int(widest), 1)))


def _leaves(source: Source, file: pq.ParquetFile, group: int) -> list[_Leaf]:
    metadata = file.metadata.row_group(group)
    chunks = [metadata.column(index) for index in range(metadata.num_columns)]
    paths = [chunk.path_in_schema for chunk in chunks if chunk.physical_type == "BYTE_ARRAY"]
    is_small = _MOST_ROWS * metadata.total_byte_size <= _BYTES_AT_ONCE
    has_lists = any(file.schema.column(index).max_repetition_level for index in range(len(chunks)))
    values = _widest_values(source, paths, group) if paths and (has_lists or not is_small) else {}
    return [
        _Leaf(chunk, file.schema.column(index).max_repetition_level > 0, _width(chunk, file, index, values))
        for index, chunk in enumerate(chunks)
    ]


def _width(chunk: Any, file: pq.ParquetFile, index: int, values: dict[str, int]) -> int:
    if chunk.physical_type == "FIXED_LEN_BYTE_ARRAY":
        return int(file.schema.column(index).length)
    if chunk.physical_type != "BYTE_ARRAY":
        return _WIDTHS[chunk.physical_type]
    if "DELTA_BYTE_ARRAY" in chunk.encodings:  # a value may repeat all of the one before it
        return int(chunk.total_uncompressed_size)
    return values.get(chunk.path_in_schema, 0)


def _widest_values(source: Source, paths: list[str], group: int) -> dict[str, int]:
    """Bytes of the longest value in the dictionary of each column chunk, which is read without unfolding it."""
    with open_parquet(source, read_dictionary=paths) as file:
        first = {path: next(file.iter_batches(1, row_groups=[group], columns=[path]), None) for path in paths}
    return {
        path: max((_longest(column) for column in batch.columns), default=0) if batch else 0
        for path, batch in first.items()
    }


def _longest(array: pa.Array) -> int:
    """Bytes of the longest value in the dictionaries of an array, however deep they are in it."""
    if isinstance(array, pa.ExtensionArray):
        return _longest(array.storage)
    if isinstance(array, pa.DictionaryArray):
        return pc.max(pc.binary_length(array.dictionary)).as_py() or 0
    if isinstance(array, pa.StructArray):
        return max(map(_longest, array.flatten()), default=0)
    if isinstance(array, pa.MapArray):
        return max(_longest(array.keys), _longest(array.items))
    return _longest(array.values) if hasattr(array, "values") else 0
