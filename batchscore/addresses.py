"""Addresses such as ``s3://bucket/runs/2026-11-23``: what one is, and that none is taken for a folder's name.

An address names a bucket (``s3``, ``gs``, ``az``) and a key in it, or a data set of the hub (``hf``). It is no path: it has a type
of its own, so that nothing opens it as one by mistake.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Collection
from pathlib import Path

from batchscore.errors import UsageError, printable

BUCKETS = ("s3", "gs", "az")
"""Schemes of buckets."""
HUB = "hf"
"""The scheme of data sets on the hub: ``hf://datasets/OWNER/NAME[@REVISION]/PATH``."""
_ADDRESS = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]+):(/.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
_UNFIT_PIECES = {"", ".", ".."}
_USER = re.compile(r"(?<=:)(//?)(?:[^/]*:.*|[^/]*)@", re.DOTALL)
"""Who asks, and by what key: keys of stores have slashes in them."""
_SIGNATURE = re.compile(
    r"[?&](?:X-(?:Amz|Goog)-\w+|sig|signature|AWSAccessKeyId|GoogleAccessId)=", re.IGNORECASE
)
"""What an address has that was signed to be given away."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Address:
    """A key in a bucket, or all keys below it: no slash at either end of ``key``, which may be empty."""

    scheme: str
    bucket: str
    key: str = ""

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.scheme}://{self.bucket}/{self.key}" if self.key else f"{self.scheme}://{self.bucket}"

    def __truediv__(self, name: str) -> Address:
        """The address of a name, or of several with ``/`` between them, below this one."""
        return dataclasses.replace(self, key=f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        """The last name; that of the bucket where there is no key."""
        return self.key.rpartition("/")[2] or self.bucket

    @property
    def parent(self) -> Address:
        """The address above."""
        return dataclasses.replace(self, key=self.key.rpartition("/")[0])


Place = Path | Address
"""Where something is: on this machine, or in a bucket."""


def copy_of(place: Place) -> Path:
    """A path on this machine that stands for a place: of an address one where nothing can be, until there is a copy."""
    return Path(os.devnull) / place.name if isinstance(place, Address) else place


def is_address(text: str) -> bool:
    """Whether a text is an address, of whatever kind: as a path it would be a local folder's name.

    >>> is_address("s3://bucket/run"), is_address("file:/tmp"), is_address("C:reviews"), is_address("runs/a:b")
    (True, True, False, False)
    """
    return _ADDRESS.fullmatch(text) is not None


def refuse_address(text: str, what: str = "A path") -> None:
    """Refuse an address where a path is wanted.

    Raises:
        UsageError: it is one.
    """
    if (found := _ADDRESS.fullmatch(text)) is not None:
        scheme = found[1].lower()
        way = "Write the path alone" if scheme == "file" else "Copy it to or from this machine"
        raise UsageError(f"{what} is wanted, and {_shown(text)} is an address ({scheme}:). {way}.")


def address_in(text: str, schemes: Collection[str] = BUCKETS) -> Address | None:
    """The address that a text is; None if it is a path.

    Raises:
        UsageError: an address of another scheme than ``schemes``, or none that can be meant.
    """
    if (found := _ADDRESS.fullmatch(text)) is None:
        return None
    scheme, rest = found[1].lower(), found[2]
    if scheme not in schemes:
        known = ", ".join(f"{each}://" for each in schemes)
        way = "Write the path alone" if scheme == "file" else "Copy it to or from this machine"
        raise UsageError(
            f"{_shown(text)} is an address ({scheme}:) that cannot be taken here; these can: {known}. {way}."
        )
    if not rest.startswith("//") or text != text.strip():
        raise UsageError(f"{_shown(text)} is an address, and is written {scheme}://BUCKET/KEY, as text.")
    bucket, _, key = rest[2:].partition("/")
    if "@" in bucket or ":" in bucket or _SIGNATURE.search(rest):
        raise UsageError(
            f"{_shown(text)} is an address with credentials in it. Leave them out, and give them by the environment."
        )
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{_shown(text)} is an address without the name of a bucket: {scheme}://BUCKET/KEY.")
    key = key.removesuffix("/")
    pieces = key.split("/") if key else []
    if _UNFIT_PIECES.intersection(pieces) or not key.isprintable():
        raise UsageError(
            f"{_shown(text)} is an address whose key has an empty name, '.', '..' or control characters between its slashes."
        )
    return Address(scheme, bucket, key)


def _shown(text: str) -> str:
    """An address for a message: without what may be a password or a signature in it."""
    without_user = _USER.sub(r"\1...@", text)
    return printable(re.sub(r"\?.*=.*", "?...", without_user, flags=re.DOTALL))
