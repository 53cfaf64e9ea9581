"""MPNet: relative attention biases that all layers share, no token types; positions start at 2, whatever the padding token."""

from __future__ import annotations

from batchscore.model.backends.architectures.architecture import Architecture, BertLike, Layers
from batchscore.model.backends.architectures.bert import DEFAULTS

_CLASSIFIER = BertLike(
    class_name="MPNetForSequenceClassification",
    title="MPNet",
    prefix="mpnet.",
    defaults={
        **{name: value for name, value in DEFAULTS.items() if name != "type_vocab_size"},
        "vocab_size": 30527,
        "relative_attention_num_buckets": 32,
        "pad_token_id": 1,
    },
    required={"pad_token_id": 1, "relative_attention_num_buckets": 32},
    layers=Layers(
        path="encoder.layer",
        modules={
            "query": "attention.attn.q",
            "key": "attention.attn.k",
            "value": "attention.attn.v",
            "out": "attention.attn.o",
            "out_norm": "attention.LayerNorm",
            "up": "intermediate.dense",
            "down": "output.dense",
            "down_norm": "output.LayerNorm",
        },
    ),
    pooler="classifier.dense",
    head_activation="tanh",
    output="classifier.out_proj",
    position_bias="mpnet.encoder.relative_attention_bias",
    unused=("mpnet.embeddings.position_ids", "mpnet.pooler.", "lm_head."),
)
ARCHITECTURES = (Architecture("mpnet", classifier=_CLASSIFIER, has_offset_positions=True),)
