"""Reviewed rows as they are told to others: each with its text and what was said of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from batchscore.formats.text_keys import text_key
from batchscore.records import Text
from batchscore.reviewing.run_rows import ReviewedRun, place_of


class RunRow(NamedTuple):
    """One row of a run."""

    key: int
    file: str
    """Name of the input, below ``predictions/``."""
    row: int
    """As a person counts: from 1."""
    id: str | None
    given: str | None
    predicted: str | None
    probability: float | None
    text: Text

    @property
    def text_hash(self) -> str:
        """By which its text is known again, in hexadecimal."""
        return text_key(self.text).hex()


class Said(NamedTuple):
    """What was said of a row elsewhere, before it is held against the run."""

    answer: str
    """As :func:`batchscore.reviewing.judging.verdict_of` takes it."""
    label: str | None
    text_hash: str


def rows_of(run: ReviewedRun, keys: Mapping[int, object]) -> Iterator[RunRow]:
    """The rows with these keys, in the order of the run, read in one pass."""
    for chunk in run.chunks():
        for at, key in enumerate(chunk.keys.tolist()):
            text = chunk.texts[at]
            if key in keys and text is not None:
                file, row = place_of(key)
                pair = None if chunk.pairs is None else chunk.pairs[at] or ""
                given, predicted = int(chunk.given[at]), int(chunk.predicted[at])
                sure = float(chunk.probability[at])
                yield RunRow(
                    key,
                    run.names[file],
                    row + 1,
                    None if chunk.ids is None else chunk.ids[at],
                    run.labels[given] if given >= 0 else None,
                    run.labels[predicted] if predicted >= 0 else None,
                    sure if sure == sure else None,  # noqa: PLR0124 - NaN
                    text if pair is None else (text, pair),
                )
