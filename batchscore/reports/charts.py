"""Charts as SVG inside a page: no script, no request, colours from the page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec

import markupsafe

from batchscore.reports.marks import Plot, grid
from batchscore.reports.pages import filled

_LOG = logging.getLogger(__name__)
_Data = ParamSpec("_Data")


def draw(
    title: str, description: str, plot: Callable[_Data, Plot], *data: _Data.args, **options: _Data.kwargs
) -> markupsafe.Markup:
    """Draw one of :mod:`plots` from its data; returns an ``<svg>`` element.

    ``title`` and ``description`` are for screen readers. A chart that cannot be drawn is no reason to lose a run that is
    scored: in its place stands that it is missing.
    """
    try:
        found = plot(*data, **options)
        frame = found.frame
        elements = [*grid(frame), *(mark(frame) for mark in found.marks)]
        size = {"width": found.width, "height": found.height}
        return filled("chart.svg", title=title, description=description, elements=elements, **size)
    except Exception as error:  # noqa: BLE001 - whatever it is
        _LOG.warning(
            "a chart (%s) could not be drawn (%s); the page comes without it",
            plot.__name__,
            type(error).__name__,
        )
        return markupsafe.Markup('<p class="note">This chart could not be drawn: {}.</p>').format(
            type(error).__name__
        )
