"""The trainer, on encoders so small that a training takes a second."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from small_vocabulary import save_tokenizer

from batchscore import samples
from batchscore.cli.train import command
from batchscore.errors import (
    BusyError,
    DataError,
    ModelError,
    NoInputError,
    OutputError,
    StorageError,
    UsageError,
)
from batchscore.model import canaries
from batchscore.model.backends import open_backend, torch_backend
from batchscore.model.bundle import open_bundle
from batchscore.model.canaries import check_canaries
from batchscore.model.scoring import InferenceSettings, Model, compute, conclude, prepare
from batchscore.model.tokenization import Tokenizer
from batchscore.system.locks import locked
from batchscore.training import TrainResult, TrainSettings, attempts, examination, train
from batchscore.training import trainer as trainer_module
from batchscore.training.base_model import open_base, pooling_of
from batchscore.training.data import load_data
from batchscore.training.examination import canary_rows, n_selection_rows, n_validation_rows
from batchscore.training.labels import label_table
from batchscore.training.splits import Split

FILES = {
    "README.md",
    "batchscore.json",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


class Silent:
    """A progress that counts."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def add(self, amount: int, *, counted: bool = True) -> None:
        self.done += amount

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small only wait for a second thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def bases(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of encoders with random weights."""
    import torch
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    bert = make_model()
    distilbert = tmp_path_factory.mktemp("distilbert")
    torch.manual_seed(0)
    vocab_size = save_tokenizer(distilbert)
    config = DistilBertConfig(vocab_size=vocab_size, dim=32, n_layers=2, n_heads=2, hidden_dim=64)
    DistilBertForMaskedLM(config).save_pretrained(distilbert)
    return {"bert": bert, "distilbert": distilbert}


def rows(count: int = 40, labels: tuple[Any, ...] = (0, 1)) -> pd.DataFrame:
    """Texts of many lengths; the label follows from their words."""
    words = ("awful", "great", "fair")
    texts = [f"{words[k % len(labels)]} film {k} " + "very " * (k * 3 % 50) for k in range(count)]
    return pd.DataFrame({"text": texts, "label": [labels[k % len(labels)] for k in range(count)]})


@pytest.fixture
def settings(tmp_path: Path, bases: dict[str, Path]) -> TrainSettings:
    """Train the tiny BERT on forty rows in a Parquet file."""
    rows().to_parquet(tmp_path / "data.parquet")
    return TrainSettings(
        str(tmp_path / "data.parquet"),
        tmp_path / "out",
        base_model=str(bases["bert"]),
        epochs=1,
        max_length=32,
        precision="fp32",  # measuring what is faster takes longer than such a training
    )


def run(settings: TrainSettings, **changes: Any) -> TrainResult:
    return train(dataclasses.replace(settings, **changes), Silent)


def opened(folder: Path) -> Model:
    bundle = open_bundle(str(folder))
    return Model(
        bundle,
        Tokenizer(bundle),
        open_backend("torch", bundle, "cpu", "fp32"),
        InferenceSettings(2048, bundle.long_text),
    )


def predicted(model: Model, texts: list[str]) -> list[str]:
    prepared = prepare(texts, model)
    answers = conclude(prepared, compute(prepared, model), model)
    return [model.bundle.labels[index] for index in answers.predicted]


@pytest.mark.parametrize("recipe", ["full", "head"])
@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_a_bundle_comes_out_that_scorer_and_plain_transformers_agree_on(
    settings: TrainSettings, bases: dict[str, Path], architecture: str, recipe: str, pooling: str
) -> None:
    from transformers import pipeline

    result = run(settings, base_model=str(bases[architecture]), recipe=recipe, pooling=pooling)
    model = opened(result.output)
    check = check_canaries(model)
    assert check is not None
    assert check.largest_change < 1e-5
    assert model.bundle.labels == ("NEGATIVE", "POSITIVE")
    texts = list(rows()["text"])
    answers = pipeline("text-classification", model=str(result.output))(texts, truncation=True)
    assert [answer["label"] for answer in answers] == predicted(model, texts)
    assert {path.name for path in result.output.iterdir()} == FILES


def test_training_learns(settings: TrainSettings, make_model: Callable[..., Path]) -> None:
    result = run(settings, base_model=str(make_model(whole=True)), epochs=20, learning_rate=5e-3)
    assert result.metrics["accuracy"]["value"] == 1.0


def test_bfloat16_is_used_where_it_is_fast(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    for fast in (["fp16"], ["fp16", "bf16"]):
        monkeypatch.setattr(trainer_module, "faster_precisions", lambda _, fast=fast: fast)
        facts = open_bundle(str(run(settings, force=True, precision="auto").output)).facts
        assert facts["training"]["precision"] == ("bf16" if "bf16" in fast else "fp32")


@pytest.mark.parametrize(
    ("precision", "ways"),
    [
        ("bf16", [("torch", "bf16"), ("torch", "fp32"), ("transformers", "fp32")]),
        ("fp32", [("torch", "fp32"), ("transformers", "fp32")]),
    ],
)
def test_rows_are_evaluated_by_the_first_way_that_agrees_with_transformers(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch, precision: str, ways: list[tuple[str, str]]
) -> None:
    """Our own encoder in float32 comes before transformers, which takes twice the time."""
    scored, check = examination._scored, canaries.canary_check
    for wrong in range(len(ways) + 1):
        found: list[tuple[str, str]] = []

        def noted(model: Model, *rest: Any, found: list[tuple[str, str]] = found) -> Any:
            found.append((model.backend.name, model.backend.precision))
            return scored(model, *rest)

        def checked(*arguments: Any, found: list[Any] = found, wrong: int = wrong) -> canaries.CanaryCheck:
            check(*arguments)
            return canaries.CanaryCheck(int(len(found) <= wrong), 0.0)

        monkeypatch.setattr(examination, "_scored", noted)
        monkeypatch.setattr(examination, "canary_check", checked)
        run(settings, precision=precision, force=True)
        assert found == ways[: wrong + 1]


@pytest.mark.parametrize(("slower", "large"), [(20.0, 0), (0.4, 3)])
def test_a_precision_that_a_few_rows_show_to_be_hopeless_is_measured_no_further(
    slower: float, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a processor without bfloat16 a large matmul in it takes a second."""
    measured: list[tuple[str, int]] = []

    def seconds(left: Any, right: Any) -> float:
        kind = str(left.dtype).removeprefix("torch.")
        measured.append((kind, len(left)))
        return len(left) * (slower if kind == "bfloat16" else 1.0)

    monkeypatch.setattr(torch_backend, "_seconds", seconds)
    assert torch_backend.faster_precisions.__wrapped__("cpu") == (() if slower > 1 else ("bf16",))
    assert measured.count(("bfloat16", 1024)) == large


def test_a_part_of_an_epoch_is_enough(settings: TrainSettings) -> None:
    curve = open_bundle(str(run(settings, epochs=0.5).output)).facts["training"]["curve"]
    assert [entry["epoch"] for entry in curve] == [0.5]


def test_the_head_recipe_leaves_the_base_as_it_was(settings: TrainSettings, bases: dict[str, Path]) -> None:
    from safetensors.numpy import load_file

    result = run(settings, recipe="head")
    before, after = (load_file(folder / "model.safetensors") for folder in (bases["bert"], result.output))
    changed = {name for name in after if not np.array_equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_same_seed_and_data_give_the_same_weights(settings: TrainSettings, tmp_path: Path) -> None:
    once = run(settings)
    again = run(settings, output=tmp_path / "again")
    other = run(settings, output=tmp_path / "other", seed=7)
    weights = [(result.output / "model.safetensors").read_bytes() for result in (once, again, other)]
    assert weights[0] == weights[1] != weights[2]
    assert (once.output / "README.md").read_bytes() == (again.output / "README.md").read_bytes()


def test_three_labels_as_texts(settings: TrainSettings, tmp_path: Path) -> None:
    rows(60, ("bad", "good", "so-so")).to_csv(tmp_path / "three.csv", index=False)
    result = run(settings, data=str(tmp_path / "three.csv"))
    assert result.labels == ("bad", "good", "so-so")
    assert len(result.metrics["confusion_matrix"]["counts"]) == 3


def test_the_saved_tokenizer_neither_cuts_nor_pads(settings: TrainSettings) -> None:
    folder = run(settings).output
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    assert tokenizer["truncation"] is None
    assert tokenizer["padding"] is None
    assert json.loads((folder / "tokenizer_config.json").read_bytes())["model_max_length"] == 32
    assert "max_length" not in json.loads((folder / "tokenizer_config.json").read_bytes())


def test_the_configuration_keeps_the_dropout_of_the_base(settings: TrainSettings) -> None:
    config = json.loads((run(settings).output / "config.json").read_bytes())
    assert config["attention_probs_dropout_prob"] == 0.1


def test_the_record_tells_data_settings_and_curve(settings: TrainSettings) -> None:
    result = run(settings, epochs=2)
    facts = open_bundle(str(result.output)).facts
    training = facts["training"]
    assert training["data"]["train"]["rows"] == 32
    assert training["data"]["evaluation"]["rows"] == 8
    assert [entry["epoch"] for entry in training["curve"]] == [1, 2]
    assert training["settings"]["learning_rate"] == 1e-4
    assert training["versions"].keys() >= {"torch", "transformers", "batchscore"}
    assert facts["metrics"]["accuracy"].keys() == {"value", "low", "high"}
    assert facts["temperature"] == 1.0  # too few rows to fit one
    assert len(facts["canaries"]["texts"]) == 8


def test_the_model_card_has_metadata_that_hugging_face_reads(settings: TrainSettings) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(run(settings).output / "README.md")
    assert card.data.eval_results[0].metric_type == "accuracy"
    assert card.data.library_name == "transformers"


@pytest.mark.parametrize(("epochs", "held_out"), [(1, 240), (2, 120)], ids=["one epoch", "the best of two"])
def test_with_many_evaluation_rows_a_temperature_is_fitted(
    settings: TrainSettings, tmp_path: Path, epochs: int, held_out: int
) -> None:
    rows(240).to_parquet(tmp_path / "evaluation.parquet")
    result = run(settings, eval_data=str(tmp_path / "evaluation.parquet"), epochs=epochs)
    facts = open_bundle(str(result.output)).facts
    assert facts["calibration_temperature"] != 1.0
    assert facts["temperature"] == 1.0
    assert facts["metrics"]["accuracy_held_out"]["rows"] == held_out
    assert len(facts["canaries"]["texts"]) == 32


@pytest.mark.parametrize("long_text", ["head-tail", "windows"])
def test_what_happens_to_long_texts_is_chosen_in_the_bundle(settings: TrainSettings, long_text: str) -> None:
    result = run(settings, max_length=16, long_text=long_text)
    model = opened(result.output)
    check = check_canaries(model)
    assert model.inference.long_text == long_text
    assert check is not None
    assert check.largest_change < 1e-5


def test_progress_counts_every_row(settings: TrainSettings) -> None:
    bars: list[Silent] = []

    def progress(total: int) -> Silent:
        bars.append(Silent(total))
        return bars[-1]

    train(dataclasses.replace(settings, epochs=2), progress)
    assert [bar.done for bar in bars] == [2 * 32 + 8] == [bar.total for bar in bars]


# Data ---------------------------------------------------------------------------------------------------------------


def test_a_folder_has_its_own_splits(settings: TrainSettings, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    rows(40).to_parquet(folder / "train-0.parquet")
    rows(6).to_json(folder / "train-1.jsonl", orient="records", lines=True)
    rows(10).to_csv(folder / "test.csv.gz", index=False)
    data = load_data(dataclasses.replace(settings, data=str(folder)))
    assert (len(data.train), len(data.evaluation)) == (46, 10)


def test_files_beside_those_named_test_are_trained_on(settings: TrainSettings, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "test").mkdir(parents=True)
    rows(40).to_parquet(folder / "reviews.parquet")
    rows(10).to_parquet(folder / "test" / "0.parquet")
    data = load_data(dataclasses.replace(settings, data=str(folder)))
    assert (len(data.train), len(data.evaluation)) == (40, 10)


def test_one_file_is_cut_by_label(settings: TrainSettings) -> None:
    data = load_data(settings)
    assert sorted(data.evaluation.labels) == [0] * 4 + [1] * 4
    assert not set(data.train.texts) & set(data.evaluation.texts)


def test_shuffle_and_limit_are_those_of_the_origin_exercise(settings: TrainSettings, tmp_path: Path) -> None:
    import datasets

    data = load_data(dataclasses.replace(settings, eval_data=settings.data, limit=5))
    wanted = datasets.Dataset.from_pandas(rows()).shuffle(seed=42).select(range(5))
    assert data.train.texts == list(wanted["text"])
    assert data.train.labels == list(wanted["label"])
    assert len(data.evaluation) == 5


def test_what_cannot_be_used_is_counted_and_told(settings: TrainSettings, tmp_path: Path) -> None:
    lines = "".join(f"{'great' if k % 2 else 'awful'} {k},{k % 2}\n" for k in range(20))
    text = f'text,label\n{lines}"",1\n  ,0\nfine,\nNA,1\na,b,c\n'
    (tmp_path / "odd.csv.gz").write_bytes(gzip.compress(text.encode()))
    changed = dataclasses.replace(settings, data=str(tmp_path / "odd.csv.gz"))
    said: list[str] = []
    train(changed, Silent, said.append)
    assert load_data(changed).left_out["train"] == {"empty_text": 2, "null_label": 1, "unreadable": 1}
    assert sum("left out" in line for line in said) == 3
    assert "NA" in {*load_data(changed).train.texts, *load_data(changed).evaluation.texts}


def test_an_evaluation_label_that_training_never_saw_is_counted(
    settings: TrainSettings, tmp_path: Path
) -> None:
    rows(12, (0, 1, 2)).to_parquet(tmp_path / "test.parquet")
    data = load_data(dataclasses.replace(settings, eval_data=str(tmp_path / "test.parquet")))
    assert data.left_out["evaluation"] == {"unknown_label": 4}


def test_the_sample_reviews_are_data(settings: TrainSettings) -> None:
    data = load_data(dataclasses.replace(settings, data="builtin"))
    usable = [row for row in samples.load("test") if (row["text"] or "").strip()]
    assert data.labels == ("NEGATIVE", "POSITIVE")
    assert len(data.evaluation) == len(usable)


def test_a_hub_data_set_brings_its_class_names(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    split = datasets.Dataset.from_dict(rows().to_dict("list"), features=features)
    both = datasets.DatasetDict({"train": split, "test": split, "unsupervised": split})
    monkeypatch.setattr(datasets, "load_dataset", lambda name: {"imdb": both}[name])
    data = load_data(dataclasses.replace(settings, data="imdb"))
    assert data.labels == ("NEGATIVE", "POSITIVE")
    assert len(data.evaluation) == 40


def test_a_hub_that_cannot_be_reached_is_no_input(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def refuse(name: str) -> None:
        raise ConnectionError(f"Couldn't reach {name!r}")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(NoInputError, match="no file or folder imdb"):
        load_data(dataclasses.replace(settings, data="imdb"))


def test_a_mistyped_file_name_asks_no_network(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", None)
    with pytest.raises(NoInputError, match=r"revews\.csv"):
        load_data(dataclasses.replace(settings, data="revews.csv"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"text_column": "texx"}, "Did you mean text", id="a text column that is not there"),
        pytest.param({"label_column": "stars"}, "no column stars", id="a label column that is not there"),
    ],
)
def test_bad_columns_are_told(settings: TrainSettings, changes: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(settings, **changes)
    assert not settings.output.exists()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        pytest.param(rows().drop(columns="label"), "no label column", id="no labels"),
        pytest.param(rows().assign(label=1), "1 different values", id="one label"),
        pytest.param(rows(0), "0 different values", id="no rows"),
        pytest.param(rows().assign(text=" "), "no row with a text", id="no texts"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused(
    settings: TrainSettings, tmp_path: Path, frame: pd.DataFrame, message: str
) -> None:
    frame.to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(DataError, match=message):
        run(settings, data=str(tmp_path / "bad.csv"))


# Labels -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "class_names", "given", "names"),
    [
        pytest.param([0, 1, 1, 0], None, {}, ("NEGATIVE", "POSITIVE"), id="0 and 1"),
        pytest.param(["1", "0", "1.0", "0"], None, {}, ("NEGATIVE", "POSITIVE"), id="0 and 1 as texts"),
        pytest.param(["Pos", "neg", "pos", "neg"], None, {}, ("NEGATIVE", "POSITIVE"), id="neg and pos"),
        pytest.param(["b", "a", "b", "a"], None, {}, ("a", "b"), id="texts, sorted"),
        pytest.param(["Ham", "spam", "ham", "Ham"], None, {}, ("Ham", "spam"), id="most frequent spelling"),
        pytest.param([10, 9, 2, 10, 9, 2], None, {}, ("2", "9", "10"), id="numbers in their order"),
        pytest.param(["x", "y", "x", "y"], ["y", "x"], {}, ("y", "x"), id="declared names in their order"),
        pytest.param([0, 1, 0, 1], None, {"0": "ham", "1": "spam"}, ("ham", "spam"), id="given names"),
        pytest.param(
            ["y", "x"] * 2, ["y", "x"], {"0": "no"}, ("no", "x"), id="given by number of a declared name"
        ),
        pytest.param(
            [1, 2, 3, 4],
            None,
            {"1": "low", "2": "low", "3": "high", "4": "high"},
            ("low", "high"),
            id="merged",
        ),
    ],
)
def test_labels_get_their_names(
    values: list[Any], class_names: list[str] | None, given: dict[str, str], names: tuple[str, ...]
) -> None:
    assert label_table(values, class_names, given).names == names


def test_a_column_with_nearly_as_many_values_as_rows_is_hardly_the_label() -> None:
    with pytest.raises(DataError, match="4 different values in 5 rows"):
        label_table([1, 2, 3, 4, 1, None], None, {})


def test_a_name_for_a_value_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="There are: 0, 1"):
        label_table([0, 1, 0, 1], None, {"2": "x"})


# Pooling and canaries -----------------------------------------------------------------------------------------------


def test_mean_pooling_gives_the_mean_of_the_tokens_that_are_not_padding(bases: dict[str, Path]) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    from batchscore.training.mean_pooling import append_mean_layer

    model = AutoModelForSequenceClassification.from_pretrained(bases["bert"]).eval()
    ids = torch.randint(1000, 2000, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    with torch.inference_mode():
        tokens = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = torch.stack([tokens[0].mean(0), tokens[1, :4].mean(0)])
        append_mean_layer(model)
        first = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
    torch.testing.assert_close(
        first, torch.nn.functional.layer_norm(mean, mean.shape[-1:]), atol=0.02, rtol=0
    )


@pytest.mark.parametrize(
    ("architecture", "recipe", "wanted"),
    [("distilbert", "full", "mean"), ("distilbert", "head", "first"), ("bert", "full", "first")],
    ids=["encoder, all layers", "encoder, head alone", "already a classifier"],
)
def test_the_mean_is_pooled_where_all_of_an_encoder_is_trained(
    settings: TrainSettings, bases: dict[str, Path], architecture: str, recipe: str, wanted: str
) -> None:
    settings = dataclasses.replace(settings, recipe=recipe, base_model=str(bases[architecture]))
    assert pooling_of(open_base(settings), settings) == wanted


def test_a_bundle_with_a_mean_layer_is_trained_further_as_it_is(
    settings: TrainSettings, tmp_path: Path
) -> None:
    first = run(settings, pooling="mean", output=tmp_path / "first")
    second = run(settings, base_model=str(first.output))
    layers = [
        json.loads((r.output / "config.json").read_bytes())["num_hidden_layers"] for r in (first, second)
    ]
    assert layers == [3, 3]


def test_mean_pooling_refuses_an_architecture_that_it_does_not_know() -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    from batchscore.training.mean_pooling import append_mean_layer

    model = GPT2ForSequenceClassification(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=20))
    with pytest.raises(UsageError, match="gpt2"):
        append_mean_layer(model)


def test_canaries_are_spread_over_labels_and_lengths_and_hold_the_longest() -> None:
    count = 200
    split = Split([f"text {k}" for k in range(count)], [k % 2 for k in range(count)])
    is_clear = np.arange(count) != 7
    n_tokens = np.arange(count, dtype=np.int32) + 5
    n_tokens[100] = 900
    picked = canary_rows(split, is_clear, n_tokens, 512, np.array(split.labels))
    assert len(set(picked)) == 32
    assert 100 in picked
    assert 7 not in picked
    assert 15 <= sum(split.labels[row] for row in picked) <= 17
    assert n_tokens[picked].min() < 20
    assert sorted(n_tokens[picked])[-2] > 190


@pytest.mark.parametrize(("rows", "chosen"), [(8, 8), (199, 199), (200, 100), (500, 250), (20_000, 2000)])
def test_half_of_the_evaluation_rows_never_meet_training(rows: int, chosen: int) -> None:
    assert n_validation_rows(rows) == n_selection_rows(rows, selects_epoch=True) == chosen


@pytest.mark.parametrize(("rows", "chosen"), [(99, 99), (100, 0), (500, 0)])
def test_where_nothing_was_chosen_all_rows_may_calibrate_if_they_are_enough(rows: int, chosen: int) -> None:
    assert n_selection_rows(rows, selects_epoch=False) == chosen


# The output ---------------------------------------------------------------------------------------------------------


def test_an_output_that_holds_something_is_refused_before_any_work(settings: TrainSettings) -> None:
    settings.output.mkdir()
    (settings.output / "notes.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(OutputError, match=r"notes\.txt"):
            run(settings, data="/nowhere.csv", force=force)
    assert [path.name for path in settings.output.iterdir()] == ["notes.txt"]


def test_force_replaces_a_bundle(settings: TrainSettings) -> None:
    first = run(settings)
    with pytest.raises(OutputError, match="--force"):
        run(settings, seed=7)
    second = run(settings, seed=7, force=True)
    assert second.fingerprint != first.fingerprint
    assert open_bundle(str(settings.output)).fingerprint == second.fingerprint
    assert sorted(path.name for path in settings.output.parent.iterdir()) == ["data.parquet", "out"]


@pytest.mark.parametrize("step", ["fit_rows", "examine", "seal", "publish_bundle"])
@pytest.mark.parametrize("error", [RuntimeError])
def test_a_training_that_fails_midway_leaves_nothing(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(attempts if step in {"fit_rows", "examine"} else trainer_module, step, fail)
    with pytest.raises(error):
        run(settings)
    assert [path.name for path in settings.output.parent.iterdir()] == ["data.parquet"]


def test_a_full_disk_is_a_storage_error(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(attempts, "save_classifier", fail)
    with pytest.raises(StorageError, match="No space left"):
        run(settings)
    assert not settings.output.exists()


def test_what_a_killed_training_left_is_cleared(settings: TrainSettings) -> None:
    left_over = settings.output.parent / ".out.training" / "bundle"
    left_over.mkdir(parents=True)
    (left_over / "model.safetensors").write_bytes(b"half")
    run(settings)
    assert sorted(path.name for path in settings.output.parent.iterdir()) == ["data.parquet", "out"]


def test_of_two_trainings_into_one_output_one_wins(settings: TrainSettings) -> None:
    work = settings.output.parent / ".out.training"
    work.mkdir()
    with locked(work), pytest.raises(BusyError):
        run(settings)
    assert not settings.output.exists()


@pytest.mark.parametrize("base", ["/nowhere", "some/hub-id"])
def test_a_base_model_that_is_not_there_is_refused(settings: TrainSettings, base: str) -> None:
    with pytest.raises(ModelError, match=base):
        run(settings, base_model=base)


def test_an_encoder_whose_weights_are_not_in_the_folder_is_refused(
    settings: TrainSettings, bases: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "hollow"
    folder.mkdir()
    for path in bases["bert"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "encoder" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="weights of the encoder are not in the folder"):
        run(settings, base_model=str(folder))


# The command --------------------------------------------------------------------------------------------------------


def test_the_command_shows_accuracy_two_rows_and_two_mismatches(settings: TrainSettings) -> None:
    arguments = [
        "--data",
        settings.data,
        "--output",
        str(settings.output),
        "--base-model",
        settings.base_name,
    ]
    short = ["--epochs", "1", "--max-length", "32", "--precision", "fp32"]
    done = CliRunner().invoke(command, [*arguments, *short])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("accuracy 0.")
    assert [line.partition(":")[0] for line in lines[1:5]] == ["scored", "scored", "mismatch", "mismatch"]
    assert "epoch 1 of 1" in done.stderr


def test_the_command_gives_one_line_of_json(settings: TrainSettings) -> None:
    arguments = [
        "--data",
        settings.data,
        "--output",
        str(settings.output),
        "--base-model",
        settings.base_name,
    ]
    names = ["--label-name", "0=no,1=yes"]
    done = CliRunner().invoke(
        command,
        [*arguments, *names, "--epochs", "1", "--max-length", "32", "--precision", "fp32", "--json", "-q"],
    )
    summary = json.loads(done.stdout)
    assert summary["status"] == "trained"
    assert summary["labels"] == ["no", "yes"]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param(["--data", "/nowhere.csv"], 66, id="no such data"),
        pytest.param(["--base-model", "/nowhere"], 78, id="no such base model"),
        pytest.param(["--label-column", "nope"], 65, id="no such column"),
        pytest.param(["--label-name", "oops"], 2, id="no such label name"),
        pytest.param(["--output", "/proc/nowhere/out"], 73, id="no such place"),
    ],
)
def test_the_command_exits_with_the_code_of_the_error(
    settings: TrainSettings, changes: list[str], code: int
) -> None:
    arguments = [
        "--data",
        settings.data,
        "--output",
        str(settings.output),
        "--base-model",
        settings.base_name,
    ]
    done = CliRunner().invoke(command, [*arguments, *changes])
    assert done.exit_code == code
    assert done.stderr.startswith("error: ")
