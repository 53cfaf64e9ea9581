"""The training and evaluation splits, read, labelled and shuffled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from batchscore.records import Text


@dataclasses.dataclass(frozen=True, slots=True)
class Split:
    """Usable rows: ``labels[k]`` is the index of the label of ``texts[k]``, which is one text, or two."""

    texts: list[Text]
    labels: list[int]
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
            digest.update(json.dumps([text, names[label]]).encode() + b"\n")
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingData:
    """The two splits, shuffled and limited."""

    labels: tuple[str, ...]
    train: Split
    evaluation: Split
    source: str
    """Where the evaluation rows come from, in words."""
    left_out: Mapping[str, Mapping[str, int]]
    """Rows left out of each split, by reason."""

    def facts(self) -> dict[str, Any]:
        """What the bundle stores about the data, as JSON values."""
        splits = {"train": self.train, "evaluation": self.evaluation}
        return {
            name: {
                "rows": len(split),
                "sha256": split.fingerprint(self.labels),
                "labels": {label: split.labels.count(index) for index, label in enumerate(self.labels)},
                "left_out": dict(self.left_out[name]),
            }
            for name, split in splits.items()
        } | {"evaluation_from": self.source}
