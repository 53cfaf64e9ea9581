"""A folder's classifier as transformers computes it: in micro-batches, or one text at a time to a model that is new.

The second is what answers are held against (:mod:`batchscore.model.probing`). *New* matters: BigBird turns to full attention
for good after its first short input, and some rotary positions change with the longest input so far. A model is made new
by :func:`fresh_copy`, which shares the weights: 20 ms for the size of BERT-base.
"""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from batchscore.errors import ModelError, printable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from batchscore.model.bundle import Bundle

_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_STRETCHED = ("dynamic", "longrope")
"""Rotary positions whose scale depends on the longest row of a micro-batch."""


def load_plain(bundle: Bundle, dtype: torch.dtype) -> Any:
    """The folder's classifier, of transformers.

    Raises:
        ModelError: it cannot be loaded, or some of its weights are not there.
    """
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            bundle.path, dtype=dtype, use_safetensors=True, output_loading_info=True, **_LOCAL
        )
    except Exception as error:  # what a damaged folder raises has no common base
        raise ModelError(
            f"{printable(bundle.path)}: the model cannot be loaded ({printable(error)}). It needs an architecture of "
            "transformers with a sequence-classification head."
        ) from error
    missing = [*info["missing_keys"], *info.get("mismatched_keys", [])]
    if missing:
        raise ModelError(
            f"{printable(bundle.path)}: {len(missing)} weights of the classifier are not in the folder "
            f"({printable(sorted(map(str, missing))[0])}), so it was not trained as one. Train it with: batchscore-train"
        )
    return model


def fresh_copy(model: Any) -> Any:
    """The model as it was loaded, whatever becomes of the copy: all is its own but the weights, which are shared."""
    return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})


class PlainForward:
    """Token ids, mask and token types ``[b, L]`` in, logits ``[b, C]`` out, each as far as the model takes it.

    ``fresh``: every micro-batch meets a new model.
    """

    def __init__(self, model: Any, *, fresh: bool) -> None:
        self.model = model
        self._is_fresh = fresh
        self._names = set(inspect.signature(model.forward).parameters)

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits in the dtype of the weights."""
        model = fresh_copy(self.model) if self._is_fresh else self.model
        found = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        others = {key: value for key, value in found.items() if key in self._names and value is not None}
        return _logits(model(input_ids=input_ids, **others))


def _logits(output: Any) -> Tensor:
    """Of what a model gave; a tuple where its configuration says so."""
    logits: Tensor = output[0] if isinstance(output, tuple) else output.logits
    return logits


class Answer(NamedTuple):
    """What plain transformers says of a text alone."""

    input_ids: list[int]
    logits: NDArray[np.float32]
    """``[C]``."""
    changed_model: bool
    """Whether the model was another one afterwards."""


class Alone:
    """Plain transformers: its own tokenizer, one text at a time, nothing padded, and a model that has seen no other.

    ``model`` has its weights in float32 and is never called itself.
    """

    def __init__(self, bundle: Bundle, model: Any) -> None:
        from transformers import AutoTokenizer

        self._model = model
        self._tokenizer = AutoTokenizer.from_pretrained(bundle.path, **_LOCAL)

    def inputs(self, text: str, max_length: int) -> Any:
        """What the model gets for a text, cut at ``max_length`` tokens."""
        return self._tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")

    def answer(self, inputs: Any) -> Answer:
        """The answer to one text's inputs; safe to call from several threads."""
        model = fresh_copy(self._model)
        with torch.inference_mode():
            logits = _logits(_called(model, inputs.to(model.device))).float()
        ids = inputs["input_ids"][0].tolist()
        is_changed = settings_of(model) != settings_of(self._model)
        return Answer(ids, logits.squeeze(0).cpu().numpy(), is_changed)


def _called(model: Any, inputs: Any) -> Any:
    """The model's output; tokenizers have inputs that some models do not know (DistilBERT with BERT's)."""
    try:
        return model(**inputs)
    except TypeError:
        names = inspect.signature(model.forward).parameters
        return model(**{name: value for name, value in inputs.items() if name in names})


def settings_of(model: Any) -> list[dict[str, Any]]:
    """What each module keeps: words and numbers, and of everything else of which kind it is."""
    return [
        {
            name: value if isinstance(value, str | int | float) else type(value)
            for name, value in vars(module).items()
        }
        for module in model.modules()
    ]


def is_stretched(model: Any) -> bool:
    """Whether what a row is answered depends on how long the longest of its micro-batch is, by rotary positions."""
    kinds = [str(getattr(module, "rope_type", "")) for module in model.modules()]
    return any(kind in found for found in kinds for kind in _STRETCHED)
