"""Arrow arrays of any type: as Python values, and their leaves, dictionaries and sizes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.formats.text_values import as_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGE = 16 << 20
"""Bytes of an array whose values are made one by one."""
_FEW = 64
"""Values that are made one by one sooner than all at once."""
_LEAST_PLAIN = 0.0001
"""From here on Python writes a float under 1 without an exponent."""
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_WITH_EXPONENT = 1e16
"""From here on Python writes a float with an exponent, and only its significant digits."""


def records_of(array: pa.Array) -> Iterator[Any]:
    """The values of an array one after the other, so that large ones are not all there at once."""
    if array.nbytes < _LARGE:
        yield from array.to_pylist()
    else:
        for value in array:
            yield value.as_py()


def plain_values(array: pa.Array) -> list[Any]:
    """The values of an array, null as ``None``; those within lists, structs and maps likewise.

    A float16 or float32 is the Python float of its shortest text (``0.1``, not ``0.10000000149011612``); a whole number is
    exact (``65504.0``, not ``65500.0``). What Python cannot hold becomes text: a time of day with nanoseconds, durations and
    intervals (ISO 8601), dates beyond the years 1 to 9999 (as numpy writes them; with a zone, in UTC), and strings that are
    not UTF-8 (bad bytes as escapes). A struct is a dictionary, or a list if two fields have the same name; a map is a list
    of pairs.
    """
    if isinstance(array, pa.ExtensionArray):
        return _extension(array)
    reader = _READERS.get(type(array))
    return reader(array) if reader is not None else array.to_pylist()


def texts_of_values(array: pa.Array) -> list[str]:
    """:func:`~batchscore.formats.text_values.as_text` of each of the :func:`plain_values`: common types all at once."""
    texts = text_array(array) if len(array) >= _FEW and not pa.types.is_string(array.type) else None
    return [as_text(value) for value in plain_values(array)] if texts is None else texts.to_pylist()


def text_array(array: pa.Array) -> pa.Array | None:
    """The same as an array of strings; None for types that are not made into text all at once."""
    kind = array.type
    if pa.types.is_float32(kind):
        return _texts_of_floats(array)
    if pa.types.is_boolean(kind):
        return pc.if_else(array, "true", "false").fill_null("")
    if pa.types.is_integer(kind):
        return array.cast(pa.string()).fill_null("")
    return array.fill_null("") if pa.types.is_string(kind) else None


def _texts_of_floats(array: pa.FloatArray) -> pa.Array:
    """From 0.0001 to 1 Arrow writes the digits that Python does; a probability is rarely anything else."""
    is_usual = pc.and_(pc.greater_equal(array, _LEAST_PLAIN), pc.less(array, 1.0)).fill_null(False)
    odd = np.flatnonzero(~is_usual.to_numpy(zero_copy_only=False))
    texts = array.cast(pa.string())
    if not len(odd):
        return texts
    others = [as_text(value) for value in plain_values(take(array, odd))]
    return pc.replace_with_mask(texts, pc.invert(is_usual), pa.array(others, pa.string()))


# Nested, dictionary and extension types


def _extension(array: pa.ExtensionArray) -> list[Any]:
    is_known = isinstance(array.type, pa.UuidType | pa.Bool8Type)
    return array.to_pylist() if is_known else plain_values(array.storage)


def _dictionary(array: pa.DictionaryArray) -> list[Any]:
    used = pc.unique(array.indices.drop_null()).to_pylist()
    values = dict(zip(used, plain_values(take(array.dictionary, used)), strict=True))
    return [values.get(index) for index in array.indices.to_pylist()]


def _structs(array: pa.StructArray) -> list[Any]:
    names = [array.type.field(place).name for place in range(array.type.num_fields)]
    columns = [plain_values(column) for column in array.flatten()]
    rows: Iterator[tuple[Any, ...]] = (
        zip(*columns, strict=True) if columns else itertools.repeat((), len(array))
    )
    is_named = len(set(names)) == len(names)
    return [
        None if not valid else dict(zip(names, row, strict=True)) if is_named else list(row)
        for valid, row in zip(_validity(array), rows, strict=True)
    ]


def _lists(array: pa.Array) -> list[Any]:
    left = iter(plain_values(array.flatten()))
    lengths = pc.list_value_length(array).to_pylist()
    return [None if length is None else list(itertools.islice(left, length)) for length in lengths]


def _maps(array: pa.MapArray) -> list[Any]:
    pairs = list(zip(*map(plain_values, keys_and_items(array)), strict=True))
    places = itertools.pairwise((np.asarray(array.offsets) - array.offsets[0].as_py()).tolist())
    return [
        pairs[at:end] if valid else None for valid, (at, end) in zip(_validity(array), places, strict=True)
    ]


def keys_and_items(array: pa.MapArray) -> tuple[pa.Array, pa.Array]:
    """All keys and all items of an array of maps; of a slice, those of its rows."""
    start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
    return array.keys.slice(start, end - start), array.items.slice(start, end - start)


def _validity(array: pa.Array) -> list[bool]:
    return array.is_valid().to_pylist()  # type: ignore[no-any-return]


# Values that Python cannot hold


def _short_floats(array: pa.Array) -> list[Any]:
    values = array.to_numpy(zero_copy_only=False)
    return [
        _short_float(value) if valid else None for value, valid in zip(values, _validity(array), strict=True)
    ]


def _shortest(array: pa.FloatArray) -> list[Any]:
    """The same of float32, at once: Arrow's shortest text, whole numbers apart."""
    if len(array) < _FEW:
        return _short_floats(array)
    exact = array.cast(pa.float64())
    is_whole = pc.and_(pc.equal(exact, pc.trunc(exact)), pc.less(pc.abs(exact), _WITH_EXPONENT))
    shortest = array.cast(pa.string()).cast(pa.float64())
    return pc.if_else(is_whole, exact, shortest).to_pylist()  # type: ignore[no-any-return]


def _short_float(value: np.floating[Any]) -> float:
    exact = float(value)
    return exact if exact.is_integer() and abs(exact) < _WITH_EXPONENT else float(str(value))


def _strings(array: pa.Array) -> list[Any]:
    try:
        return array.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        return [_string(scalar) for scalar in array]


def _string(scalar: pa.Scalar) -> str | None:
    return scalar.as_buffer().to_pybytes().decode("utf-8", "backslashreplace") if scalar.is_valid else None


def _dates(array: pa.Array) -> list[Any]:
    try:
        return array.to_pylist()  # type: ignore[no-any-return]
    except (ValueError, OverflowError):
        return [_date(scalar) for scalar in array]


def _date(scalar: pa.Scalar) -> Any:
    """A date or a time, or its text if it is beyond Python's years."""
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        pass
    if isinstance(scalar, pa.TimestampScalar):
        text = str(np.datetime64(scalar.value, scalar.type.unit))
        whole = text.removesuffix("." + "0" * len(text.rpartition(".")[2]))
        return whole if scalar.type.tz is None else f"{whole}+00:00"
    days = scalar.value if isinstance(scalar, pa.Date32Scalar) else scalar.value // 86_400_000
    return str(np.datetime64(days, "D"))


def _times(array: pa.Array) -> list[Any]:
    is_nanoseconds = array.type == pa.time64("ns")  # Python's times end at microseconds
    return (array.cast(pa.string()) if is_nanoseconds else array).to_pylist()  # type: ignore[no-any-return]


def _durations(array: pa.Array) -> list[Any]:
    per_second = _PER_SECOND[array.type.unit]
    return [
        None if value is None else f"{'-' * (value < 0)}PT{_seconds(abs(value), per_second)}S"
        for value in array.cast(pa.int64()).to_pylist()
    ]


def _intervals(array: pa.Array) -> list[Any]:
    return [
        None
        if value is None
        else f"P{value.months}M{value.days}DT{'-' * (value.nanoseconds < 0)}{_seconds(abs(value.nanoseconds), 10**9)}S"
        for value in array.to_pylist()
    ]


def _seconds(value: int, per_second: int) -> str:
    """A number of seconds as a decimal fraction.

    >>> _seconds(1_500_000, 10**6), _seconds(7, 10**9), _seconds(60, 1)
    ('1.5', '0.000000007', '60')
    """
    whole, rest = divmod(value, per_second)
    fraction = f"{per_second + rest}"[1:].rstrip("0")
    return f"{whole}.{fraction}" if fraction else f"{whole}"


_READERS: dict[type, Callable[[Any], list[Any]]] = {
    pa.DictionaryArray: _dictionary,
    pa.StructArray: _structs,
    pa.MapArray: _maps,
    **dict.fromkeys((pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray), _lists),
    **dict.fromkeys((pa.ListViewArray, pa.LargeListViewArray), _lists),
    pa.HalfFloatArray: _short_floats,
    pa.FloatArray: _shortest,
    **dict.fromkeys((pa.StringArray, pa.LargeStringArray, pa.StringViewArray), _strings),
    **dict.fromkeys((pa.TimestampArray, pa.Date32Array, pa.Date64Array), _dates),
    pa.Time64Array: _times,
    pa.DurationArray: _durations,
    pa.MonthDayNanoIntervalArray: _intervals,
}


# ------------------------------------------------------------------------------------------------ leaves and batches


def with_leaves(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """A type with each of its leaves changed, in the order of Parquet's leaf columns."""

    def inner(field: pa.Field) -> pa.Field:
        return field.with_type(with_leaves(field.type, change))

    if isinstance(kind, pa.BaseExtensionType):
        with_leaves(kind.storage_type, change)  # visits the leaves, and changes none
        return kind
    if pa.types.is_struct(kind):
        return pa.struct([inner(field) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(inner(kind.key_field), inner(kind.item_field), kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner(kind.value_field), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(inner(kind.value_field))
    return pa.list_(inner(kind.value_field)) if pa.types.is_list(kind) else change(kind)


def without_dictionaries(kind: pa.DataType) -> pa.DataType:
    """A type with dictionaries replaced by their value types; an array can be cast to it."""
    return with_leaves(kind, lambda leaf: leaf.value_type if pa.types.is_dictionary(leaf) else leaf)


def leaf_types(kind: pa.DataType) -> list[pa.DataType]:
    """The types of the leaves of a type."""
    found: list[pa.DataType] = []

    def note(leaf: pa.DataType) -> pa.DataType:
        found.append(leaf)
        return leaf

    with_leaves(kind, note)
    return found


def leaf_arrays(array: pa.Array) -> Iterator[pa.Array]:
    """The leaves of an array, without values hidden under null lists."""
    if isinstance(array, pa.ExtensionArray):
        yield from leaf_arrays(array.storage)
    elif isinstance(array, pa.StructArray):
        for child in array.flatten():
            yield from leaf_arrays(child)
    elif isinstance(array, pa.MapArray):
        for child in keys_and_items(array):
            yield from leaf_arrays(child)
    elif hasattr(array, "values"):
        yield from leaf_arrays(array.flatten())
    else:
        yield array


def has_small_index(kind: pa.DataType) -> bool:
    """Whether a type is a dictionary whose index type may be too small for the values of two dictionaries together."""
    return bool(pa.types.is_dictionary(kind) and kind.index_type.bit_width < 32)


def joining(schema: pa.Schema) -> Callable[[Sequence[pa.RecordBatch]], bool]:
    """A function that tells whether batches of this schema can be concatenated, given that all but the last can.

    Each batch has its own dictionaries. Together these may have too many values for their index type, and ordered
    dictionaries may have different orders.
    """
    kinds = [leaf for kind in schema.types for leaf in leaf_types(kind) if pa.types.is_dictionary(leaf)]
    has_small, has_ordered = any(map(has_small_index, kinds)), any(kind.ordered for kind in kinds)

    def can_be_joined(batches: Sequence[pa.RecordBatch]) -> bool:
        if has_ordered and not all(map(_have_same_order, batches[0].columns, batches[-1].columns)):
            return False
        return not has_small or _dictionaries_fit(batches)

    return can_be_joined


def _dictionaries_fit(batches: Sequence[pa.RecordBatch]) -> bool:
    try:
        pa.concat_batches([batch.slice(0, 0) for batch in batches])  # no rows, but all dictionary values
    except pa.ArrowInvalid:
        return False
    return True


def _have_same_order(one: pa.Array, other: pa.Array) -> bool:
    return all(
        left.dictionary.equals(right.dictionary)
        for left, right in zip(leaf_arrays(one), leaf_arrays(other), strict=True)
        if pa.types.is_dictionary(left.type) and left.type.ordered
    )


def first_not_utf8(array: pa.Array) -> int | None:
    """Index of the first value that is, or has in it, a string that is not UTF-8; Arrow permits these."""
    if _is_valid(array):
        return None
    array = array.cast(without_dictionaries(array.type))  # a dictionary may have bad values that no row uses
    return next((index for index in range(len(array)) if not _is_valid(take(array, [index]))), None)


def _is_valid(array: pa.Array) -> bool:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def first_with_nul(array: pa.Array) -> int | None:
    """Index of the first value that is a string with a NUL character."""
    if isinstance(array, pa.ExtensionArray):
        return first_with_nul(array.storage)
    if isinstance(array, pa.DictionaryArray):
        bad = set(_with_nul(array.dictionary))
        return (
            next((k for k, index in enumerate(array.indices.to_pylist()) if index in bad), None)
            if bad
            else None
        )
    return min(_with_nul(array), default=None)


def _with_nul(array: pa.Array) -> list[int]:
    if not isinstance(array, pa.StringArray | pa.LargeStringArray | pa.StringViewArray):
        return []
    if isinstance(array, pa.StringViewArray):
        array = array.cast(pa.large_string())
    found = pc.match_substring(array, "\0").fill_null(False)
    return np.flatnonzero(found.to_numpy(zero_copy_only=False)).tolist()


def take_rows(batch: pa.RecordBatch, places: Sequence[int] | NDArray[np.integer[Any]]) -> pa.RecordBatch:
    """The rows of a batch at ``places``, of whatever types (Arrow itself takes no string views)."""
    return pa.RecordBatch.from_arrays([take(column, places) for column in batch.columns], schema=batch.schema)


def take(array: pa.Array, places: Sequence[int] | NDArray[np.integer[Any]]) -> pa.Array:
    """The values of an array at ``places``, of whatever type."""
    try:
        return array.take(pa.array(places, pa.int64()))
    except pa.ArrowNotImplementedError:
        return pa.concat_arrays([array.slice(0, 0), *(array.slice(int(place), 1) for place in places)])


def unfolded_bytes(batch: pa.RecordBatch) -> int:
    """Bytes of a batch, every dictionary value counted once per row that has it."""
    return sum(_unfolded(column) for column in batch.columns)


def _unfolded(array: pa.Array) -> int:
    is_plain = not isinstance(array, pa.DictionaryArray) and not pa.types.is_nested(array.type)
    if is_plain or not any(map(pa.types.is_dictionary, leaf_types(array.type))):
        return int(array.nbytes)
    return sum(map(_unfolded_leaf, leaf_arrays(array)))


def _unfolded_leaf(array: pa.Array) -> int:
    if not isinstance(array, pa.DictionaryArray):
        return int(array.nbytes)
    lengths = pc.binary_length(array.dictionary.cast(pa.large_binary())) if _is_text(array) else None
    folded = pc.sum(lengths.take(array.indices)).as_py() if lengths is not None else None
    return int(array.indices.nbytes) + int(folded or 0)


def _is_text(array: pa.DictionaryArray) -> bool:
    kind = array.type.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind))
