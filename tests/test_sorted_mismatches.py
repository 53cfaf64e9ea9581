"""All mismatches in order, sorted on disk in little memory: as one sort in memory has them, to the last row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.formats.arrow_values import plain_values
from batchscore.runs import sorted_mismatches
from batchscore.runs.mismatch_columns import Keys, joined_keys
from batchscore.runs.sorted_mismatches import SortedMismatches, _number, _ordinal
from batchscore.system.own_paths import own

SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("view", pa.string_view()),
        ("several", pa.list_(pa.string())),
        ("both", pa.struct([("a", pa.int64()), ("b", pa.binary_view())])),
        ("line", pa.int64()),
    ]
)


def rows_of(part: int, rows: list[int]) -> pa.RecordBatch:
    names = [f"{part}, {row}" if row % 5 else None for row in rows]
    values = [
        pa.array(names, pa.string()),
        pa.array(names, pa.string_view()),
        pa.array([[str(part)] * (row % 3) for row in rows], SCHEMA.field("several").type),
        pa.array([{"a": row, "b": b"%d" % part} for row in rows], SCHEMA.field("both").type),
        pa.array(rows, pa.int64()),
    ]
    return pa.RecordBatch.from_arrays(values, schema=SCHEMA)


def keys_of(part: int, qualities: list[float]) -> Keys:
    n = len(qualities)
    whole = np.arange(n, dtype=np.int32)
    return Keys(
        np.full(n, part, dtype=np.int32),
        whole,
        np.array(qualities, np.float32),
        np.zeros(n, np.bool_),
        whole + 7,
    )


def check(folder: Path, parts: list[list[float]]) -> int:
    """Sort some parts, hold every row against a sort of all in memory, and return in how many pieces they came."""
    found = SortedMismatches(own(folder / "sorted"), SCHEMA)
    every = [keys_of(part, qualities) for part, qualities in enumerate(parts)]
    for keys in every:
        found.add(rows_of(int(keys.part[0]) if len(keys) else 0, keys.index.tolist()), keys)
    expected = joined_keys(every).in_order()
    assert len(found) == len(expected)
    assert found.first(3).index.tolist() == expected.index[:3].tolist()
    pieces = list(found.in_order())
    at = 0
    for batch, keys in pieces:
        assert batch.schema == SCHEMA
        batch.validate(full=True)
        wanted = expected.at(slice(at, at + len(keys)))
        for name in ("part", "index", "quality", "n_tokens"):
            assert getattr(keys, name).tolist() == getattr(wanted, name).tolist()
        for row, (part, index) in enumerate(zip(keys.part.tolist(), keys.index.tolist(), strict=True)):
            one = rows_of(part, [index])
            assert [plain_values(batch.column(k).slice(row, 1)) for k in range(5)] == [
                plain_values(column) for column in one.columns
            ]
        at += len(keys)
    assert at == len(expected)
    found.close()
    assert not (folder / "sorted").exists()
    return len(pieces)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_mismatches, "RUN_BYTES", 2000)
    monkeypatch.setattr(sorted_mismatches, "BUCKET_BYTES", 1000)
    monkeypatch.setattr(sorted_mismatches, "_BATCH_ROWS", 4)


@pytest.mark.usefixtures("little_memory")
@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.lists(
            st.sampled_from([0.0, 1e-45, 0.25, 0.5, -2.0, 1.0]) | st.floats(-3, 1, width=32), max_size=30
        ),
        max_size=8,
    )
)
def test_rows_come_as_one_sort_in_memory_has_them(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[float]]
) -> None:
    check(tmp_path_factory.mktemp("sort"), parts)


@pytest.mark.usefixtures("little_memory")
def test_rows_of_one_quality_come_in_the_order_of_parts_and_never_all_at_once(tmp_path: Path) -> None:
    assert check(tmp_path, [[0.5] * 60] * 4) > 10


def test_few_rows_need_no_disk(tmp_path: Path) -> None:
    found = SortedMismatches(own(tmp_path / "sorted"), SCHEMA)
    found.add(rows_of(0, [0, 1]), keys_of(0, [0.5, 0.25]))
    assert [keys.index.tolist() for _, keys in found.in_order()] == [[1, 0]]
    assert not (tmp_path / "sorted").exists()


def test_without_a_mismatch_there_is_nothing(tmp_path: Path) -> None:
    assert check(tmp_path, [[], []]) == 0


@given(st.floats(width=32, allow_nan=False), st.floats(width=32, allow_nan=False))
def test_ordinals_are_in_the_order_of_the_numbers(one: float, other: float) -> None:
    assert (_ordinal(np.float32(one)) < _ordinal(np.float32(other))) >= (one < other)
    assert _number(_ordinal(np.float32(one))) == one
