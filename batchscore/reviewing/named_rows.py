"""The rows of a run that a file names: a file of verdicts, or of rows that were suggested."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from batchscore.errors import DataError, NoInputError, printable
from batchscore.reviewing import csv_exchange, label_studio
from batchscore.reviewing.run_rows import ReviewedRun, key_of


def keys_in(run: ReviewedRun, path: Path) -> list[int]:
    """The rows that a file names, in its order, each once, whether anything was said of them or not.

    Raises:
        DataError: it is no such file, or of another run.
        NoInputError: it cannot be read.
    """
    if not path.is_file():
        raise NoInputError(f"There is no file {printable(path)}.")
    names = {name: number for number, name in enumerate(run.names)}
    keys: dict[int, None] = {}
    tasks = ((task.run, task.file, task.row) for task in label_studio.read(path)) if is_json(path) else None
    for of_run, file, row in tasks or csv_exchange.places(path):
        refuse_another(run, path, of_run)
        keys[key_in(path, names, file, row)] = None
    return list(keys)


def is_json(path: Path) -> bool:
    """Whether a file begins as a list in JSON does."""
    try:
        with path.open("rb") as file:
            return file.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
    except OSError as error:
        raise NoInputError(f"{printable(path)} cannot be read: {error.strerror}.") from error


def refuse_another(run: ReviewedRun, path: Path, of_run: str) -> None:
    """Raise :class:`DataError` if the file is of another run than this one."""
    if of_run != run.fingerprint:
        raise DataError(f"{printable(path)} has rows of another run than {printable(run.path)}.")


def key_in(path: Path, names: Mapping[str, int], file: str, row: int) -> int:
    """The key of a row that the file names; ``names`` are the run's inputs with their numbers.

    Raises:
        DataError: the run has no such row.
    """
    name = csv_exchange.meant(names, file)
    if name is None or not 0 < row < 2**40:
        raise DataError(f"{printable(path)} names a row that the run has not: {printable(file)}, {row}.")
    return key_of(names[name], row - 1)
