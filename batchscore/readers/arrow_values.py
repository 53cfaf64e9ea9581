"""Arrow arrays as Python values, whatever they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def plain_values(array: pa.Array) -> list[Any]:
    """The values of an array, null as ``None``.

    A short float is the Python float of its shortest text (``0.1``, not ``0.10000000149011612``). What Python cannot
    hold becomes text: a time of day with nanoseconds, a string's bytes that are not UTF-8 (each as an escape), the plain
    number of a date beyond the year 9999.
    """
    if pa.types.is_float32(array.type) or pa.types.is_float16(array.type):
        values = array.to_numpy(zero_copy_only=False)
        return [
            float(str(value)) if valid.as_py() else None
            for value, valid in zip(values, array.is_valid(), strict=True)
        ]
    if array.type == pa.time64("ns"):  # Python's times end at microseconds
        return array.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]
    try:
        return array.to_pylist()  # type: ignore[no-any-return]
    except (ValueError, OverflowError, pa.ArrowException):
        return [_value_or_text(scalar) for scalar in array]


def _value_or_text(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        pass
    if isinstance(scalar, pa.DictionaryScalar | pa.ExtensionScalar):
        return _value_or_text(scalar.value)
    if isinstance(scalar, pa.ListScalar):
        return plain_values(scalar.values)
    if isinstance(scalar, pa.StructScalar):
        return _fields(scalar)
    if hasattr(scalar, "as_buffer"):
        return scalar.as_buffer().to_pybytes().decode("utf-8", "backslashreplace")
    return str(scalar.value)  # a number of days, seconds or the like


def _fields(scalar: pa.StructScalar) -> Any:
    """The fields by name, or, where two have the same, in their order."""
    names = [scalar.type.field(place).name for place in range(scalar.type.num_fields)]
    values = [plain_values(column)[0] for column in pa.array([scalar], scalar.type).flatten()]
    return dict(zip(names, values, strict=True)) if len(set(names)) == len(names) else values


def take_rows(batch: pa.RecordBatch, places: Sequence[int] | NDArray[np.integer[Any]]) -> pa.RecordBatch:
    """The rows of a batch at ``places``, of whatever types (Arrow itself takes no string views)."""
    return pa.RecordBatch.from_arrays(
        [_take(column, places) for column in batch.columns], schema=batch.schema
    )


def _take(array: pa.Array, places: Sequence[int] | NDArray[np.integer[Any]]) -> pa.Array:
    try:
        return array.take(pa.array(places, pa.int64()))
    except pa.ArrowNotImplementedError:
        return pa.concat_arrays([array.slice(0, 0), *(array.slice(int(place), 1) for place in places)])


def unfolded_bytes(batch: pa.RecordBatch) -> int:
    """Bytes of a batch with every dictionary value counted as often as it stands there."""
    return sum(_unfolded(column) for column in batch.columns)


def _unfolded(array: pa.Array) -> int:
    if not isinstance(array, pa.DictionaryArray):
        return int(array.nbytes)
    lengths = pc.binary_length(array.dictionary.cast(pa.large_binary())) if _is_text(array) else None
    folded = pc.sum(lengths.take(array.indices)).as_py() if lengths is not None else None
    return int(array.indices.nbytes) + int(folded or 0)


def _is_text(array: pa.DictionaryArray) -> bool:
    kind = array.type.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind))
