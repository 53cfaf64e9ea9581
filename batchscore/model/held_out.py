"""What a bundle answered to held-out rows, and whether that was right: what ``--accept`` chooses its thresholds on.

A small table in ``batchscore.json``: no texts, three numbers a row, at most :data:`MOST_ROWS` rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchscore.config import LONG_TEXT, PRECISIONS
from batchscore.records import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEY = "held_out_answers"
MOST_ROWS = 50_000
"""More are not kept: thresholds no longer change, and the bundle is read at every start."""
_COLUMNS = ("predicted", "probability", "right")


@dataclasses.dataclass(frozen=True, slots=True)
class HeldOutAnswers:
    """Rows that neither trained the model nor chose its epoch, of one label each."""

    predicted: NDArray[np.int32]
    """``[n]``: the index of the predicted label."""
    probability: NDArray[np.float32]
    """``[n]``: of the predicted label, after the temperature."""
    right: NDArray[np.bool_]
    """``[n]``: whether it is the given one."""
    precision: str
    """What the probabilities were computed in."""
    long_text: str

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Self | None:
        """Those of a bundle, from its checked ``batchscore.json``; None if it has none."""
        kept = facts.get(KEY)
        if kept is None:
            return None
        return cls(
            np.array(kept["predicted"], dtype=np.int32),
            np.array(kept["probability"], dtype=np.float32),
            np.array(kept["right"], dtype=np.bool_),
            kept["precision"],
            kept["long_text"],
        )

    def to_json(self) -> dict[str, Any]:
        """What ``batchscore.json`` has of them: of many rows evenly spread ones."""
        rows = len(self.predicted)
        kept = np.linspace(0, rows - 1, min(rows, MOST_ROWS)).round().astype(np.int64)
        return {
            "precision": self.precision,
            "long_text": self.long_text,
            "predicted": self.predicted[kept].tolist(),
            "probability": [float(each) for each in self.probability[kept]],
            "right": self.right[kept].astype(int).tolist(),
        }


def can_be_meant(kept: Any, facts: Mapping[str, Any]) -> bool:
    """Whether a ``batchscore.json`` has no such table, or one whose columns are of one length and make sense."""
    if kept is None:
        return True
    if not isinstance(kept, dict) or facts.get("task", Task.SINGLE_LABEL) != Task.SINGLE_LABEL:
        return False
    columns: list[Any] = [kept.get(name) for name in _COLUMNS]
    if not all(isinstance(column, list) and column for column in columns):
        return False
    predicted, probability, right = columns
    return (
        len({len(column) for column in columns}) == 1
        and kept.get("precision") in PRECISIONS[1:]
        and kept.get("long_text") in LONG_TEXT
        and all(type(each) is int and 0 <= each < len(facts["labels"]) for each in predicted)
        and all(isinstance(each, int | float) and 0 <= each <= 1 for each in probability)
        and all(type(each) is int and each in (0, 1) for each in right)
    )
