"""A JSON array of objects: read as a stream, each object's own bytes kept, damage told from a bad row."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from flow import flow
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.config import ReadSettings
from batchscore.errors import DataError
from batchscore.formats import json_array as json_file
from batchscore.formats.source import Source
from batchscore.records import Position

SOURCE = Source(Path("a.json"), "json", "")


def elements(data: bytes, max_row_bytes: int = 1 << 20, start: Position = Position()) -> list[Any]:  # noqa: B008
    stream = io.BytesIO(data)
    stream.seek(start.offset)
    return list(json_file._elements(stream, SOURCE, ReadSettings(max_row_bytes=max_row_bytes), start))


def put(folder: Path, data: bytes) -> Path:
    path = folder / "a.json"
    path.write_bytes(data)
    return path


def test_rows_texts_and_labels_are_those_of_the_objects(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "text": "Good, [really] {fine}", "label": 1},
        {"text": 'Bad "film"\n', "label": 0, "x": [1]},
    ]
    result = flow(tmp_path / "out", put(tmp_path, json.dumps(rows, indent=2).encode()))
    assert [rows.texts for rows in result.rows] == [["Good, [really] {fine}", 'Bad "film"\n']]
    assert result.plan.files[0].label_values == {"0": "NEGATIVE", "1": "POSITIVE"}
    written = json.loads(result.only.read_bytes())
    assert [{name: row[name] for name in given} for row, given in zip(written, rows, strict=True)] == rows
    assert [row["predicted_label"] for row in written] == ["NEGATIVE", "POSITIVE"]


def test_the_bytes_of_an_object_are_kept(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf [ {"text" : "a",  "n": 1.10} ,\n\n{"text":"\\u00e9"}]\n'
    written = flow(tmp_path / "out", put(tmp_path, data)).only.read_bytes()
    assert b'{"text" : "a",  "n": 1.10, "predicted_label"' in written
    assert b'{"text":"\\u00e9", "predicted_label"' in written


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_an_array_can_be_written_in_any_format(kind: str, tmp_path: Path) -> None:
    out = flow(
        tmp_path / "out", put(tmp_path, b'[{"text":"a","id":7},{"text":"b"}]'), output_format=kind
    ).only
    read: dict[str, Callable[..., Any]] = {
        "csv": pd.read_csv,
        "parquet": pd.read_parquet,
        "jsonl": partial(pd.read_json, lines=True),
    }
    frame = read[kind](out)
    assert frame["text"].tolist() == ["a", "b"]


def test_other_formats_can_be_written_as_an_array(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,id\n"a, b",007\n', encoding="utf-8")
    (row,) = json.loads(flow(tmp_path / "out", tmp_path / "a.csv", output_format="json").only.read_bytes())
    assert (row["text"], row["id"], row["status"]) == ("a, b", "007", "ok")


@pytest.mark.parametrize("data", [b"[]", b" [ ]\n", b"\xef\xbb\xbf[\n]"])
def test_an_empty_array_is_a_table_without_rows(data: bytes, tmp_path: Path) -> None:
    result = flow(tmp_path / "out", put(tmp_path, data))
    assert result.plan.rows == 0
    assert json.loads(result.only.read_bytes()) == []


def test_an_element_that_is_no_row_costs_itself(tmp_path: Path) -> None:
    data = b'[{"text":"a"}, 7,\n"x", [1, {}], null, {"text": bad}, {"text": 5}, {"text":"b"}]'
    result = flow(tmp_path / "out", put(tmp_path, data))
    assert [rows.texts for rows in result.rows] == [["a", "b"]]
    assert [reject["reason"] for reject in result.rejects] == [
        "a JSON number, not an object",
        "a JSON string, not an object",
        "a JSON array, not an object",
        "a JSON null, not an object",
        "not JSON: Expecting value at character 9",
        "the text is a JSON number, not a string",
    ]
    assert [(reject["row"], reject["line"]) for reject in result.rejects] == [
        (1, 1),
        *[(k, 2) for k in range(2, 7)],
    ]
    assert result.raw_rejects()[2] == b"[1, {}]"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'[{"text":"a"},', "is not closed"),
        (b'[{"text":"a"', "is not closed"),
        (b'[{"text":"a', "is not closed"),
        (b'[{"text":"a"} {"text":"b"}]', "line 1, byte 14: there must be ','"),
        (b'[{"text":"a"},\n,{"text":"b"}]', "line 2, byte 15: there must be an object"),
        (b'[{"text":"a"},]', "there must be an object"),
        (b'[{"text":"a"}]\n[{"text":"b"}]', "line 2, byte 15: something follows the array"),
        (b'[{"text":"a"}]]', "something follows"),
    ],
)
def test_an_array_that_is_damaged_is_refused_with_its_place(
    data: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        flow(tmp_path / "out", put(tmp_path, data))


def test_an_oversized_object_is_a_reject_and_not_held(tmp_path: Path) -> None:
    text = "x" * 300_000 + '"\\'
    rows = [{"text": "a"}, {"text": text, "more": {"a": [text]}}, {"text": "b"}]
    data = json.dumps(rows).encode()
    result = flow(tmp_path / "out", put(tmp_path, data), read=ReadSettings(max_row_bytes=1000))
    assert [rows.texts for rows in result.rows] == [["a", "b"]]
    (reject,) = result.rejects
    assert reject["reason"].startswith(f"{len(json.dumps(rows[1]))} bytes; the longest row allowed has 1000")
    assert result.raw_rejects() == [data[reject["byte_offset"] :][: 64 * 1024]]


def test_a_run_that_goes_on_reads_the_same_parts(tmp_path: Path) -> None:
    data = json.dumps([{"text": f"film {k}"} for k in range(10)], indent=1).encode()
    result = flow(tmp_path / "out", put(tmp_path, data), read=ReadSettings(part_rows=3))
    assert [part.rows for part in result.plan.parts] == [3, 3, 3, 1]
    assert result.plan.parts[2].start.offset == data.index(b'{\n  "text": "film 6"')
    assert [text for rows in result.rows for text in rows.texts] == [f"film {k}" for k in range(10)]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\{}[],: é\n', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('a"{', max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(VALUES, max_size=5), st.sampled_from([None, 1]), st.booleans(), st.sampled_from([1, 3, 1 << 18])
)
def test_every_element_of_any_array_is_found_at_its_place(
    array: list[Any], indent: int | None, ascii_only: bool, block: int
) -> None:
    data = json.dumps(array, indent=indent, ensure_ascii=ascii_only).encode()
    before, json_file._BLOCK = json_file._BLOCK, block
    try:
        found = elements(data)
        for number, each in enumerate(found):
            assert each.raw == data[each.offset : each.offset + each.size]
            assert json.loads(each.raw) == array[number]
            assert each.line == 1 + data[: each.offset].count(b"\n")
            assert elements(data, start=Position(number, each.offset, each.line)) == found[number:]
    finally:
        json_file._BLOCK = before
    assert len(found) == len(array)


def test_nested_fields_of_objects_can_be_the_text_the_label_and_the_id(tmp_path: Path) -> None:
    rows = [
        {"review": {"body": "Good", "by": {"id": "u1"}}, "meta": {"label": 1}, "lang": "en"},
        {"review": {"body": "Bad", "by": {"id": "u2"}}, "meta": {"label": 0}, "lang": "en"},
        {"review": None, "meta": {}, "lang": "en"},
    ]
    read = ReadSettings(text_column="review.body", label_column="meta.label", id_column="review.by.id")
    result = flow(tmp_path / "out", put(tmp_path, json.dumps(rows).encode()), read=read)
    assert [rows.texts for rows in result.rows] == [["Good", "Bad", None]]
    assert [rows.labels for rows in result.rows] == [[1, 0, None]]
    table, keys = result.table()
    assert table.id_name == "review.by.id"
    wrong = [(row["text"], row["review.by.id"]) for row in table.head(keys, 9)]
    assert sorted(wrong) == [("Bad", "u2"), ("Good", "u1")]


def test_nested_fields_of_parquet_can_be_named_too(tmp_path: Path) -> None:
    import pyarrow as pa

    rows = [{"body": "Good", "by": {"id": 7}}, None, {"body": None, "by": None}]
    pq.write_table(pa.table({"review": rows, "label": [0, 1, 1]}), tmp_path / "a.parquet")
    read = ReadSettings(text_column="review.body", id_column="review.by.id")
    result = flow(tmp_path / "out", tmp_path / "a.parquet", read=read)
    assert [rows.texts for rows in result.rows] == [["Good", None, None]]
    with pytest.raises(DataError, match=r"review is an object.*Fields within: review\.body"):
        flow(tmp_path / "other", tmp_path / "a.parquet")
