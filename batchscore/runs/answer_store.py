"""A store of answers by text, for many nights: a folder with one SQLite database, which several nights read while one writes.

A row is 20 bytes and the answers: the first half of a digest of the text as its key, a tag, the number of tokens and the answers
in float32. No text is in it. Digests are keyed with what decides about the answers (:mod:`batchscore.model.answer_bits`), so those of
another model, precision or machine are not found, and many of them can share a store. The tag is made of the whole digest and of
what the row holds: it tells a row that was damaged, and another text with the same first half.

Whoever knows the model can make a digest of a text and see whether it is there; what was scored cannot be read from it.

Answers are written in transactions of some thousand rows, and when all is scored. What a kill takes with it is scored again
another night.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from batchscore.errors import (
    BatchscoreError,
    BusyError,
    DataError,
    ModelError,
    OutputError,
    StorageError,
    TakenError,
    printable,
)
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import make_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.records import Text

DATABASE = "answers.sqlite"
_NAMES = frozenset({DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal"})
_APPLICATION = 0x62734153
_FORMAT = 1
_DIGEST_BYTES, _TAG_BYTES = 16, 8
_PATIENCE = 60.0
"""Seconds that a night waits for another one to finish its transaction."""
_STEP = 0.5
"""Seconds that SQLite itself waits, during which no signal is heard."""
_CACHE_KIB = 16_384
_ROWS_AT_A_TIME = 32_768
"""Answers that wait to be written together: in a large store each of them is on a page of its own, which a transaction writes whole."""
_SCHEMA = f"""
CREATE TABLE answers (key INTEGER PRIMARY KEY, answer BLOB NOT NULL);
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_FORMAT};
"""


class Answer(NamedTuple):
    """What the model made of a text: ``n_tokens`` before it was cut, and its ``values`` ``[C]`` float32, before any threshold."""

    n_tokens: int
    values: NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True)
class TextDigests:
    """Digests of texts, keyed with the SHA-256 (hex) over all that decides about an answer besides the text."""

    deciding: str

    def of(self, text: Text) -> bytes:
        """16 bytes, of the exact text or of both."""
        texts = (text,) if isinstance(text, str) else text
        found = hashlib.blake2b(
            digest_size=_DIGEST_BYTES,
            key=bytes.fromhex(self.deciding),
            person=b"pair" if len(texts) == 2 else b"text",
        )
        encoded = [each.encode("utf-8", "surrogatepass") for each in texts]
        if len(texts) == 2:
            found.update(len(encoded[0]).to_bytes(8, "little"))
        for each in encoded:
            found.update(each)
        return found.digest()


def _key(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "little", signed=True)


def _row(digest: bytes, answer: Answer) -> tuple[int, bytes]:
    content = answer.n_tokens.to_bytes(4, "little") + answer.values.astype("<f4").tobytes()
    return _key(digest), _tag(digest, content) + content


def _tag(digest: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_TAG_BYTES, key=digest).digest()


class AnswerStore:
    """An open store: found by one thread, added to by another; close it."""

    def __init__(self, folder: OwnPath, *, is_kept: bool = True) -> None:
        """Open the store of a folder, or make it; one that is not kept goes when the run goes, and is not made durable.

        Raises:
            OutputError: the folder holds something else, or cannot be written to.
            DataError: it is damaged.
            ModelError: a night found wrong answers in it.
            BusyError: another process has locked it for a minute.
        """
        self._folder, self._is_kept = folder, is_kept
        self._waiting: dict[int, bytes] = {}
        self._lock = threading.Lock()
        make_folder(folder, advice="Name another --reuse.")
        refuse_foreign_store(folder)
        folder.keep_to_ourselves()  # SQLite opens its files by their names
        with self._told():
            self._reader, self._writer = self._connected(), self._connected()
        try:
            self.identity = self._begun()
        except BaseException:
            self.close()
            raise

    # ---------------------------------------------------------------------------------------------------- reading

    def find(self, digests: Iterable[bytes], n_values: int) -> dict[bytes, Answer]:
        """The answers that are there, by digest of their text.

        Raises:
            DataError: one is damaged.
        """
        found: dict[bytes, Answer] = {}
        with self._told():
            for digest in sorted(digests, key=_key):  # neighbours share a page
                row = self._reader.execute(
                    "SELECT answer FROM answers WHERE key = ?", (_key(digest),)
                ).fetchone()
                if row is not None:
                    found[digest] = self._answer(digest, row[0], n_values)
        return found

    def _answer(self, digest: bytes, row: object, n_values: int) -> Answer:
        size = _TAG_BYTES + 4 + 4 * n_values
        if (
            not isinstance(row, bytes)
            or len(row) != size
            or row[:_TAG_BYTES] != _tag(digest, row[_TAG_BYTES:])
        ):
            raise self._damaged("an answer is not as it was written")
        n_tokens = int.from_bytes(row[_TAG_BYTES : _TAG_BYTES + 4], "little")
        return Answer(n_tokens, np.frombuffer(row, "<f4", offset=_TAG_BYTES + 4).astype(np.float32))

    # ---------------------------------------------------------------------------------------------------- writing

    def add(self, answers: Mapping[bytes, Answer]) -> None:
        """Add answers, many in one transaction; those that are there already stay.

        While another process writes, they wait for the next call.
        """
        with self._lock:
            self._waiting.update(_row(digest, answer) for digest, answer in answers.items())
            if len(self._waiting) >= _ROWS_AT_A_TIME:
                self._write(until=time.monotonic())

    def flush(self) -> None:
        """Write what waits.

        Raises:
            BusyError: another process has locked the store for a minute.
        """
        with self._lock:
            if not self._write(until=time.monotonic() + _PATIENCE):
                raise self._busy()

    def _write(self, until: float) -> bool:
        """Whether nothing waits any more."""
        if not self._waiting:
            return True
        rows = sorted(self._waiting.items())
        with self._told():
            if not self._begin_writing(until):
                return False
            try:
                self._writer.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)
                self._writer.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise
        self._waiting.clear()
        return True

    def _begin_writing(self, until: float) -> bool:
        while True:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                return True
            except sqlite3.OperationalError as error:
                if _code(error) not in _BUSY:
                    raise
                if time.monotonic() >= until:
                    return False

    def refuse(self, reason: str) -> None:
        """Note that wrong answers were found, so that no night takes any from here again."""
        with contextlib.suppress(BatchscoreError), self._told(), self._lock:
            if self._begin_writing(time.monotonic() + _PATIENCE):
                self._writer.execute("INSERT OR REPLACE INTO about VALUES ('refused', ?)", (reason,))
                self._writer.execute("COMMIT")

    def close(self) -> None:
        """Close it; what still waits is lost."""
        for connection in (self._reader, self._writer):
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    # ---------------------------------------------------------------------------------------------------- opening

    def _connected(self) -> sqlite3.Connection:
        name = str((self._folder / DATABASE).path.absolute())
        connection = sqlite3.connect(name, timeout=_STEP, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection

    def _begun(self) -> str:
        """The random name of the store, which is given to it when it is made."""
        with self._told():
            self._patiently("PRAGMA journal_mode = WAL" if self._is_kept else "PRAGMA journal_mode = OFF")
            self._writer.execute(f"PRAGMA synchronous = {'NORMAL' if self._is_kept else 'OFF'}")
            self._patiently("BEGIN IMMEDIATE")
            kinds = [
                self._writer.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("application_id", "user_version")
            ]
            if kinds == [0, 0] and not self._writer.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _SCHEMA.strip().split(";\n"):
                    self._writer.execute(statement)
                self._writer.execute("INSERT INTO about VALUES ('identity', ?)", (secrets.token_hex(16),))
            elif kinds != [_APPLICATION, _FORMAT]:
                raise self._foreign(f"{DATABASE} is another database, or of another version")
            self._writer.execute("COMMIT")
            about = dict(self._writer.execute("SELECT name, value FROM about").fetchall())
        if "refused" in about:
            raise ModelError(
                f"--reuse {printable(self._folder)}: {printable(about['refused'])}, so no answer is taken from it any more. "
                "Score without --reuse, or name a new folder; remove this one when its mistake is understood."
            )
        if "identity" not in about:
            raise self._damaged("its name is missing")
        return str(about["identity"])

    def _patiently(self, statement: str) -> None:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                self._writer.execute(statement)
                return
            except sqlite3.OperationalError as error:
                if _code(error) not in _BUSY or time.monotonic() >= until:
                    raise

    # ----------------------------------------------------------------------------------------------------- errors

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what SQLite says into our own errors."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> BatchscoreError:
        code = _code(error)
        if code in _BUSY:
            return self._busy()
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM):
            return StorageError(
                f"--reuse {printable(self._folder)}: reading or writing failed ({printable(error)}). Free the cause (space, "
                "permission, connection) and run the same command again: what was finished is kept."
            )
        if code in (
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_READONLY,
            sqlite3.SQLITE_PERM,
            sqlite3.SQLITE_AUTH,
        ):
            return OutputError(
                f"--reuse {printable(self._folder)} cannot be written to ({printable(error)}). Name another folder, or score without "
                "--reuse."
            )
        if code == sqlite3.SQLITE_NOTADB:
            return self._foreign(f"{DATABASE} is no database, or its first bytes are damaged")
        return self._damaged(str(error))

    def _busy(self) -> BusyError:
        return BusyError(
            f"--reuse {printable(self._folder)}: another process has been writing to it for {_PATIENCE:.0f} seconds. Wait for it, and run "
            "the same command again: what was finished is kept."
        )

    def _foreign(self, what: str) -> TakenError:
        return TakenError(
            f"--reuse {printable(self._folder)} is no store of answers: {what}. Name another folder."
        )

    def _damaged(self, what: str) -> DataError:
        return DataError(
            f"--reuse {printable(self._folder)} is damaged: {printable(what)}. Remove the folder, and it is made anew from what is scored; "
            "or score without --reuse."
        )


_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _code(error: sqlite3.Error) -> int:
    """The primary code of an error of SQLite."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def refuse_foreign_store(folder: OwnPath) -> None:
    """Refuse a folder that holds anything that no store puts there, or a link in the place of a file of it.

    Raises:
        OutputError: names what is there.
    """
    for entry in folder.entries():
        if entry.name not in _NAMES:
            raise TakenError(
                f"--reuse {printable(folder)} is neither a finished run nor a store of answers: it holds {printable(entry.name)}. Name the "
                "folder of a run that has finished, a store, or a new folder for one."
            )
        if not entry.is_file or entry.facts.st_nlink > 1:
            raise TakenError(
                f"--reuse {printable(folder)}: {printable(entry.name)} is a link, or no file. Look who put it there, and name another folder."
            )
