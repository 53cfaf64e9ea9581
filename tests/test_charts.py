"""The charts, read as a person reads them: what marks say by the labels of the ticks is what the data are."""

from __future__ import annotations

import datetime
import html
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import facts, metrics, rows

from batchscore.reports import charts, plots, render_run, scales
from batchscore.reports.charts import draw
from batchscore.reports.marks import Plot

SCALES = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "%": 0.01}
TENTH = 0.06
"""Pixels are drawn to a tenth."""


def number(label: str) -> float:
    """What a label says."""
    text = label.replace("−", "-")  # noqa: RUF001
    return float(text[:-1]) * SCALES[text[-1]] if text[-1] in SCALES else float(text)


class Axis(NamedTuple):
    """The straight line through the ticks' places and what their labels say."""

    slope: float
    start: float

    @classmethod
    def of(cls, places: Sequence[float], values: Sequence[float]) -> Axis:
        slope, start = np.polyfit(values, places, 1)
        np.testing.assert_allclose(np.polyval([slope, start], values), places, atol=TENTH)
        return cls(slope, start)

    def value(self, place: float) -> float:
        return (place - self.start) / self.slope

    @property
    def tenth(self) -> float:
        """As near as a mark can be drawn."""
        return abs(TENTH / self.slope) + 1e-9


class Drawn:
    """A chart that has been drawn."""

    def __init__(self, svg: str) -> None:
        self.root = ET.fromstring(svg)
        labels = [each for each in self.root.findall("text") if each.get("fill") == "var(--soft)"]
        self.below = [
            (float(e.attrib["x"]), e.text or "") for e in labels if e.get("text-anchor") == "middle"
        ]
        lowest = max(float(e.attrib["y"]) for e in labels if re.search(r"\d", e.text or ""))
        self.columns = [
            (float(e.attrib["x"]), e.text or "") for e in labels if float(e.attrib["y"]) == lowest
        ]
        self.lines = [
            (float(e.attrib["y"]) - 0.35 * scales.FONT, e.text or "")
            for e in labels
            if e.get("text-anchor") == "end"
        ]

    @property
    def x(self) -> Axis:
        return Axis.of([x for x, _ in self.columns], [number(text) for _, text in self.columns])

    @property
    def y(self) -> Axis:
        return Axis.of([y for y, _ in self.lines], [number(text) for _, text in self.lines])

    def of(self, tag: str, **attributes: str) -> list[ET.Element]:
        return [
            each
            for each in self.root.findall(tag)
            if all(each.get(key.replace("_", "-")) == value for key, value in attributes.items())
        ]

    def boxes(self, **attributes: str) -> list[tuple[float, float, float, float]]:
        """Left, foot, and top of each rectangle in the numbers of the axes, and its width in pixels."""
        found = []
        for each in self.of("rect", **attributes):
            x, y, width, height = (float(each.attrib[key]) for key in ("x", "y", "width", "height"))
            found.append((self.x.value(x), self.y.value(y + height), self.y.value(y), width))
        return found

    def dots(self, **attributes: str) -> list[tuple[float, float]]:
        return [
            (self.x.value(float(each.attrib["cx"])), self.y.value(float(each.attrib["cy"])))
            for each in self.of("circle", **attributes)
        ]

    def paths(self, **attributes: str) -> list[list[tuple[float, float]]]:
        """The points of each piece of each line."""
        found = []
        for each in self.of("path", fill="none", **attributes):
            for piece in each.attrib["d"].split("M")[1:]:
                pairs = (pair.split(",") for pair in piece.removesuffix("h0").split("L") if "h" not in pair)
                found.append([(self.x.value(float(x)), self.y.value(float(y))) for x, y in pairs])
        return found


def drawn(plot: Callable[..., Plot], *data: Any, **options: Any) -> Drawn:
    return Drawn(draw("A title", "A description", plot, *data, **options))


def near(found: Any, expected: Any, chart: Drawn) -> None:
    """The same points, as near as pixels tell."""
    assert len(found) == len(expected)
    for (x, y), (x2, y2) in zip(found, expected, strict=True):
        assert x == pytest.approx(x2, abs=chart.x.tenth)
        assert y == pytest.approx(y2, abs=chart.y.tenth)


# --- what marks say


def test_a_reliability_diagram_shows_each_bin_and_its_interval() -> None:
    bins = [
        {"probability": 0.55, "accuracy": 0.6, "low": 0.42, "high": 0.71, "size": 0.5},
        {"probability": 0.97, "accuracy": 0.9, "low": 0.85, "high": 0.94, "size": 1.0},
    ]
    chart = drawn(plots.reliability, bins, [{"probability": 0.6, "accuracy": 0.5}], 0.4)
    near(chart.dots(), [(0.55, 0.6), (0.97, 0.9)], chart)
    before, low, high, middle = chart.paths(stroke_width="1.5")
    near(before, [(0.6, 0.5)], chart)
    near(low, [(0.55, 0.42), (0.55, 0.71)], chart)
    near(high, [(0.97, 0.85), (0.97, 0.94)], chart)
    near(middle, [(0.55, 0.6), (0.97, 0.9)], chart)
    near(chart.paths(stroke_dasharray="3,3")[0], [(0.4, 0.4), (1, 1)], chart)
    small, large = (math.pi * float(each.attrib["r"]) ** 2 for each in chart.of("circle"))
    assert [small, large] == pytest.approx([77.5, 140], rel=0.05)


def test_a_histogram_stacks_its_kinds_from_the_right_ones_up() -> None:
    found = [
        {"low": 0.5, "high": 0.6, "kind": "wrong", "count": 30},
        {"low": 0.5, "high": 0.6, "kind": "correct", "count": 50},
        {"low": 0.6, "high": 0.7, "kind": "wrong", "count": 7},
        {"low": 0.6, "high": 0.7, "kind": "unlabelled", "count": 11},
    ]
    chart = drawn(plots.histogram, found, 0.5)
    expected = {"good": [(0.5, 0, 50)], "accent": [(0.6, 0, 11)], "bad": [(0.5, 50, 80), (0.6, 11, 18)]}
    for colour, boxes in expected.items():
        seen = chart.boxes(fill=f"var(--{colour})")
        assert len(seen) == len(boxes)
        for (left, foot, top, width), (left2, foot2, top2) in zip(seen, boxes, strict=True):
            assert left == pytest.approx(left2, abs=chart.x.tenth)
            assert (foot, top) == pytest.approx((foot2, top2), abs=2 * chart.y.tenth)
            assert (width + 1.5) / chart.x.slope == pytest.approx(0.1, abs=2 * chart.x.tenth)


def test_the_coverage_curve_has_its_interval_and_names_that_do_not_touch() -> None:
    found = metrics(rows(3000, noise=0.05))["coverage"]
    table = [
        {"share": row["share"], "name": f"{row['threshold']:g}", **row["accuracy"]}
        for row in found
        if row["accuracy"]
    ]
    chart = drawn(plots.coverage, table, [table[0], table[-1]])
    ordered = sorted(table, key=lambda row: row["share"])
    near(chart.paths(stroke="var(--accent)")[0], [(row["share"], row["value"]) for row in ordered], chart)
    near(chart.dots(), [(table[k]["share"], table[k]["value"]) for k in (0, -1)], chart)
    assert [each.text for each in chart.of("text", fill="var(--ink)")] == [
        table[0]["name"],
        table[-1]["name"],
    ]
    (band,) = chart.of("path", fill_opacity="0.2")
    points = [tuple(map(float, pair.split(","))) for pair in band.attrib["d"].strip("MZ").split("L")]
    assert len(points) == 2 * len(table)
    assert chart.y.value(points[0][1]) == pytest.approx(ordered[0]["high"], abs=chart.y.tenth)
    assert chart.y.value(points[-1][1]) == pytest.approx(ordered[0]["low"], abs=chart.y.tenth)


def test_precision_and_recall_are_a_line_for_each_label() -> None:
    curves = [[(0.1, 1.0), (0.5, 0.9), (1.0, 0.31)], [(0.2, 0.8), (1.0, 0.4)]]
    chart = drawn(plots.precision_recall, curves)
    near(chart.paths(stroke="var(--accent)")[0], curves[0], chart)
    near(chart.paths(stroke="var(--look)")[0], curves[1], chart)
    small = drawn(plots.label_curve, curves[0], [(0.5, 0.9)])
    near(small.dots(), [(0.5, 0.9)], small)
    assert [text for _, text in small.columns] == ["0%", "50%", "100%"]


def test_bars_are_as_high_as_their_counts_and_zero_is_where_it_is() -> None:
    found = [{"low": -2.5, "high": -1.0, "count": 3}, {"low": 0.5, "high": 2.0, "count": 12345}]
    chart = drawn(plots.bars, found, "value less given number", zero=True)
    for (left, foot, top, _), row in zip(chart.boxes(), found, strict=True):
        assert left == pytest.approx(row["low"], abs=chart.x.tenth)
        assert [foot, top] == pytest.approx([0, row["count"]], abs=2 * chart.y.tenth)
    ((bottom, top_),) = chart.paths(stroke="var(--bad)")
    assert bottom[0] == top_[0] == pytest.approx(0, abs=chart.x.tenth)


def test_counts_have_no_tick_between_whole_numbers() -> None:
    for most in (1, 2, 3, 7, 8, 15, 999, 12_345, 10**9):
        ticks = [value for value, _ in scales.counts(most).ticks]
        assert all(value == round(value) for value in ticks)
        assert ticks[0] == 0
        assert ticks[-1] >= most


def test_cells_are_as_dark_as_they_weigh() -> None:
    cells = [
        {"x": 0, "x2": 1, "y": -1, "y2": 0.5, "weight": 1.0},
        {"x": 3, "x2": 5, "y": 4, "y2": 5, "weight": 0.25},
    ]
    chart = drawn(plots.predicted_vs_given, cells, [(0, 0), (5, 5)])
    for (left, foot, top, width), cell in zip(chart.boxes(), cells, strict=True):
        assert (left, foot, top) == pytest.approx((cell["x"], cell["y"], cell["y2"]), abs=0.03)
        assert width / chart.x.slope == pytest.approx(cell["x2"] - cell["x"], abs=0.03)
    assert [float(e.attrib["fill-opacity"]) for e in chart.of("rect")] == [1, pytest.approx(0.295)]
    near(chart.paths(stroke_dasharray="3,3")[0], [(0, 0), (5, 5)], chart)


FIRST = datetime.date(2025, 12, 20)


def trend(values: Sequence[float | None], **options: Any) -> Drawn:
    """A chart of nights from ``FIRST`` on, whose ticks are read as days from there."""
    nights: list[dict[str, Any]] = [
        {
            "date": FIRST + datetime.timedelta(days=k),
            "value": value,
            "low": value and value - 0.1,
            "high": value and value + 0.1,
            "other": None,
            "limit": 0.5 if k > 3 else None,
        }
        for k, value in enumerate(values)
    ]
    dots = [
        {"date": each["date"], "value": each["value"], "is_bad": each["value"] < 0.5}
        for each in nights
        if each["value"] is not None
    ]
    gaps = [{"date": each["date"], "is_bad": False} for each in nights if each["value"] is None]
    chart = drawn(
        plots.trend, nights, dots, gaps, [(FIRST, FIRST)], **{"is_share": True, "from_zero": False, **options}
    )
    chart.columns = [(x, str((dated(text) - FIRST).days)) for x, text in chart.columns]
    return chart


def dated(label: str) -> datetime.date:
    found = datetime.datetime.strptime(f"{label} 2024", "%d %b %Y").date()
    return found.replace(year=2025 if found.month == 12 else 2026)


def test_a_trend_has_each_night_at_its_day_and_gaps_where_there_is_none() -> None:
    values = [0.8, 0.82, None, 0.4, 0.81, None, 0.83, None, *[0.8] * 12]
    chart = trend(values)
    having = [(k, value) for k, value in enumerate(values) if value is not None]
    near(sorted(chart.dots()), [(k, v) for k, v in having], chart)
    assert len(chart.dots(fill="var(--bad)")) == 1
    pieces = chart.paths(stroke_linecap="round")
    assert [len(piece) for piece in pieces] == [
        2,
        2,
        1,
        12,
    ]  # a lone night is a line of no length, which shows
    near([point for piece in pieces for point in piece], having, chart)
    feet = [
        chart.x.value(float(e.attrib["d"][1:].split(",")[0])) for e in chart.of("path", stroke_width="2.5")
    ]
    assert feet == pytest.approx([2, 5, 7], abs=chart.x.tenth)
    (limit,) = chart.paths(stroke_dasharray="6,3")
    near([limit[0], limit[-1]], [(3.5, 0.5), (19.5, 0.5)], chart)
    ((left, _, _, width),) = chart.boxes(fill_opacity="0.14")
    assert left == pytest.approx(-0.5, abs=chart.x.tenth)
    assert width / chart.x.slope == pytest.approx(1, abs=2 * chart.x.tenth)


def test_one_night_is_a_chart_too() -> None:
    for value in (0.0, 0.5, 1.0):
        chart = drawn(
            plots.trend,
            [{"date": FIRST, "value": value, "low": None, "high": None, "other": None, "limit": None}],
            [{"date": FIRST, "value": value, "is_bad": False}],
            [],
            [],
            is_share=True,
            from_zero=False,
        )
        assert [text for _, text in chart.columns] == ["20 Dec"]
        (dot,) = chart.of("circle")
        assert chart.y.value(float(dot.attrib["cy"])) == pytest.approx(value, abs=chart.y.tenth)
        assert all(0 <= number(text) <= 1 for _, text in chart.lines)


# --- axes


def check_labels(axis: scales.Axis, room: float) -> None:
    """No label touches the next one; ``room`` is the axis in pixels."""
    for (left, a), (right, b) in zip(axis.ticks, axis.ticks[1:], strict=False):
        space = (axis.share(right) - axis.share(left)) * room
        assert space > (len(a) + len(b)) / 2 * 0.6 * scales.FONT


numbers = st.floats(-1e12, 1e12).map(lambda value: float(f"{value:.12g}"))


@given(numbers, st.floats(1e-6, 1e12))
def test_labels_say_where_the_ticks_are(low: float, span: float) -> None:
    high = low + span
    for axis in (scales.across(low, high, ""), scales.axis(low, high, nice=True)):
        values = [value for value, _ in axis.ticks]
        assert len(values) <= 10
        assert values == sorted(set(values))
        slack = (axis.high - axis.low) * 1e-6
        assert all(axis.low - slack <= value <= axis.high + slack for value in values)
        said = [number(label) for _, label in axis.ticks]
        np.testing.assert_allclose(said, values, rtol=1e-9, atol=slack)
    check_labels(scales.across(low, high, ""), 320)
    nice = scales.axis(low, high, nice=True)
    assert nice.low <= low + span * 1e-6
    assert nice.high >= high - span * 1e-6
    assert len(nice.ticks) >= 2


@given(st.floats(0, 1), st.floats(0, 1))
def test_an_axis_of_shares_stays_between_none_and_all(low: float, high: float) -> None:
    axis = scales.axis(min(low, high), max(low, high), label=scales.share_label, nice=True)
    assert -1e-12 <= axis.low < axis.high <= 1 + 1e-12
    steps = np.diff([value for value, _ in axis.ticks])
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0] * (1 + 1e-9)))
    assert min(abs(mantissa - digit) for digit in (1, 2, 5)) < 1e-6


@given(st.dates(datetime.date(1970, 1, 1), datetime.date(2100, 1, 1)), st.integers(0, 20_000))
def test_days_are_labelled_at_their_noon(first: datetime.date, count: int) -> None:
    last = first + datetime.timedelta(days=count)
    axis = scales.days(first, last)
    assert (axis.low, axis.high) == (first.toordinal() - 0.5, last.toordinal() + 0.5)
    assert 1 <= len(axis.ticks) <= 8
    check_labels(axis, 320)
    for value, label in axis.ticks:
        date = datetime.date.fromordinal(int(value))
        assert first <= date <= last
        assert label in {f"{date.day} {date:%b}", f"{date:%b}" if date.month > 1 else f"{date.year}"}


# --- what goes wrong


BROKEN: dict[str, Callable[..., Any]] = {
    "memory": lambda *_, **__: (_ for _ in ()).throw(MemoryError()),
    "numbers that are none": lambda *_, **__: plots.bars(
        [{"low": math.nan, "high": math.inf, "count": 1}], "x", zero=False
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_chart_that_cannot_be_drawn_is_missing_and_the_page_says_so(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = render_run(facts(), metrics(rows(300)), [])
    monkeypatch.setattr(plots, "histogram", BROKEN[fault])
    BROKEN[fault].__name__ = "histogram"
    said: list[str] = []
    monkeypatch.setattr(charts._LOG, "warning", lambda text, *facts: said.append(text % facts))
    page = render_run(facts(), metrics(rows(300)), [])
    assert len(said) == 1
    assert "the page comes without it" in said[0]
    assert page.count("<svg ") == whole.count("<svg ") - 1
    assert page.count("This chart could not be drawn") == 1


def test_titles_and_descriptions_are_for_screen_readers_and_escaped() -> None:
    svg = draw('<b>"T" & co</b>', "It's <i>", plots.label_curve, [(0.0, 1.0), (1.0, 0.5)], [])
    root = ET.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == '<b>"T" & co</b>. It\'s <i>'
    assert (root[0].text, root[1].text) == ('<b>"T" & co</b>', "It's <i>")
    assert html.escape("<b>") in svg
