"""The user's cache: small JSON values that could be computed again.

It is ``$XDG_CACHE_HOME/batchscore``, or ``~/.cache/batchscore``; ``BATCHSCORE_CACHE`` names another folder, and ``off``
means none. A value that is missing, damaged or cannot be written is no error: it is computed again. Values are written whole
and renamed, so that several programs may write one at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
from pathlib import Path
from typing import Any

from batchscore.errors import printable
from batchscore.system.documents import parse_json, read_regular
from batchscore.system.own_paths import OwnPath

_LOG = logging.getLogger(__name__)
VARIABLE = "BATCHSCORE_CACHE"
OFF = "off"
_KEPT = 200
"""Values of a kind; the oldest are removed."""
_DIGEST = 64
"""Characters of a SHA-256, which comes before the value."""


def cache_folder() -> Path | None:
    """The folder, which need not exist; None if there is to be none."""
    named = os.environ.get(VARIABLE, "")
    if named.strip().lower() == OFF:
        return None
    if named:
        return Path(named)
    general = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(general) if Path(general).is_absolute() else Path.home() / ".cache") / "batchscore"
    except RuntimeError:  # no home
        return None


def recall(kind: str, key: str) -> Any:
    """The value kept under a key; None if there is none, or it is damaged."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        content = read_regular(OwnPath(folder) / kind / f"{key}.json")
        digest, value = content[:_DIGEST], content[_DIGEST:]
        return parse_json(value) if digest.decode() == hashlib.sha256(value).hexdigest() else None
    except (OSError, ValueError):
        return None


def keep(kind: str, key: str, value: Any) -> None:
    """Keep a JSON value; where that is not possible, nothing happens."""
    folder = cache_folder()
    if folder is None:
        return
    content = json.dumps(value, allow_nan=False).encode()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = OwnPath(folder) / kind
        place.mkdir(0o700)
        _write(place / f"{key}.json", hashlib.sha256(content).hexdigest().encode() + content)
        _remove_oldest(place)
    except OSError as error:
        _LOG.info("%s: nothing is kept there (%s)", printable(folder), error.strerror)


def _write(path: OwnPath, content: bytes) -> None:
    """Write a file whole; several writers do not meet, as each has a temporary name of its own."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open_new(0o600) as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _remove_oldest(folder: OwnPath) -> None:
    """Remove all but the newest files, and with them what killed writers left."""
    with contextlib.suppress(OSError):  # another program removes the same
        newest_first = sorted(folder.entries(), key=lambda entry: entry.facts.st_mtime, reverse=True)
        for entry in newest_first[_KEPT:]:
            (folder / entry.name).unlink(missing_ok=True)
