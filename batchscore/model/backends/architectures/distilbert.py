"""DistilBERT."""

from __future__ import annotations

from batchscore.model.backends.architectures.architecture import Architecture, Classifier, Layers

_LAYERS = Layers(
    path="transformer.layer",
    modules={
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "out": "attention.out_lin",
        "out_norm": "sa_layer_norm",
        "up": "ffn.lin1",
        "down": "ffn.lin2",
        "down_norm": "output_layer_norm",
    },
)
_CLASSIFIER = Classifier(
    class_name="DistilBertForSequenceClassification",
    title="DistilBERT",
    prefix="distilbert.",
    heads="n_heads",
    n_layers="n_layers",
    activation="activation",
    pooler="pre_classifier",
    head_activation="relu",
)
ARCHITECTURES = (
    Architecture(
        "distilbert",
        _LAYERS,
        _CLASSIFIER,
        tokenizers=("DistilBertTokenizer", "DistilBertTokenizerFast"),
    ),
)
