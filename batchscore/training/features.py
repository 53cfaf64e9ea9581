"""Features of a frozen base, computed once: the ``[CLS]`` state of each text, the only input of the head.

Sequence classifiers of the BERT family feed their head the ``[CLS]`` state (with the mean layer, the mean), some through a
pooler. So a head can be trained on cached states ``[rows, H]`` without the base: :func:`head_only` replaces the base by a
stub. Whether a model allows that is tested, not looked up: :func:`uses_cls_only` compares both.

The base runs in evaluation mode (no dropout) in float32; beyond a few thousand texts in the device's fastest precision.
States are saved in the work folder, part by part, so that a stopped training resumes where it was.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.model import batching
from batchscore.model.backends.torch_backend import one_thread
from batchscore.model.loading import DEFAULT_BATCH_TOKENS
from batchscore.system.cores import usable_cores
from batchscore.system.storage import atomic_write, make_folder

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from batchscore.training.context import TrainingContext

    Forward = Callable[..., torch.Tensor]

_PART_ROWS = 2048
_EXACT_ROWS = 4000
"""Up to this many texts use float32, whatever is faster."""
_TOLERANCE = 1e-3
"""The largest relative difference in a logit from another order of additions."""
_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def cls_states_of(
    model: Any,
    sequences: Sequence[NDArray[np.int32]],
    name: str,
    context: TrainingContext,
    precision: str,
    token_type_ids: Sequence[NDArray[np.int8]] | None = None,
) -> NDArray[np.float32]:
    """``[CLS]`` states ``[n, H]`` float32 of the sequences, in order; those saved under ``name`` are read back."""
    has_types = token_type_ids is not None and "token_type_ids" in inspect.signature(model.forward).parameters
    types = token_type_ids if has_types else None
    forward = _forward(model, context.device, precision)
    folder = context.folder / "states" / f"{name}-{precision}"
    make_folder(folder)
    parts = []
    for start in range(0, len(sequences), _PART_ROWS):
        part = sequences[start : start + _PART_ROWS]
        path = folder / f"{start:09d}.npy"
        if not path.exists():
            some = types and types[start : start + _PART_ROWS]
            _keep(path, _computed(part, forward, model, context, some))
        else:
            context.progress.add(len(part), counted=False)
        parts.append(np.load(path, allow_pickle=False))
    return np.concatenate(parts)


def precision_for(rows: int, precision: str) -> str:
    """The precision of the base for this many texts, if the device is fastest in ``precision``."""
    return "fp32" if rows <= _EXACT_ROWS else precision


def _keep(path: Path, states: NDArray[np.float32]) -> None:
    with atomic_write(path) as file:
        np.save(file, states, allow_pickle=False)


def _computed(
    sequences: Sequence[NDArray[np.int32]],
    forward: Forward,
    model: Any,
    context: TrainingContext,
    token_type_ids: Sequence[NDArray[np.int8]] | None,
) -> NDArray[np.float32]:
    import torch

    budget = DEFAULT_BATCH_TOKENS[context.device.partition(":")[0]]
    mode = context.padding_mode if context.padding_mode in ("none", "single") else "right"
    padding = batching.Padding(max(len(ids) for ids in sequences), model.config.pad_token_id or 0, mode)

    def encoded(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        batch = batching.assemble(sequences, rows, padding, token_type_ids)
        inputs = (batch.input_ids, batch.attention_mask, batch.token_type_ids)
        with torch.inference_mode():
            tensors = [torch.from_numpy(each).to(context.device) for each in inputs if each is not None]
            found: NDArray[np.float32] = forward(*tensors).float().cpu().numpy()
        return found

    states = np.zeros((len(sequences), model.config.hidden_size), dtype=np.float32)
    batches = batching.plan_sequences(sequences, budget, padding)
    with (
        one_thread() as begin,
        ThreadPoolExecutor(usable_cores() if context.device == "cpu" else 1, "encode", begin) as workers,
    ):
        for rows, found in zip(batches, workers.map(encoded, batches), strict=True):
            states[rows] = found
            context.progress.add(len(rows))
    return states


def _forward(model: Any, device: str, precision: str) -> Forward:
    """Token ids, mask and token types in, ``[CLS]`` state out: by our own encoder if it can, else by transformers."""
    import torch

    from batchscore.model.backends.encoders import encoder_of
    from batchscore.model.backends.packed import pack

    dtype = getattr(torch, _DTYPES[precision])
    config = {**model.config.to_dict(), "architectures": [type(model).__name__]}
    model.to(device).eval()
    if encoder := encoder_of(model.state_dict(), config, torch.float32 if device == "cpu" else dtype):
        return (pack(encoder, dtype) if device == "cpu" else encoder).cls_states
    base = model.base_model

    def forward(ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor | None = None) -> torch.Tensor:
        others = {} if types is None else {"token_type_ids": types}
        with torch.autocast(device.partition(":")[0], dtype, enabled=precision != "fp32"):
            cls: torch.Tensor = base(input_ids=ids, attention_mask=mask, **others).last_hidden_state[:, 0]
        return cls

    return forward


@contextlib.contextmanager
def head_only(model: Any) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """Yield a function from states ``[b, H]`` to logits ``[b, C]`` by the model's head; the base is replaced meanwhile."""
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    base = model.base_model

    class Stub(torch.nn.Module):
        """A base that returns the given states."""

        def __init__(self) -> None:
            super().__init__()
            self.pooler = getattr(base, "pooler", None)

        def forward(self, *_: Any, inputs_embeds: torch.Tensor, **__: Any) -> Any:
            pooled = self.pooler(inputs_embeds) if self.pooler is not None else None
            return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)

    def logits(states: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = model(inputs_embeds=states[:, None]).logits
        return output

    setattr(model, model.base_model_prefix, Stub())
    try:
        yield logits
    finally:
        setattr(model, model.base_model_prefix, base)


def uses_cls_only(model: Any, sequences: Sequence[NDArray[np.int32]]) -> bool:
    """Whether everything that is trained depends on the ``[CLS]`` state only, so that it can be trained on cached states."""
    import torch

    from batchscore.model.backends.plain import module_state

    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    prefix = f"{model.base_model_prefix}."
    if any(name.startswith(prefix) and not name.startswith(f"{prefix}pooler.") for name in trained):
        return False
    shortest = min(sequences, key=len)
    ids = torch.from_numpy(np.array(shortest, dtype=np.int64))[None]
    model.eval()
    before = module_state(model)
    try:
        with torch.inference_mode():
            full = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            cls = _forward(model, "cpu", "fp32")(ids, torch.ones_like(ids))
            with head_only(model) as logits:
                from_states = logits(cls)
    except (TypeError, AttributeError, RuntimeError, ValueError, IndexError):
        return False  # a head with another input
    if module_state(model) != before:
        return False  # workers cannot share the model
    return full.shape == from_states.shape and bool(
        (full - from_states).abs().max() <= _TOLERANCE * (1 + full.abs().max())
    )
