"""Tables of a run's page for a model with one label a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchscore.evaluation.metrics import LABEL_METRICS, at
from batchscore.reports.answers import Metrics
from batchscore.reports.formats import interval, number, percent, shown
from batchscore.reports.row_groups import (
    MATRIX_LABELS,
    MOST_CONFUSIONS,
    Group,
    LabelGroup,
    confusions_of,
    labels_in_order,
)
from batchscore.reports.run_tables import MAX_HEADING, MOST_LABELS, more, place_of
from batchscore.reports.tables import Cell, Table


def predicted(metrics: Metrics, baseline: Metrics | None) -> Table:
    """How many rows got each label, most frequent first: the table for runs without given labels."""
    now = metrics["histograms"]["predicted_labels"]
    before = at(baseline, "histograms", "predicted_labels") or {}
    names = sorted(now, key=lambda name: -now[name])
    lines = [
        [
            shown(name),
            number(now[name]),
            *(percent(each.get(name, 0) / max(sum(each.values()), 1)) for each in (now, before) if each),
        ]
        for name in names[:MOST_LABELS]
    ]
    head = ["predicted label", "rows", "share", *(["share before"] if before else [])]
    return Table(head, lines, note=more(len(names), MOST_LABELS, "labels"))


def labels(metrics: Metrics, baseline: Metrics | None) -> Table:
    """Precision, recall and F1 of each label; if there are many, those with most rows first."""
    every = metrics["quality"]["per_label"]
    names = labels_in_order(metrics)
    lines: list[list[str | Cell]] = []
    for name in names[:MOST_LABELS]:
        row = every[name]
        earlier = [percent(at(baseline, "quality", "per_label", name, "f1"))] if baseline else []
        lines.append(
            [
                shown(name),
                *(percent(row[key]) for key in LABEL_METRICS),
                *earlier,
                number(row["support"]),
            ]
        )
    head = ["label", *LABEL_METRICS.values(), *(["F1 before"] if baseline else []), "rows"]
    return Table(head, lines, note=more(len(names), MOST_LABELS, "labels"))


def confusion(metrics: Metrics, links: Mapping[Group, str]) -> Table:
    """The confusion matrix, each cell coloured by its share of the given label; with many labels a list of pairs.

    ``links``: where the rows of a cell are on the page.
    """
    matrix = metrics["quality"]["confusion_matrix"]
    names = matrix["labels"]
    if len(names) > MATRIX_LABELS:
        pairs = confusions_of(metrics)
        lines: list[list[str | Cell]] = [
            [shown(names[g]), shown(names[p]), Cell(number(n), link=links.get(LabelGroup(g, p), ""))]
            for g, p, n in pairs[:MOST_CONFUSIONS]
        ]
        note = more(len(pairs), MOST_CONFUSIONS, "pairs")
        return Table(["given", "predicted", "rows"], lines, words=2, note=note)
    return Table(
        ["given ↓ predicted →", *(shown(name, MAX_HEADING) for name in names)],
        [
            [
                shown(name, MAX_HEADING),
                *(
                    _tinted(n, sum(line), row == column, links.get(LabelGroup(row, column), ""))
                    for column, n in enumerate(line)
                ),
            ]
            for row, (name, line) in enumerate(zip(names, matrix["counts"], strict=True))
        ],
    )


def _tinted(count: int, total: int, is_right: bool, link: str) -> Cell:
    share = count / total if total else 0.0
    text = f"{count:,} · {percent(share, 0)}"
    return Cell(text, "good" if is_right else "bad", round(45 * share), link=link)


def coverage(metrics: Metrics) -> Table:
    """Rows above each probability, and their accuracy."""
    has_labels = metrics["quality"] is not None
    lines = [
        [
            f"{row['threshold']:g}",
            number(row["rows"]),
            percent(row["share"]),
            percent(row.get("expected_accuracy")),
            *([percent(at(row, "accuracy", "value")), interval(row["accuracy"])] if has_labels else []),
        ]
        for row in metrics["coverage"]
    ]
    head = [
        "accept from",
        "rows",
        "of all",
        "expected accuracy",
        *(["accuracy", "95 % interval"] if has_labels else []),
    ]
    return Table(head, lines, words=0)


def flips(metrics: Metrics) -> Table | None:
    """Changed predictions by earlier and present label; None without a comparison."""
    compared = metrics.get("comparison")
    if not compared or not compared["rows"] or len(compared["changes"]["labels"]) > MATRIX_LABELS:
        return None
    names = compared["changes"]["labels"]
    lines: list[list[str | Cell]] = [
        [shown(name, MAX_HEADING), *(_flip(n, row == column) for column, n in enumerate(line))]
        for row, (name, line) in enumerate(zip(names, compared["changes"]["counts"], strict=True))
    ]
    return Table(["before ↓ now →", *(shown(name, MAX_HEADING) for name in names)], lines)


def _flip(count: int, is_same: bool) -> Cell:
    return Cell(number(count), "" if is_same or not count else "look")


def mismatch_lines(worst: Sequence[Mapping[str, Any]], with_text: bool) -> list[dict[str, Any]]:
    """The worst mismatches as the page shows them."""
    own = ("given_label", "predicted_label", "probability", "prob_given")
    return [{**{key: row[key] for key in own}, **place_of(row, own, with_text=with_text)} for row in worst]
