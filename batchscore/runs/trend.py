"""The nights in a folder as one page, ``report.html``, with the same numbers for programs in ``report.json`` beside it."""

from __future__ import annotations

import dataclasses
import datetime
import os
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from batchscore.errors import NoInputError, OutputError, UsageError, printable
from batchscore.reports import judge, render_trend, trend_json
from batchscore.reports.nights import Night, State
from batchscore.runs.folder import PAGE
from batchscore.runs.nights import is_run, read_nights
from batchscore.system.storage import make_folder, to_json, write_bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Trend:
    """The files that :func:`write_trend` wrote."""

    page: Path
    data: Path
    nights: int
    headline: str


def write_trend(
    folder: Path,
    output: Path | None = None,
    until: datetime.date | None = None,
    now: datetime.datetime | None = None,
) -> Trend:
    """Write the page of the nights below ``folder`` and its JSON beside it.

    ``output`` is the page, by default ``folder/report.html``. Days without a run are counted up to ``until``, by default
    today; ``now`` is the current time, with an offset.

    Raises:
        NoInputError: ``folder`` does not exist, or no run is below it.
        UsageError: the page would overwrite a run's own.
        OutputError: ``output`` cannot be a page's name.
    """
    page = output or folder / PAGE
    data = page.with_suffix(".json")
    if not folder.is_dir():
        raise NoInputError(f"There is no folder {printable(folder)}. Name the folder that holds the runs.")
    if is_run(page.parent):
        raise UsageError(
            f"{printable(page.parent)} is itself a run. Name the folder above it, or another place with --output."
        )
    if page == data or page.is_dir():
        raise OutputError(f"--output {printable(page)} is no name for a page. Name a file such as {PAGE}.")
    now = now or datetime.datetime.now().astimezone()
    nights = read_nights(folder, until, now.date())
    runs = [night for night in nights.all if night.state is not State.MISSING]
    if not runs:
        raise NoInputError(
            f"No run is below {printable(folder)}. Name the folder that holds the folders of runs."
        )
    make_folder(page.parent)
    verdict, written = judge(nights), now.isoformat(timespec="minutes")
    write_bytes(data, to_json({"headline": verdict.headline, "written": written, **trend_json(nights)}))
    write_bytes(page, render_trend(nights, _links(nights.shown, folder, page.parent), written).encode())
    return Trend(page, data, len(runs), verdict.headline)


def _links(nights: Sequence[Night], folder: Path, start: Path) -> dict[str, str]:
    """The address of each finished night's page, relative to the folder ``start`` and quoted."""
    base = os.path.relpath(folder.resolve(), start.resolve())
    return {
        night.path: urllib.parse.quote(os.fsencode(os.path.normpath(f"{base}/{night.path}/{PAGE}")))
        for night in nights
        if night.values
    }
