"""ModernBERT: rotary positions, local and global attention in turns, gated feed-forward part, norms ahead of what they feed."""

from __future__ import annotations

from batchscore.model.backends.architectures.architecture import Architecture, Classifier

_CLASSIFIER = Classifier(
    class_name="ModernBertForSequenceClassification",
    title="ModernBERT",
    encoder="batchscore.model.backends.modernbert:ModernBert",
    prefix="model.",
    defaults={
        "vocab_size": 50368,
        "hidden_size": 768,
        "intermediate_size": 1152,
        "num_hidden_layers": 22,
        "num_attention_heads": 12,
        "hidden_activation": "gelu",
        "norm_eps": 1e-5,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "layer_types": None,
        "global_attn_every_n_layers": 3,
        "local_attention": 128,
        "rope_parameters": None,
        "global_rope_theta": 160_000.0,
        "local_rope_theta": 10_000.0,
        "classifier_pooling": "cls",
        "classifier_bias": False,
        "classifier_activation": "gelu",
    },
    required={
        "head_dim": None,
        "sliding_window": None,
        "rope_scaling": None,
        "rope_theta": None,
        "partial_rotary_factor": None,
    },
    unused=("decoder.",),
)
ARCHITECTURES = (Architecture("modernbert", classifier=_CLASSIFIER),)
