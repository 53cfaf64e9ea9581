"""The rows for review in a SQLite file of their own, made from a run in one pass, so that any page of them is there at once.

It has the mismatches in their order, those worth checking first on top (the first 100,000), then the least sure of the other rows
(up to 5,000), and rows drawn at random from all that were answered (5,000). Nothing in it is of any worth by itself: it is made
again where it is missing, or of something else. Memory holds two numbers for each of these rows; texts go from file to file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from batchscore.errors import storage_error
from batchscore.evaluation.slices import LONGEST_VALUE, NULL
from batchscore.reviewing.databases import connect, telling
from batchscore.reviewing.places import INDEX, prepare, review_folder
from batchscore.reviewing.run_rows import ReviewedRun, RowChunk, place_of
from batchscore.system.storage import sync_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.system.own_paths import OwnPath

VERSION = 2
"""Of the file: raised when its tables change."""
MOST_MISMATCHES = 100_000
MOST_UNSURE = 5_000
MOST_DRAWN = 5_000
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE rows (key INTEGER PRIMARY KEY, worst INTEGER, drawn INTEGER, given INTEGER NOT NULL, predicted INTEGER NOT NULL,
  probability REAL, is_issue INTEGER NOT NULL, id TEXT, text TEXT NOT NULL, pair TEXT);
CREATE TABLE slices (name TEXT NOT NULL, value TEXT NOT NULL, key INTEGER NOT NULL, PRIMARY KEY (name, value, key)) WITHOUT ROWID;
CREATE TABLE search (key INTEGER PRIMARY KEY, folded TEXT NOT NULL);
"""
_INDEXES = """
CREATE UNIQUE INDEX rows_worst ON rows (worst) WHERE worst IS NOT NULL;
CREATE UNIQUE INDEX rows_drawn ON rows (drawn) WHERE drawn IS NOT NULL;
CREATE INDEX rows_pair ON rows (given, predicted, worst) WHERE worst IS NOT NULL;
"""


class Population(NamedTuple):
    """What rows at random are drawn from."""

    answered: int
    """Rows with a predicted label."""
    labelled: int
    """Those of them with a given label that the model knows."""


class Recipe(NamedTuple):
    """All that an index depends on."""

    run: str
    """The run with the labels that it has now (:attr:`ReviewedRun.mark`)."""
    seed: int
    """Which rows are drawn at random, and in which order."""
    unsure_below: float
    """A row whose prediction is less likely than this is for review, whatever it was given."""
    suggested: str = ""
    """SHA-256 (hex) of the keys of the rows that are for review, in the place of mismatches and unsure rows; empty without."""
    version: int = VERSION


class _Least:
    """The keys of the smallest values that were seen, at most ``most``, in bounded memory."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values, self._keys = np.empty(0), np.empty(0, dtype=np.int64)

    @property
    def _limit(self) -> float:
        return float(self._values.max()) if len(self._values) == self._most else np.inf

    def may_be_in(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which values are small enough so far; NaN never is."""
        found: NDArray[np.bool_] = values < self._limit
        return found

    def add(self, values: NDArray[np.float64], keys: NDArray[np.int64]) -> None:
        values, keys = np.concatenate([self._values, values]), np.concatenate([self._keys, keys])
        order = np.lexsort((keys, values))[: self._most]
        self._values, self._keys = values[order], keys[order]

    @property
    def keys(self) -> NDArray[np.int64]:
        """In the order of the values; those of the same value in the order of rows."""
        return self._keys


class _Building:
    """The rows that are chosen while a run is read."""

    def __init__(
        self,
        run: ReviewedRun,
        recipe: Recipe,
        suggested: Sequence[int] | None,
        connection: sqlite3.Connection,
    ) -> None:
        self._connection, self._recipe = connection, recipe
        self.mismatches, issues, self.n_mismatches = run.mismatches(MOST_MISMATCHES)
        if suggested is not None:  # these alone, in their order
            self.mismatches = np.array(suggested, dtype=np.int64)
            issues = np.zeros(len(self.mismatches), dtype=np.bool_)
        self._seeks_unsure = suggested is None
        order = np.argsort(self.mismatches)
        self._sorted, self._issues = self.mismatches[order], issues[order]
        self.unsure, self.drawn = _Least(MOST_UNSURE), _Least(MOST_DRAWN)
        self._random = np.random.Generator(np.random.PCG64(recipe.seed))
        self.answered = self.labelled = 0

    def add(self, chunk: RowChunk) -> None:
        """Choose among some rows, and write those that may be wanted."""
        readable = np.array([text is not None for text in chunk.texts], dtype=np.bool_)
        is_answered = (chunk.predicted >= 0) & readable
        self.answered += int(is_answered.sum())
        self.labelled += int((is_answered & (chunk.given >= 0)).sum())
        at = np.searchsorted(self._sorted, chunk.keys)
        is_there = at < len(self._sorted)
        is_mismatch = (
            is_there & (self._sorted[np.where(is_there, at, 0)] == chunk.keys)
            if len(self._sorted)
            else is_there
        )
        differs = (chunk.given >= 0) & is_answered & (chunk.given != chunk.predicted)
        doubt = np.where(chunk.abstained & readable, 0.0, chunk.probability)
        doubt = np.where(
            (is_answered | (chunk.abstained & readable))
            & ~differs
            & (doubt < self._recipe.unsure_below)
            & self._seeks_unsure,
            doubt,
            np.inf,
        )
        luck = np.where(is_answered, self._random.random(len(chunk.keys)), np.inf)
        chosen = is_mismatch.copy()
        for least, values in ((self.unsure, doubt), (self.drawn, luck)):
            rows = np.flatnonzero(least.may_be_in(values) & np.isfinite(values))
            least.add(values[rows], chunk.keys[rows])
            chosen |= np.isin(chunk.keys, least.keys)
        issue = np.zeros(len(chunk.keys), dtype=np.int64)
        issue[is_mismatch] = self._issues[at[is_mismatch]]
        self._write(chunk, np.flatnonzero(chosen), issue)

    def _write(self, chunk: RowChunk, rows: NDArray[np.int64], issue: NDArray[np.int64]) -> None:
        probability = chunk.probability.tolist()
        pairs, ids = chunk.pairs or (), chunk.ids or ()
        for row in rows.tolist():
            key, text = int(chunk.keys[row]), chunk.texts[row] or ""
            pair = (pairs[row] or "") if pairs else None
            name = ids[row] if ids else None
            sure = probability[row] if probability[row] == probability[row] else None
            values = (
                key,
                int(chunk.given[row]),
                int(chunk.predicted[row]),
                sure,
                int(issue[row]),
                name,
                text,
                pair,
            )
            self._connection.execute(
                "INSERT INTO rows (key, given, predicted, probability, is_issue, id, text, pair) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            folded = "\n".join(filter(None, (text, pair, name))).casefold()
            self._connection.execute("INSERT INTO search VALUES (?, ?)", (key, folded))
            for column, cells in chunk.slices.items():
                value = NULL if cells[row] is None else (cells[row] or "")[:LONGEST_VALUE]
                self._connection.execute("INSERT INTO slices VALUES (?, ?, ?)", (column, value, key))

    def finish(self) -> None:
        """Number the rows that are in, and remove those that others took the place of."""
        worst = np.concatenate(
            [self.mismatches, self.unsure.keys[~np.isin(self.unsure.keys, self.mismatches)]]
        )
        for column, keys in (("worst", worst), ("drawn", self.drawn.keys)):
            numbered = ((place, int(key)) for place, key in enumerate(keys.tolist()))
            self._connection.executemany(f"UPDATE rows SET {column} = ? WHERE key = ?", numbered)  # noqa: S608
        self._connection.execute("DELETE FROM rows WHERE worst IS NULL AND drawn IS NULL")
        for table in ("search", "slices"):
            self._connection.execute(f"DELETE FROM {table} WHERE key NOT IN (SELECT key FROM rows)")  # noqa: S608
        facts = {
            "recipe": json.dumps(self._recipe),
            "answered": str(self.answered),
            "labelled": str(self.labelled),
            "mismatches": str(self.n_mismatches),
        }
        self._connection.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())


def mark_of(suggested: Sequence[int] | None) -> str:
    """By what rows that were suggested are known in a :class:`Recipe`."""
    return "" if suggested is None else hashlib.sha256(repr(list(suggested)).encode()).hexdigest()


def build(run: ReviewedRun, recipe: Recipe, suggested: Sequence[int] | None = None) -> OwnPath:
    """The file of a run's index, made anew unless one by the same recipe is there; with ``suggested`` rows of these alone.

    Raises:
        DataError: the run is damaged.
        StorageError: the disk is full or failing.
    """
    folder = review_folder(run.path)
    prepare(folder)
    path = folder / INDEX
    if _recipe_of(path) == list(recipe):
        return path
    temporary = folder / f".{INDEX}.{os.getpid()}.tmp"
    try:
        temporary.open_fresh().close()
        _fill(temporary, run, recipe, suggested)
        temporary.sync()
        temporary.replace(path)
        sync_folder(folder)
    except OSError as error:
        raise storage_error("Writing", path, error) from error
    finally:
        for name in (temporary.name, f"{temporary.name}-journal"):
            with contextlib.suppress(OSError):
                (folder / name).unlink(missing_ok=True)
    return path


def _fill(path: OwnPath, run: ReviewedRun, recipe: Recipe, suggested: Sequence[int] | None) -> None:
    connection = connect(path)
    try:
        with telling(path):
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.executescript(_SCHEMA)
            connection.execute("BEGIN")
            building = _Building(run, recipe, suggested, connection)
            for chunk in run.chunks():
                building.add(chunk)
            building.finish()
            connection.execute("COMMIT")
            connection.executescript(_INDEXES)
            connection.execute("ANALYZE")
    finally:
        connection.close()


def _recipe_of(path: OwnPath) -> Sequence[object] | None:
    """What the file that is there was made by; None if there is none that can be read."""
    if not path.exists():
        return None
    with contextlib.suppress(sqlite3.Error, ValueError, TypeError), _connected(path) as connection:
        found = connection.execute("SELECT value FROM facts WHERE name = 'recipe'").fetchone()
        recipe: list[object] = json.loads(found[0])
        return recipe
    return None


@contextlib.contextmanager
def _connected(path: OwnPath) -> Iterator[sqlite3.Connection]:
    connection = connect(path)
    try:
        yield connection
    finally:
        connection.close()


def place_words(run: ReviewedRun, key: int) -> tuple[str, int]:
    """The file of a row, and the row as a person counts: from 1."""
    file, row = place_of(key)
    return run.names[file], row + 1
