"""Predictions of a table are joined to it by its index, whatever the order, the columns and the format of the predictions."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import batchscore
from batchscore.errors import UsageError

pytestmark = pytest.mark.usefixtures("quick_runs")
ROWS = 24
FORMATS = ("same", "csv", "jsonl", "arrow", "orc", "xlsx")


def frame() -> pd.DataFrame:
    """Rows whose texts have different lengths, so that a row joined to another one is seen."""
    return pd.DataFrame(
        {
            "id": [f"r{row}" for row in range(ROWS)],
            "text": ["so " * (row % 12 + 1) for row in range(ROWS)],
            "day": [("b", "a", "c")[row % 3] for row in range(ROWS)],
            "stars": [row % 5 for row in range(ROWS)],
        }
    )


def filtered() -> pd.DataFrame:
    data = frame()
    return data[data["stars"] > 2]


def assert_joined(data: pd.DataFrame, run: batchscore.Run, rows: int | None = None) -> None:
    """Each row of the predictions beside its own text, and every row of the table among them."""
    scored = run.predictions.to_pandas()[["n_tokens"]]
    joined = data.join(scored, how="inner")
    assert len(joined) == (len(data) if rows is None else rows)
    tokens = joined["n_tokens"] - joined["text"].str.count("so")
    assert tokens.nunique() == 1  # but for the marks of beginning and end, one for each word


@pytest.mark.parametrize("kind", ["same", "csv"])
@pytest.mark.parametrize("make", [frame, filtered], ids=["whole", "filtered"])
def test_partitions_are_joined_by_index(
    make: Callable[[], pd.DataFrame], kind: Any, tiny_bundle: Path
) -> None:
    run = batchscore.score(make(), tiny_bundle, partition_by="day", output_format=kind, quiet=True)
    assert_joined(make(), run)


@pytest.mark.parametrize("kind", ["same", "csv", "arrow", "orc"])
@pytest.mark.parametrize(
    "options",
    [{}, {"keep_columns": ["text"]}, {"rename": {"__index_level_0__": "row"}}, {"drop_columns": ["id"]}],
    ids=["all", "kept", "renamed", "dropped"],
)
def test_an_index_is_kept_whatever_the_columns_and_the_format(
    options: dict[str, Any], kind: Any, tiny_bundle: Path, tmp_path: Path
) -> None:
    run = batchscore.score(
        filtered(), tiny_bundle, tmp_path / "run", output_format=kind, quiet=True, **options
    )
    assert_joined(filtered(), run)
    assert_joined(filtered(), pickle.loads(pickle.dumps(run)))
    if kind in ("same", "arrow"):
        assert_joined(filtered(), batchscore.open_run(run.output))


def index_of_many_kinds() -> pd.MultiIndex:
    """A row of the predictions is only joined if every level is given back as it was."""
    days = pd.date_range("2026-10-20 01:02:03.000004", periods=ROWS)
    return pd.MultiIndex.from_arrays(
        [
            pd.Index([f"0{row}" for row in range(ROWS)], name="code"),
            pd.Index(np.arange(ROWS) / 3, name="share"),
            pd.Index(days, name="day_of"),
            days.tz_localize("Europe/Berlin"),
            pd.Index(days.date, name="date"),
            pd.array(range(3, 3 + ROWS), dtype="Int64"),
            pd.CategoricalIndex([f"c{row}" for row in range(ROWS)]),
            [row % 2 == 0 for row in range(ROWS)],
        ]
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_an_index_of_any_kind_is_given_back(kind: Any, tiny_bundle: Path) -> None:
    data = frame().set_index(index_of_many_kinds())
    run = batchscore.score(data, tiny_bundle, output_format=kind, text_column="text", quiet=True)
    assert_joined(data, run)
    data = frame().set_index(pd.RangeIndex(7, 7 + 3 * ROWS, 3, name="place"))
    run = batchscore.score(data, tiny_bundle, output_format=kind, partition_by="day", quiet=True)
    assert_joined(data, run)
    assert run.predictions.to_pandas().index.name == "place"


def test_what_text_cannot_say_is_joined_to_nothing_rather_than_to_other_rows(tiny_bundle: Path) -> None:
    data = frame().set_index(pd.period_range("2020-01", periods=ROWS, freq="M"))
    run = batchscore.score(data, tiny_bundle, output_format="csv", quiet=True)
    assert isinstance(run.predictions.to_pandas().index[0], str)
    assert_joined(data, batchscore.score(data, tiny_bundle, partition_by="day", quiet=True))


def test_rows_that_are_missing_move_no_other(tiny_bundle: Path) -> None:
    data = frame()
    data.loc[3, "text"] = "so " * 2000
    run = batchscore.score(data, tiny_bundle, max_row_bytes=1024, max_rejects=1, quiet=True)
    assert run.rejects == 1
    assert_joined(data, run, ROWS - 1)
    assert_joined(frame()[5:], batchscore.score(frame()[5:], tiny_bundle, limit=9, quiet=True), 9)


def test_other_tables_count_their_rows_too(tiny_bundle: Path) -> None:
    for data in (
        pl.DataFrame(frame()),
        pa.table(frame()).replace_schema_metadata(),
        pa.table(frame()).to_reader(),
    ):
        assert_joined(frame(), batchscore.score(data, tiny_bundle, partition_by="day", quiet=True))
    part = pa.Table.from_pandas(frame()).slice(5)
    assert_joined(part.to_pandas(), batchscore.score(part, tiny_bundle, partition_by="day", quiet=True))
    own = pa.Table.from_pandas(filtered())
    assert_joined(filtered(), batchscore.score(own, tiny_bundle, keep_columns="id", quiet=True))


def test_an_index_that_divides_the_predictions_is_one_nevertheless(tiny_bundle: Path) -> None:
    data = frame().set_index(pd.Index([row * row for row in range(ROWS)], name="number"))
    assert_joined(data, batchscore.score(data, tiny_bundle, partition_by="number", quiet=True))


def test_the_environment_asks_for_partitions_too(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHSCORE_PARTITION_BY", "day")
    assert_joined(frame(), batchscore.score(frame(), tiny_bundle, quiet=True))


def test_an_index_is_not_left_out(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"drop_columns has id, which is the index .*reset_index"):
        batchscore.score(frame().set_index("id"), tiny_bundle, tmp_path / "run", drop_columns=["id"])
    assert list(tmp_path.iterdir()) == []


def test_a_renamed_column_keeps_its_type_in_pandas(tiny_bundle: Path, tmp_path: Path) -> None:
    frame().astype({"stars": "Int64"}).set_index("id").to_parquet(tmp_path / "in.parquet")
    run = batchscore.score(
        tmp_path / "in.parquet", tiny_bundle, rename={"stars": "given", "id": "key"}, quiet=True
    )
    found = pd.read_parquet(run.output / "predictions" / "in.parquet")
    assert (str(found["given"].dtype), found.index.name) == ("Int64", "key")
