"""RoBERTa and others with its offset positions."""

from __future__ import annotations

from batchscore.model.backends.architectures.architecture import Architecture
from batchscore.model.backends.architectures.bert import LAYERS

_LIKE_BERT = ("camembert", "roberta", "xlm-roberta")
"""Encoders with BERT's layers."""
_OTHERS = (
    "data2vec-text",
    "esm",
    "ibert",
    "layoutlmv3",
    "lilt",
    "longformer",
    "luke",
    "markuplm",
    "mpnet",
    "roberta-prelayernorm",
    "xlm-roberta-xl",
    "xmod",
)
ARCHITECTURES = (
    *(Architecture(name, LAYERS, has_offset_positions=True) for name in _LIKE_BERT),
    *(Architecture(name, has_offset_positions=True) for name in _OTHERS),
)
