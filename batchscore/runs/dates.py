"""Which date a night is for: what a folder's name says, as schedulers write it."""

from __future__ import annotations

import datetime
import re
from pathlib import PurePath

_DATE = re.compile(r"(?:[A-Za-z_]+=)?(\d{4})([-_.]?)(\d\d)\2(\d\d)")


def date_of_name(name: str) -> datetime.date | None:
    """The date that a *whole* name is, such as ``2026-11-23``, ``20261123`` or ``day=2026-11-23``; None for any other.

    Digits inside a longer name are no date: they may as well be those of a file, or of a content hash.

    >>> date_of_name("20261123"), date_of_name("reviews-2026-11-23.csv"), date_of_name("20261323")
    (datetime.date(2026, 11, 23), None, None)
    """
    match = _DATE.fullmatch(name)
    try:
        return datetime.date(int(match[1]), int(match[3]), int(match[4])) if match else None
    except ValueError:  # digits, but no date
        return None


def date_of_path(path: PurePath) -> datetime.date | None:
    """The innermost component of ``path`` that is a date; None without one."""
    return next((date for name in reversed(path.parts) if (date := date_of_name(name))), None)


def date_of_run(output: PurePath) -> datetime.date | None:
    """The date in the name of a run folder, ``<date>`` or ``<date>/<name>``; folders further up are not looked at."""
    return date_of_path(PurePath(*output.parts[-2:]))
