"""The training and evaluation splits, read, labelled and shuffled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore.records import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.records import Text


class Goal(NamedTuple):
    """What a classifier is to say."""

    task: Task
    labels: tuple[str, ...]
    """A regression has one, the name of its value."""


Label = int | tuple[int, ...] | float
"""Of a row: the index of its label; 0 or 1 for each label; or its number."""


def named(label: Label, names: Sequence[str]) -> str | float | list[str]:
    """What a row was given, as JSON: a name, names, or the number."""
    if isinstance(label, tuple):
        return [name for name, is_given in zip(names, label, strict=True) if is_given]
    return label if isinstance(label, float) else names[label]


def counted(goal: Goal, labels: Sequence[Any]) -> dict[str, Any]:
    """``labels``: rows by label; of numbers ``values``: the least, the most, the mean and the spread."""
    if goal.task == Task.REGRESSION:
        each = np.array(labels, dtype=np.float64)
        facts = {"least": each.min(), "most": each.max(), "mean": each.mean(), "spread": each.std()}
        return {"labels": {}, "values": {name: float(value) for name, value in facts.items()}}
    if goal.task == Task.MULTI_LABEL:
        rows = np.array(labels, dtype=np.int64).sum(axis=0).tolist()
        return {"labels": dict(zip(goal.labels, rows, strict=True))}
    return {"labels": {name: labels.count(index) for index, name in enumerate(goal.labels)}}


@dataclasses.dataclass(frozen=True, slots=True)
class Split:
    """Usable rows: ``labels[k]`` is what ``texts[k]``, one text or two, was given, by the task (:data:`Label`)."""

    texts: list[Text]
    labels: list[Any]
    places: list[str] = dataclasses.field(default_factory=list)
    """The origin of each row, ``reviews.csv:17`` (0-based)."""
    groups: list[str | None] = dataclasses.field(default_factory=list)
    """The value of the group column, if one was asked for."""

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> Split:
        """The rows at these positions, in this order."""
        return Split(
            [self.texts[row] for row in rows],
            [self.labels[row] for row in rows],
            [self.places[row] for row in rows] if self.places else [],
            [self.groups[row] for row in rows] if self.groups else [],
        )

    def fingerprint(self, names: Sequence[str]) -> str:
        """SHA-256 (hex) of texts and label names in order, whatever their files."""
        digest = hashlib.sha256()
        for text, label in zip(self.texts, self.labels, strict=True):
            digest.update(json.dumps([text, named(label, names)]).encode() + b"\n")
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingData:
    """The two splits, shuffled and limited."""

    goal: Goal
    train: Split
    evaluation: Split
    source: str
    """Where the evaluation rows come from, in words."""
    left_out: Mapping[str, Mapping[str, int]]
    """Rows left out of each split, by reason."""
    untold: tuple[str, ...] = ()
    """Of ``train`` and ``evaluation``, the splits whose rows have no label of their own but what a teacher says."""
    corrections: Mapping[str, Any] | None = None
    """What a review changed, as JSON values (:mod:`batchscore.training.corrections`)."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the logits."""
        return self.goal.labels

    def facts(self) -> dict[str, Any]:
        """What the bundle stores about the data, as JSON values."""
        splits = {"train": self.train, "evaluation": self.evaluation}
        return {
            name: {
                "rows": len(split),
                "sha256": split.fingerprint(self.labels),
                **counted(self.goal, split.labels),
                "left_out": dict(self.left_out[name]),
            }
            for name, split in splits.items()
        } | {
            "evaluation_from": self.source,
            **({"labels_of_teacher": list(self.untold)} if self.untold else {}),
            **({} if self.corrections is None else {"corrections": dict(self.corrections)}),
        }


def stratified(labels: Sequence[int], share: float, seed: int) -> list[int]:
    """Sorted positions of a random ``share`` of the rows of each label; none of a label with one row."""
    random = np.random.default_rng(seed)
    each = np.array(labels)
    picked: list[int] = []
    for label in np.unique(each):
        members = random.permutation(np.flatnonzero(each == label))
        picked += members[: max(1, round(len(members) * share)) if len(members) > 1 else 0].tolist()
    return sorted(picked)


def held_out_groups(
    places: Sequence[int], groups: Sequence[str | None], strata: Sequence[int], share: float, seed: int
) -> list[int]:
    """One of ``1 / share`` folds by scikit-learn's ``StratifiedGroupKFold``; a row without a group is its own group.

    Row *i* is of ``groups[places[i]]``. Returns sorted positions; none where there are fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    names = [f"={groups[row]}" if groups[row] is not None else str(row) for row in places]
    if len(set(names)) < round(1 / share):
        return []
    folds = StratifiedGroupKFold(round(1 / share), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label with fewer rows than folds
        _, held_out = next(folds.split(names, strata, names))
    return sorted(int(row) for row in held_out)
