"""Commands that look at what is in a bucket: a copy on this machine is looked at, and a page about many runs is put beside them."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from batchscore.addresses import Address, Place
from batchscore.errors import shown_below
from batchscore.runs.bucket_run import copy_object
from batchscore.runs.copies import copy_folder, open_bucket
from batchscore.runs.folder import FACTS, MANIFEST, METRICS, NOTE, PAGE, STAGING
from batchscore.runs.trend import write_trend
from batchscore.system.own_paths import OwnPath, own
from batchscore.system.scratch import scratch_folder
from batchscore.system.storage import make_folder, write_bytes
from batchscore.system.stores import Stored

_READ = {MANIFEST, FACTS, METRICS, NOTE}
"""What a page about many runs reads of each."""


@contextlib.contextmanager
def fetched(place: Place) -> Iterator[Path]:
    """A path of what is there: its own, or that of a copy of all that is at an address, which messages call by that.

    Raises:
        NoInputError: there is nothing.
        BusyError: another process of this machine looks at the same.
        StorageError: the store fails, or the disk is full.
    """
    if isinstance(place, Path):
        yield place
        return
    with scratch_folder(f"{place} (looked at)") as scratch:
        copy = copy_folder(place, scratch / "copy").path
        with shown_below(copy, str(place)):
            yield copy


class BucketTrend(NamedTuple):
    """What :class:`~batchscore.runs.trend.Trend` tells, of pages in a bucket."""

    page: Address
    data: Address
    text: Address
    nights: int
    headline: str


def write_trend_there(runs: Address, until: datetime.date | None) -> BucketTrend:
    """Write one page about all runs below an address, and its data and text, beside them.

    Raises:
        BatchscoreError: as :func:`~batchscore.runs.trend.write_trend`.
    """
    store = open_bucket(runs)
    with scratch_folder(f"{runs} (the page of all runs)") as scratch:
        folder = scratch / runs.name
        make_folder(folder)
        for each in store.list():
            _show(each, folder)
            if each.name.rpartition("/")[2] in _READ and f"{STAGING}/" not in each.name:
                copy_object(store, each, folder / each.name)
        with shown_below(folder.path, str(runs)):
            trend = write_trend(folder.path, None, until)
        for path in (trend.data, trend.text, trend.page):
            store.put(path.name, own(path))
        page, data, text = (runs / path.name for path in (trend.page, trend.data, trend.text))
        return BucketTrend(page, data, text, trend.nights, trend.headline)


def _show(found: Stored, folder: OwnPath) -> None:
    """Have in the copy that a page is there, and that a run has not finished, without copying either."""
    above, _, name = found.name.rpartition("/")
    if STAGING in found.name.split("/"):
        make_folder(folder / found.name.partition(f"{STAGING}/")[0] / STAGING)
        return
    if name in _READ or name == PAGE:
        make_folder(folder / above if above else folder)
    if name == PAGE and above:
        write_bytes(folder / found.name, b"")
