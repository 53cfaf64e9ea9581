"""A folder on this machine for as long as a command runs: copies of what is in a bucket, and what is built to be put there.

It is our own user's alone, has the same name for the same work, and is emptied at the start and the end: what a killed call leaves is
gone with the next. Nothing is ever resumed from it; the bucket is what counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from batchscore.errors import printable, shown_below, storage_error
from batchscore.system.locks import locked
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import remove_tree

VARIABLE = "BATCHSCORE_SCRATCH"
"""Environment variable: where scratch folders are made; by default in the folder for temporary files."""


@contextlib.contextmanager
def scratch_folder(work: str) -> Iterator[OwnPath]:
    """An empty folder for some ``work``, which messages do not name as it is.

    Raises:
        BusyError: another process of this machine does the same.
        OutputError, StorageError: it cannot be made, or is another user's.
    """
    root = Path(os.environ.get(VARIABLE) or tempfile.gettempdir())
    digest = hashlib.sha256(os.fsencode(work)).hexdigest()[:16]
    folder = OwnPath(root) / f"batchscore-{os.getuid()}-{digest}"
    with shown_below(folder.path, f"the copy of {printable(work)}"), locked(folder):
        try:
            folder.keep_to_ourselves()
            _empty(folder)
        except OSError as error:
            raise storage_error("Making", folder, error) from error
        try:
            yield folder
        finally:
            with contextlib.suppress(OSError):
                _empty(folder)


def _empty(folder: OwnPath) -> None:
    for name in folder.names():
        remove_tree(folder / name)
