"""Predictions appended to a folder of Parquet files: whole, once, in order, and with the columns that are there."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from conftest import run_score
from crashing import KILLED, Fault, in_child
from task_models import answering_at_once, without_page

from batchscore import cli
from batchscore.errors import DataError, GateFailedError, OutputError, UsageError
from batchscore.runs.dataset import DataSet
from batchscore.runs.folder import read_facts


@pytest.fixture(scope="module")
def quick(tiny_model: Path) -> Iterator[Path]:
    """A model that answers at once."""
    with answering_at_once(tiny_model), without_page():
        yield tiny_model


def night(folder: Path, name: str, count: int = 6, **columns: Any) -> Path:
    """A file of one night."""
    path = folder / f"{name}.csv"
    rows = {"id": [f"{name}-{k}" for k in range(count)], "text": [f"text {name} {k}" for k in range(count)]}
    pd.DataFrame({**rows, **columns}).to_csv(path, index=False)
    return path


def names(lake: Path) -> list[str]:
    return sorted(path.name for path in lake.iterdir())


def ids(lake: Path) -> list[str]:
    return list(ds.dataset(lake, format="parquet").to_table()["id"].to_pylist())


PARQUET: dict[str, Any] = {"output_format": "parquet"}


def test_nights_stand_in_order_and_the_same_run_is_there_once(quick: Path, tmp_path: Path) -> None:
    lake, options = tmp_path / "lake", {**PARQUET, "append_to": tmp_path / "lake"}
    for name in ("2026-11-02", "2026-11-01"):
        run = tmp_path / name
        result = run_score(night(tmp_path, name), quick, run, **options)
        (there,) = result.appended
        assert there.read_bytes() == (run / f"predictions/{name}.parquet").read_bytes()
        before = names(lake)
        assert run_score(tmp_path / f"{name}.csv", quick, run, **options).appended == (
            there,
        )  # finished before
        run_score(tmp_path / f"{name}.csv", quick, run, **options, force=True)
        assert names(lake) == before
    assert ids(lake) == [f"2026-11-0{day}-{k}" for day in (1, 2) for k in range(6)]
    pieces = names(lake)[0].split("_")
    assert pieces[0] == "2026-11-01"  # the night, then when it finished, then the run and its file
    assert pieces[3] == "00000.parquet"
    datetime.datetime.strptime(pieces[1], "%Y%m%dT%H%M%SZ").astimezone(datetime.UTC)
    facts = json.loads((tmp_path / "2026-11-01/run.json").read_bytes())
    assert len(pieces[2]) == 16
    assert "append_to" not in facts["options"]


def test_a_run_that_finished_without_it_is_appended_later(quick: Path, tmp_path: Path) -> None:
    files = [night(tmp_path, "a"), night(tmp_path, "b"), night(tmp_path, "empty", 0)]
    run_score(files, quick, tmp_path / "run", **PARQUET)
    result = run_score(files, quick, tmp_path / "run", **PARQUET, append_to=tmp_path / "lake")
    assert result.status == "done"
    assert len(names(tmp_path / "lake")) == 2  # nothing of a file without rows
    assert len(ids(tmp_path / "lake")) == 12


@pytest.mark.parametrize("kind", ["kill", "power"])
def test_killed_at_any_step_a_file_is_there_once_and_whole(quick: Path, tmp_path: Path, kind: str) -> None:
    path, run = night(tmp_path, "a"), tmp_path / "run"
    run_score(path, quick, run, **PARQUET)
    content = (run / "predictions/a.parquet").read_bytes()
    fault = Fault(tmp_path / "counted", at=10**9)

    def counted() -> None:
        run_score(path, quick, run, **PARQUET, append_to=tmp_path / "counted")
        (tmp_path / "steps").write_text(str(len(fault.steps)), encoding="utf-8")

    assert in_child(counted, fault) == 0
    steps = int((tmp_path / "steps").read_text(encoding="utf-8"))
    assert steps >= 4
    for at in range(1, steps + 1):
        lake = tmp_path / f"lake {at}"

        def append(lake: Path = lake) -> None:
            run_score(path, quick, run, **PARQUET, append_to=lake)

        assert in_child(append, Fault(lake, at, kind)) == KILLED
        seen = list(lake.glob("*.parquet")) if lake.exists() else []
        assert [each.read_bytes() for each in seen] in ([], [content])
        append()
        assert [each.read_bytes() for each in lake.iterdir()] == [content]


def test_other_columns_are_refused_before_anything_is_scored(quick: Path, tmp_path: Path) -> None:
    options = {**PARQUET, "append_to": tmp_path / "lake"}
    run_score(night(tmp_path, "a"), quick, tmp_path / "a run", **options)
    before = names(tmp_path / "lake")
    more = night(tmp_path, "b", shop=["x"] * 6)
    for path, others, message in (
        (more, {}, "shop is new"),
        (night(tmp_path, "c"), {"drop_columns": ("id",)}, "there is no id"),
        (night(tmp_path, "c"), {"probabilities": "none"}, "there is no probability"),
        (night(tmp_path, "c"), {"renames": {"status": "state"}}, "there is no status"),
    ):
        for _ in range(2):  # a second time too, when the plan is there
            with pytest.raises(DataError, match=message):
                run_score(path, quick, tmp_path / "refused", **options, **others)
        with pytest.raises(DataError, match=message):
            run_score(path, quick, tmp_path / "planned", **options, **others, dry_run=True)
    pq.write_table(
        pq.read_table(tmp_path / "a run/predictions/a.parquet").select(["text", "id"]), tmp_path / "d.parquet"
    )
    with pytest.raises(DataError, match="text stands where id does"):
        run_score(tmp_path / "d.parquet", quick, tmp_path / "refused", **options)
    pd.DataFrame({"id": [1], "text": ["x"]}).to_parquet(tmp_path / "e.parquet")
    with pytest.raises(DataError, match=r"id is large_string there and int64 here"):
        run_score(tmp_path / "e.parquet", quick, tmp_path / "refused", **options)
    with pytest.raises(DataError, match=r"other columns than those of a.csv.*shop is new"):
        run_score(
            [tmp_path / "a.csv", more], quick, tmp_path / "refused", **PARQUET, append_to=tmp_path / "new"
        )
    # finished without it, and then asked for
    run_score(more, quick, tmp_path / "b run", **PARQUET)
    with pytest.raises(DataError, match="shop is new"):
        run_score(more, quick, tmp_path / "b run", **options)
    run_score(more, quick, tmp_path / "b chosen", **options, keep_columns=("id", "text"))
    assert len(names(tmp_path / "lake")) == 2
    assert set(before) < set(names(tmp_path / "lake"))
    assert not (tmp_path / "refused/predictions").exists()
    assert not (tmp_path / "new").exists()


def test_what_is_no_data_set_is_refused(quick: Path, tmp_path: Path) -> None:
    path = night(tmp_path, "a")
    with pytest.raises(DataError, match=r"the predictions of a.csv are CSV. Add --output-format parquet"):
        run_score(path, quick, tmp_path / "run", append_to=tmp_path / "lake")
    for lake in (tmp_path, tmp_path / "run", tmp_path / "run/lake"):
        with pytest.raises(UsageError, match="must not lie in one another"):
            run_score(path, quick, tmp_path / "run", **PARQUET, append_to=lake)
    run_score(path, quick, tmp_path / "other", **PARQUET)
    with pytest.raises(UsageError, match="holds a run, and no data set"):
        run_score(path, quick, tmp_path / "run", **PARQUET, append_to=tmp_path / "other")
    with pytest.raises(UsageError, match="is no folder"):
        run_score(path, quick, tmp_path / "run", **PARQUET, append_to=path)


def test_no_file_of_the_same_name_is_replaced_and_no_changed_one_is_copied(
    quick: Path, tmp_path: Path
) -> None:
    path, options = night(tmp_path, "a"), {**PARQUET, "append_to": tmp_path / "lake"}
    (there,) = run_score(path, quick, tmp_path / "run", **options).appended
    content = there.read_bytes()
    pq.write_table(pq.read_table(there).slice(0, 1), there)
    with pytest.raises(OutputError, match="has another content"):
        run_score(path, quick, tmp_path / "run", **options)
    there.unlink()
    made = tmp_path / "run/predictions/a.parquet"
    pq.write_table(pq.read_table(made).slice(0, 1), made)
    with pytest.raises(OutputError, match=r"not as it was written: predictions/a\.parquet"):
        run_score(path, quick, tmp_path / "run", **options)
    with pytest.raises(
        DataError, match="is not as it was written, so it was not appended"
    ):  # changed meanwhile
        DataSet(tmp_path / "lake").append(tmp_path / "run", read_facts(tmp_path / "run"), replace=False)
    assert names(tmp_path / "lake") == []
    made.write_bytes(content)
    run_score(path, quick, tmp_path / "run", **options)
    assert [each.read_bytes() for each in (tmp_path / "lake").iterdir()] == [content]


def test_a_run_that_failed_its_gate_is_not_appended(quick: Path, tmp_path: Path) -> None:
    path = night(tmp_path, "a", label=["NEGATIVE", "POSITIVE"] * 3)
    result = run_score(
        path, quick, tmp_path / "run", **PARQUET, append_to=tmp_path / "lake", fail_below=("accuracy=1",)
    )
    assert result.appended == ()
    assert not (tmp_path / "lake").exists()
    with pytest.raises(GateFailedError):
        result.outcome()


def test_the_command_line_says_what_it_appended(quick: Path, tmp_path: Path) -> None:
    path = night(tmp_path, "a")
    common = ["--model", quick, "--output-format", "parquet", "--append-to", tmp_path / "lake", "--json"]
    ran = CliRunner().invoke(
        cli.main, ["score", str(path), "--output", str(tmp_path / "run"), *map(str, common)]
    )
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["appended"] == [str(tmp_path / "lake" / names(tmp_path / "lake")[0])]
