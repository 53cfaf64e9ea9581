"""ELECTRA: BERT's layers, embeddings of a width of their own, no pooler but a head with two layers.

The ``summary_*`` options are those of its head for multiple choice.
"""

from __future__ import annotations

from batchscore.model.backends.architectures.architecture import Architecture, BertLike, Dropouts
from batchscore.model.backends.architectures.bert import DEFAULTS, LAYERS

_CLASSIFIER = BertLike(
    class_name="ElectraForSequenceClassification",
    title="ELECTRA",
    prefix="electra.",
    defaults={
        **DEFAULTS,
        "embedding_size": 128,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
    },
    layers=LAYERS,
    pooler="classifier.dense",
    head_activation="gelu",
    output="classifier.out_proj",
    project="electra.embeddings_project",
    dropouts=Dropouts(head_input="classifier.dropout", head="classifier.dropout"),
    unused=("electra.embeddings.position_ids", "discriminator_predictions.", "generator_"),
)
ARCHITECTURES = (Architecture("electra", LAYERS, _CLASSIFIER),)
