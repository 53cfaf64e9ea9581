"""The folder of a review, beside its run: ``RUN_DIR.review``, which nobody else can read, or put anything into.

A run's ``_SUCCESS`` covers all that is in its folder, so verdicts are not kept there.
"""

from __future__ import annotations

import os
from pathlib import Path

from batchscore.errors import NotOursError, storage_error
from batchscore.system.own_paths import OwnPath, refuse_strange_below
from batchscore.system.storage import make_folder

SUFFIX = ".review"
VERDICTS = "verdicts.sqlite"
INDEX = "index.sqlite"


def review_folder(run: Path) -> OwnPath:
    """Where the review of a run is kept; of a link to a run, beside the run itself."""
    real = Path(os.path.realpath(run))
    return OwnPath(real.parent, (real.name + SUFFIX,))


def run_of(folder: Path) -> Path:
    """The run that a path names: itself, or the run that a review folder is beside."""
    real = Path(os.path.realpath(folder))
    if real.name.endswith(SUFFIX) and (real / VERDICTS).exists():
        return real.with_name(real.name.removesuffix(SUFFIX))
    return folder


def prepare(folder: OwnPath) -> None:
    """Make the folder where it is missing, and see that SQLite, which opens files by their names, is led nowhere.

    It must be our own user's, others are shut out, and what lies in it must be files of one name.

    Raises:
        OutputError: it cannot be made, or a link or the like lies in it.
        StorageError: the disk is full or failing.
    """
    make_folder(folder, "A review is kept beside its run: copy the run to where you can write.")
    try:
        folder.keep_to_ourselves()
        refuse_strange_below(folder)
        for entry in folder.entries():
            if entry.is_file and entry.facts.st_nlink > 1:
                raise NotOursError(str(folder / entry.name), "a hard link to a file with another name")
    except OSError as error:
        raise storage_error("Opening", folder, error) from error
