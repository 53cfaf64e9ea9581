"""A folder's classifier run by transformers: in micro-batches, or one text at a time on a fresh copy of the model.

The latter is the reference for :mod:`batchscore.model.probing`. The copy matters: BigBird switches to full attention for
good after its first short input, and some rotary embeddings change with the longest input so far. :func:`fresh_copy` shares
the weights: 20 ms for BERT-base.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from batchscore.errors import ModelError, printable
from batchscore.model.foreign import refuse_other_models
from batchscore.model.weights import refuse_too_large, tensors_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from batchscore.model.bundle import Bundle
    from batchscore.records import Text

_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_DYNAMIC_ROPE = ("dynamic", "longrope")
"""Rotary embeddings whose scale depends on the longest row of a micro-batch."""


def load_plain(bundle: Bundle, dtype: torch.dtype) -> Any:
    """Load the folder's classifier with transformers.

    Raises:
        ModelError: it cannot be loaded; it is meant to be something else than a classifier; weights are missing, of
            another shape than its labels ask for, or not finite.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers.utils import logging as transformers_logging

    refuse_other_models(bundle.path)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    names = dict(enumerate(bundle.labels))
    back = {name: index for index, name in names.items()}
    try:
        config = AutoConfig.from_pretrained(bundle.path, id2label=names, label2id=back, **_LOCAL)
        _refuse_too_large(config, bundle)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            bundle.path,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # told below, more clearly
            output_loading_info=True,
            **_LOCAL,
        )
    except ModelError:
        raise
    except Exception as error:  # a damaged folder may raise anything
        raise ModelError(
            f"{printable(bundle.path)}: the model cannot be loaded ({printable(error)}). It needs an architecture of "
            "transformers with a sequence-classification head."
        ) from error
    _refuse_other_shapes(info.get("mismatched_keys") or (), bundle)
    if missing := info["missing_keys"]:
        raise ModelError(
            f"{printable(bundle.path)}: {len(missing)} weights of the classifier are not in the folder "
            f"({printable(sorted(map(str, missing))[0])}), so it was not trained as one. Train it with: batchscore-train"
        )
    _refuse_not_finite(model, bundle)
    return model


def _refuse_too_large(config: Any, bundle: Bundle) -> None:
    """Raise if the configuration asks for far more than the files hold; nothing is allocated to find that out."""
    from transformers import AutoModelForSequenceClassification

    with torch.device("meta"):
        made: Any = AutoModelForSequenceClassification
        outline = made.from_config(copy.deepcopy(config))
    parts = [*outline.parameters(), *outline.buffers()]
    n_bytes = sum(4 * part.numel() for part in parts)
    refuse_too_large(n_bytes, tensors_of(bundle.path, bundle.files.hashes), bundle.path / "config.json")


def _refuse_other_shapes(mismatched: Iterable[Any], bundle: Bundle) -> None:
    """Raise if weights have other shapes than the configuration says: most often, more outputs than labels."""
    for name, found, wanted in sorted(mismatched, key=str):
        if tuple(found[1:]) == tuple(wanted[1:]) and wanted[0] == len(bundle.labels):
            raise ModelError(
                f"{printable(bundle.path)}: its classifier has {found[0]} outputs ({printable(name)}), but config.json names "
                f"{wanted[0]} labels. Name them all in id2label, in the order of the outputs."
            )
        raise ModelError(
            f"{printable(bundle.path)}: the weight {printable(name)} is {list(found)}, but config.json asks for {list(wanted)}. "
            "Fetch or train the model again."
        )


def _refuse_not_finite(model: Any, bundle: Bundle) -> None:
    damaged = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if damaged:
        raise ModelError(
            f"{printable(bundle.path)}: {len(damaged)} of its weights hold NaN or infinite numbers in {model.dtype} (the first: "
            f"{printable(damaged[0])}), so it would answer nothing. Train or fetch the model again."
        )


def fresh_copy(model: Any) -> Any:
    """A deep copy of the model that shares its weights."""
    return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})


class PlainForward:
    """Token ids, mask and token types ``[b, L]``, those that the model takes, in; logits ``[b, C]`` out.

    ``fresh``: every micro-batch gets a fresh copy of the model.
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
        return logits_of(model(input_ids=input_ids, **others))


def logits_of(output: Any) -> Tensor:
    """The logits in a model's output, which is a tuple if its configuration says so."""
    logits: Tensor = output[0] if isinstance(output, tuple) else output.logits
    return logits


class Answer(NamedTuple):
    """The output of plain transformers for one text."""

    input_ids: list[int]
    logits: NDArray[np.float32]
    """``[C]``."""
    changed_model: bool
    """Whether the forward pass changed the model's state."""


class Reference:
    """Plain transformers: its own tokenizer, one text at a time, no padding, a fresh copy of the model for each.

    ``model`` has float32 weights and is never called itself.
    """

    def __init__(self, bundle: Bundle, model: Any) -> None:
        from transformers import AutoTokenizer

        self._model = model
        self._tokenizer = AutoTokenizer.from_pretrained(bundle.path, **_LOCAL)

    def inputs(self, text: Text, max_length: int) -> Any:
        """The model's inputs for a text, or for two, cut at ``max_length`` tokens."""
        texts = (text,) if isinstance(text, str) else text
        batch = [[each] for each in texts]  # tokenizer(text, "") would take it for one text
        return self._tokenizer(*batch, truncation=True, max_length=max_length, return_tensors="pt")

    def answer(self, inputs: Any) -> Answer:
        """The output for one text's inputs; thread-safe."""
        model = fresh_copy(self._model)
        with torch.inference_mode():
            logits = answer_of(model, inputs.to(model.device)).float()
        ids = inputs["input_ids"][0].tolist()
        is_changed = module_state(model) != module_state(self._model)
        return Answer(ids, logits.squeeze(0).cpu().numpy(), is_changed)


def answer_of(model: Any, inputs: Any) -> Tensor:
    """The logits ``[b, C]`` of a model for the inputs that its tokenizer made."""
    return logits_of(_call(model, inputs))


def _call(model: Any, inputs: Any) -> Any:
    """The model's output; inputs that it does not take are dropped (DistilBERT with BERT's tokenizer)."""
    try:
        return model(**inputs)
    except TypeError:
        names = inspect.signature(model.forward).parameters
        return model(**{name: value for name, value in inputs.items() if name in names})


def module_state(model: Any) -> list[dict[str, Any]]:
    """The attributes of each module: strings and numbers by value, others by type."""
    return [
        {
            name: value if isinstance(value, str | int | float) else type(value)
            for name, value in vars(module).items()
        }
        for module in model.modules()
    ]


def has_dynamic_rope(model: Any) -> bool:
    """Whether the output for a row depends on the longest row of its micro-batch, through rotary embeddings."""
    kinds = [str(getattr(module, "rope_type", "")) for module in model.modules()]
    return any(kind in found for found in kinds for kind in _DYNAMIC_ROPE)
