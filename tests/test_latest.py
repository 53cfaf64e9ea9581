"""Last night's run: which one of many folders is taken, and when none is."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

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
    assert "changed" in caplog.text and "passed over" in caplog.text


def test_any_number_of_numbered_files_is_a_night_of_the_same_names(tmp_path: Path) -> None:
    before = finished_run(tmp_path / "a", "part-0.parquet", "part-1.parquet")
    assert latest_run(tmp_path / "b", [f"part-{n}.parquet" for n in range(12)], LABELS) == before
    assert latest_run(tmp_path / "b", ["part-0.parquet", "more.parquet"], LABELS) is None
    assert pattern_of("٣.csv") == "#.csv"
