"""``-``: a stream is scored like a file, and the same stream goes on where it was stopped."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.config import ReadSettings, ScoreSettings
from batchscore.errors import (
    BatchscoreError,
    NoInputError,
    NothingToDoError,
    OutputError,
    UsageError,
)
from batchscore.runs.run import score
from batchscore.system.storage import STAGING

CSV = b"id,text\n" + b"".join(b"%03d,review %d is fine\n" % (k, k) for k in range(20))


class _Silent:
    def __init__(self, most: int | None = None) -> None:
        self._most = most

    def add(self, rows: int, *, counted: bool = True) -> None:
        if self._most is not None and rows and counted:
            self._most -= rows
            if self._most <= 0:
                raise KeyboardInterrupt

    def close(self) -> None:
        pass


Score = Callable[..., Any]


@pytest.fixture
def run(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Score:
    def run(data: bytes | None, *inputs: Path, stop_after: int | None = None, **options: Any) -> Any:
        monkeypatch.setattr(sys, "stdin", None if data is None else io.TextIOWrapper(io.BytesIO(data)))
        name = options.pop("name", "run")
        settings = ScoreSettings(
            ("-", *map(str, inputs)),
            str(tiny_bundle),
            tmp_path / name,
            read=ReadSettings(part_rows=5),
            **options,
        )
        return score(settings, lambda _: _Silent(stop_after))  # type: ignore[arg-type,return-value]

    return run


def facts(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "run.json").read_bytes())["files"]
    return found


def test_a_stream_is_scored_as_the_file_would_be(run: Score, tmp_path: Path) -> None:
    run(CSV)
    (file,) = facts(tmp_path / "run")
    assert (file["path"], file["name"], file["rows"], file["size"]) == ("-", "stdin.csv", 20, len(CSV))
    assert not (tmp_path / "run" / STAGING).exists()
    lines = (tmp_path / "run" / "predictions" / "stdin.csv").read_bytes().splitlines()
    assert [line.split(b",")[:2] for line in lines] == [line.split(b",") for line in CSV.splitlines()]


def _jsonl() -> bytes:
    return b'{"text": "fine"}\n{"text": "bad"}\n'


def _parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": ["fine", "bad"]}), out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        pytest.param(_jsonl(), "stdin.jsonl", id="JSON Lines"),
        pytest.param(b'[{"text": "fine"}, {"text": "bad"}]', "stdin.json", id="a JSON array"),
        pytest.param(_parquet(), "stdin.parquet", id="Parquet"),
        pytest.param(gzip.compress(b"text\nfine\nbad\n"), "stdin.csv.gz", id="compressed"),
    ],
)
def test_the_first_bytes_say_what_it_is(run: Score, tmp_path: Path, data: bytes, name: str) -> None:
    result = run(data, dry_run=True)
    assert [(file.name, file.rows) for file in result.plan.files] == [(name, 2)]
    assert result.plan.files[0].shown == "-"
    assert not (tmp_path / "run").exists()


def test_a_stopped_run_goes_on_with_the_same_stream_and_refuses_another(run: Score, tmp_path: Path) -> None:
    run(CSV, name="whole")
    with pytest.raises(KeyboardInterrupt):
        run(CSV, stop_after=10)
    assert not (tmp_path / "run" / STAGING / "stdin").exists()  # every start reads the stream anew
    with pytest.raises(OutputError, match="unfinished run of other inputs"):
        run(CSV + b"020,one more\n")
    assert run(CSV).status == "scored"
    work = json.loads((tmp_path / "run" / "run.json").read_bytes())["work"]
    assert work["micro_batches"] >= 4
    for name in ("predictions/stdin.csv", "metrics.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert run(CSV).status == "done"
    assert not (tmp_path / "run" / STAGING).exists()
    with pytest.raises(OutputError, match="finished run of other inputs"):
        run(CSV + b"020,one more\n")
    assert not (tmp_path / "run" / STAGING).exists()


def test_other_inputs_stand_beside_it(run: Score, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    run(CSV, tmp_path / "a.csv")
    assert [file["name"] for file in facts(tmp_path / "run")] == ["stdin.csv", "a.csv"]
    (tmp_path / "stdin.csv").write_bytes(CSV)
    with pytest.raises(UsageError, match=r"called stdin\.csv, as standard input would be"):
        run(CSV, tmp_path / "stdin.csv", name="b")


@pytest.mark.parametrize(("data", "said"), [(b"", "is empty"), (None, "is closed")])
def test_a_stream_without_anything_is_no_input(
    run: Score, tmp_path: Path, data: bytes | None, said: str
) -> None:
    with pytest.raises(NoInputError, match=said):
        run(data)
    with pytest.raises(NothingToDoError, match=said):
        run(data, skip_empty=True)
    assert not (tmp_path / "run" / STAGING).exists()


def test_a_terminal_is_refused_at_once(run: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main, other = os.openpty()
    with os.fdopen(main, "rb", buffering=0), os.fdopen(other, "r") as terminal:
        monkeypatch.setattr(io, "TextIOWrapper", lambda _: terminal)
        with pytest.raises(UsageError, match="which is a terminal here"):
            run(b"")


def test_a_folder_of_something_else_is_not_written_into(run: Score, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"something that is no run \(mine\.txt\)"):
        run(CSV)
    assert not (tmp_path / "run" / STAGING).exists()


def test_what_is_refused_leaves_nothing_behind(run: Score, tmp_path: Path) -> None:
    with pytest.raises(BatchscoreError, match="2 columns could be the text"):
        run(b"a,b\n1,2\n")
    assert not (tmp_path / "run" / STAGING).exists()


@pytest.mark.parametrize("suffix", [".xlsx", ".orc"])
def test_a_stopped_run_of_a_workbook_or_orc_ends_with_the_same_bytes(
    tiny_bundle: Path, tmp_path: Path, suffix: str
) -> None:
    frame = pd.read_csv(io.BytesIO(CSV), dtype=str)
    path = tmp_path / f"a{suffix}"
    frame.to_excel(path, index=False) if suffix == ".xlsx" else frame.to_orc(path, index=False)

    def go(name: str, stop_after: int | None = None) -> Any:
        settings = ScoreSettings(
            (str(path),), str(tiny_bundle), tmp_path / name, read=ReadSettings(part_rows=5)
        )
        return score(settings, lambda _: _Silent(stop_after))  # type: ignore[arg-type,return-value]

    go("whole")
    with pytest.raises(KeyboardInterrupt):
        go("run", stop_after=10)
    assert go("run").status == "scored"
    for name in (f"predictions/a{suffix}", "metrics.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_messages_name_the_stream_and_not_its_file(run: Score, tmp_path: Path) -> None:
    with pytest.raises(BatchscoreError, match=r"^standard input has no column txt \(--partition-by\)"):
        run(CSV, partition_by="txt")
