"""Predictions in a folder for each value of a column: as pyarrow reads them, in order, whole after any kill."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from conftest import run_score
from task_models import answering_at_once, check_kills, contents, without_page

from batchscore.config import Allowance, ReadSettings
from batchscore.errors import DataError, UsageError
from batchscore.formats.registry import NAMES
from batchscore.runs import partitions
from batchscore.runs.inspection import verify
from batchscore.runs.partitions import folder_of

DAYS = ["2026-11-01", "2026-11-02", None]
PARQUET: dict[str, Any] = {"output_format": "parquet"}


@pytest.fixture(scope="module")
def quick(tiny_model: Path) -> Iterator[Path]:
    """A model that answers at once."""
    with answering_at_once(tiny_model), without_page():
        yield tiny_model


def frame(count: int = 30) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"{k:03}" for k in range(count)],
            "day": [DAYS[k % 3] for k in range(count)],
            "text": [f"text {k}" for k in range(count)],
            "label": ["POSITIVE", "NEGATIVE"] * (count // 2),
        }
    )


def folders(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "predictions").iterdir())


@pytest.mark.parametrize("kind", NAMES)
def test_every_format_is_divided_and_each_partition_keeps_the_order(
    quick: Path, tmp_path: Path, kind: str
) -> None:
    frame().to_parquet(tmp_path / "a.parquet")
    run_score(tmp_path / "a.parquet", quick, tmp_path / "whole", **PARQUET)
    read = ReadSettings(part_rows=7)
    run_score(
        tmp_path / "a.parquet", quick, tmp_path / "run", read=read, partition_by="day", output_format=kind
    )
    null = "day=__HIVE_DEFAULT_PARTITION__"
    assert folders(tmp_path / "run") == ["day=2026-11-01", "day=2026-11-02", null]
    verify(tmp_path / "run")
    again = tmp_path / "again"
    whole = pd.read_parquet(tmp_path / "whole/predictions/a.parquet")
    for folder in folders(tmp_path / "run"):
        (path,) = (tmp_path / "run/predictions" / folder).iterdir()
        rows = whole[whole.day.isna()] if folder == null else whole[whole.day == folder.removeprefix("day=")]
        if kind == "parquet":
            table = pq.read_table(path, partitioning=None)
            expected = pa.Table.from_pandas(rows.drop(columns="day"), preserve_index=False)
            assert table.column_names == expected.column_names
            assert table["id"].to_pylist() == rows.id.tolist()
            assert table["prob_POSITIVE"].to_pylist() == pytest.approx(rows.prob_POSITIVE.tolist())
        else:  # scored again as it is, which every reader of ours holds against its own format
            run_score(path, quick, again, drop_columns=tuple(whole.columns[4:]), **PARQUET, force=True)
            assert pd.read_parquet(next((again / "predictions").iterdir())).id.tolist() == rows.id.tolist()
    if kind == "parquet":
        hive = ds.dataset(tmp_path / "run/predictions", partitioning="hive").to_table().to_pandas()
        found = hive.sort_values("id").day.astype(object)
        assert [None if pd.isna(day) else str(day) for day in found] == DAYS * 10


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_names_are_those_of_pyarrow(quick: Path, tmp_path: Path, kind: str) -> None:
    values = [None, "", "a/b", "ä %=", "x y", "..", "a:b\n", "~-_.", "+", "日本", "'\"\\"]
    table = pd.DataFrame({"text": [f"text {k}" for k in range(len(values))], "shop": values})
    if kind == "csv":
        table.to_csv(tmp_path / "a.csv", index=False)
        values[0] = ""  # which is all that CSV has
    elif kind == "jsonl":
        table.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    else:
        table.to_parquet(tmp_path / "a.parquet")
    run_score(tmp_path / f"a.{kind}", quick, tmp_path / "run", partition_by="shop")
    theirs = tmp_path / "theirs"
    ds.write_dataset(
        pa.table({"shop": values, "n": values}),
        theirs,
        partitioning=["shop"],
        partitioning_flavor="hive",
        format="parquet",
    )
    assert folders(tmp_path / "run") == sorted(path.name for path in theirs.iterdir())


def test_days_numbers_and_truth_values_name_folders_too() -> None:
    assert folder_of("n", "-5") == "n=-5"
    assert folder_of("n", "\ud800") == "n=%ED%A0%80"


def test_killed_anywhere_the_partitions_are_the_same(quick: Path, tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "a.csv", index=False)
    check_kills(tmp_path / "a.csv", quick, tmp_path, partition_by="day", **PARQUET)


def test_rows_of_several_files_and_rejects_are_all_there(quick: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    frame().to_csv(tmp_path / "in/a.csv", index=False)
    text = frame().assign(day="2026-11-03").to_csv(index=False)
    (tmp_path / "in/b.csv").write_text(f"{text}bad\n", encoding="utf-8")
    (tmp_path / "in/empty.csv").write_text("", encoding="utf-8")
    run_score(
        tmp_path / "in",
        quick,
        tmp_path / "run",
        partition_by="day",
        max_rejects=Allowance(count=1),
        keep_columns=("id",),
    )
    found = sorted(
        path.relative_to(tmp_path / "run/predictions").as_posix()
        for path in (tmp_path / "run/predictions").rglob("*.csv")
    )
    assert found == ["day=/a.csv", "day=2026-11-01/a.csv", "day=2026-11-02/a.csv", "day=2026-11-03/b.csv"]
    lines = (tmp_path / "run/predictions/day=2026-11-03/b.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("id,predicted_label,")
    assert [line[:3] for line in lines[1:]] == frame().id.tolist()
    success = (tmp_path / "run/_SUCCESS").read_text(encoding="utf-8")
    assert success.count("predictions/day=") == 4


def test_what_would_make_no_folders_is_refused_beforehand(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = frame().assign(price=1.5, tags=pd.Series([["x"]] * 30), **{"a=b": "x"})
    table.to_parquet(tmp_path / "a.parquet")
    for column, message in (
        ("dya", r"no column dya \(--partition-by\). Did you mean day\?"),
        ("price", "the column holds numbers with decimals"),
        ("tags", "the column holds lists"),
        ("a=b", "readers take no folder of such a name"),
    ):
        with pytest.raises(DataError, match=message):
            run_score(tmp_path / "a.parquet", quick, tmp_path / "run", partition_by=column)
    monkeypatch.setattr(partitions, "MOST", 29)
    with pytest.raises(DataError, match="more than 29 values"):
        run_score(tmp_path / "a.parquet", quick, tmp_path / "run", partition_by="id")
    frame().assign(day="x" * 252).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="too long for the name of a folder"):
        run_score(tmp_path / "a.parquet", quick, tmp_path / "run", partition_by="day")
    with pytest.raises(UsageError, match="Give one of the two"):
        run_score(
            tmp_path / "a.parquet",
            quick,
            tmp_path / "run",
            partition_by="label",
            append_to=tmp_path / "lake",
            **PARQUET,
        )
    assert not (tmp_path / "run/predictions").exists()


def test_an_earlier_run_in_partitions_is_compared_by_id_or_refused(quick: Path, tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "a.csv", index=False)
    run_score(tmp_path / "a.csv", quick, tmp_path / "before", partition_by="day")
    run_score(tmp_path / "a.csv", quick, tmp_path / "after", baseline=tmp_path / "before", partition_by="day")
    told = json.loads((tmp_path / "after/metrics.json").read_bytes())["comparison"]
    assert (told["matched_by"], told["rows"], told["changed"], told["relabelled"]) == ("id", 30, 0, 0)
    with pytest.raises(DataError, match="divided by --partition-by"):
        run_score(
            tmp_path / "a.csv",
            quick,
            tmp_path / "no id",
            baseline=tmp_path / "before",
            read=ReadSettings(id_column=""),
        )
    assert contents(tmp_path / "before").keys() >= {
        "predictions/day=/a.csv",
        "predictions/day=2026-11-01/a.csv",
    }
