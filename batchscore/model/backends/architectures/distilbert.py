"""DistilBERT: no token types, and the epsilon of its norms is no option."""

from __future__ import annotations

from batchscore.model.backends.architectures.architecture import Architecture, BertLike, Dropouts, Layers

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
_CLASSIFIER = BertLike(
    class_name="DistilBertForSequenceClassification",
    title="DistilBERT",
    prefix="distilbert.",
    defaults={
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "hidden_act": "gelu",
        "max_position_embeddings": 512,
    },
    renamed={
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
    },
    layers=_LAYERS,
    pooler="pre_classifier",
    head_activation="relu",
    dropouts=Dropouts(out=None, down="ffn.dropout"),
    unused=("distilbert.embeddings.position_ids", "vocab_"),
)
ARCHITECTURES = (
    Architecture(
        "distilbert",
        _LAYERS,
        _CLASSIFIER,
        tokenizers=("DistilBertTokenizer", "DistilBertTokenizerFast"),
    ),
)
