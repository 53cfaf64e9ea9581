"""The marks of a chart, in the numbers of its axes; drawn, they are SVG elements in pixels.

Colours are the page's CSS variables, so that a chart follows the page into the dark.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from batchscore.reports.scales import FONT, Axis, text_width

WIDTH, HEIGHT = 420, 244
"""Pixels of a chart with everything in it; the page makes it as wide as the page has room."""
INK, SOFT, LINE, ACCENT = "var(--ink)", "var(--soft)", "var(--line)", "var(--accent)"
GOOD, LOOK, BAD = "var(--good)", "var(--look)", "var(--bad)"
_PAD, _TICK, _BELOW, _TITLE = 6, 5, FONT + 10, FONT + 5
"""Pixels: beside a label, of a tick, from an axis to the foot of the labels below it, and of a title with its space."""


class Element(NamedTuple):
    """An SVG element; attributes that are None are left out."""

    tag: str
    attributes: dict[str, str | float | None]
    text: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """The box in which marks are drawn, in pixels, and its axes."""

    x: Axis
    y: Axis
    left: float
    top: float
    right: float
    bottom: float

    def across(self, value: float) -> float:
        """Pixels from the left, to a tenth."""
        return round(self.left + self.x.share(value) * (self.right - self.left), 1)

    def down(self, value: float) -> float:
        """Pixels from the top, to a tenth."""
        return round(self.bottom - self.y.share(value) * (self.bottom - self.top), 1)


Mark: TypeAlias = Callable[[Frame], Element]
Point: TypeAlias = tuple[float, float | None]
Band: TypeAlias = tuple[float, float | None, float | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Plot:
    """Axes and marks; what comes later lies above."""

    x: Axis
    y: Axis
    marks: Sequence[Mark]
    width: float = WIDTH
    height: float = HEIGHT
    margin: float = 10
    """Pixels above, and at least to the right."""

    @property
    def frame(self) -> Frame:
        """The box that the labels and titles leave."""
        left = max((text_width(label) for _, label in self.y.ticks), default=0) + _PAD + _TICK
        beyond = max((text_width(label) / 2 for _, label in self.x.ticks[-1:]), default=0)
        bottom = self.height - _BELOW - _PAD - (_TITLE if self.x.title else 0)
        left += _TITLE if self.y.title else 0
        return Frame(self.x, self.y, left, self.margin, self.width - max(self.margin, beyond), bottom)


def line(
    points: Sequence[Point], colour: str, width: float = 1.5, dash: str | None = None, *, round_: bool = False
) -> Mark:
    """A line through the points, broken where there is no number; a ``round_`` one shows a lone point too."""
    return lambda frame: Element(
        "path",
        {
            "d": "".join(_path(run, frame) for run in _runs(points)),
            "fill": "none",
            "stroke": colour,
            "stroke-width": width,
            "stroke-dasharray": dash,
            "stroke-linecap": "round" if round_ else None,
        },
    )


def area(points: Sequence[Band], colour: str, opacity: float) -> Mark:
    """The band between two lines (x, low, high), broken where there is no number."""

    def drawn(frame: Frame) -> Element:
        lows = _runs([(x, low if high is not None else None) for x, low, high in points])
        highs = _runs([(x, high if low is not None else None) for x, low, high in points])
        outlines = (
            _path([*above, *reversed(below)], frame) for below, above in zip(lows, highs, strict=True)
        )
        return Element(
            "path",
            {"d": "".join(f"{each}Z" for each in outlines), "fill": colour, "fill-opacity": opacity},
        )

    return drawn


def box(
    x: tuple[float, float], y: tuple[float, float], colour: str, opacity: float | None = None, gap: float = 0
) -> Mark:
    """A rectangle between two numbers of each axis; ``gap`` pixels of its width are left to its neighbour."""

    def drawn(frame: Frame) -> Element:
        left, right = frame.across(x[0]), frame.across(x[1])
        top, bottom = frame.down(y[1]), frame.down(y[0])
        size = {"width": max(round(right - left - gap, 1), 0.3), "height": round(bottom - top, 1)}
        return Element("rect", {"x": left, "y": top, **size, "fill": colour, "fill-opacity": opacity})

    return drawn


def dot(x: float, y: float, colour: str, size: float) -> Mark:
    """A disc of ``size`` square pixels."""
    radius = round(math.sqrt(size / math.pi), 1)
    return lambda frame: Element(
        "circle", {"cx": frame.across(x), "cy": frame.down(y), "r": radius, "fill": colour}
    )


def name(x: float, y: float, text: str) -> Mark:
    """A text to the right of a point and above it."""
    return lambda frame: Element(
        "text",
        {"x": frame.across(x) + 3, "y": frame.down(y) - 6, "fill": INK, "font-size": FONT - 1},
        text,
    )


def foot(x: float, colour: str) -> Mark:
    """A short upright mark at the foot of the chart."""
    return lambda frame: Element(
        "path",
        {"d": f"M{frame.across(x):g},{frame.bottom:g}v-9", "stroke": colour, "stroke-width": 2.5},
    )


def grid(frame: Frame) -> Iterable[Element]:
    """The axes' lines, ticks, labels and titles."""
    wide, low, left = frame.right - frame.left, frame.bottom, frame.left
    rows = [(frame.down(value), label) for value, label in frame.y.ticks]
    columns = [(frame.across(value), label) for value, label in frame.x.ticks]
    lines = "".join(f"M{left - _TICK:g},{y:g}h{wide + _TICK:g}" for y, _ in rows)
    ticks = "".join(f"M{x:g},{low:g}v{_TICK}" for x, _ in columns)
    edges = f"M{left:g},{frame.top:g}V{low:g}H{frame.right:g}"
    yield Element("path", {"d": lines + ticks + edges, "stroke": LINE, "fill": "none"})
    for y, label in rows:
        yield _label(left - _TICK - _PAD / 2, y + FONT * 0.35, label, "end")
    for x, label in columns:
        yield _label(x, low + _BELOW, label)
    if frame.x.title:
        yield _label((left + frame.right) / 2, low + _BELOW + _TITLE, frame.x.title)
    if frame.y.title:
        middle = (frame.top + low) / 2
        turned = f"rotate(-90 {FONT} {middle:g})"
        yield _label(FONT, middle, frame.y.title, transform=turned)


def _label(x: float, y: float, text: str, anchor: str = "middle", transform: str | None = None) -> Element:
    place: dict[str, str | float | None] = {"x": round(x, 1), "y": round(y, 1), "transform": transform}
    return Element("text", {**place, "text-anchor": anchor, "fill": SOFT, "font-size": FONT}, text)


def _runs(points: Sequence[Point]) -> list[list[tuple[float, float]]]:
    """The points in pieces between those without a number."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]


def _path(points: Sequence[tuple[float, float]], frame: Frame) -> str:
    """Through all points; a lone one is a line of no length."""
    text = "L".join(f"{frame.across(x):g},{frame.down(y):g}" for x, y in points)
    return f"M{text}" if len(points) > 1 else f"M{text}h0"
