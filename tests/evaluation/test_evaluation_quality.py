from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from evaluation_samples import evaluate, literal, random_sample
from scipy import stats
from sklearn import metrics as sk

from batchscore.evaluation.quality import macro_f1, matthews
from batchscore.evaluation.significance import Estimate, wilson

Metric = Callable[[Any], Estimate | None]
Figure = Callable[[Any], float]
SAMPLES = pytest.mark.parametrize(
    ("n_labels", "seed"), [(2, 1), (3, 2), (20, 3)], ids=["2 labels", "3 labels", "20 labels"]
)


def quality_of(n_labels: int, seed: int) -> tuple[dict[str, Any], Any]:
    sample = random_sample(2000, n_labels, seed)
    return evaluate(sample).metrics()["quality"], sample.known()


@SAMPLES
def test_accuracy_and_confusion_matrix_are_those_of_scikit_learn(n_labels: int, seed: int) -> None:
    quality, (given, predicted, _) = quality_of(n_labels, seed)
    assert quality["accuracy"]["value"] == sk.accuracy_score(given, predicted)
    expected = sk.confusion_matrix(given, predicted, labels=range(n_labels))
    assert quality["confusion_matrix"]["counts"] == expected.tolist()


@SAMPLES
def test_precision_recall_f1_and_support_are_those_of_scikit_learn(n_labels: int, seed: int) -> None:
    quality, (given, predicted, _) = quality_of(n_labels, seed)
    columns = sk.precision_recall_fscore_support(
        given, predicted, labels=range(n_labels), zero_division=np.nan
    )
    for name, column in zip(("precision", "recall", "f1", "support"), columns, strict=True):
        ours = [table[name] for table in quality["per_label"].values()]
        assert ours == pytest.approx(column.tolist(), abs=1e-12, nan_ok=True)
    assert quality["macro_f1"]["value"] == pytest.approx(
        sk.f1_score(given, predicted, average="macro"), abs=1e-12
    )


@SAMPLES
def test_log_loss_is_that_of_scikit_learn(n_labels: int, seed: int) -> None:
    quality, (given, _, probabilities) = quality_of(n_labels, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # float32 rows do not sum to 1 in float64
        expected = sk.log_loss(given, y_proba=probabilities, labels=range(n_labels))
    assert quality["log_loss"] == pytest.approx(expected, abs=1e-9)


def test_log_loss_of_an_impossible_label_is_clipped_as_in_scikit_learn() -> None:
    sample = literal([1, 0], [[1.0, 0.0], [0.5, 0.5]])
    given, _, probabilities = sample.known()
    ours = evaluate(sample).metrics()["quality"]["log_loss"]
    assert ours == pytest.approx(sk.log_loss(given, y_proba=probabilities), abs=1e-9)
    assert ours == pytest.approx((36.04365338911715 + np.log(2)) / 2, abs=1e-9)


@SAMPLES
def test_the_brier_score_is_scikit_learns_and_the_sum_has_a_name_of_its_own(n_labels: int, seed: int) -> None:
    quality, (given, _, probabilities) = quality_of(n_labels, seed)
    exact = probabilities / probabilities.sum(axis=1, keepdims=True)  # float32 rows sum to 1 for the oracle
    theirs = sk.brier_score_loss(
        given, exact[:, 1] if n_labels == 2 else exact, labels=range(n_labels), scale_by_half="auto"
    )
    summed = ((probabilities - np.eye(n_labels)[given]) ** 2).sum(axis=1).mean()
    assert quality["brier_score_loss"] == pytest.approx(theirs, abs=1e-6)
    assert quality["brier_sum"] == pytest.approx(summed, abs=1e-9)
    assert quality["brier_sum"] == pytest.approx(
        quality["brier_score_loss"] * (2 if n_labels == 2 else 1), abs=1e-6
    )


def test_four_rows_by_hand() -> None:
    quality = evaluate(
        literal([0, 0, 1, 1], [[0.75, 0.25], [0.25, 0.75], [0.25, 0.75], [0.125, 0.875]]), ["NEG", "POS"]
    )
    found = quality.metrics()["quality"]
    assert found["accuracy"]["value"] == 0.75
    assert found["confusion_matrix"] == {"labels": ["NEG", "POS"], "counts": [[1, 1], [0, 2]]}
    assert found["per_label"]["NEG"] == {
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "support": 2,
        "roc_auc": {"value": 0.875, "error_bound": 0.125},
        "average_precision": {"value": pytest.approx(1 / 2 + 1 / 3), "error_bound": pytest.approx(1 / 6)},
    }
    assert found["macro_f1"]["value"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["brier_sum"] == (0.125 + 1.125 + 0.125 + 0.03125) / 4
    assert found["brier_score_loss"] == (0.0625 + 0.5625 + 0.0625 + 0.015625) / 4


@pytest.mark.parametrize(
    ("right", "rows"),
    [(0, 5), (5, 5), (8, 10), (999_000, 1_000_000)],
    ids=["none", "all", "most", "a million"],
)
def test_the_wilson_interval_is_that_of_scipy(right: int, rows: int) -> None:
    found = wilson(right, rows)
    expected = stats.binomtest(right, rows).proportion_ci(method="wilson")
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def f1_of(p: np.ndarray[Any, Any]) -> float:
    return float(np.mean(2 * np.diag(p) / (p.sum(axis=0) + p.sum(axis=1))))


def correlation_of(p: np.ndarray[Any, Any]) -> float:
    """As the correlation of one-hot vectors of given and predicted labels."""
    given, predicted = p.sum(axis=1), p.sum(axis=0)
    covariance = np.trace(p) / p.sum() - given @ predicted / p.sum() ** 2
    spreads = (1 - (margin / p.sum()) @ (margin / p.sum()) for margin in (given, predicted))
    return float(covariance / np.sqrt(np.prod(list(spreads))))


FROM_CONFUSION = pytest.mark.parametrize(
    ("metric", "of"),
    [(macro_f1, f1_of), (matthews, correlation_of)],
    ids=["macro F1", "Matthews"],
)


@FROM_CONFUSION
@pytest.mark.parametrize("n_labels", [2, 3, 5])
def test_the_slopes_are_those_of_finite_differences(metric: Metric, of: Figure, n_labels: int) -> None:
    confusion = np.random.default_rng(n_labels).integers(5, 60, (n_labels, n_labels)) + 100 * np.eye(
        n_labels, dtype=np.int64
    )
    rows = confusion.sum()
    p, step = confusion / rows, 1e-6
    slopes = np.zeros_like(p)
    for cell in np.ndindex(*p.shape):
        up, down = p.copy(), p.copy()
        up[cell] += step
        down[cell] -= step
        slopes[cell] = (of(up) - of(down)) / (2 * step)
    variance = ((p * slopes**2).sum() - (p * slopes).sum() ** 2) / rows
    found = metric(confusion)
    assert found is not None
    assert found.value == pytest.approx(of(p), abs=1e-12)
    assert found.high - found.value == pytest.approx(1.959963984540054 * np.sqrt(variance), rel=1e-6)
    assert found.value - found.low == pytest.approx(found.high - found.value)


@FROM_CONFUSION
def test_the_interval_holds_the_truth_about_95_times_in_100(metric: Metric, of: Figure) -> None:
    truth = np.array([[0.4, 0.06], [0.1, 0.44]])
    draws = np.random.default_rng(0).multinomial(400, truth.ravel(), size=1000).reshape(-1, 2, 2)
    intervals = [metric(draw) for draw in draws]
    covered = sum(i is not None and i.low <= of(truth) <= i.high for i in intervals)
    assert 930 <= covered <= 970


@SAMPLES
def test_matthews_is_that_of_scikit_learn(n_labels: int, seed: int) -> None:
    quality, (given, predicted, _) = quality_of(n_labels, seed)
    assert quality["matthews"]["value"] == pytest.approx(sk.matthews_corrcoef(given, predicted), abs=1e-12)


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize(
    ("confusion", "value", "low", "high"),
    [
        ([[5, 0, 0], [0, 3, 0], [0, 0, 1]], 1.0, 1.0, 1.0),
        ([[0, 7], [4, 0]], -1.0, -1.0, -1.0),
        ([[5, 2], [0, 0]], 0.0, -1.0, 1.0),
        ([[5, 0], [2, 0]], 0.0, -1.0, 1.0),
        ([[5, 0], [0, 0]], 0.0, -1.0, 1.0),
    ],
    ids=["all right", "all wrong", "one label given", "one label predicted", "one label"],
)
def test_matthews_at_its_ends_and_where_it_is_undefined(
    confusion: list[list[int]], value: float, low: float, high: float
) -> None:
    found = matthews(np.array(confusion))
    assert found == pytest.approx((value, low, high), abs=1e-12)
    given, predicted = (
        np.repeat(index.ravel(), np.ravel(confusion)) for index in np.indices((len(confusion),) * 2)
    )
    assert sk.matthews_corrcoef(given, predicted) == pytest.approx(value)


def test_matthews_of_more_rows_than_int64_can_square_stays_within_one() -> None:
    found = matthews(np.array([[3_000_000_001, 0], [0, 7_000_000_003]]))
    assert found is not None
    assert found == pytest.approx((1.0, 1.0, 1.0), abs=1e-12)
    assert found.high == 1.0
    assert matthews(np.zeros((2, 2), dtype=np.int64)) is None


def test_a_label_that_never_occurs_has_no_figures_and_is_left_out_of_the_mean() -> None:
    sample = literal([0, 1], [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    quality = evaluate(sample, ["a", "b", "c"]).metrics()["quality"]
    never = {
        "precision": None,
        "recall": None,
        "f1": None,
        "support": 0,
        "roc_auc": None,
        "average_precision": None,
    }
    assert quality["per_label"]["c"] == never
    assert quality["macro_f1"]["value"] == 1.0
    without = evaluate(literal([0, 1, 0], [[0.8, 0.2], [0.2, 0.8], [0.2, 0.8]])).metrics()["quality"][
        "macro_f1"
    ]
    with_unseen = literal([0, 1, 0], [[0.8, 0.2, 0.0], [0.2, 0.8, 0.0], [0.2, 0.8, 0.0]])
    assert evaluate(with_unseen).metrics()["quality"]["macro_f1"] == pytest.approx(without)
