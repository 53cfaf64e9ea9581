"""Mismatches: likeliest label errors first over all parts and files, exact for programs, safe for people."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flow import Flow, flow

from batchscore.config import ReadSettings
from batchscore.runs import mismatches
from batchscore.runs.mismatch_files import for_spreadsheet

OWN = [
    *("file", "row", "given_label", "predicted_label", "probability", "prob_given", "label_quality"),
    *("is_label_issue", "n_tokens", "truncated", "text"),
]


def parquet_of(result: Flow) -> pa.Table:
    return pq.read_table(io.BytesIO(result.report()[0]))


def csv_of(result: Flow) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(result.report()[1].decode("utf-8-sig"), newline="")))


def oracle(result: Flow, labels: list[int]) -> list[int]:
    """Rows in the order of the report, by pandas."""
    frame = pd.read_parquet(result.only)
    frame["given"], frame["row"] = labels, range(len(frame))
    wrong = frame[frame["predicted_label"].map({"NEGATIVE": 0, "POSITIVE": 1}) != frame["given"]]
    quality = wrong["prob_POSITIVE"].where(wrong["given"] == 1, wrong["prob_NEGATIVE"])
    rows: list[int] = (
        wrong.assign(quality=quality).sort_values(["quality", "row"], kind="stable")["row"].tolist()
    )
    return rows


def test_several_hundred_over_many_parts_come_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [(k // 3) % 2 for k in range(1500)]
    pq.write_table(
        pa.table(
            {
                "text": [f"row {k}" for k in range(1500)],
                "label": labels,
                "id": [f"id{k}" for k in range(1500)],
            }
        ),
        tmp_path / "a.parquet",
    )
    monkeypatch.setattr(mismatches, "_CHUNK_ROWS", 100)
    result = flow(tmp_path / "out", tmp_path / "a.parquet", read=ReadSettings(part_rows=37))
    table = parquet_of(result)
    assert table.schema.names == ["file", "row", "id", *OWN[2:], "label"]
    rows = table["row"].to_pylist()
    assert len(rows) == 500
    assert rows == oracle(result, labels)
    assert table["text"].to_pylist() == [f"row {row}" for row in rows]
    assert table["id"].to_pylist() == [f"id{row}" for row in rows]
    assert table["label"].to_pylist() == [labels[row] for row in rows]
    assert [row["row"] for row in csv_of(result)] == [str(row + 1) for row in rows]  # as a person counts


def test_rows_keep_their_position_behind_rejects(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nbad row\na,0\nbad row\nb,0\n", encoding="utf-8")
    result = flow(tmp_path / "out", tmp_path / "a.csv")
    assert parquet_of(result).select(["row", "text"]).to_pylist() == [
        {"row": 3, "text": "b"},
        {"row": 1, "text": "a"},
    ]


def test_rows_without_a_known_label_or_a_prediction_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,1\nb,\n,0\nc,what\n", encoding="utf-8")
    assert parquet_of(flow(tmp_path / "out", tmp_path / "a.csv"))["row"].to_pylist() == [0]


def test_no_mismatch_leaves_the_schema(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,n\na,0,1\n", encoding="utf-8")
    table = parquet_of(flow(tmp_path / "out", tmp_path / "a.csv"))
    assert (table.num_rows, table.schema.names) == (0, [*OWN, "label", "n"])


# ------------------------------------------------------------------------------------------------------- columns


def test_files_with_different_schemas_are_put_under_one_another(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": ["a", "b"], "label": [1, 1], "n": [7, 8], "id": [1, 2]}), tmp_path / "a.parquet"
    )
    (tmp_path / "b.csv").write_text("review,sentiment,n,only\nc,pos,007,x\n", encoding="utf-8")
    (tmp_path / "c.jsonl").write_text(
        '{"text": "d", "label": true, "n": 1.50, "review_id": "r"}\n', encoding="utf-8"
    )
    rows = parquet_of(flow(tmp_path / "out", tmp_path)).to_pylist()
    rows.sort(key=lambda row: str(row["file"]))
    assert [row["file"] for row in rows] == ["a.parquet", "b.csv", "c.jsonl"]
    assert [row["n"] for row in rows] == ["7", "007", "1.50"]
    assert [row["id"] for row in rows] == ["1", None, "r"]
    assert [row["only"] for row in rows] == [None, "x", None]
    assert [row["label"] for row in rows] == ["1", None, "true"]
    assert [row["text"] for row in rows] == ["a", "c", "d"]


@pytest.mark.parametrize("id_column", ["row", "file", "input_row", "text_2", "probability"])
def test_input_columns_get_out_of_the_way_of_the_reports_own(id_column: str, tmp_path: Path) -> None:
    names = ["review", "label", "row", "file", "input_row", "input_file", "text_2"]
    if id_column not in names:
        names.append(id_column)
    values: dict[str, Any] = {name: [f"{name} value"] for name in names}
    pq.write_table(pa.table({**values, "label": [1]}), tmp_path / "a.parquet")
    read = ReadSettings(id_column=id_column, text_column="review")
    result = flow(tmp_path / "out", tmp_path / "a.parquet", read=read, prefix="x_")
    (row,) = parquet_of(result).to_pylist()
    assert len(row) == len(OWN) + len(names) - 1
    assert (row["file"], row["row"], row["text"]) == ("a.parquet", 0, "review value")
    kept = {value for value in row.values() if str(value).endswith(" value")}
    assert kept == {f"{name} value" for name in names} - {"label value"}
    assert list(row)[2] == (f"input_{id_column}" if id_column in OWN else id_column)
    assert row[list(row)[2]] == f"{id_column} value"


def test_types_of_other_columns_are_exact(tmp_path: Path) -> None:
    columns = {
        "when": pa.array([1], pa.timestamp("ns", "UTC")),
        "view": pa.array(["v"], pa.string_view()),
        "tags": pa.array([["x", None]]),
        "kind": pa.array(["k"]).dictionary_encode(),
        "kinds": pa.ListArray.from_arrays([0, 1], pa.array(["k"]).dictionary_encode()),
        "uuid": pa.array([b"0" * 16], pa.uuid()),
    }
    pq.write_table(pa.table({"text": ["a"], "label": [1], **columns}), tmp_path / "a.parquet")
    table = parquet_of(flow(tmp_path / "out", tmp_path / "a.parquet"))
    for name in ("when", "view", "tags", "uuid"):
        assert table.schema.field(name).type == columns[name].type
    assert table["kind"].to_pylist() == ["k"]
    assert table["kinds"].to_pylist() == [["k"]]


def test_a_file_name_that_is_not_utf_8_is_escaped(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xff.csv")
    (tmp_path / name).write_text("text,label\na,1\n", encoding="utf-8")
    assert parquet_of(flow(tmp_path / "out", tmp_path / name))["file"].to_pylist() == ["a\\udcff.csv"]


# --------------------------------------------------------------------------------------------- safe for spreadsheets

FORMULAS = [
    "=1+1",
    "+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "  =1",
    "\u00a0=1",
    "\ufeff=1",
    "\u200b=1",
    '"=1',
    "'=1",
    " \"' +1",
    "\uff1d1",
    "\uff0b1",
    "\uff0d1",
    "\uff201",
    "\0=1",
    "\ttext",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_what_may_be_a_formula_becomes_text(text: str) -> None:
    assert for_spreadsheet(text) == "'" + text


@pytest.mark.parametrize("text", ["", "text", "1+1", "a=b", '"quoted"', "  padded", "é", "(=1)", "<br />"])
def test_other_texts_stay(text: str) -> None:
    assert for_spreadsheet(text) == text


def test_no_cell_of_the_csv_is_a_formula_while_parquet_keeps_the_text(tmp_path: Path) -> None:
    texts = [*FORMULAS, 'many\r\nlines, "and" more', "lone\rreturn", "x" * 5000, "=" + "x" * 5000]
    table = pa.table(
        {
            "text": texts,
            "label": [1 - k % 2 for k in range(len(texts))],
            "id": [f"={k}" for k in range(len(texts))],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    result = flow(tmp_path / "out", tmp_path / "a.parquet")
    exact = parquet_of(result)
    assert sorted(exact["text"].to_pylist()) == sorted(texts)
    rows = csv_of(result)
    assert [row["file"] for row in rows] == ["a.parquet"] * len(texts)
    for row, text in zip(rows, exact["text"].to_pylist(), strict=True):
        assert row["text"] == for_spreadsheet(text.replace("\0", "\u2400")[:2000])
        assert row["id"].startswith("'=")
        assert not any(
            cell.lstrip(' \u00a0\ufeff\u200b\0"').startswith(tuple("=+-@\t\r\n")) for cell in row.values()
        )
    assert set(rows[0]) == {*OWN, "id", "label"}


def test_a_column_name_that_is_a_formula_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,=cmd()\na,1,b\n", encoding="utf-8")
    result = flow(tmp_path / "out", tmp_path / "a.csv", read=ReadSettings(id_column="=cmd()"))
    assert list(csv_of(result)[0])[3] == "'=cmd()"


def test_the_head_is_the_first_rows_as_plain_values(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,id\na,1,i\nb,0,j\n", encoding="utf-8")
    table, keys = flow(tmp_path / "out", tmp_path / "a.csv").table()
    (row,) = table.head(keys, 1)
    assert list(row) == ["file", "row", "id", *OWN[2:]]
    assert row["id"] in {"i", "j"}
