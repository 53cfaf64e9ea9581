"""What a frozen base says of each text, computed once: the first token's state, all that a head looks at.

Sequence classifiers of the BERT family hand their head the first token (with the mean layer, the mean), some through a
pooler. So a head can be trained on stored states ``[rows, H]`` as if the base were there: :func:`fed_by_states` puts a
stand-in into its place. Whether that holds for a model is tried, not looked up: :func:`takes_states` compares both ways.

The base is in evaluation mode (no dropout) and in float32; beyond a few thousand texts in the fastest precision of the
device. States are kept in the work folder, part by part, so that a stopped training goes on where it was.
"""

from __future__ import annotations

import contextlib
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

    Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_PART_ROWS = 2048
_EXACT_ROWS = 4000
"""Up to so many texts in float32, whatever is faster."""
_TOLERANCE = 1e-3
"""Of a logit, between two orders of the same additions."""
_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def states_of(
    model: Any, sequences: Sequence[NDArray[np.int32]], name: str, context: TrainingContext, precision: str
) -> NDArray[np.float32]:
    """First-token states ``[n, H]`` float32 of token ids, in their order; those kept under ``name`` are read back."""
    forward = _forward(model, context.device, precision)
    folder = context.folder / "states" / f"{name}-{precision}"
    make_folder(folder)
    parts = []
    for start in range(0, len(sequences), _PART_ROWS):
        part = sequences[start : start + _PART_ROWS]
        path = folder / f"{start:09d}.npy"
        if not path.exists():
            _keep(path, _computed(part, forward, model, context))
        else:
            context.progress.add(len(part), counted=False)
        parts.append(np.load(path, allow_pickle=False))
    return np.concatenate(parts)


def precision_for(rows: int, precision: str) -> str:
    """In what the base is computed for so many texts, where the device is fastest in ``precision``."""
    return "fp32" if rows <= _EXACT_ROWS else precision


def _keep(path: Path, states: NDArray[np.float32]) -> None:
    with atomic_write(path) as file:
        np.save(file, states, allow_pickle=False)


def _computed(
    sequences: Sequence[NDArray[np.int32]], forward: Forward, model: Any, context: TrainingContext
) -> NDArray[np.float32]:
    import torch

    budget = DEFAULT_BATCH_TOKENS[context.device.partition(":")[0]]
    padding = batching.Padding(max(len(ids) for ids in sequences), model.config.pad_token_id or 0)

    def encoded(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        batch = batching.assemble(sequences, rows, padding)
        with torch.inference_mode():
            ids = torch.from_numpy(batch.input_ids).to(context.device)
            mask = torch.from_numpy(batch.attention_mask).to(context.device)
            found: NDArray[np.float32] = forward(ids, mask).float().cpu().numpy()
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
    """Ids and mask in, the first token's state out: by our own encoder where it knows the model, else by transformers."""
    import torch

    from batchscore.model.backends.encoders import encoder_of
    from batchscore.model.backends.packed import pack

    dtype = getattr(torch, _DTYPES[precision])
    config = {**model.config.to_dict(), "architectures": [type(model).__name__]}
    model.to(device).eval()
    if encoder := encoder_of(model.state_dict(), config, torch.float32 if device == "cpu" else dtype):
        return (pack(encoder, dtype) if device == "cpu" else encoder).cls_states
    base = model.base_model

    def forward(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.partition(":")[0], dtype, enabled=precision != "fp32"):
            first: torch.Tensor = base(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        return first

    return forward


@contextlib.contextmanager
def fed_by_states(model: Any) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """Yield states ``[b, H]`` → logits ``[b, C]`` through the model's own head; the base is out of the way meanwhile."""
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    base = model.base_model

    class StandIn(torch.nn.Module):
        """What the head sees of a base whose states are known already."""

        def __init__(self) -> None:
            super().__init__()
            self.pooler = getattr(base, "pooler", None)

        def forward(self, *_: Any, inputs_embeds: torch.Tensor, **__: Any) -> Any:
            pooled = self.pooler(inputs_embeds) if self.pooler is not None else None
            return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)

    def logits(states: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = model(inputs_embeds=states[:, None]).logits
        return output

    setattr(model, model.base_model_prefix, StandIn())
    try:
        yield logits
    finally:
        setattr(model, model.base_model_prefix, base)


def takes_states(model: Any, sequences: Sequence[NDArray[np.int32]]) -> bool:
    """Whether everything that is trained sees the first token's state alone, so that the head can be fed by it."""
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
            whole = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            first = _forward(model, "cpu", "fp32")(ids, torch.ones_like(ids))
            with fed_by_states(model) as logits:
                fed = logits(first)
    except (TypeError, AttributeError, RuntimeError, ValueError, IndexError):
        return False  # an architecture whose head is fed by something else
    if module_state(model) != before:
        return False  # one that workers cannot share
    return whole.shape == fed.shape and bool(
        (whole - fed).abs().max() <= _TOLERANCE * (1 + whole.abs().max())
    )
