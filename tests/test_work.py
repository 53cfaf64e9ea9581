"""A run that is stopped within a part: the micro-batches that are done are not computed again, and the bytes are the same."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import run_score
from test_locks_and_signals import comparable

from batchscore.config import ComputeSettings
from batchscore.errors import StorageError
from batchscore.model.backends import OutOfDeviceMemoryError
from batchscore.model.backends.torch_backend import TorchBackend
from batchscore.records import MicroBatch, Part, Position, Shard
from batchscore.runs import work
from batchscore.runs.work import MicroBatches
from batchscore.system import terminal
from batchscore.system.journal import Journal
from batchscore.system.storage import STAGING

COMPUTE = ComputeSettings(device="cpu", precision="fp32", max_batch_tokens=256, workers=2)


class Stopped(BaseException):
    """As by a signal."""


@pytest.fixture
def many(reviews: pd.DataFrame, tmp_path: Path) -> Path:
    """Enough rows for dozens of micro-batches in the only part."""
    path = tmp_path / "reviews.csv"
    rows = pd.concat([reviews] * 3, ignore_index=True)
    rows["text"] = [
        f"{row} {text}" if isinstance(text, str) else text for row, text in enumerate(rows["text"])
    ]
    rows.to_csv(path, index=False)
    return path


class Counted:
    """The forward passes of a run's rows, which may be stopped after some, or run out of memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done, self.left, self.room = 0, 10**9, 10**9
        lock, whole = threading.Lock(), TorchBackend.logits

        def logits(backend: TorchBackend, batch: MicroBatch) -> Any:
            if threading.current_thread().name.startswith("worker"):
                with lock:
                    if batch.input_ids.size > self.room:
                        raise OutOfDeviceMemoryError("pretended")
                    self.left -= 1
                    if self.left < 0:
                        raise Stopped
                    self.done += 1
            return whole(backend, batch)

        monkeypatch.setattr(TorchBackend, "logits", logits)


@pytest.fixture
def forward(monkeypatch: pytest.MonkeyPatch) -> Counted:
    monkeypatch.setattr(work, "_WRITE_SECONDS", 0.0)
    return Counted(monkeypatch)


def journals(output: Path) -> list[Path]:
    return sorted((output / STAGING).glob("*/micro-batches/*"))


def test_what_is_done_of_a_part_is_not_done_again(
    many: Path, tiny_bundle: Path, tmp_path: Path, forward: Counted
) -> None:
    whole = run_score(many, tiny_bundle, tmp_path / "whole", compute=COMPUTE)
    needed, forward.done = forward.done, 0
    assert needed > 20
    for _ in range(3):
        forward.left = 5
        with pytest.raises(Stopped):
            run_score(many, tiny_bundle, tmp_path / "run", compute=COMPUTE)
        assert len(journals(tmp_path / "run")) == 1
    forward.left = 10**9
    again = run_score(many, tiny_bundle, tmp_path / "run", compute=COMPUTE)
    # What a worker was at when the other stopped may be lost, at each of the three stops.
    assert needed <= forward.done <= needed + 3
    assert comparable(tmp_path / "run") == comparable(tmp_path / "whole")
    assert not (tmp_path / "run" / STAGING).exists()
    for name in ("tokens", "padded_tokens", "micro_batches"):
        assert cost(again.output)[name] == cost(whole.output)[name]


def cost(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "run.json").read_text())["work"]
    return found


@pytest.mark.parametrize("harm", ["torn", "changed", "emptied", "of another plan"])
def test_damaged_notes_are_scored_again(
    harm: str, many: Path, tiny_bundle: Path, tmp_path: Path, forward: Counted
) -> None:
    run_score(many, tiny_bundle, tmp_path / "whole", compute=COMPUTE)
    forward.left = 8
    with pytest.raises(Stopped):
        run_score(many, tiny_bundle, tmp_path / "run", compute=COMPUTE)
    (path,) = journals(tmp_path / "run")
    data = path.read_bytes()
    if harm == "of another plan":
        journal = Journal(path)
        first, second = journal.entries[:2]
        journal.close()
        path.unlink()
        journal = Journal(path)
        journal.extend([{**first, "number": second["number"]}, {**second, "number": 10**6}], is_durable=True)
        journal.close()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes({"torn": data[:-20], "changed": flipped, "emptied": b""}[harm])
    forward.left, forward.done = 10**9, 0
    run_score(many, tiny_bundle, tmp_path / "run", compute=COMPUTE)
    assert comparable(tmp_path / "run") == comparable(tmp_path / "whole")


def test_notes_of_a_run_that_has_forgotten_how_it_computes_are_not_believed(
    many: Path, tiny_bundle: Path, tmp_path: Path, forward: Counted
) -> None:
    run_score(many, tiny_bundle, tmp_path / "whole", compute=COMPUTE)
    needed, forward.done, forward.left = forward.done, 0, 8
    with pytest.raises(Stopped):
        run_score(many, tiny_bundle, tmp_path / "run", compute=COMPUTE)
    (journal,) = (tmp_path / "run" / STAGING).glob("*/journal.jsonl")
    journal.write_bytes(b"damaged\n")  # precision and budget stood here; they may be decided otherwise now
    forward.left, forward.done = 10**9, 0
    run_score(many, tiny_bundle, tmp_path / "run", compute=COMPUTE)
    assert forward.done == needed
    assert comparable(tmp_path / "run") == comparable(tmp_path / "whole")


def test_after_memory_ran_out_the_smaller_micro_batches_are_kept(
    many: Path, tiny_bundle: Path, tmp_path: Path, forward: Counted
) -> None:
    forward.room = 150
    run_score(many, tiny_bundle, tmp_path / "whole", compute=COMPUTE)
    needed, forward.done, forward.left = forward.done, 0, 30
    with pytest.raises(Stopped):
        run_score(many, tiny_bundle, tmp_path / "run", compute=COMPUTE)
    (path,) = journals(tmp_path / "run")
    assert {entry["budget"] for entry in Journal(path).entries} >= {128}
    forward.left = 10**9
    run_score(many, tiny_bundle, tmp_path / "run", compute=COMPUTE)
    assert forward.done < 1.5 * needed
    assert comparable(tmp_path / "run") == comparable(tmp_path / "whole")


def test_a_run_that_noted_micro_batches_is_not_replaced_without_force(
    many: Path, tiny_bundle: Path, tmp_path: Path, forward: Counted
) -> None:
    from batchscore.errors import OutputError

    forward.left = 8
    with pytest.raises(Stopped):
        run_score(many, tiny_bundle, tmp_path / "run", compute=COMPUTE)
    with pytest.raises(OutputError, match="unfinished run"):
        run_score(many, tiny_bundle, tmp_path / "run", compute=COMPUTE, long_text="windows")


def test_notes_that_cannot_be_written_end_the_run(
    many: Path, tiny_bundle: Path, tmp_path: Path, forward: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("no space left")

    monkeypatch.setattr(Journal, "extend", full)
    monkeypatch.setattr(Journal, "append", lambda *_: None)
    with pytest.raises(StorageError, match="no space"):
        run_score(many, tiny_bundle, tmp_path / "run", compute=COMPUTE)


# --- the progress -------------------------------------------------------------------------------------------------------


def test_the_progress_moves_with_micro_batches_and_tells_new_work_from_old(
    many: Path, tiny_bundle: Path, tmp_path: Path, forward: Counted
) -> None:
    from batchscore.config import ScoreSettings
    from batchscore.runs.run import score

    moves: list[tuple[int, bool]] = []

    class Bar(terminal.Progress):
        def add(self, amount: int, *, counted: bool = True) -> None:
            moves.append((amount, counted))

    settings = ScoreSettings((str(many),), str(tiny_bundle), tmp_path / "run", compute=COMPUTE)
    forward.left = 10
    with pytest.raises(Stopped):
        score(settings, lambda total: Bar(total, quiet=True))
    first, moves[:] = list(moves), []
    assert sum(1 for amount, counted in first if amount and counted) > 5
    forward.left = 10**9
    result = score(settings, lambda total: Bar(total, quiet=True))
    assert sum(amount for amount, _ in moves) == result.rows
    old, new = (sum(amount for amount, counted in moves if counted is kind) for kind in (False, True))
    assert 0 < old < result.rows
    assert new == result.rows - old


def test_the_first_line_comes_soon_and_the_next_ones_seldom(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr("batchscore.system.terminal.time.monotonic", lambda: float(next(clock)))
    bar = terminal.Progress(100)
    for _ in range(70):  # one row a second
        bar.add(1)
    said = [int(found) for found in re.findall(r"^(\d+) of 100 rows", capsys.readouterr().err, re.M)]
    assert said == [3, 33, 63]


@pytest.fixture
def shard() -> Shard:
    return Shard.of(Part(0, 0, Position(0, 0, 0), 60, ""), Part(1, 1, Position(0, 0, 0), 40, ""))


def test_rows_are_told_once_whatever_happens(shard: Shard, tmp_path: Path) -> None:
    from batchscore.model.scoring import Scored

    told: list[int] = []
    batches = MicroBatches(tmp_path / "micro-batches", lambda rows, _: told.append(rows))
    watcher = batches.watch(shard)
    scored = Scored(np.arange(2), np.zeros((2, 3), np.float32), {}, Counter())
    for number in range(3):
        watcher.done(64, number, scored, 0.25)
    for number in range(6):  # again, with half the budget
        watcher.done(32, number, scored, 1 / 6)
    batches.staged(shard)
    batches.close()
    assert sum(told) == 100
    assert min(told) >= 0
    assert not list((tmp_path / "micro-batches").iterdir())
