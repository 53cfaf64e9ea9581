"""Architectures of transformers, tiny: how each is scored, or why it is not. ``jobs/architectures.py`` makes the table of it."""

from __future__ import annotations

from typing import Any

import training_bases

VOCABULARY = 400

# What architectures call their sizes.
BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
LLAMA = {**BERT, "num_key_value_heads": 2, "head_dim": 8}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4}
DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
XLM = {"emb_dim": 32, "n_layers": 2, "n_heads": 4}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
BART = {
    "d_model": 32,
    **{f"{side}_layers": 1 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 4 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")},
}
OPT = {
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 64,
}
SPARSE = {"block_size": 4, "num_random_blocks": 1}

MOE = {**LLAMA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
RIGHT: dict[str, dict[str, Any]] = {
    "albert": {**BERT, "embedding_size": 32},
    "bart": BART,
    "bert": BERT,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "camembert": BERT,
    "ctrl": {**GPT, "dff": 64},
    "deberta": {**BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "deberta-v2": {**BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "distilbert": DISTILBERT,
    "electra": {**BERT, "embedding_size": 32},
    "esm": BERT,
    "falcon": BERT,
    "gemma": LLAMA,
    "gpt2": GPT,
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
    },
    "gpt_neox": BERT,
    "lilt": {**BERT, "hidden_size": 48, "channel_shrink_ratio": 2},
    "llama": LLAMA,
    "longformer": {**BERT, "attention_window": [8, 8]},
    "mistral": {**LLAMA, "sliding_window": 8},
    "modernbert": {
        **BERT,
        "local_attention": 8,
        "global_attn_every_n_layers": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    },
    "mpnet": BERT,
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4},
    "openai-gpt": GPT,
    "opt": OPT,
    "phi": {**LLAMA, "num_key_value_heads": 4},
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "rembert": {**BERT, "input_embedding_size": 32},
    "roberta": BERT,
    "roformer": {**BERT, "embedding_size": 32},
    "squeezebert": {**BERT, "embedding_size": 32},
    "t5": T5,
    "xlm": XLM,
    "xlm-roberta": BERT,
    "xmod": {**BERT, "languages": ["en"], "default_language": "en"},
    "arcee": LLAMA,
    "biogpt": BERT,
    "data2vec-text": BERT,
    "diffllama": LLAMA,
    "ernie": BERT,
    "eurobert": LLAMA,
    "exaone4": LLAMA,
    "flaubert": XLM,
    "gemma2": LLAMA,
    "gemma3_text": LLAMA,
    "glm": LLAMA,
    "glm4": LLAMA,
    "gpt_bigcode": GPT,
    "gpt_oss": {**LLAMA, "num_local_experts": 4},
    "gptj": {**GPT, "rotary_dim": 4},
    "gte": BERT,
    "helium": LLAMA,
    "ibert": BERT,
    "layoutlm": BERT,
    "luke": {**BERT, "entity_vocab_size": 10, "entity_emb_size": 16},
    "mbart": BART,
    "megatron-bert": BERT,
    "ministral": LLAMA,
    "mixtral": {**LLAMA, "num_local_experts": 4},
    "modernbert-decoder": {**BERT, "local_attention": 8, "global_attn_every_n_layers": 2},
    "mt5": T5,
    "mvp": BART,
    "nemotron": LLAMA,
    "nomic_bert": BERT,
    "olmo": LLAMA,
    "olmo2": LLAMA,
    "persimmon": BERT,
    "phi3": LLAMA,
    "plbart": BART,
    "qwen2_moe": {**MOE, "shared_expert_intermediate_size": 32},
    "qwen3_moe": MOE,
    "roberta-prelayernorm": BERT,
    "roc_bert": {**BERT, "pronunciation_vocab_size": 10, "shape_vocab_size": 10},
    "seed_oss": LLAMA,
    "smollm3": LLAMA,
    "stablelm": LLAMA,
    "starcoder2": LLAMA,
    "umt5": T5,
    "xlm-roberta-xl": BERT,
}
"""Padded on the right, as most are."""
Kind = tuple[dict[str, Any], str, str]
OTHER: dict[str, Kind] = {
    "big_bird": ({**BERT, **SPARSE}, "fresh", "none"),
    "bigbird_pegasus": ({**BART, **SPARSE}, "fresh", "none"),
    "convbert": (
        {**BERT, "embedding_size": 32, "conv_kernel_size": 3, "head_ratio": 2},
        "transformers",
        "none",
    ),
    "fnet": (BERT, "transformers", "none"),
    "mobilebert": (
        {**BERT, "true_hidden_size": 32, "intra_bottleneck_size": 32, "embedding_size": 32},
        "transformers",
        "none",  # looks at the next token's embedding; right where that of padding is zero
    ),
    "nystromformer": ({**BERT, "num_landmarks": 8, "segment_means_seq_len": 8}, "transformers", "none"),
    "xlnet": ({"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}, "transformers", "left"),
    "yoso": (BERT, "transformers", "none"),
}
"""Options, backend and way of those that are wrong when they are padded on the right."""
KINDS: dict[str, Kind] = {
    **{kind: (options, "transformers", "right") for kind, options in RIGHT.items()},
    **OTHER,
    "funnel": (
        {"d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64, "block_sizes": [1, 1]},
        "fresh",
        "right",
    ),
}
"""Options, backend and padding mode of all that are scored."""
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "reformer": (
        {
            "hidden_size": 32,
            "num_attention_heads": 4,
            "attention_head_size": 8,
            "feed_forward_size": 64,
            "attn_layers": ["lsh"],
            "lsh_attn_chunk_length": 8,
            "num_buckets": 4,
            "axial_pos_shape": [8, 16],
            "axial_pos_embds_dim": [16, 16],
        },
        "answers one text another way each time",
        "answers another way each time",
    ),
}
"""Options of those that are refused, what the message has, and why, for the table."""
TRAINS = {name: "yes" if is_trained else "refused" for name, is_trained in training_bases.TRAINS.items()}
"""What the trainer does with an architecture; those that are not here were not tried."""
