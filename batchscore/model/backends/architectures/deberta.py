"""DeBERTa-v2 and v3: disentangled attention to what stands at a token and to how far away it is."""

from __future__ import annotations

from batchscore.model.backends.architectures.architecture import Architecture, Classifier

_CLASSIFIER = Classifier(
    class_name="DebertaV2ForSequenceClassification",
    title="DeBERTa-v2",
    encoder="batchscore.model.backends.deberta:DebertaV2",
    prefix="deberta.",
    defaults={
        "vocab_size": 128100,
        "hidden_size": 1536,
        "embedding_size": None,
        "num_hidden_layers": 24,
        "num_attention_heads": 24,
        "intermediate_size": 6144,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-7,
        "max_position_embeddings": 512,
        "type_vocab_size": 0,
        "position_biased_input": True,
        "relative_attention": False,
        "max_relative_positions": -1,
        "position_buckets": -1,
        "pos_att_type": None,
        "share_att_key": False,
        "norm_rel_ebd": "none",
        "attention_head_size": None,
        "pooler_hidden_size": None,
        "pooler_hidden_act": "gelu",
    },
    required={"conv_kernel_size": 0},
    unused=(
        "deberta.embeddings.position_ids",
        "deberta.embeddings.position_embeddings.",
        "lm_predictions.",
        "mask_predictions.",
    ),
)
ARCHITECTURES = (Architecture("deberta-v2", classifier=_CLASSIFIER),)
