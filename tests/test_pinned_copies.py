"""On a GPU a micro-batch is copied beside the one before, and no kernel begins before its input is there: on a device made up here."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from batchscore.model.backends import OutOfDeviceMemoryError
from batchscore.model.backends.torch_backend import TorchBackend
from batchscore.records import MicroBatch


class Gpu:
    """What a backend uses of torch: it notes what each stream is told, in order, and the second GPU is not the current one."""

    class OutOfMemoryError(Exception):
        """As torch's."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.cuda = SimpleNamespace(
            stream=self._stream, Event=lambda: Event(self), current_stream=self._current_stream
        )
        self.streams = threading.local()
        self.room = True

    def tell(self, what: str, stream: str) -> None:
        self.told.append((stream, what))

    @contextlib.contextmanager
    def _stream(self, stream: Stream) -> Iterator[None]:
        self.streams.now = stream.name
        yield
        self.streams.now = "default"

    def _current_stream(self, device: str | None = None) -> Stream:
        return Stream(self, f"computing on {device or 'cuda:0'}")

    @contextlib.contextmanager
    def inference_mode(self) -> Iterator[None]:
        yield

    def from_numpy(self, array: NDArray[Any]) -> Tensor:
        return Tensor(self, array)

    def empty(self, shape: tuple[int, ...], *, dtype: Any, pin_memory: bool) -> Tensor:
        assert pin_memory
        return Tensor(self, np.zeros(shape, dtype), is_pinned=True)


class Stream:
    def __init__(self, gpu: Gpu, name: str) -> None:
        self.gpu, self.name = gpu, name

    def wait_event(self, event: Event) -> None:
        self.gpu.tell(f"waits for {event.recorded}", self.name)


class Event:
    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.recorded = gpu, ""

    def record(self, stream: Stream) -> None:
        self.recorded = stream.name
        self.gpu.tell("event", stream.name)

    def synchronize(self) -> None:
        self.gpu.tell(f"synchronised with {self.recorded}", "host")


class Tensor:
    def __init__(
        self, gpu: Gpu, values: NDArray[Any], *, is_pinned: bool = False, device: str = "cpu"
    ) -> None:
        self.gpu, self.values, self.is_pinned, self.device = gpu, values, is_pinned, device
        self.streams: list[str] = []

    shape = property(lambda self: self.values.shape)
    dtype = property(lambda self: self.values.dtype)

    def pin_memory(self) -> Tensor:
        return Tensor(self.gpu, self.values, is_pinned=True)

    def to(self, device: str, *, non_blocking: bool) -> Tensor:
        assert self.is_pinned
        assert non_blocking
        if not self.gpu.room:
            raise Gpu.OutOfMemoryError("none left")
        self.gpu.tell("copy", self.gpu.streams.now)
        return Tensor(self.gpu, self.values, device=device)

    def record_stream(self, stream: Stream) -> None:
        self.streams.append(stream.name)

    def float(self) -> Tensor:
        return self

    def copy_(self, other: Tensor, *, non_blocking: bool) -> None:
        assert self.is_pinned
        assert non_blocking
        self.values[...] = other.values

    def numpy(self) -> NDArray[Any]:
        assert self.device == "cpu"
        return self.values


def backend_on(gpu: Gpu, forward: Any) -> TorchBackend:
    backend = object.__new__(TorchBackend)
    found: Any = backend
    found.device, found._torch, found.forward = "cuda:1", gpu, forward
    found._launching, found._copying = threading.Lock(), Stream(gpu, "copying")
    found._skips_full_mask = found._is_ours = True
    return backend


def batch(n: int, *, is_full: bool = True, types: bool = False) -> MicroBatch:
    ids = np.arange(n * 4, dtype=np.int64).reshape(n, 4)
    mask = np.ones_like(ids)
    mask[0, -1] = is_full
    return MicroBatch(np.arange(n), ids, mask, np.ones_like(ids) if types else None)


def first_ids(gpu: Gpu) -> Any:
    """A model whose logits are the first token ids."""

    def forward(ids: Tensor, mask: Tensor | None, types: Tensor | None = None) -> Tensor:
        for each in (ids, mask, types):
            if each is not None:
                assert each.device == "cuda:1"
                assert each.streams == ["computing on cuda:1"]  # else its memory may be another's too soon
        gpu.tell(
            f"forward {len(ids.values)}{' mask' * bool(mask)}{' types' * bool(types)}", "computing on cuda:1"
        )
        return Tensor(gpu, ids.values[:, :2].astype(np.float32), device="cuda:1")

    return forward


@pytest.mark.parametrize(
    ("given", "copies", "forward"),
    [
        ({}, 1, "forward 3"),
        ({"is_full": False}, 2, "forward 3 mask"),
        ({"types": True}, 2, "forward 3 types"),
    ],
)
def test_kernels_wait_for_the_copy_and_the_host_for_the_kernels(
    given: dict[str, bool], copies: int, forward: str
) -> None:
    gpu = Gpu()
    found = backend_on(gpu, first_ids(gpu)).logits(batch(3, **given))
    assert found.tolist() == [[0, 1], [4, 5], [8, 9]]
    assert gpu.told == [
        *[("copying", "copy")] * copies,
        ("copying", "event"),
        ("computing on cuda:1", "waits for copying"),
        ("computing on cuda:1", forward),
        ("computing on cuda:1", "event"),
        ("host", "synchronised with computing on cuda:1"),
    ]


def test_the_next_micro_batch_is_copied_while_one_is_launched() -> None:
    gpu = Gpu()
    ids, launched, release = first_ids(gpu), threading.Event(), threading.Event()

    def slow(*inputs: Any) -> Tensor:
        launched.set()
        assert release.wait(20)
        found: Tensor = ids(*inputs)
        return found

    backend = backend_on(gpu, slow)
    answers: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda n=n: answers.update({n: backend.logits(batch(n))})) for n in (2, 5)
    ]
    threads[0].start()
    assert launched.wait(20)
    threads[1].start()
    while gpu.told.count(("copying", "event")) < 2:  # or this test hangs: the second waits to be launched
        threads[1].join(0.01)
        assert threads[1].is_alive()
    assert not any("forward" in what for _, what in gpu.told)
    release.set()
    for thread in threads:
        thread.join(20)
    assert {n: len(found) for n, found in answers.items()} == {2: 2, 5: 5}


def test_a_copy_that_has_no_room_is_told_as_any_other_lack_of_it() -> None:
    gpu = Gpu()
    gpu.room = False
    with pytest.raises(OutOfDeviceMemoryError, match="none left"):
        backend_on(gpu, first_ids(gpu)).logits(batch(3))
