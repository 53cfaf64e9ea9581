"""Few labels are learned with doubt: half of a target is the given label, half what a linear model says that did not see the row.

An encoder that learns a few hundred hard labels by heart becomes as sure of one text as of the next, and no temperature mends that. To mix
labels with predictions is "soft bootstrapping" (Reed et al. 2015, arXiv:1412.6596). Here the predictions are out of fold and of
another kind of model, so that they neither repeat the label nor the encoder's own errors.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from batchscore.records import Task
from batchscore.training.linear_baseline import out_of_fold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.training.context import Tell
    from batchscore.training.settings import Hyperparameters
    from batchscore.training.splits import TrainingData
    from batchscore.training.tokenized_rows import TokenizedRows

MOST_ROWS = 4000
"""More labels teach an encoder by themselves how sure to be."""
LEAST_RECALL = 0.7
"""Of the linear model, cross-validated, the mean over labels. One that is right less often is of no help: with 600 reviews of eight
ratings, of which it finds 24 %, such targets cost two points of accuracy."""
SHARE = 0.5
"""Of a target, what is the linear model's; so the given label stays the likeliest."""


def with_soft_labels(
    data: TrainingData,
    plan: Hyperparameters,
    rows: TokenizedRows,
    tell: Tell = lambda _: None,
    least_recall: float | None = None,
) -> TokenizedRows:
    """The training rows with soft targets, those in the ``subset`` by these alone; ``least_recall`` in place of ``LEAST_RECALL``.

    With hard ones: if they were asked for, where a head alone is trained, for other tasks than one label a text, with class weights,
    from ``MOST_ROWS`` rows on, where nothing can be cross-validated, and where the linear model is too weak.
    """
    rows, place = dataclasses.replace(rows, soft=None), list(rows.positions)
    if (
        not plan.soft_labels
        or not plan.trains_encoder
        or data.goal.task != Task.SINGLE_LABEL
        or plan.class_weights != "none"
        or len(place) >= MOST_ROWS
    ):
        return rows
    split = data.train.select(place)
    least = LEAST_RECALL if least_recall is None else least_recall
    others = out_of_fold(data, split, plan.seed)
    if others is None or _mean_recall(others, np.array(split.labels)) < least:
        return rows
    soft = np.eye(len(data.labels), dtype=np.float32)[np.array(rows.labels)]
    soft[place] = (1 - SHARE) * soft[place] + SHARE * others
    tell(
        "few labels: half of what is learned of a row is its label, half what a linear model says that did not see it (--hard-labels: "
        "the label alone)"
    )
    return dataclasses.replace(rows, soft=soft)


def _mean_recall(answers: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The mean over labels of the share of their rows that are found, so that frequent labels do not hide the others."""
    is_found = answers.argmax(axis=1) == labels
    return float(np.mean([is_found[labels == label].mean() for label in np.unique(labels)]))
