"""The charts of a run's page for a model that gives a number."""

from __future__ import annotations

import math

import markupsafe

from batchscore.reports import plots
from batchscore.reports.answers import Metrics
from batchscore.reports.charts import draw
from batchscore.reports.formats import percent, rows, value_text
from batchscore.reports.run_charts import Figure


def errors(metrics: Metrics) -> Figure | None:
    """Rows by how far they are off; None without given numbers."""
    if not metrics["quality"]:
        return None
    counts, quality = metrics["quality"]["residuals"], metrics["quality"]
    half, most = (each["error"] for each in quality["within"][:2])
    caption = f"Half of the values are within {value_text(half)} of the given number, nine in ten within {value_text(most)}."
    caption += _outside(counts)
    title = "How far off, and to which side?"
    return Figure(title, caption, _bars(title, caption, counts, "value less given number", zero=True))


def values(metrics: Metrics) -> Figure | None:
    """Rows by value; None without scored rows."""
    counts = metrics["histograms"]["values"]
    if not metrics["counts"]["scored"]:
        return None
    total = sum(counts["counts"]) + counts["below"] + counts["above"]
    most = max(range(len(counts["counts"])), key=lambda k: counts["counts"][k])
    low, high = counts["edges"][most : most + 2]
    share = counts["counts"][most] / max(total, 1)
    caption = f"{percent(share)} of {rows(total)} lie between {value_text(low)} and {value_text(high)}.{_outside(counts)}"
    title = "Which values did it give?"
    return Figure(title, caption, _bars(title, caption, counts, "value"))


def predicted_vs_given(metrics: Metrics) -> Figure | None:
    """Rows by given number and value; None without given numbers."""
    if not metrics["quality"]:
        return None
    joint = metrics["quality"]["predicted_vs_given"]
    given, value = joint["edges"]
    most = max(max(line) for line in joint["counts"])
    cells = [
        {"x": given[i], "x2": given[i + 1], "y": value[j], "y2": value[j + 1], "weight": math.sqrt(n / most)}
        for i, line in enumerate(joint["counts"])
        for j, n in enumerate(line)
        if n
    ]
    low, high = max(given[0], value[0]), min(given[-1], value[-1])
    same = [(end, end) for end in (low, high)] if low < high else []
    ranked = metrics["quality"]["spearman"]
    caption = "The darker, the more rows; on the dashed line value and given number are equal."
    if ranked:
        caption += f" Their rank correlation is {ranked['value']:.3f}"
        caption += f" (to {ranked['error_bound']:.1g})." if ranked["error_bound"] >= _TOLD else "."
    caption += " Rows beyond an edge are in the last cell."
    title = "Value against given number"
    return Figure(title, caption, draw(title, caption, plots.predicted_vs_given, cells, same))


_TOLD = 5e-4
"""A bound on the error of a correlation from which it is told."""


def _bars(title: str, caption: str, counts: Metrics, along: str, *, zero: bool = False) -> markupsafe.Markup:
    edges = counts["edges"]
    found = [
        {"low": edges[k], "high": edges[k + 1], "count": count}
        for k, count in enumerate(counts["counts"])
        if count
    ]
    return draw(title, caption, plots.bars, found, along, zero=zero)


def _outside(counts: Metrics) -> str:
    """Rows that the chart leaves out; empty if none."""
    below, above = counts["below"], counts["above"]
    if not below and not above:
        return ""
    edges = counts["edges"]
    sides = [
        *([f"{rows(below)} below {value_text(edges[0])}"] if below else []),
        *([f"{rows(above)} above {value_text(edges[-1])}"] if above else []),
    ]
    return f" Not drawn: {' and '.join(sides)}."
