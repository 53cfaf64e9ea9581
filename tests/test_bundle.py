"""A saved model folder is opened only after every byte of it was found as it was written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from batchscore.config import ComputeSettings
from batchscore.errors import BatchscoreError, DataError, ModelError, NoInputError
from batchscore.model.bundle import longest_input, open_bundle, seal
from batchscore.model.bundle_facts import FACTS, predicted_names
from batchscore.model.loading import ModelSettings, load_model
from batchscore.runs.inspection import inspect, verify
from batchscore.system.storage import to_json


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that may be spoiled."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def plain(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "plain"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def reseal(folder: Path, **changes: Any) -> None:
    """Make the manifest again, as somebody would who can hash too."""
    facts = json.loads((folder / FACTS).read_bytes())
    (folder / FACTS).unlink()
    kept = {key: value for key, value in facts.items() if key not in {"sha256", "files", "format_version"}}
    seal(folder, {**kept, **changes})


def swap_labels(folder: Path) -> None:
    def swap(config: dict[str, Any]) -> None:
        config["id2label"] = {"0": "POSITIVE", "1": "NEGATIVE"}
        config["label2id"] = {"POSITIVE": 0, "NEGATIVE": 1}

    edit(folder / "config.json", swap)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def write_below(folder: Path, name: str) -> None:
    (folder / "d").mkdir()
    (folder / "d" / name).write_text("x", encoding="utf-8")


def replace_by_link(path: Path) -> None:
    moved = path.rename(path.parent.parent / path.name)
    path.symlink_to(moved)


# --------------------------------------------------------------------------------------------------- what is sound


def test_a_sealed_bundle_opens_and_verifies(tiny_bundle: Path) -> None:
    bundle = open_bundle(str(tiny_bundle))
    assert bundle.labels == ("NEGATIVE", "POSITIVE")
    assert bundle.canaries is not None
    assert bundle.canaries.probabilities.shape == (32, 2)
    assert bundle.warnings == ()
    assert verify(tiny_bundle) == {"kind": "bundle", "files": len(list(tiny_bundle.iterdir()))}
    assert inspect(str(tiny_bundle))["canaries"] == 32


def test_a_plain_folder_opens_with_a_warning(tiny_model: Path) -> None:
    bundle = open_bundle(str(tiny_model))
    assert bundle.canaries is None
    assert "has no batchscore.json" in bundle.warnings[0]
    assert inspect(str(tiny_model))["kind"] == "Hugging Face folder"
    with pytest.raises(ModelError, match=r"has no batchscore\.json"):
        verify(tiny_model)


def test_generic_labels_are_told(make_model: Callable[..., Path]) -> None:
    assert open_bundle(str(make_model(("LABEL_0", "LABEL_1")))).has_generic_labels


def test_the_same_folder_elsewhere_is_the_same_bundle(tiny_bundle: Path, bundle: Path) -> None:
    assert open_bundle(str(bundle)).fingerprint == open_bundle(str(tiny_bundle)).fingerprint


# ------------------------------------------------------------------------------------------------- what is refused

SPOIL: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a changed byte of the weights": (
        lambda b: flip(b / "model.safetensors"),
        "model.safetensors was changed",
    ),
    "a changed byte of the tokenizer": (lambda b: flip(b / "tokenizer.json"), "tokenizer.json was changed"),
    "a file cut short": (lambda b: os.truncate(b / "tokenizer.json", 99), "tokenizer.json was changed"),
    "an extra file": (lambda b: (b / "x.txt").write_text("x"), "x.txt does not belong"),
    "an extra hidden file": (lambda b: (b / ".x").write_text("x"), ".x does not belong"),
    "an extra file in a folder": (
        lambda b: write_below(b, "x"),
        "d/x does not belong",
    ),
    "a missing file": (lambda b: (b / "README.md").unlink(), "README.md is missing"),
    "missing weights": (lambda b: (b / "model.safetensors").unlink(), "no safetensors weights"),
    "a linked file": (lambda b: replace_by_link(b / "README.md"), "README.md is a link"),
    "linked weights": (lambda b: replace_by_link(b / "model.safetensors"), "model.safetensors is a link"),
    "a linked folder": (lambda b: (b / "d").symlink_to("/etc"), "d is a link"),
    "a link to itself": (lambda b: (b / "d").symlink_to("d"), "d is a link"),
    "a broken link": (lambda b: (b / "d").symlink_to("nowhere"), "d is a link"),
    "a pipe": (lambda b: os.mkfifo(b / "pipe"), "neither a file nor a folder"),
    "swapped labels": (swap_labels, "config.json was changed"),
    "an edited batchscore.json": (
        lambda b: edit(b / FACTS, lambda f: f.update(temperature=2.0)),
        "was changed after",
    ),
    "a batchscore.json in another layout": (lambda b: edit(b / FACTS, lambda f: None), "was changed after"),
    "a newer format": (
        lambda b: edit(b / FACTS, lambda f: f.update(format_version=2)),
        "has format version 2",
    ),
    "no format": (lambda b: edit(b / FACTS, lambda f: f.pop("format_version")), "has format version None"),
    "NaN in batchscore.json": (
        lambda b: edit(b / FACTS, lambda f: f.update(x=float("nan"))),
        "was changed after",
    ),
    "no JSON": (lambda b: (b / FACTS).write_text("{"), "is not readable JSON"),
    "bytes": (lambda b: (b / FACTS).write_bytes(b"\xff\xfe"), "is not readable JSON"),
    "deep JSON": (lambda b: (b / FACTS).write_text("[" * 100_000), "is not readable JSON"),
    "a JSON list": (lambda b: (b / FACTS).write_text("[]"), "does not hold a JSON object"),
    "an empty batchscore.json": (lambda b: (b / FACTS).write_text("{}"), "has format version"),
    "a config that is no JSON": (lambda b: (b / "config.json").write_text("{"), "is not readable JSON"),
    "no config": (lambda b: (b / "config.json").unlink(), "has no config.json"),
    "pickled weights beside": (lambda b: (b / "pytorch_model.bin").write_bytes(b"x"), "does not belong"),
}


@pytest.mark.parametrize(("spoil", "message"), SPOIL.values(), ids=SPOIL)
def test_a_spoiled_bundle_is_refused(spoil: Callable[[Path], Any], message: str, bundle: Path) -> None:
    spoil(bundle)
    with pytest.raises(ModelError, match=message) as caught:
        open_bundle(str(bundle))
    assert caught.value.exit_code == 78
    with pytest.raises(BatchscoreError):
        verify(bundle)


FACTS_CHANGES: dict[str, dict[str, Any]] = {
    "no labels": {"labels": None},
    "other labels": {"labels": ["A", "B"]},
    "labels that are numbers": {"labels": [0, 1]},
    "swapped labels": {"labels": ["POSITIVE", "NEGATIVE"]},
    "a longest input that is text": {"max_length": "512"},
    "a longest input of nothing": {"max_length": 0},
    "a longest input that is a claim": {"max_length": True},
    "no temperature": {"temperature": None},
    "a temperature of zero": {"temperature": 0},
    "another way with long texts": {"long_text": "middle"},
    "metrics that are a list": {"metrics": []},
    "no canaries": {"canaries": None},
    "canaries without texts": {"canaries": {"texts": [], "probabilities": []}},
    "canaries that are numbers": {"canaries": {"texts": [1], "probabilities": [[0.5, 0.5]]}},
    "canaries with too few labels": {"canaries": {"texts": ["a"], "probabilities": [[1.0]]}},
    "canaries with too many rows": {"canaries": {"texts": ["a"], "probabilities": [[0.5, 0.5]] * 2}},
    "probabilities of text": {"canaries": {"texts": ["a"], "probabilities": [["a", "b"]]}},
    "probabilities beyond one": {"canaries": {"texts": ["a"], "probabilities": [[10**400, 0]]}},
}


@pytest.mark.parametrize("changes", FACTS_CHANGES.values(), ids=FACTS_CHANGES)
def test_facts_that_cannot_be_meant_are_refused_though_sealed(changes: dict[str, Any], bundle: Path) -> None:
    reseal(bundle, **changes)
    with pytest.raises(ModelError):
        open_bundle(str(bundle))


@pytest.mark.parametrize("key", ["labels", "max_length", "temperature", "long_text", "canaries", "files"])
def test_missing_facts_are_named(key: str, bundle: Path) -> None:
    facts = json.loads((bundle / FACTS).read_bytes())
    del facts[key], facts["sha256"]
    digest = hashlib.sha256(to_json(facts)).hexdigest()
    (bundle / FACTS).write_bytes(to_json({**facts, "sha256": digest}))
    with pytest.raises(ModelError, match=f"{key} is missing or cannot be meant"):
        open_bundle(str(bundle))


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "..", "", "a\0b", "README.md/x"])
def test_a_path_out_of_the_folder_in_the_manifest_is_a_missing_file(name: str, bundle: Path) -> None:
    (bundle.parent / "x").write_text("x", encoding="utf-8")
    facts = json.loads((bundle / FACTS).read_bytes())
    del facts["sha256"]
    facts["files"][name] = hashlib.sha256(b"x").hexdigest()
    digest = hashlib.sha256(to_json(facts)).hexdigest()
    (bundle / FACTS).write_bytes(to_json({**facts, "sha256": digest}))
    with pytest.raises(ModelError, match="is missing"):
        open_bundle(str(bundle))


def test_swapped_labels_in_a_manifest_made_again_are_refused(bundle: Path) -> None:
    swap_labels(bundle)
    reseal(bundle)
    with pytest.raises(ModelError, match=r"the labels in config\.json and batchscore\.json differ"):
        open_bundle(str(bundle))


def test_labels_swapped_everywhere_are_refused_by_the_names_that_the_canaries_had(bundle: Path) -> None:
    facts = json.loads((bundle / FACTS).read_bytes())
    canaries, labels = facts["canaries"], facts["labels"]
    canaries["predicted"] = predicted_names(canaries["probabilities"], labels)
    reseal(bundle, canaries=canaries)
    open_bundle(str(bundle))
    swap_labels(bundle)
    reseal(bundle, labels=labels[::-1])
    with pytest.raises(ModelError, match="canaries is missing or cannot be meant"):
        open_bundle(str(bundle))


def test_swapped_answers_are_caught_by_the_canaries(bundle: Path) -> None:
    canaries = json.loads((bundle / FACTS).read_bytes())["canaries"]
    reseal(bundle, canaries={**canaries, "probabilities": [row[::-1] for row in canaries["probabilities"]]})
    with pytest.raises(ModelError, match=r"does not answer as it did.*changed their label"):
        load_model(
            open_bundle(str(bundle)),
            ModelSettings(ComputeSettings(device="cpu", precision="fp32"), "head"),
            {},
        )


def test_other_weights_in_a_manifest_made_again_are_caught_by_the_canaries(
    bundle: Path, make_model: Callable[..., Path]
) -> None:
    shutil.copy(make_model(seed=7) / "model.safetensors", bundle / "model.safetensors")
    reseal(bundle)
    with pytest.raises(ModelError, match="does not answer as it did") as caught:
        load_model(
            open_bundle(str(bundle)),
            ModelSettings(ComputeSettings(device="cpu", precision="fp32"), "head"),
            {},
        )
    assert caught.value.exit_code == 78


# ----------------------------------------------------------------------------------------------- foreign folders

CODE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "auto_map": (
        lambda f: edit(f / "config.json", lambda c: c.update(auto_map={"AutoModel": "m.M"})),
        "auto_map in config.json",
    ),
    "auto_map of the tokenizer": (
        lambda f: edit(f / "tokenizer_config.json", lambda c: c.update(auto_map={})),
        "auto_map in tokenizer_config.json",
    ),
    "a custom pipeline": (
        lambda f: edit(f / "config.json", lambda c: c.update(custom_pipelines={})),
        "custom_pipelines in config.json",
    ),
    "a script": (lambda f: (f / "modeling.py").write_text("raise SystemExit"), "modeling.py"),
    "a script below": (lambda f: write_below(f, "m.py"), "d/m.py"),
    "a library": (lambda f: (f / "kernel.so").write_bytes(b""), "kernel.so"),
    "an adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), "adapter_config.json"),
    "pickled weights alone": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        r"only pickled ones \(pytorch_model.bin\).* M\.from_pretrained\(.* T\.from_pretrained\(",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no safetensors weights, none"),
    "a link out": (lambda f: replace_by_link(f / "model.safetensors"), "is a link"),
}


@pytest.mark.parametrize(("bring", "message"), CODE.values(), ids=CODE)
def test_pickles_and_code_are_refused_in_any_folder(
    bring: Callable[[Path], Any], message: str, plain: Path
) -> None:
    bring(plain)
    with pytest.raises(ModelError, match=message) as caught:
        open_bundle(str(plain))
    assert caught.value.exit_code == 78


LABELS: dict[str, dict[str, Any]] = {
    "not from 0": {"id2label": {"1": "A", "2": "B"}, "label2id": None},
    "a list": {"id2label": ["A", "B"]},
    "a number": {"id2label": 5},
    "twice the same": {"id2label": {"0": "A", "1": "A"}, "label2id": None},
    "disagreeing": {"label2id": {"NEGATIVE": 1, "POSITIVE": 0}},
    "a list back": {"label2id": ["NEGATIVE"]},
    "empty": {"id2label": {"0": "", "1": "B"}, "label2id": None},
    "control characters": {"id2label": {"0": "A\n", "1": "B"}, "label2id": None},
    "half a character": {"id2label": {"0": "\ud83d", "1": "B"}, "label2id": None},
}


@pytest.mark.parametrize("changes", LABELS.values(), ids=LABELS)
def test_labels_that_cannot_be_meant_are_refused(changes: dict[str, Any], plain: Path) -> None:
    edit(plain / "config.json", lambda config: config.update(changes))
    with pytest.raises(ModelError, match=r"config\.json"):
        open_bundle(str(plain))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "weights cut short": lambda f: os.truncate(f / "model.safetensors", 1000),
    "weights of garbage": lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 100),
    "a tokenizer of garbage": lambda f: (f / "tokenizer.json").write_text('{"model": 1}'),
    "another architecture": lambda f: edit(f / "config.json", lambda c: c.update(model_type="no-such-model")),
    "three labels for two logits": lambda f: edit(
        f / "config.json",
        lambda c: c.update(id2label={"0": "A", "1": "B", "2": "C"}, label2id={"A": 0, "B": 1, "C": 2}),
    ),
    "a longest input of nothing": lambda f: edit(
        f / "tokenizer_config.json", lambda c: c.update(model_max_length=2)
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_plain_folder_that_cannot_be_loaded_is_a_model_error(
    damage: Callable[[Path], Any], plain: Path
) -> None:
    damage(plain)
    with pytest.raises(ModelError) as caught:
        load_model(
            open_bundle(str(plain)),
            ModelSettings(ComputeSettings(device="cpu", precision="fp32"), "head"),
            {},
        )
    assert str(plain) in str(caught.value)


@pytest.mark.parametrize(
    "model", ["distilbert/distilbert-base-uncased", "imdb-model", "no/such/folder", "./x", "/x", "a b"]
)
@pytest.mark.parametrize("revision", [None, "main", "abc123"])
def test_a_hub_id_needs_a_full_commit_and_no_network_is_asked(model: str, revision: str | None) -> None:
    with pytest.raises(ModelError, match=r"There is no (model )?folder"):
        open_bundle(model, revision)


def test_links_of_a_hub_snapshot_lead_to_its_blobs(plain: Path, tmp_path: Path) -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    snapshot = tmp_path / "models--a--b" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    for path in plain.iterdir():
        blob = tmp_path / "models--a--b" / "blobs" / hashlib.sha256(path.name.encode()).hexdigest()
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
    assert open_bundle(str(snapshot)).labels == ("NEGATIVE", "POSITIVE")
    (snapshot / "README.md").symlink_to("/etc/hostname")
    with pytest.raises(ModelError, match="is a link"):
        open_bundle(str(snapshot))


# ----------------------------------------------------------------------------------------------- the longest input


@pytest.mark.parametrize(
    ("config", "tokenizer", "expected"),
    [
        ({}, None, 512),
        ({"max_position_embeddings": 512}, {"model_max_length": 512}, 512),
        ({"max_position_embeddings": 512}, {"model_max_length": 128}, 128),
        ({"max_position_embeddings": 512}, {"model_max_length": 1e30}, 512),
        ({"max_position_embeddings": 514, "model_type": "roberta", "pad_token_id": 1}, {}, 512),
        ({"max_position_embeddings": 514, "model_type": "camembert", "pad_token_id": 1}, {}, 512),
        ({"max_position_embeddings": 514, "model_type": "xlm-roberta", "pad_token_id": None}, {}, 512),
        ({"max_position_embeddings": 8192, "model_type": "modernbert"}, {"model_max_length": None}, 8192),
        ({"n_positions": 1024, "model_type": "gpt2"}, {"model_max_length": 1024}, 1024),
        ({"n_positions": 1024, "model_type": "gpt2"}, {"model_max_length": 1e30}, 1024),
        ({"max_seq_len": 2048, "model_type": "mpt"}, None, 2048),
        ({"seq_length": 2048, "model_type": "bloom"}, None, 2048),
        ({"text_config": {"max_position_embeddings": 4096}, "model_type": "gemma3"}, None, 4096),
        ({"model_type": "xlnet"}, {"model_max_length": 2048}, 2048),
        ({"model_type": "xlnet"}, {"model_max_length": 1e30}, 512),
        ({"max_position_embeddings": 4096, "pad_token_id": -1, "model_type": "llama"}, None, 4096),
    ],
)
def test_the_longest_input_is_what_tokenizer_and_positions_allow(
    config: dict[str, Any], tokenizer: dict[str, Any] | None, expected: int, tmp_path: Path
) -> None:
    if tokenizer is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert longest_input(tmp_path, config) == expected


@pytest.mark.parametrize(
    "kind",
    ["bert", "ctrl", "gpt2", "gpt_bigcode", "gptj", "llama", "openai-gpt", "opt", "phi", "roberta"],
)
def test_the_longest_input_is_what_transformers_calls_the_number_of_positions(
    kind: str, tmp_path: Path
) -> None:
    config = AutoConfig.for_model(kind, pad_token_id=0)
    config.save_pretrained(tmp_path)
    found = longest_input(tmp_path, json.loads((tmp_path / "config.json").read_bytes()))
    assert found == config.max_position_embeddings - (kind == "roberta")


def test_a_folder_that_does_not_tell_its_longest_input_is_warned_of(plain: Path) -> None:
    edit(plain / "config.json", lambda config: config.pop("max_position_embeddings"))
    edit(plain / "tokenizer_config.json", lambda config: config.update(model_max_length=1e30))
    warnings = open_bundle(str(plain)).warnings
    assert any("cut at 512 tokens" in warning and "model_max_length" in warning for warning in warnings)
    edit(plain / "tokenizer_config.json", lambda config: config.update(model_max_length=512))
    assert not any("longest input" in warning for warning in open_bundle(str(plain)).warnings)


@pytest.mark.parametrize("value", ["many", -2, [512], True, float("inf")])
def test_a_longest_input_that_is_no_number_is_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="max_position_embeddings"):
        longest_input(tmp_path, {"max_position_embeddings": value})


def test_minus_one_is_no_limit(tmp_path: Path) -> None:
    """As models with relative positions have it; of a RoBERTa whose padding is no token, positions start at 0."""
    assert longest_input(tmp_path, {"max_position_embeddings": -1, "n_positions": 64}) == 64
    roberta = {"model_type": "roberta", "max_position_embeddings": 64}
    assert longest_input(tmp_path, {**roberta, "pad_token_id": -1}) == 64
    assert longest_input(tmp_path, {**roberta, "pad_token_id": 1}) == 62


# ----------------------------------------------------------------------------------------------- verify and inspect


def test_what_is_neither_run_nor_bundle_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NoInputError):
        verify(tmp_path / "missing")
    with pytest.raises(DataError):
        verify(tmp_path)
    with pytest.raises(NoInputError):
        inspect(str(tmp_path / "missing"))
    with pytest.raises(ModelError):
        inspect(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NoInputError, match="not a regular file"):
        inspect(str(tmp_path / "pipe"))


def test_a_file_is_described(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text;id\na;1\n", encoding="utf-8")
    facts = inspect(str(tmp_path / "a.csv"))
    assert (facts["format"], facts["columns"]) == ("csv", {"text": "string", "id": "string"})
    assert facts["dialect"]["delimiter"] == ";"


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"files": 5}', "null"])
def test_a_run_whose_facts_are_damaged_is_bad_data(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content, encoding="utf-8")
    (tmp_path / "metrics.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="Score again with --force"):
        inspect(str(tmp_path))
