"""What the predictions' format cannot hold is refused before anything is scored, with its place and the way out."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from flow import flow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchscore import cli
from batchscore.config import ReadSettings
from batchscore.errors import DataError
from batchscore.formats.column_choice import choose_columns
from batchscore.formats.reading import describe, identify, read

COLUMNS = {
    "plain": pa.array(["fine", "a\0b"]),
    "large": pa.array(["fine", "\0"], pa.large_string()),
    "view": pa.array([None, "x\0"], pa.string_view()),
    "dictionary": pa.array(["fine", "\0\0"]).dictionary_encode(),
    "json": pa.array(["1", "2\0"], pa.json_()),
}


@pytest.mark.parametrize("name", [*COLUMNS, "text"])
def test_a_nul_in_parquet_is_refused_for_csv_with_its_place(name: str, tmp_path: Path) -> None:
    columns = {"text": ["good", "bad"], **({name: COLUMNS[name]} if name in COLUMNS else {})}
    if name == "text":
        columns["text"] = ["good", "b\0d"]
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    message = rf"a\.parquet, row 1: the column {name} holds a NUL character, which CSV cannot hold\. Choose --output-format"
    with pytest.raises(DataError, match=message):
        flow(tmp_path / "csv", tmp_path / "a.parquet", output_format="csv")
    expected = pa.table(columns)[name].to_pylist()
    lines = (
        flow(tmp_path / "jsonl", tmp_path / "a.parquet", output_format="jsonl").only.read_bytes().splitlines()
    )
    assert [json.loads(line)[name] for line in lines] == expected
    assert pq.read_table(flow(tmp_path / "pq", tmp_path / "a.parquet").only)[name].to_pylist() == expected


def test_a_nul_within_what_becomes_json_is_an_escape(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "x": [["\0", None]]}), tmp_path / "a.parquet")
    (row,) = csv.DictReader(flow(tmp_path / "out", tmp_path / "a.parquet", output_format="csv").only.open())
    assert json.loads(row["x"]) == ["\0", None]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b'{"text": "nice\\u0000film"}', "text"),
        (b'{"text": "a", "shop": "\\u0000"}', "shop"),
        (b'{"text": "a", "x\\u0000y": 1}', r"x\\x00y"),
    ],
)
def test_a_nul_in_json_lines_is_refused_for_csv_alone(line: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "no\\\\u0000ne"}\nno json\n' + line + b"\n")
    options: dict[str, Any] = {"read": ReadSettings(part_rows=2)}
    with pytest.raises(
        DataError, match=rf"a\.jsonl(, row 2: the column|: the name) {name} (holds|has) a NUL"
    ):
        flow(tmp_path / "csv", tmp_path / "a.jsonl", output_format="csv", **options)
    out = flow(tmp_path / "same", tmp_path / "a.jsonl", **options).only.read_bytes().splitlines()
    assert line[:-1] in out[1]
    table = pq.read_table(
        flow(tmp_path / "pq", tmp_path / "a.jsonl", output_format="parquet", **options).only
    )
    first, second = table.to_pylist()
    assert first["text"] == "no\\u0000ne"
    assert any("\0" in str(value) for value in (*second, *second.values()))


def test_a_nul_in_a_json_array_is_refused_for_csv_too(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'[{"text": "a"}, {"text": "b\\u0000d"}]')
    with pytest.raises(DataError, match=r"a\.json, row 1: the column text holds a NUL"):
        flow(tmp_path / "csv", tmp_path / "a.json", output_format="csv")
    flow(tmp_path / "same", tmp_path / "a.json")


def test_the_command_refuses_with_65_and_writes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "nul.jsonl").write_bytes(b'{"text":"nice\\u0000film"}\n')
    arguments = [str(tmp_path / "nul.jsonl"), "--model", str(tiny_model), "--output", str(tmp_path / "run")]
    done = CliRunner().invoke(cli.main, ["score", *arguments, "--output-format", "csv"])
    assert (done.exit_code, "row 0: the column text holds a NUL" in done.stderr) == (65, True), done.output
    assert not (tmp_path / "run").exists()
    assert "nice" not in done.output
    assert CliRunner().invoke(cli.main, ["score", *arguments]).exit_code == 0


@pytest.mark.parametrize("options", [{"prefix": "a\0"}, {"labels": ("a\0", "b")}], ids=["prefix", "label"])
def test_added_names_with_a_nul_are_refused_for_csv_from_any_format(
    options: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("text\na\n", encoding="utf-8")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "b.parquet")
    for name in ("a.csv", "b.parquet"):
        with pytest.raises(DataError, match=rf"{name}: the name .*a\\x00.* has a NUL character"):
            flow(tmp_path / "csv", tmp_path / name, output_format="csv", **options)
    flow(tmp_path / "pq", tmp_path / "b.parquet", **options)


NAMES = ["\ufefftext", "a\rb", 'say "x"', " a, b ", "\n", "", "é\u2028", "'", "\ufeff"]


@pytest.mark.parametrize("first", NAMES)
def test_names_of_columns_come_back_from_csv_as_they_were(first: str, tmp_path: Path) -> None:
    """A byte order mark in the first name would be taken for that of the file."""
    names = [first, "review", *(name for name in NAMES if name != first)]
    pq.write_table(pa.table([[f"{k}"] for k in range(len(names))], names=names), tmp_path / "a.parquet")
    read_settings = ReadSettings(text_column="review")
    out = flow(tmp_path / "out", tmp_path / "a.parquet", output_format="csv", read=read_settings).only
    assert [column.name for column in describe(identify(out), read_settings).columns][: len(names)] == names
    header = next(csv.reader(io.StringIO(out.read_bytes().decode("utf-8-sig"), newline="")))
    assert header[: len(names)] == names


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10) | st.text(
    st.sampled_from('\0\ufeff\r\n",;\t \\\x1a\x85\u2028\ufdd0\ufdd5\ufdd9a'), max_size=6
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8), name=TEXTS)
def test_every_string_comes_back_from_csv_or_is_refused(rows: list[tuple[str, str]], name: str) -> None:
    """Read again by the standard library, by pandas and by ourselves."""
    name = f"x{name}" if name in {"text", "id"} else name
    first, second = (list(column) for column in zip(*rows, strict=True))
    table = pa.table([first, second, ["t"] * len(rows)], names=[name, "id", "text"])
    options = ReadSettings(text_column="text", delimiter=",", label_column="")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        pq.write_table(table, path)
        if any("\0" in text for text in (name, *first, *second)):
            with pytest.raises(DataError, match="NUL"):
                flow(Path(folder) / "out", path, output_format="csv", read=options)
            return
        out = flow(Path(folder) / "out", path, output_format="csv", read=options).only
        header, *found = csv.reader(io.StringIO(out.read_bytes().decode(), newline=""))
        assert header[:3] == [name, "id", "text"]
        assert [tuple(row[:2]) for row in found] == rows
        frame = pd.read_csv(out, dtype=str, keep_default_na=False, encoding="utf-8", header=0)
        assert [tuple(row) for row in frame.iloc[:, :2].to_numpy()] == rows
        source = identify(out)
        layout = describe(source, options)
        parts = read(source, layout, choose_columns(layout, options, out), options)
        assert [part.texts for part in parts] == [["t"] * len(rows)]
