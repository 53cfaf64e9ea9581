"""Charts as SVG inside a page: no script, no request, colours from the page.

vl-convert (the Vega engine as a library) is imported when the first chart is drawn; that takes about half a second of CPU
time, each chart then a few milliseconds. The charts are compiled beforehand, see :mod:`chart_specs`.
"""

from __future__ import annotations

import copy
import functools
import importlib.resources
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe

Rows = Sequence[Mapping[str, Any]]


def draw(
    name: str, title: str, description: str, data: Mapping[str, Rows], params: Mapping[str, float]
) -> markupsafe.Markup:
    """Draw the chart ``name`` of ``charts.json`` with ``data`` as its data sets; returns an ``<svg>`` element.

    ``title`` and ``description`` are for screen readers. Raises ``KeyError`` for a data set or parameter that the chart
    does not have.
    """
    import vl_convert

    spec = copy.deepcopy(_compiled()[name])
    sets = {each["name"]: each for each in spec["data"]}
    for key, rows in data.items():
        sets[key]["values"] = list(rows)
    signals = {each["name"]: each for each in spec.get("signals", [])}
    for key, value in params.items():
        signals[key]["value"] = value
    return _embedded(vl_convert.vega_to_svg(spec), title, description)


@functools.cache
def _compiled() -> dict[str, Any]:
    text = importlib.resources.files("batchscore.reports").joinpath("charts.json").read_text(encoding="utf-8")
    specs: dict[str, Any] = json.loads(text)
    return specs


def _embedded(svg: str, title: str, description: str) -> markupsafe.Markup:
    """Vega's SVG made part of a page: it fills its box, has a title and description, and is half as long."""
    opening, body = svg.split(">", 1)
    box = re.search(r'viewBox="[\d. -]+"', opening)
    if box is None:
        raise ValueError("the chart has no view box")
    body = re.sub(r"<[^>]*>", _shorter, body)
    head = markupsafe.Markup(
        '<svg viewBox="{}" role="img" aria-label="{}"><title>{}</title><desc>{}</desc>'
    ).format(box[0][9:-1], f"{title}. {description}", title, description)
    return head + markupsafe.Markup(body)  # noqa: S704 - Vega escapes its texts


def _shorter(tag: re.Match[str]) -> str:
    """Round coordinates to a tenth of a pixel; drop roles, since the chart is one image."""
    text = re.sub(r' (role|aria-[a-z]+|class|pointer-events)="[^"]*"', "", tag[0])
    return re.sub(r"\d+\.\d\d+", lambda digits: f"{float(digits[0]):.1f}", text)
