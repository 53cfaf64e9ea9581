"""BERT."""

from __future__ import annotations

from batchscore.model.backends.architectures.architecture import Architecture, BertLike, Dropouts, Layers

LAYERS = Layers(
    path="encoder.layer",
    modules={
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "out": "attention.output.dense",
        "out_norm": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "down_norm": "output.LayerNorm",
    },
)
DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
_CLASSIFIER = BertLike(
    class_name="BertForSequenceClassification",
    title="BERT",
    prefix="bert.",
    defaults=DEFAULTS,
    layers=LAYERS,
    pooler="bert.pooler.dense",
    head_activation="tanh",
    dropouts=Dropouts(),
    unused=("bert.embeddings.position_ids", "cls."),
)
ARCHITECTURES = (
    Architecture("bert", LAYERS, _CLASSIFIER, tokenizers=("BertTokenizer", "BertTokenizerFast")),
)
