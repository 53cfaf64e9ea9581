"""Facts about the supported architectures: one file per family. No torch.

Any other architecture is run by transformers, and its padding mode is probed (:mod:`batchscore.model.probing`).
"""

from __future__ import annotations

from batchscore.model.backends.architectures import (
    albert,
    bert,
    deberta,
    distilbert,
    electra,
    modernbert,
    mpnet,
    roberta,
)
from batchscore.model.backends.architectures.architecture import (
    Architecture,
    BertLike,
    Classifier,
    Dropouts,
    Layers,
)

__all__ = ["ARCHITECTURES", "Architecture", "BertLike", "Classifier", "Dropouts", "Layers", "architecture_of"]

_FAMILIES = (bert, distilbert, roberta, electra, mpnet, albert, modernbert, deberta)
ARCHITECTURES = {each.model_type: each for family in _FAMILIES for each in family.ARCHITECTURES}
"""By ``model_type`` of ``config.json``."""


def architecture_of(model_type: object) -> Architecture:
    """The entry of a ``model_type``; an empty one if it is unknown."""
    return ARCHITECTURES.get(str(model_type)) or Architecture(str(model_type))
