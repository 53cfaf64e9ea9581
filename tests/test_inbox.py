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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import run_score

from batchscore.cli import main
from batchscore.config import InboxSettings, ScoreSettings
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
)
from batchscore.inbox import drop_folder as drop
from batchscore.inbox.housekeeping import OldRun, old_runs, remove_old_runs, remove_run
from batchscore.inbox.scoring_process import Job, Outcome, ScoringProcess
from batchscore.runs.inspection import verify
from batchscore.system.locks import locked
from batchscore.system.storage import manifest, sha256_of
from batchscore.system.terminal import Logs

FRAME = pd.DataFrame({"id": [1, 2, 3], "text": ["Good.", "Bad.", None], "label": ["pos", "neg", "pos"]})


class FakeProcess:
    """Scores nothing; ``answers`` says what becomes of a file by its name, in turn."""

    answers: dict[str, list[Outcome]]
    jobs: list[Job]

    broken: Exception | None
    """What loading the model raises."""

    def __init__(self, *_: Any) -> None: ...

    def prepare(self) -> None:
        if self.broken is not None:
            raise self.broken

    def score(self, job: Job) -> Outcome:
        self.jobs.append(job)
        answers = self.answers.get(Path(job.path).name)
        return answers.pop(0) if answers else Outcome(0, "scored", "", job.folders[0], {"read": 3})

    def close(self) -> None: ...


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeProcess]:
    FakeProcess.answers, FakeProcess.jobs, FakeProcess.broken = {}, [], None
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
    facts = {name: getattr(settings, name) for name in settings.__dataclass_fields__}
    return drop.empty(InboxSettings(**{**facts, **changes}), lambda _: None)


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


@pytest.mark.parametrize("is_secret", [False, True])
def test_a_file_that_changes_while_it_is_scored_stays(
    is_secret: bool, settings: InboxSettings, fake: type[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that is changed in place, to as many bytes, and has its time set back."""
    path = put(settings.inbox, "a.csv")
    before = path.stat()

    def score(_: FakeProcess, job: Job) -> Outcome:
        with path.open("r+" if is_secret else "a", encoding="utf-8") as file:
            file.write("more\n")
        if is_secret:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
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
    put(settings.inbox, "table.xls")
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


@pytest.mark.parametrize("code", [-signal.SIGKILL, -signal.SIGABRT])
def test_a_file_whose_process_lacks_memory_stays_until_it_has_had_room(
    code: int, settings: InboxSettings, fake: type[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(settings.inbox, "a.csv")
    monkeypatch.setattr("batchscore.inbox.drop_folder.has_room", lambda: False)
    for tries in (2, 4, 6, 6):  # the fourth call sees that there is no more memory than before
        fake.answers = {"a.csv": [outcome(code, "It died.")] * 2}
        result = take(settings)
        assert (result.files[0].status, result.files[0].exit_code, len(fake.jobs)) == ("waiting", 74, tries)
        assert (settings.inbox / "a.csv").exists()
    monkeypatch.setattr("batchscore.inbox.drop_folder.has_room", lambda: True)
    for status in ("waiting", "waiting", "waiting", "failed"):
        fake.answers = {"a.csv": [outcome(code, "It died.")] * 2}
        assert take(settings).files[0].status == status


def test_a_crash_under_a_limit_counts_as_a_death_and_leaves_no_folder(
    settings: InboxSettings, fake: type[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchscore.inbox.drop_folder.has_room", lambda: True)
    put(settings.inbox, "a.csv")

    def score(_: FakeProcess, job: Job) -> Outcome:
        Path(job.folders[0]).mkdir(parents=True)
        return Outcome(74, "failed", "It died of SIGSEGV: perhaps a limit.", "", {}, crashed=True)

    monkeypatch.setattr(fake, "score", score)
    for expected in (("waiting", 74), ("waiting", 74), ("waiting", 74), ("failed", 1)):
        (each,) = take(settings).files
        assert (each.status, each.exit_code) == expected
        assert names(settings.output) == []


@pytest.mark.parametrize(
    ("code", "crashed"), [(signal.SIGSEGV, True), (signal.SIGXCPU, False), (signal.SIGKILL, None)]
)
def test_of_a_limit_on_memory_alone_a_process_crashes(
    code: int, crashed: bool | None, settings: InboxSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchscore.system.surroundings.resource.getrlimit", lambda _: (8 << 30, 8 << 30))
    died = process_that_dies(code, settings, monkeypatch).score(Job("a.csv", "0" * 64, []))
    assert (died.exit_code, died.crashed) == ((-code, False) if crashed is None else (74, crashed))
    assert died.is_starved is (crashed is not False)


@pytest.mark.parametrize("code", [signal.SIGKILL, signal.SIGABRT])
def test_too_little_memory_for_the_model_is_not_the_models_fault(
    code: int, settings: InboxSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(settings.inbox, "a.csv")
    process = process_that_dies(code, settings, monkeypatch)
    monkeypatch.setattr(drop, "ScoringProcess", lambda *_: process)
    with pytest.raises(StorageError, match=r"died of SIG.*loaded the model.*not enough memory"):
        take(settings).outcome()
    assert [name for name in names(settings.inbox) if name[0] != "."] == ["a.csv"]


def process_that_dies(code: int, settings: InboxSettings, monkeypatch: pytest.MonkeyPatch) -> ScoringProcess:
    """One whose every process dies of this signal before it answers."""

    class Dead:
        exitcode = -code

        def join(self) -> None: ...

        def send(self, _: Any) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(ScoringProcess, "_start", lambda _: (Dead(), Dead()))
    return ScoringProcess(settings.score, Logs(-1))


@pytest.mark.parametrize("code", [2, 73, 74])
def test_what_is_in_the_way_of_one_file_leaves_it_and_the_others_go_on(
    code: int, settings: InboxSettings, fake: type[FakeProcess]
) -> None:
    fake.answers = {"b.csv": [outcome(code, "No space.")], "c.csv": [outcome(65, "Bad.")]}
    for number, name in enumerate(("a.csv", "b.csv", "c.csv", "d.csv")):
        put(settings.inbox, name, f"text\n{number}\n", age=100 - number)
    result = take(settings)
    assert [each.status for each in result.files] == ["scored", "waiting", "failed", "scored"]
    assert names(settings.inbox) == ["b.csv", "done", "failed"]
    with pytest.raises(BatchscoreError, match=r"1 of 4 files stay; the first, b.csv: No space") as caught:
        result.outcome()
    assert caught.value.exit_code == code
    assert (result.summary()["scored"], result.summary()["waiting"]) == (2, 1)


def test_a_file_that_cannot_be_moved_is_told_and_the_others_go_on(
    settings: InboxSettings, fake: type[FakeProcess], tmp_path: Path
) -> None:
    (settings.inbox / "done").symlink_to(tmp_path)
    fake.answers = {"b.csv": [outcome(65, "Bad.")]}
    for number, name in enumerate(("a.csv", "b.csv")):
        put(settings.inbox, name, f"text\n{number}\n", age=100 - number)
    result = take(settings)
    became = {each.name: (each.status, each.exit_code) for each in result.files}
    assert became == {"a.csv": ("waiting", 73), "b.csv": ("failed", 65), "done": ("failed", 65)}
    with pytest.raises(OutputError, match="is a link"):
        result.outcome()


def test_what_meets_every_file_ends_the_call_and_earlier_files_are_told(
    settings: InboxSettings, fake: type[FakeProcess]
) -> None:
    fake.answers = {"b.csv": [outcome(78, "The model changed.")]}
    for number, name in enumerate(("a.csv", "b.csv", "c.csv")):
        put(settings.inbox, name, f"text\n{number}\n", age=100 - number)
    result = take(settings)
    assert [each.name for each in result.files] == ["a.csv"]
    assert result.summary()["scored"] == 1
    assert names(settings.inbox) == ["b.csv", "c.csv", "done"]
    with pytest.raises(ModelError, match="The model changed"):
        result.outcome()


def test_a_watch_tells_what_went_wrong_in_a_round_and_goes_on_until_it_meets_every_file(
    settings: InboxSettings, fake: type[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.answers = {
        "bad.csv": [outcome(65, "It is damaged.")],
        "last.csv": [outcome(78, "The model changed.")],
    }

    def comes(*_: Any, **__: Any) -> Iterator[None]:
        yield
        for name in ("good.csv", "last.csv"):
            put(settings.inbox, name, name)
            yield

    logged: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr("watchfiles.watch", comes)
    monkeypatch.setattr(drop._LOG, "error", lambda _, problem, extra: logged.append((str(problem), extra)))
    put(settings.inbox, "bad.csv")
    rounds: list[drop.InboxResult] = []
    with pytest.raises(ModelError, match="The model changed"):
        drop.watch(settings, lambda _: None, conclude=rounds.append)
    assert [each.exit_code for each in rounds] == [65, 0, 78]
    assert [each.problem is None for each in rounds] == [False, True, False]
    ((message, extra),) = logged
    assert "It is damaged." in message
    assert extra == {"event": "error", "exit_code": 65}


def test_a_model_that_does_not_load_is_no_files_fault(
    settings: InboxSettings, fake: type[FakeProcess]
) -> None:
    fake.broken = ModelError("It died of SIGKILL.")
    put(settings.inbox, "a.csv")
    with pytest.raises(ModelError, match="SIGKILL"):
        take(settings, skip_empty=True).outcome()
    assert (names(settings.inbox), fake.jobs) == (["a.csv"], [])


# ------------------------------------------------------------------------------------------- calls that die with a file


@pytest.fixture
def dying(
    settings: InboxSettings, fake: type[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[str]]:
    """Calls that the file of a name takes with it; gives the names of the files that a call came to."""

    def call(deadly: str) -> list[str]:
        if (child := os.fork()) == 0:

            def score(_: FakeProcess, job: Job) -> Outcome:
                with (settings.inbox.parent / "tried").open("a", encoding="utf-8") as file:
                    file.write(f"{Path(job.path).name}\n")
                if Path(job.path).name == deadly:
                    os.kill(os.getpid(), signal.SIGKILL)
                return Outcome(0, "scored", "", job.folders[0], {"read": 3})

            monkeypatch.setattr(FakeProcess, "score", score)
            take(settings)
            os._exit(0)
        os.waitpid(child, 0)
        tried = settings.inbox.parent / "tried"
        came = tried.read_text("utf-8").split() if tried.exists() else []
        tried.unlink(missing_ok=True)
        return came

    return call


def test_a_file_that_kills_the_whole_call_comes_last_and_is_set_aside(
    settings: InboxSettings, dying: Callable[[str], list[str]]
) -> None:
    for number, name in enumerate(("deadly.csv", "b.csv", "c.csv")):
        put(settings.inbox, name, f"text\n{number}\n", age=100 - number)
    assert dying("deadly.csv") == ["deadly.csv"]
    assert dying("deadly.csv") == ["b.csv", "c.csv", "deadly.csv"]
    put(settings.inbox, "d.csv")
    assert dying("deadly.csv") == ["d.csv", "deadly.csv"]
    assert dying("deadly.csv") == []
    assert names(settings.inbox) == ["done", "failed"]
    assert names(settings.inbox / "failed") == ["deadly.csv", "deadly.csv.error.txt"]
    assert "The last 3 calls died" in (settings.inbox / "failed/deadly.csv.error.txt").read_text("utf-8")
    assert names(settings.inbox / "done") == ["b.csv", "c.csv", "d.csv"]


def test_a_file_that_was_set_aside_gets_its_chances_again(
    settings: InboxSettings, dying: Callable[[str], list[str]]
) -> None:
    path = put(settings.inbox, "a.csv")
    for _ in range(4):
        dying("a.csv")
    (settings.inbox / "failed" / "a.csv").rename(path)
    assert dying("") == ["a.csv"]
    assert names(settings.inbox / "done") == ["a.csv"]


def test_a_large_file_that_gets_further_each_time_is_not_blamed(
    settings: InboxSettings, dying: Callable[[str], list[str]]
) -> None:
    path = put(settings.inbox, "a.csv")
    parts = settings.output / "2026-01-02" / f"a.csv-{sha256_of(path)[:16]}" / ".staging" / "f" / "parts"
    parts.mkdir(parents=True)
    for number in range(5):
        (parts / f"{number:08d}.arrow").touch()
        assert dying("a.csv") == ["a.csv"]
    for _ in range(2):
        assert dying("a.csv") == ["a.csv"]
    assert dying("a.csv") == []
    assert names(settings.inbox / "failed") == ["a.csv", "a.csv.error.txt"]


def test_a_call_that_was_stopped_blames_nobody(
    settings: InboxSettings, fake: type[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> Outcome:
        assert names(settings.inbox) == [".attempts.json", "a.csv"]  # or a kill here were forgotten
        raise KeyboardInterrupt

    monkeypatch.setattr(fake, "score", stop)
    put(settings.inbox, "a.csv")
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            take(settings)
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


def test_spaces_of_any_kind_are_no_harm_in_a_name(settings: InboxSettings, fake: type[FakeProcess]) -> None:
    spaced = [f"a{space}b.csv" for space in (" ", "\u00a0", "\u202f", "\u3000")]
    refused = [f"a{mark}b.csv" for mark in ("\n", "\r", "\t", "\x1b", "\x85", "\u2028", "\u2029", "\udcff")]
    for number, name in enumerate((*spaced, *refused)):
        put(settings.inbox, name, f"text\n{number}\n")
    statuses = {each.name: each.status for each in take(settings).files}
    assert statuses == dict.fromkeys(spaced, "scored") | dict.fromkeys(refused, "failed")
    assert names(settings.inbox / "done") == sorted(spaced)
    assert not any(
        mark in name for name in names(settings.inbox / "failed") for mark in "\n\r\t\x1b\x85\u2028\u2029"
    )


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
    arguments = ["inbox", "/no/where", "--model", "m", "--output", str(settings.output), "--dry-run"]
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, done.stderr) == (
        66,
        "error: There is no folder /no/where. Make it, or name another inbox.\n",
    )
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
    command += ["--output", str(folder / "out"), "--settle", "0", "--json", "--log-format", "json"]
    command += ["--metrics-file", str(folder / "inbox.prom"), "-v"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 65, done.stderr
    (folder / "said").write_text(done.stderr, encoding="utf-8")
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_the_model_is_loaded_once_for_all_files(emptied: tuple[Path, dict[str, Any]]) -> None:
    said = (emptied[0] / "said").read_text("utf-8")
    assert said.count("model loaded") == 1


def test_each_file_is_a_run_of_its_own(emptied: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = emptied
    assert (summary["scored"], summary["done"], summary["failed"], summary["rows"]) == (2, 1, 1, 9)
    assert names(folder / "in") == ["done", "failed"]
    assert names(folder / "in/done") == ["a.parquet", "b.csv", "same.parquet"]
    assert names(folder / "in/failed") == ["bad.parquet", "bad.parquet.error.txt"]
    runs = sorted((folder / "out").glob("*/*"))
    assert [run.name.rpartition("-")[0] for run in runs] == ["a.parquet", "b.csv", "bad.parquet"]
    assert all(verify(run)["kind"] == "run" for run in runs[:2])
    assert names(runs[2]) == ["refused.json"]  # so that the report can say why
    scored = pd.read_parquet(runs[0] / "predictions" / "a.parquet")
    pd.testing.assert_frame_equal(scored[list(FRAME)], FRAME)


def test_each_file_is_an_event_for_machines(emptied: tuple[Path, dict[str, Any]]) -> None:
    said = (emptied[0] / "said").read_text("utf-8")
    events = [json.loads(line) for line in said.splitlines()]
    assert len({event["run_id"] for event in events}) == 1
    files = {event["file"]: event for event in events if event.get("event") == "file"}
    became = {name: (event["status"], event["exit_code"], event["rows"]) for name, event in files.items()}
    assert became == {
        "a.parquet": ("scored", 0, 3),
        "b.csv": ("scored", 0, 3),
        "same.parquet": ("done", 0, 3),
        "bad.parquet": ("failed", 65, 0),
    }
    assert files["a.parquet"]["folder"].startswith(str(emptied[0] / "out"))
    assert [event["exit_code"] for event in events if event.get("event") == "error"] == [65]
    assert not any(text in said for text in ("Good.", "Bad."))


def test_the_numbers_of_a_call_for_prometheus(emptied: tuple[Path, dict[str, Any]]) -> None:
    lines = (emptied[0] / "inbox.prom").read_text("utf-8").splitlines()
    files = {"scored": 2, "done": 1, "failed": 1, "waiting": 0}
    wanted = {f'batchscore_inbox_files{{status="{status}"}} {count}.0' for status, count in files.items()}
    assert wanted | {'batchscore_rows{state="read"} 9.0', "batchscore_last_exit_code 65.0"} <= set(lines)


def test_old_runs_go_and_nothing_else(emptied: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out = Path(shutil.copytree(emptied[0] / "out", tmp_path / "out"))
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=8)
    first, second, refused = old_runs(out, 7, later)
    assert old_runs(out, 9, later) == []
    (first / "notes.txt").write_text("mine", encoding="utf-8")
    (out / "other").mkdir()
    (out / "other" / "_SUCCESS").write_text("", encoding="utf-8")
    (second / "run.json").unlink()  # as a removal leaves it that was killed
    assert old_runs(out, 7, later) == [first, second, refused]
    assert [remove_run(path, out) for path in (first, second, refused)] == [[], [], []]
    assert left_below(out) == [f"{first.relative_to(out).as_posix()}/notes.txt", "other/_SUCCESS"]
    assert not second.exists()


def test_what_is_too_old_goes_but_for_what_is_kept_or_held(
    emptied: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(emptied[0] / "out", tmp_path / "out"))
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=8)
    first, second, refused = old_runs(out, 7, later)
    assert list(remove_old_runs(out, 9, later)) == []
    would = list(remove_old_runs(out, 7, later, kept=second.parent / "." / second.name, dry_run=True))
    assert would == [OldRun(first), OldRun(refused)]
    assert old_runs(out, 7, later) == [first, second, refused]
    (first / "metrics.json").write_text("{}", encoding="utf-8")
    with locked(refused):
        found = list(remove_old_runs(out, 7, later, kept=second))
    assert found[0] == OldRun(first, ("metrics.json",))
    assert (found[1].path, found[1].changed) == (refused, ())
    assert found[1].problem.startswith("Another run holds ")
    assert old_runs(out, 7, later) == [second, refused]


def left_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_was_edited_since_is_not_removed(emptied: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out = Path(shutil.copytree(emptied[0] / "out", tmp_path / "out"))
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=8)
    first, second, refused = old_runs(out, 7, later)
    remove_run(refused, out)
    with (first / "mismatches.csv").open("a", encoding="utf-8") as file:
        file.write("a person's remark\n")
    (second / "run.json").write_bytes((second / "run.json").read_bytes() + b" ")
    (second / "report.html").unlink()
    (second / "report.html").symlink_to(first / "mismatches.csv")
    assert remove_run(first, out) == ["mismatches.csv"]
    assert remove_run(second, out) == ["report.html", "run.json"]
    assert "a person's remark" in (first / "mismatches.csv").read_text("utf-8")
    kept = [(first, "mismatches.csv"), (second, "report.html"), (second, "run.json")]
    assert left_below(out) == [(run.relative_to(out) / name).as_posix() for run, name in kept]
    assert old_runs(out, 7, later) == []


def unfinished(run: Path, published: dict[str, str]) -> Path:
    """A run folder as a kill leaves it while the files are put in place."""
    staging = run / ".staging" / ("0" * 32)
    (staging / "parts").mkdir(parents=True)
    (staging / "final").mkdir()
    (staging / "parts" / "00000000.arrow").write_bytes(b"part")
    (run / ".staging" / "holder.json").write_text("{}", encoding="utf-8")
    for name, content in published.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(content, encoding="utf-8")
    hashes = {name: sha256_of(run / name) for name in published}
    (staging / "final" / "_SUCCESS").write_bytes(manifest(hashes))
    return run


def test_runs_that_never_finished_go_too_when_they_are_old(tmp_path: Path) -> None:
    killed = unfinished(tmp_path / "2026-01-01", {"metrics.json": "{}", "predictions/a.csv": "text\n"})
    (killed / "notes.txt").write_text("mine", encoding="utf-8")
    (killed / "metrics.json").write_text("edited", encoding="utf-8")
    refused = tmp_path / "2026-01-02" / f"a.csv-{'0' * 16}" / "rejects.jsonl"
    elsewhere = tmp_path / "kept" / "rejects.jsonl"
    theirs = tmp_path / "2026-01-03" / "rejects.jsonl"
    strange = tmp_path / "strange" / ".staging" / "theirs"
    line = {"file": "a.csv", "row": 0, "line": 2, "byte_offset": 9, "reason": "r", "column": None, "raw": ""}
    for path, content in (
        (refused, line),
        (elsewhere, line),
        (theirs, {"file": "x", "theirs": 1}),
        (strange, {}),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(f"{json.dumps(content)}\n", encoding="utf-8")
    now = datetime.datetime.now(datetime.UTC)
    assert old_runs(tmp_path, 7, now + datetime.timedelta(days=6)) == []
    old = old_runs(tmp_path, 7, now + datetime.timedelta(days=8))
    assert old == [killed, refused.parent]
    with locked(killed), pytest.raises(BusyError):
        remove_run(killed, tmp_path)
    assert [remove_run(path, tmp_path) for path in old] == [["metrics.json"], []]
    kept = [
        "2026-01-01/metrics.json",
        "2026-01-01/notes.txt",
        "2026-01-03/rejects.jsonl",
        "kept/rejects.jsonl",
    ]
    assert left_below(tmp_path) == [*kept, "strange/.staging/theirs"]
    assert not (tmp_path / "2026-01-02").exists()


def test_a_run_that_was_refused_for_its_rejects_leaves_what_is_known_as_such(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    """The rejects are those of the program, not of this file's idea of them."""
    (tmp_path / "bad.csv").write_text("text,label\nfine,pos\ntoo,many,fields\n", encoding="utf-8")
    run = tmp_path / "runs" / "2026-01-02"
    with pytest.raises(DataError):
        run_score(tmp_path / "bad.csv", tiny_bundle, run)
    assert names(run) == ["refused.json", "rejects.jsonl"]
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=8)
    assert old_runs(tmp_path / "runs", 7, later) == [run]
    remove_run(run, tmp_path / "runs")
    assert not run.exists()


def test_an_inbox_takes_the_options_of_what_predictions_hold(
    tmp_path: Path, fake: type[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ScoreSettings] = []

    class Noted(fake):  # type: ignore[misc,valid-type]
        def __init__(self, score: ScoreSettings, *_: Any) -> None:
            seen.append(score)

    monkeypatch.setattr(drop, "ScoringProcess", Noted)
    (tmp_path / "in").mkdir()
    put(tmp_path / "in", "a.csv")
    monkeypatch.setenv("BATCHSCORE_RENAME", "predicted_label=sentiment status=state")
    (tmp_path / "c.toml").write_text(
        'drop-columns = "text"\nthreshold = ["POSITIVE=0.8"]\n', encoding="utf-8"
    )
    options = [
        *("--model", "m", "--output", tmp_path / "out", "--settle", "0", "--config", tmp_path / "c.toml")
    ]
    options += ["--probabilities", "top", "--below", "abstain", "--append-to", tmp_path / "lake"]
    ran = CliRunner().invoke(main, ["inbox", str(tmp_path / "in"), *map(str, options)])
    assert ran.exit_code == 0, ran.output
    (score,) = seen
    assert score.renames == {"predicted_label": "sentiment", "status": "state"}
    assert (score.drop_columns, score.thresholds, score.below) == (("text",), {"POSITIVE": 0.8}, "abstain")
    assert (score.probabilities, score.append_to) == ("top", tmp_path / "lake")
