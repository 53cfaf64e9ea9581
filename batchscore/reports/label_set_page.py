"""The page of a run of a model with several labels a text."""

from __future__ import annotations

from batchscore.reports import label_set_charts, label_set_tables, label_set_verdict, run_tables
from batchscore.reports.answers import Metrics
from batchscore.reports.comparisons import flips
from batchscore.reports.formats import interval, percent
from batchscore.reports.slice_tables import ALL_RIGHT, slices
from batchscore.reports.views import Told, View


def view(told: Told) -> View:
    """What the page has of its own."""
    metrics, baseline = told.metrics, told.baseline
    has_labels, has_rows = metrics["quality"] is not None, metrics["counts"]["scored"] > 0
    return View(
        "label_set_page.html",
        "label_set_row.html",
        label_set_verdict.judge(metrics, baseline),
        flips,
        label_set_tables.mismatch_lines,
        {
            "estimate": _estimate(metrics),
            "predicted": label_set_tables.predicted(metrics, baseline) if has_rows else None,
            "per_row": label_set_tables.labels_per_row(metrics) if has_rows else None,
            "labels": label_set_tables.labels(metrics, baseline, told.links) if has_labels else None,
            "pairs": label_set_tables.pairs(metrics, told.links) if has_labels else None,
            "curves": label_set_charts.curves(metrics),
            "figures": list(label_set_charts.confidence(metrics)),
            "accepted_figure": label_set_charts.accepted(metrics),
            "accepted": label_set_tables.accepted(metrics),
            "slices": list(slices(metrics, ALL_RIGHT)),
            "slices_title": "Where is it less sure?",
            "slices_note": "The share of label decisions expected to be right is an estimate from the model's own probabilities.",
            "changes": label_set_tables.changes(metrics),
            "changes_title": "Rows that got or lost each label",
            "worst_title": "Worth checking first",
            "worst_name": "rows to check",
            "worst_note": run_tables.mismatch_note(metrics, told.listed),
        },
    )


def _estimate(metrics: Metrics) -> str:
    """The expected Hamming loss, and the actual one if known; how many labels rows have."""
    expected, text = metrics["expected_hamming_loss"], ""
    if expected:
        text = "Expected Hamming loss is an estimate from the model's own probabilities and needs no labels"
        error = expected["calibration_error"]
        text += (
            f"; its interval ({interval(expected)}) allows for the calibration error of {percent(error)} measured in training."
            if error is not None
            else ". How honest these are was never measured for this model: the estimate may be far off."
        )
    if quality := metrics["quality"]:
        per_row = quality["labels_per_row"]
        text += f" A row has {per_row['given']:.2f} labels on average, and {per_row['predicted']:.2f} are predicted."
        text += " Macro F1 leaves out labels that were neither given nor predicted."
    return text.strip()
