"""Answers are those of plain transformers, one text at a time, or the model is refused: tiny models of many kinds.

The oracle is ``model(**tokenizer(text))`` on a model that is loaded for each text alone. What no two kinds share is how they
bear padding, so each has its expected way here, and the ways that are wrong for it are shown to be wrong.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run_score, seal_bundle
from kinds import KINDS, OTHER, REFUSED, VOCABULARY
from numpy.typing import NDArray
from test_scoring import rows_of
from test_training import Silent, rows
from test_workers import Stop
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from batchscore import samples
from batchscore.config import ComputeSettings, ReadSettings, ScoreSettings
from batchscore.errors import InterruptedRunError, ModelError
from batchscore.evaluation import apply_temperature
from batchscore.model import bundle as bundle_module
from batchscore.model import exporting, loading, probing, scoring
from batchscore.model.backends import open_backend, packed, torch_backend
from batchscore.model.bundle import open_bundle
from batchscore.model.heads import Activation
from batchscore.model.loading import ModelSettings, load_model
from batchscore.model.scoring import Computation, InferenceSettings, Model, prepare, score_part
from batchscore.model.tokenization import Tokenizer
from batchscore.records import Task
from batchscore.runs.run import score
from batchscore.training import train
from batchscore.training.settings import TrainSettings

LONGEST = 64
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<cls>"]
FRAMES = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@pytest.fixture(scope="session")
def words() -> Fast:
    """A byte-level BPE tokenizer with a vocabulary from the sample reviews."""
    fast: Any = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer: Any = trainers.BpeTrainer
    fast.train_from_iterator(
        TEXTS,
        trainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=letters, show_progress=False),
    )
    return fast  # type: ignore[no-any-return]


REVIEWS = [row["text"] for row in samples.rows() if row["text"]]
TEXTS = [
    *(" ".join(REVIEWS[k].split()[:n]) for k, n in enumerate((1, 3, 7, 8, 9, 13, 20, 200))),
    "film",
    "bad",
    "<pad>",
    "a </s> in the middle",
    "the end <pad>",
]
"""From one token to many more than the model takes; special tokens in a text are part of it."""

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def make(words: Fast, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A plain folder: a model of a kind with random weights, and a tokenizer with the given settings."""

    def made(
        kind: str, template: str = "<s> $A </s>", tokenizer: Any = (), outputs: int = 2, **options: Any
    ) -> Path:
        options = {**KINDS[kind][0], **options} if kind in KINDS else options
        folder: Path = tmp_path_factory.mktemp(kind)
        save_model(folder, kind, options, outputs)
        save_tokenizer(folder, words, template, **{"model_max_length": LONGEST, **dict(tokenizer)})
        return folder

    return made


def save_model(folder: Path, kind: str, options: dict[str, Any], outputs: int = 2) -> None:
    names = ("NEGATIVE", "POSITIVE", "NEITHER")[:outputs]
    torch.manual_seed(0)
    made: Any = AutoModelForSequenceClassification
    config = AutoConfig.for_model(
        kind,
        **{"vocab_size": VOCABULARY, **FRAMES, **options},
        id2label=dict(enumerate(names)),
        label2id={name: k for k, name in enumerate(names)},
    )
    model = made.from_config(config)
    for weight in model.parameters():
        if weight.ndim > 1:  # so that probabilities differ from row to row
            torch.nn.init.normal_(weight, std=0.25)
    model.save_pretrained(folder)


def save_tokenizer(folder: Path, words: Fast, template: str, **settings: Any) -> None:
    saved: Any = importlib.import_module("transformers").PreTrainedTokenizerFast
    fast: Any = Fast.from_str(words.to_str())
    marks = [(token, SPECIAL.index(token)) for token in SPECIAL]
    fast.post_processor = processors.TemplateProcessing(single=template, special_tokens=marks)
    tokens = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    saved(tokenizer_object=fast, **{**tokens, **settings}).save_pretrained(folder)


def alone(folder: Path, texts: Sequence[str] = TEXTS, max_length: int = LONGEST) -> NDArray[np.float64]:
    """Probabilities ``[n, C]`` of plain transformers, each text by itself, to a model that has seen no other."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    loaded = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    found = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.inference_mode():
            found.append(copy.deepcopy(loaded)(**inputs).logits[0].double().softmax(-1).numpy())
    assert np.std(found, axis=0).max() > 0.01  # else nothing would be compared
    return np.stack(found)


def loaded(folder: Path, **wanted: Any) -> tuple[Model, dict[str, Any]]:
    settings = ComputeSettings(
        **{"precision": "fp32", "max_batch_tokens": 256, "backend": "transformers", **wanted}
    )
    return load_model(open_bundle(str(folder)), ModelSettings(settings, "head"), {})


def scored(model: Model, texts: Sequence[str] = TEXTS) -> NDArray[np.float32]:
    """Probabilities ``[n, C]``; NaN where a row failed."""
    return score_part(rows_of(list(texts)), model).probabilities


# ----------------------------------------------------------------------------------------------------------- the kinds


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_answers_are_those_of_plain_transformers(kind: str, make: Make) -> None:
    folder = make(kind, tokenizer={"padding_side": "left"} if kind == "xlnet" else {})
    model, compute = loaded(folder)
    assert (compute["backend"], compute["padding"]) == KINDS[kind][1:]
    np.testing.assert_allclose(scored(model), alone(folder), rtol=0, atol=probing.TOLERANCE)


@pytest.mark.parametrize("kind", sorted(OTHER))
def test_where_padding_on_the_right_is_not_taken_it_would_be_wrong(kind: str, make: Make) -> None:
    bundle = open_bundle(str(make(kind)))
    backend = open_backend("transformers", bundle, "cpu", "fp32")
    model = Model(bundle, Tokenizer(bundle), backend, InferenceSettings(256, "head"))
    assert np.nanmax(np.abs(scored(model) - alone(bundle.path))) > 10 * probing.TOLERANCE


def test_a_mobilebert_whose_padding_has_a_zero_embedding_is_padded(make: Make) -> None:
    folder = make("mobilebert")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.get_input_embeddings().weight.data[0] = 0
    model.save_pretrained(folder)
    padded, compute = loaded(folder)
    assert compute["padding"] == "right"
    np.testing.assert_allclose(scored(padded), alone(folder), rtol=0, atol=probing.TOLERANCE)


@pytest.mark.parametrize("kind", ["big_bird", "funnel"])
def test_workers_share_a_model_that_keeps_what_it_met(kind: str, make: Make) -> None:
    """BigBird's way of attention and Funnel's last length are attributes of the model."""
    folder = make(kind)
    model, _ = loaded(folder)
    prepared, expected = prepare(TEXTS, model), alone(folder)
    with ThreadPoolExecutor(4) as workers:
        for _ in range(3):
            found = Computation(prepared, model, workers.map).result().logits
            exact = torch.from_numpy(found).double().softmax(-1).numpy()
            np.testing.assert_allclose(exact, expected, rtol=0, atol=probing.TOLERANCE)


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_what_cannot_be_answered_alike_is_refused(kind: str, make: Make) -> None:
    options, message, _ = REFUSED[kind]
    with pytest.raises(ModelError, match=message):
        loaded(make(kind, **options))


def test_the_table_of_architectures_is_current() -> None:
    """Written by ``python jobs/architectures.py``, from the kinds that are proven here."""
    path = Path(__file__).parents[1] / "jobs" / "architectures.py"
    spec = importlib.util.spec_from_file_location("architectures", path)
    assert spec is not None
    assert spec.loader is not None
    job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)
    assert job.PAGE.read_text(encoding="utf-8") == job.page()
    assert len(KINDS) >= 40


# ------------------------------------------------------------------------------------------------- heads of every kind


@pytest.mark.parametrize(
    ("config", "head"),
    [
        ({"problem_type": "multi_label_classification"}, (Task.MULTI_LABEL, 3, Activation.SIGMOID)),
        ({}, (Task.REGRESSION, 1, Activation.SIGMOID)),
        ({"problem_type": "regression"}, (Task.REGRESSION, 1, Activation.NONE)),
    ],
    ids=["several labels", "a sigmoid", "a value"],
)
@pytest.mark.parametrize(("kind", "way"), [("roberta", "right"), ("gpt2", "right"), ("fnet", "none")])
def test_every_kind_of_head_is_probed(
    kind: str,
    way: str,
    config: dict[str, Any],
    head: tuple[Task, int, Activation],
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bundle_module, "_refuse_unsupported", lambda *_: None, raising=False)
    folder = make(kind, outputs=head[1], **config)
    model, compute = loaded(folder)
    bundle = model.bundle
    assert (bundle.task, len(bundle.labels), bundle.head.activation) == head
    assert compute["padding"] == way
    prepared = prepare(TEXTS, model)
    found = bundle.answers(Computation(prepared, model).result().logits)
    pipeline = importlib.import_module("transformers").pipeline("text-classification", folder, device="cpu")
    for text, answers in zip(TEXTS, found, strict=True):
        said = {each["label"]: each["score"] for each in pipeline(text, top_k=None, truncation=True)}
        expected = np.array([said[label] for label in bundle.labels])
        assert bundle.head.changes(answers, expected).max() <= probing.TOLERANCE


def test_a_value_that_is_off_is_noticed_however_large_it_is(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A regression of thousands: 1e-5 of its size is rounding, a hundredth is not."""
    monkeypatch.setattr(bundle_module, "_refuse_unsupported", lambda *_: None, raising=False)
    folder = make("fnet", outputs=1, problem_type="regression")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.classifier.bias.data[:] = 5000.0
    model.save_pretrained(folder)
    _, compute = loaded(folder)
    assert compute["padding"] == "none"


# -------------------------------------------------------------------------- decoders, whose heads look for the last token


@pytest.mark.parametrize(
    ("config", "tokenizer", "way"),
    [
        pytest.param({}, {}, "right", id="one padding token"),
        pytest.param(
            {"pad_token_id": 2}, {"pad_token": "</s>"}, "right", id="the end of a text is the padding"
        ),
        pytest.param({"pad_token_id": 4}, {}, "right", id="the tokenizer has another"),
        pytest.param({"pad_token_id": 4}, {"pad_token": None}, "right", id="the tokenizer has none"),
        pytest.param({"pad_token_id": None}, {}, "single", id="the model has none"),
        pytest.param({"pad_token_id": None}, {"pad_token": None}, "single", id="neither has one"),
        pytest.param({"pad_token_id": -1}, {}, "none", id="the model's is no token"),
        pytest.param({}, {"padding_side": "left"}, "right", id="the tokenizer pads on the left"),
    ],
)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_decoder_reads_the_last_token_of_the_text(
    kind: str, config: dict[str, Any], tokenizer: dict[str, Any], way: str, make: Make
) -> None:
    folder = make(kind, template="$A", tokenizer=tokenizer, **config)
    model, compute = loaded(folder)
    assert compute["padding"] == way
    np.testing.assert_allclose(scored(model), alone(folder), rtol=0, atol=probing.TOLERANCE)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 2.0},
        {
            "rope_type": "longrope",
            "long_factor": [3.0] * 4,
            "short_factor": [1.0] * 4,
            "original_max_position_embeddings": 24,
            "factor": 2.0,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_positions_that_stretch_with_the_longest_row_meet_no_longer_one(
    rope: dict[str, Any], make: Make
) -> None:
    rope = {"rope_theta": 10_000.0, **rope}
    folder = make("llama", rope_parameters=rope, max_position_embeddings=24)
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": LONGEST}))
    model, compute = loaded(folder)
    assert (compute["backend"], compute["padding"]) == ("fresh", "none")
    np.testing.assert_allclose(scored(model), alone(folder), rtol=0, atol=probing.TOLERANCE)


# ------------------------------------------------------------------------------------------ what the tokenizer says

TYPED = ["input_ids", "token_type_ids", "attention_mask"]


@pytest.mark.parametrize(
    ("kind", "template", "settings"),
    [
        pytest.param("bert", "<s> $A </s>", {"truncation_side": "left"}, id="cut on the left"),
        pytest.param("llama", "<s> $A", {"truncation_side": "left"}, id="a decoder cut on the left"),
        pytest.param("bert", "<s>:1 $A:0 </s>:1", {"model_input_names": TYPED}, id="types before and behind"),
        pytest.param("bert", "<s> $A:1 </s>:1", {"model_input_names": TYPED}, id="types of the text"),
        pytest.param(
            "xlnet",
            "$A </s> <cls>:2",
            {"model_input_names": TYPED, "padding_side": "left"},
            id="xlnet's third segment",
        ),
        pytest.param("gpt2", "$A", {"model_input_names": TYPED}, id="a type of 0 is not none"),
        pytest.param("bert", "<s> $A </s>", {"split_special_tokens": True}, id="special tokens as letters"),
    ],
)
def test_what_the_tokenizer_says_is_obeyed(
    kind: str, template: str, settings: dict[str, Any], make: Make
) -> None:
    folder, default = make(kind, template, settings), make(kind, template.replace(":1", "").replace(":2", ""))
    model, _ = loaded(folder)
    expected = alone(folder)
    np.testing.assert_allclose(scored(model), expected, rtol=0, atol=probing.TOLERANCE)
    assert np.abs(expected - alone(default)).max() > 100 * probing.TOLERANCE


def test_the_tokens_of_a_long_text_are_those_that_transformers_keeps(make: Make) -> None:
    for side in ("left", "right"):
        folder = make("bert", tokenizer={"truncation_side": side})
        tokenizer = Tokenizer(open_bundle(str(folder)))
        reference = AutoTokenizer.from_pretrained(folder)
        for text, ids in zip(TEXTS, tokenizer.encode(TEXTS, "head").input_ids, strict=True):
            assert ids.tolist() == reference(text, truncation=True, max_length=LONGEST)["input_ids"]


# --------------------------------------------------------------------------------------------------------------- runs


def test_a_run_says_how_it_padded_and_goes_on_the_same_way(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make("big_bird")
    pd.DataFrame({"text": TEXTS}).to_parquet(tmp_path / "in.parquet")
    read, compute = ReadSettings(part_rows=6), ComputeSettings(precision="fp32")
    run_score(tmp_path / "in.parquet", folder, tmp_path / "whole", read=read, compute=compute)
    inputs = (str(tmp_path / "in.parquet"),)
    stopped = ScoreSettings(inputs, str(folder), tmp_path / "run", read=read, compute=compute)
    with pytest.raises(InterruptedRunError):
        score(stopped, lambda _: Stop())  # type: ignore[arg-type,return-value]
    monkeypatch.setattr(loading, "padded_safely", lambda _: pytest.fail("probed again"))
    run_score(tmp_path / "in.parquet", folder, tmp_path / "run", read=read, compute=compute)
    runs = [json.loads((tmp_path / name / "run.json").read_bytes()) for name in ("run", "whole")]
    assert [run["compute"]["padding"] for run in runs] == ["none", "none"]
    assert [run["compute"]["backend"] for run in runs] == ["fresh", "fresh"]
    one, other = (tmp_path / name / "predictions" / "in.parquet" for name in ("run", "whole"))
    assert one.read_bytes() == other.read_bytes()
    found = pd.read_parquet(one)[["prob_NEGATIVE", "prob_POSITIVE"]].to_numpy()
    np.testing.assert_allclose(found, alone(folder), rtol=0, atol=probing.TOLERANCE)


def test_a_model_that_transformers_cannot_run_on_one_text_is_refused(make: Make) -> None:
    folder = make("nystromformer", num_landmarks=8, segment_means_seq_len=64)
    with pytest.raises(ModelError, match=r"transformers cannot score a text of \d+ tokens by itself"):
        loaded(folder)


def test_a_bundle_of_ours_is_probed_too_and_its_canaries_were_not_padded(make: Make) -> None:
    """Sealed by what pads on the right, an FNet bundle holds canaries that no text alone has."""
    sealed = seal_bundle(make("fnet"))
    with pytest.raises(ModelError, match="does not answer as it did"):
        loaded(sealed)


def test_a_precision_that_fails_on_the_canaries_gives_way_to_the_next(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = packed.pack

    def broken(encoder: Any, dtype: torch.dtype) -> Any:
        def forward(*_: Any) -> Any:
            raise RuntimeError("could not create a primitive")

        return forward if dtype == torch.bfloat16 else pack(encoder, dtype)

    monkeypatch.setattr(packed, "pack", broken)
    monkeypatch.setattr(torch_backend, "faster_precisions", lambda _: ["bf16"])
    _, compute = loaded(tiny_bundle, precision="auto", backend="auto")
    assert (compute["backend"], compute["precision"]) == ("torch", "fp32")
    with pytest.raises(ModelError, match="could not create a primitive"):
        loaded(tiny_bundle, precision="bf16", backend="torch")


def test_a_plain_folder_is_held_against_its_probes_in_a_lower_precision(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make("bert")  # whose probabilities change by 0.0018
    assert loaded(folder, precision="bf16")[1]["precision"] == "bf16"
    monkeypatch.setattr(probing, "CANARY_TOLERANCE", 1e-4)
    with pytest.raises(ModelError, match=r"in bf16 a probability changes by .* Use --precision fp32"):
        loaded(folder, precision="bf16")


@pytest.mark.parametrize("kind", ["fnet", "xlnet", "roberta"])
def test_canaries_of_a_new_bundle_are_the_answers_of_plain_transformers_to_each_text_by_itself(
    kind: str, make: Make, tmp_path: Path
) -> None:
    inputs = {"model_input_names": ["input_ids"]} if kind == "fnet" else {}
    base = make(kind, tokenizer={"padding_side": "left", **inputs})
    rows().to_parquet(tmp_path / "data.parquet")
    settings = TrainSettings(str(tmp_path / "data.parquet"), tmp_path / "out", base_model=str(base))
    train(dataclasses.replace(settings, epochs=1, max_length=48, precision="fp32"), Silent)
    bundle = open_bundle(str(tmp_path / "out"))
    assert bundle.canaries is not None
    logits = np.log(alone(bundle.path, [str(text) for text in bundle.canaries.texts], 48))
    expected = apply_temperature(logits, bundle.temperature)
    np.testing.assert_allclose(bundle.canaries.probabilities, expected, rtol=0, atol=1e-6)
    assert loaded(bundle.path)[1]["padding"] == KINDS[kind][2]


def test_a_base_without_any_token_to_pad_with_is_refused_before_it_is_trained(
    make: Make, tmp_path: Path
) -> None:
    base = make("gpt2", tokenizer={"pad_token": None, "eos_token": None}, pad_token_id=None)
    rows().to_parquet(tmp_path / "data.parquet")
    settings = TrainSettings(str(tmp_path / "data.parquet"), tmp_path / "out", base_model=str(base), epochs=1)
    with pytest.raises(ModelError, match=r"neither a pad_token.*tokenizer\.save_pretrained"):
        train(dataclasses.replace(settings, precision="fp32"), Silent)


def test_int8_is_not_exported_for_a_model_that_does_not_bear_padding(make: Make) -> None:
    with pytest.raises(ModelError, match="does not bear padding on the right"):
        exporting.export_int8(str(seal_bundle(make("fnet"))))


# -------------------------------------------------------------------------------------------------------------- probes


def test_probes_have_the_lengths_at_which_something_may_go_wrong(make: Make) -> None:
    tokenizer = Tokenizer(open_bundle(str(make("bert"))))
    lengths = [len(ids) for ids in tokenizer.token_ids(probing.probe_texts(tokenizer))]
    assert lengths[1:5] == [16, 17, 17, 47]
    assert lengths[0] < 8
    assert lengths[5] > LONGEST
    texts = probing.probe_texts(tokenizer)
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("longest", [5, 17, 64, 512, 5000])
def test_no_probe_is_longer_than_its_limit(longest: int, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make("bert", tokenizer={"model_max_length": longest}, max_position_embeddings=8192)
    seen: list[int] = []
    backend = open_backend("transformers", open_bundle(str(folder)), "cpu", "fp32")
    logits = type(backend).logits

    def note(self: Any, batch: Any) -> Any:
        seen.append(batch.input_ids.shape[1])
        return logits(self, batch)

    monkeypatch.setattr(type(backend), "logits", note)
    bundle = open_bundle(str(folder))
    probing.probe(Model(bundle, Tokenizer(bundle), backend, InferenceSettings(256, "head")))
    assert max(seen) == min(longest, scoring.LONGEST_PROBE)


def test_what_begins_beyond_the_longest_probe_meets_texts_by_themselves(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of this BigBird attention turns sparse beyond 28 tokens, which probes of 16 do not see."""
    monkeypatch.setattr(scoring, "LONGEST_PROBE", 16)
    monkeypatch.setattr(probing, "LONGEST_PROBE", 16)
    folder = make("big_bird")
    model, compute = loaded(folder)
    assert compute["padding"] == "right"
    expected = alone(folder)
    np.testing.assert_allclose(scored(model), expected, rtol=0, atol=probing.TOLERANCE)
    monkeypatch.setattr(scoring, "LONGEST_PROBE", 1000)
    assert np.abs(scored(model) - expected).max() > 100 * probing.TOLERANCE
