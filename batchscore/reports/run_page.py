"""One run as one self-contained page: no script, no request, everything escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from batchscore.errors import printable

_TEXT_SHOWN = 600
"""Characters of a mismatch's text on the page."""


def render_run(
    facts: Mapping[str, Any], metrics: Mapping[str, Any], worst: Sequence[Mapping[str, Any]]
) -> str:
    """The page of one run: ``facts`` of ``run.json``, ``metrics`` of ``metrics.json``, the ``worst`` mismatches."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("batchscore", "reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "number": _number, "shown": printable, "review": _review}
    return environment.get_template("run_page.html").render(facts=facts, metrics=metrics, worst=worst)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"  # noqa: RUF001 - a dash for what is not known


def _number(value: float | None) -> str:
    if value is None:
        return "–"  # noqa: RUF001
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _review(text: str | None) -> str:
    """A review as people read it: ``<br />`` as spaces, cut, control characters visible."""
    plain = re.sub(r"(<br\s*/?>|\s)+", " ", text or "").strip()
    return printable(plain if len(plain) <= _TEXT_SHOWN else plain[: _TEXT_SHOWN - 1] + "…")
