"""``jobs/nightly.sh`` with a stand-in for the command: what cron mails, what the monitor hears, how a night ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

LATEST = "--baseline latest"
SCRIPT = Path(__file__).parents[1] / "jobs" / "nightly.sh"


class Night(NamedTuple):
    """How it ended, what it printed, what the command was called with and the monitor told."""

    code: int
    said: str
    calls: list[str]
    pings: list[str]


class Place(NamedTuple):
    """A folder with a configuration, and programs that note how they are called."""

    folder: Path

    def program(self, name: str, script: str) -> Path:
        path = self.folder / name
        path.write_text(f"#!/usr/bin/env bash\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    def start(
        self, score: str, report: str = "exit 0", more: str = "", date: str = ""
    ) -> subprocess.Popen[str]:
        """Start a night (of ``date``) in which ``score`` and ``report`` are what the command does, as shell."""
        note = f'echo "$@" >>{self.folder}/calls; case $1 in report) {report} ;; *) {score} ;; esac'
        command = self.program("batchscore", note)
        self.program("curl", f'echo "${{@: -1}}" >>{self.folder}/pings')
        (self.folder / "out").mkdir(exist_ok=True)
        config = self.folder / "nightly.conf"
        facts = {"BATCHSCORE": command, "MODEL": "/m", "OUTPUT": self.folder / "out", "INBOX": "/in"}
        lines = [*(f"{name}={value}" for name, value in facts.items()), "PING_URL=http://hc", more]
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return self.script(config, *[date] * bool(date))

    def script(self, *arguments: object) -> subprocess.Popen[str]:
        path = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        return subprocess.Popen(
            ["bash", str(SCRIPT), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env={**os.environ, "PATH": path},
        )

    def end(self, process: subprocess.Popen[str]) -> Night:
        said, _ = process.communicate(timeout=30)
        return Night(process.returncode, said, self.lines("calls"), self.lines("pings"))

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text("utf-8").splitlines() if path.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize(
    ("score", "report", "code", "said", "ping"),
    [
        ("echo talk", "echo talk", 0, "", "/0"),
        ("echo talk; exit 99", "exit 66", 0, "", "/0"),
        ("echo the reason; exit 65", "exit 0", 65, "the reason\n", "/65"),
        ("echo busy; exit 75", "exit 0", 75, "busy\n", "/log"),
        ("exit 0", "echo no page; exit 74", 74, "no page\n", "/74"),
        ("echo gate; exit 3", "echo no page; exit 74", 3, "gate\nno page\n", "/3"),
    ],
    ids=["success", "nothing new", "bad data", "another call", "no report", "both"],
)
def test_how_a_night_ends(place: Place, score: str, report: str, code: int, said: str, ping: str) -> None:
    night = place.end(place.start(score, report))
    assert (night.code, night.said) == (code, said)
    assert night.pings == ["http://hc/start", f"http://hc{ping}"]
    assert [call.split()[0] for call in night.calls] == ["inbox", "report"]


def test_a_dated_file_is_scored_for_its_date(place: Place) -> None:
    more = "INBOX='' INPUT='/export/reviews-$DATE.parquet'"
    night = place.end(place.start("exit 0", more=more, date="2026-11-23"))
    out = place.folder / "out"
    assert night.calls == [
        f"score /export/reviews-2026-11-23.parquet --model /m --output {out}/2026-11-23 --date 2026-11-23 --quiet {LATEST}",
        f"report {out} --quiet",
    ]


@pytest.mark.parametrize(("baseline", "said"), [("''", ""), ("/runs/x", " --baseline /runs/x")])
def test_what_a_night_is_compared_with_can_be_said(place: Place, baseline: str, said: str) -> None:
    night = place.end(place.start("exit 0", more=f"BASELINE={baseline}"))
    assert night.calls[0].endswith(f"--skip-empty --quiet{said}")


@pytest.mark.parametrize("what", ["score", "report"])
def test_the_time_limit_holds_for_both(place: Place, what: str) -> None:
    night = place.end(
        place.start(**{"score": "exit 0", what: "exec sleep 20"}, more="TIME_LIMIT=0.2 REPORT_TIME_LIMIT=0.2")
    )
    assert (night.code, night.pings[-1]) == (124, "http://hc/124")
    assert "stopped after 0.2" in night.said


@pytest.mark.parametrize("what", ["score", "report"])
def test_a_stop_reaches_the_command_and_the_monitor(place: Place, what: str) -> None:
    begun = place.folder / "begun"
    process = place.start(
        **{
            "score": "exit 0",
            what: f"trap 'touch {begun}.ended; exit 143' TERM; touch {begun}; sleep 20 & wait",
        }
    )
    while not begun.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    night = place.end(process)
    assert (night.code, night.pings[-1]) == (143, "http://hc/143")
    assert begun.with_suffix(".ended").exists()


def missing(place: Place) -> list[object]:
    return [place.folder / "nowhere.conf"]


def relative(place: Place) -> list[object]:
    return ["nightly.conf"]


def without_input(place: Place) -> list[object]:
    config = place.folder / "c.conf"
    config.write_text(f"BATCHSCORE={place.program('b', 'exit 0')} MODEL=/m OUTPUT=/o\n", encoding="utf-8")
    return [config]


def broken(place: Place) -> list[object]:
    config = place.folder / "c.conf"
    config.write_text("MODEL=$NO_SUCH_VARIABLE/m\n", encoding="utf-8")
    return [config]


def unclosed(place: Place) -> list[object]:
    config = place.folder / "c.conf"
    config.write_text("MODEL='/m\n", encoding="utf-8")
    return [config]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (lambda _: [], "name the configuration"),
        (missing, "nowhere.conf is not there"),
        (relative, "no absolute path"),
        (without_input, "must set INBOX or INPUT"),
        (broken, "does not run as shell"),
        (unclosed, "does not run as shell"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_78_with_the_reason(
    place: Place, arguments: Callable[[Place], list[object]], said: str
) -> None:
    night = place.end(place.script(*arguments(place)))
    assert night.code == 78, night.said
    assert said in night.said
