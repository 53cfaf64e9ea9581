"""Every exit code of the contract, reached through the installed command: what cron, systemd and Airflow see."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

from batchscore.runs.inspection import verify
from batchscore.system.locks import locked

COMMAND = Path(sys.executable).with_name("batchscore")
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
ROWS = "text,label\nGood.,pos\nGood.,neg\n"
"""Whatever the model says, it is right once."""


class World(NamedTuple):
    """A place to score in: ``reviews.csv`` and a bundle; the run folder is not there yet."""

    folder: Path
    bundle: Path

    @property
    def output(self) -> Path:
        return self.folder / "run"

    def score(self, *options: object, **facts: Any) -> subprocess.Popen[str]:
        """Start ``batchscore score`` on the reviews; an option that is given again wins."""
        arguments = ["score", self.folder / "reviews.csv", "--model", self.bundle, "--output", self.output]
        return start(*arguments, "--json", *options, **facts)


def start(*arguments: object, **facts: Any) -> subprocess.Popen[str]:
    """Start the installed command."""
    command = [str(COMMAND), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **facts)


@pytest.fixture
def world(tmp_path: Path, tiny_bundle: Path) -> World:
    (tmp_path / "reviews.csv").write_text(ROWS, encoding="utf-8")
    return World(tmp_path, tiny_bundle)


def done(world: World) -> subprocess.Popen[str]:
    return world.score("--no-labels")


def fault(world: World) -> subprocess.Popen[str]:
    """A library that is broken in a way nobody foresaw."""
    (world.folder / "broken").mkdir()
    (world.folder / "broken" / "pyarrow.py").write_text("raise RuntimeError('injected')\n", encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(world.folder / "broken"), os.environ.get("PYTHONPATH")]))
    return world.score(env={**os.environ, "PYTHONPATH": path})


def usage(world: World) -> subprocess.Popen[str]:
    return world.score("--max-batch-tokens", "many")


def gate(world: World) -> subprocess.Popen[str]:
    return world.score("--fail-below", "accuracy=0.6")


def data(world: World) -> subprocess.Popen[str]:
    (world.folder / "reviews.csv").write_text('text,label\n"never closed,pos\nx,neg\n', encoding="utf-8")
    return world.score()


def no_input(world: World) -> subprocess.Popen[str]:
    (world.folder / "reviews.csv").unlink()
    return world.score()


def no_output(world: World) -> subprocess.Popen[str]:
    return world.score("--output", world.folder / "reviews.csv" / "run")


def full_disk(world: World) -> subprocess.Popen[str]:
    """No file may grow beyond 16 bytes."""
    return world.score(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16)))


def busy(world: World) -> subprocess.Popen[str]:
    with locked(world.output):
        process = world.score()
        process.wait(60)
    return process


def no_model(world: World) -> subprocess.Popen[str]:
    return world.score("--model", world.folder / "no-model")


def nothing(world: World) -> subprocess.Popen[str]:
    (world.folder / "reviews.csv").write_text("text,label\n", encoding="utf-8")
    return world.score("--skip-empty")


def stopped(number: signal.Signals) -> Callable[[World], subprocess.Popen[str]]:
    def stop(world: World) -> subprocess.Popen[str]:
        process = world.score()
        while not world.output.exists():  # the command has begun
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        process.wait(5)
        return process

    return stop


WAYS: dict[int, tuple[Callable[[World], subprocess.Popen[str]], str]] = {
    0: (done, ""),
    1: (fault, "RuntimeError: injected"),
    2: (usage, "--max-batch-tokens"),
    3: (gate, "accuracy"),
    65: (data, "line 2"),
    66: (no_input, "No such input"),
    73: (no_output, "Name another --output"),
    74: (full_disk, "Free the cause"),
    75: (busy, "Another run holds"),
    78: (no_model, "no model folder"),
    99: (nothing, "holds no row"),
    130: (stopped(signal.SIGINT), "stopped by SIGINT"),
    143: (stopped(signal.SIGTERM), "stopped by SIGTERM"),
}


def test_no_code_of_the_readme_is_left_out() -> None:
    table = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", README, re.M) for code in row.split(",")}
    assert set(WAYS) == table


@pytest.mark.parametrize("code", WAYS)
def test_the_installed_command_ends_with(code: int, world: World) -> None:
    way, said = WAYS[code]
    process = way(world)
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == code, err
    assert said in err
    assert ("Traceback" in err) == (code == 1)
    if code != 1:
        assert json.loads(out.splitlines()[-1])["exit_code"] == code
    if code in {0, 3}:
        assert verify(world.output)["kind"] == "run"
        assert len(pd.read_csv(world.output / "predictions" / "reviews.csv")) == 2
    else:
        assert not (world.output / "_SUCCESS").exists()
