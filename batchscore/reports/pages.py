"""Rendering a page from a view (plain data): one environment for all templates, everything escaped."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from batchscore.reports import formats

if TYPE_CHECKING:
    import jinja2


def render(template: str, **view: Any) -> str:
    """Fill a template of this package; a name missing in ``view`` is an error."""
    text = _environment().get_template(template).render(**view)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@functools.cache
def _environment() -> jinja2.Environment:
    """It keeps the templates that it has compiled."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("batchscore", "reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": formats.shown, "review": formats.review, "percent": formats.percent}
    return environment
