"""The forward pass of a training on a CPU in bfloat16, over the parameters of a transformers classifier.

transformers' own spends a third of a step in matmuls. Here weights are cast to bfloat16 once a step and not by each operation,
states stay in bfloat16 from layer to layer, queries, keys and values are one matmul, and of the last layer only what ``[CLS]``
needs is computed (:meth:`~batchscore.model.backends.encoders.Encoder.last_layer_cls`), which makes an appended mean layer
nearly free. Embeddings' norm, last layer and head are in float32. The random numbers of dropout are bytes.

It is the encoder that scores, :class:`~batchscore.model.backends.encoders.Encoder`, with dropout and gradients. Two gradients
differ from transformers' by more than rounding: the last layer's key bias, which softmax cancels, has none instead of about
zero, and a padding token written out in a text trains its embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from batchscore.model.backends.architectures import BertLike, Dropouts, architecture_of
from batchscore.model.backends.encoders import Encoder, Plan, layer_paths, plan_of, score_bias
from batchscore.training.attention import attention_by_heads

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class TrainableEncoder:
    """A transformers classifier's forward pass; the parameters are read anew in each."""

    def __init__(self, model: Any, plan: Plan, rates: _Rates, dtype: torch.dtype) -> None:
        self._model, self._plan, self._rates, self._dtype = model, plan, rates, dtype
        names: Any = plan.names
        *first, _last = layer_paths(plan.options, names)
        self._first = tuple(f"{path}." for path in first)

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        *,
        seed: int | None,
    ) -> Tensor:
        """Token ids, mask and token types ``[b, L]`` int64 in, logits ``[b, C]`` float32 out; dropout if there is a seed."""
        parameters = dict(self._model.named_parameters(remove_duplicate=False))
        weights = {
            name: parameters[name].to(self._dtype if name.startswith(self._first) else torch.float32)
            for name in self._plan.shapes
        }
        encoder = _Step(weights, self._plan, self._rates, self._dtype, seed)
        mask = None if attention_mask.all() else attention_mask
        logits: Tensor = encoder(input_ids, mask, token_type_ids)
        return logits


_HIGHEST = 0.99
"""Of a probability of dropout: of bytes few would be kept, or none."""


def trainable_encoder_of(model: Any, dtype: torch.dtype) -> TrainableEncoder | None:
    """The forward pass of a classifier in ``dtype``; None if it is not certain to compute what transformers does."""
    architecture = architecture_of(model.config.model_type)
    names = architecture.classifier
    if architecture.layers is None or not isinstance(names, BertLike) or names.dropouts is None:
        return None
    plan = plan_of({**model.config.to_dict(), "architectures": [type(model).__name__]})
    found = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    if plan is None or not plan.fits(found):
        return None
    rates = _rates_of(model, architecture.layers.path, names.dropouts)
    return None if rates is None else TrainableEncoder(model, plan, rates, dtype)


class _Rates(NamedTuple):
    """Probabilities of dropout, by the names of :class:`~batchscore.model.backends.architectures.Dropouts`."""

    embeddings: float
    out: float
    down: float
    head_input: float
    head: float


def _rates_of(model: Any, layers: str, paths: Dropouts) -> _Rates | None:
    """The probabilities as the model's modules have them; None if layers differ or there is dropout elsewhere."""
    rates = {name: module.p for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}
    base = model.base_model_prefix
    n_layers = len(model.base_model.get_submodule(layers))
    places: dict[str, list[str | None]] = {
        "embeddings": [f"{base}.{paths.embeddings}"],
        "out": [paths.out and f"{base}.{layers}.{number}.{paths.out}" for number in range(n_layers)],
        "down": [f"{base}.{layers}.{number}.{paths.down}" for number in range(n_layers)],
        "head_input": [paths.head_input],
        "head": [paths.head],
    }
    found = {part: {rates.get(path, 0.0) if path else 0.0 for path in some} for part, some in places.items()}
    known = {path for some in places.values() for path in some}
    if any(len(each) != 1 for each in found.values()) or any(rates[path] for path in rates.keys() - known):
        return None
    rates_by_part = {part: each.pop() for part, each in found.items()}
    return None if max(rates_by_part.values()) > _HIGHEST else _Rates(**rates_by_part)


class _Dropout:
    """Dropout by random bytes: its probability is rounded to 1/256, and states that are kept are scaled by what remains.

    For 1.6 million states in bfloat16 torch takes 14 ms, and this 1.3 (one core).
    """

    def __init__(self, seed: int | None) -> None:
        self._generator = None if seed is None else np.random.SFC64(seed)

    def __call__(self, states: Tensor, rate: float) -> Tensor:
        dropped = round(rate * 256)
        if self._generator is None or not dropped:
            return states
        words = self._generator.random_raw((states.numel() + 7) // 8)
        is_kept = words.view(np.uint8)[: states.numel()] >= dropped
        scale = torch.tensor(256 / (256 - dropped), dtype=states.dtype)
        return states * _times(is_kept, scale).view(states.shape)


def _times(is_kept: NDArray[np.bool_], scale: Tensor) -> Tensor:
    """The scale where it is kept, else 0; numpy has no bfloat16, but its bits can be multiplied by 0 and 1."""
    bits = scale.view(_BITS[scale.dtype])
    return torch.from_numpy(np.multiply(is_kept.view(np.uint8), bits.numpy(), dtype=bits.numpy().dtype)).view(
        scale.dtype
    )


_BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}


class _Step(Encoder):
    """The encoder of one step."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        plan: Plan,
        rates: _Rates,
        dtype: torch.dtype,
        seed: int | None,
    ) -> None:
        names: Any = plan.names
        super().__init__(weights, plan.options, names)
        self._rates, self._dropout, self._dtype = rates, _Dropout(seed), dtype

    def dropped(self, states: Tensor, place: str) -> Tensor:
        """The states after dropout."""
        return self._dropout(states, getattr(self._rates, place))

    def cls_states(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """The state of ``[CLS]`` after the last layer, ``[b, H]`` float32."""
        states = self.embedded(input_ids, token_type_ids).to(self._dtype)
        allowed = score_bias(attention_mask, None)

        def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
            return attended.transpose(1, 2)

        layer: Any
        for layer in self.first_layers:
            heads = layer["query_key_value"](states).unflatten(-1, (3, self.heads, -1))
            if self._dtype == torch.bfloat16:
                attended = attention_by_heads(heads, attention_mask, fused)
            else:
                attended = fused(*heads.permute(2, 0, 3, 1, 4))
            states = self._after_attention(layer, states, attended.flatten(2))
        return self.last_layer_cls(states.float(), attention_mask)
