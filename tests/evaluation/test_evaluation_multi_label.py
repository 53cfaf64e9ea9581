"""Metrics of several labels at once, held against scikit-learn and cleanlab."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from task_samples import BASES, Rows, label_sets

from batchscore.errors import DataError
from batchscore.evaluation import LabelSetIssues, MultiLabelEvaluation, label_set_quality, measures_of
from batchscore.evaluation.label_set_comparison import LabelSetComparison, LabelSetSliceChanges
from batchscore.evaluation.set_quality import MOST_MOMENTS
from batchscore.records import Predictions, Task

BASIS = BASES[Task.MULTI_LABEL]
ROWS = label_sets(3000, seed=4)
KNOWN = (ROWS.given[:, 0] >= 0) & (ROWS.predictions.predicted[:, 0] >= 0)
GIVEN, PREDICTED = ROWS.given[KNOWN], ROWS.predictions.predicted[KNOWN]
PROBABILITIES = ROWS.predictions.probabilities[KNOWN].astype(np.float64)


def evaluation(rows: Rows, **more: Any) -> MultiLabelEvaluation:
    found = MultiLabelEvaluation(BASIS.labels, BASIS.thresholds)
    found.update(rows.given, rows.predictions, **more)
    return found


def few(given: list[list[int]], probabilities: list[list[float]], threshold: float = 0.5) -> Rows:
    p = np.array(probabilities, dtype=np.float32)
    n = len(p)
    predicted = (p >= threshold).astype(np.int8)
    columns = (
        np.zeros(n, dtype=np.int8),
        predicted,
        p,
        np.full(n, 9, dtype=np.int32),
        np.zeros(n, dtype=np.bool_),
    )
    return Rows(np.array(given, dtype=np.int8), Predictions(*columns))


@pytest.fixture(scope="module")
def quality() -> dict[str, Any]:
    found: dict[str, Any] = evaluation(ROWS).metrics()["quality"]
    return found


def test_it_agrees_with_scikit_learn(quality: dict[str, Any]) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    assert quality["micro_f1"]["value"] == pytest.approx(
        sk.f1_score(GIVEN, PREDICTED, average="micro"), abs=1e-12
    )
    assert quality["macro_f1"]["value"] == pytest.approx(
        sk.f1_score(GIVEN, PREDICTED, average="macro"), abs=1e-12
    )
    assert quality["subset_accuracy"]["value"] == pytest.approx(
        sk.accuracy_score(GIVEN, PREDICTED), abs=1e-12
    )
    assert quality["hamming_loss"] == pytest.approx(sk.hamming_loss(GIVEN, PREDICTED), abs=1e-12)
    expected = np.mean([sk.log_loss(GIVEN[:, k], PROBABILITIES[:, k]) for k in range(6)])
    assert quality["log_loss"] == pytest.approx(expected, abs=1e-9)
    assert quality["brier_score_loss"] == pytest.approx(((PROBABILITIES - GIVEN) ** 2).mean(), abs=1e-9)


@pytest.mark.parametrize("label", range(6), ids=BASIS.labels)
def test_each_label_agrees_with_scikit_learn(label: int, quality: dict[str, Any]) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    row, truth, p = quality["per_label"][BASIS.labels[label]], GIVEN[:, label], PROBABILITIES[:, label]
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        truth, PREDICTED[:, label], average="binary"
    )
    assert (row["precision"], row["recall"], row["f1"]) == pytest.approx((precision, recall, f1), abs=1e-12)
    assert (row["support"], row["threshold"]) == (truth.sum(), BASIS.thresholds[label])
    for name, exact in (("roc_auc", sk.roc_auc_score), ("average_precision", sk.average_precision_score)):
        assert abs(row[name]["value"] - exact(truth, p)) <= row[name]["error_bound"] + 1e-9
        assert row[name]["error_bound"] < 1e-3
    bins = np.clip(np.ceil(p * 15).astype(int) - 1, 0, 14)
    gaps = [abs((p - truth)[bins == k].sum()) for k in range(15)]
    assert row["ece"] == pytest.approx(sum(gaps) / len(p), abs=1e-9)


def test_intervals_are_those_of_a_bootstrap_over_rows(quality: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    both, either = (GIVEN * PREDICTED).astype(np.float64), (GIVEN + PREDICTED).astype(np.float64)
    micro, macro = [], []
    for _ in range(400):
        weights = rng.multinomial(len(both), np.full(len(both), 1 / len(both)))
        tp, sums = weights @ both, weights @ either
        micro.append(2 * tp.sum() / sums.sum())
        macro.append((2 * tp / sums).mean())
    for name, draws in (("micro_f1", micro), ("macro_f1", macro)):
        half = (quality[name]["high"] - quality[name]["low"]) / 2
        assert half == pytest.approx(1.96 * np.std(draws), rel=0.15)


def test_labels_that_never_occur_are_left_out_of_macro_f1_and_many_labels_have_no_interval() -> None:
    found = MultiLabelEvaluation(["a", "b", "never"])
    found.update(*few([[1, 0, 0], [1, 1, 0]], [[0.9, 0.1, 0.2], [0.8, 0.3, 0.1]]))
    metrics = found.metrics()["quality"]
    assert metrics["macro_f1"]["value"] == 0.5
    assert metrics["per_label"]["never"]["f1"] is None
    n = MOST_MOMENTS + 1
    many = MultiLabelEvaluation([f"L{k}" for k in range(n)])
    many.update(*few([[1] * n], [[0.9] * n]))
    assert many.metrics()["quality"]["macro_f1"] == 1.0


def test_what_is_missing_where_another_label_is_too_many() -> None:
    found = MultiLabelEvaluation(["a", "b"])
    found.update(*few([[1, 0], [1, 0], [0, 1]], [[0.1, 0.9], [0.2, 0.8], [0.1, 0.9]]))
    metrics = found.metrics()
    assert metrics["quality"]["taken_for"] == [{"missing": "a", "extra": "b", "rows": 2}]
    assert metrics["counts"]["correct"] == 1
    assert metrics["quality"]["labels_per_row"] == {"given": 1.0, "predicted": 1.0}
    assert metrics["histograms"]["labels_per_row"][:3] == [0, 3, 0]


def test_expected_hamming_loss_needs_no_labels_and_is_near_the_observed_one() -> None:
    rows = label_sets(20000, seed=2, noise=0.0)
    found = evaluation(rows.unlabelled(Task.MULTI_LABEL)).metrics()
    observed = evaluation(rows).metrics()["quality"]["hamming_loss"]
    assert found["quality"] is None
    assert found["expected_hamming_loss"]["low"] < observed < found["expected_hamming_loss"]["high"]


def test_the_least_sure_label_decides_what_is_accepted() -> None:
    found = MultiLabelEvaluation(["a", "b"])
    found.update(*few([[1, 0], [1, 1]], [[0.97, 0.02], [0.99, 0.4]]))
    table = {row["threshold"]: row for row in found.metrics()["coverage"]}
    assert (table[0.95]["rows"], table[0.95]["accuracy"]["value"], table[0.5]["rows"]) == (1, 1.0, 2)
    assert "expected_accuracy" not in table[0.95]


@pytest.mark.parametrize("seed", range(3))
def test_parts_merged_in_any_order_are_one_pass_bit_by_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = evaluation(ROWS, slices={"file": "a.csv"}, rejects=4)
    order = rng.permutation(len(ROWS.given))
    parts = [
        evaluation(ROWS.take(rows), slices={"file": "a.csv"}, rejects=1) for rows in np.array_split(order, 4)
    ]
    first, *others = (parts[k] for k in rng.permutation(4))
    for other in others:
        first.merge(MultiLabelEvaluation.from_state(json.loads(json.dumps(other.to_state()))))
    assert json.dumps(first.metrics(), allow_nan=False) == json.dumps(whole.metrics())
    assert json.dumps(first.to_state()) == json.dumps(whole.to_state())


def test_temperature_is_undone_for_each_label() -> None:
    logits = np.array([[1.2, -0.4], [-2.0, 3.0]])
    scaled, plain = (1 / (1 + np.exp(-logits / t)) for t in (2.0, 1.0))
    found = MultiLabelEvaluation(["a", "b"], temperature=2.0)
    found.update(*few([[1, 0], [0, 1]], scaled.tolist()))
    ece = np.abs(plain - [[1, 0], [0, 1]]).mean()
    assert found.metrics()["calibration"]["before"]["ece"] == pytest.approx(ece, abs=1e-6)


@pytest.mark.parametrize(
    ("given", "told"),
    [([[1, -1]], "known in part"), ([[2, 0]], "neither 0 nor 1"), ([[1, 0, 0]], "differ")],
)
def test_rows_that_cannot_be_are_refused(given: list[list[int]], told: str) -> None:
    rows = few(given, [[0.5, 0.5]])
    with pytest.raises(ValueError, match=told):
        MultiLabelEvaluation(["a", "b"]).update(*rows)


def test_a_state_of_another_format_is_refused() -> None:
    with pytest.raises(DataError, match="score again"):
        MultiLabelEvaluation.from_state({**evaluation(ROWS).to_state(), "format": 0})


def _lists(given: NDArray[np.int8]) -> list[list[int]]:
    return [np.flatnonzero(row).tolist() for row in given]


def test_label_quality_is_cleanlabs_default_score() -> None:
    cleanlab = pytest.importorskip("cleanlab.multilabel_classification")
    ours = label_set_quality(ROWS.given, ROWS.predictions.probabilities)
    theirs = cleanlab.get_label_quality_scores(_lists(GIVEN), PROBABILITIES)
    assert ours[KNOWN] == pytest.approx(theirs, abs=1e-6)
    assert np.isnan(ours[~KNOWN]).all()


def test_issues_are_the_rows_that_cleanlab_finds_confidently_wrong() -> None:
    filters = pytest.importorskip("cleanlab.filter")
    issues = LabelSetIssues(6, BASIS.thresholds)
    issues.update_thresholds(ROWS.given, ROWS.predictions.probabilities)
    quality = issues.quality(ROWS.given, ROWS.predictions.probabilities)
    theirs = np.zeros(len(GIVEN), dtype=np.bool_)
    for label in range(6):
        pair = np.stack([1 - PROBABILITIES[:, label], PROBABILITIES[:, label]], axis=1)
        theirs |= filters.find_label_issues(
            GIVEN[:, label].astype(int),
            pair,
            filter_by="confident_learning",
            n_jobs=1,
            min_examples_per_class=0,
        )
    assert issues.n_issues == theirs.sum() > 0
    flagged = issues.is_label_issue(quality[KNOWN]) & (GIVEN != PREDICTED).any(axis=1)
    assert issues.summary()["flagged"] == flagged.sum()
    assert theirs[flagged].mean() > 2 * theirs.mean()


def test_two_runs_are_compared_row_by_row_and_label_by_label() -> None:
    given = np.array([[1, 0], [0, 1], [1, 1], [-1, -1], [0, 0]])
    before = np.array([[0, 0], [0, 1], [1, 1], [1, 0], [-1, -1]])
    after = np.array([[1, 0], [1, 1], [1, 1], [0, 0], [0, 0]])
    compared = LabelSetComparison.empty(2)
    compared.update(given, before, after, np.array([[1, 0], [1, 1], [-1, -1], [1, 0], [0, 0]]))
    found = compared.summary(["a", "b"])
    counts = {
        name: found[name]
        for name in ("rows", "not_compared", "changed", "evaluated", "fixed", "broken", "relabelled")
    }
    assert counts == {
        "rows": 4, "not_compared": 1, "changed": 3, "evaluated": 3, "fixed": 1, "broken": 1, "relabelled": 1,
    }  # fmt: skip
    assert found["changes"] == {
        "a": {"added": 2, "removed": 1, "fixed": 1, "broken": 1},
        "b": {"added": 0, "removed": 0, "fixed": 0, "broken": 0},
    }
    assert (found["micro_f1_before"], found["micro_f1_after"]) == (pytest.approx(6 / 7), pytest.approx(8 / 9))
    changes = LabelSetSliceChanges()
    lengths = np.zeros(5, dtype=np.bool_), np.full(5, 20)
    changes.update(given, before, after, lengths, {"file": "a"})
    (entry,) = [each for each in changes.summary() if each["column"] == "file"]
    assert (entry["fixed"], entry["broken"], entry["rows"]) == (1, 1, 4)


def test_the_interval_of_a_paired_change_is_that_of_a_bootstrap() -> None:
    rng = np.random.default_rng(1)
    after = np.where(rng.random(PREDICTED.shape) < 0.02, 1 - PREDICTED, PREDICTED)
    compared = measures_of(Task.MULTI_LABEL).comparison(BASIS)
    compared.update(GIVEN, PREDICTED, after, np.full_like(GIVEN, -1))
    change = compared.summary(BASIS.labels)["micro_f1_change"]
    tables = [np.stack([2 * (GIVEN * p).sum(axis=1), (GIVEN + p).sum(axis=1)]) for p in (PREDICTED, after)]
    draws = []
    for _ in range(400):
        weights = rng.multinomial(len(GIVEN), np.full(len(GIVEN), 1 / len(GIVEN)))
        (a, b), (c, d) = (table @ weights for table in tables)
        draws.append(c / d - a / b)
    assert (change["high"] - change["low"]) / 2 == pytest.approx(1.96 * np.std(draws), rel=0.15)
