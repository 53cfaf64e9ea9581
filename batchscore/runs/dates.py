"""The date of a run from its folder's name, as schedulers write it."""

from __future__ import annotations

import datetime
import re
from pathlib import PurePath

_DATE = re.compile(r"(?:[A-Za-z_]+=)?(\d{4})([-_.]?)(\d\d)\2(\d\d)")


def date_of_name(name: str) -> datetime.date | None:
    """The date if the *entire* name is one, such as ``2026-11-23``, ``20261123`` or ``day=2026-11-23``; else None.

    Digits inside a longer name do not count: they may belong to a file name or a content hash.

    >>> date_of_name("20261123"), date_of_name("reviews-2026-11-23.csv"), date_of_name("20261323")
    (datetime.date(2026, 11, 23), None, None)
    """
    match = _DATE.fullmatch(name)
    try:
        return datetime.date(int(match[1]), int(match[3]), int(match[4])) if match else None
    except ValueError:  # digits, but not a date
        return None


def date_of_path(path: PurePath) -> datetime.date | None:
    """The date of the innermost component of ``path`` that is one; None if there is none."""
    return next((date for name in reversed(path.parts) if (date := date_of_name(name))), None)


def date_of_run(output: PurePath) -> datetime.date | None:
    """The date in the path of a run folder, ``<date>`` or ``<date>/<name>``; folders further up do not count."""
    return date_of_path(PurePath(*output.parts[-2:]))
