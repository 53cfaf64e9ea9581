"""Whole columns made into text at once: the same text as value by value."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from batchscore.formats.arrow_values import plain_values, texts_of_values
from batchscore.formats.delimited import Dialect, encode_fields
from batchscore.formats.text_values import as_text

RNG = np.random.default_rng(3)
FLOATS = np.concatenate(
    [
        RNG.random(20_000, dtype=np.float32),
        (10.0 ** RNG.uniform(-45, 38, 20_000)).astype(np.float32),
        RNG.integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32),
        np.array([0, -0.0, 1, 1e-4, 9.9999e-5, 1e-5, 1e16, 1e15, 65504, np.nan, np.inf, -np.inf], np.float32),
        np.nextafter(np.float32(1e-4), np.array([0, 1], np.float32), dtype=np.float32),
    ]
)
COLUMNS = {
    "float32": pa.array(FLOATS),
    "float32 with nulls": pa.array([None, 0.1, 1.0, 1e-7, 0.25] * 30, pa.float32()),
    "a few": pa.array([0.1, None, 3e-9], pa.float32()),
    "float64": pa.array([0.1, None, 1e-7, 3.0, float("nan")] * 20),
    "int32": pa.array([1, None, -7, 2**31 - 1] * 20, pa.int32()),
    "bool": pa.array([True, None, False] * 30),
    "string": pa.array(["a", None, "", "b;c"] * 20),
    "nothing": pa.array([], pa.float32()),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_texts_of_a_column_are_those_of_its_values(name: str) -> None:
    column = COLUMNS[name]
    one_by_one = [
        as_text(
            None if value is None else float(str(np.float32(value))) if _is_short(column, value) else value
        )
        for value in column.to_pylist()
    ]
    assert texts_of_values(column) == one_by_one
    assert texts_of_values(column.slice(1)) == one_by_one[1:]
    assert [as_text(value) for value in plain_values(column)] == one_by_one


def _is_short(column: pa.Array, value: float) -> bool:
    """Whether a float32 is written by its shortest text: every one but whole numbers that have no exponent."""
    if column.type != pa.float32():
        return False
    return not (np.isfinite(value) and float(value).is_integer() and abs(value) < 1e16)


@pytest.mark.parametrize(
    ("cells", "written"),
    [
        (["a", "b"], b"a,b"),
        (["a,b", "c"], b'"a,b",c'),
        (['say "so"', ""], b'"say ""so""",'),
        (["two\nlines", "x"], b'"two\nlines",x'),
        (["\ufeffmark", "x"], '"\ufeffmark",x'.encode()),
        (["in \ufeff it", "x"], "in \ufeff it,x".encode()),
        ([""], b'""'),
        (["a"], b"a"),
    ],
)
def test_cells_are_quoted_where_they_must_be_and_nowhere_else(cells: list[str], written: bytes) -> None:
    assert encode_fields(cells, Dialect()) == written
