"""The drop folder: what is taken, what becomes of it, and what a call leaves for the next."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from batchscore import inbox as drop
from batchscore.config import InboxSettings, ScoreSettings
from batchscore.errors import (
    BusyError,
    DataError,
    GateFailedError,
    ModelError,
    NoInputError,
    NothingToDoError,
)
from batchscore.housekeeping import old_runs, remove_run
from batchscore.inspection import verify
from batchscore.scoring_process import Job, Outcome, ScoringProcess
from batchscore.storage import locked
from batchscore.terminal import Logs

FRAME = pd.DataFrame({"id": [1, 2, 3], "text": ["Good.", "Bad.", None], "label": ["pos", "neg", "pos"]})


class FakeProcess:
    """Scores nothing; ``answers`` says what becomes of a file by its name, in turn."""

    answers: dict[str, list[Outcome]]
    jobs: list[Job]

    def __init__(self, *_: Any) -> None: ...

    def score(self, job: Job) -> Outcome:
        self.jobs.append(job)
        answers = self.answers.get(Path(job.path).name)
        return answers.pop(0) if answers else Outcome(0, "scored", "", job.folders[0], {"read": 3})

    def close(self) -> None: ...


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeProcess]:
    FakeProcess.answers, FakeProcess.jobs = {}, []
    monkeypatch.setattr(drop, "ScoringProcess", FakeProcess)
    return FakeProcess


@pytest.fixture
def settings(tmp_path: Path) -> InboxSettings:
    (tmp_path / "in").mkdir()
    score = ScoreSettings(inputs=(), model="m", output=tmp_path / "out")
    return InboxSettings(tmp_path / "in", tmp_path / "out", score, settle=0.0)


def put(folder: Path, name: str, content: str = "text\nfine\n", age: float = 100.0) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    os.utime(path, (time.time() - age,) * 2)
    return path


def take(settings: InboxSettings, **changes: Any) -> drop.InboxResult:
    lines: list[str] = []
    facts = {name: getattr(settings, name) for name in settings.__dataclass_fields__}
    return drop.empty(InboxSettings(**{**facts, **changes}), lines.append)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# ---------------------------------------------------------------------------------------------------- what is whole


def test_only_what_is_whole_is_taken_oldest_first(settings: InboxSettings, fake: type[FakeProcess]) -> None:
    for name in ("a.csv.part", "b.parquet.tmp", ".hidden.csv", "c.csv.crdownload", "d.csv~", "e.csv.done"):
        put(settings.inbox, name)
    put(settings.inbox, "young.csv", age=1)
    put(settings.inbox, "new.csv", age=61)
    put(settings.inbox, "old.csv", age=600)
    (settings.inbox / "folder.csv").mkdir()
    result = take(settings, settle=60.0)
    assert [each.name for each in result.files] == ["old.csv", "new.csv"]
    assert names(settings.inbox / "done") == ["new.csv", "old.csv"]
    assert (settings.inbox / "young.csv").exists()
    assert [Path(job.path).name for job in fake.jobs] == ["old.csv", "new.csv"]


def test_a_mark_makes_a_file_whole_and_goes_with_it(settings: InboxSettings, fake: type[FakeProcess]) -> None:
    put(settings.inbox, "a.csv", age=0)
    put(settings.inbox, "a.csv.done", age=0)
    put(settings.inbox, "b.csv")
    assert [each.name for each in take(settings, require_done=True, settle=60.0).files] == ["a.csv"]
    assert names(settings.inbox / "done") == ["a.csv", "a.csv.done"]
    assert names(settings.inbox) == ["b.csv", "done"]
    assert len(fake.jobs) == 1


def test_a_file_that_is_open_for_writing_is_left_alone(
    settings: InboxSettings, fake: type[FakeProcess]
) -> None:
    path = put(settings.inbox, "a.csv")
    with path.open("ab"):
        os.utime(path, (0, 0))
        assert take(settings).files == ()
    assert len(take(settings).files) == len(fake.jobs) == 1


def test_a_file_that_changes_while_it_is_scored_stays(
    settings: InboxSettings, fake: type[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(settings.inbox, "a.csv")

    def score(_: FakeProcess, job: Job) -> Outcome:
        with path.open("a", encoding="utf-8") as file:
            file.write("more\n")
        return Outcome(0, "scored", "", job.folders[0], {})

    monkeypatch.setattr(fake, "score", score)
    (each,) = take(settings).files
    assert (each.status, path.exists()) == ("waiting", True)


def test_links_pipes_and_odd_names_are_refused_not_followed(
    settings: InboxSettings, fake: type[FakeProcess], tmp_path: Path
) -> None:
    secret = put(tmp_path, "secret.csv")
    (settings.inbox / "link.csv").symlink_to(secret)
    os.mkfifo(settings.inbox / "pipe.csv")
    put(settings.inbox, "two\nlines.csv")
    put(settings.inbox, "table.xlsx")
    result = take(settings)
    assert {each.status for each in result.files} == {"failed"}
    assert fake.jobs == []
    assert secret.exists()
    failed = names(settings.inbox / "failed")
    assert len(failed) == 8
    assert all("\n" not in name for name in failed)
    assert (settings.inbox / "failed" / "link.csv").is_symlink()
    assert "links are not followed" in (settings.inbox / "failed" / "link.csv.error.txt").read_text("utf-8")
    with pytest.raises(DataError, match="4 of 4 files failed"):
        result.outcome()


# ----------------------------------------------------------------------------------------------- what becomes of it


def outcome(code: int, message: str = "Because.") -> Outcome:
    return Outcome(code, "failed", message, "", {})


def test_a_bad_file_is_set_aside_and_the_others_go_on(
    settings: InboxSettings, fake: type[FakeProcess]
) -> None:
    fake.answers = {"a.csv": [outcome(65, "Line 3: a quote that never ends.")]}
    for number, name in enumerate(("a.csv", "b.csv")):
        put(settings.inbox, name, f"text\n{number}\n", age=100 - number)
    result = take(settings)
    assert [each.status for each in result.files] == ["failed", "scored"]
    assert "Line 3: a quote that never ends." in (settings.inbox / "failed/a.csv.error.txt").read_text(
        "utf-8"
    )
    assert result.summary()["failed"] == 1
    assert names(settings.inbox) == ["done", "failed"]


def test_what_kills_the_reader_is_tried_twice_and_set_aside(
    settings: InboxSettings, fake: type[FakeProcess]
) -> None:
    fake.answers = {"a.csv": [outcome(-11, "It died of SIGSEGV.")] * 2, "b.csv": [outcome(-9)]}
    for number, name in enumerate(("a.csv", "b.csv")):
        put(settings.inbox, name, f"text\n{number}\n", age=100 - number)
    result = take(settings)
    assert [each.status for each in result.files] == ["failed", "scored"]
    assert len(fake.jobs) == 4
    assert "SIGSEGV" in (settings.inbox / "failed" / "a.csv.error.txt").read_text("utf-8")
    with pytest.raises(DataError) as caught:
        result.outcome()
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("code", [2, 73, 74, 78])
def test_what_would_meet_every_file_ends_the_call(
    code: int, settings: InboxSettings, fake: type[FakeProcess]
) -> None:
    fake.answers = {"a.csv": [outcome(code, "No model.")]}
    put(settings.inbox, "a.csv")
    with pytest.raises(Exception, match="No model") as caught:
        take(settings)
    assert getattr(caught.value, "exit_code", None) == code
    assert names(settings.inbox) == ["a.csv"]


def test_a_run_that_is_held_and_a_gate_that_failed(settings: InboxSettings, fake: type[FakeProcess]) -> None:
    fake.answers = {
        "a.csv": [outcome(75, "Another run holds it.")],
        "b.csv": [Outcome(3, "scored", "accuracy 0.5 is under 0.9", "f", {"read": 3})],
    }
    put(settings.inbox, "a.csv", "text\na\n")
    put(settings.inbox, "b.csv", "text\nb\n")
    result = take(settings)
    assert names(settings.inbox) == ["a.csv", "done"]
    with pytest.raises(GateFailedError, match="accuracy"):
        result.outcome()


def test_names_that_were_used_before_are_not_overwritten(
    settings: InboxSettings, fake: type[FakeProcess]
) -> None:
    for content in ("1", "2", "2", "3"):
        put(settings.inbox, "a.csv.gz", content)
        take(settings)
    kept = sorted(path.read_text("utf-8") for path in (settings.inbox / "done").iterdir())
    assert kept == ["1", "2", "3"]
    assert names(settings.inbox / "done") == ["a-2.csv.gz", "a-3.csv.gz", "a.csv.gz"]
    assert len(fake.jobs) == 4  # the process knows what has been scored


def test_a_run_folder_is_found_again_on_another_day(settings: InboxSettings, fake: type[FakeProcess]) -> None:
    path = put(settings.inbox, "a.csv")
    take(settings)
    (first,) = fake.jobs[0].folders
    old = settings.output / "2020-02-29" / Path(first).name
    old.mkdir(parents=True)
    path.write_text("text\nfine\n", encoding="utf-8")
    os.utime(path, (0, 0))
    take(settings)
    assert list(fake.jobs[1].folders) == [str(old), first]
    assert Path(first).parent.name == datetime.datetime.now().astimezone().date().isoformat()


def test_one_call_at_a_time(settings: InboxSettings, fake: type[FakeProcess]) -> None:
    put(settings.inbox, "a.csv")
    with locked(settings.inbox), pytest.raises(BusyError, match=str(os.getpid())):
        take(settings)
    assert len(take(settings).files) == len(fake.jobs) == 1


def test_nothing_to_do(settings: InboxSettings, fake: type[FakeProcess]) -> None:
    assert take(settings).files == ()
    with pytest.raises(NothingToDoError):
        take(settings, skip_empty=True)
    with pytest.raises(NoInputError):
        take(settings, inbox=settings.inbox / "nowhere")
    assert fake.jobs == []


# ------------------------------------------------------------------------------------------- the process that scores


def test_a_process_that_dies_is_told_and_replaced(settings: InboxSettings) -> None:
    process = ScoringProcess(settings.score, Logs(-1))
    job = Job("a.csv", "0" * 64, [str(settings.output)])

    def shoot() -> None:
        while process.pid is None:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGSEGV)

    thread = threading.Thread(target=shoot)
    thread.start()
    died = process.score(job)
    thread.join()
    assert (died.exit_code, died.status) == (-signal.SIGSEGV, "failed")
    assert "SIGSEGV" in died.message
    try:
        assert process.score(job).exit_code in {ModelError.exit_code, NoInputError.exit_code}
        assert process.starts == 2
    finally:
        process.close()


# ------------------------------------------------------------------------------------------------- the whole of it


@pytest.fixture(scope="module")
def emptied(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> tuple[Path, dict[str, Any]]:
    """A drop folder after one call of the command, and what it said."""
    folder = tmp_path_factory.mktemp("inbox")
    (folder / "in").mkdir()
    FRAME.to_parquet(folder / "in/a.parquet")
    FRAME.to_csv(folder / "in/b.csv", index=False)
    FRAME.to_parquet(folder / "in/same.parquet")
    (folder / "in/bad.parquet").write_bytes(b"PAR1 and no more")
    command = [sys.executable, "-m", "batchscore", "inbox", str(folder / "in"), "--model", str(tiny_bundle)]
    command += ["--output", str(folder / "out"), "--settle", "0", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 65, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_each_file_is_a_run_of_its_own(emptied: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = emptied
    assert (summary["scored"], summary["done"], summary["failed"], summary["rows"]) == (2, 1, 1, 9)
    assert names(folder / "in") == ["done", "failed"]
    assert names(folder / "in/done") == ["a.parquet", "b.csv", "same.parquet"]
    assert names(folder / "in/failed") == ["bad.parquet", "bad.parquet.error.txt"]
    runs = sorted((folder / "out").glob("*/*"))
    assert [run.name.rpartition("-")[0] for run in runs] == ["a.parquet", "b.csv"]
    assert all(verify(run)["kind"] == "run" for run in runs)
    scored = pd.read_parquet(runs[0] / "predictions" / "a.parquet")
    pd.testing.assert_frame_equal(scored[list(FRAME)], FRAME)


def test_old_runs_go_and_nothing_else(emptied: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out = Path(shutil.copytree(emptied[0] / "out", tmp_path / "out"))
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=8)
    first, second = old_runs(out, 7, later)
    assert old_runs(out, 9, later) == []
    (first / "notes.txt").write_text("mine", encoding="utf-8")
    (out / "other").mkdir()
    (out / "other" / "_SUCCESS").write_text("", encoding="utf-8")
    (second / "run.json").unlink()  # as a removal leaves it that was killed
    assert old_runs(out, 7, later) == [first, second]
    for path in (first, second):
        remove_run(path, out)
    left = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert left == [f"{first.relative_to(out).as_posix()}/notes.txt", "other/_SUCCESS"]
    assert not second.exists()
