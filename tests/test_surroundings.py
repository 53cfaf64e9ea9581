"""A hostile machine: closed and full streams, limits, a folder that is gone, a clock that was set back."""

from __future__ import annotations

import errno
import functools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchscore.config import InboxSettings, ScoreSettings
from batchscore.errors import DataError, ModelError, StorageError
from batchscore.inbox import whole_files
from batchscore.system.surroundings import died_of_a_limit, shortage

COMMAND = Path(sys.executable).with_name("batchscore")
TRAINER = COMMAND.with_name("batchscore-train")
YEAR = 365 * 86_400


def run(*arguments: object, **facts: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(each) for each in arguments], capture_output=True, text=True, check=False, **facts
    )


def limited(limit: int, value: int, hard: int | None = None) -> Callable[[], None]:
    return lambda: resource.setrlimit(limit, (value, value if hard is None else hard))


# --- streams


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "import os, sys; from batchscore.system.surroundings import settle_in; settle_in();"
        "file = open(sys.argv[1], 'w'); print('noise', file=sys.stderr); print('noise'); os.write(2, b'noise');"
        "file.write(f'{file.fileno()}'); file.close()"
    )
    for closed in ((2,), (0, 1, 2)):
        path = tmp_path / f"{len(closed)}"
        facts: dict[str, Any] = {"preexec_fn": functools.partial(os.closerange, closed[0], 3)}
        assert subprocess.run([sys.executable, "-c", code, path], check=False, **facts).returncode == 0
        assert int(path.read_text()) > 2


@pytest.mark.parametrize(("command", "arguments"), [(COMMAND, ["score", "--help"]), (TRAINER, ["--help"])])
def test_a_full_standard_output_is_74_and_a_sentence(command: Path, arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        found = subprocess.run(
            [command, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert found.returncode == 74
    assert found.stderr.startswith("error: The machine refused: there is no more space (standard output)")
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [COMMAND, TRAINER])
def test_a_working_directory_that_is_gone_is_74_and_a_sentence(command: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    found = run("bash", "-c", 'cd "$0" && rmdir "$0" && exec "$1" score a', gone, command)
    assert found.returncode == 74
    assert found.stderr.startswith(
        "error: The machine refused: the folder in which the command was started is gone"
    )
    assert "Traceback" not in found.stderr


# --- limits


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


REFUSED = {
    "memory": MemoryError(),
    "files": OSError(errno.EMFILE, "Too many open files", "x"),
    "threads": RuntimeError("can't start new thread"),
    "a library": ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    "torch": RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    "behind ours": chained(ModelError("its tokenizer cannot be loaded"), MemoryError()),
    "behind another": chained(ValueError("x"), OSError(errno.EAGAIN, "Resource temporarily unavailable")),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_machine_refuses_is_no_fault_of_anybody(what: str) -> None:
    found = shortage(REFUSED[what])
    assert found is not None
    assert found.exit_code == 74
    assert str(found).startswith("The machine refused: ")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("memory"),
        DataError("x"),
        ImportError("No module named x"),
        StorageError("x"),
        FileNotFoundError(2, "x"),
    ],
    ids=repr,
)
def test_faults_of_the_program_and_of_inputs_stay_what_they_are(error: Exception) -> None:
    assert shortage(error) is None


def test_a_crash_under_a_limit_is_not_the_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert died_of_a_limit(signal.SIGXCPU)
    assert not died_of_a_limit(signal.SIGSEGV)
    assert not died_of_a_limit(0)
    monkeypatch.setattr("batchscore.system.surroundings.resource.getrlimit", lambda _: (1 << 30, 1 << 30))
    assert "ulimit -v: 1048576 KiB" in died_of_a_limit(signal.SIGABRT)
    assert not died_of_a_limit(signal.SIGKILL)


def test_too_few_addresses_for_the_libraries_are_74_and_the_file_stays(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a.csv").write_text("text\nGood.\n", encoding="utf-8")
    arguments = ("inbox", inbox, "--model", tiny_bundle, "--output", tmp_path / "runs", "--settle", "0")
    found = run(COMMAND, *arguments, preexec_fn=limited(resource.RLIMIT_AS, 900 << 20))
    assert found.returncode == 74, found.stderr
    assert "Traceback" not in found.stderr
    assert "ulimit -v: 921600" in found.stderr
    assert [path.name for path in inbox.iterdir() if path.name[0] != "."] == ["a.csv"]


def test_the_end_of_its_processor_time_stops_a_command_in_time() -> None:
    code = (
        "import sys; sys.argv = ['batchscore', 'score']\n"
        "import click; from batchscore.cli import main\n"
        "def spin(*_, **__):\n    while True: pass\n"
        "click.Group.main = spin; main()"
    )
    found = run(sys.executable, "-c", code, preexec_fn=limited(resource.RLIMIT_CPU, 2))
    assert found.returncode == 143, found.stderr
    assert "ulimit -t" in found.stderr


# --- the clock


def inbox_of(folder: Path, settle: float = 0.2) -> InboxSettings:
    score = ScoreSettings(inputs=(), model="m", output=folder / "runs")
    return InboxSettings(folder, folder / "runs", score, settle=settle)


def test_a_clock_set_back_is_told_and_files_are_watched_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    (tmp_path / "a.csv").write_text("text\nGood.\n", encoding="utf-8")
    (tmp_path / "growing.csv").write_text("text\n", encoding="utf-8")
    monkeypatch.setattr(whole_files._LOG, "warning", lambda text, *facts: said.append(text % facts))
    now = time.time
    assert whole_files.contents(inbox_of(tmp_path, 60)).whole == []
    assert said == []
    monkeypatch.setattr("batchscore.inbox.whole_files.time.time", lambda: now() - 30)
    assert whole_files.contents(inbox_of(tmp_path, 60)).whole == []
    assert said == []  # half a minute ahead, as on a share: it has an age soon, and is not waited for
    monkeypatch.setattr("batchscore.inbox.whole_files.time.time", lambda: now() - YEAR)
    writer = threading.Timer(0.1, lambda: (tmp_path / "growing.csv").write_text("text\nmore\n"))
    writer.start()
    found = whole_files.contents(inbox_of(tmp_path, 0.5))
    writer.join()
    assert [path.name for path in found.whole] == ["a.csv"]
    assert found.settling == ["growing.csv"]
    assert len(said) == 1
    assert "was the clock set back?" in said[0]
