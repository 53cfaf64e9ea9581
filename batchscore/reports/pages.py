"""Rendering a page from a view (plain data): one environment for all templates, everything escaped."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import markupsafe

from batchscore.reports import formats

if TYPE_CHECKING:
    import jinja2


@dataclasses.dataclass(slots=True)
class Contents:
    """What a page has, noted while its sections are rendered: the line of contents is made of it, and no link leads nowhere."""

    headings: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """Anchor and short name of each section, in order."""
    anchors: set[str] = dataclasses.field(default_factory=set)

    def heading(self, anchor: str, title: str, name: str) -> markupsafe.Markup:
        """The heading of a section, which the line of contents calls ``name``."""
        self.headings.append((self.note(anchor), name))
        return markupsafe.Markup('<h2 id="{}">{}</h2>').format(anchor, title)

    def note(self, anchor: str) -> str:
        """An ``id`` on the page."""
        if anchor in self.anchors:
            raise ValueError(f"the page has #{anchor} already")
        self.anchors.add(anchor)
        return anchor


def render(template: str, *, files: Mapping[str, str] | None = None, **view: Any) -> str:
    """Fill a template of this package; a name missing in ``view`` is an error.

    ``files``: name → URL of files that a note may speak of; there the name is a link.
    """
    contents = Contents()
    text = (
        _environment()
        .get_template(template)
        .render(
            contents=contents,
            heading=contents.heading,
            linked=functools.partial(_linked, files=files or {}),
            **view,
        )
    )
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def filled(template: str, **view: Any) -> markupsafe.Markup:
    """A piece of a page: a template of this package, filled as :func:`render` does it."""
    return markupsafe.Markup(_environment().get_template(template).render(**view))  # noqa: S704 - templates escape


def _linked(text: str, *, files: Mapping[str, str]) -> markupsafe.Markup:
    """The text with each name of a file as a link."""
    pattern = "|".join(map(re.escape, sorted(files, key=len, reverse=True)))
    pieces = re.split(f"({pattern})", text) if files else [text]
    link = markupsafe.Markup('<a href="{}">{}</a>')
    return markupsafe.Markup("").join(
        link.format(files[piece], piece) if piece in files else piece for piece in pieces
    )


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
