"""Which architectures train, head only and as a whole, on tiny models: what ``test_training_bases.py`` shows."""

from __future__ import annotations

TRAINS: dict[str, bool] = {
    "albert": True,
    "bart": True,
    "bert": True,
    "big_bird": True,
    "convbert": True,
    "deberta": True,
    "deberta-v2": True,
    "distilbert": True,
    "electra": True,
    "fnet": True,
    "funnel": True,
    "gpt2": True,
    "llama": True,
    "modernbert": True,
    "mpnet": True,
    "opt": True,
    "qwen2": True,
    "reformer": False,
    "roberta": True,
    "t5": True,
    "xlnet": True,
}
"""By ``model_type``: trained to a bundle that answers as plain transformers, or refused before any data are read."""
