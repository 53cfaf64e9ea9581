"""Counts of rows by status and label."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from batchscore.evaluation.tally import Tally
from batchscore.records import UNKNOWN_LABEL, UNLABELLED, Status

if TYPE_CHECKING:
    from batchscore.evaluation.outcomes import RowOutcomes


@dataclasses.dataclass(slots=True)
class RowCounts(Tally):
    """``read`` = ``scored`` + ``abstained`` + ``null_text`` + ``empty_text`` + ``failed`` + ``rejects``.

    Labels are counted whatever the status: ``read`` - ``rejects`` = ``labelled`` + ``unlabelled`` + ``unknown_label``.
    """

    read: int = 0
    scored: int = 0
    null_text: int = 0
    empty_text: int = 0
    failed: int = 0
    abstained: int = 0
    """No label reached its threshold."""
    abstained_labelled: int = 0
    """Those of them with a known label."""
    rejects: int = 0
    truncated: int = 0
    labelled: int = 0
    unlabelled: int = 0
    unknown_label: int = 0
    evaluated: int = 0
    """Scored and labelled."""
    correct: int = 0

    def update(self, outcomes: RowOutcomes, rejects: int = 0) -> None:
        """Add ``outcomes`` and the number of rows that could not be read."""
        is_labelled = outcomes.given >= 0
        self.merge(
            RowCounts(
                read=len(outcomes) + rejects,
                scored=int(outcomes.scored.sum()),
                null_text=int((outcomes.status == Status.NULL_TEXT).sum()),
                empty_text=int((outcomes.status == Status.EMPTY_TEXT).sum()),
                failed=int((outcomes.status == Status.FAILED).sum()),
                abstained=int((outcomes.status == Status.ABSTAINED).sum()),
                abstained_labelled=int(((outcomes.status == Status.ABSTAINED) & is_labelled).sum()),
                rejects=rejects,
                truncated=int(np.count_nonzero(outcomes.truncated)),
                labelled=int(is_labelled.sum()),
                unlabelled=int((outcomes.given == UNLABELLED).sum()),
                unknown_label=int((outcomes.given == UNKNOWN_LABEL).sum()),
                evaluated=int(outcomes.evaluated.sum()),
                correct=int(outcomes.correct.sum()),
            )
        )

    def summary(self) -> dict[str, int]:
        """The fields by name."""
        return dataclasses.asdict(self)
