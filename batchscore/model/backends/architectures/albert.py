"""ALBERT: groups of layers that share their weights, and embeddings of a width of their own."""

from __future__ import annotations

from batchscore.model.backends.architectures.architecture import Architecture, BertLike, Layers
from batchscore.model.backends.architectures.bert import DEFAULTS

_CLASSIFIER = BertLike(
    class_name="AlbertForSequenceClassification",
    title="ALBERT",
    prefix="albert.",
    defaults={
        **DEFAULTS,
        "vocab_size": 30000,
        "embedding_size": 128,
        "hidden_size": 4096,
        "num_attention_heads": 64,
        "intermediate_size": 16384,
        "hidden_act": "gelu_new",
        "num_hidden_groups": 1,
        "inner_group_num": 1,
    },
    layers=Layers(
        path="encoder.albert_layer_groups.{group}.albert_layers.{inner}",
        modules={
            "query": "attention.query",
            "key": "attention.key",
            "value": "attention.value",
            "out": "attention.dense",
            "out_norm": "attention.LayerNorm",
            "up": "ffn",
            "down": "ffn_output",
            "down_norm": "full_layer_layer_norm",
        },
    ),
    pooler="albert.pooler",
    head_activation="tanh",
    project="albert.encoder.embedding_hidden_mapping_in",
    is_always_projected=True,
    unused=("albert.embeddings.position_ids", "predictions.", "sop_classifier."),
)
ARCHITECTURES = (Architecture("albert", classifier=_CLASSIFIER),)
"""Without ``layers``: where weights are shared there is no layer to be added or trained by itself."""
