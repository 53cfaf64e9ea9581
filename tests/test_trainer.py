"""The trainer beyond the first bundle: stored states, resume, odd data, many labels, a search, the record."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from small_vocabulary import save_encoder
from test_training import Silent, rows

from batchscore.cli import main
from batchscore.cli.train import command
from batchscore.errors import DataError, ModelError, OutputError, StorageError, UsageError
from batchscore.model import tokenization
from batchscore.model.bundle import open_bundle
from batchscore.model.bundle_facts import FACTS
from batchscore.model.careful_encoding import Untokenised
from batchscore.model.scoring import InferenceSettings, Model, compute, conclude, prepare
from batchscore.model.tokenization import Tokenizer
from batchscore.records import Task
from batchscore.runs.inspection import bundle_lines, inspect
from batchscore.system.storage import sha256_of
from batchscore.system.terminal import boundary
from batchscore.training import (
    TrainResult,
    TrainSettings,
    attempts,
    fitting,
    head_fitting,
    tokenized_rows,
    train,
)
from batchscore.training import trainer as trainer_module
from batchscore.training.base_model import hidden_size_of
from batchscore.training.data import load_data
from batchscore.training.hygiene import hygiene_lines, hygiene_of
from batchscore.training.objectives import objective_of
from batchscore.training.outcome import best_of, is_exhausted
from batchscore.training.sampling import epoch_order, grouped_by_length
from batchscore.training.splits import Goal, Split, TrainingData
from batchscore.training.suspects import suspects_of


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small only wait for a second thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder without a head, as they come from a hub."""
    folder = tmp_path_factory.mktemp("encoder")
    save_encoder(folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path, encoder: Path) -> TrainSettings:
    """Train a head for three epochs on forty rows."""
    rows().to_parquet(tmp_path / "data.parquet")
    return TrainSettings(
        str(tmp_path / "data.parquet"),
        tmp_path / "out",
        base_model=str(encoder),
        recipe="head",
        epochs=3,
        max_length=32,
        precision="fp32",
    )


def run(settings: TrainSettings, tell: Callable[[str], None] = lambda _: None, **changes: Any) -> TrainResult:
    return train(dataclasses.replace(settings, **changes), Silent, tell)


def record(folder: Path) -> dict[str, Any]:
    """``batchscore.json`` without times."""
    facts: dict[str, Any] = json.loads((folder / FACTS).read_bytes())
    del facts["training"]["seconds"], facts["sha256"]
    return facts


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir() if path.name != FACTS}


# Stored states ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_a_head_fed_by_stored_states_says_what_the_whole_model_says(
    tmp_path: Path, kind: str, pooling: str
) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from batchscore.training.context import NoProgress, TrainingContext
    from batchscore.training.features import cls_states_of, head_only, uses_cls_only
    from batchscore.training.mean_pooling import append_mean_layer

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    small = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32} if kind == "distilbert" else sizes
    torch.manual_seed(0)
    config: Any = AutoConfig.for_model(kind, vocab_size=99, **small)
    model: Any = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    if pooling == "mean":
        append_mean_layer(model)
    for parameter in model.base_model.parameters():
        parameter.requires_grad = False
    random = np.random.default_rng(0)
    sequences = [random.integers(5, 99, size=n).astype(np.int32) for n in (7, 3, 12)]
    assert uses_cls_only(model, sequences)
    states = cls_states_of(
        model, sequences, "x", TrainingContext(tmp_path, "cpu", "fp32", NoProgress(), lambda _: None), "fp32"
    )
    with torch.inference_mode():
        whole = [model(input_ids=torch.tensor(np.int64(ids))[None]).logits[0] for ids in sequences]
        with head_only(model) as logits:
            fed = logits(torch.from_numpy(states))
    torch.testing.assert_close(fed, torch.stack(whole), atol=1e-3, rtol=1e-3)


def test_a_head_that_sees_more_than_the_first_token_is_not_fed_by_it() -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    from batchscore.training.features import uses_cls_only

    config = GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=20, pad_token_id=0)
    model = GPT2ForSequenceClassification(config)
    for parameter in model.base_model.parameters():
        parameter.requires_grad = False
    assert not uses_cls_only(model, [np.array([3, 4, 5], dtype=np.int32)])


def test_a_head_is_the_same_in_batches_of_four_and_two_times_two(
    settings: TrainSettings, tmp_path: Path
) -> None:
    whole = run(settings, batch_size=4)
    halves = run(settings, batch_size=2, gradient_accumulation=2, output=tmp_path / "halves")
    names = "model.safetensors"
    assert (whole.output / names).read_bytes() == (halves.output / names).read_bytes()


def test_the_loop_over_states_trains_as_hugging_face_does_it(
    settings: TrainSettings, tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.numpy import load_file

    steady = tmp_path / "steady"
    steady.mkdir()
    for path in encoder.iterdir():
        (steady / path.name).write_bytes(path.read_bytes())
    config = json.loads((steady / "config.json").read_bytes())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (steady / "config.json").write_text(json.dumps(config))
    ours = run(settings, base_model=str(steady))
    monkeypatch.setattr("batchscore.training.tokenized_rows.uses_cls_only", lambda *_: False)
    theirs = run(settings, base_model=str(steady), output=tmp_path / "theirs")
    weights = [load_file(each.output / "model.safetensors")["classifier.weight"] for each in (ours, theirs)]
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-5)
    curves = [open_bundle(str(each.output)).facts["training"]["curve"] for each in (ours, theirs)]
    assert curves[0] == [pytest.approx(entry, abs=1e-5) for entry in curves[1]]


# Order and choice ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_rows", [1, 5, 16, 1000])
def test_an_epoch_takes_each_row_once_and_the_next_one_in_another_order(n_rows: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 500, n_rows)
    orders = [grouped_by_length(lengths, 4, 42, epoch) for epoch in (0, 1)]
    for order in (*orders, epoch_order(n_rows, 42, 0)):
        assert sorted(order.tolist()) == list(range(n_rows))
    assert n_rows <= 5 or orders[0].tolist() != orders[1].tolist()
    assert orders[0].tolist() == grouped_by_length(lengths, 4, 42, 0).tolist()


def test_batches_hold_rows_of_like_length_and_the_longest_comes_first() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 1000)
    batches = lengths[grouped_by_length(lengths, 4, 42, 0)].reshape(-1, 4)
    assert lengths.max() in batches[0]
    padding = (batches.max(axis=1, keepdims=True) - batches).sum() / batches.sum()
    assert padding < 0.05  # in random batches it is about a half


def test_a_narrow_encoder_takes_larger_steps(settings: TrainSettings, encoder: Path) -> None:
    full = dataclasses.replace(settings, recipe="full")
    assert hidden_size_of(open_bundle(str(encoder))) == 16
    assert [full.resolved(100, "mean", width).learning_rate for width in (384, 768)] == [1e-4, 5e-5]
    asked = dataclasses.replace(full, learning_rate=3e-5)
    assert asked.resolved(100, "mean", 384).learning_rate == 3e-5
    assert settings.resolved(100, "mean", 384).learning_rate == 2e-3


@pytest.mark.parametrize(
    ("accuracies", "best", "is_over"),
    [([], -1, False), ([0.5], 0, False), ([0.5, 0.7, 0.7], 1, False), ([0.7, 0.6, 0.7], 0, True)],
    ids=["nothing yet", "one epoch", "one epoch without a better one", "two of them"],
)
def test_the_best_epoch_is_the_first_of_equals(accuracies: list[float], best: int, is_over: bool) -> None:
    curve = [{"eval_accuracy": accuracy} for accuracy in accuracies]
    assert best_of(curve) == best
    assert is_exhausted(curve, 2) == is_over
    assert not is_exhausted(curve, None)


@pytest.mark.parametrize("recipe", ["head", "full"])
def test_training_stops_where_patience_ends(settings: TrainSettings, recipe: str) -> None:
    result = run(settings, recipe=recipe, epochs=30, learning_rate=1e-9, early_stopping=2)
    training = open_bundle(str(result.output)).facts["training"]
    assert len(training["curve"]) == 3
    assert training["best_epoch"] == 1


def test_of_the_layers_the_uppermost_are_trained(settings: TrainSettings, encoder: Path) -> None:
    from safetensors.numpy import load_file

    result = run(settings, recipe="full", pooling="first", epochs=1, train_layers=1, learning_rate=1e-3)
    before, after = (load_file(folder / "model.safetensors") for folder in (encoder, result.output))
    changed = {name for name in before if not np.array_equal(before[name], after[f"bert.{name}"])}
    assert {name.partition("layer.1.")[0] for name in changed if "pooler" not in name} == {"encoder."}


def test_more_layers_than_there_are_cannot_be_trained(settings: TrainSettings) -> None:
    with pytest.raises(UsageError, match="the encoder has 2 layers"):
        run(settings, recipe="full", train_layers=3)
    with pytest.raises(UsageError, match="--recipe full"):
        dataclasses.replace(settings, train_layers=1)


@pytest.mark.parametrize("option", ["gradient_accumulation", "gradient_checkpointing"])
def test_memory_can_be_saved(settings: TrainSettings, option: str) -> None:
    changes: dict[str, Any] = {option: 2 if option == "gradient_accumulation" else True}
    result = run(settings, recipe="full", epochs=2, **changes)
    assert [e["epoch"] for e in open_bundle(str(result.output)).facts["training"]["curve"]] == [1, 2]


# Resume -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step."""
    monkeypatch.setattr(trainer_module, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr("batchscore.training.checkpoints.SAVE_SHARE", 1e9)


def stop_at(line: str) -> Callable[[str], None]:
    """Somebody presses Ctrl-C when this is told."""

    def tell(text: str) -> None:
        if text.startswith(line):
            raise KeyboardInterrupt

    return tell


@pytest.mark.parametrize(
    "recipe", [{"recipe": "head", "check_labels": True}, {"recipe": "full"}], ids=["head", "full"]
)
def test_a_stopped_training_is_resumed_to_the_same_bundle(
    settings: TrainSettings, tmp_path: Path, often: None, recipe: dict[str, Any]
) -> None:
    whole = run(settings, **recipe)
    other = dataclasses.replace(settings, output=tmp_path / "resumed", **recipe)
    with pytest.raises(KeyboardInterrupt):
        run(other, stop_at("epoch 2"))
    assert not other.output.exists()
    said: list[str] = []
    resumed = run(other, said.append, resume=True)
    assert not any(line.startswith("epoch 1 ") for line in said)
    assert hashes(resumed.output) == hashes(whole.output)
    assert record(resumed.output) == record(whole.output)
    assert not list(tmp_path.glob(".*"))


def test_with_other_settings_nothing_is_resumed_and_nothing_lost(
    settings: TrainSettings, often: None
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(settings, stop_at("epoch 2"))
    with pytest.raises(OutputError, match="start over without --resume") as error:
        run(settings, resume=True, seed=7)
    assert error.value.exit_code == 73
    assert run(settings, resume=True).output.exists()


def test_the_signal_that_stops_a_training_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, boundary(go_on="go on with --resume"):
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143
    assert "stopped by SIGTERM; go on with --resume" in capsys.readouterr().err


def test_a_finished_training_is_not_repeated_by_resume(settings: TrainSettings) -> None:
    first = run(settings)
    again = run(settings, resume=True)
    assert (first.was_done, again.was_done) == (False, True)
    assert again.fingerprint == first.fingerprint
    with pytest.raises(OutputError, match="holds something"):
        run(settings, resume=True, seed=7)


def test_resume_begins_where_nothing_was_left(settings: TrainSettings) -> None:
    assert not run(settings, resume=True).was_done


@pytest.mark.parametrize("step", ["examine", "seal", "publish_bundle"])
def test_what_was_trained_survives_a_stop_at_the_end(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(attempts if step == "examine" else trainer_module, step, stop)
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    said: list[str] = []
    assert run(settings, said.append, resume=True).output.exists()
    assert not any(line.startswith("epoch") for line in said)


def test_the_same_settings_give_the_same_bytes_but_for_times(settings: TrainSettings, tmp_path: Path) -> None:
    first, second = run(settings), run(settings, output=tmp_path / "again")
    assert hashes(first.output) == hashes(second.output)
    assert record(first.output) == record(second.output)


# Data ---------------------------------------------------------------------------------------------------------------


def test_where_our_own_way_is_wrong_a_model_is_examined_by_transformers(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    wanted = run(settings, output=tmp_path / "a", recipe="full").metrics

    def wrong(ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return torch.tensor([[9.0, -9.0]]).expand(len(ids), 2)

    monkeypatch.setattr("batchscore.model.backends.packed.pack", lambda *_: wrong)
    found = run(settings, output=tmp_path / "b", recipe="full").metrics
    assert found["log_loss"] == pytest.approx(wanted["log_loss"], abs=1e-4)
    assert found["confusion_matrix"] == wanted["confusion_matrix"]
    monkeypatch.undo()
    wanted_probabilities, probabilities = (record(tmp_path / name)["canaries"] for name in "ab")
    assert probabilities == wanted_probabilities


def data_of(train: list[tuple[str, int]], evaluation: list[tuple[str, int]]) -> TrainingData:
    splits = [
        Split([text for text, _ in each], [label for _, label in each], [f"f:{k}" for k in range(len(each))])
        for each in (train, evaluation)
    ]
    return TrainingData(
        Goal(Task.SINGLE_LABEL, ("no", "yes")), splits[0], splits[1], "here", {"train": {}, "evaluation": {}}
    )


def test_odd_rows_are_counted_and_told() -> None:
    train = [("Fine<br />film", 1), ("fine  FILM", 0), ("bad", 0), ("bad", 0), ("long", 1)]
    data = data_of(train, [("FINE film", 1), ("new", 0)])
    lengths = {"train": np.array([4, 4, 3, 3, 99]), "evaluation": np.array([4, 3])}
    facts = hygiene_of(data, lengths, 10)
    assert {k: facts["train"][k] for k in ("duplicates", "conflicting", "too_long", "longest")} == {
        "duplicates": 2,
        "conflicting": 2,
        "too_long": 1,
        "longest": 99,
    }
    assert facts["train"]["conflicting_at"] == ["f:0", "f:1"]
    assert facts["evaluation"]["also_in_train"] == 1
    told = "\n".join(hygiene_lines(facts, {"train": 5, "evaluation": 2}))
    for words in (
        "2 of 5 train rows repeat",
        "several labels (the first: f:0)",
        "also trained on (the first: f:0)",
        "few training rows: no 3, yes 2",
    ):
        assert words in told


def test_clean_rows_need_no_words() -> None:
    data = data_of([(f"text {k}", k % 2) for k in range(40)], [("other", 1)])
    lengths = {"train": np.full(40, 3), "evaluation": np.full(1, 3)}
    assert hygiene_lines(hygiene_of(data, lengths, 10), {"train": 40, "evaluation": 1}) == []


def test_odd_rows_are_kept_in_the_bundle_and_trained_on(settings: TrainSettings, tmp_path: Path) -> None:
    frame = pd.concat([rows(), rows(4)])
    frame.to_parquet(tmp_path / "twice.parquet")
    said: list[str] = []
    result = run(settings, said.append, data=str(tmp_path / "twice.parquet"), epochs=1)
    data = open_bundle(str(result.output)).facts["training"]["data"]
    assert data["train"]["rows"] + data["evaluation"]["rows"] == 44
    repeated = data["hygiene"]["train"]["duplicates"] + data["hygiene"]["evaluation"]["duplicates"]
    assert repeated == 4
    assert data["hygiene"]["evaluation"]["also_in_train"] == 0
    assert any("repeat" in line for line in said)


def test_a_text_that_occurs_again_is_not_cut_apart(settings: TrainSettings, tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": [f"Film {k // 3}" for k in range(90)], "label": [k % 2 for k in range(90)]})
    frame.loc[::3, "text"] = frame.loc[::3, "text"].str.upper()
    frame.to_parquet(tmp_path / "thrice.parquet")
    data = load_data(dataclasses.replace(settings, data=str(tmp_path / "thrice.parquet")))
    sides = [{str(text).lower() for text in split.texts} for split in (data.train, data.evaluation)]
    assert not sides[0] & sides[1]
    assert len(data.train) + len(data.evaluation) == 90
    pd.DataFrame({"text": ["same"] * 20, "label": [0, 1] * 10}).to_parquet(tmp_path / "same.parquet")
    data = load_data(dataclasses.replace(settings, data=str(tmp_path / "same.parquet")))
    assert (len(data.train), len(data.evaluation)) == (16, 4)


def test_groups_are_not_cut_apart(settings: TrainSettings, tmp_path: Path) -> None:
    frame = rows(60).assign(author=[f"author {k // 6}" for k in range(60)])
    for name in ("groups.parquet", "groups.csv"):
        frame.to_parquet(tmp_path / name) if name.endswith("t") else frame.to_csv(
            tmp_path / name, index=False
        )
        data = load_data(dataclasses.replace(settings, data=str(tmp_path / name), group_column="author"))
        assert not set(data.train.groups) & set(data.evaluation.groups)
        assert len(data.evaluation) == 12


def test_a_group_column_that_is_not_there_is_told(settings: TrainSettings) -> None:
    with pytest.raises(DataError, match="Columns: text, label"):
        run(settings, group_column="author")


def test_flipped_labels_are_among_the_suspects() -> None:
    random = np.random.default_rng(0)
    true = np.arange(300) % 2
    states = (random.normal(size=(300, 8)) + 3 * true[:, None]).astype(np.float32)
    flipped = set(random.choice(300, 15, replace=False).tolist())
    labels = [int(1 - true[k]) if k in flipped else int(true[k]) for k in range(300)]
    split = Split(["text"] * 300, labels, [str(k) for k in range(300)])
    found = suspects_of(states, split, ("no", "yes"), 42)
    assert found is not None
    places = {int(row["at"]) for row in found["rows"]}
    assert len(places & flipped) >= 12
    assert len(places) <= 15
    assert found["rows"] == sorted(found["rows"], key=lambda row: row["label_quality"])


def test_suspects_are_told_kept_and_trained_on(settings: TrainSettings) -> None:
    said: list[str] = []
    result = run(settings, said.append, check_labels=True)
    data = open_bundle(str(result.output)).facts["training"]["data"]
    assert data["suspects"]["labelled"] == data["train"]["rows"] == 32
    assert any("training labels are worth checking" in line for line in said)


# Labels -------------------------------------------------------------------------------------------------------------


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = [0] * 70 + [1] * 25 + [2] * 5
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    balanced = objective_of(Task.SINGLE_LABEL, labels, 3, "balanced", has_bias=True)
    assert balanced.weights == pytest.approx(wanted.tolist())
    assert objective_of(Task.SINGLE_LABEL, labels, 3, "none", has_bias=True).weights is None


@pytest.mark.parametrize("recipe", ["head", "full"])
def test_a_rare_label_gains_by_balance(settings: TrainSettings, tmp_path: Path, recipe: str) -> None:
    frame = pd.DataFrame(
        {"text": [f"film {k}" for k in range(60)], "label": [int(k % 6 == 0) for k in range(60)]}
    )
    frame.to_parquet(tmp_path / "rare.parquet")
    shares = []
    for weights in ("none", "balanced"):
        options: dict[str, Any] = {
            "data": str(tmp_path / "rare.parquet"),
            "class_weights": weights,
            "learning_rate": 5e-3,
        }
        result = run(settings, recipe=recipe, force=True, **options)
        probabilities = np.array(open_bundle(str(result.output)).facts["canaries"]["probabilities"])
        shares.append(probabilities[:, 1].mean())
    assert shares[0] < shares[1]


@pytest.mark.slow
def test_twenty_labels_are_trained_scored_and_reported(settings: TrainSettings, tmp_path: Path) -> None:
    from conftest import run_score

    topics = [f"topic {k:02d}" for k in range(20)]
    words = [
        [
            "cat",
            "dog",
            "sun",
            "sea",
            "tax",
            "law",
            "oil",
            "war",
            "art",
            "pop",
            "car",
            "bus",
            "tea",
            "rice",
            "wine",
            "gold",
            "iron",
            "king",
            "game",
            "love",
        ][k]
        for k in range(20)
    ]
    frame = pd.DataFrame(
        {
            "text": [f"{words[k % 20]} {words[k % 20]} number {k}" for k in range(200)],
            "topic": [topics[k % 20] for k in range(200)],
        }
    )
    frame.to_csv(tmp_path / "topics.csv", index=False)
    options: dict[str, Any] = {
        "data": str(tmp_path / "topics.csv"),
        "label_column": "topic",
        "learning_rate": 2e-2,
    }
    result = run(settings, pooling="mean", epochs=30, **options)
    assert result.labels == tuple(topics)
    assert result.metrics["accuracy"]["value"] > 0.5
    assert "given | predicted" in (result.output / "README.md").read_text()
    scored = run_score(tmp_path / "topics.csv", result.output, tmp_path / "run", **_how("topic"))
    assert len(scored.metrics["quality"]["per_label"]) == 20
    assert (tmp_path / "run" / "report.html").stat().st_size > 1000


def _how(label_column: str) -> dict[str, Any]:
    from batchscore.config import ComputeSettings, ReadSettings

    return {"read": ReadSettings(label_column=label_column), "compute": ComputeSettings(precision="fp32")}


# Search, windows, record, hub ---------------------------------------------------------------------------------------


def test_a_search_is_told_kept_and_followed(settings: TrainSettings) -> None:
    said: list[str] = []
    result = run(settings, said.append, tune=True, epochs=1, learning_rate=None)
    training = open_bundle(str(result.output)).facts["training"]
    trials = training["tuning"]
    assert {(t["pooling"], t["learning_rate"]) for t in trials} == {
        (pooling, rate) for pooling in ("first", "mean") for rate in (5e-4, 2e-3, 8e-3)
    }
    best = min(trials, key=lambda t: (-t["accuracy"], t["loss"]))
    assert training["settings"]["learning_rate"] == best["learning_rate"]
    assert training["settings"]["pooling"] == best["pooling"]
    assert sum(line.startswith("tune:") for line in said) == 9
    assert "Settings that were tried" in (result.output / "README.md").read_text()


def test_trials_of_a_stopped_search_are_not_made_again(settings: TrainSettings) -> None:
    tried = dataclasses.replace(settings, tune=True, epochs=1)
    with pytest.raises(KeyboardInterrupt):
        run(tried, stop_at("tune: mean"))
    said: list[str] = []
    resumed = run(tried, said.append, resume=True)
    whole = run(tried, force=True)
    assert hashes(resumed.output) == hashes(whole.output)


def test_windows_of_a_long_text_merge_to_one_probability(settings: TrainSettings) -> None:
    result = run(settings, max_length=16, long_text="windows")
    bundle = open_bundle(str(result.output))
    from batchscore.model.backends import open_backend

    model = Model(
        bundle,
        Tokenizer(bundle),
        open_backend("torch", bundle, "cpu", "fp32"),
        InferenceSettings(512, "windows"),
    )
    texts = ["awful " * 40 + "great", "short"]
    prepared = prepare(texts, model)
    computed = compute(prepared, model)
    merged = conclude(prepared, computed, model).probabilities
    encodings = prepared.encodings
    assert (encodings.row == 0).sum() > 1
    exponents = np.exp(computed.logits.astype(np.float64) / bundle.temperature)
    windows = exponents / exponents.sum(axis=1, keepdims=True)
    weights = encodings.weight[encodings.row == 0]
    wanted = (windows[encodings.row == 0] * weights[:, None]).sum(axis=0) / weights.sum()
    assert merged.shape == (2, 2)
    assert merged[0] == pytest.approx(wanted, abs=1e-6)
    assert merged.sum(axis=1) == pytest.approx([1, 1], abs=1e-6)


@pytest.mark.parametrize(("recipe", "learned"), [("full", 11), ("head", 4)])
def test_each_window_of_a_long_text_is_learned_where_the_encoder_is_trained(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, learned: int
) -> None:
    """Of 4 texts 2 have more than 14 tokens of their own: 4 and 5 windows."""
    texts = ["short one", "awful " * 38, "great", "great " * 45]
    frame = pd.DataFrame({"text": texts, "label": ["neg", "neg", "pos", "pos"]})
    frame.to_parquet(tmp_path / "data.parquet")
    frame.to_parquet(tmp_path / "eval.parquet")
    seen: list[list[Any]] = []
    dataset_of, stored = fitting.dataset_of, head_fitting.StoredRows

    def noted(input_ids: Any, targets: Any, *rest: Any) -> Any:
        seen.append(list(zip(map(len, input_ids), targets.tolist(), strict=True)))
        return dataset_of(input_ids, targets, *rest)

    def noted_states(states: Any, targets: Any) -> Any:
        seen.append([(0, target) for target in targets.tolist()])
        return stored(states, targets)

    monkeypatch.setattr(tokenized_rows, "dataset_of", noted)
    monkeypatch.setattr(tokenized_rows, "StoredRows", noted_states)
    how: dict[str, Any] = {
        "max_length": 16,
        "long_text": "windows",
        "eval_data": str(tmp_path / "eval.parquet"),
    }
    run(settings, recipe=recipe, epochs=1, hard_labels=True, **how)
    rows, watched = seen
    assert len(rows) == learned
    assert len(watched) == len(texts)
    if recipe == "full":
        tokenizer = Tokenizer(open_bundle(str(settings.output)))
        windows = tokenizer.encode(texts, "windows")
        targets = [int(label == "pos") for label in frame.label]
        wanted = [(len(ids), targets[row]) for row, ids in zip(windows.row, windows.input_ids, strict=True)]
        assert sorted(rows) == sorted(wanted)


def test_inspect_tells_settings_data_curve_and_evaluation(settings: TrainSettings) -> None:
    result = run(settings)
    lines = bundle_lines(inspect(str(result.output)))
    told = "\n".join(lines)
    training = open_bundle(str(result.output)).facts["training"]
    for words in ("recipe head", training["data"]["train"]["sha256"], "(taken)", "95 % interval", "log loss"):
        assert words in told
    assert sum(line.startswith("epoch ") for line in lines) == 3
    done = CliRunner().invoke(main, ["inspect", str(result.output)])
    assert done.stdout.splitlines() == lines


def test_the_card_shows_the_confusion_matrix_and_the_curve(settings: TrainSettings) -> None:
    result = run(settings)
    card = (result.output / "README.md").read_text()
    counts = result.metrics["confusion_matrix"]["counts"]
    assert f"| NEGATIVE | {counts[0][0]} | {counts[0][1]} |" in card
    assert card.count("█ |") == 3


class FakeHub:
    """What ``HfApi`` is asked for."""

    asked: list[tuple[str, dict[str, Any]]]

    def __init__(self, error: Exception | None = None) -> None:
        self.asked, self._error = [], error

    def create_repo(self, repo: str, **options: Any) -> Any:
        if self._error:
            raise self._error
        self.asked.append((repo, options))
        return type("Url", (), {"repo_id": f"me/{repo}"})

    def upload_folder(self, **options: Any) -> Any:
        self.asked.append(("upload", options))
        return type("Commit", (), {"commit_url": "https://hub/me/reviews/commit/1"})


def arguments_of(settings: TrainSettings) -> list[str]:
    return [
        *("--data", settings.data, "--output", str(settings.output), "--base-model", settings.base_name),
        *("--recipe", "head", "--max-length", "32", "--json", "-q", "--precision", "fp32"),
    ]


def test_a_bundle_is_sent_to_the_hub_when_asked_for(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    done = CliRunner().invoke(command, [*arguments_of(settings), "--push-to-hub", "reviews"])
    assert json.loads(done.stdout)["pushed_to"] == "https://hub/me/reviews/commit/1"
    (repo, made), (_, sent) = hub.asked
    assert (repo, made["private"], made["exist_ok"]) == ("reviews", True, True)
    assert (sent["repo_id"], sent["folder_path"]) == ("me/reviews", settings.output)


def test_a_hub_that_refuses_leaves_the_bundle_and_says_what_to_do(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub(ConnectionError("no route"))
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    done = CliRunner().invoke(command, [*arguments_of(settings), "--push-to-hub", "reviews"])
    assert done.exit_code == StorageError.exit_code
    assert "hf upload reviews" in done.stderr
    assert open_bundle(str(settings.output)).canaries is not None


# Signed, or not possible ----------------------------------------------------------------------------------------------


def test_a_trained_bundle_is_signed_if_asked_for(settings: TrainSettings, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the extra sign is not installed")
    from test_signing import make_key

    key = make_key(tmp_path / "key")
    run(settings, sign=key, epochs=1)
    assert open_bundle(str(settings.output), trust=[key.with_suffix(".pub")]).signed_by
    with pytest.raises(ModelError, match="does not name"):
        open_bundle(str(settings.output), trust=[make_key(tmp_path / "other").with_suffix(".pub")])


def test_a_text_that_the_tokenizer_cannot_do_is_named_by_file_and_row(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.read_parquet(settings.data)
    table.loc[7, "text"] = "secret words"
    table.to_parquet(settings.data)
    monkeypatch.setattr(
        tokenization,
        "each_alone",
        lambda texts, encode, **_: (
            Untokenised("the tokenizer cannot do it (x)") if "secret" in text else next(iter(encode([text])))
            for text in texts
        ),
    )
    with pytest.raises(DataError, match=r"data\.parquet:7: ") as told:
        run(settings)
    assert "secret" not in str(told.value)
    assert not settings.output.exists()
