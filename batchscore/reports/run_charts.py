"""The charts of a run's page, each with a description for screen readers."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import markupsafe

from batchscore.evaluation.significance import wilson
from batchscore.reports import plots
from batchscore.reports.answers import Metrics
from batchscore.reports.charts import draw
from batchscore.reports.formats import interval, percent, shown

_NAMED = (0.5, 0.8, 0.9, 0.95, 0.99)
_KINDS = ("correct", "wrong", "unlabelled")
_LINES = ("accent", "look", "good", "bad")
"""CSS classes of a chart's lines, in order."""
_MOST_FOUND = 0.9
_CLOSE = 0.08
"""Names closer than this, as a share of the chart's width, would overlap."""


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """A drawing with its title, its description in words, and its legend (CSS class, name)."""

    title: str
    caption: str
    svg: markupsafe.Markup
    keys: tuple[tuple[str, str], ...] = ()


def confidence(metrics: Metrics) -> Iterator[Figure]:
    """Reliability diagram (with labels), histogram of probabilities, and precision-recall curves (with labels)."""
    if not metrics["counts"]["scored"]:
        return
    least = _axis_start(metrics)
    if metrics["calibration"]:
        yield reliability(metrics["calibration"], least)
    yield histogram(metrics["histograms"]["probability"], least)
    curves = (metrics["quality"] or {}).get("precision_recall")
    if curves and any(curve["recall"] for curve in curves.values()):
        yield _precision_recall(curves)


def _axis_start(metrics: Metrics) -> float:
    """Start of the probability axis: 1 / number of labels, the least probability of a prediction."""
    return math.floor(10 / len(metrics["labels"])) / 10


def reliability(
    calibration: dict[str, Any],
    least: float,
    *,
    were: str = "were right",
    title: str = "Is 90 % sure right 9 times in 10?",
    **axes: str,
) -> Figure:
    """The reliability diagram; ``were`` says what the share of a bin is of, ``axes`` are titles of :func:`plots.reliability`."""
    bins = [b for b in calibration["bins"] if b["rows"]]
    most = max(b["rows"] for b in bins)
    points = []
    for b in bins:
        low, high = (wilson(round(b["accuracy"] * b["rows"]), b["rows"]) or (0, 0, 0))[1:]
        points.append(
            {
                "probability": b["mean_probability"],
                "accuracy": b["accuracy"],
                "low": low,
                "high": high,
                "size": math.sqrt(b["rows"] / most),
            }
        )
    floor = min([least, *(math.floor(10 * p["low"]) / 10 for p in points)])
    worst = max(bins, key=lambda b: b["rows"] * abs(b["accuracy"] - b["mean_probability"]))
    caption = (
        f"Calibration error {percent(calibration['ece'])}. It weighs most around {percent(worst['mean_probability'], 0)}, "
        f"where {percent(worst['accuracy'], 0)} {were}. On the dashed line probabilities are honest."
    )
    before = _before(calibration)
    if before:
        caption += (
            f" Grey: before the temperature of {calibration['temperature']:.3g} that was fitted in training; calibration "
            f"error {percent(calibration['before']['ece'])}."
        )
    return Figure(title, caption, draw(title, caption, plots.reliability, points, before, floor, **axes))


def _before(calibration: dict[str, Any]) -> list[dict[str, float]]:
    """The bins before temperature scaling, if there was any."""
    if not calibration.get("before") or calibration["temperature"] == 1:
        return []
    return [
        {"probability": b["mean_probability"], "accuracy": b["accuracy"]}
        for b in calibration["before"]["bins"]
        if b["rows"]
    ]


def histogram(
    counts: dict[str, Any],
    least: float,
    *,
    have: str = "have a probability of",
    titles: tuple[str, str] = ("Rows by probability", "Sure and right, sure and wrong"),
    **axis: str,
) -> Figure:
    """Rows by probability, right and wrong ones; ``titles`` without labels and with them, ``axis`` that of :func:`plots.histogram`."""
    edges = counts["edges"]
    kinds = [kind for kind in _KINDS if any(counts[kind])]
    rows = [
        {"low": edges[k], "high": edges[k + 1], "kind": kind, "count": count}
        for kind in kinds
        for k, count in enumerate(counts[kind])
        if count
    ]
    total = sum(row["count"] for row in rows)
    sure = sum(row["count"] for row in rows if row["low"] >= edges[-3])
    unsure_wrong = sum(row["count"] for row in rows if row["kind"] == "wrong" and row["low"] >= edges[-3])
    caption = f"{percent(sure / total)} of {total:,} rows {have} {edges[-3]:g} or more"
    caption += f"; {unsure_wrong:,} of them are wrong." if "wrong" in kinds else "."
    floor = min([least, *(row["low"] for row in rows)])
    title = titles[len(kinds) > 1]
    svg = draw(title, caption, plots.histogram, rows, floor, **axis)
    colours = {"correct": "good", "wrong": "bad", "unlabelled": "accent"}
    return Figure(title, caption, svg, tuple((colours[kind], kind) for kind in kinds if len(kinds) > 1))


def _precision_recall(curves: dict[str, dict[str, list[float]]]) -> Figure:
    lines = [list(zip(curve["recall"], curve["precision"], strict=True)) for curve in curves.values()]
    told = [
        f"to find {percent(recall, 0)} of {shown(label, 40)}, {percent(precision)} of what is taken for it is right"
        for label, line in zip(curves, lines, strict=True)
        for recall, precision in itertools.islice((point for point in line if point[0] >= _MOST_FOUND), 1)
    ]
    caption = f"{'; '.join(told)}." if told else "No label was given."
    caption = caption[0].upper() + caption[1:]
    title = "What does finding more of a label cost?"
    svg = draw(title, caption, plots.precision_recall, lines)
    return Figure(
        title, caption, svg, tuple(zip(_LINES, (shown(label, 40) for label in curves), strict=False))
    )


def coverage(
    metrics: Metrics,
    *,
    sure: str = "from a probability of 0.9",
    right: str = "are right",
    **axis: str,
) -> Figure | None:
    """Accuracy of the predictions above each probability; None without labels. ``axis``: that of :func:`plots.coverage`."""
    table = metrics["coverage"]
    if not metrics["quality"]:
        return None
    rows = [
        {
            "share": row["share"],
            "name": f"{row['threshold']:g}",
            "threshold": row["threshold"],
            **row["accuracy"],
        }
        for row in table
        if row["accuracy"]
    ]
    named: list[dict[str, Any]] = []
    for row in rows:
        if row["threshold"] in _NAMED and all(abs(row["share"] - other["share"]) > _CLOSE for other in named):
            named.append(row)
    best = next((row for row in table if row["threshold"] == 0.9), None)
    caption = "No row is that sure."
    if best and best["accuracy"]:
        caption = (
            f"Accepting {sure} keeps {percent(best['share'])} of the rows, "
            f"and {percent(best['accuracy']['value'])} ({interval(best['accuracy'])}) of those {right}."
        )
    title = "What could be accepted without a look?"
    return Figure(title, caption, draw(title, caption, plots.coverage, rows, named, **axis))
