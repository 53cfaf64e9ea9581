"""A digest of the rows of a part: shows whether reading a file again gives the same rows.

It covers the bytes of every value that is scored or kept, and nothing else (in Arrow, bytes under a null and after the end
of a buffer are arbitrary).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.formats.arrow_values import keys_and_items, take

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from batchscore.records import Rows

_DIGEST_BYTES = 16


def digest_of(rows: Rows) -> str:
    """BLAKE2b, 128 bits in hex, over the rows, their positions and the rejects."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    _add_numbers(digest, rows.row)
    for reject in rows.rejects:
        digest.update(repr(reject).encode("utf-8", "surrogatepass"))
    if rows.raw is not None:
        _add_numbers(digest, [len(record) for record in rows.raw])
        for record in rows.raw:
            digest.update(record)
    for column in rows.table.columns if rows.table is not None else ():
        _add(digest, column)
    return digest.hexdigest()


def _add(digest: hashlib.blake2b, array: pa.Array) -> None:
    """Add an array: the null mask, then the other values; lists and structs recursively."""
    if isinstance(array, pa.ExtensionArray):
        _add(digest, array.storage)
        return
    digest.update(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    if isinstance(array, pa.StructArray):
        for child in array.flatten():
            _add(digest, child)
    elif isinstance(array, pa.MapArray):
        _add_numbers(digest, np.diff(array.offsets))
        for child in keys_and_items(array):
            _add(digest, child)
    elif hasattr(array, "values"):
        _add_numbers(digest, pc.list_value_length(array).fill_null(0))
        _add(digest, array.flatten())
    elif isinstance(array, pa.DictionaryArray):
        used = array.indices.dictionary_encode()
        _add(digest, used.indices)
        _add(digest, take(array.dictionary, used.dictionary.to_pylist()))
    elif not pa.types.is_null(array.type):
        _add_leaf(digest, array)


def _add_leaf(digest: hashlib.blake2b, array: pa.Array) -> None:
    if pa.types.is_string_view(array.type) or pa.types.is_binary_view(array.type):
        array = array.cast(pa.large_binary())
    array = array.drop_null()
    if not len(array):
        return
    _, places, *data = array.buffers()
    if pa.types.is_boolean(array.type):
        digest.update(np.packbits(array.to_numpy(zero_copy_only=False)).tobytes())
    elif not data:
        width = array.type.bit_width // 8
        digest.update(memoryview(places)[array.offset * width : (array.offset + len(array)) * width])
    else:
        is_large = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
        offsets = np.frombuffer(places, np.int64 if is_large else np.int32)
        offsets = offsets[array.offset : array.offset + len(array) + 1]
        _add_numbers(digest, np.diff(offsets))
        digest.update(memoryview(data[0])[offsets[0] : offsets[-1]] if data[0] is not None else b"")


def _add_numbers(digest: hashlib.blake2b, numbers: ArrayLike | pa.Array) -> None:
    values: Any = np.ascontiguousarray(numbers, dtype=np.int64)
    digest.update(values)
