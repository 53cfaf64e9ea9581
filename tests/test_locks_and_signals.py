"""The real command, in children: who may run, how it is stopped, and that it goes on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click
import pandas as pd
import pytest
import warm
from test_crash import contents

from batchscore.errors import InterruptedRunError
from batchscore.runs.folder import TIMED
from batchscore.runs.inspection import verify
from batchscore.system import locks, terminal
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import STAGING

PAIRS, STOPS = 10, 6


@pytest.fixture(scope="module")
def command(tiny_bundle: Path, reviews: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A run of some files, but for its folder."""
    folder = tmp_path_factory.mktemp("inputs")
    rows = pd.concat([reviews.head(60)] * 2)
    rows.to_csv(folder / "a.csv", index=False)
    rows.to_parquet(folder / "b.parquet")
    return ["score", str(folder), "--model", str(tiny_bundle), "--precision", "fp32", "-q"]


@pytest.fixture(scope="module")
def whole(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """An uninterrupted run, and how long it took."""
    folder = tmp_path_factory.mktemp("whole")
    for name in ("first", "run"):  # the server is not warm at first
        started = time.monotonic()
        assert warm.run([*command, "--output", folder / name], folder / "log") == 0, (
            folder / "log"
        ).read_text()
    return folder / "run", time.monotonic() - started


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    """Wait for it."""
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.01)


# --- one at a time ------------------------------------------------------------------------------------------------------


def test_of_two_that_start_together_one_runs_and_the_other_is_told_who(
    command: list[str], whole: tuple[Path, float], tmp_path: Path
) -> None:
    for number in range(PAIRS):
        output, logs = tmp_path / f"run{number}", [tmp_path / f"{number}.{k}" for k in (0, 1)]
        pair = [warm.start([*command, "--output", output], log) for log in logs]
        until(lambda: not all(process.is_alive() for process in pair))  # noqa: B023
        loser = 0 if not pair[0].is_alive() else 1
        winner = pair[1 - loser]
        assert winner.is_alive(), "the loser did not leave at once"
        pid = winner.pid
        assert warm.ended(pair[loser]) == 75
        assert f"process {pid})" in logs[loser].read_text()
        winner.kill()  # nine of ten need not come to their end
        winner.join()
    assert warm.run([*command, "--output", output], tmp_path / "next") == 0  # and the killed one left no lock
    assert comparable(output) == comparable(whole[0])


def comparable(output: Path) -> dict[str, str]:
    """Hashes of all files but the page and its text, which tell times."""
    return {name: digest for name, digest in contents(output).items() if name not in TIMED}


def test_a_finished_command_run_again_does_nothing(
    command: list[str], whole: tuple[Path, float], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    shutil.copytree(whole[0], output)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in output.rglob("*")}
    assert warm.run([*command, "--output", output], tmp_path / "log") == 0
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in output.rglob("*")} == before


def is_held_by(output: Path, pid: int | None) -> bool:
    """Whether this process has the lock of the folder, so that it hears signals."""
    return output.exists() and locks._holder(OwnPath(output)).startswith(f"process {pid}")


# --- signals ------------------------------------------------------------------------------------------------------------


def test_stopped_at_any_moment_it_ends_within_five_seconds_and_goes_on(
    command: list[str], whole: tuple[Path, float], tmp_path: Path
) -> None:
    chance, output, stopped = random.Random(4), tmp_path / "run", []
    for number in range(STOPS):
        name = (signal.SIGTERM, signal.SIGINT)[number % 2]
        process = warm.start([*command, "--output", output, "--json"], tmp_path / "log")
        assert process.pid is not None
        until(lambda: not process.is_alive() or is_held_by(output, process.pid))  # noqa: B023 - it has begun
        process.join(chance.uniform(0, whole[1]))
        if process.is_alive():
            os.kill(process.pid, name)
            started = time.monotonic()
            code = warm.ended(process)
            assert time.monotonic() - started < 5
            # After the run was finished, the interpreter that shuts down has no handler any more.
            has_finished = code == -name and (output / "_SUCCESS").exists()
            assert code in {128 + name, 0} or has_finished, (tmp_path / "log").read_text()
            stopped.append(code)
    assert {143, 130} <= set(stopped)
    last = (tmp_path / "log").read_text().strip().splitlines()
    assert any("run the same command again to go on" in line for line in last)
    assert warm.run([*command, "--output", output], tmp_path / "log") == 0
    assert comparable(output) == comparable(whole[0])
    assert verify(output)["kind"] == "run"
    assert not (output / STAGING).exists()


STAGES = {
    "planning": ("batchscore.runs.surveying", "Surveyor.survey"),
    "loading": ("batchscore.model.backends.torch_backend", "TorchBackend.__init__"),
    "scoring": ("batchscore.model.backends.torch_backend", "TorchBackend.logits"),
    "finishing": ("batchscore.runs.measuring", "Measuring.list_mismatches"),
}


def deaf(arguments: list[str], log: str, stage: str, busy: str) -> None:
    """The command, in which one stage never ends."""
    import ctypes
    import importlib

    module_name, name = STAGES[stage]
    owner = importlib.import_module(module_name)
    *path, name = name.split(".")
    for part in path:
        owner = getattr(owner, part)

    def hang(*_: object, **__: object) -> None:
        """As in a long forward pass: the main thread comes back to Python for no signal."""
        Path(busy).touch()
        libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
        libc.pthread_mutex_lock(mutex)
        libc.pthread_mutex_lock(mutex)

    setattr(owner, name, hang)
    warm._command(arguments, log)


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_that_hears_nothing_is_abandoned_within_five_seconds(
    command: list[str], whole: tuple[Path, float], tmp_path: Path, stage: str
) -> None:
    output, log, busy = tmp_path / "run", tmp_path / "log", tmp_path / "busy"
    arguments = [*command, "--output", str(output), "--json"]
    process = warm.CONTEXT.Process(target=deaf, args=(arguments, str(log), stage, str(busy)))
    process.start()
    assert process.pid is not None
    until(busy.exists)
    started = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    assert warm.ended(process, 10) == 143
    assert time.monotonic() - started < 5
    said = log.read_text().strip().splitlines()
    assert any(line.startswith("error: stopped by SIGTERM") for line in said)
    assert json.loads(said[-1])["exit_code"] == 143
    assert warm.run([*command, "--output", output], log) == 0
    assert comparable(output) == comparable(whole[0])


def starting_a_pool(log: str, busy: str) -> None:
    """A command that hears a signal while its pool starts a thread, which the pool does not know of then."""

    def busy_thread() -> None:
        Path(busy).touch()
        time.sleep(60)

    def parse(*_: object, **__: object) -> None:
        threading.Thread(target=busy_thread).start()
        time.sleep(60)

    click.Group.main = parse  # type: ignore[method-assign, assignment]
    warm._command(["score"], log)


def test_a_thread_that_nobody_waits_for_does_not_keep_a_stopped_command(tmp_path: Path) -> None:
    busy, log = tmp_path / "busy", tmp_path / "log"
    process = warm.CONTEXT.Process(target=starting_a_pool, args=(str(log), str(busy)))
    process.start()
    assert process.pid is not None
    until(busy.exists)
    os.kill(process.pid, signal.SIGTERM)
    assert warm.ended(process, 20) == 143
    assert log.read_text() == "error: stopped by SIGTERM; run the same command again to go on\n"


def test_signals_are_as_before_when_the_command_has_ended() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    with terminal.boundary():
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] != before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(wakeup) == wakeup
    until(lambda: "signals" not in {thread.name for thread in threading.enumerate()}, 5)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_library_that_carries_on_after_any_exception_does_not_swallow_a_signal(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def stubborn() -> None:
        while True:
            try:
                os.kill(os.getpid(), number)
                time.sleep(1)
            except Exception:  # noqa: BLE001 - that is the point
                pytest.fail("it was swallowed")

    with pytest.raises(SystemExit) as caught, terminal.boundary():
        stubborn()
    assert caught.value.code == code
    assert number.name in capsys.readouterr().err
    assert issubclass(InterruptedRunError, BaseException)


def test_a_signal_that_a_library_makes_its_own_exception_of_is_still_that_signal() -> None:
    def library() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except InterruptedRunError:
            raise KeyboardInterrupt from None

    with pytest.raises(SystemExit) as caught, terminal.boundary():
        library()
    assert caught.value.code == 143
    with pytest.raises(KeyboardInterrupt), terminal.boundary():  # the next command has heard none
        raise KeyboardInterrupt


SLOW_MODULE = """
import os, signal, threading, time
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
for _ in range(50):
    time.sleep(0.01)
finished = True
"""


def test_an_import_comes_to_its_end_before_a_signal_stops_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "slow_to_import.py").write_text(SLOW_MODULE)
    monkeypatch.syspath_prepend(tmp_path)

    def command() -> None:
        import slow_to_import  # type: ignore[import-not-found]  # noqa: F401

        time.sleep(20)

    with pytest.raises(SystemExit) as caught, terminal.boundary():
        command()
    module = sys.modules.pop("slow_to_import")
    assert (caught.value.code, module.finished) == (143, True)
    assert capsys.readouterr().err == "error: stopped by SIGTERM; run the same command again to go on\n"


def test_a_command_that_an_import_runs_hears_signals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_script.py").write_text(
        "import os, signal, time\nfrom batchscore.system import terminal\n"
        "with terminal.boundary():\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(20)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as caught:
        import a_script  # type: ignore[import-not-found]  # noqa: F401
    assert caught.value.code == 143


def test_a_signal_whose_exception_a_finaliser_drops_is_heard_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Finalised:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    def command() -> None:
        Finalised()
        time.sleep(20)

    before = sys.unraisablehook
    with pytest.raises(SystemExit) as caught, terminal.boundary():
        command()
    assert caught.value.code == 143
    assert capsys.readouterr().err == "error: stopped by SIGTERM; run the same command again to go on\n"
    assert sys.unraisablehook is before


def test_a_signal_before_a_command_begins_ends_as_it_does_within(monkeypatch: pytest.MonkeyPatch) -> None:
    from batchscore.cli import main

    def parse(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

    monkeypatch.setattr(click.Group, "main", parse)
    with pytest.raises(SystemExit) as caught:
        main(["score"])
    assert caught.value.code == 130


# --- a few random kills, as tests/kill_runs.py makes hundreds -----------------------------------------------------------


def test_killed_at_random_moments_and_run_again_it_ends_the_same(
    command: list[str], whole: tuple[Path, float], tmp_path: Path
) -> None:
    chance, output, killed = random.Random(5), tmp_path / "run", 0
    for _ in range(10):
        process = warm.start([*command, "--output", output], tmp_path / "log")
        process.join(chance.uniform(0.1, whole[1]))
        if process.is_alive():
            process.kill()
            killed += 1
        elif chance.random() < 0.7:
            assert process.exitcode == 0
            assert comparable(output) == comparable(whole[0])
            shutil.rmtree(output)
        process.join()
    assert killed
    assert warm.run([*command, "--output", output], tmp_path / "log") == 0
    assert comparable(output) == comparable(whole[0])
