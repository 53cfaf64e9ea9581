from __future__ import annotations

import json
from typing import Any

import pytest
from evaluation_samples import evaluate, literal

from batchscore.errors import UsageError
from batchscore.evaluation import Evaluation, evaluate_gates, flat_metrics, parse_gate, parse_gates
from batchscore.evaluation.gates import Direction
from batchscore.evaluation.metrics import gated
from batchscore.records import Task

LABELS = ["NEG", "POS"]


@pytest.mark.parametrize(
    ("text", "metric", "limit", "direction"),
    [
        ("accuracy=0.85", "accuracy", 0.85, Direction.AT_LEAST),
        ("accuracy=85%", "accuracy", 0.85, Direction.AT_LEAST),
        ("null_text=0.7%", "null_text", 0.007, Direction.AT_MOST),
        (" ece = 0.05 ", "ece", 0.05, Direction.AT_MOST),
        ("log_loss=1.5", "log_loss", 1.5, Direction.AT_MOST),
        ("drift=0.25", "drift", 0.25, Direction.AT_MOST),
        ("recall_NEG=0.8", "recall_NEG", 0.8, Direction.AT_LEAST),
        ("rejects=0", "rejects", 0.0, Direction.AT_MOST),
    ],
)
def test_gates_are_read(text: str, metric: str, limit: float, direction: Direction) -> None:
    for labels in (LABELS, None):
        gate = parse_gate(text, labels)
        assert (gate.metric, gate.limit, gate.direction) == (metric, limit, direction)


def test_an_option_takes_only_metrics_whose_good_side_it_means() -> None:
    gates = parse_gates(["accuracy=0.85", "recall_NEG=0.8"], ["ece=0.05"], LABELS)
    assert [gate.metric for gate in gates] == ["accuracy", "recall_NEG", "ece"]
    with pytest.raises(UsageError, match=r"less is better; write --fail-above ece=0\.05"):
        parse_gates(["ece=0.05"], [], LABELS)
    with pytest.raises(UsageError, match=r"more is better; write --fail-below f1_POS=0\.5"):
        parse_gates([], ["f1_POS=0.5"], LABELS)


def test_a_label_may_hold_an_equals_sign() -> None:
    assert parse_gate("recall_a=b=0.5", ["a=b", "c"]).metric == "recall_a=b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy", "not METRIC=X"),
        ("acuracy=0.9", "Did you mean 'accuracy'.*Known: accuracy, expected_accuracy"),
        ("recall_NEGATIVE=0.9", "Did you mean 'recall_NEG'"),
        ("zzz=1", "Known: accuracy"),
        ("accuracy=high", "not a number or a percentage"),
        ("accuracy=nan", "0 or more"),
        ("log_loss=inf", "finite"),
        ("accuracy=-1", "0 or more"),
        ("accuracy=85", "did you mean 85%"),
        ("accuracy=850%", "at most 1"),
        ("accuracy=0.\x1b[2J", "x1b"),
    ],
)
def test_a_gate_that_cannot_be_meant_is_wrong_usage(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        parse_gate(text, LABELS)
    assert str(error.value).isprintable()


def test_before_the_labels_are_known_only_the_kind_of_metric_is_checked() -> None:
    assert parse_gate("f1_anything=0.5").metric == "f1_anything"
    with pytest.raises(UsageError, match="precision_<LABEL>"):
        parse_gate("g1_anything=0.5")


def metrics_by_hand() -> dict[str, Any]:
    sample = literal([0, 0, 1, -1], [[0.75, 0.25], [0.25, 0.75], [0.25, 0.75], [0.75, 0.25]])
    evaluation = Evaluation(LABELS)
    evaluation.update(sample.given, sample.predictions, rejects=1)
    return evaluation.metrics()


def test_every_metric_has_a_value() -> None:
    accepted = {"share": 0.5, "accepted_precision": 1.0, "bound": 1.0}
    flat = flat_metrics(metrics_by_hand() | {"drift": {"value": 0.125}, "acceptance": accepted})
    assert set(flat) == {
        *(metric.name for metric in gated(Task.SINGLE_LABEL)),
        *(f"{name}_{label}" for name in ("precision", "recall", "f1") for label in LABELS),
    }
    assert None not in flat.values()
    assert flat["accuracy"] == pytest.approx(2 / 3)
    assert (flat["unlabelled"], flat["rejects"], flat["drift"]) == (0.2, 0.2, 0.125)
    assert (flat["recall_NEG"], flat["precision_POS"], flat["expected_accuracy"]) == (0.5, 0.5, 0.75)


@pytest.mark.parametrize(
    ("text", "passed", "margin"),
    [
        ("unlabelled=20%", True, 0.0),
        ("unlabelled=0.1", False, -0.1),
        ("recall_POS=1", True, 0.0),
        ("recall_NEG=0.75", False, -0.25),
        ("expected_accuracy=0.5", True, 0.25),
    ],
)
def test_gates_by_hand(text: str, passed: bool, margin: float) -> None:
    (result,) = evaluate_gates([parse_gate(text, LABELS)], flat_metrics(metrics_by_hand()))
    assert result.is_passed is passed
    assert result.margin == pytest.approx(margin)
    assert json.loads(json.dumps(result.to_json()))["passed"] is passed
    assert ("inside" if passed else "outside") in result.reason


@pytest.mark.parametrize(
    ("given_label", "text", "reason"),
    [
        (-1, "accuracy=0", "no row has both a known label and a prediction"),
        (-1, "ece=1", "no row has both"),
        (0, "drift=1", "--baseline"),
        (0, "recall_POS=0", "label that never occurs"),
    ],
)
def test_a_metric_that_could_not_be_computed_fails_its_gate(given_label: int, text: str, reason: str) -> None:
    flat = flat_metrics(evaluate(literal([given_label], [[0.75, 0.25]]), LABELS).metrics())
    (result,) = evaluate_gates([parse_gate(text)], flat)
    assert (result.is_passed, result.value, result.margin) == (False, None, None)
    assert reason in result.reason


def test_without_any_row_even_the_expected_accuracy_fails_its_gate() -> None:
    (result,) = evaluate_gates(
        [parse_gate("expected_accuracy=0")], flat_metrics(Evaluation(LABELS).metrics())
    )
    assert "no row was scored" in result.reason


def test_a_label_that_the_model_turns_out_not_to_have_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="Did you mean 'recall_NEG'"):
        evaluate_gates([parse_gate("recall_NEGA=0.5")], flat_metrics(metrics_by_hand()))
