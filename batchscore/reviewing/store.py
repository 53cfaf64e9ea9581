"""What people said of rows: each verdict is on disk before it is confirmed, none is ever removed, and each can be taken back.

``events`` has every verdict and every time that one was taken back, in order; ``standing`` has what holds of each row now, and
changes in the same transaction. Several processes may write at once: SQLite lets them take turns. A rollback journal is used, and
no write-ahead log: it needs no memory that processes share, so that network shares will do, and a verdict takes seconds of thought.
"""

from __future__ import annotations

import contextlib
import datetime
import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from batchscore.errors import DataError, printable
from batchscore.reviewing.databases import connect, telling
from batchscore.reviewing.places import VERDICTS, prepare, review_folder
from batchscore.reviewing.run_rows import ReviewedRun
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import sync_folder

GIVEN, PREDICTION, OTHER, NONE, UNSURE = "given", "prediction", "other", "none", "unsure"
KINDS = (GIVEN, PREDICTION, OTHER, NONE, UNSURE)
"""The given label is right, the prediction is, another label is, none of the labels is, nobody can tell."""
WORST, DRAWN, IMPORTED = "worst", "drawn", "imported"
"""Where a verdict was given: on rows in the order of suspicion, on rows drawn at random, elsewhere."""
_UNDO = "undo"
_APPLICATION, _VERSION = 0x62735276, 1
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, key INTEGER NOT NULL, kind TEXT NOT NULL, label TEXT,
  tab TEXT NOT NULL, by TEXT NOT NULL, at TEXT NOT NULL, undoes INTEGER UNIQUE);
CREATE INDEX events_of_key ON events (key);
CREATE TABLE standing (key INTEGER PRIMARY KEY, number INTEGER NOT NULL, kind TEXT NOT NULL, label TEXT, tab TEXT NOT NULL);
"""
_NOT_UNDONE = "kind != 'undo' AND NOT EXISTS (SELECT 1 FROM events u WHERE u.undoes = e.number)"


def kind_of(right: str, given: str | None, predicted: str | None) -> str:
    """What it is to say that a label is the right one of a row."""
    return GIVEN if right == given else PREDICTION if right == predicted else OTHER


class Verdict(NamedTuple):
    """What was said of a row."""

    key: int
    """The row (:func:`batchscore.reviewing.run_rows.key_of`)."""
    number: int
    """Of the event, counted from 1."""
    kind: str
    label: str | None
    """The right label; None if there is none, or nobody can tell."""
    tab: str


class Event(NamedTuple):
    """One entry of the history."""

    number: int
    key: int
    kind: str
    """As of a verdict, or ``undo``."""
    label: str | None
    tab: str
    by: str
    at: str
    undoes: int | None


class VerdictStore:
    """The verdicts on one run."""

    def __init__(self, path: OwnPath, connection: sqlite3.Connection) -> None:
        self.path, self._connection = path, connection

    @property
    def seed(self) -> int:
        """What rows drawn at random are drawn by."""
        return int(self._value("SELECT value FROM meta WHERE name = 'seed'"))

    def give(self, key: int, kind: str, label: str | None, *, tab: str, by: str) -> Verdict:
        """Say something of a row, in the place of what was said before; it is on disk when this returns."""
        with self._transaction():
            return self._give(key, kind, label, tab, by)

    def give_all(self, verdicts: list[tuple[int, str, str | None]], *, tab: str, by: str) -> int:
        """The same of several rows, all or none; those of which the same holds already are left alone. Returns how many others."""
        given = 0
        with self._transaction():
            for key, kind, label in verdicts:
                now = self.standing(key)
                if now is None or (now.kind, now.label) != (kind, label):
                    self._give(key, kind, label, tab, by)
                    given += 1
        return given

    def take_back(self, by: str) -> Verdict | None:
        """Undo the last verdict that ``by`` gave and that was not undone; of somebody who gave none ever, the last of all.

        Returns that verdict, or None if there is none. What was said of the row before holds again.
        """
        with self._transaction():
            is_known = self._value("SELECT EXISTS (SELECT 1 FROM events WHERE by = ?)", by)
            where, values = ("e.by = ? AND ", (by,)) if is_known else ("", ())
            row = self._connection.execute(
                f"SELECT key, number, kind, label, tab FROM events e WHERE {where}{_NOT_UNDONE} ORDER BY number DESC LIMIT 1",  # noqa: S608
                values,
            ).fetchone()
            if row is None:
                return None
            verdict = Verdict(*row)
            self._note(verdict.key, _UNDO, None, verdict.tab, by, verdict.number)
            self._settle(verdict.key)
            return verdict

    def standing(self, key: int) -> Verdict | None:
        """What holds of a row."""
        with telling(self.path):
            row = self._connection.execute(
                "SELECT key, number, kind, label, tab FROM standing WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else Verdict(*row)

    def all_standing(self) -> list[Verdict]:
        """What holds of every row that has a verdict, in the order of rows."""
        with telling(self.path):
            rows = self._connection.execute("SELECT key, number, kind, label, tab FROM standing ORDER BY key")
            return [Verdict(*row) for row in rows]

    def events(self, after: int = 0, most: int = 1000) -> list[Event]:
        """The history after an event, oldest first."""
        with telling(self.path):
            rows = self._connection.execute(
                "SELECT number, key, kind, label, tab, by, at, undoes FROM events WHERE number > ? ORDER BY number LIMIT ?",
                (after, most),
            )
            return [Event(*row) for row in rows]

    @property
    def last(self) -> int:
        """The number of the last event; 0 without any."""
        return int(self._value("SELECT coalesce(max(number), 0) FROM events"))

    def counts(self) -> dict[str, int]:
        """Rows by what holds of them."""
        with telling(self.path):
            found = dict(self._connection.execute("SELECT kind, count(*) FROM standing GROUP BY kind"))
        return {kind: found.get(kind, 0) for kind in KINDS}

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of the block or none of it, on disk when it ends."""
        with telling(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def _give(self, key: int, kind: str, label: str | None, tab: str, by: str) -> Verdict:
        number = self._note(key, kind, label, tab, by)
        self._settle(key)
        return Verdict(key, number, kind, label, tab)

    def _note(
        self, key: int, kind: str, label: str | None, tab: str, by: str, undoes: int | None = None
    ) -> int:
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        cursor = self._connection.execute(
            "INSERT INTO events (key, kind, label, tab, by, at, undoes) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key, kind, label, tab, by, at, undoes),
        )
        return int(cursor.lastrowid or 0)

    def _settle(self, key: int) -> None:
        """Let the last verdict on a row that was not undone hold."""
        self._connection.execute("DELETE FROM standing WHERE key = ?", (key,))
        self._connection.execute(
            "INSERT INTO standing SELECT key, number, kind, label, tab FROM events e "  # noqa: S608
            f"WHERE key = ? AND {_NOT_UNDONE} ORDER BY number DESC LIMIT 1",
            (key,),
        )

    def _value(self, query: str, *values: object) -> int | str:
        with telling(self.path):
            found: int | str = self._connection.execute(query, values).fetchone()[0]
            return found


def open_store(run: ReviewedRun, seed: int) -> VerdictStore:
    """The verdicts on a run; a new file draws rows by this ``seed``, one that is there by its own.

    Raises:
        DataError: the file is of another run, or damaged.
        OutputError, StorageError: it cannot be made or opened.
    """
    folder = review_folder(run.path)
    prepare(folder)
    path = folder / VERDICTS
    if not path.exists():
        with contextlib.suppress(FileExistsError), telling(path):
            path.open_new(0o600).close()
            sync_folder(folder)
    return _opened(path, run, seed)


def existing_store(run: ReviewedRun) -> VerdictStore | None:
    """The same, if anything was ever said of the run."""
    path = review_folder(run.path) / VERDICTS
    return open_store(run, 0) if path.exists() else None


def _opened(path: OwnPath, run: ReviewedRun, seed: int) -> VerdictStore:
    connection = connect(path)
    try:
        with telling(path):
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("PRAGMA synchronous = EXTRA")  # the journal's end is synced too
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("PRAGMA schema_version").fetchone()[0] == 0:
                _fill(connection, run.fingerprint, seed)
            connection.execute("COMMIT")
            _check(connection, path, run)
    except BaseException:
        connection.close()
        raise
    return VerdictStore(path, connection)


def _fill(connection: sqlite3.Connection, fingerprint: str, seed: int) -> None:
    for statement in filter(str.strip, _SCHEMA.split(";")):
        connection.execute(statement)
    values = {"run": fingerprint, "seed": str(seed)}
    connection.executemany("INSERT INTO meta VALUES (?, ?)", values.items())
    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
    connection.execute(f"PRAGMA user_version = {_VERSION}")


def _check(connection: sqlite3.Connection, path: OwnPath, run: ReviewedRun) -> None:
    """Refuse a file that is no store, or that of another run."""
    kind = (
        connection.execute("PRAGMA application_id").fetchone()[0],
        connection.execute("PRAGMA user_version").fetchone()[0],
    )
    if kind != (_APPLICATION, _VERSION):
        raise DataError(f"{printable(path)} holds no verdicts of this version. Move it away, and begin anew.")
    (of_run,) = connection.execute("SELECT value FROM meta WHERE name = 'run'").fetchone()
    if of_run != run.fingerprint:
        raise DataError(
            f"{printable(path)} has the verdicts on another run, which was at {printable(run.path)} before (other inputs, model or "
            f"options). Move {printable(path.parent)} away to keep them, or remove it, and begin anew."
        )
