"""Prediction files built in processes beside the run, and read back once for their rows and their hashes."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from test_crash import World, contents, patched, world  # noqa: F401 - fixtures

from batchscore.runs import prediction_building
from batchscore.runs.measuring import Measuring
from batchscore.runs.prediction_building import Builder, processes_for
from batchscore.system import memory
from batchscore.system.helpers import Helpers


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch, started_processes: list[int]) -> list[int]:
    """Two processes are worth it, with a file a task; their numbers."""
    monkeypatch.setattr(prediction_building, "processes_for", lambda *_: 2)
    monkeypatch.setattr(prediction_building, "_TASK_SECONDS", 0.0)
    return started_processes


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are built in this process."""
    built: list[str] = []
    plain = Builder.build
    monkeypatch.setattr(
        Builder,
        "build",
        lambda self, wanted: built.append(wanted.path.name) or plain(self, wanted),  # type: ignore[func-returns-value]
    )
    return built


def test_processes_build_the_same_bytes_and_one_that_dies_costs_time_only(
    world: World,  # noqa: F811
    tmp_path: Path,
    two: list[int],
    here: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world.finish(tmp_path / "run")
    assert (len(two), here) == (2, [])
    taken = Helpers._take

    def take(self: Helpers, at_work: Any, done: Any) -> None:
        for pid in two[2:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        taken(self, at_work, done)

    monkeypatch.setattr(Helpers, "_take", take)
    world.finish(tmp_path / "other")
    assert sorted(here) == ["a.csv", "b.parquet"]


def test_partitions_are_built_in_processes_too(
    world: World,  # noqa: F811
    tmp_path: Path,
    here: list[str],
    request: pytest.FixtureRequest,
) -> None:
    world.score(tmp_path / "here", partition_by="label")
    assert len(here) > 2
    here.clear()
    request.getfixturevalue("two")
    world.score(tmp_path / "there", partition_by="label")
    assert here == []
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_what_is_put_in_place_is_what_was_counted(
    world: World,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = Measuring.write_pages

    def lose_a_row(self: Measuring, facts: Any, metrics: Any, listed: Any, final: Any, place: str) -> None:
        plain(self, facts, metrics, listed, final, place)
        path = (final / "predictions/a.csv").path
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))

    with monkeypatch.context() as patch:
        patch.setattr(Measuring, "write_pages", lose_a_row)
        with pytest.raises(RuntimeError, match=r"a.csv: 33 rows were read .* have 30"):
            world.score(tmp_path / "run")
    world.finish(tmp_path / "run")


@pytest.mark.parametrize(
    ("costs", "beside", "cores", "count"),
    [
        ([0.002] * 3, 0.1, 2, 0),
        ([0.002] * 20_000, 1.0, 2, 2),
        ([0.002] * 20_000, 1.0, 64, 16),
        ([0.002] * 20_000, 1.0, 1, 0),
        ([12.0], 8.0, 2, 1),
        ([12.0], 1.0, 2, 0),
        ([], 100.0, 2, 0),
    ],
)
def test_processes_are_started_where_they_are_worth_it(
    costs: list[float], beside: float, cores: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "room", lambda: None)
    assert processes_for(costs, beside, cores) == count
    monkeypatch.setattr(memory, "room", lambda: 900 << 20)
    assert processes_for(costs, beside, cores) == min(count, 2)
    monkeypatch.setattr(memory, "room", lambda: 0)
    assert processes_for(costs, beside, cores) == 0
