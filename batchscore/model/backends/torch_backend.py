"""The model run by PyTorch, on a CPU or a CUDA GPU."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore.errors import ModelError, UsageError, printable
from batchscore.model.backends.architectures import ARCHITECTURES, BertLike, architecture_of
from batchscore.model.backends.backend import PLAIN, OutOfDeviceMemoryError
from batchscore.model.bundle_facts import json_file

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from batchscore.model.bundle import Bundle
    from batchscore.records import MicroBatch

    Forward = Callable[..., torch.Tensor]
    """Token ids, mask (None: no padding) and, where there are any, token types ``[b, L]`` in; logits ``[b, C]`` out."""

_LOG = logging.getLogger(__name__)
_CLEARLY_FASTER = 2.5
"""Speed-up over float32 at which measuring can stop."""
_TOO_SLOW = 8.0
"""Slowdown against float32 on a few rows at which a precision is skipped: a CPU without instructions for it takes seconds."""
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def resolve_device(wanted: str) -> str:
    """``auto`` is the GPU if there is one, else the CPU.

    Raises:
        UsageError: a GPU is asked for and there is none.
    """
    import torch

    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(
            f"--device {wanted}: this machine or this build of torch has no CUDA GPU. Use --device cpu."
        )
    return wanted


@functools.cache
def faster_precisions(device: str) -> tuple[str, ...]:
    """Precisions in which a matmul is at least 1.3 times as fast as in float32, fastest first.

    Measured on ``device`` in a fraction of a second, once a process: a CPU's feature flags do not tell its speed.
    """
    import torch

    kinds = ["bf16"] if device == "cpu" else ["bf16", "fp16"]
    if device != "cpu" and not torch.cuda.is_bf16_supported(including_emulation=False):
        kinds = ["fp16"]
    seconds = _matmul_seconds(device, ["fp32", *kinds])
    fast = [kind for kind in kinds if seconds[kind] * 1.3 < seconds["fp32"]]
    return tuple(sorted(fast, key=lambda kind: seconds[kind]))


@contextlib.contextmanager
def one_thread() -> Iterator[Callable[[], None]]:
    """Inside the block torch uses one thread per operation, here and in threads that call the yielded function."""
    import torch

    before = torch.get_num_threads()

    def begin() -> None:
        torch.set_num_threads(1)

    begin()
    try:
        yield begin
    finally:
        torch.set_num_threads(before)


def _matmul_seconds(device: str, precisions: Sequence[str]) -> dict[str, float]:
    """The fastest of a few matmuls of an encoder's size in each precision, in seconds.

    Precisions take turns, so that other load on the machine slows all of them.
    """
    import torch

    def factors(precision: str, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        dtype = getattr(torch, _DTYPES[precision])
        return torch.ones(rows, 768, dtype=dtype, device=device), torch.ones(
            768, 768, dtype=dtype, device=device
        )

    with one_thread():  # as in the workers
        few_rows = {
            precision: min(_seconds(*factors(precision, 32)) for _ in range(3)) for precision in precisions
        }
        candidates = {p: factors(p, 1024) for p in precisions if few_rows[p] <= _TOO_SLOW * few_rows["fp32"]}
        fastest = dict.fromkeys(precisions, math.inf)
        for turn in range(8):
            for precision, each in candidates.items():
                fastest[precision] = min(fastest[precision], _seconds(*each))
            ahead = fastest["fp32"] / min(fastest.values())
            if turn >= 2 and not 1 < ahead < _CLEARLY_FASTER:
                break  # after a warm-up and two turns: float32 is the fastest, or far behind
    return fastest


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    """The time of one matmul."""
    started = time.perf_counter()
    (left @ right)[0, 0].item()  # waits for the device
    return time.perf_counter() - started


class _Copied(NamedTuple):
    """The input of one forward pass on a GPU, or on its way there, and the event after which it is there."""

    inputs: list[torch.Tensor | None]
    there: Any


class TorchBackend:
    """A sequence classifier in evaluation mode, its weights in the chosen precision.

    A bundle uses our encoder (:mod:`batchscore.model.backends.encoders`, on a CPU :mod:`batchscore.model.backends.packed`) if we
    have one for its architecture and canaries (of a plain folder: references) can catch a wrong answer. All else uses
    transformers, as do the kinds
    ``transformers`` and ``fresh`` (a fresh copy of the model for each micro-batch). ``compiled`` is our encoder, compiled.
    """

    def __init__(self, bundle: Bundle, device: str, precision: str, kind: str = "torch") -> None:
        import torch

        if precision not in _DTYPES:
            raise UsageError(
                f"--precision {precision} is not for the torch backend; it has: {', '.join(_DTYPES)}."
            )
        self.device = resolve_device(device)
        self.precision = precision
        self._torch = torch
        self._launching = threading.Lock()
        self._copying = None if self.device == "cpu" else torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        dtype = getattr(torch, _DTYPES[precision])
        is_plain = kind in PLAIN
        encoder = None if is_plain else _encoder(bundle, dtype, self.device, kind)
        self.name = kind if is_plain or encoder is not None else "transformers"
        self.rows_are_alone = self.device == "cpu" and _is_packed(encoder)
        self._skips_full_mask = self.name == "torch"
        """Without padding there is nothing to mask, and attention is faster; a compiled encoder always takes a mask."""
        if kind == "compiled":
            encoder = _compiled(encoder, bundle, self.device)
        self.forward: Forward = encoder or _plain(bundle, dtype, self.device, fresh=kind == "fresh")
        self._is_ours = encoder is not None

    def logits(self, batch: MicroBatch) -> NDArray[np.float32]:
        """Logits ``[b, C]`` float32.

        On a GPU copies are pinned and asynchronous and kernels are launched asynchronously. A micro-batch is copied while another
        is computed, in a stream of its own. A thread waits for its own results only, so that another thread can queue its
        micro-batch meanwhile. One thread launches at a time: two would hold the memory of two micro-batches.
        """
        arrays = self._inputs(batch)
        try:
            with self._torch.inference_mode():
                if self._copying is None:
                    return self._output(
                        [None if each is None else self._torch.from_numpy(each) for each in arrays]
                    ).numpy()
                copied = self._copy(arrays)
                with self._launching:
                    logits, done = self._launch(copied)
                done.synchronize()
                return logits.numpy()
        except self._torch.OutOfMemoryError as error:
            raise OutOfDeviceMemoryError(str(error)) from error

    def _inputs(self, batch: MicroBatch) -> list[NDArray[np.int64] | None]:
        """What the model takes of a micro-batch: token ids, the mask or None, and perhaps token types."""
        is_full = self._skips_full_mask and bool(
            batch.attention_mask.all()
        )  # checked on the host: on a GPU it would synchronise
        types = batch.token_type_ids
        has_types = types is not None and (
            not self._is_ours or bool(types.any())
        )  # to ours no types mean that all are 0
        return [batch.input_ids, None if is_full else batch.attention_mask, *([types] if has_types else [])]

    def _output(self, inputs: Sequence[torch.Tensor | None]) -> torch.Tensor:
        return self.forward(*inputs).float()

    def _copy(self, arrays: Sequence[NDArray[np.int64] | None]) -> _Copied:
        """Begin to copy a micro-batch to the GPU, beside whatever it computes."""
        with self._torch.cuda.stream(self._copying):
            inputs = [
                None
                if each is None
                else self._torch.from_numpy(each).pin_memory().to(self.device, non_blocking=True)
                for each in arrays
            ]
        there = self._torch.cuda.Event()  # type: ignore[no-untyped-call]
        there.record(self._copying)
        return _Copied(inputs, there)

    def _launch(self, copied: _Copied) -> tuple[torch.Tensor, Any]:
        """Logits in host memory, and the event after which they are complete."""
        stream = self._torch.cuda.current_stream(
            self.device
        )  # of this GPU, which need not be the current one
        stream.wait_event(copied.there)
        for each in copied.inputs:
            if each is not None:
                each.record_stream(stream)  # its memory is in use until then
        output = self._output(copied.inputs)
        logits = self._torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
        logits.copy_(output, non_blocking=True)
        done = self._torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(stream)
        return logits, done

    def one_core_each(self) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """See :class:`~batchscore.model.backends.Backend`."""
        return one_thread()

    def release(self) -> None:
        """Empty the allocator's cache."""
        if self.device != "cpu":
            self._torch.cuda.empty_cache()


def _is_packed(encoder: Any) -> bool:
    from batchscore.model.backends.packed import PackedEncoder

    return isinstance(encoder, PackedEncoder)  # which has the last layer and the head in blocks of rows


def _plain(bundle: Bundle, dtype: torch.dtype, device: str, *, fresh: bool) -> Forward:
    from batchscore.model.backends.plain import PlainForward, load_plain

    return PlainForward(load_plain(bundle, dtype).to(device).eval(), fresh=fresh)


def _compiled(encoder: Any, bundle: Bundle, device: str) -> Forward:
    if encoder is None or encoder.cpu_only:
        found = [each.classifier for each in ARCHITECTURES.values()]
        known = ", ".join(each.title for each in found if isinstance(each, BertLike))
        raise ModelError(
            f"{printable(bundle.path)} cannot be compiled: only {known} classifiers can. Use --compile off."
        )
    from batchscore.model.backends.compiled import CompiledEncoder

    with one_thread():  # the number of threads is compiled in
        return CompiledEncoder(encoder, device)


def has_own_encoder(bundle: Bundle) -> bool:
    """Whether we have an encoder for the architecture; its options may still be others than it knows."""
    config = json_file(bundle.path, "config.json")
    return architecture_of(config.get("model_type")).classifier is not None


def _encoder(bundle: Bundle, dtype: torch.dtype, device: str, kind: str) -> Any:
    if bundle.canaries is None:
        return None
    import torch

    from batchscore.model.backends.encoders import load_encoder

    if device != "cpu" or kind == "compiled":
        return load_encoder(bundle.path, dtype, device)
    from batchscore.model.backends.packed import pack

    encoder = load_encoder(bundle.path, torch.float32, device)
    return None if encoder is None else pack(encoder, dtype)
