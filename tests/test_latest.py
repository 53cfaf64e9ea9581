"""Last night's run: which one of many folders is taken, and when none is."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import run_score

from batchscore.config import LATEST
from batchscore.runs.finishing import Finish
from batchscore.runs.latest import latest_run, pattern_of
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import files_below, manifest, sha256_of

LABELS = ["NEGATIVE", "POSITIVE"]


def finished_run(folder: Path, *names: str, at: int = 1, labels: list[str] = LABELS, **facts: object) -> Path:
    """A folder that looks as a finished run does; ``at``: the hour when it finished."""
    folder.mkdir(parents=True)
    when = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC) + datetime.timedelta(hours=at)
    told = {
        "fingerprint": "f",
        "finished": when.isoformat(),
        "files": [{"name": name} for name in names],
        "model": {"labels": labels},
        "options": {},
        **facts,
    }
    (folder / "run.json").write_text(json.dumps(told))
    (folder / "metrics.json").write_text(json.dumps({"task": "single_label", "counts": {}}))
    run = OwnPath(folder)
    (folder / "_SUCCESS").write_bytes(manifest({name: sha256_of(run / name) for name in files_below(run)}))
    return folder


def test_the_night_before_is_taken_though_its_files_name_has_another_date(tmp_path: Path) -> None:
    finished_run(tmp_path / "2026-11-20", "reviews-2026-11-20.csv", at=9)
    before = finished_run(tmp_path / "2026-11-21", "reviews-2026-11-21.csv", at=5)
    finished_run(tmp_path / "2026-11-21b", "orders-2026-11-21.csv", at=8)
    assert latest_run(tmp_path / "2026-11-22", ["reviews-2026-11-22.csv"], LABELS) == before


def test_a_run_of_exactly_these_names_comes_first(tmp_path: Path) -> None:
    same = finished_run(tmp_path / "a", "reviews2.csv", at=1)
    finished_run(tmp_path / "b", "reviews3.csv", at=2)
    assert latest_run(tmp_path / "c", ["reviews2.csv"], LABELS) == same


def test_no_later_night_is_taken_when_an_earlier_one_is_made_up_for(tmp_path: Path) -> None:
    first = finished_run(tmp_path / "2026-11-20", "r.csv", at=1)
    finished_run(tmp_path / "2026-11-22", "r.csv", at=2)
    assert latest_run(tmp_path / "2026-11-21", ["r.csv"], LABELS) == first
    assert latest_run(tmp_path / "x", ["r.csv"], LABELS, night=datetime.date(2026, 11, 21)) == first


def test_runs_of_an_inbox_lie_in_folders_of_days(tmp_path: Path) -> None:
    before = finished_run(tmp_path / "2026-11-20" / "reviews-0123456789abcdef", "reviews.csv")
    finished_run(tmp_path / "2026-11-20" / "orders-0123456789abcdef", "orders.csv", at=3)
    own = tmp_path / "2026-11-21" / "reviews-fedcba9876543210"
    assert latest_run(own, ["reviews.csv"], LABELS) == before


def test_itself_is_never_taken_nor_what_is_of_other_labels_or_an_evaluation_or_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finished_run(tmp_path / "own", "r.csv", at=9)
    finished_run(tmp_path / "other", "r.csv", at=8, labels=["A", "B"])
    finished_run(tmp_path / "own.evaluation", "r.csv", at=7, evaluates={"path": "own"})
    (tmp_path / "link").symlink_to(tmp_path / "own")
    changed = finished_run(tmp_path / "changed", "r.csv", at=6)
    (changed / "metrics.json").write_text('{"task": "single_label", "counts": {"read": 1}}')
    assert latest_run(tmp_path / "own", ["r.csv"], LABELS) is None
    assert "changed" in caplog.text
    assert "passed over" in caplog.text


def test_any_number_of_numbered_files_is_a_night_of_the_same_names(tmp_path: Path) -> None:
    before = finished_run(tmp_path / "a", "part-0.parquet", "part-1.parquet")
    assert latest_run(tmp_path / "b", [f"part-{n}.parquet" for n in range(12)], LABELS) == before
    assert latest_run(tmp_path / "b", ["part-0.parquet", "more.parquet"], LABELS) is None
    assert pattern_of("٣.csv") == "#.csv"


def night(tmp_path: Path, model: Path, day: int, **options: Any) -> dict[str, Any]:
    """Score the file of a day, and return what ``run.json`` says of the run it was compared with."""
    name = f"2026-11-{day}"
    path = tmp_path / f"reviews-{name}.csv"
    if not path.exists():
        path.write_text(f"id,text,label\n{day},good,pos\n0,bad film,neg\n1,fine,pos\n")
    run_score(path, model, tmp_path / "runs" / name, baseline=LATEST, **options)
    facts: dict[str, Any] = json.loads((tmp_path / "runs" / name / "run.json").read_bytes())
    return facts


@pytest.mark.usefixtures("quick_runs")
def test_a_night_that_is_repeated_is_compared_with_the_same_one_as_the_first_time(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    gates = {"fail_above": ("drift=0.5",)}
    assert night(tmp_path, tiny_bundle, 20, **gates)["baseline"] is None  # and its gate on drift passed
    second = night(tmp_path, tiny_bundle, 22)
    runs = tmp_path / "runs"
    assert second["baseline"]["path"] == str(runs / "2026-11-20")
    assert "2026-11-20, finished" in (runs / "2026-11-22" / "report.html").read_text()
    page = (runs / "2026-11-20" / "report.html").read_text()
    assert "none yet of these files and labels" in page
    assert night(tmp_path, tiny_bundle, 21)["baseline"]["path"] == str(runs / "2026-11-20")
    before = (runs / "2026-11-22" / "metrics.json").read_bytes()
    assert night(tmp_path, tiny_bundle, 22) == second  # done, although the 21st came in between
    again = night(tmp_path, tiny_bundle, 22, force=True)
    assert again["baseline"] == second["baseline"]
    assert (runs / "2026-11-22" / "metrics.json").read_bytes() == before
    assert night(tmp_path, tiny_bundle, 20, force=True)["baseline"] is None
    shutil.rmtree(runs / "2026-11-20")
    assert night(tmp_path, tiny_bundle, 22) == again  # done, although that one is gone
    assert night(tmp_path, tiny_bundle, 22, force=True)["baseline"]["path"] == str(runs / "2026-11-21")


@pytest.mark.usefixtures("quick_runs")
def test_a_stopped_run_goes_on_with_the_baseline_of_its_first_start(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night(tmp_path, tiny_bundle, 20)
    with monkeypatch.context() as patched:
        patched.setattr(Finish, "run", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            night(tmp_path, tiny_bundle, 22)
    night(tmp_path, tiny_bundle, 21)
    assert night(tmp_path, tiny_bundle, 22)["baseline"]["path"].endswith("2026-11-20")


@pytest.mark.usefixtures("quick_runs")
def test_a_latest_run_whose_rows_cannot_be_matched_is_told_and_refuses_no_night(
    tmp_path: Path, tiny_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        (tmp_path / "r.csv").write_text(f"text,label\n{name} good,pos\nbad,neg\n")
        run_score(tmp_path / "r.csv", tiny_bundle, tmp_path / name, baseline=LATEST, drop_columns=("text",))
        facts = json.loads((tmp_path / name / "run.json").read_bytes())
        assert facts["baseline"] is None
    assert "nothing is compared" in caplog.text
    again = run_score(
        tmp_path / "r.csv", tiny_bundle, tmp_path / "b", baseline=LATEST, drop_columns=("text",)
    )
    assert again.status == "done"
