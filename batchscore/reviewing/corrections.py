"""What the trainer takes from a review: of a run, or of a file that was exported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from batchscore.errors import DataError, NoInputError, printable
from batchscore.reviewing import csv_exchange, label_studio
from batchscore.reviewing.named_rows import is_json
from batchscore.reviewing.places import run_of
from batchscore.reviewing.records import rows_of
from batchscore.reviewing.run_rows import open_run
from batchscore.reviewing.store import GIVEN, NONE, UNSURE, existing_store
from batchscore.training.corrections import Correction, Corrections


def corrections_of(path: Path) -> Corrections:
    """The corrections in an export, or beside a run.

    Raises:
        NoInputError: there is no such file or run, or nothing was said of it.
        DataError: the run, its verdicts or the file are damaged.
    """
    if path.is_dir():
        rows = _of_run(run_of(path))
    elif path.exists():
        rows = _of_tasks(path) if is_json(path) else _of_csv(path)
    else:
        raise NoInputError(f"There is no run or file {printable(path)} (--corrections).")
    found = tuple(rows)
    if not found:
        raise NoInputError(
            f"--corrections {printable(path)}: nothing was said of any row. Review the run first, with batchscore review."
        )
    return Corrections(str(path), found)


def _of_run(folder: Path) -> Iterator[Correction]:
    run = open_run(folder)
    store = existing_store(run)
    if store is None:
        return
    try:
        standing = {verdict.key: verdict for verdict in store.all_standing()}
    finally:
        store.close()
    for row in rows_of(run, standing):
        verdict = standing[row.key]
        yield Correction(row.text_hash, row.text, verdict.label, verdict.kind == UNSURE)


def _of_csv(path: Path) -> Iterator[Correction]:
    for row in csv_exchange.read(path):
        label = row.label or (row.given if row.verdict == GIVEN else None)
        if label is None and row.verdict not in (NONE, UNSURE):
            raise DataError(
                f"{printable(path)}: {printable(row.file)}, row {row.row} has a verdict without its label."
            )
        yield Correction(row.text_hash, row.text, label, label is None and row.verdict == UNSURE)


def _of_tasks(path: Path) -> Iterator[Correction]:
    """The tasks of which one thing was said; where several people differ, nobody could tell."""
    for task in label_studio.read(path):
        if task.answers:
            is_one = len(task.answers) == 1
            ((answer, label),) = task.answers if is_one else ((UNSURE, None),)
            yield Correction(task.text_hash, task.text, label, answer == UNSURE)
