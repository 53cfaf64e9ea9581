"""What a night leaves behind that was refused before anything was scored: a note, so that the trend can say why.

A night whose input is missing would else look like one on which nobody called. The note lies in the run folder, in
nobody's way: the next call of the same command takes it away when it gets further, or writes its own. Only a night has
one, a run whose date is known; somebody who mistypes a name by hand finds no folder that they did not want.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
from collections.abc import Iterator
from pathlib import Path

from batchscore.errors import (
    BatchscoreError,
    DataError,
    ModelError,
    NoInputError,
    NothingToDoError,
    StorageError,
)
from batchscore.runs.folder import NOTE, RunState, foreign_names, state_of
from batchscore.system.storage import to_json, write_bytes

_NOTED = (DataError, NoInputError, StorageError, ModelError, NothingToDoError)
"""Not wrong usage (2), a folder of somebody else (73) or one that is held (75)."""
_LONGEST = 2000
"""Characters of a reason."""


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """Why the last call of a night's command ended before it scored anything."""

    exit_code: int
    reason: str
    """As it stood on stderr."""
    at: str
    """ISO time with its offset."""
    date: str
    """ISO date that the night is for."""


@contextlib.contextmanager
def refusals_noted(output: Path, date: datetime.date | None) -> Iterator[None]:
    """Leave a note in the run folder ``output`` if the block ends with a refusal; the caller holds the folder's lock.

    ``date``: of the night; without one nothing is noted. In a folder that holds a finished run, or anything that no
    unfinished run leaves there, nothing is written.
    """
    try:
        yield
    except _NOTED as error:
        if date is not None:
            with contextlib.suppress(BatchscoreError, OSError):  # the refusal is what is to be told
                _note(output, error, date)
        raise


def _note(output: Path, error: BatchscoreError, date: datetime.date) -> None:
    if foreign_names(output):
        return
    at = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    refusal = Refusal(error.exit_code, str(error)[:_LONGEST], at, date.isoformat())
    write_bytes(output / NOTE, to_json(dataclasses.asdict(refusal)))


def read_refusal(folder: Path) -> Refusal | None:
    """The note in a run folder that holds no finished run; None without one.

    Raises:
        ValueError: it is not as we write it.
    """
    if state_of(folder) is not RunState.REFUSED:
        return None
    try:
        noted = Refusal(**json.loads((folder / NOTE).read_bytes()))
    except TypeError as error:
        raise ValueError(f"{NOTE} is not as it was written") from error
    if not isinstance(noted.exit_code, int) or not all(map(_is_text, (noted.reason, noted.at, noted.date))):
        raise ValueError(f"{NOTE} is not as it was written")
    return noted


def _is_text(value: object) -> bool:
    return isinstance(value, str)
