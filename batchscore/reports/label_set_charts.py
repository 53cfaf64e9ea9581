"""The charts of a run's page for a model with several labels a text."""

from __future__ import annotations

from collections.abc import Iterator

from batchscore.reports import plots
from batchscore.reports.answers import Metrics
from batchscore.reports.charts import draw
from batchscore.reports.formats import percent, shown
from batchscore.reports.run_charts import Figure, coverage, histogram, reliability

_MAX_NAME = 40


def confidence(metrics: Metrics) -> Iterator[Figure]:
    """Reliability diagram of all label decisions (with labels), and rows by their least sure label."""
    if not metrics["counts"]["scored"]:
        return
    if metrics["calibration"]:
        yield reliability(
            metrics["calibration"],
            0.0,
            were="have the label",
            title="Is a label at 90 % there 9 times in 10?",
            along="probability of a label",
            upwards="share that has it",
        )
    yield histogram(
        metrics["histograms"]["probability"],
        0.5,
        have="are sure of each of their labels at",
        titles=("Rows by their least sure label", "Sure of all labels and right, sure and wrong"),
        along="confidence in the least sure label",
    )


def accepted(metrics: Metrics) -> Figure | None:
    """How often all labels are right where the least sure one is above each confidence; None without labels."""
    return coverage(
        metrics,
        sure="where the least sure label has a confidence of 0.9",
        right="have all labels right",
        upwards="all labels right in those",
    )


def curves(metrics: Metrics) -> list[Figure]:
    """A small precision-recall curve of each label that has one, with a mark at its threshold."""
    found = (metrics["quality"] or {}).get("precision_recall") or {}
    return [
        _curve(label, curve, metrics["quality"]["per_label"][label])
        for label, curve in found.items()
        if curve["recall"]
    ]


def _curve(label: str, curve: Metrics, row: Metrics) -> Figure:
    points = [
        (0.0, curve["precision"][0]),
        *zip(curve["recall"], curve["precision"], strict=True),
    ]
    at: list[tuple[float, float]] = []
    caption = f"Average precision {percent(row['average_precision']['value'])}."
    if row["precision"] is not None and row["recall"] is not None:
        at = [(row["recall"], row["precision"])]
        caption += (
            f" From {row['threshold']:g} on, {percent(row['recall'], 0)} are found and {percent(row['precision'], 0)} of those found "
            "are right."
        )
    title = shown(label, _MAX_NAME)
    return Figure(title, caption, draw(title, caption, plots.label_curve, points, at))
