"""How many compute at a time changes no bit; memory that runs out loses no row; nothing waits for the end of a part."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run_score
from numpy.typing import NDArray
from test_scoring import FakeBackend, bundle, model_of, rows_of, texts_of

from batchscore.config import ComputeSettings, ReadSettings, ScoreSettings
from batchscore.errors import InterruptedRunError
from batchscore.model.bundle import Bundle
from batchscore.model.scoring import UNWATCHED, InferenceSettings, Model, score_part
from batchscore.records import MicroBatch, Part, Predictions, Rows, Shard, Status
from batchscore.runs.engines import ENGINES, local
from batchscore.runs.run import score
from batchscore.system.cores import usable_cores

__all__ = ["bundle"]


def parts_of(texts: list[str | None], size: int) -> Iterator[tuple[Shard, list[Rows]]]:
    for number, start in enumerate(range(0, len(texts), size)):
        rows = rows_of(texts[start : start + size])
        yield Shard.of(Part(number, 0, rows.start, rows.rows_in, "")), [rows]


def scored(model: Model, texts: list[str | None], size: int = 25) -> list[Predictions]:
    """Predictions of each part, as the local engine hands them on."""
    found: list[tuple[int, Predictions]] = []
    ENGINES["local"](
        parts_of(texts, size),
        model,
        lambda shard, _, p: found.append((shard.number, p[0])),
        lambda _: UNWATCHED,
    )
    assert [number for number, _ in found] == list(range(len(found)))
    return [predictions for _, predictions in found]


def with_workers(bundle: Bundle, backend: Any, workers: int, budget: int = 256) -> Model:
    model = model_of(bundle, backend, budget=budget)
    return Model(model.bundle, model.tokenizer, model.backend, InferenceSettings(budget, "head"), workers)


def predictions_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "predictions").iterdir())]


@pytest.mark.parametrize("threads", [1, 3])
def test_answers_have_the_same_bits_whatever_the_workers_and_threads(
    tiny_bundle: Path, reviews: pd.DataFrame, tmp_path: Path, threads: int
) -> None:
    reviews.head(60).to_parquet(tmp_path / "in.parquet")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for workers in (1, 2, 5):
            compute = ComputeSettings(precision="fp32", workers=workers)
            read = ReadSettings(part_rows=20)
            run_score(
                tmp_path / "in.parquet", tiny_bundle, tmp_path / str(workers), compute=compute, read=read
            )
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert predictions_of(tmp_path / "1") == predictions_of(tmp_path / "2") == predictions_of(tmp_path / "5")


def test_each_worker_computes_on_one_core(bundle: Bundle) -> None:
    threads = []

    class Counting(FakeBackend):
        def one_core_each(self) -> Any:
            from batchscore.model.backends.torch_backend import one_thread

            return one_thread()

        def logits(self, batch: MicroBatch) -> NDArray[np.float32]:
            threads.append(torch.get_num_threads())
            return super().logits(batch)

    scored(with_workers(bundle, Counting(), 3), texts_of(60))
    assert set(threads) == {1}


class Stop:
    """A progress display that stops the run after the first part."""

    def add(self, amount: int, *, counted: bool = True) -> None:
        if counted:
            raise InterruptedRunError("stopped", 15)

    def close(self) -> None:
        pass


def test_a_stopped_run_goes_on_with_another_number_of_workers(
    tiny_bundle: Path, reviews: pd.DataFrame, tmp_path: Path
) -> None:
    reviews.head(60).to_parquet(tmp_path / "in.parquet")
    options: dict[str, Any] = {"read": ReadSettings(part_rows=20)}
    settings = ScoreSettings(
        (str(tmp_path / "in.parquet"),),
        str(tiny_bundle),
        tmp_path / "run",
        compute=ComputeSettings(precision="fp32", workers=1),
        **options,
    )
    with pytest.raises(InterruptedRunError):
        score(settings, lambda _: Stop())  # type: ignore[arg-type,return-value]
    for output in ("run", "whole"):
        compute = ComputeSettings(precision="fp32", workers=3)
        run_score(tmp_path / "in.parquet", tiny_bundle, tmp_path / output, compute=compute, **options)
    assert predictions_of(tmp_path / "run") == predictions_of(tmp_path / "whole")


@pytest.mark.parametrize("workers", [1, 3])
def test_memory_that_runs_out_above_a_hidden_limit_loses_no_row(bundle: Bundle, workers: int) -> None:
    """And each part is computed exactly as if the budget that fits it had been asked for."""
    texts = texts_of(120)
    scarce = FakeBackend(memory=300)
    found = scored(with_workers(bundle, scarce, workers, budget=2048), texts)
    assert all((predictions.status == Status.OK).all() for predictions in found)
    assert scarce.released > 0
    assert all(rows * width <= 300 for rows, width in scarce.shapes)
    for predictions, (_, (rows,)) in zip(found, parts_of(texts, 25), strict=True):
        halvings = int(predictions.work["halvings"])
        assert halvings <= 3  # 1024, 512, 256; texts of few lengths may fit as they are
        plain = FakeBackend()
        fitting = score_part(rows, with_workers(bundle, plain, 1, budget=2048 >> halvings))
        np.testing.assert_array_equal(predictions.probabilities, fitting.probabilities)
        assert set(plain.shapes) <= set(scarce.shapes)


def test_the_next_part_begins_while_the_last_micro_batch_of_one_is_under_way(bundle: Bundle) -> None:
    first, second = threading.Event(), threading.Event()

    class Waiting(FakeBackend):
        def logits(self, batch: MicroBatch) -> NDArray[np.float32]:
            if not first.is_set():
                first.set()
                assert second.wait(20), "nothing else was begun"
            else:
                second.set()
            return super().logits(batch)

    texts: list[str | None] = ["film", "plot"]
    assert len(scored(with_workers(bundle, Waiting(), 2), texts, size=1)) == 2


def test_no_more_than_a_few_parts_are_held_at_a_time(bundle: Bundle) -> None:
    """A stage that is slow holds up the reader, so that memory does not grow with the number of rows."""
    read, most = 0, 0

    def reading() -> Iterator[tuple[Shard, list[Rows]]]:
        nonlocal read
        for shard in parts_of(texts_of(60), 1):
            read += 1
            yield shard

    staged = 0

    def sink(*_: Any) -> None:
        nonlocal staged, most
        most = max(most, read - staged)
        staged += 1

    local.run(reading(), with_workers(bundle, FakeBackend(), 2), sink, lambda _: UNWATCHED)
    assert staged == 60
    assert most <= 4 * local._AHEAD


@pytest.mark.parametrize(
    ("siblings", "quota", "expected"),
    [
        pytest.param({}, None, "all", id="nothing known"),
        pytest.param({}, "100000 100000", 1, id="a quota of one core"),
        pytest.param({}, "50000 100000", 1, id="a quota of half a core"),
        pytest.param({}, "max 100000", "all", id="no quota"),
        pytest.param("one core", None, 1, id="hardware threads of one core"),
    ],
)
def test_cores_are_those_that_may_be_used(
    tmp_path: Path, siblings: Any, quota: str | None, expected: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    for cpu in range(4) if siblings else ():
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text("0-3\n")
    if quota:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert usable_cores(tmp_path, tmp_path / "cpu.max") == (4 if expected == "all" else expected)
