"""Two texts a row: read from every format, tokenised and scored as ``model(**tokenizer(a, b))`` does, or refused."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import run_score, seal_bundle
from flow import flow
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_formats import FORMATS
from test_workers import Stop
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from batchscore.config import ComputeSettings, ReadSettings, ScoreSettings
from batchscore.errors import DataError, InterruptedRunError, ModelError, UsageError
from batchscore.formats.registry import NAMES, suffix_of
from batchscore.model import probing
from batchscore.model.backends import open_backend
from batchscore.model.bundle import Bundle, open_bundle
from batchscore.model.exporting import export_int8
from batchscore.model.pair_tokens import longest_first
from batchscore.model.scoring import InferenceSettings, Model, score_texts
from batchscore.model.tokenization import Tokenizer
from batchscore.records import GivenText, Status
from batchscore.runs.engines.ray import ScoringActor, _recipe
from batchscore.runs.run import score

LABELS = ("contradiction", "entailment", "neutral")
LONGEST = 40
WORDS = [
    "the",
    "film",
    "was",
    "a",
    "long",
    "one",
    "and",
    "i",
    "did",
    "not",
    "like",
    "it",
    "at",
    "all",
    "but",
    "he",
    "said",
    "that",
    "for",
    "him",
    "there",
    "is",
    "more",
]
SPECIAL = {"bert": ("[PAD]", "[CLS]", "[SEP]", "[UNK]"), "roberta": ("<pad>", "<s>", "</s>", "<unk>")}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "bert": ("bert", {**SIZES, "initializer_range": 0.5}, {}),
    "bert cut on the left": ("bert", {**SIZES, "initializer_range": 0.5}, {"truncation_side": "left"}),
    "distilbert": ("distilbert", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}, {}),
    "roberta": ("roberta", {**SIZES, "initializer_range": 0.5, "type_vocab_size": 1}, {}),
    "deberta-v2": (
        "deberta-v2",
        {**SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 2},
        {},
    ),
    "deberta": (
        "deberta",
        {**SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 2},
        {},
    ),
    "xlnet": (
        "xlnet",
        {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
        {"padding_side": "left", "pad_token_type_id": 1},
    ),
}
"""By name: the architecture, its options and those of its tokenizer."""
READ = ReadSettings(text_column="premise", text_pair_column="hypothesis")
FP32 = ComputeSettings(precision="fp32", max_batch_tokens=256)


def fast_tokenizer(kind: str) -> Any:
    """Words as tokens, with the special tokens of BERT (types 0 and 1) or of RoBERTa (two between the texts)."""
    marks = SPECIAL["roberta" if kind == "roberta" else "bert"]
    fast: Any = Fast(models.WordLevel({t: k for k, t in enumerate([*marks, *WORDS])}, unk_token=marks[3]))
    fast.normalizer = normalizers.Lowercase()
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.decoder = decoders.WordPiece()
    if kind == "roberta":
        fast.post_processor = processors.RobertaProcessing(
            (marks[2], 2), (marks[1], 1), add_prefix_space=False
        )
    else:
        single, pair = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"
        if kind == "xlnet":
            single, pair = "$A [SEP] [CLS]:2", "$A [SEP] $B:1 [SEP]:1 [CLS]:2"
        found = [(marks[1], 1), (marks[2], 2)]
        fast.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=found)
    return fast


def make(folder: Path, name: str, labels: Sequence[str] = LABELS) -> Path:
    """A plain folder: random weights, a token type's embeddings as large as a word's."""
    import transformers

    kind, options, of_tokenizer = KINDS[name]
    marks = SPECIAL["roberta" if kind == "roberta" else "bert"]
    torch.manual_seed(1)
    config = AutoConfig.for_model(
        kind,
        **{
            "vocab_size": len(WORDS) + 4,
            "pad_token_id": 0,
            **({} if kind == "xlnet" else {"max_position_embeddings": LONGEST + 4}),
            **options,
        },
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    made: Any = AutoModelForSequenceClassification
    model = made.from_config(config)
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    saved: Any = transformers.PreTrainedTokenizerFast
    types = [] if kind in ("roberta", "distilbert") else ["token_type_ids"]
    saved(
        tokenizer_object=fast_tokenizer(kind),
        pad_token=marks[0],
        cls_token=marks[1],
        sep_token=marks[2],
        unk_token=marks[3],
        model_max_length=LONGEST,
        model_input_names=["input_ids", "attention_mask", *types],
        **of_tokenizer,
    ).save_pretrained(folder)
    return folder


def texts_of(*sizes: int, seed: int = 0) -> list[str]:
    choose = random.Random(seed)
    return [" ".join(choose.choices(WORDS, k=size)) for size in sizes]


PREMISES = texts_of(1, 5, 60, 12, 3, 44, 21, 18, 17, 5)
HYPOTHESES = texts_of(3, 2, 60, 12, 70, 4, 20, 20, 18, 2, seed=1)
PREMISES[-1], HYPOTHESES[-1] = PREMISES[1], HYPOTHESES[1]
"""From four tokens to many more than the model takes: the first, the second or both are cut, by odd and even numbers; the
last pair is one of the others."""
ROWS = [
    {"id": f"{k}", "premise": one, "hypothesis": other, "label": LABELS[k % 3]}
    for k, (one, other) in enumerate(zip(PREMISES, HYPOTHESES, strict=True))
]


def alone(folder: Path, rows: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
    """Probabilities ``[n, C]`` of plain transformers, each pair by itself.

    As a batch of one: a call with two strings drops an empty second one, and its template with it.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    loaded = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    found = []
    for one, other in rows:
        inputs = tokenizer([one], [other], truncation=True, max_length=LONGEST, return_tensors="pt")
        with torch.inference_mode():
            found.append(loaded(**inputs).logits[0].double().softmax(-1).numpy())
    return np.stack(found)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folders: dict[str, Path] = {}

    def folder_of(name: str) -> Path:
        if name not in folders:
            folders[name] = make(tmp_path_factory.mktemp("pairs") / "model", name)
        return folders[name]

    return folder_of


def probabilities(frame: pd.DataFrame) -> NDArray[np.float64]:
    return frame[[f"prob_{label}" for label in LABELS]].to_numpy(dtype=np.float64)


# ------------------------------------------------------------------------------------------------------------ answers


def test_a_cross_encoder_goes_through_our_own_encoder_held_against_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHSCORE_CACHE", str(tmp_path / "cache"))
    folder = make(tmp_path / "model", "bert", ["relevance"])
    pd.DataFrame(ROWS).drop(columns="label").to_parquet(tmp_path / "in.parquet")
    nights = []
    for night in ("first", "second"):
        run_score(tmp_path / "in.parquet", folder, tmp_path / night, read=READ, compute=FP32)
        nights.append(json.loads((tmp_path / night / "run.json").read_bytes())["compute"])
    assert [night["backend"] for night in nights] == ["torch", "torch"]
    assert [night["references"]["from"] for night in nights] == ["computed", "cache"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    loaded = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    expected = []
    for one, other in zip(PREMISES, HYPOTHESES, strict=True):
        inputs = tokenizer(one, other, truncation=True, max_length=LONGEST, return_tensors="pt")
        with torch.inference_mode():
            expected.append(float(loaded(**inputs).logits[0, 0].sigmoid()))
    for night in ("first", "second"):
        found = pd.read_parquet(tmp_path / night / "predictions" / "in.parquet")["value"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("name", KINDS)
def test_answers_are_those_of_plain_transformers_to_each_pair(
    name: str, made: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = made(name)
    pd.DataFrame(ROWS).to_parquet(tmp_path / "in.parquet")
    run_score(tmp_path / "in.parquet", folder, tmp_path / "out", read=READ, compute=FP32)
    frame = pd.read_parquet(tmp_path / "out" / "predictions" / "in.parquet")
    pairs = list(zip(PREMISES, HYPOTHESES, strict=True))
    expected = alone(folder, pairs)
    np.testing.assert_allclose(probabilities(frame), expected, rtol=0, atol=probing.TOLERANCE)
    swapped = alone(folder, [(other, one) for one, other in pairs])
    assert np.abs(swapped - expected).max() > 0.01  # else order and types would show nothing
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lengths = [len(tokenizer(one, other)["input_ids"]) for one, other in pairs]
    assert frame.n_tokens.tolist() == lengths
    assert frame.truncated.tolist() == [length > LONGEST for length in lengths]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_bytes())
    assert metrics["counts"]["duplicate"] == 1


def test_types_matter_so_our_encoder_without_them_would_be_seen(made: Callable[[str], Path]) -> None:
    """The weights are such that a model which takes all tokens to be of type 0 is far off."""
    bundle = dataclasses.replace(open_bundle(str(made("bert"))), takes_pairs=True)
    model = Model(
        bundle,
        Tokenizer(bundle),
        open_backend("transformers", bundle, "cpu", "fp32"),
        InferenceSettings(256, "head"),
    )
    loaded = model.tokenizer._loaded
    model.tokenizer._loaded = loaded._replace(pairs_have_types=False)
    found = score_texts(list(zip(PREMISES, HYPOTHESES, strict=True)), model).probabilities
    assert np.abs(found - alone(bundle.path, list(zip(PREMISES, HYPOTHESES, strict=True)))).max() > 0.01


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(4, 16), st.sampled_from(["left", "right"]))
def test_pairs_are_cut_as_the_library_cuts_them(first: int, second: int, longest: int, side: str) -> None:
    library = fast_tokenizer("bert")
    library.enable_truncation(longest, strategy="longest_first", direction=side)
    kept = [k for k in library.encode("a " * first, "i " * second).sequence_ids if k is not None]
    room = longest - 3
    expected = (kept.count(0), kept.count(1))
    assert expected == (longest_first(first, second, room) if first + second > room else (first, second))


# ------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_both_texts(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"pairs{suffix_of(name)}"
    monkeypatch.setattr("test_formats.ROWS", ROWS)
    FORMATS[name][0](path)
    result = flow(tmp_path / "out", path, read=dataclasses.replace(READ, part_rows=4, label_column=""))
    assert [text for rows in result.rows for text in rows.given_texts] == list(
        zip(PREMISES, HYPOTHESES, strict=True)
    )
    assert [rows.head(1).pairs for rows in result.rows] == [[HYPOTHESES[k]] for k in (0, 4, 8)]
    assert result.plan.files[0].columns.text_pair == "hypothesis"


def test_both_texts_may_be_fields_within(tmp_path: Path) -> None:
    reviews = [{"review": {"title": "Fine", "body": "I liked it"}}, {"review": {"title": None, "body": "b"}}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reviews))
    pq.write_table(pa.Table.from_pylist(reviews), tmp_path / "b.parquet")
    read = ReadSettings(text_column="review.body", text_pair_column="review.title")
    for name in ("a.jsonl", "b.parquet"):
        rows = flow(tmp_path / name[0], tmp_path / name, read=read).rows[0]
        assert rows.given_texts == [("I liked it", "Fine"), ("b", None)]


def test_a_second_text_that_is_no_text_is_a_reject_in_its_column(tmp_path: Path) -> None:
    lines = [{"text": "a", "other": "b"}, {"text": "c", "other": 7}, {"text": 7, "other": 7}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    read = ReadSettings(text_pair_column="other")
    (tmp_path / "b.jsonl").write_text('{"text": "a", "other": 7}\n')
    with pytest.raises(DataError, match=r"other \(--text-pair-column\) is a number"):
        flow(tmp_path / "b", tmp_path / "b.jsonl", read=read)
    rows = flow(
        tmp_path / "a", tmp_path / "a.jsonl", read=dataclasses.replace(read, text_column="text")
    ).rows[0]
    assert [(reject.row, reject.column) for reject in rows.rejects] == [(1, "other"), (2, "text")]
    pd.DataFrame({"text": ["a", "b"], "other": ["x", "y" * 50]}).to_feather(tmp_path / "c.arrow")
    small = dataclasses.replace(read, max_row_bytes=40)
    rows = flow(tmp_path / "c", tmp_path / "c.arrow", read=small).rows[0]
    assert [(reject.row, reject.column) for reject in rows.rejects] == [(1, "other")]
    assert rows.given_texts == [("a", "x")]


@pytest.mark.parametrize(
    ("read", "error", "message"),
    [
        (
            {"text_pair_column": "hypotheses"},
            DataError,
            r"no column hypotheses \(--text-pair-column\).*hypothesis.*Columns: id",
        ),
        ({"text_pair_column": "number"}, DataError, r"number \(--text-pair-column\) is a number"),
        (
            {"text_pair_column": "premise"},
            UsageError,
            "--text-column and --text-pair-column are both premise",
        ),
        ({"text_pair_column": "x", "label_column": "x"}, UsageError, "--text-pair-column and --label-column"),
    ],
)
def test_a_second_column_that_cannot_be_meant_is_refused(
    read: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    pd.DataFrame([{**row, "number": 1} for row in ROWS]).to_parquet(tmp_path / "in.parquet")
    with pytest.raises(error, match=message):
        flow(tmp_path / "out", tmp_path / "in.parquet", read=ReadSettings(text_column="premise", **read))


def test_a_column_named_as_the_second_text_is_not_taken_for_the_first(tmp_path: Path) -> None:
    pd.DataFrame({"text": ["a"], "body": ["b"]}).to_csv(tmp_path / "in.csv", index=False)
    columns = (
        flow(tmp_path / "out", tmp_path / "in.csv", read=ReadSettings(text_pair_column="body"))
        .plan.files[0]
        .columns
    )
    assert (columns.text, columns.text_pair) == ("text", "body")


# ----------------------------------------------------------------------------------------------------- missing texts

MISSING: list[GivenText] = [(None, "a"), (" ", "a"), ("a", None), ("a", " "), ("a", "film"), (None, None)]


def test_a_row_needs_both_texts_unless_a_missing_one_counts_as_empty(made: Callable[[str], Path]) -> None:
    bundle = dataclasses.replace(open_bundle(str(made("bert"))), takes_pairs=True)
    backend = open_backend("transformers", bundle, "cpu", "fp32")
    skip = Model(bundle, Tokenizer(bundle), backend, InferenceSettings(256, "head"))
    null, empty, ok = Status.NULL_TEXT, Status.EMPTY_TEXT, Status.OK
    assert score_texts(MISSING, skip).status.tolist() == [null, empty, null, empty, ok, null]
    taken = score_texts(MISSING, skip.with_inference(missing_pair="empty"))
    assert taken.status.tolist() == [null, empty, ok, ok, ok, null]
    np.testing.assert_allclose(
        taken.probabilities[2:4], alone(bundle.path, [("a", ""), ("a", " ")]), rtol=0, atol=1e-5
    )


# ------------------------------------------------------------------------------------------------------------- a run


def test_a_stopped_run_goes_on_and_the_report_has_both_texts(
    made: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = made("roberta")
    frame = pd.DataFrame(ROWS)
    frame.to_csv(tmp_path / "in.csv", index=False)
    read = dataclasses.replace(READ, part_rows=3)
    options: dict[str, Any] = {"read": read, "compute": FP32, "slice_columns": ("hypothesis",)}
    run_score(tmp_path / "in.csv", folder, tmp_path / "whole", **options)
    asked = ScoreSettings((str(tmp_path / "in.csv"),), str(folder), tmp_path / "out", **options)
    with pytest.raises(InterruptedRunError):
        score(asked, lambda _: Stop())  # type: ignore[arg-type,return-value]
    run_score(tmp_path / "in.csv", folder, tmp_path / "out", **options)
    for name in ("predictions/in.csv", "mismatches.csv", "mismatches.parquet", "metrics.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    listed = pd.read_parquet(tmp_path / "out" / "mismatches.parquet")
    assert len(listed)
    found = dict(zip(listed.row, zip(listed.text, listed.text_pair, strict=True), strict=True))
    assert found == {row: (PREMISES[row], HYPOTHESES[row]) for row in listed.row}
    assert "hypothesis" not in listed.columns
    page = (tmp_path / "out" / "report.html").read_text()
    first = listed.row[0]
    assert PREMISES[first][:20] in page
    assert HYPOTHESES[first][:20] in page
    assert "premise and hypothesis" in page
    facts = json.loads((tmp_path / "out" / "run.json").read_bytes())
    assert facts["files"][0]["columns"]["text_pair"] == "hypothesis"
    assert facts["options"]["read"]["text_pair_column"] == "hypothesis"
    compared = run_score(
        tmp_path / "in.csv", folder, tmp_path / "third", baseline=tmp_path / "whole", limit=5, **options
    )
    assert compared.metrics["comparison"]["rows"] == 5


def test_an_actor_of_ray_scores_pairs_as_this_process_does(made: Callable[[str], Path]) -> None:
    bundle = open_bundle(str(made("bert"))).for_texts(are_pairs=True)
    backend = open_backend("transformers", bundle, "cpu", "fp32")
    model = Model(bundle, Tokenizer(bundle), backend, InferenceSettings(256, "head", missing_pair="empty"))
    (found,) = ScoringActor(*_recipe(model)).score([MISSING])
    expected = score_texts(MISSING, model)
    assert found.probabilities.tobytes() == expected.probabilities.tobytes()
    assert found.status.tolist() == expected.status.tolist()


# --------------------------------------------------------------------------------------------------------- refused


@pytest.fixture
def pair_bundle(made: Callable[[str], Path], tmp_path: Path) -> Bundle:
    """A sealed bundle whose canaries are pairs."""
    return open_bundle(str(seal_pairs(make(tmp_path / "bundle", "bert"))))


def seal_pairs(folder: Path) -> Path:
    from batchscore.model.bundle import seal

    pairs = list(zip(PREMISES, HYPOTHESES, strict=True))
    answers = alone(folder, pairs)
    facts = {
        "labels": list(LABELS),
        "max_length": LONGEST,
        "temperature": 1.0,
        "long_text": "head",
        "takes_pairs": True,
        "missing_pair": "empty",
        "canaries": {"texts": pairs, "probabilities": answers.tolist()},
        "training": {},
        "metrics": {},
    }
    seal(folder, facts)
    return folder


def test_a_bundle_of_pairs_wants_pairs_and_brings_its_settings(pair_bundle: Bundle, tmp_path: Path) -> None:
    pd.DataFrame([*ROWS, {**ROWS[0], "hypothesis": None}]).to_parquet(tmp_path / "in.parquet")
    folder = pair_bundle.path
    with pytest.raises(UsageError, match=r"trained on two texts a row.*--text-pair-column"):
        run_score(tmp_path / "in.parquet", folder, tmp_path / "out", read=ReadSettings(text_column="premise"))
    with pytest.raises(UsageError, match=r"--long-text windows is for one text a row"):
        run_score(tmp_path / "in.parquet", folder, tmp_path / "out", read=READ, long_text="windows")
    with pytest.raises(UsageError, match=r"int8 is for one text a row"):
        run_score(
            tmp_path / "in.parquet",
            folder,
            tmp_path / "out",
            read=READ,
            compute=ComputeSettings(precision="int8"),
        )
    with pytest.raises(ModelError, match="two texts a row, and int8 is for one"):
        export_int8(str(folder))
    assert not (tmp_path / "out" / "predictions").exists()
    run_score(tmp_path / "in.parquet", folder, tmp_path / "out", read=READ, compute=FP32)
    frame = pd.read_parquet(tmp_path / "out" / "predictions" / "in.parquet")
    facts = json.loads((tmp_path / "out" / "run.json").read_bytes())
    assert facts["compute"]["backend"] == "torch"  # our own encoder, which is given the types
    expected = alone(folder, [*zip(PREMISES, HYPOTHESES, strict=True), (PREMISES[0], "")])
    np.testing.assert_allclose(probabilities(frame), expected, rtol=0, atol=probing.TOLERANCE)


def test_canaries_that_are_no_pairs_are_refused(pair_bundle: Bundle) -> None:
    from batchscore.model.bundle import seal

    facts = {key: value for key, value in pair_bundle.facts.items() if key not in ("files", "sha256")}
    texts = facts["canaries"]["texts"]
    for wrong in ([*texts[:-1], texts[0][:1]], [*texts[:-1], "one"], [*texts[:-1], ["a", None]]):
        seal(pair_bundle.path, {**facts, "canaries": {**facts["canaries"], "texts": wrong}})
        with pytest.raises(ModelError, match="canaries is missing or cannot be meant"):
            open_bundle(str(pair_bundle.path))


def test_canaries_of_single_texts_do_not_count_for_pairs(
    made: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Our encoder would take all tokens to be of type 0, which no canary of one text shows."""
    folder = seal_bundle(make(tmp_path / "bundle", "bert"))
    pd.DataFrame(ROWS).to_parquet(tmp_path / "in.parquet")
    run_score(tmp_path / "in.parquet", folder, tmp_path / "out", read=READ)
    frame = pd.read_parquet(tmp_path / "out" / "predictions" / "in.parquet")
    expected = alone(folder, list(zip(PREMISES, HYPOTHESES, strict=True)))
    np.testing.assert_allclose(probabilities(frame), expected, rtol=0, atol=probing.TOLERANCE)
    assert "made with one text a row" in caplog.text


def test_missing_pair_without_pairs_is_refused(made: Callable[[str], Path], tmp_path: Path) -> None:
    pd.DataFrame(ROWS).to_parquet(tmp_path / "in.parquet")
    read = ReadSettings(text_column="premise")
    with pytest.raises(UsageError, match=r"--missing-pair is for two texts a row.*--text-pair-column"):
        run_score(tmp_path / "in.parquet", made("bert"), tmp_path / "out", read=read, missing_pair="empty")


def test_a_model_without_room_for_two_texts_is_refused(made: Callable[[str], Path]) -> None:
    bundle = dataclasses.replace(open_bundle(str(made("bert"))), max_length=3)
    Tokenizer(bundle)
    with pytest.raises(ModelError, match="leaves no room for two texts"):
        Tokenizer(dataclasses.replace(bundle, takes_pairs=True))


def test_probes_of_a_pair_model_are_pairs_and_one_is_cut_in_both(made: Callable[[str], Path]) -> None:
    bundle = open_bundle(str(made("bert"))).for_texts(are_pairs=True)
    tokenizer = Tokenizer(bundle)
    texts = probing.probe_texts(tokenizer, are_pairs=True)
    sizes = [len(ids) for ids in tokenizer.token_ids(texts)]
    assert all(isinstance(text, tuple) for text in texts)
    assert sizes[1:4] == [16, 17, 17]
    assert min(len(text.split()) for text in texts[5]) > LONGEST / 2
