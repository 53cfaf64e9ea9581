"""The note that a run leaves if it was refused before anything was scored, so that the trend can say why.

Otherwise a night whose input is missing would look like one on which the job did not run. The note is in the run folder; the
next call of the same command removes it when it gets further, or writes its own. Only a run whose date is known leaves one:
somebody who mistypes a name by hand gets no unwanted folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Iterator

from batchscore.errors import (
    BatchscoreError,
    DataError,
    ModelError,
    NoInputError,
    NothingToDoError,
    StorageError,
)
from batchscore.runs import shapes
from batchscore.runs.folder import NOTE, RunState, foreign_names, state_of
from batchscore.system.documents import checked, read_json
from batchscore.system.own_paths import AnyPath, OwnPath, own_folder
from batchscore.system.storage import to_json, write_bytes

_NOTED_ERRORS = (DataError, NoInputError, StorageError, ModelError, NothingToDoError)
"""Not wrong usage (2), a folder that holds something else (73) or a locked one (75)."""
_MAX_REASON_CHARS = 2000
"""Maximum characters of a reason."""


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """Why the last call of a night's command ended before it scored anything."""

    exit_code: int
    reason: str
    """The message on stderr."""
    at: str
    """ISO time with its offset."""
    date: str
    """ISO date of the night."""


@contextlib.contextmanager
def refusals_noted(output: OwnPath, date: datetime.date | None) -> Iterator[None]:
    """Write a note into the run folder ``output`` if the block ends with a refusal; the caller holds the folder's lock.

    Nothing is written without the night's ``date``, nor into a folder that holds a finished run or anything that no
    unfinished run leaves there.
    """
    try:
        yield
    except _NOTED_ERRORS as error:
        if date is not None:
            with contextlib.suppress(BatchscoreError, OSError):  # the refusal is the error to report
                _note(output, error, date)
        raise


def _note(output: OwnPath, error: BatchscoreError, date: datetime.date) -> None:
    if foreign_names(output):
        return
    at = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    refusal = Refusal(error.exit_code, str(error)[:_MAX_REASON_CHARS], at, date.isoformat())
    write_bytes(output / NOTE, to_json(dataclasses.asdict(refusal)))


def read_refusal(folder: AnyPath) -> Refusal | None:
    """The note in a run folder without a finished run; None if there is none.

    Raises:
        ValueError: the note is damaged.
    """
    if state_of(folder) is not RunState.REFUSED:
        return None
    noted = checked(read_json(own_folder(folder) / NOTE), shapes.NOTE)
    try:
        return Refusal(**noted)
    except TypeError as error:
        raise ValueError(f"{NOTE} is not as it was written") from error
