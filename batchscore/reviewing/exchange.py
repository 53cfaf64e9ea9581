"""Verdicts out to a file, and back in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from batchscore.errors import DataError, NoInputError, UsageError, printable
from batchscore.formats.registry import DEFAULT
from batchscore.reviewing import csv_exchange, label_studio
from batchscore.reviewing.judging import verdict_of
from batchscore.reviewing.named_rows import is_json, key_in, refuse_another
from batchscore.reviewing.queue import Filter, Row, label_of
from batchscore.reviewing.records import RunRow, Said, rows_of
from batchscore.reviewing.run_rows import ReviewedRun, place_of
from batchscore.reviewing.session import Review
from batchscore.reviewing.store import DRAWN, IMPORTED, WORST, Verdict, kind_of
from batchscore.system.storage import atomic_write

CSV = DEFAULT
KINDS = (label_studio.NAME, CSV)
_PAGE = 50


class Imported(NamedTuple):
    """What came in."""

    read: int
    """Rows with an answer."""
    changed: int
    """Those of which something else holds now."""
    differing: int
    """Rows of which several people said different things; nothing is taken down for them."""


def export(review: Review, kind: str, path: Path) -> int:
    """Write the verdicts as CSV, or the rows for review with what was said of them for Label Studio; returns the rows.

    Raises:
        StorageError: it cannot be written.
    """
    run = review.run
    with atomic_write(path) as out:
        if kind == CSV:
            standing = {verdict.key: verdict for verdict in review.store.all_standing()}
            rows = ((row, _by_now(row, standing[row.key])) for row in rows_of(run, standing))
            return csv_exchange.write(out, run.fingerprint, rows, has_pairs=has_pairs(run))
        model = str(run.run.model.get("fingerprint", ""))
        return label_studio.write(out, run.fingerprint, model, _queued(review))


def _by_now(row: RunRow, verdict: Verdict) -> Verdict:
    """A verdict on a row whose label may have come since."""
    label = verdict.label
    return verdict if label is None else verdict._replace(kind=kind_of(label, row.given, row.predicted))


def has_pairs(run: ReviewedRun) -> bool:
    """Whether rows are two texts."""
    return any(file.columns.text_pair is not None for file in run.files)


def _queued(review: Review) -> Iterator[tuple[RunRow, Verdict | None]]:
    """The rows for review in the order of suspicion, then those drawn at random that are not among them."""
    for tab in (WORST, DRAWN):
        place = -1
        while rows := review.queue.rows(Filter(tab=tab), after=place, most=_PAGE):
            place = rows[-1].place
            for row in rows:
                if tab == WORST or not _is_among_the_worst(review, row):
                    yield _told(review.run, row), review.store.standing(row.key)


def _is_among_the_worst(review: Review, row: Row) -> bool:
    found = review.queue.row(row.key, WORST)
    return found is not None and found.place >= 0


def _told(run: ReviewedRun, row: Row) -> RunRow:
    file, number = place_of(row.key)
    text = row.text if row.pair is None else (row.text, row.pair)
    given, predicted = label_of(run, row.given), label_of(run, row.predicted)
    return RunRow(row.key, run.names[file], number + 1, row.id, given, predicted, row.probability, text)


# --------------------------------------------------------------------------------------------------------- back in


def take_in(review: Review, path: Path) -> Imported:
    """Take down what a file says: all of it or, after an error, nothing.

    Raises:
        DataError: it is no such file, of another run, or its rows have other texts now.
        UsageError: it says what no row can be.
    """
    if not path.is_file():
        raise NoInputError(f"There is no file {printable(path)}.")
    said, differing = _said(review.run, path)
    verdicts: list[tuple[int, str, str | None]] = []
    for row in rows_of(review.run, said):
        answer, label, text_hash = said[row.key]
        if text_hash != row.text_hash:
            raise DataError(
                f"{printable(path)}: {printable(row.file)}, row {row.row}: the run has another text there."
            )
        verdicts.append((row.key, *_verdict(review.run, row, answer, label)))
    if len(verdicts) < len(said):
        raise DataError(f"{printable(path)} has {len(said) - len(verdicts)} rows that the run has not.")
    changed = review.store.give_all(verdicts, tab=IMPORTED, by=IMPORTED)
    return Imported(len(verdicts), changed, differing)


def _verdict(run: ReviewedRun, row: RunRow, answer: str, label: str | None) -> tuple[str, str | None]:
    index = {name: number for number, name in enumerate(run.labels)}
    given, predicted = (-1 if each is None else index[each] for each in (row.given, row.predicted))
    plain = Row(0, row.key, given, predicted, None, False, None, "", None, None, None, None)
    try:
        return verdict_of(run, plain, answer, label)
    except UsageError as error:
        raise DataError(f"{printable(row.file)}, row {row.row}: {error}") from None


def _said(run: ReviewedRun, path: Path) -> tuple[Mapping[int, Said], int]:
    """What a file says of each row by its key, and of how many rows it says several things."""
    names = {name: number for number, name in enumerate(run.names)}
    found: dict[int, Said] = {}
    differing = 0
    if is_json(path):
        for task in label_studio.read(path):
            refuse_another(run, path, task.run)
            differing += len(task.answers) > 1
            if len(task.answers) == 1:
                ((answer, label),) = task.answers
                key = key_in(path, names, task.file, task.row)
                found[key] = Said(answer, label, task.text_hash)
        return found, differing
    labels = dict.fromkeys(run.labels)
    for row in csv_exchange.read(path):
        refuse_another(run, path, row.run)
        right = None if row.label is None else csv_exchange.meant(labels, row.label) or row.label
        answer = "other" if right is not None else row.verdict
        found[key_in(path, names, row.file, row.row)] = Said(answer, right, row.text_hash)
    return found, 0
