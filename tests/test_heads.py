"""What a head means: the function and the labels that ``config.json`` and sentence-transformers say, as ``pipeline`` has them.

The oracle is ``pipeline("text-classification")`` of the same folder, for all outputs of each text.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from batchscore.errors import ModelError
from batchscore.model.backends.plain import load_plain
from batchscore.model.bundle import open_bundle
from batchscore.model.foreign import refuse_other_models
from batchscore.model.heads import Activation, Head, head_of, head_warning, labels_of
from batchscore.records import Task

PATH = Path("config.json")
TWO = {"id2label": {"0": "A", "1": "B"}, "label2id": {"A": 0, "B": 1}}
ONE = {"id2label": {"0": "A"}, "label2id": {"A": 0}}
TEXTS = ["a fine film", "bad", "It was a long one, and I did not like it at all."]
SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; those that become None are removed."""
    facts = {**json.loads(path.read_bytes()), **changes}
    path.write_text(json.dumps({key: value for key, value in facts.items() if value is not None}))


@pytest.fixture
def plain(make_model: Callable[..., Path]) -> Callable[[int], Path]:
    """A plain folder with a number of outputs; tests may write into it."""
    return lambda outputs: make_model([f"L{k}" for k in range(outputs)])


# -------------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        pytest.param(TWO, ("A", "B"), id="both"),
        pytest.param({}, ("LABEL_0", "LABEL_1"), id="neither: two, as transformers saves only other numbers"),
        pytest.param({"num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2"), id="num_labels alone"),
        pytest.param({"num_labels": 5, **TWO}, ("A", "B"), id="id2label before num_labels"),
        pytest.param({"id2label": TWO["id2label"]}, ("A", "B"), id="id2label alone"),
        pytest.param({"label2id": {"B": 1, "A": 0}}, ("A", "B"), id="label2id alone"),
        pytest.param({"label2id": {"B": "1", "A": "0"}}, ("A", "B"), id="ids as text"),
        pytest.param(
            {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": TWO["label2id"]},
            ("A", "B"),
            id="names in label2id only",
        ),
        pytest.param(
            {"id2label": TWO["id2label"], "label2id": {"LABEL_0": 0, "LABEL_1": 1}},
            ("A", "B"),
            id="a stale label2id",
        ),
        pytest.param({"id2label": {"0": 1, "1": 5}}, ("1", "5"), id="numbers"),
        pytest.param(ONE, ("A",), id="one output"),
    ],
)
def test_labels_are_found_wherever_they_are_written(config: dict[str, Any], labels: tuple[str, ...]) -> None:
    assert labels_of(config, PATH) == labels


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"id2label": {}}, "id2label is empty"),
        ({"id2label": {"1": "A"}}, "does not count from 0"),
        ({"id2label": {"0": "A", "1": "A"}}, "not all different"),
        ({"num_labels": "two"}, "not a number of labels"),
        ({"num_labels": 0}, "not a number of labels"),
        ({"num_labels": True}, "not a number of labels"),
        ({**TWO, "label2id": {"A": 1, "B": 0}}, "disagree"),
        ({**TWO, "label2id": {"A": 0}}, "disagree"),
        ({**TWO, "label2id": {"A": 0, "C": 1}}, "disagree"),
        ({"label2id": {"A": 0, "B": 2}}, "disagree|LABEL"),
    ],
    ids=str,
)
def test_labels_that_cannot_be_meant_are_a_model_error(config: dict[str, Any], message: str) -> None:
    if config == {"label2id": {"A": 0, "B": 2}}:  # of no order: as transformers does, which ignores it
        assert labels_of(config, PATH) == ("LABEL_0", "LABEL_1")
        return
    with pytest.raises(ModelError, match=message):
        labels_of(config, PATH)


def test_labels_that_are_fewer_than_the_outputs_are_a_model_error(plain: Callable[[int], Path]) -> None:
    folder = plain(5)
    edit(folder / "config.json", id2label=None, label2id=None)
    with pytest.raises(
        ModelError, match=r"has 5 outputs \(classifier\.\w+\), but config\.json names 2 labels"
    ):
        load_plain(open_bundle(str(folder)), torch.float32)
    edit(folder / "config.json", num_labels=5)
    bundle = open_bundle(str(folder))
    assert bundle.labels == tuple(f"LABEL_{k}" for k in range(5))
    load_plain(bundle, torch.float32)


def test_labels_that_only_label2id_names_are_those_of_the_loaded_model(plain: Callable[[int], Path]) -> None:
    folder = plain(3)
    edit(folder / "config.json", id2label=None)
    bundle = open_bundle(str(folder))
    assert load_plain(bundle, torch.float32).config.id2label == dict(enumerate(bundle.labels))
    assert bundle.labels == ("L0", "L1", "L2")


# --------------------------------------------------------------------------------------------------------------- heads


@pytest.mark.parametrize(
    ("outputs", "config"),
    [
        pytest.param(2, {}, id="softmax"),
        pytest.param(2, {"problem_type": "single_label_classification"}, id="softmax, said"),
        pytest.param(3, {"problem_type": "multi_label_classification"}, id="several labels"),
        pytest.param(1, {"problem_type": "multi_label_classification"}, id="several labels, but one"),
        pytest.param(1, {}, id="a sigmoid of one output"),
        pytest.param(1, {"problem_type": "regression"}, id="a regression"),
        pytest.param(3, {"function_to_apply": "none"}, id="a function that pipeline does not come to"),
        pytest.param(
            3, {"sbert_ce_default_activation_function": IDENTITY}, id="an older CrossEncoder for NLI"
        ),
        pytest.param(1, {"sentence_transformers": {"activation_fn": SIGMOID}}, id="a CrossEncoder"),
        pytest.param(3, {"sentence_transformers": {"activation_fn": IDENTITY}}, id="a CrossEncoder for NLI"),
    ],
)
def test_answers_are_those_of_the_pipeline(
    outputs: int, config: dict[str, Any], plain: Callable[[int], Path]
) -> None:
    folder = plain(outputs)
    edit(folder / "config.json", **config)
    head = head_of(json.loads((folder / "config.json").read_bytes()), folder / "config.json")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    pipeline = importlib.import_module("transformers").pipeline("text-classification", folder, device="cpu")
    for text, said in zip(TEXTS, pipeline(TEXTS, top_k=None), strict=True):
        with torch.inference_mode():
            logits = model(**tokenizer(text, return_tensors="pt")).logits.numpy()
        expected = {each["label"]: each["score"] for each in said}
        assert head.answers(logits)[0] == pytest.approx([expected[label] for label in head.labels], abs=1e-6)
    assert head_warning(config, head) is None


CROSS = {"activation_fn": IDENTITY, "model_type": "CrossEncoder"}


@pytest.mark.parametrize(
    ("config", "cross_encoder", "head"),
    [
        ({**TWO, "function_to_apply": "sigmoid"}, {}, (Task.MULTI_LABEL, Activation.SIGMOID)),
        (
            {**TWO, "sbert_ce_default_activation_function": SIGMOID},
            {},
            (Task.MULTI_LABEL, Activation.SIGMOID),
        ),
        (
            {**TWO, "sentence_transformers": {"activation_fn": SIGMOID}},
            {},
            (Task.MULTI_LABEL, Activation.SIGMOID),
        ),
        (
            {**ONE, "sentence_transformers": {"activation_fn": IDENTITY}},
            {},
            (Task.REGRESSION, Activation.NONE),
        ),
        (ONE, CROSS, (Task.REGRESSION, Activation.NONE)),
        ({**ONE, "function_to_apply": "none"}, {}, (Task.REGRESSION, Activation.NONE)),
        (
            {**ONE, "sentence_transformers": {"activation_fn": SIGMOID}},
            CROSS,
            (Task.REGRESSION, Activation.SIGMOID),
        ),
        (
            {**ONE, "problem_type": "regression", "function_to_apply": "none"},
            {},
            (Task.REGRESSION, Activation.NONE),
        ),
        ({**TWO, "problem_type": "multi_label_classification"}, {}, (Task.MULTI_LABEL, Activation.SIGMOID)),
    ],
    ids=str,
)
def test_a_function_that_was_saved_with_the_model_comes_first(
    config: dict[str, Any], cross_encoder: dict[str, Any], head: tuple[Task, Activation]
) -> None:
    found = head_of(config, PATH, cross_encoder)
    assert (found.task, found.activation) == head
    usual = head_of({k: v for k, v in config.items() if k in {*TWO, "problem_type"}}, PATH)
    assert (head_warning(config, found) is None) == (found.activation == usual.activation)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**ONE, "problem_type": "single_label_classification"}, "needs more than one label"),
        ({**TWO, "problem_type": "regression"}, "a regression with 2 outputs"),
        ({**TWO, "problem_type": "ranking"}, "which transformers does not know"),
        ({**ONE, "function_to_apply": "softmax"}, "a softmax of one output is always 1"),
        ({**ONE, "function_to_apply": "tanh"}, "is none of sigmoid, softmax"),
        ({**TWO, "sentence_transformers": {"activation_fn": "my.Own"}}, "is none of sigmoid, softmax"),
        (
            {**ONE, "problem_type": "regression", "function_to_apply": "sigmoid"},
            "Remove the one that is wrong",
        ),
        (
            {**TWO, "problem_type": "single_label_classification", "function_to_apply": "sigmoid"},
            "Remove the one that is wrong",
        ),
    ],
    ids=str,
)
def test_a_head_that_cannot_be_meant_is_a_model_error(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        head_of(config, PATH)


def test_a_saved_cross_encoder_answers_as_it_does_itself(
    plain: Callable[[int], Path], tmp_path: Path
) -> None:
    made: Any = pytest.importorskip("sentence_transformers").CrossEncoder
    for outputs, activation in ((1, torch.nn.Identity()), (1, torch.nn.Sigmoid()), (3, torch.nn.Sigmoid())):
        folder = tmp_path / f"{outputs}{type(activation).__name__}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            encoder = made(str(plain(outputs)), activation_fn=activation, device="cpu")
            encoder.save_pretrained(str(folder))
        refuse_other_models(folder)  # its modules are the classifier alone
        told = json.loads((folder / "config_sentence_transformers.json").read_bytes())
        head = head_of(json.loads((folder / "config.json").read_bytes()), folder, told)
        pairs = [("a film", text) for text in TEXTS]
        logits = np.reshape(encoder.predict(pairs, activation_fn=torch.nn.Identity()), (3, outputs))
        expected = np.reshape(encoder.predict(pairs), (3, outputs))
        np.testing.assert_allclose(head.answers(logits), expected, atol=1e-6)


def test_values_change_relative_to_their_size_and_probabilities_do_not() -> None:
    one, other = np.array([[1000.0, 0.5]]), np.array([[1000.01, 0.51]])
    value = Head(Task.REGRESSION, ("A",), Activation.NONE)
    chance = Head(Task.MULTI_LABEL, ("A", "B"), Activation.SIGMOID)
    np.testing.assert_allclose(value.changes(one, other), [[0.01 / 1001.01, 0.01 / 1.51]])
    np.testing.assert_allclose(chance.changes(one, other), [[0.01, 0.01]])
