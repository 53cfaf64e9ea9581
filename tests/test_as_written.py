"""A finished run that is run again, or looked at: whether its files are still those that it wrote."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import run_score
from task_models import answering_at_once, without_page
from test_appending_again import InThisProcess

from batchscore.config import InboxSettings, ScoreSettings
from batchscore.errors import DataError, OutputError
from batchscore.inbox import drop_folder as drop
from batchscore.reports.nights import State
from batchscore.runs import as_written
from batchscore.runs.as_written import changes_in
from batchscore.runs.inspection import inspect
from batchscore.runs.nights import read_nights
from batchscore.system import storage
from batchscore.system.own_paths import own

MADE = "predictions/r.csv"
CHANGED = "its bytes are not those that were written"


@pytest.fixture(scope="module")
def quick(tiny_model: Path) -> Iterator[Path]:
    """A model that answers at once."""
    with answering_at_once(tiny_model), without_page():
        yield tiny_model


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "r.csv"
    rows = {"id": range(4), "text": "text", "label": ["NEGATIVE", "POSITIVE"] * 2}
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture
def run(quick: Path, reviews: Path, tmp_path: Path) -> Path:
    """A finished run."""
    return run_score(reviews, quick, tmp_path / "2026-11-24").output


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed."""
    found: list[str] = []
    sha256_of = storage.sha256_of

    def noted(path: Any) -> str:
        found.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(storage, "sha256_of", noted)
    return found


def in_place(path: Path) -> None:
    """Another byte, with the size and the time as they were."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.write(b"?")
    os.utime(path, ns=times)


def replaced(path: Path) -> None:
    """The same by another file."""
    shutil.copy2(path, path.with_suffix(".new"))
    in_place(path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def linked(path: Path) -> None:
    path.rename(path.parents[2] / "elsewhere")
    path.symlink_to(path.parents[2] / "elsewhere")


DONE_TO_IT: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed in place": (in_place, f"{MADE}: {CHANGED}"),
    "replaced": (replaced, f"{MADE}: {CHANGED}"),
    "longer": (longer, f"{MADE}: {CHANGED}"),
    "a link": (linked, f"{MADE}: not a regular file"),
    "missing": (Path.unlink, f"{MADE}: missing"),
    "one more": (
        lambda path: path.with_name("s.csv").write_text("x"),
        "predictions/s.csv: not in the manifest",
    ),
    "one more of its own": (
        lambda path: (path.parents[1] / "rejects.jsonl").touch(),
        "rejects.jsonl: not in",
    ),
    "metrics": (lambda path: longer(path.parents[1] / "metrics.json"), f"metrics.json: {CHANGED}"),
    "facts": (lambda path: longer(path.parents[1] / "run.json"), f"run.json: {CHANGED}"),
    "page": (lambda path: longer(path.parents[1] / "report.html"), f"report.html: {CHANGED}"),
    "manifest": (lambda path: longer(path.parents[1] / "_SUCCESS"), "_SUCCESS, line"),
}


@pytest.mark.parametrize(("change", "told"), DONE_TO_IT.values(), ids=DONE_TO_IT)
def test_a_changed_run_is_not_called_finished(
    quick: Path, reviews: Path, run: Path, change: Callable[[Path], object], told: str
) -> None:
    change(run / MADE)
    before = {path: path.lstat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(OutputError, match="finished, but not as it was written") as caught:
        run_score(reviews, quick, run)
    assert caught.value.exit_code == 73
    assert told in str(caught.value)
    assert "--force" in str(caught.value)
    assert {path: path.lstat().st_mtime_ns for path in run.rglob("*")} == before
    if change is in_place:
        assert run_score(reviews, quick, run, force=True).status == "scored"
        assert run_score(reviews, quick, run).status == "done"


def test_a_change_in_the_tick_of_the_seal_shows(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_place(run / MADE)
    tick = (run / MADE).stat().st_ctime_ns
    monkeypatch.setattr(as_written, "_sealed", lambda _run: tick)
    assert changes_in(run) == [f"{MADE}: {CHANGED}"]


def test_the_seal_is_put_in_place_in_a_later_tick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made").touch()
    ticks = iter([-1, 0, 0, 10**6])
    now = (tmp_path / "made").stat().st_ctime_ns
    monkeypatch.setattr(storage, "_file_clock", lambda: now + next(ticks))
    storage.await_clock(own(tmp_path / "made"))
    assert next(ticks, None) is None


def test_another_clock_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made").touch()
    monkeypatch.setattr(storage, "_file_clock", lambda: 0)
    storage.await_clock(own(tmp_path / "made"))


def test_only_what_is_small_is_hashed_where_nothing_was_done(
    quick: Path, reviews: Path, run: Path, hashed: list[str]
) -> None:
    (run / "notes.txt").write_text("somebody's own")
    assert run_score(reviews, quick, run).status == "done"
    assert set(hashed) == {"report.html", "report.txt", "run.json"}


def test_all_is_hashed_where_it_is_asked_for(
    quick: Path, reviews: Path, run: Path, hashed: list[str]
) -> None:
    assert run_score(reviews, quick, run, verify=True).status == "done"
    assert {"mismatches.parquet", "mismatches.csv", "metrics.json"} <= set(hashed)
    (run / "notes.txt").touch()
    with pytest.raises(OutputError, match=r"notes\.txt: not in the manifest"):
        run_score(reviews, quick, run, verify=True)


@pytest.mark.parametrize("copied", [shutil.copy, shutil.copy2], ids=["cp -r", "cp -a"])
def test_a_copied_run_is_hashed_and_is_that_run(
    quick: Path, reviews: Path, run: Path, tmp_path: Path, hashed: list[str], copied: Any
) -> None:
    shutil.copytree(run, tmp_path / "copy", copy_function=copied)
    assert run_score(reviews, quick, tmp_path / "copy").status == "done"
    assert {"r.csv", "mismatches.parquet"} <= set(hashed)
    in_place(run / MADE)
    shutil.copytree(run, tmp_path / "changed", copy_function=copied)
    with pytest.raises(OutputError, match=CHANGED):
        run_score(reviews, quick, tmp_path / "changed")


def test_permissions_and_owners_are_no_change(run: Path) -> None:
    for path in run.rglob("*"):
        path.chmod(0o700)
    assert changes_in(run) == []


def test_a_run_of_an_earlier_version_is_hashed(run: Path, hashed: list[str]) -> None:
    facts = json.loads((run / "run.json").read_bytes())
    del facts["written"]
    (run / "run.json").write_text(json.dumps(facts))
    digest = storage.sha256_of(run / "run.json")
    sealed = storage.read_manifest(run) | {"run.json": digest}
    (run / "_SUCCESS").write_bytes(storage.manifest(sealed))
    assert changes_in(run) == []
    assert {"r.csv", "metrics.json"} <= set(hashed)


@pytest.mark.parametrize(
    "written", [None, [], {"predictions/r.csv": "x"}, {"predictions/r.csv": [1, "2", 3]}]
)
def test_what_run_json_says_need_not_be_what_we_wrote(run: Path, written: Any) -> None:
    facts = json.loads((run / "run.json").read_bytes())
    (run / "run.json").write_text(json.dumps({**facts, "written": written}))
    assert changes_in(run) == [f"run.json: {CHANGED}"]


def test_inspect_says_what_changed(run: Path) -> None:
    assert inspect(str(run))["changed"] == []
    in_place(run / MADE)
    assert inspect(str(run))["changed"] == [f"{MADE}: {CHANGED}"]


def test_a_baseline_whose_predictions_changed_is_refused(
    quick: Path, reviews: Path, run: Path, tmp_path: Path
) -> None:
    in_place(run / MADE)
    with pytest.raises(DataError, match=r"r\.csv is not as it was written"):
        run_score(reviews, quick, tmp_path / "next", baseline=run)


def test_the_trend_does_not_take_figures_that_were_changed(run: Path) -> None:
    (night,) = read_nights(run.parent, today=None).all[:1]
    assert night.state is not State.UNFINISHED
    (run / MADE).unlink()  # a trend needs no predictions, and they are large
    assert read_nights(run.parent).all[0].state is not State.UNFINISHED
    in_place(run / "metrics.json")
    night = read_nights(run.parent).all[0]
    assert night.state is State.UNFINISHED
    assert f"metrics.json: {CHANGED}" in night.problem


def test_a_file_whose_run_was_changed_waits_in_the_inbox(
    quick: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drop, "ScoringProcess", InThisProcess)
    (tmp_path / "in").mkdir()
    settings = InboxSettings(
        tmp_path / "in", tmp_path / "out", ScoreSettings((), str(quick), tmp_path / "out"), settle=0.0
    )

    def take() -> drop.FileOutcome:
        shutil.copy(reviews, tmp_path / "in")
        (tmp_path / "in/r.csv.done").touch()
        (outcome,) = drop.empty(settings, lambda _: None).files
        return outcome

    first = take()
    assert (first.status, take().status) == ("scored", "done")
    longer(Path(first.folder) / MADE)
    again = take()
    assert (again.status, again.exit_code) == ("waiting", 73)
    assert f"{MADE}: {CHANGED}" in again.message
    assert (tmp_path / "in/r.csv").exists()
