"""Parquet that Arrow would change: INT96 of any year, types it has no word for, dictionaries with small indices.

Oracles are Python's own dates, pandas, and what Arrow says of the finished file's schema.
"""

from __future__ import annotations

import datetime
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flow import flow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_mismatches import csv_of, parquet_of
from test_readers import read_all

from batchscore.config import ReadSettings
from batchscore.errors import DataError
from batchscore.formats import footer, parquet
from batchscore.formats.answers import answers_of
from batchscore.formats.footer import Element, mend_schema, read_schema
from batchscore.formats.reading import describe, identify

FIRST, LAST = (
    datetime.datetime(1677, 9, 21, 0, 12, 43, 145225),
    datetime.datetime(2262, 4, 11, 23, 47, 16, 854775),
)
"""What 64 bits of nanoseconds hold, in whole microseconds."""
SMALL = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
moments = st.datetimes(datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59, 999999))


def with_texts(columns: dict[str, Any], labels: Sequence[int] | None = None) -> pa.Table:
    rows = len(next(iter(columns.values())))
    given_labels = {} if labels is None else {"label": labels}
    return pa.table({"text": [f"row {k}" for k in range(rows)], **given_labels, **columns})


def columns_of(table: pa.Table, names: Sequence[str]) -> list[list[Any]]:
    return [table[name].to_pylist() for name in names]


# ------------------------------------------------------------------------------------------------------------- INT96


def write_int96(path: Path, columns: dict[str, Any], labels: Sequence[int] | None = None) -> pa.Table:
    table = with_texts(columns, labels)
    pq.write_table(table, path, use_deprecated_int96_timestamps=True, row_group_size=3)
    schema = pq.ParquetFile(path).schema
    assert "INT96" in {schema.column(k).physical_type for k in range(len(schema))}
    return table


def write_raw_int96(path: Path, moments: Sequence[tuple[int, int] | None]) -> None:
    """Days and nanoseconds as they are: twelve bytes, which the schema then calls INT96."""
    raw = [
        None
        if moment is None
        else moment[1].to_bytes(8, "little", signed=True) + moment[0].to_bytes(4, "little")
        for moment in moments
    ]
    pq.write_table(with_texts({"at": pa.array(raw, pa.binary(12))}), path, store_schema=False)
    mend(
        path,
        "at",
        lambda node: Element({k: v for k, v in node.fields.items() if k != 2} | {1: (5, footer.INT96 << 1)}),
    )
    assert pq.ParquetFile(path).schema.column(1).physical_type == "INT96"


def mend(path: Path, name: str, change: Callable[[Element], Element]) -> None:
    """Change the schema node of a name in a file, as another writer would have written it."""
    with path.open("r+b") as file:
        schema = read_schema(file)
        elements = [change(e) if e.fields[4][1] == name.encode() else e for e in schema.elements]
        assert elements != schema.elements
        mend_schema(file, elements)


def at_of(folder: Path, path: Path) -> pa.ChunkedArray:
    return pq.read_table(flow(folder, path).only)["at"]


@SMALL
@given(values=st.lists(st.none() | moments, min_size=1, max_size=8))
def test_times_of_all_years_are_python_s_in_every_format(values: list[datetime.datetime | None]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "a.parquet"
        write_int96(path, {"at": pa.array(values, pa.timestamp("us"))})
        after = at_of(folder / "parquet", path)
        fits = all(v is None or FIRST <= v <= LAST for v in values)
        assert after.type.unit == ("ns" if fits else "us")
        assert after.cast(pa.timestamp("us")).to_pylist() == values
        texts = [None if v is None else v.isoformat() for v in values]
        lines = flow(folder / "json", path, output_format="jsonl").only.read_bytes().splitlines()
        assert [json.loads(line)["at"] for line in lines] == texts
        frame = pd.read_csv(
            flow(folder / "csv", path, output_format="csv").only, dtype=str, keep_default_na=False
        )
        assert frame["at"].tolist() == [text or "" for text in texts]


@SMALL
@given(st.lists(st.none() | st.integers(-(2**63) + 1, 2**63 - 1), min_size=1, max_size=8))
def test_nanoseconds_within_their_years_are_not_lost(values: list[int | None]) -> None:
    """From the first to the last moment that pandas has (``Timestamp.min`` and ``max`` serve as "always")."""
    values = [*values, pd.Timestamp.min.value, pd.Timestamp.max.value]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.parquet"
        write_int96(path, {"at": pa.array(values, pa.timestamp("ns"))})
        after = at_of(Path(name) / "out", path)
        assert after.type == pa.timestamp("ns")
        assert after.cast(pa.int64()).to_pylist() == values


@SMALL
@given(
    values=st.lists(st.tuples(moments, st.booleans()), min_size=1, max_size=8),
    far=st.sampled_from([[], [datetime.datetime(9999, 12, 31, 12)], [datetime.datetime(1, 1, 1, 12)]]),
)
def test_negative_nanoseconds_count_back_from_their_day(
    values: list[tuple[datetime.datetime, bool]], far: list[datetime.datetime]
) -> None:
    """Arrow itself wrote times before 1970 so, and took them for 584 years later wherever the unit was not ns."""
    found = [*values, *((moment, True) for moment in far)]
    raw = []
    for moment, counts_back in found:
        day = (moment.date() - datetime.date(1970, 1, 1)).days + 2_440_588
        nanoseconds = (
            (moment - datetime.datetime.combine(moment.date(), datetime.time()))
            // datetime.timedelta(microseconds=1)
            * 1000
        )
        raw.append((day + 1, nanoseconds - 86_400 * 10**9) if counts_back else (day, nanoseconds))
    with tempfile.TemporaryDirectory() as name:
        write_raw_int96(Path(name) / "a.parquet", raw)
        after = at_of(Path(name) / "out", Path(name) / "a.parquet")
        assert after.cast(pa.timestamp("us")).to_pylist() == [moment for moment, _ in found]


def test_each_column_has_the_unit_that_holds_it_however_deep_it_is(tmp_path: Path) -> None:
    far, fine = datetime.datetime(9999, 12, 31, 5), pd.Timestamp("2020-01-01T00:00:00.000000001")
    us, ns = pa.timestamp("us"), pa.timestamp("ns")
    columns = {
        "fine": pa.array([fine, None, fine], ns),
        "far": pa.array([far, None, far], us),
        "list": pa.array([[far, None], None, []], pa.list_(us)),
        "fixed": pa.array([[far, far], [None, far], [far, None]], pa.list_(us, 2)),
        "struct": pa.array(
            [{"far": far, "fine": fine}, None, {"far": None, "fine": None}],
            pa.struct([("far", us), ("fine", ns)]),
        ),
        "map": pa.array([[("k", far)], None, []], pa.map_(pa.string(), us)),
        "deep": pa.array([[{"x": [far]}, None], None, []], pa.list_(pa.struct([("x", pa.list_(us))]))),
        "dictionary": pa.array([far, None, far], us).dictionary_encode(),
    }
    table = write_int96(tmp_path / "a.parquet", columns, labels=[1, 1, 1])
    result = flow(tmp_path / "out", tmp_path / "a.parquet", read=ReadSettings(part_rows=2))
    after = pq.read_table(result.only)
    kinds = {name: us if name == "dictionary" else column.type for name, column in columns.items()}
    for name, kind in kinds.items():
        assert after.schema.field(name).type == kind, name
    assert columns_of(after, list(columns)) == columns_of(table, list(columns))
    mismatched = parquet_of(result)
    rows = mismatched["row"].to_pylist()
    assert rows
    for name in columns:
        assert mismatched[name].to_pylist() == [table[name].to_pylist()[row] for row in rows], name
    line = (
        flow(tmp_path / "json", tmp_path / "a.parquet", output_format="jsonl")
        .only.read_bytes()
        .splitlines()[0]
    )
    values = json.loads(line)
    assert values["fine"] == "2020-01-01T00:00:00.000000001"
    assert values["struct"] == {"far": "9999-12-31T05:00:00", "fine": "2020-01-01T00:00:00.000000001"}
    assert values["deep"] == [{"x": ["9999-12-31T05:00:00"]}, None]
    assert values["map"] == [["k", "9999-12-31T05:00:00"]]


def test_a_time_is_an_id_and_a_slice_as_it_is(tmp_path: Path) -> None:
    moment = datetime.datetime(9999, 12, 31, 12)
    write_int96(tmp_path / "a.parquet", {"id": pa.array([moment] * 2, pa.timestamp("us"))}, labels=[1, 1])
    (row,) = csv_of(flow(tmp_path / "out", tmp_path / "a.parquet"))
    assert row["id"] == "9999-12-31T12:00:00"


def test_parts_begin_anywhere_in_a_file_with_int96(tmp_path: Path) -> None:
    values = [datetime.datetime(1 + 333 * k, 1, 1, 12) for k in range(30)]
    write_int96(tmp_path / "a.parquet", {"at": pa.array(values, pa.timestamp("us"))})
    parts = read_all(tmp_path / "a.parquet", part_rows=4)
    for number in (1, 3, len(parts) - 1):
        again = read_all(tmp_path / "a.parquet", part_rows=4, start=parts[number].start)
        assert [part.table for part in again] == [part.table for part in parts[number:]]
    assert [value for part in parts if part.table for value in part.table["at"].to_pylist()] == values


@pytest.mark.parametrize(
    "raw",
    [
        [(5_373_484, 1), (2_440_588, 0)],  # 9999-12-31 and a nanosecond
        [(5_373_484, 0), (2_440_588, 1)],  # 9999-12-31, and a nanosecond elsewhere
        [(2**32 - 1, 0)],  # 11.7 million years
    ],
    ids=["far and fine", "far, and another is fine", "no year at all"],
)
def test_times_that_no_unit_holds_are_refused_with_their_column(
    raw: list[tuple[int, int]], tmp_path: Path
) -> None:
    write_raw_int96(tmp_path / "a.parquet", raw)
    with pytest.raises(DataError, match=r"a\.parquet: the column at holds times of INT96") as caught:
        flow(tmp_path / "out", tmp_path / "a.parquet")
    assert caught.value.exit_code == 65


# ---------------------------------------------------------------------------------------------- types without a word

BYTES = pa.array([b"abc", None, b"def"])
TWELVE = pa.array([np.array([14, 3, 12_345], "<u4").tobytes(), None, bytes(12)], pa.binary(12))
_NONE: tuple[int, dict[int, Any]] = (12, {})
ANNOTATIONS: dict[str, tuple[pa.Array, dict[int, Any], str, str]] = {
    "INTERVAL": (TWELVE, {6: (5, 21 << 1)}, "Interval", "INTERVAL"),
    "ENUM": (BYTES, {6: (5, 4 << 1), 10: (12, {4: _NONE})}, "Enum", "ENUM"),
    "ENUM of old": (BYTES, {6: (5, 4 << 1)}, "Enum", "ENUM"),
    "BSON": (BYTES, {6: (5, 20 << 1), 10: (12, {13: _NONE})}, "BSON", "BSON"),
    "JSON": (BYTES, {6: (5, 19 << 1), 10: (12, {12: _NONE})}, "JSON", "JSON"),
    "GEOMETRY": (BYTES, {10: (12, {17: _NONE})}, "Geometry(crs=)", "NONE"),
    "GEOGRAPHY": (BYTES, {10: (12, {18: _NONE})}, "Geography(crs=, algorithm=spherical)", "NONE"),
    "a time of day in UTC": (
        pa.array([1, None, 2], pa.time64("us")),
        {10: (12, {7: (12, {1: (1, 1), 2: (12, {2: _NONE})})})},
        "Time(isAdjustedToUTC=true, timeUnit=microseconds)",
        "TIME_MICROS",
    ),
}


def annotate(
    path: Path, columns: dict[str, pa.Array], annotation: dict[int, Any], names: Sequence[str]
) -> None:
    pq.write_table(with_texts(columns, [1, 1, 1]), path, store_schema=False)
    for name in names:
        mend(
            path,
            name,
            lambda node: Element({k: v for k, v in node.fields.items() if k not in {6, 10}} | annotation),
        )


def words(path: Path | io.BytesIO) -> dict[str, tuple[str, str]]:
    """By path of a leaf what Arrow reads of its annotations."""
    schema = pq.ParquetFile(path).schema
    columns = [schema.column(k) for k in range(len(schema))]
    return {column.path: (str(column.logical_type), column.converted_type) for column in columns}


@pytest.mark.parametrize("kind", ANNOTATIONS)
def test_parquet_keeps_types_that_arrow_has_no_word_for(kind: str, tmp_path: Path) -> None:
    values, annotation, *expected = ANNOTATIONS[kind]
    columns = {
        "flat": values,
        "list": pa.ListArray.from_arrays([0, 2, 2, 3], values),
        "struct": pa.StructArray.from_arrays([values], ["inner"]),
        "map": pa.MapArray.from_arrays([0, 1, 2, 3], pa.array(["a", "b", "c"]), values),
    }
    annotate(tmp_path / "a.parquet", columns, annotation, ["flat", "element", "inner", "value"])
    before = words(tmp_path / "a.parquet")
    paths = ["flat", "list.list.element", "struct.inner", "map.key_value.value"]
    assert [before[path] for path in paths] == [tuple(expected)] * 4
    result = flow(tmp_path / "out", tmp_path / "a.parquet", read=ReadSettings(part_rows=2))
    after = words(result.only)
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) == set(answers_of(result.bundle.task, result.bundle.labels).names())
    given_table, table = pq.read_table(tmp_path / "a.parquet"), pq.read_table(result.only)
    for name in columns:
        assert table[name].to_pylist() == given_table[name].to_pylist(), name
    out = io.BytesIO(result.report()[0])
    assert {path: words(out)[path] for path in paths} == {path: before[path] for path in paths}


def test_intervals_and_enums_are_written_as_people_write_them(tmp_path: Path) -> None:
    columns = {"interval": TWELVE, "mood": BYTES, "list": pa.ListArray.from_arrays([0, 2, 2, 3], TWELVE)}
    pq.write_table(with_texts(columns), tmp_path / "a.parquet", store_schema=False)
    for names, annotation in (
        (("interval", "element"), ANNOTATIONS["INTERVAL"][1]),
        (("mood",), ANNOTATIONS["ENUM"][1]),
    ):
        for name in names:
            mend(tmp_path / "a.parquet", name, lambda node, a=annotation: Element(node.fields | a))  # type: ignore[misc]
    frame = pd.read_csv(
        flow(tmp_path / "csv", tmp_path / "a.parquet", output_format="csv").only, keep_default_na=False
    )
    assert frame["interval"].tolist() == ["P14M3DT12.345S", "", "P0M0DT0S"]
    assert frame["mood"].tolist() == ["abc", "", "def"]
    assert frame["list"].tolist() == ['["P14M3DT12.345S", null]', "[]", '["P0M0DT0S"]']


def test_an_enum_is_a_label_and_a_text(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": [b"fine", b"bad"], "label": [b"pos", b"neg"]}),
        tmp_path / "a.parquet",
        store_schema=False,
    )
    for name in ("text", "label"):
        mend(tmp_path / "a.parquet", name, lambda node: Element(node.fields | ANNOTATIONS["ENUM"][1]))
    result = flow(tmp_path / "out", tmp_path / "a.parquet")
    assert [rows.texts for rows in result.rows] == [["fine", "bad"]]
    assert result.plan.files[0].labelled == 2


def test_a_variant_stays_one(tmp_path: Path) -> None:
    fields = [pa.field("metadata", pa.binary(), False), pa.field("value", pa.binary())]
    variant = pa.StructArray.from_arrays([pa.array([b"\1\0\0"] * 3), BYTES], fields=fields)
    annotate(tmp_path / "a.parquet", {"v": variant}, {10: (12, {16: _NONE})}, ["v"])
    assert "v (Variant(1))" in str(pq.ParquetFile(tmp_path / "a.parquet").schema)
    assert "v (Variant(1))" in str(pq.ParquetFile(flow(tmp_path / "out", tmp_path / "a.parquet").only).schema)


def test_lists_with_other_groups_around_them_keep_their_leaf(tmp_path: Path) -> None:
    lists = pa.ListArray.from_arrays([0, 2, 2, 3], TWELVE)
    pq.write_table(
        with_texts({"list": lists}),
        tmp_path / "a.parquet",
        use_compliant_nested_type=False,
        store_schema=False,
    )
    mend(tmp_path / "a.parquet", "item", lambda node: Element(node.fields | ANNOTATIONS["INTERVAL"][1]))
    after = words(flow(tmp_path / "out", tmp_path / "a.parquet").only)
    assert after["list.list.element"] == ("Interval", "INTERVAL")


def test_text_formats_and_other_outputs_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,x\na,1\n", encoding="utf-8")
    assert words(flow(tmp_path / "out", tmp_path / "a.csv", output_format="parquet").only)["x"] == (
        "String",
        "UTF8",
    )


def test_field_numbers_and_what_may_be_null_stay(tmp_path: Path) -> None:
    inner = pa.field("y", pa.int8(), True, {"PARQUET:field_id": "9"})
    schema = pa.schema(
        [
            pa.field("text", pa.string(), False, {"PARQUET:field_id": "7"}),
            pa.field("s", pa.struct([inner]), False, {"PARQUET:field_id": "8"}),
        ]
    )
    pq.write_table(pa.table({"text": ["a"], "s": [{"y": 1}]}, schema=schema), tmp_path / "a.parquet")
    after = str(pq.ParquetFile(flow(tmp_path / "out", tmp_path / "a.parquet").only).schema)
    before = str(pq.ParquetFile(tmp_path / "a.parquet").schema)
    assert after.splitlines()[2:6] == before.splitlines()[2:6]
    assert "required binary field_id=7 text" in after


# ------------------------------------------------------------------------------------------------------------- footers


def test_a_footer_that_is_taken_apart_and_put_together_again_is_the_same(tmp_path: Path) -> None:
    from test_values import COLUMNS

    path = tmp_path / "a.parquet"
    for names in (list(COLUMNS), list(COLUMNS)[:3]):
        pq.write_table(pa.table({name: COLUMNS[name] for name in names}), path)
        before = path.read_bytes()
        with path.open("r+b") as file:
            schema = read_schema(file)
            mend_schema(file, schema.elements)
        assert path.read_bytes() == before
        assert [len(columns) for columns in schema.columns()][:2] == [1, 1]
        assert len(schema.columns()) == len(names)
        assert schema.metadata().equals(pq.read_metadata(path))


@pytest.mark.parametrize(
    "content", [b"", b"PAR1PAR1", b"PAR1\0\0\0\0PAR1", b"\x15\x02\x19\xff" + b"\xff" * 9, b"\x15" * 40]
)
def test_a_footer_that_makes_no_sense_is_damage(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for data in (b"PAR1" + content, b"PAR1" + content + len(content).to_bytes(4, "little") + b"PAR1"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"a\.parquet is damaged or cut short"):
            describe(identify(path, "parquet"), ReadSettings())


# -------------------------------------------------------------------------------------------------------- dictionaries


def encoded(values: Sequence[str], index: pa.DataType, *, ordered: bool = False) -> pa.DictionaryArray:
    found = pa.array(values).dictionary_encode()
    return pa.DictionaryArray.from_arrays(found.indices.cast(index), found.dictionary, ordered=ordered)


def write_groups(path: Path, columns: Sequence[pa.Array]) -> list[Any]:
    """Each column as a row group with its own dictionary; returns all values."""
    schema = with_texts({"d": columns[0]}, [1] * len(columns[0])).schema
    with pq.ParquetWriter(path, schema) as writer:
        for column in columns:
            writer.write_table(with_texts({"d": column}, [1] * len(column)))
    return [value for column in columns for value in column.to_pylist()]


WRAPPED: dict[str, Callable[[pa.Array], pa.Array]] = {
    "flat": lambda array: array,
    "list": lambda array: pa.ListArray.from_arrays(list(range(len(array) + 1)), array),
    "large list": lambda array: pa.LargeListArray.from_arrays(list(range(len(array) + 1)), array),
    "struct": lambda array: pa.StructArray.from_arrays([array], ["x"]),
    "list of structs": lambda array: pa.ListArray.from_arrays(
        list(range(len(array) + 1)), pa.StructArray.from_arrays([array], ["x"])
    ),
}
COUNTS = {pa.int8(): 100, pa.uint8(): 200, pa.int16(): 17_000, pa.int32(): 100}


@pytest.mark.parametrize("index", COUNTS, ids=str)
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_row_groups_whose_dictionaries_are_too_many_together_keep_their_types_and_values(
    wrap: Callable[[pa.Array], pa.Array], index: pa.DataType, tmp_path: Path
) -> None:
    count = COUNTS[index]
    names = [f"shop {k}" for k in range(2 * count)]
    columns = [wrap(encoded(names[at : at + count], index)) for at in (0, count)]
    values = write_groups(tmp_path / "a.parquet", columns)
    before = pq.read_table(tmp_path / "a.parquet")
    result = flow(tmp_path / "out", tmp_path / "a.parquet")
    after = pq.read_table(result.only)
    assert after["d"].type == before["d"].type
    assert after["d"].to_pylist() == values
    mismatched = parquet_of(result)
    assert mismatched["d"].to_pylist() == [values[row] for row in mismatched["row"].to_pylist()]
    again = read_all(tmp_path / "a.parquet", start=result.plan.parts[-1].start)
    assert again[0].table == result.rows[-1].table


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_a_row_group_with_more_values_than_its_indices_count_is_read(
    wrap: Callable[[pa.Array], pa.Array], tmp_path: Path
) -> None:
    """Arrow writes it from a table of several pieces, and cannot read it; every other reader can."""
    pieces = [wrap(encoded([f"shop {k}" for k in range(at, at + 100)], pa.int8())) for at in (0, 100)]
    table = with_texts({"d": pa.chunked_array(pieces)})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(pa.ArrowInvalid, match="not in range"):
        pq.read_table(tmp_path / "a.parquet")
    assert (
        pq.read_table(flow(tmp_path / "out", tmp_path / "a.parquet").only)["d"].to_pylist()
        == table["d"].to_pylist()
    )


def test_two_orders_are_not_made_one(tmp_path: Path) -> None:
    columns = [
        encoded(["low", "high"], pa.int8(), ordered=True),
        encoded(["low", "mid", "high"], pa.int8(), ordered=True),
    ]
    write_groups(tmp_path / "a.parquet", columns)
    result = flow(tmp_path / "out", tmp_path / "a.parquet")
    after = pq.ParquetFile(result.only)
    groups = [after.read_row_group(k)["d"].combine_chunks() for k in range(after.num_row_groups)]
    assert [group.dictionary.to_pylist() for group in groups] == [["low", "high"], ["low", "mid", "high"]]
    assert all(group.type.ordered for group in groups)


def test_rows_of_many_parts_with_one_dictionary_still_make_few_row_groups(tmp_path: Path) -> None:
    column = encoded([f"shop {k % 90}" for k in range(1000)], pa.int8(), ordered=True)
    pq.write_table(with_texts({"d": column}), tmp_path / "a.parquet")
    result = flow(tmp_path / "out", tmp_path / "a.parquet", read=ReadSettings(part_rows=100))
    assert len(result.plan.parts) == 10
    assert pq.ParquetFile(result.only).num_row_groups == 1


def test_memory_of_a_row_group_stays_within_bounds_beside_small_dictionaries() -> None:
    schema = pa.schema([("d", pa.dictionary(pa.int8(), pa.string()))])
    batches = [pa.record_batch([encoded(["a"] * 20_000, pa.int8())], schema=schema)] * 5
    out = io.BytesIO()
    parquet.write_row_groups(batches, schema, out)
    assert pq.ParquetFile(out).num_row_groups == 3
