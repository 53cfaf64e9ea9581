"""A run from Python: what it holds, what it raises, and what it leaves alone."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import gc
import logging
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_score
from task_models import LABELS, make_model

import batchscore
from batchscore import errors
from batchscore.errors import (
    BatchscoreError,
    BusyError,
    DataError,
    GateFailedError,
    ModelError,
    NoInputError,
    NothingToDoError,
    OutputError,
    StorageError,
    UsageError,
)
from batchscore.runs.inspection import verify
from batchscore.system.locks import locked
from batchscore.system.terminal import Progress

pytestmark = pytest.mark.usefixtures("quick_runs")
TEXTS = ["Good.", "Bad, really bad.", None, "Neither good nor bad.", "", "Wonderful!"]
DATA = pd.DataFrame({"text": TEXTS, "label": ["pos", "neg", "pos", "neg", "pos", None]})
BOTH = pd.DataFrame({"text": ["Good.", "Good."], "label": ["pos", "neg"]})
"""Whatever the model says, it is right once."""


def test_the_package_starts_at_once() -> None:
    code = (
        "import sys, batchscore; batchscore.errors.DataError, dir(batchscore);"
        "heavy = ('torch', 'transformers', 'pandas', 'pyarrow', 'numpy', 'click', 'tqdm');"
        "print([m for m in heavy if m in sys.modules]);"
        "batchscore.score, batchscore.train, batchscore.open_run, batchscore.Run;"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n['click']\n"
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        _ = batchscore.scores  # type: ignore[attr-defined]


# --------------------------------------------------------------------------------------------------------- what it holds


@pytest.fixture(scope="module")
def run(tiny_bundle: Path) -> batchscore.Run:
    """A temporary run; tests must not change it."""
    return batchscore.score(DATA, tiny_bundle, quiet=True)


def test_a_run_says_what_came_out(run: batchscore.Run) -> None:
    assert (run.status, run.rows, run.rejects) == ("scored", 6, 0)
    assert run.metrics["counts"]["null_text"] == 1
    assert run.facts["files"][0]["rows"] == 6
    assert run.predictions.column("text").to_pylist() == TEXTS
    assert run.predictions.to_pandas()["status"].tolist() == [
        "ok",
        "ok",
        "null_text",
        "ok",
        "empty_text",
        "ok",
    ]
    assert run.mismatches is not None
    assert run.mismatches.num_rows == run.metrics["mismatches"]
    assert run.reader().read_all().equals(run.predictions)
    assert verify(Path(run)) == {"kind": "run", "files": 8}


def test_a_run_shows_itself(run: batchscore.Run) -> None:
    assert repr(run).startswith("<run: status scored, rows 6, accuracy ")
    assert "(temporary)>" in repr(run)
    shown = run._repr_html_()
    assert re.findall(r"<th[^>]*>([^<]*)</th>", shown) == [
        "status",
        "rows",
        "accuracy",
        "mismatches",
        "output",
    ]
    page = run.report
    assert Path(page) == page.path == run.output / "report.html"
    frame = page._repr_html_()
    assert frame.count("<") == frame.count(">") == 2  # one element; the page is a value in it
    assert "&lt;base href=&quot;about:srcdoc&quot;&gt;" in frame
    assert "<script" not in frame
    assert "allow-scripts" not in frame


def test_no_labels_no_mismatches(tiny_bundle: Path) -> None:
    run = batchscore.score(DATA[["text"]], tiny_bundle, quiet=True)
    assert run.mismatches is None
    assert "accuracy" not in repr(run)


NAMED = DATA.assign(n=["007", "1", "NA", "x;y", "-", "\u00e4"])


@pytest.fixture(scope="module")
def as_parquet(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The predictions of a CSV file as Parquet."""
    path = tmp_path_factory.mktemp("data") / "data.csv"
    NAMED.to_csv(path, index=False)
    run = batchscore.score(path, tiny_bundle, output_format="parquet", quiet=True)
    return pq.read_table(run.output / "predictions" / "data.parquet")


@pytest.mark.parametrize("name", ["data.csv", "data.csv.gz", "data.jsonl", "data.json", "data.arrow"])
def test_predictions_are_the_same_table_whatever_the_format(
    name: str, as_parquet: pa.Table, tiny_bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / name
    match name.partition(".")[2]:
        case "jsonl":
            NAMED.to_json(path, orient="records", lines=True)
        case "json":
            NAMED.to_json(path, orient="records")
        case "arrow":
            NAMED.to_feather(path)
        case _:
            NAMED.to_csv(path, index=False)
    found = batchscore.score(path, tiny_bundle, quiet=True).predictions
    assert found.schema.equals(as_parquet.schema)
    is_csv = name.startswith("data.csv")  # which has one empty cell for null and for the empty text
    columns = (
        found.column_names
        if is_csv
        else [each for each in found.column_names if each not in ("text", "label", "status")]
    )
    assert found.select(columns).equals(as_parquet.select(columns))
    assert found["n"].to_pylist() == NAMED["n"].tolist()


def test_predictions_of_several_labels_and_of_a_number_have_their_types(tmp_path: Path) -> None:
    several = make_model(tmp_path / "several", LABELS, problem_type="multi_label_classification")
    number = make_model(tmp_path / "number", ["stars"], problem_type="regression")
    DATA[["text"]].to_csv(tmp_path / "data.csv", index=False)
    for model, name in ((several, "predicted_labels"), (number, "value")):
        run = batchscore.score(tmp_path / "data.csv", model, quiet=True)
        written = pd.read_csv(run.output / "predictions" / "data.csv", dtype=str, keep_default_na=False)
        is_scored = written["status"] == "ok"
        if name == "value":
            expected = [float(text) if text else math.nan for text in written[name]]
            assert run.predictions[name].type == pa.float32()
            assert run.predictions[name].to_numpy() == pytest.approx(
                np.array(expected, np.float32), abs=0, nan_ok=True
            )
        else:
            expected_lists = [text.split(";") if text else [] for text in written[name]]
            found = run.predictions[name].to_pylist()
            assert run.predictions[name].type == pa.list_(pa.string())
            assert found == [each if ok else None for each, ok in zip(expected_lists, is_scored, strict=True)]


def test_several_files_are_one_table(tiny_bundle: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "n": [1, 2]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["c"], "n": [3]}), tmp_path / "b.parquet")
    run = batchscore.score([tmp_path / "b.parquet", tmp_path / "a.parquet"], tiny_bundle, quiet=True)
    assert run.predictions["n"].to_pylist() == [3, 1, 2]
    assert run.predictions.schema.field("n").type == pa.int64()
    globbed = batchscore.score(tmp_path.glob("?.parquet"), tiny_bundle, quiet=True)
    assert sorted(globbed.predictions["n"].to_pylist()) == [1, 2, 3]


def test_files_of_different_columns_are_one_table_too(tiny_bundle: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "n": [1], "k": pa.nulls(1)}), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("text,n,m\nb,2.0,x\n", encoding="utf-8")
    (tmp_path / "c.csv").write_text("", encoding="utf-8")
    found = batchscore.score(str(tmp_path / "*"), tiny_bundle, quiet=True).predictions
    assert found.select(["text", "n", "k", "m"]).to_pydict() == {
        "text": ["a", "b"],
        "n": ["1", "2.0"],
        "k": [None, None],
        "m": [None, "x"],
    }
    assert found.schema.field("probability").type == pa.float32()
    assert found["status"].to_pylist() == ["ok", "ok"]


def test_a_file_without_a_row_has_a_table_without_rows(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n", encoding="utf-8")
    found = batchscore.score(tmp_path / "a.csv", tiny_bundle, quiet=True).predictions
    assert (found.num_rows, found.column_names[:3]) == (0, ["text", "label", "predicted_label"])
    (tmp_path / "a.csv").write_text("", encoding="utf-8")
    assert batchscore.score(tmp_path / "a.csv", tiny_bundle, quiet=True).predictions.num_rows == 0


# ---------------------------------------------------------------------------------------------------- where it is kept


def test_a_temporary_run_lives_as_long_as_its_object(tiny_bundle: Path) -> None:
    run = batchscore.score(BOTH, tiny_bundle, quiet=True)
    folder, table = run.output.parent, run.predictions
    assert folder.exists()
    with pytest.raises(TypeError, match="output="):
        pickle.dumps(run)
    del run
    gc.collect()
    assert not folder.exists()
    assert table.num_rows == 2


def test_a_refused_temporary_run_leaves_nothing(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(DataError):
        batchscore.score(BOTH, tiny_bundle, label_column="none", quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_a_run_with_an_output_is_known_again(tiny_bundle: Path, tmp_path: Path) -> None:
    first = batchscore.score(BOTH, tiny_bundle, tmp_path / "run", quiet=True)
    again = batchscore.score(BOTH.copy(), tiny_bundle, tmp_path / "run", quiet=True)
    assert (first.status, again.status) == ("scored", "done")
    assert again.predictions.equals(first.predictions)
    other = BOTH.assign(label="pos")
    with pytest.raises(OutputError, match="--force"):
        batchscore.score(other, tiny_bundle, tmp_path / "run", quiet=True)
    assert batchscore.score(other, tiny_bundle, tmp_path / "run", force=True, quiet=True).status == "scored"
    sent = pickle.loads(pickle.dumps(again))
    assert (sent.output, sent.rows) == (tmp_path / "run", 2)


def test_a_run_is_found_wherever_the_program_goes(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = batchscore.score(BOTH, tiny_bundle, "run", quiet=True)
    monkeypatch.chdir("/")
    assert run.predictions.num_rows == 2


def test_what_is_handed_out_of_a_run_that_was_done_is_checked(tiny_bundle: Path, tmp_path: Path) -> None:
    run = batchscore.score(BOTH, tiny_bundle, tmp_path / "run", quiet=True)
    (path,) = (run.output / "predictions").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(OutputError, match=r"table\.parquet"):
        batchscore.score(BOTH, tiny_bundle, tmp_path / "run", quiet=True)
    with pytest.raises(DataError, match=r"table\.parquet"):
        batchscore.open_run(tmp_path / "run")
    with pytest.raises(DataError, match=r"table\.parquet"):
        _ = run.predictions


def test_a_run_of_the_command_line_is_opened(tiny_bundle: Path, tmp_path: Path) -> None:
    BOTH.to_csv(tmp_path / "data.csv", index=False)
    run_score(tmp_path / "data.csv", tiny_bundle, tmp_path / "run")
    run = batchscore.open_run(str(tmp_path / "run"))
    assert (run.status, run.rows, run.metrics["mismatches"]) == ("done", 2, 1)
    assert run.predictions["label"].to_pylist() == ["pos", "neg"]
    baseline = batchscore.score(tmp_path / "data.csv", tiny_bundle, baseline=run, quiet=True)
    assert baseline.metrics["comparison"]["rows"] == 2


def test_what_is_no_finished_run_is_not_opened(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no run folder"):
        batchscore.open_run(tmp_path / "none")
    with pytest.raises(NoInputError, match="no run folder"):
        batchscore.open_run(tmp_path)
    night = tmp_path / "2026-11-27"
    with pytest.raises(DataError):
        batchscore.score(BOTH, tiny_bundle, night, label_column="none", quiet=True)
    with pytest.raises(DataError, match=r"holds no results: .*--label-column"):
        batchscore.open_run(night)
    stopped = tmp_path / "stopped" / ".staging"
    stopped.mkdir(parents=True)
    with pytest.raises(DataError, match="has not finished"):
        batchscore.open_run(stopped.parent)


# -------------------------------------------------------------------------------------------------------- what it raises


def raises(
    data: Any, model: Path, output: Path | None = None, **options: Any
) -> Callable[[pytest.MonkeyPatch], object]:
    return lambda _: batchscore.score(data, model, output, quiet=True, **options)


def test_every_documented_error_is_raised_with_its_code(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.csv").write_text('text,label\n"never closed,pos\nx,neg\n', encoding="utf-8")
    (tmp_path / "empty.csv").write_text("text,label\n", encoding="utf-8")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    out = tmp_path / "out"

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    cases: list[tuple[type[BatchscoreError], int, Any, dict[str, Any]]] = [
        (UsageError, 2, BOTH, {"max_batch_tokens": "many"}),
        (GateFailedError, 3, BOTH, {"fail_below": {"accuracy": 0.6}}),
        (DataError, 65, tmp_path / "bad.csv", {}),
        (NoInputError, 66, tmp_path / "none.csv", {}),
        (OutputError, 73, BOTH, {"output": tmp_path / "file" / "run"}),
        (BusyError, 75, tmp_path / "empty.csv", {"output": out}),
        (ModelError, 78, BOTH, {"model": tmp_path / "no-model"}),
        (NothingToDoError, 99, tmp_path / "empty.csv", {"skip_empty": True}),
        (StorageError, 74, BOTH, {}),
    ]
    seen: set[type[BatchscoreError]] = set()
    with locked(out):
        for kind, code, data, options in cases:
            if kind is StorageError:
                monkeypatch.setattr("batchscore.runs.shards.stage_shard", full)
            with pytest.raises(kind) as caught:
                batchscore.score(data, **{"model": tiny_bundle, "quiet": True, **options})
            assert (caught.type, caught.value.exit_code) == (kind, code)
            assert str(caught.value)
            seen.add(kind)
    assert seen == set(BatchscoreError.__subclasses__())
    assert capfd.readouterr() == ("", "")


def test_a_failed_gate_has_the_run(tiny_bundle: Path) -> None:
    with pytest.raises(GateFailedError, match=r"accuracy is 0\.5") as caught:
        batchscore.score(
            BOTH, tiny_bundle, fail_below={"accuracy": 0.6}, fail_above="null_text=1%", quiet=True
        )
    run = caught.value.run
    assert isinstance(run, batchscore.Run)
    assert run.predictions.num_rows == 2
    assert "failed gates accuracy is 0.5" in repr(run)


class Interrupting(Progress):
    """Presses Ctrl-C, once, when a thousand rows are done."""

    def __init__(self, total: int) -> None:
        super().__init__(total, quiet=True)
        self._rows = 0

    def add(self, amount: int, *, counted: bool = True) -> None:
        before, self._rows = self._rows, self._rows + amount
        if before <= 1000 < self._rows:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.5)  # while the caller is interrupted


def test_an_interrupted_call_goes_on_when_it_is_made_again(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pd.DataFrame({"text": [f"text {row}" for row in range(2100)]})
    options: Any = {"no_labels": True, "quiet": True}
    whole = batchscore.score(data, tiny_bundle, tmp_path / "whole", **options)
    monkeypatch.setattr("batchscore.api.scoring.Bar", lambda total, **_: Interrupting(total))
    was = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored, where tests run in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            batchscore.score(data, tiny_bundle, tmp_path / "run", **options)
    finally:
        signal.signal(signal.SIGINT, was)
    with pytest.raises(DataError, match="has not finished"):
        batchscore.open_run(tmp_path / "run")
    before: list[int] = []

    class Noting(Progress):
        """Notes the rows that were scored before."""

        def add(self, amount: int, *, counted: bool = True) -> None:
            before.extend([] if counted else [amount])

    monkeypatch.setattr("batchscore.api.scoring.Bar", lambda total, **_: Noting(total, quiet=True))
    again = batchscore.score(data, tiny_bundle, tmp_path / "run", **options)
    assert sum(before) > 1000 - 512
    names = ("predictions/table.parquet", "metrics.json")
    assert [(again.output / name).read_bytes() for name in names] == [
        (whole.output / name).read_bytes() for name in names
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "whole"]


# -------------------------------------------------------------------------------------------------- what it leaves alone


def test_the_callers_world_stays_as_it_is(
    tiny_bundle: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    import torch
    from transformers.utils import logging as transformers_logging

    def world() -> tuple[Any, ...]:
        logger = logging.getLogger("batchscore")
        return (
            signal.getsignal(signal.SIGINT),
            signal.getsignal(signal.SIGTERM),
            logger.level,
            list(logger.handlers),
            logger.propagate,
            logging.getLogger().level,
            torch.get_num_threads(),
            transformers_logging.get_verbosity(),
            os.getcwd(),  # noqa: PTH109 - as it is
        )

    logging.getLogger("batchscore").propagate = True  # which a command of another test may have changed
    logging.getLogger("batchscore").handlers[:] = []
    before = world()
    with caplog.at_level(logging.INFO, "batchscore"):
        batchscore.score(BOTH, tiny_bundle)
    assert world() == before
    assert capfd.readouterr() == ("", "")
    assert "text" in caplog.text


def test_it_works_within_a_running_loop_and_in_threads(tiny_bundle: Path, tmp_path: Path) -> None:
    async def call() -> int:
        return batchscore.score(BOTH, tiny_bundle, quiet=True).rows

    assert asyncio.run(call()) == 2
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = list(
            pool.map(lambda name: batchscore.score(BOTH, tiny_bundle, tmp_path / name, quiet=True), "abc")
        )
    assert threading.active_count() < 50
    assert all(run.predictions.equals(runs[0].predictions) for run in runs)


def test_a_bar_is_shown_in_a_terminal_alone(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    batchscore.score(BOTH, tiny_bundle, quiet=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    batchscore.score(BOTH, tiny_bundle)
    assert "2/2" in capsys.readouterr().err


def test_metrics_for_prometheus_are_written_as_by_the_command(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(GateFailedError):
        batchscore.score(
            BOTH,
            tiny_bundle,
            fail_below={"accuracy": 0.6},
            metrics_file=tmp_path / "m.prom",
            date=datetime.date(2026, 11, 27),
            quiet=True,
        )
    assert "batchscore_last_exit_code 3.0" in (tmp_path / "m.prom").read_text("utf-8")


def test_errors_are_at_hand() -> None:
    assert errors is batchscore.errors
    assert batchscore.errors.DataError is DataError
