"""BERT, and ELECTRA, which has the same layers."""

from __future__ import annotations

from batchscore.model.backends.architectures.architecture import Architecture, Classifier, Layers

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
_CLASSIFIER = Classifier(
    class_name="BertForSequenceClassification",
    title="BERT",
    prefix="bert.",
    heads="num_attention_heads",
    n_layers="num_hidden_layers",
    activation="hidden_act",
    pooler="bert.pooler.dense",
    head_activation="tanh",
    required={"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False},
    has_token_types=True,
)
ARCHITECTURES = (
    Architecture("bert", LAYERS, _CLASSIFIER, tokenizers=("BertTokenizer", "BertTokenizerFast")),
    Architecture("electra", LAYERS),
)
