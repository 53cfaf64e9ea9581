from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from evaluation_samples import Sample, random_sample

from batchscore.evaluation import LabelIssues, label_quality

BATCHES = 7


def with_errors(n_labels: int, seed: int, n: int = 3000) -> Sample:
    """Rows of a sure model, a tenth of which were given a random label."""
    sample = random_sample(n, n_labels, seed, sharpness=3.0)
    rng = np.random.default_rng(seed)
    wrong = (rng.random(n) < 0.1) & (sample.given >= 0)
    return Sample(
        np.where(wrong, rng.integers(0, n_labels, n), sample.given).astype(np.int32), sample.predictions
    )


def inspected(sample: Sample) -> tuple[LabelIssues, np.ndarray[Any, Any]]:
    issues = LabelIssues(sample.predictions.probabilities.shape[1])
    parts = np.array_split(np.arange(len(sample.given)), BATCHES)
    for part in parts:
        issues.update_thresholds(sample.given[part], sample.predictions.probabilities[part])
    qualities = [issues.quality(sample.given[part], sample.predictions.probabilities[part]) for part in parts]
    return issues, np.concatenate(qualities)


def inspected_by_cleanlab(sample: Sample) -> tuple[Any, np.ndarray[Any, Any]]:
    """The inspector after the same batches, and the indices of the rows it saw."""
    batched = pytest.importorskip("cleanlab.experimental.label_issues_batched")
    oracle = batched.LabelInspector(num_class=sample.predictions.probabilities.shape[1], verbose=False)
    parts = [part[sample.evaluated[part]] for part in np.array_split(np.arange(len(sample.given)), BATCHES)]
    for step in (oracle.update_confident_thresholds, oracle.score_label_quality):
        for part in parts:
            step(sample.given[part], sample.predictions.probabilities[part].astype(np.float64))
    return oracle, np.concatenate(parts)


@pytest.mark.parametrize("n_labels", [2, 3, 20])
def test_issues_are_the_mismatches_among_those_of_cleanlab(n_labels: int) -> None:
    sample = with_errors(n_labels, seed=n_labels)
    oracle, rows = inspected_by_cleanlab(sample)
    issues, quality = inspected(sample)
    mismatch = sample.evaluated & (sample.predictions.predicted != sample.given)
    theirs = rows[oracle.get_label_issues()]
    assert issues.n_issues == oracle.get_num_issues() > 0
    assert np.array_equal(quality[rows], oracle.get_quality_scores())
    assert np.flatnonzero(mismatch & issues.is_label_issue(quality)).tolist() == sorted(
        theirs[mismatch[theirs]].tolist()
    )


def test_the_summary_says_how_accuracy_would_be_without_them() -> None:
    sample = with_errors(2, seed=5)
    issues, quality = inspected(sample)
    mismatch = sample.evaluated & (sample.predictions.predicted != sample.given)
    flagged, labelled = int((mismatch & issues.is_label_issue(quality)).sum()), int(sample.evaluated.sum())
    assert issues.summary() == {
        "labelled": labelled,
        "estimated_wrong_labels": issues.n_issues,
        "flagged": flagged,
        "accuracy": 1 - mismatch.sum() / labelled,
        "accuracy_without_flagged": (labelled - mismatch.sum()) / (labelled - flagged),
    }
    assert 0 < flagged <= issues.n_issues


def test_ties_are_in_or_out_together() -> None:
    # two sure labels a side, and three equal mismatches: cleanlab counts them all, so all are issues
    table = np.array([[0.9, 0.1]] * 5 + [[0.1, 0.9]] * 4, dtype=np.float32)
    given = np.array([0, 0, 1, 1, 1, 1, 1, 1, 1])
    issues = LabelIssues(2)
    issues.update_thresholds(given, table)
    quality = issues.quality(given, table)
    assert issues.n_issues == 3
    assert issues.is_label_issue(quality).tolist() == [
        False,
        False,
        True,
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_without_labelled_rows_there_are_no_issues() -> None:
    issues = LabelIssues(2)
    unlabelled, table = np.array([-1, -2]), np.array([[0.9, 0.1], [np.nan, np.nan]], dtype=np.float32)
    issues.update_thresholds(unlabelled, table)
    assert np.isnan(issues.quality(unlabelled, table)).all()
    assert not issues.is_label_issue(np.array([0.0, np.nan], dtype=np.float32)).any()
    assert issues.summary() == {
        "labelled": 0,
        "estimated_wrong_labels": 0,
        "flagged": 0,
        "accuracy": None,
        "accuracy_without_flagged": None,
    }


def test_label_quality_is_cleanlabs_default_score() -> None:
    rank = pytest.importorskip("cleanlab.rank")
    given, _, probabilities = with_errors(4, seed=2).known()
    ours = label_quality(given, probabilities.astype(np.float32))
    assert ours.dtype == np.float32
    assert np.array_equal(ours, rank.get_label_quality_scores(given, probabilities))
