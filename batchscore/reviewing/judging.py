"""What an answer means for a row, and what answers to rows drawn at random say of all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from batchscore.errors import UsageError, printable
from batchscore.evaluation.draws import DrawnShare, drawn_share
from batchscore.reviewing.queue import Filter, ReviewQueue, Row, label_of
from batchscore.reviewing.run_rows import ReviewedRun
from batchscore.reviewing.store import DRAWN, GIVEN, NONE, OTHER, PREDICTION, UNSURE, kind_of


def verdict_of(run: ReviewedRun, row: Row, answer: str, label: str | None) -> tuple[str, str | None]:
    """Kind and right label of an answer: ``given``, ``prediction``, ``none`` and ``unsure``, or ``other`` with a label.

    A label that is the given one, or the predicted one, is told as such, however it was chosen.

    Raises:
        UsageError: the row has no such label, or the model has not.
    """
    given, predicted = label_of(run, row.given), label_of(run, row.predicted)
    if answer in (NONE, UNSURE):
        return answer, None
    right = {GIVEN: given, PREDICTION: predicted, OTHER: label}.get(answer)
    if right is None:
        raise UsageError(f"The row has no label of that kind ({printable(answer)[:20]}).")
    if right not in run.labels:
        raise UsageError("That is no label of the run's model.")
    return kind_of(right, given, predicted), right


def estimates(queue: ReviewQueue) -> dict[str, Any] | None:
    """What the rows drawn at random say of all: ``model`` and ``given`` labels; None before the first was judged.

    A row that was passed over counts as one that nobody could judge. A verdict from the other tab counts for a row that was drawn
    too, as the row is no less drawn for that. ``is_whole`` says whether all the rows that were to be judged are: only a number that
    was fixed beforehand makes the estimate unbiased whenever somebody looks at it.
    """
    rows = queue.drawn()
    if not rows:
        return None
    population = queue.population
    model = _share(population.answered, (_is_right(queue.run, row, row.predicted) for row in rows))
    labelled = [row for row in rows if row.given >= 0]
    given = _share(population.labelled, (_is_right(queue.run, row, row.given) for row in labelled))
    return {
        "is_whole": len(rows) == queue.counts(Filter(tab=DRAWN))["rows"],
        "model": model.to_json() if model else None,
        "given": given.to_json() if given else None,
    }


def _is_right(run: ReviewedRun, row: Row, label: int) -> bool | None:
    """Whether a label is the right one of its row; None if nobody could tell."""
    if row.kind in (None, UNSURE):
        return None
    return row.kind != NONE and row.label == label_of(run, label)


def _share(population: int, judged: Iterable[bool | None]) -> DrawnShare | None:
    each = list(judged)
    return drawn_share(population, len(each), each.count(True), each.count(False))
