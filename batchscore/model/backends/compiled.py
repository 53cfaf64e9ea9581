"""An encoder compiled by torch's inductor, with frozen weights and dynamic shapes, so that it compiles once."""

from __future__ import annotations

import functools
import os
import tempfile
from typing import TYPE_CHECKING, Any

import torch

from batchscore.errors import ModelError, printable

if TYPE_CHECKING:
    from torch import Tensor

    from batchscore.model.backends.encoders import Encoder

_CACHE = "TORCHINDUCTOR_CACHE_DIR"


@functools.cache
def _folder_of_this_process() -> tempfile.TemporaryDirectory[str]:
    """A folder that is removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="batchscore-compiled-")


class CompiledEncoder:
    """A compiled encoder, equal up to the order of additions; specialised to torch's current number of threads.

    Compiling takes about a minute. Its cache on disk is code that would be run unchecked by a later process, so it goes to
    a folder of this process that is removed at exit, unless ``TORCHINDUCTOR_CACHE_DIR`` names one. Precompiled headers, which
    would save a sixth of that, torch keeps under a name in the temporary folder that can be guessed, so there are none.
    """

    def __init__(self, encoder: Encoder, device: str) -> None:
        if not os.environ.get(_CACHE):
            os.environ[_CACHE] = _folder_of_this_process().name
        options: dict[str, Any] = {
            "freezing": True,
            "compile_threads": 1,
            "cpp_cache_precompile_headers": False,
        }
        self._forward: Any = torch.compile(encoder.eval(), dynamic=True, options=options)
        probe = torch.ones(2, 32, dtype=torch.int64, device=device)
        try:
            with torch.inference_mode():
                self(probe, probe)
        except Exception as error:  # a compiler may raise anything
            raise ModelError(
                f"The model cannot be compiled ({printable(str(error).strip().partition(chr(10))[0])[:300]}). It takes a "
                "C++ compiler (apt install g++); or leave it with --compile off."
            ) from error

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits ``[b, C]``. A single row is duplicated: a batch of one would trigger recompilation."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        inputs = [input_ids, mask, *([] if token_type_ids is None else [token_type_ids])]
        times = 2 if len(input_ids) == 1 else 1
        logits: Tensor = self._forward(*(each.repeat(times, 1) for each in inputs))
        return logits[: len(input_ids)]
