"""What feeds a device: threads that tokenise change no bit and no order, hold few shards, and the device's waiting is told."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import run_score
from numpy.typing import NDArray
from test_scoring import FakeBackend, bundle, rows_of, texts_of
from test_workers import parts_of, with_workers

from batchscore.model.bundle import Bundle
from batchscore.model.device_time import DeviceTime
from batchscore.model.scoring import UNWATCHED, Model, Prepared
from batchscore.records import MicroBatch, Part, Predictions, Rows, Shard
from batchscore.runs.engines import local, tokenising
from batchscore.runs.engines.tokenising import made_ready
from batchscore.system.cores import tokenising_threads

__all__ = ["bundle"]


class Device(FakeBackend):
    """On no core."""

    device = "far:0"


def fed(model: Model, size: int = 10, n: int = 120) -> tuple[list[int], list[Predictions]]:
    """The numbers of the shards in the order they were staged in, and their predictions."""
    numbers: list[int] = []
    found: list[Predictions] = []

    def sink(shard: Shard, _: Any, predictions: Any) -> None:
        numbers.append(shard.number)
        found.extend(predictions)

    local.run(parts_of(texts_of(n), size), model, sink, lambda _: UNWATCHED)
    return numbers, found


@pytest.mark.parametrize("threads", [1, 3])
def test_whoever_tokenises_the_answers_and_their_order_are_the_same(bundle: Bundle, threads: int) -> None:
    alone = with_workers(bundle, Device(), 2)
    numbers, expected = fed(alone)
    many, found = fed(dataclasses.replace(alone, tokenisers=threads))
    assert many == numbers == list(range(12))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
        np.testing.assert_array_equal(one.n_tokens, other.n_tokens)


def test_several_shards_are_tokenised_at_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2, timeout=20)
    prepared = tokenising._prepared

    def meeting(rows: Any, model: Model) -> Prepared:
        together.wait()  # broken, unless another is here too
        return prepared(rows, model)

    monkeypatch.setattr(tokenising, "_prepared", meeting)
    model = dataclasses.replace(with_workers(bundle, Device(), 1), tokenisers=2)
    assert len(fed(model)[0]) == 12


@pytest.mark.parametrize("weight", [0, tokenising._HEAVY])
def test_few_shards_wait_and_heavy_ones_for_nobody(
    bundle: Bundle, weight: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenising, "_weight", lambda _: weight)
    read = 0

    def reading() -> Iterator[tuple[Shard, list[Rows]]]:
        nonlocal read
        for shard in parts_of(texts_of(40), 1):
            read += 1
            yield shard

    model = dataclasses.replace(with_workers(bundle, Device(), 1), tokenisers=3)
    most = 0
    for taken, _ in enumerate(made_ready(reading(), model)):
        most = max(most, read - taken)
    assert read == 40
    assert most == (1 if weight else 4)


def test_an_error_of_tokenising_is_raised_in_its_place(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = tokenising._prepared

    def failing(rows: list[Rows], model: Model) -> Prepared:
        if rows[0].texts[0] == "stop":
            raise MemoryError("none left")
        return prepared(rows, model)

    monkeypatch.setattr(tokenising, "_prepared", failing)
    model = dataclasses.replace(with_workers(bundle, Device(), 1), tokenisers=2)
    shards = [
        (Shard.of(Part(k, 0, rows.start, 1, "")), [rows])
        for k, rows in enumerate(rows_of([text]) for text in ("a", "b", "stop", "d", "e"))
    ]
    stream = made_ready(shards, model)
    assert [next(stream).shard.number for _ in range(2)] == [0, 1]
    with pytest.raises(MemoryError):
        next(stream)


def test_whoever_stops_early_waits_for_no_tokens(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    release, prepared = threading.Event(), tokenising._prepared

    def slow(rows: Any, model: Model) -> Prepared:
        if rows[0].texts[0] != "a":
            release.wait(20)
        return prepared(rows, model)

    monkeypatch.setattr(tokenising, "_prepared", slow)
    model = dataclasses.replace(with_workers(bundle, Device(), 1), tokenisers=1)
    shards = [
        (Shard.of(Part(k, 0, rows.start, 1, "")), [rows])
        for k, rows in enumerate(rows_of([text]) for text in ("a", "b", "c"))
    ]
    stream = made_ready(shards, model)
    next(stream)
    started = time.monotonic()
    stream.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 5
    release.set()


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (3, 2), (16, 15)])
def test_all_cores_but_one_tokenise_and_of_two_both(cores: int, threads: int) -> None:
    assert tokenising_threads(cores) == threads


def test_the_reader_tokenises_where_the_cores_are_the_device(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[Model] = []

    def noted(shards: Any, model: Model) -> Iterator[Any]:
        models.append(model)
        return made_ready(shards, model)

    monkeypatch.setattr(local, "made_ready", noted)
    (tmp_path / "in.csv").write_text("text\nfine\n")
    run_score(tmp_path / "in.csv", tiny_bundle, tmp_path / "run")
    assert [model.tokenisers for model in models] == [0]
    assert "device_waiting_seconds" in (tmp_path / "run" / "run.json").read_text()


# --- how long the device waited -------------------------------------------------------------------------------------------


def test_a_device_waits_only_while_it_has_no_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(
        "batchscore.model.device_time.time", SimpleNamespace(monotonic=lambda: now), raising=True
    )
    device = DeviceTime()
    now = 3.0
    with device.busy():
        now = 5.0
        with device.busy():
            now = 6.0
        now = 7.0
    assert device.waited() == 3.0
    now = 9.0
    assert device.waited() == 0.0  # it may have been the last
    with device.busy():
        now = 10.0
    assert device.waited() == 2.0


def test_the_waiting_of_a_run_is_told(bundle: Bundle) -> None:
    class Slow(Device):
        def logits(self, batch: MicroBatch) -> NDArray[np.float32]:
            time.sleep(0.01)
            return super().logits(batch)

    def reading(pause: float) -> Iterator[tuple[Shard, list[Rows]]]:
        for shard in parts_of(texts_of(4), 1):
            time.sleep(pause)
            yield shard

    waited = {}
    for pause in (0.0, 0.2):
        found: list[Predictions] = []
        model = with_workers(bundle, Slow(), 1)
        local.run(reading(pause), model, lambda *all_, to=found: to.extend(all_[2]), lambda _: UNWATCHED)
        waited[pause] = sum(each.work["waiting_seconds"] for each in found)
    assert waited[0.2] > 0.5
    assert waited[0.2] - waited[0.0] > 0.3
