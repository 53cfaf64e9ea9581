"""Each kind of chart, from its data: its axes and its marks."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from batchscore.reports.marks import (
    ACCENT,
    BAD,
    GOOD,
    HEIGHT,
    LOOK,
    SOFT,
    Mark,
    Plot,
    Point,
    area,
    box,
    dot,
    foot,
    line,
    name,
)
from batchscore.reports.scales import Axis, across, axis, counts, days, number_label, share_label

Rows: TypeAlias = Sequence[Mapping[str, Any]]
_KINDS = {"correct": GOOD, "unlabelled": ACCENT, "wrong": BAD}
"""From the foot of a stack to its top."""
_LINES = (ACCENT, LOOK, GOOD, BAD)
_SPARE = 30
"""Pixels that the name of a point at an edge needs."""


def reliability(
    bins: Rows,
    before: Rows,
    least: float,
    *,
    along: str = "probability of the predicted label",
    upwards: str = "share that was right",
) -> Plot:
    """``bins`` {probability, accuracy, low, high, size 0 to 1}, ``before`` {probability, accuracy}; both axes start at ``least``."""
    y = axis(least, 1, upwards, share_label)
    whiskers = [
        line([(each["probability"], each["low"]), (each["probability"], each["high"])], ACCENT)
        for each in bins
    ]
    dots = [dot(each["probability"], each["accuracy"], ACCENT, 15 + 125 * each["size"]) for each in bins]
    marks = [
        line([(least, least), (1, 1)], SOFT, 1, "3,3"),
        line([(each["probability"], each["accuracy"]) for each in before], SOFT),
        *whiskers,
        line([(each["probability"], each["accuracy"]) for each in bins], ACCENT),
        *dots,
    ]
    return Plot(across(least, 1, along, share_label), y, marks)


def histogram(rows: Rows, least: float, along: str = "probability of the predicted label") -> Plot:
    """``rows`` {low, high, kind, count}: stacked by kind."""
    heights: dict[float, int] = {}
    marks: list[Mark] = []
    for each in sorted(rows, key=lambda row: list(_KINDS).index(row["kind"])):
        foot_ = heights.get(each["low"], 0)
        heights[each["low"]] = top = foot_ + each["count"]
        marks.append(box((each["low"], each["high"]), (foot_, top), _KINDS[each["kind"]], gap=1.5))
    return Plot(across(least, 1, along, share_label), counts(max(heights.values(), default=1)), marks)


def coverage(thresholds: Rows, named: Rows, upwards: str = "accuracy of those") -> Plot:
    """``thresholds`` {share, value, low, high, name}, and those of them that have their names written beside."""
    rows = sorted(thresholds, key=lambda row: row["share"])
    ends = [each[key] for each in rows for key in ("low", "value", "high")]
    marks = [
        area([(each["share"], each["low"], each["high"]) for each in rows], ACCENT, 0.2),
        line([(each["share"], each["value"]) for each in rows], ACCENT),
        *(dot(each["share"], each["value"], ACCENT, 35) for each in named),
        *(name(each["share"], each["value"], each["name"]) for each in named),
    ]
    x = across(0, 1, "share of rows accepted without a look", share_label)
    y = axis(min(ends, default=0), max(ends, default=1), upwards, share_label, nice=True)
    return Plot(x, y, marks, margin=_SPARE)


def precision_recall(curves: Sequence[Sequence[tuple[float, float]]]) -> Plot:
    """A line of (recall, precision) for each label."""
    least = min((precision for curve in curves for _, precision in curve), default=0)
    x = across(0, 1, "recall: share of its rows found", share_label)
    y = axis(least, 1, "precision: share of those right", share_label, nice=True)
    return Plot(x, y, [line(curve, colour) for curve, colour in zip(curves, _LINES, strict=False)])


def label_curve(curve: Sequence[tuple[float, float]], at: Sequence[tuple[float, float]]) -> Plot:
    """One small curve of (recall, precision), and ``at`` those of the threshold."""
    ends = Axis(0, 1, tuple((value, share_label(value, 0.5)) for value in (0.0, 0.5, 1.0)))
    marks = [
        area([(recall, 0, precision) for recall, precision in curve], ACCENT, 0.14),
        line(curve, ACCENT),
        *(dot(*each, LOOK, 60) for each in at),
    ]
    return Plot(ends, ends, marks, width=190, height=144)


def bars(rows: Rows, along: str, *, zero: bool) -> Plot:
    """``rows`` {low, high, count}: rows by a number; ``zero``: a line where it is 0."""
    ends = [each[key] for each in rows for key in ("low", "high")] + [0.0] * zero
    most = max((each["count"] for each in rows), default=1)
    y = counts(most)
    marks = [box((each["low"], each["high"]), (0, each["count"]), ACCENT, gap=1) for each in rows]
    line_ = [line([(0, 0), (0, y.high)], BAD, 1, "4,3")] * zero
    return Plot(across(min(ends, default=0), max(ends, default=1), along), y, [*marks, *line_])


def predicted_vs_given(cells: Rows, same: Sequence[Point]) -> Plot:
    """``cells`` {x, x2, y, y2, weight 0 to 1}, and a line of equal numbers."""
    ends = {
        key: [each[end] for each in cells for end in (key, f"{key}2")] + [end[number] for end in same]
        for number, key in enumerate("xy")
    }
    x, y = ends["x"] or [0, 1], ends["y"] or [0, 1]
    marks = [
        box(
            (each["x"], each["x2"]),
            (each["y"], each["y2"]),
            ACCENT,
            opacity=round(0.06 + 0.94 * each["weight"], 3),
        )
        for each in cells
    ]
    return Plot(
        across(min(x), max(x), "given number"),
        axis(min(y), max(y), "value"),
        [*marks, line(same, SOFT, 1.2, "3,3")],
        height=HEIGHT + 70,
    )


def trend(
    nights: Rows,
    dots: Rows,
    gaps: Rows,
    stretches: Sequence[tuple[datetime.date, datetime.date]],
    *,
    is_share: bool,
    from_zero: bool,
) -> Plot:
    """A metric over the nights.

    ``nights`` {date, value, low, high, other, limit}, one each day, None if missing; ``dots`` {date, value, is_bad};
    ``gaps`` {date, is_bad}: nights without numbers; ``stretches``: first and last of nights that deserve a look.
    """
    drawn = [
        each[key]
        for each in nights
        for key in ("value", "low", "high", "other", "limit")
        if each[key] is not None
    ] + [0.0] * from_zero
    y = axis(min(drawn), max(drawn), label=share_label if is_share else number_label, nice=True)
    at = [each["date"].toordinal() for each in nights]

    def over(key: str) -> list[Point]:
        return [(x, each[key]) for x, each in zip(at, nights, strict=True)]

    bands = [(x, each["low"], each["high"]) for x, each in zip(at, nights, strict=True)]
    marks = [
        *(
            box((first.toordinal() - 0.5, last.toordinal() + 0.5), (y.low, y.high), BAD, 0.14)
            for first, last in stretches
        ),
        area(bands, ACCENT, 0.22),
        line(over("other"), SOFT, 1.2, "2,2"),
        line(_steps(over("limit")), BAD, 1.2, "6,3"),
        line(over("value"), ACCENT, round_=True),
        *(
            dot(
                each["date"].toordinal(),
                each["value"],
                BAD if each["is_bad"] else ACCENT,
                28 if each["is_bad"] else 10,
            )
            for each in dots
        ),
        *(foot(each["date"].toordinal(), BAD if each["is_bad"] else SOFT) for each in gaps),
    ]
    return Plot(days(nights[0]["date"], nights[-1]["date"]), y, marks)


def _steps(points: Sequence[Point]) -> list[Point]:
    """Each number from half a day before to half a day after: a limit changes between two nights."""
    return [(x + half, y) for x, y in points for half in (-0.5, 0.5)]
