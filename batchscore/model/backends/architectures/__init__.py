"""What is known of each architecture: one file a family, and its entries here. No torch.

What no file knows is computed by transformers, and how it bears padding is tried (:mod:`batchscore.model.probing`).
"""

from __future__ import annotations

from batchscore.model.backends.architectures import bert, distilbert, roberta
from batchscore.model.backends.architectures.architecture import Architecture, Classifier, Layers

__all__ = ["ARCHITECTURES", "Architecture", "Classifier", "Layers", "architecture_of"]

ARCHITECTURES = {
    each.model_type: each for family in (bert, distilbert, roberta) for each in family.ARCHITECTURES
}
"""By ``model_type`` of ``config.json``."""


def architecture_of(model_type: object) -> Architecture:
    """What is known of a ``model_type``; of one that no file knows, whatever it is, nothing."""
    return ARCHITECTURES.get(str(model_type)) or Architecture(str(model_type))
