"""Thirty nights of every kind, with what a person would say of each."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from report_samples import Rows, held_against, metrics, rows, write_run

from batchscore.records import Status

FIRST = datetime.datetime(2026, 10, 28, 3, 20, tzinfo=datetime.UTC)
NOW = FIRST + datetime.timedelta(days=29, hours=6)
REASONS = {
    12: "accuracy is ",
    14: "accuracy ",
    16: "7 rows could not be scored",
    18: "none of 50 rows was scored; 50 with an empty text",
    20: "the input holds no row",
    21: "No such input: /srv/export/reviews.csv",
    22: "bad data: 3 of 90 rows could not be read",
    23: "the model or the settings: the model is unusable",
    24: "nothing to score",
    25: "it has not finished",
    26: "no run has this date",
    27: "no gate on quality is set",
    28: "accuracy 8",
}
"""Night → how its reason starts."""


def make_month(folder: Path) -> None:
    """Thirty run folders, the last of the day of ``NOW``."""
    for k in range(30):
        run = folder / f"{FIRST + datetime.timedelta(days=k):%Y-%m-%d}"
        if k in _UNSCORED:
            _UNSCORED[k](run, k)
        elif k != 26:
            write_run(run, _night(k), FIRST + datetime.timedelta(days=k), seconds=60.0)


@functools.cache
def _held(seed: int, sharpness: float, gates: tuple[str, ...]) -> dict[str, Any]:
    found = metrics(rows(1_000, seed=seed, sharpness=sharpness))
    return held_against(found, metrics(rows(1_000)), gates) | {"slices": []}


def _night(k: int) -> dict[str, Any]:
    if k == 12:
        return _held(k, 0.9, ("accuracy=0.85",))
    if k == 14:
        return _held(k, 0.9, ("accuracy=0.5",))
    found = _held(k % 5, 2.2, () if k == 27 else ("accuracy=0.8",))
    if k == 16:
        return found | {"counts": found["counts"] | {"failed": 7}}
    if k in {18, 20}:
        return _nothing(50 if k == 18 else 0)
    return found


def _nothing(n: int) -> dict[str, Any]:
    """Rows of which none was scored, for want of a text."""
    given, p = rows(n)
    none = dataclasses.replace(
        p,
        status=np.full(n, Status.EMPTY_TEXT, dtype=np.int8),
        predicted=np.full(n, -1, dtype=np.int32),
        probabilities=np.full_like(p.probabilities, np.nan),
        n_tokens=np.full(n, -1, dtype=np.int32),
    )
    return metrics(Rows(given, none)) | {"gates": []}


def _refused(code: int, reason: str) -> Any:
    def write(run: Path, k: int) -> None:
        run.mkdir(parents=True)
        date = FIRST + datetime.timedelta(days=k)
        note = {"exit_code": code, "reason": reason, "at": date.isoformat(), "date": f"{date:%Y-%m-%d}"}
        (run / "refused.json").write_text(json.dumps(note), encoding="utf-8")

    return write


def _unfinished(run: Path, _: int) -> None:
    (run / ".staging").mkdir(parents=True)


_UNSCORED = {
    21: _refused(66, "No such input: /srv/export/reviews.csv. Name a file, a folder or a quoted glob."),
    22: _refused(65, "3 of 90 rows could not be read, --max-rejects allows 0."),
    23: _refused(78, "the model is unusable: no tokenizer."),
    24: _refused(99, "nothing to score."),
    25: _unfinished,
}
