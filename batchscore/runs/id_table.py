"""A table on disk from id to number, for any number of rows in bounded memory, keyed by a 128-bit hash.

The hashes are first split into buckets by their leading bits and each bucket is sorted; concatenated, the buckets are one
sorted table: 24 bytes per row on disk, about 30 MB in memory while a bucket (260,000 rows) is sorted, and a few pages at a
time for lookups. The probability that any two ids share a hash is rows**2 / 2**129.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.errors import storage_error
from batchscore.system.own_paths import AnyPath, own_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

ABSENT = -2
"""The result for an id that is not in the table, and for no id."""
AMBIGUOUS = -3
"""The result for an id that was added more than once."""
_BUCKET = ".bucket"
"""The suffix of a bucket's file."""
_BUCKET_ROWS = 2**18
_MOST_BUCKETS = 4096
_ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("value", "<i8")])
_REST = np.dtype([("low", "<u8"), ("value", "<i8")])


class IdTable:
    """``add`` everything, ``seal`` once, then ``find``. ``folder`` must be empty and belongs to the table."""

    def __init__(self, folder: AnyPath, rows: int) -> None:
        """``rows``: their expected number."""
        self._folder = own_folder(folder)
        self._buckets = min(max(1, -(-rows // _BUCKET_ROWS)), _MOST_BUCKETS)

    def add(self, ids: Sequence[str | None], values: NDArray[np.int64]) -> None:
        """Add a value (-1 or more) for each id that is neither None nor empty."""
        has_id, hashes = _hashes(ids)
        if not len(hashes):
            return
        rows = np.empty(len(hashes), dtype=_ROW)
        rows["high"], rows["low"], rows["value"] = hashes[:, 0], hashes[:, 1], values[has_id]
        # the leading 32 bits, spread evenly over the buckets: never falls where the hash rises
        bucket = (rows["high"] >> np.uint64(32)) * np.uint64(self._buckets) >> np.uint64(32)
        order = np.argsort(bucket, kind="stable")
        rows, bucket = rows[order], bucket[order]
        starts = np.flatnonzero(np.diff(bucket, prepend=np.uint64(self._buckets)))
        for start, piece in zip(starts, np.split(rows, starts[1:]), strict=True):
            self._append(f"{int(bucket[start]):04}{_BUCKET}", piece)

    def _append(self, name: str, rows: NDArray[np.void]) -> None:
        try:
            with (self._folder / name).open_append() as file:
                file.write(rows.tobytes())
        except OSError as error:
            raise storage_error("Writing", self._folder / name, error) from error

    def seal(self) -> None:
        """Sort the rows; an id that occurs more than once keeps one row, marked as ambiguous."""
        for name in ("high", "rest"):
            (self._folder / name).open_fresh().close()
        for name in self._folder.names():
            if not name.endswith(_BUCKET):
                continue
            with (self._folder / name).open_read() as file:
                rows = np.fromfile(file, dtype=_ROW)
            (self._folder / name).unlink()
            rows = rows[np.lexsort((rows["low"], rows["high"]))]
            is_same = (rows["high"][1:] == rows["high"][:-1]) & (rows["low"][1:] == rows["low"][:-1])
            rows["value"][:-1][is_same] = AMBIGUOUS
            rows = rows[~np.append(False, is_same)]  # the first of equal ones, which is marked
            self._append("high", np.ascontiguousarray(rows["high"]))
            rest = np.empty(len(rows), dtype=_REST)
            rest["low"], rest["value"] = rows["low"], rows["value"]
            self._append("rest", rest)

    def find(self, ids: Sequence[str | None]) -> NDArray[np.int64]:
        """The value of each id, int64 ``[n]``: ``ABSENT`` if there is none, ``AMBIGUOUS`` if there were several."""
        found = np.full(len(ids), ABSENT, dtype=np.int64)
        has_id, hashes = _hashes(ids)
        if not len(hashes) or not (self._folder / "high").stat().st_size:
            return found
        # mapped anew each time, so that pages once read do not count as memory for ever
        high, rest = self._mapped("high", np.dtype("<u8")), self._mapped("rest", _REST)
        at = np.minimum(np.searchsorted(high, hashes[:, 0]), len(high) - 1)
        is_match = (high[at] == hashes[:, 0]) & (rest["low"][at] == hashes[:, 1])
        found[has_id] = np.where(is_match, rest["value"][at], ABSENT)
        return found

    def _mapped(self, name: str, kind: np.dtype[Any]) -> NDArray[Any]:
        with (self._folder / name).open_read() as file:
            return np.memmap(file, dtype=kind, mode="r")


def _hashes(ids: Sequence[str | None]) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
    """Mask of the rows that have an id, ``[n]``, and the two halves of each of their hashes, ``[k, 2]``."""
    has_id = np.fromiter((bool(each) for each in ids), dtype=np.bool_, count=len(ids))
    digests = b"".join(
        hashlib.blake2b(each.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for each in ids
        if each
    )
    return has_id, np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
