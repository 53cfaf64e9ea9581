"""The page of a run of a model that gives a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchscore.reports import value_charts, value_verdict
from batchscore.reports.answers import Metrics
from batchscore.reports.comparisons import moves
from batchscore.reports.formats import number, rows, value_text
from batchscore.reports.row_groups import Group, groups_of
from batchscore.reports.run_tables import place_of
from batchscore.reports.slice_tables import ERROR, slices
from batchscore.reports.tables import Cell, Table
from batchscore.reports.views import Told, View


def view(told: Told) -> View:
    """What the page has of its own."""
    metrics = told.metrics
    figures = (
        value_charts.predicted_vs_given(metrics),
        value_charts.errors(metrics),
        value_charts.values(metrics),
    )
    return View(
        "value_page.html",
        "value_row.html",
        value_verdict.judge(metrics, told.baseline),
        moves,
        _mismatch_lines,
        {
            "estimate": _note(metrics),
            "figures": [figure for figure in figures if figure],
            "within": _within(metrics),
            "ranges": _ranges(metrics, told.links),
            "slices": list(slices(metrics, ERROR)),
            "slices_title": "Which values where?",
            "slices_note": "Without given numbers (--label-column) only the values themselves can be compared.",
            "changes": None,
            "changes_title": "",
            "worst_title": "Furthest off",
            "worst_name": "rows furthest off",
            "worst_note": _mismatch_note(metrics, told.listed),
        },
    )


def _note(metrics: Metrics) -> str:
    """What the figures are in, and how far given numbers spread."""
    quality = metrics["quality"]
    if not quality:
        return ""
    text = (
        f"Errors are in the unit of the given numbers, whose mean is {value_text(quality['mean_given'])} and standard deviation "
        f"{value_text(quality['spread_given'])}; an answer that is always that mean would have an R² of 0."
    )
    ranked = quality["spearman"]
    if ranked and ranked["error_bound"]:
        text += f" Spearman's correlation is from counts by cell, at most {ranked['error_bound']:.1g} from the exact one."
    return text


def _within(metrics: Metrics) -> Table | None:
    """How far off which share of the rows is at most; None without given numbers."""
    if not metrics["quality"]:
        return None
    lines = [[f"{each['share']:.0%}", value_text(each["error"])] for each in metrics["quality"]["within"]]
    return Table(["of the rows", "are at most so far off"], lines)


def _ranges(metrics: Metrics, links: Mapping[Group, str]) -> Table | None:
    """Rows by given number, with the way to those furthest off; None where that leads nowhere."""
    lines: list[list[str | Cell]] = [
        [each.title[-1][0], number(each.rows), Cell("furthest off", link=links[each.group])]
        for each in groups_of(metrics)
        if each.group in links
    ]
    return Table(["given number", "rows", "see those"], lines) if lines else None


def _mismatch_lines(worst: Sequence[Metrics], with_text: bool) -> list[dict[str, Any]]:
    own = ("given_value", "value", "error")
    return [
        {
            "given": value_text(row["given_value"]),
            "value": value_text(row["value"]),
            "off": f"{value_text(abs(row['error']))} too {'high' if row['error'] > 0 else 'low'}",
            **place_of(row, own, with_text=with_text),
        }
        for row in worst
    ]


def _mismatch_note(metrics: Metrics, listed: int) -> str:
    """How many rows are far off, and where the rest are listed."""
    total, tolerance = metrics.get("mismatches"), metrics.get("tolerance")
    if total is None or tolerance is None:  # then there is no such thing as a mismatch
        return f"The {rows(listed)} furthest off. More are in mismatches.parquet and mismatches.csv, at most 1,000."
    far = f"{rows(total)} more than {value_text(tolerance)} off"
    return f"The first {listed:,} of {far}, furthest first. All are in mismatches.parquet and mismatches.csv."
