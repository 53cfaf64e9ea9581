"""The nights in a folder as one page, ``report.html``; beside it the same as ``report.json`` for programs, as ``report.txt`` for a mail."""

from __future__ import annotations

import dataclasses
import datetime
import os
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from batchscore.errors import NoInputError, OutputError, UsageError, printable
from batchscore.reports import judge, render_trend, trend_json, trend_text
from batchscore.reports.nights import Night, State
from batchscore.runs.folder import PAGE, TEXT, is_finished
from batchscore.runs.nights import is_run, read_nights
from batchscore.system.storage import make_folder, to_json, write_bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Trend:
    """The files that :func:`write_trend` wrote."""

    page: Path
    data: Path
    text: Path
    nights: int
    headline: str


def write_trend(
    folder: Path,
    output: Path | None = None,
    until: datetime.date | None = None,
    now: datetime.datetime | None = None,
) -> Trend:
    """Write the page of the nights below ``folder``, and its JSON and its text beside it.

    ``output`` is the page, by default ``folder/report.html``. Days without a run are counted up to ``until``, by default
    today; ``now`` is the current time, with an offset.

    Raises:
        NoInputError: ``folder`` does not exist, or no run is below it.
        UsageError: the page would overwrite a run's own.
        OutputError: ``output`` cannot be a page's name.
    """
    page = output or folder / PAGE
    data, text = page.with_suffix(".json"), page.with_suffix(Path(TEXT).suffix)
    if not folder.is_dir():
        raise NoInputError(f"There is no folder {printable(folder)}. Name the folder that holds the runs.")
    if is_run(page.parent):
        raise UsageError(
            f"{printable(page.parent)} is itself a run. Name the folder above it, or another place with --output."
        )
    if page in {data, text} or page.is_dir():
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
    write_bytes(text, trend_text(nights, place=str(page.absolute())).encode())
    beside = {path.name: _quoted(path.name) for path in (data, text)}
    links = _links(nights.shown, folder, page.parent)
    write_bytes(page, render_trend(nights, links, written, beside).encode())
    return Trend(page, data, text, len(runs), verdict.headline)


def _links(nights: Sequence[Night], folder: Path, start: Path) -> dict[str, str]:
    """The address of the page of each night that has one, relative to the folder ``start`` and quoted."""
    base = _way(folder, start)
    return {
        night.path: _quoted(os.path.normpath(f"{base}/{night.path}/{PAGE}"))
        for night in nights
        if night.path and is_finished(folder / night.path) and (folder / night.path / PAGE).is_file()
    }


def _way(folder: Path, start: Path) -> str:
    """The path from ``start`` to ``folder`` as a browser goes it: by names, whatever is a link among them.

    Where ``..`` behind a link means another folder by name than on the disk, it is the path on the disk.
    """
    by_name = [Path(os.path.normpath(path.absolute())) for path in (folder, start)]
    if all(
        named.exists() and named.samefile(path) for named, path in zip(by_name, (folder, start), strict=True)
    ):
        return os.path.relpath(*by_name)
    return os.path.relpath(folder.resolve(), start.resolve())


def _quoted(path: str) -> str:
    """A relative URL; no name in it is taken for a scheme, a query or a fragment."""
    return urllib.parse.quote(os.fsencode(path))
