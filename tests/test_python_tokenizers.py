"""Tokenizers that need more than ``tokenizer.json``: in Python, of SentencePiece, or with files missing.

The oracle is ``AutoTokenizer`` of the same folder. Files are written by hand, in each tokenizer's own format.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flow import fake_bundle
from test_scoring import rows_of
from tokenizers import Tokenizer as Fast
from tokenizers import models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from batchscore import samples
from batchscore.config import ComputeSettings
from batchscore.errors import ModelError
from batchscore.model import python_tokenizers
from batchscore.model.bundle import open_bundle
from batchscore.model.loading import ModelSettings, load_model
from batchscore.model.probing import TOLERANCE
from batchscore.model.scoring import score_part
from batchscore.model.tokenization import Tokenizer
from batchscore.training.base_model import load_tokenizer

REVIEWS = [row["text"] for row in samples.rows() if row["text"]]
TEXTS = [
    *REVIEWS[:6],
    " ".join(REVIEWS[:9]),
    "film",
    "The Film! café 😀 :-) http://a.b/c @someone #tag 12,345.6",
    "<s> a </s> [MASK] <unk> in the middle",
    "M K T A Y I A K Q R Q I S F V",
    "naïve\n\ttwo  lines ",
    "да, хорошо 好",
]


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


@pytest.fixture(scope="module")
def pairs() -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens and merges of a BPE as those tokenizers have it: words end in ``</w>``."""
    fast: Any = Fast(models.BPE(end_of_word_suffix="</w>"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer: Any = trainers.BpeTrainer
    texts = [text.lower() for text in REVIEWS]
    fast.train_from_iterator(texts, trainer(vocab_size=600, end_of_word_suffix="</w>", show_progress=False))
    told = json.loads(fast.to_str())["model"]
    merges = [
        tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in told["merges"]
    ]
    return sorted(told["vocab"], key=told["vocab"].get), merges


Pairs = tuple[list[str], list[tuple[str, str]]]


def _fairseq(folder: Path, pairs: Pairs) -> None:
    """BERTweet and PhoBERT: a dictionary of tokens with ``@@`` where a word goes on, and merges with their counts."""
    tokens, merges = pairs
    ends = [token.removesuffix("</w>") if token.endswith("</w>") else f"{token}@@" for token in tokens]
    (folder / "vocab.txt").write_text("".join(f"{token} 1\n" for token in dict.fromkeys(ends)))
    (folder / "bpe.codes").write_text("".join(f"{one} {two} 9\n" for one, two in merges))


def _xlm(folder: Path, pairs: Pairs) -> None:
    """XLM, FlauBERT and BioGPT."""
    special = ["<s>", "</s>", "<pad>", "<unk>", *(f"<special{k}>" for k in range(10))]
    tokens = dict.fromkeys([*special, *pairs[0]])
    (folder / "vocab.json").write_text(json.dumps({token: k for k, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("".join(f"{one} {two} 9\n" for one, two in pairs[1]))


def _ctrl(folder: Path, pairs: Pairs) -> None:
    tokens, merges = pairs
    ends = [token.removesuffix("</w>") if token.endswith("</w>") else f"{token}@@" for token in tokens]
    vocabulary = {token: k for k, token in enumerate(dict.fromkeys(["<unk>", *ends]))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))


def _esm(folder: Path, _: Pairs) -> None:
    tokens = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<mask>"]
    (folder / "vocab.txt").write_text("\n".join(tokens))


def _sentence_piece(name: str) -> Callable[[Path, Pairs], None]:
    def write(folder: Path, _: Pairs) -> None:
        trainer: Any = importlib.import_module("sentencepiece").SentencePieceTrainer
        model = io.BytesIO()
        trainer.train(
            sentence_iterator=iter(REVIEWS),
            model_writer=model,
            vocab_size=300,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        (folder / name).write_bytes(model.getvalue())

    return write


BERT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
PLACES = {"max_position_embeddings": 66, "pad_token_id": 1}
XLM = {"emb_dim": 32, "n_layers": 1, "n_heads": 4, "max_position_embeddings": 64}
SPIECE = "spiece.model"
Kind = tuple[str, Callable[[Path, Pairs], None], dict[str, Any], dict[str, Any]]
IN_PYTHON: dict[str, Kind] = {
    "BertweetTokenizer": ("roberta", _fairseq, {**BERT, **PLACES}, {"normalization": False}),
    "PhobertTokenizer": ("roberta", _fairseq, {**BERT, **PLACES}, {}),
    "EsmTokenizer": ("esm", _esm, {**BERT, **PLACES}, {}),
    "CTRLTokenizer": (
        "ctrl",
        _ctrl,
        {"n_embd": 32, "n_layer": 1, "n_head": 4, "dff": 64, "n_positions": 64},
        {},
    ),
    "ByT5Tokenizer": (
        "t5",
        lambda folder, pairs: None,
        {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "decoder_start_token_id": 0},
        {},
    ),
}
WITH_MOSES: dict[str, Kind] = {
    "BertweetTokenizer": ("roberta", _fairseq, {**BERT, **PLACES}, {"normalization": True}),
    "XLMTokenizer": ("xlm", _xlm, XLM, {}),
    "FlaubertTokenizer": ("flaubert", _xlm, XLM, {"do_lowercase": True}),
    "BioGptTokenizer": ("biogpt", _xlm, {**BERT, "max_position_embeddings": 64}, {}),
}
WITH_SENTENCEPIECE: dict[str, Kind] = {
    "XLMRobertaTokenizer": (
        "xlm-roberta",
        _sentence_piece("sentencepiece.bpe.model"),
        {**BERT, **PLACES},
        {},
    ),
    "CamembertTokenizer": ("camembert", _sentence_piece("sentencepiece.bpe.model"), {**BERT, **PLACES}, {}),
    "DebertaV2Tokenizer": (
        "deberta-v2",
        _sentence_piece("spm.model"),
        {**BERT, "max_position_embeddings": 64},
        {},
    ),
    "T5Tokenizer": (
        "t5",
        _sentence_piece(SPIECE),
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 1,
            "num_heads": 4,
            "decoder_start_token_id": 0,
            "eos_token_id": 2,
        },
        {},
    ),
    "XLNetTokenizer": (
        "xlnet",
        _sentence_piece(SPIECE),
        {"d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64},
        {"padding_side": "left"},
    ),
    "RemBertTokenizer": (
        "rembert",
        _sentence_piece("sentencepiece.model"),
        {**BERT, "input_embedding_size": 32},
        {},
    ),
    "PLBartTokenizer": (
        "plbart",
        _sentence_piece("sentencepiece.bpe.model"),
        {
            "d_model": 32,
            **{f"{side}_layers": 1 for side in ("encoder", "decoder")},
            **{f"{side}_attention_heads": 4 for side in ("encoder", "decoder")},
            **{f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")},
            "eos_token_id": 2,
        },
        {},
    ),
}


def made(folder: Path, name: str, kind: Kind, pairs: Pairs) -> Path:
    """A plain folder: the tokenizer's own files and settings, and a model with random weights."""
    model_type, write, options, settings = kind
    write(folder, pairs)
    told = {"tokenizer_class": name, "model_max_length": 60, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    auto: Any = AutoModelForSequenceClassification
    torch.manual_seed(0)
    names = ("NEGATIVE", "POSITIVE")
    config = AutoConfig.for_model(
        model_type,
        **{"vocab_size": 1200, **options},
        id2label=dict(enumerate(names)),
        label2id={label: k for k, label in enumerate(names)},
    )
    model = auto.from_config(config)
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.25)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", IN_PYTHON)
def test_a_tokenizer_in_python_is_read_through_transformers(name: str, tmp_path: Path, pairs: Pairs) -> None:
    check(made(tmp_path, name, IN_PYTHON[name], pairs), is_fast=False)


@needs("sacremoses", "emoji")
@pytest.mark.parametrize("name", WITH_MOSES)
def test_one_with_moses_is_too(name: str, tmp_path: Path, pairs: Pairs) -> None:
    check(made(tmp_path, name, WITH_MOSES[name], pairs), is_fast=False)


@needs("sentencepiece")
@pytest.mark.parametrize("name", WITH_SENTENCEPIECE)
def test_one_with_a_sentencepiece_model_alone_is_too(name: str, tmp_path: Path, pairs: Pairs) -> None:
    check(made(tmp_path, name, WITH_SENTENCEPIECE[name], pairs), is_fast=name != "PLBartTokenizer")


def test_a_base_model_with_one_is_refused_by_the_trainer(tmp_path: Path, pairs: Pairs) -> None:
    base = open_bundle(str(made(tmp_path, "EsmTokenizer", IN_PYTHON["EsmTokenizer"], pairs)))
    with pytest.raises(
        ModelError, match=r"EsmTokenizer.* is written in Python, and training needs a fast one"
    ):
        load_tokenizer(base)


def check(folder: Path, *, is_fast: bool) -> None:
    """Tokens and probabilities are those of plain transformers, in threads too."""
    reference = AutoTokenizer.from_pretrained(folder)
    assert reference.is_fast == is_fast
    tokenizer = Tokenizer(open_bundle(str(folder)))
    expected = [reference(text, truncation=True, max_length=60)["input_ids"] for text in TEXTS]
    assert len({*map(tuple, expected)}) > len(TEXTS) - 3  # else nothing would be compared
    with ThreadPoolExecutor(4) as workers:
        for encodings in workers.map(lambda _: tokenizer.encode(TEXTS, "head"), range(4)):
            assert [ids.tolist() for ids in encodings.input_ids] == expected
            assert encodings.n_tokens.tolist() == [len(reference(text)["input_ids"]) for text in TEXTS]
    settings = ModelSettings(ComputeSettings(precision="fp32", max_batch_tokens=256), "head")
    model, _ = load_model(open_bundle(str(folder)), settings, {})
    found = score_part(rows_of(TEXTS), model).probabilities
    np.testing.assert_allclose(found, alone(folder, reference, TEXTS), rtol=0, atol=TOLERANCE)


def alone(folder: Path, tokenizer: Any, texts: Sequence[str]) -> Any:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        inputs = (tokenizer(text, truncation=True, max_length=60, return_tensors="pt") for text in texts)
        return torch.cat([model(**each).logits.double().softmax(-1) for each in inputs]).numpy()


# ---------------------------------------------------------------------------------------------- what is not there


@pytest.mark.parametrize(
    ("name", "kind", "package", "extra"),
    [
        ("XLMTokenizer", WITH_MOSES["XLMTokenizer"], "sacremoses", "moses"),
        ("BertweetTokenizer", WITH_MOSES["BertweetTokenizer"], "emoji", "moses"),
        (
            "XLMRobertaTokenizer",
            (
                "xlm-roberta",
                lambda f, _: (f / "sentencepiece.bpe.model").write_bytes(b"x"),
                {**BERT, **PLACES},
                {},
            ),
            "sentencepiece",
            "sentencepiece",
        ),
    ],
    ids=["sacremoses", "emoji", "sentencepiece"],
)
def test_a_missing_package_is_named_with_its_extra(
    name: str,
    kind: Kind,
    package: str,
    extra: str,
    tmp_path: Path,
    pairs: Pairs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    there = python_tokenizers._is_there
    monkeypatch.setattr(python_tokenizers, "_is_there", lambda each: each != package and there(each))
    with pytest.raises(ModelError, match=rf"{package}.*pip install 'batchscore\[{extra}\]'") as caught:
        Tokenizer(open_bundle(str(made(tmp_path, name, kind, pairs))))
    assert caught.value.exit_code == 78


def save(folder: Path, kind: str, pairs: Pairs) -> Any:
    """A byte-level BPE of RoBERTa, saved in its old format, and its bundle."""
    fast: Any = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer: Any = trainers.BpeTrainer
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    fast.train_from_iterator(
        REVIEWS,
        trainer(vocab_size=600, special_tokens=special, initial_alphabet=letters, show_progress=False),
    )
    fast.model.save(str(folder))
    AutoConfig.for_model(kind).save_pretrained(folder)
    return dataclasses.replace(fake_bundle(), path=folder)


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_a_vocabulary_without_its_merges_is_a_model_error(kind: str, tmp_path: Path, pairs: Pairs) -> None:
    """Transformers makes letters of all words."""
    bundle = save(tmp_path, kind, pairs)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["A film like no other, and good.", "film"]
    assert [ids.tolist() for ids in Tokenizer(bundle).token_ids(texts)] == reference(texts)["input_ids"]
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(ModelError, match=r"makes none of the words|knows no words|cannot be loaded"):
        Tokenizer(bundle)


def test_merges_that_were_saved_without_their_counts_are_a_model_error(tmp_path: Path, pairs: Pairs) -> None:
    """As transformers itself saves those of BERTweet: read again, each has lost its second half."""
    folder = made(tmp_path, "BertweetTokenizer", IN_PYTHON["BertweetTokenizer"], pairs)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"makes none of the words in its own vocabulary.*bpe\.codes"):
        Tokenizer(open_bundle(str(folder)))
