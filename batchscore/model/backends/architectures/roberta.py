"""RoBERTa and others with its offset positions."""

from __future__ import annotations

from batchscore.model.backends.architectures.architecture import Architecture, BertLike, Dropouts
from batchscore.model.backends.architectures.bert import DEFAULTS, LAYERS


def _classifier(class_name: str, title: str, vocab_size: int) -> BertLike:
    """BERT's layers, and a head with two layers instead of the pooler; tensors have the same names in all of them."""
    return BertLike(
        class_name=class_name,
        title=title,
        prefix="roberta.",
        defaults={**DEFAULTS, "vocab_size": vocab_size, "pad_token_id": 1},
        layers=LAYERS,
        pooler="classifier.dense",
        head_activation="tanh",
        output="classifier.out_proj",
        dropouts=Dropouts(head_input="classifier.dropout", head="classifier.dropout"),
        unused=("roberta.embeddings.position_ids", "roberta.pooler.", "lm_head."),
    )


_LIKE_BERT = {
    "camembert": _classifier("CamembertForSequenceClassification", "CamemBERT", 30522),
    "roberta": _classifier("RobertaForSequenceClassification", "RoBERTa", 50265),
    "xlm-roberta": _classifier("XLMRobertaForSequenceClassification", "XLM-RoBERTa", 30522),
}
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
    "roberta-prelayernorm",
    "xlm-roberta-xl",
    "xmod",
)
ARCHITECTURES = (
    *(Architecture(name, LAYERS, each, has_offset_positions=True) for name, each in _LIKE_BERT.items()),
    *(Architecture(name, has_offset_positions=True) for name in _OTHERS),
)
