"""Names that a format, a library or the system cannot hold: they work, or are refused before anything is scored."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_score
from flow import flow
from pyarrow import orc

from batchscore.cli.options import with_each_mapping
from batchscore.cli.output_options import renames_of
from batchscore.errors import DataError, ModelError, OutputError, UsageError
from batchscore.formats.answers import answers_of
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.writing import Output, count_rows
from batchscore.model.bundle import open_bundle
from batchscore.model.labels import parse_label_map
from batchscore.pairs import divided_pairs, pair_of, quoted_pair
from batchscore.training.work_folder import work_folder

FORMATS = ("csv", "jsonl", "json", "parquet", "arrow", "orc", "xlsx")
NAMES = {
    "half": "\ud800x",
    "nul": "x\0y",
    "long": "n" * 1_100_000,
    "many-bytes": "\u00fc" * 40_000,
    "controls": "\x01\x1b[31m\u202e",
    "lines": 'a\nb\r\nc,"',
}
"""Of a column."""
NOT_UTF8 = "d\udcff"
"""How Python writes a name of the bytes 0x64 0xff."""


def write(path: Path, name: str, rows: int = 2) -> None:
    """A table of id, text and a column of that name."""
    if path.suffix == ".jsonl":
        lines = [json.dumps({"id": k, "text": "Good.", name: "a"}) for k in range(rows)]
        path.write_text("\n".join([json.dumps({"id": 0, "text": "Good."}), *lines]), encoding="utf-8")
        return
    table = pa.table({"id": ["1"] * rows, "text": ["Good."] * rows, name: ["a"] * rows})
    with path.open("wb") as file:
        if path.suffix == ".parquet":
            pq.write_table(table, file)
        elif path.suffix == ".orc":
            orc.write_table(table, file)
        elif path.suffix == ".arrow":
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
        else:
            table.to_pandas().to_csv(file, index=False)


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("kind", NAMES)
def test_a_name_is_written_or_refused_before_a_row_is_scored(kind: str, target: str, tmp_path: Path) -> None:
    for suffix in (".jsonl", ".parquet"):
        path = tmp_path / f"in{suffix}"
        if kind == "half" and suffix == ".parquet":
            continue  # Arrow cannot hold it
        write(path, NAMES[kind])
        folder = tmp_path / suffix[1:]
        try:
            done = flow(folder, path, output_format=target)
        except DataError as error:
            assert not (folder / "parts").exists(), "it was found after rows had been scored"
            assert len(str(error)) < 1000  # noqa: PT017
            assert target in {"csv", "xlsx"}
        else:
            output = Output(
                done.plan.files[0], answers_of(done.bundle.task, done.bundle.labels), OutputColumns()
            )
            assert count_rows(done.only, output, target) == {".parquet": 2, ".jsonl": 3}[suffix] - len(
                done.rejects
            )
            assert len(done.rejects) == (2 if kind == "half" else 0)


def test_a_column_that_predictions_do_not_hold_may_be_called_anything(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    for kind in ("nul", "long"):
        write(path, NAMES[kind])
        for columns in ({"drop_columns": (NAMES[kind],)}, {"renames": {NAMES[kind]: "x"}}):
            done = flow(tmp_path / f"{kind}-{len(columns)}", path, output_format="csv", **columns)
            assert len(done.only.read_bytes()) < 1000


def test_a_name_that_only_a_late_row_has_is_found_before_scoring(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    late = json.dumps({"id": 1, "text": "Bad.", NAMES["long"]: 1})
    path.write_text('{"id": 1, "text": "Good."}\n' * 3000 + late, encoding="utf-8")
    for target in ("csv", "xlsx"):
        with pytest.raises(DataError, match=r"--output-format parquet"):
            flow(tmp_path / target, path, output_format=target)
        assert not (tmp_path / target / "parts").exists()


@pytest.mark.usefixtures("quick_runs")
def test_paths_need_not_be_utf8(tiny_bundle: Path, tmp_path: Path) -> None:
    inputs = tmp_path / NOT_UTF8
    inputs.mkdir()
    for suffix in ("csv", "jsonl", "parquet", "arrow", "orc"):
        write(inputs / f"\udce9.{suffix}", "x", 3)
    for target in ("same", "orc"):
        output = tmp_path / f"{target}{NOT_UTF8}"
        result = run_score(inputs, tiny_bundle, output, output_format=target)
        assert (result.metrics["counts"]["read"], (output / "_SUCCESS").exists()) == (16, True)
        assert len(list((output / "predictions").iterdir())) == 5


def test_a_model_whose_path_is_not_utf8_is_refused_by_name(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / NOT_UTF8)
    with pytest.raises(ModelError, match=r"d\\udcff: the path of a model must be UTF-8"):
        open_bundle(str(tmp_path / NOT_UTF8))
    with (
        pytest.raises(OutputError, match="must be UTF-8"),
        work_folder(tmp_path / f"x{NOT_UTF8}", False, False),
    ):
        pass
    assert os.listdir(os.fsencode(tmp_path)) == [os.fsencode(NOT_UTF8)]  # noqa: PTH208


@pytest.mark.parametrize("new", ["y\udcff", "y\0"])
def test_a_new_name_is_text(new: str) -> None:
    with pytest.raises(UsageError, match="--rename"):
        renames_of([f"x={new}"])


@pytest.mark.parametrize("first", ["a", "a=b", '"', '"a"="b"', " a ", "1..2", "a, b"])
@pytest.mark.parametrize("second", ["b", "", "=", 'b"', '"b"', " b ", "c,d=e"])
def test_two_names_are_told_apart_whatever_they_hold(first: str, second: str) -> None:
    text = quoted_pair(first, second)
    assert pair_of(text) == pair_of(text, at_first=True) == (first, second)
    assert divided_pairs(f"{text},{text}") == [text, text]
    assert with_each_mapping(["--label-map", "x=y", text]) == ["--label-map", "x=y", "--label-map", text]


def test_a_label_may_have_the_sign_that_divides_it_from_its_value() -> None:
    assert parse_label_map(['good="stars=5"', '"a=b"="c d= e"', "x=y=z"]) == {
        "good": "stars=5",
        "a=b": "c d= e",
        "x=y": "z",
    }
