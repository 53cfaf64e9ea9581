"""Staged parts in, prediction files out: the added columns in every format, and names, nulls and bytes around them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flow import flow

from batchscore.config import ReadSettings
from batchscore.formats.jsonl import json_cells
from batchscore.formats.text_values import as_text, distinct
from batchscore.formats.writing import packed

ADDED = [
    "predicted_label",
    "probability",
    "prob_NEGATIVE",
    "prob_POSITIVE",
    "n_tokens",
    "truncated",
    "status",
]
INPUT = "text,id\ngood,1\n,2\n  ,3\nbad,4\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "a.csv").write_text(INPUT, encoding="utf-8")
    return tmp_path / "a.csv"


def frames(tmp_path: Path, source: Path) -> dict[str, pd.DataFrame]:
    paths = {
        kind: flow(tmp_path / kind, source, output_format=kind).only for kind in ("csv", "jsonl", "parquet")
    }
    return {
        "csv": pd.read_csv(paths["csv"], dtype={"id": str}),
        "jsonl": pd.read_json(paths["jsonl"], lines=True, dtype={"id": str}),
        "parquet": pd.read_parquet(paths["parquet"]),
    }


def test_every_format_holds_the_same_predictions(tmp_path: Path, source: Path) -> None:
    found = frames(tmp_path, source)
    parquet = found["parquet"]
    assert list(parquet.columns) == ["text", "id", *ADDED]
    for kind in ("csv", "jsonl"):
        other = found[kind]
        assert list(other.columns) == list(parquet.columns)
        assert other["status"].tolist() == ["ok", "empty_text", "empty_text", "ok"]
        for name in ADDED[1:4]:
            np.testing.assert_array_equal(other[name].astype(np.float32), parquet[name])
        assert other["predicted_label"].fillna("").tolist() == parquet["predicted_label"].fillna("").tolist()
        assert other["n_tokens"].fillna(-1).tolist() == parquet["n_tokens"].fillna(-1).tolist()


def test_added_columns_have_the_types_of_the_contract(tmp_path: Path, source: Path) -> None:
    schema = pq.read_schema(flow(tmp_path / "out", source, output_format="parquet").only)
    kinds = [pa.string(), *[pa.float32()] * 3, pa.int32(), pa.bool_(), pa.string()]
    assert schema.names[2:] == ADDED
    assert schema.types[2:] == kinds


def test_a_row_without_a_text_has_null_predictions(tmp_path: Path, source: Path) -> None:
    rows = pq.read_table(flow(tmp_path / "out", source, output_format="parquet").only).to_pylist()
    assert {name: rows[1][name] for name in ADDED} == {**dict.fromkeys(ADDED), "status": "empty_text"}
    line = flow(tmp_path / "csv", source).only.read_text(encoding="utf-8").splitlines()[2]
    assert line == ",2,,,,,,,empty_text"


@pytest.mark.parametrize(
    ("content", "first"),
    [
        (b'{"text": "a"}\n', b'{"text": "a", "predicted_label": '),
        (b'{"text": "a" } \r\n', b'{"text": "a" , "predicted_label": '),
        (b"{}\n", b'{"predicted_label": null'),
        (b"{ }", b'{ "predicted_label": null'),
    ],
)
def test_json_fields_are_added_within_the_object(content: bytes, first: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    out = flow(tmp_path / "out", tmp_path / "a.jsonl").only.read_bytes()
    assert out.startswith(first)
    assert out.endswith(b"}" + (content[len(content.rstrip()) :] or b"\n"))
    assert list(json.loads(out))[-7:] == ADDED


def test_a_byte_order_mark_stays(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\n')
    out = flow(tmp_path / "out", tmp_path / "a.jsonl").only.read_bytes()
    assert out.startswith(b'\xef\xbb\xbf{"text": "a", ')


def test_labels_with_quotes_and_delimiters_are_quoted(tmp_path: Path, source: Path) -> None:
    labels = ('very "bad"', "good, or so")
    out = flow(tmp_path / "out", source, labels=labels).only
    rows = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"))))
    assert rows[0]["predicted_label"] == labels[0]
    assert rows[3]["predicted_label"] == labels[1]
    assert f"prob_{labels[1]}" in rows[0]


def test_without_a_quote_character_a_label_with_the_delimiter_is_refused(
    tmp_path: Path, source: Path
) -> None:
    from batchscore.errors import DataError

    with pytest.raises(DataError, match=r"a\.csv: .*needs quotes"):
        flow(tmp_path / "out", source, labels=("a,b", "c"), read=ReadSettings(quotechar=""))


@pytest.mark.parametrize("end", [".gz", ".zst", ".bz2"])
def test_the_same_rows_are_packed_into_the_same_bytes(end: str, tmp_path: Path) -> None:
    kind = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}[end]
    with (tmp_path / f"a.csv{end}").open("wb") as file, packed(file, kind) as stream:
        stream.write(INPUT.encode())
    one = flow(tmp_path / "one", tmp_path / f"a.csv{end}").only
    two = flow(tmp_path / "two", tmp_path / f"a.csv{end}").only
    assert one.read_bytes() == two.read_bytes()
    assert one.name == f"a.csv{end}"
    (tmp_path / "a.csv").write_text(INPUT, encoding="utf-8")
    plain = flow(tmp_path / "plain", tmp_path / "a.csv").only.read_bytes()
    if end == ".gz":
        assert gzip.decompress(one.read_bytes()) == plain
    assert pd.read_csv(one)["status"].tolist() == ["ok", "empty_text", "empty_text", "ok"]


def test_columns_of_one_name_stay_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,x,,x,,x_2\na,1,2,3,4,5\n", encoding="utf-8")
    same = flow(tmp_path / "same", tmp_path / "a.csv").only.read_text(encoding="utf-8")
    assert same.startswith("text,x,,x,,x_2,predicted_label")
    table = pq.read_table(flow(tmp_path / "pq", tmp_path / "a.csv", output_format="parquet").only)
    assert table.schema.names[:6] == ["text", "x", "", "x_3", "_2", "x_2"]
    line = flow(tmp_path / "json", tmp_path / "a.csv", output_format="jsonl").only.read_bytes()
    assert list(json.loads(line).values())[:6] == ["a", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "a_2", "a_3"]),
        (["a", "a", "a_2", "a_2"], ["a", "a_3", "a_2", "a_2_2"]),
    ],
)
def test_equal_names_are_numbered_out_of_the_way_of_the_others(names: list[str], expected: list[str]) -> None:
    assert distinct(names) == expected


@pytest.mark.parametrize(
    ("record", "cells"),
    [
        (b"{}", {}),
        (b' {\t"a" : 1 , "b":"x"}\r\n', {"a": "1", "b": "x"}),
        (
            b'{"a": -0.0, "b": 1E+2, "c": 12345678901234567890}',
            {"a": "-0.0", "b": "1E+2", "c": "12345678901234567890"},
        ),
        (b'{"a": {"b":  [1,2 ]}, "c": true, "d": null}', {"a": '{"b":  [1,2 ]}', "c": "true", "d": None}),
        (b'{"a": 1, "a": "\\u00e9"}', {"a": "é"}),
        (b'{"\\n": "\\ud83d", "b": NaN}', {"\n": '"\\ud83d"', "b": "NaN"}),
    ],
)
def test_json_values_are_taken_to_the_letter(record: bytes, cells: dict[str, str | None]) -> None:
    assert json_cells(record) == cells


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "true"),
        (7, "7"),
        (0.1, "0.1"),
        (b"\xff", "/w=="),
        ([None, 1.5], "[null, 1.5]"),
        ({"é": "x"}, '{"é": "x"}'),
    ],
)
def test_values_are_written_as_people_write_them(value: object, text: str) -> None:
    assert as_text(value) == text


def test_rows_of_many_parts_make_few_row_groups(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": [f"row {k}" for k in range(1000)]}), tmp_path / "a.parquet", row_group_size=10
    )
    out = flow(tmp_path / "out", tmp_path / "a.parquet", read=ReadSettings(part_rows=10)).only
    file = pq.ParquetFile(out)
    assert (file.num_row_groups, file.metadata.num_rows) == (1, 1000)
