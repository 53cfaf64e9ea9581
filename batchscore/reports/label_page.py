"""The page of a run of a model with one label a text."""

from __future__ import annotations

from batchscore.reports import acceptances, label_tables, run_charts, run_tables, verdict
from batchscore.reports.answers import Metrics
from batchscore.reports.comparisons import flips
from batchscore.reports.formats import percent, rows
from batchscore.reports.slice_tables import ACCURACY, slices
from batchscore.reports.views import Told, View


def view(told: Told) -> View:
    """What the page has of its own."""
    metrics, baseline = told.metrics, told.baseline
    has_labels = metrics["quality"] is not None
    return View(
        "label_page.html",
        "label_row.html",
        verdict.judge(metrics, baseline),
        flips,
        label_tables.mismatch_lines,
        {
            "estimate": _estimate(metrics, baseline),
            "predicted": label_tables.predicted(metrics, baseline) if metrics["counts"]["scored"] else None,
            "labels": label_tables.labels(metrics, baseline) if has_labels else None,
            "confusion": label_tables.confusion(metrics, told.links) if has_labels else None,
            "figures": list(run_charts.confidence(metrics)),
            "coverage_figure": run_charts.coverage(metrics),
            "decisions": acceptances.table(metrics) if metrics.get("acceptance") else None,
            "decisions_note": acceptances.note(metrics) if metrics.get("acceptance") else "",
            "coverage": label_tables.coverage(metrics),
            "slices": list(slices(metrics, ACCURACY)),
            "slices_title": "Where is it less sure?",
            "slices_note": "Expected accuracy is an estimate from the model's own probabilities.",
            "changes": label_tables.flips(metrics),
            "changes_title": "Predictions before and now",
            "worst_title": "Worth checking first",
            "worst_name": "rows to check",
            "worst_note": run_tables.mismatch_note(metrics, told.listed),
        },
    )


def _estimate(metrics: Metrics, baseline: Metrics | None) -> str:
    """The expected accuracy, and the actual one if known."""
    expected = metrics["expected_accuracy"]
    if not expected:
        return ""
    error = expected.get("calibration_error")
    text = "Expected accuracy is an estimate from the model's own probabilities and needs no labels"
    text += (
        f"; its interval allows for the calibration error of {percent(error)} measured in training."
        if error is not None
        else ". How honest these are was never measured for this model: the estimate may be far off."
    )
    beside = expected.get("evaluated")
    if beside:
        text += (
            f" On the {beside['rows']:,} rows with a label it is {percent(beside['expected'])}; "
            f"{percent(beside['observed']['value'])} were right."
        )
    if not metrics["quality"]:
        text += " Where rows bring a label (--label-column), the true accuracy stands beside it."
    then = ((baseline or {}).get("expected_accuracy") or {}).get("evaluated")
    if then and not beside:
        text += (
            f" In the earlier run, on {rows(then['rows'])} with a label, it was {percent(then['expected'])}; "
            f"{percent(then['observed']['value'])} were right."
        )
    return text
