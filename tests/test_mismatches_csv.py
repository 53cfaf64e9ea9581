"""``mismatches.csv``, for people: the input's own columns and names, rows and lines as a person counts, safe in a spreadsheet."""

from __future__ import annotations

import csv
import decimal
import io
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from flow import Flow, flow

from batchscore.config import ReadSettings
from batchscore.runs import mismatch_files


def csv_of(result: Flow) -> bytes:
    return result.report()[1]


def rows_of(result: Flow) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_of(result).decode("utf-8-sig"), newline="")))


def test_it_has_a_mark_the_inputs_names_and_values_that_pandas_reads_back(tmp_path: Path) -> None:
    given = {
        "Kunden-Nr.": ["007", "12345678901234567890", "1E5"],
        "review": ["größer 日本 🎬", "b", "c"],
        "label": ["1", "0", "1"],
        "price": ["-2.50", "1,5", "=1+1"],
        "=note": ["+49 170", "", "2026-11-01"],
    }
    pd.DataFrame(given).to_csv(tmp_path / "a.csv", index=False)
    result = flow(tmp_path / "out", tmp_path / "a.csv", read=ReadSettings(id_column="Kunden-Nr."))
    content = csv_of(result)
    assert content.startswith(b"\xef\xbb\xbffile,row,line,Kunden-Nr.,given_label,")
    found = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False).sort_values("row")
    assert found.columns.tolist()[-4:] == ["text", "label", "price", "'=note"]
    assert found["Kunden-Nr."].tolist() == given["Kunden-Nr."]
    assert found["text"].tolist() == given["review"]
    assert found["price"].tolist() == ["-2.50", "1,5", "'=1+1"]
    assert found["'=note"].tolist() == ["'+49 170", "", "2026-11-01"]
    assert found["label"].tolist() == given["label"]


def test_rows_and_lines_are_counted_from_one_past_rejects_blank_lines_and_breaks(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"two\nlines",1\n\nbad row\n"x",0\ny,0\n', encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('\n{"text": "a", "label": 1}\n\n{"text": "b", "label": 0}\n')
    (tmp_path / "c.json").write_text('[\n{"text": "a",\n "label": 1},\n{"text": "b", "label": 0}]')
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "d.parquet")
    found = [(row["file"], row["row"], row["line"]) for row in rows_of(flow(tmp_path / "out", tmp_path))]
    assert sorted(found) == [
        ("a.csv", "1", "2"),
        ("a.csv", "4", "7"),
        ("b.jsonl", "1", "2"),
        ("b.jsonl", "2", "4"),
        ("c.json", "1", "2"),
        ("c.json", "2", "4"),
        ("d.parquet", "1", ""),
    ]
    lines = (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()
    assert lines[7 - 1] == "y,0"
    only = rows_of(flow(tmp_path / "parquet", tmp_path / "d.parquet"))
    assert "line" not in only[0]  # no file has any


def test_a_column_of_the_input_that_is_called_line_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,line,input_line\na,1,x,y\n", encoding="utf-8")
    (row,) = rows_of(flow(tmp_path / "out", tmp_path / "a.csv"))
    assert (row["line"], row["input_line_2"], row["input_line"]) == ("2", "x", "y")


def test_values_of_every_type_are_text_or_numbers(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "tags": pa.array([["=a", "b"]]),
        "map": pa.array([{"a": 1}]),
        "money": pa.array([decimal.Decimal("-1.50")]),
        "many": pa.array([-12345678901234567]),
        "raw": pa.array([b"\x00"]),
        "nul": pa.array(["a\0b"]),
        "long": pa.array(["x" * 5000]),
    }
    pq.write_table(pa.table({"text": ["a"], "label": [1], **columns}), tmp_path / "a.parquet")
    (row,) = rows_of(flow(tmp_path / "out", tmp_path / "a.parquet"))
    assert (row["tags"], row["map"], row["money"]) == ('["=a", "b"]', '{"a": 1}', "-1.50")
    assert (row["many"], row["raw"], row["nul"]) == ("-12345678901234567", "AA==", "a\u2400b")
    assert len(row["long"]) == mismatch_files.TEXT_CUT
