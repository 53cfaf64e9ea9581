"""One queue for several scoring processes: who gets what, what becomes of the work of the dead, and how long is waited."""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from batchscore.errors import BusyError, DataError, ModelError, StorageError
from batchscore.records import Part, Position, Shard
from batchscore.runs.engines import dispatching, ray
from batchscore.runs.engines.dispatching import Dispatcher, Patience
from batchscore.runs.engines.pool import Answered, Event, Failed, Gone, Ready, Up


def shard(number: int, size: int = 0) -> Shard:
    return Shard.of(Part(number, 0, Position(100 * number), 100, "", size))


def ready(place: str = "here", deciding: str = "same", *, reply: str = "seen", at_once: int = 2) -> Ready:
    return Ready({"device": place}, deciding, reply, place, at_once)


class FakePool:
    """Processes that do what ``does`` says of a task; ``None`` is an answer, anything else an event in its place."""

    def __init__(
        self,
        workers: int = 2,
        does: Callable[[int, int, Any], Event | None] = lambda *_: None,
        loads: Callable[[int, Mapping[str, Any]], Event | None] = lambda *_: None,
        *,
        replaces: bool = True,
        at_once: int = 2,
    ) -> None:
        self._does, self._loads, self._replaces, self._at_once = does, loads, replaces, at_once
        self._last = 0
        self._waiting: collections.deque[Event] = collections.deque()
        self.given: list[tuple[int, int, Any]] = []
        self.most = 0
        self.holds: collections.Counter[int] = collections.Counter()
        self.recorded: list[Mapping[str, Any]] = []
        self.turned_away: list[int] = []
        for _ in range(workers):
            self._begin()

    def _begin(self) -> None:
        self._last += 1
        self._waiting.append(Up(self._last))

    def events(self, seconds: float) -> Sequence[Event]:
        """The oldest one."""
        if not self._waiting:
            return []
        event = self._waiting.popleft()
        if isinstance(event, Gone):
            self._waiting = collections.deque(each for each in self._waiting if each.worker != event.worker)
            self.holds.pop(event.worker, None)
            if self._replaces:
                self._begin()
        elif getattr(event, "task", None) is not None:
            self.holds[event.worker] -= 1
        return [event]

    def get_ready(self, worker: int, recorded: Mapping[str, Any]) -> None:
        """As ``loads`` says."""
        self.recorded.append(dict(recorded))
        answer = Answered(worker, None, ready(at_once=self._at_once))
        self._waiting.append(self._loads(worker, recorded) or answer)

    def submit(self, worker: int, task: int, payload: Any) -> None:
        """As ``does`` says."""
        self.given.append((worker, task, payload))
        self.holds[worker] += 1
        self.most = max(self.most, self.holds[worker])
        self._waiting.append(self._does(worker, task, payload) or Answered(worker, task, f"done {task}"))

    def turn_away(self, worker: int) -> None:
        """Noted."""
        self.turned_away.append(worker)

    def shortage(self) -> str:
        """Some words."""
        return "the cluster has 1 CPU"

    def close(self) -> None:
        """Nothing."""


class FakeWork:
    """Notes what is done; ``lacks`` are shards whose answer is not seen."""

    def __init__(self, number: int, size: int = 0, lacks: Sequence[int] = ()) -> None:
        self._number, self._size, self._lacks = number, size, set(lacks)
        self.done: list[int] = []
        self.bound: list[Ready] = []

    def shards(self) -> Iterator[Shard]:
        """All."""
        return (shard(number, self._size) for number in range(self._number))

    def bind(self, found: Ready) -> Mapping[str, Any]:
        """Noted."""
        self.bound.append(found)
        return found.compute

    def shares(self, found: Ready) -> bool:
        """As it replied."""
        return bool(found.reply)

    def payload(self, shard: Shard, *, shares: bool) -> Any:
        """Its place or its texts."""
        return "place" if shares else "texts"

    def accept(self, shard: Shard, answer: Any) -> bool:
        """Unless it is lacking, for once."""
        if shard.number in self._lacks:
            self._lacks.remove(shard.number)
            return False
        self.done.append(shard.number)
        return True

    def rows_of(self, shard: Shard) -> str:
        """Its file and rows."""
        return f"in.csv, rows {shard.parts[0].start.row}"


def dispatched(pool: FakePool, work: FakeWork, recorded: Mapping[str, Any] | None = None) -> FakeWork:
    Dispatcher(pool, work, recorded or {}, Patience(1, 60)).run()
    return work


def test_every_shard_is_done_once_and_no_process_has_more_than_it_wants() -> None:
    pool = FakePool(3)
    assert sorted(dispatched(pool, FakeWork(20)).done) == list(range(20))
    assert len(pool.given) == 20
    assert {worker for worker, _, _ in pool.given} == {1, 2, 3}
    assert pool.most == 2


def test_a_gpu_gets_as_many_as_its_threads_tokenise_but_no_more_than_two_of_many_bytes() -> None:
    for size, most in ((1, 5), (2**26, 2)):
        pool = FakePool(1, at_once=5)
        dispatched(pool, FakeWork(12, size))
        assert pool.most == most, size


def test_what_a_dead_process_had_goes_to_another_and_alone() -> None:
    pool = FakePool(2, lambda worker, task, _: Gone(worker, "killed") if worker == 1 and task == 4 else None)
    assert sorted(dispatched(pool, FakeWork(12)).done) == list(range(12))
    again = [(worker, task) for worker, task, _ in pool.given if task == 4]
    assert len(again) == 2
    assert again[1][0] != 1


def test_three_deaths_over_one_shard_name_its_file_and_rows() -> None:
    pool = FakePool(2, lambda worker, task, _: Gone(worker, "out of memory") if task == 5 else None)
    work = FakeWork(12)
    with pytest.raises(StorageError, match=r"3 .* while they had in.csv, rows 500 \(out of memory\)"):
        dispatched(pool, work)
    assert [task for _, task, _ in pool.given].count(5) == 3
    assert 5 not in work.done


def test_an_innocent_shard_beside_a_deadly_one_is_done() -> None:
    """It dies with the other's process once; after that both go alone, so only the deadly one is blamed."""
    pool = FakePool(1, lambda worker, task, _: Gone(worker, "killed") if task == 1 else None)
    work = FakeWork(3)
    with pytest.raises(StorageError, match="rows 100 "):
        dispatched(pool, work)
    assert 0 in work.done


def test_the_first_process_finds_out_and_binds_the_others() -> None:
    pool = FakePool(3)
    work = dispatched(pool, FakeWork(9))
    assert [each.place for each in work.bound] == ["here"]
    assert pool.recorded == [{}, {"device": "here"}, {"device": "here"}]


def test_a_process_of_another_kind_is_turned_away(caplog: pytest.LogCaptureFixture) -> None:
    other = ready("elsewhere", "another")
    pool = FakePool(2, loads=lambda worker, _: Answered(worker, None, other) if worker == 2 else None)
    assert len(dispatched(pool, FakeWork(9)).done) == 9
    assert pool.turned_away == [2]
    assert {worker for worker, _, _ in pool.given} == {1}
    assert "elsewhere is of another kind than here" in caplog.text


@pytest.mark.parametrize("worker", [1, 2])
def test_only_the_first_process_ends_the_run_if_it_cannot_load_the_model(worker: int) -> None:
    error = ModelError("not the same model")
    pool = FakePool(2, loads=lambda each, _: Failed(each, None, error) if each == worker else None)
    work = FakeWork(9)
    if worker == 1:
        with pytest.raises(ModelError):
            dispatched(pool, work)
    else:
        assert len(dispatched(pool, work).done) == 9
        assert pool.turned_away == [2]


def test_what_a_process_cannot_read_or_stage_goes_through_here_and_then_it_is_an_error() -> None:
    def does(worker: int, task: int, payload: Any) -> Event | None:
        return Failed(worker, task, DataError("not there")) if task == 3 and payload == "place" else None

    pool = FakePool(2, does)
    assert len(dispatched(pool, FakeWork(9, lacks=[6])).done) == 9
    assert [payload for _, task, payload in pool.given if task == 3] == ["place", "texts"]
    assert [payload for _, task, payload in pool.given if task == 6] == ["place", "texts"]
    always = FakePool(2, lambda worker, task, _: Failed(worker, task, DataError("no")) if task == 3 else None)
    with pytest.raises(DataError):
        dispatched(always, FakeWork(9))
    fault = FakePool(2, lambda worker, task, _: Failed(worker, task, RuntimeError("a fault")))
    with pytest.raises(RuntimeError, match="a fault"):
        dispatched(fault, FakeWork(9))


def test_processes_that_die_before_any_is_ready_are_an_error() -> None:
    pool = FakePool(2, loads=lambda worker, _: Gone(worker, "no module named torch"))
    with pytest.raises(StorageError, match=r"before one was ready .no module named torch"):
        dispatched(pool, FakeWork(9))


def test_processes_that_die_early_beside_one_that_works_end_nothing() -> None:
    pool = FakePool(2, loads=lambda worker, _: Gone(worker, "killed") if worker in (2, 3, 4, 5) else None)
    assert len(dispatched(pool, FakeWork(30)).done) == 30


@pytest.mark.parametrize(("pace", "given_up"), [(1.0, [1]), (30.0, [])])
def test_a_process_that_lives_and_does_not_answer_is_given_up(
    pace: float, given_up: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless all are slow. What it says later is not heard."""
    now = 0.0

    class Pool(FakePool):
        """The first process answers its tasks very late."""

        def events(self, seconds: float) -> Sequence[Event]:
            nonlocal now
            now += pace
            found = [
                each
                for each in super().events(seconds)
                if each.worker != 1 or getattr(each, "task", None) is None
            ]
            late = [Answered(1, task, "late") for worker, task, _ in self.given if worker == 1]
            return [*found, *(late if 500 < now <= 500 + pace else [])]

    monkeypatch.setattr(dispatching, "_TICK", 100.0)
    pool, work = Pool(2, lambda worker, task, _: Answered(worker, task, "")), FakeWork(6, size=1)
    Dispatcher(pool, work, {}, Patience(1, 150, lambda: now)).run()
    assert sorted(work.done) == list(range(6))
    assert pool.turned_away == given_up


def test_what_is_loading_is_told() -> None:
    pool = FakePool(2, loads=lambda *_: Gone(9, "not ours"))
    with pytest.raises(
        BusyError, match=r"0 of at least 1 .*; 1 of them loads the model; the cluster has 1 CPU"
    ):
        Dispatcher(pool, FakeWork(3), {}, Patience(1, 0.0)).run()


def test_waiting_is_said_every_half_minute_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    now = 0
    patience = Patience(2, 100, lambda: now)
    said: list[int] = []
    caplog.set_level(logging.INFO)
    for now in range(100):
        before = len(caplog.records)
        patience.check(1, lambda: "the cluster has 1 CPU")
        said += [now] * (len(caplog.records) - before)
    now = 100
    with pytest.raises(BusyError, match=r"Waited 100 s .* 1 of at least 2 .* the cluster has 1 CPU\."):
        patience.check(1, lambda: "the cluster has 1 CPU")
    assert said == [30, 60, 90]
    assert "waiting: 1 of at least 2 scoring processes are ready; the cluster has 1 CPU. It ends in 70 s" in (
        caplog.text
    )


def test_waiting_begins_anew_when_there_were_enough() -> None:
    now = 0.0
    patience = Patience(1, 100, lambda: now)
    for now, ready_ones in ((90.0, 0), (95.0, 1), (190.0, 0)):  # noqa: B007
        patience.check(ready_ones, str)
    now = 195.0
    with pytest.raises(BusyError):
        patience.check(0, str)


def test_a_run_without_processes_ends_with_words() -> None:
    pool = FakePool(
        1, lambda worker, task, _: Gone(worker, "node lost") if task == 2 else None, replaces=False
    )
    work = FakeWork(9)
    with pytest.raises(BusyError, match="0 of at least 1"):
        Dispatcher(pool, work, {}, Patience(1, 0.3)).run()
    assert work.done[:2] == [0, 1]


def test_what_was_asked_of_a_cluster_and_is_not_up_is_told() -> None:
    actors = ray._Actors.__new__(ray._Actors)
    actors._has_gpu, actors._there, actors._free, actors._told = False, 2, 0.0, ""
    actors._asked = {"a": (1, None, True), "b": (2, None, True), "c": (3, 7, False)}
    assert actors.news() == (
        "Ray's cluster has 2 CPUs, 0 of them free; 2 scoring processes were asked of it, and not up yet"
    )
    assert actors.news() is None
    actors._asked = {}
    assert actors.news() == "Ray's cluster has 2 CPUs, 0 of them free"
