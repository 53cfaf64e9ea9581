"""Tables of a run's page for a model with several labels a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchscore.evaluation.metrics import LABEL_METRICS, at
from batchscore.reports.answers import Metrics
from batchscore.reports.formats import interval, number, percent, rows, shown
from batchscore.reports.row_groups import MOST_PAIRS, Group, LabelGroup, labels_in_order
from batchscore.reports.run_tables import MAX_HEADING, MOST_LABELS, more, place_of
from batchscore.reports.tables import Cell, Table


def predicted(metrics: Metrics, baseline: Metrics | None) -> Table:
    """How many rows got each label, most frequent first: the table for runs without given labels."""
    now, scored = metrics["histograms"]["predicted_labels"], metrics["counts"]["scored"]
    before, scored_before = at(baseline, "histograms", "predicted_labels"), at(baseline, "counts", "scored")
    names = sorted(now, key=lambda name: -now[name])
    lines = [
        [
            shown(name),
            number(now[name]),
            percent(now[name] / max(scored, 1)),
            *([percent(before.get(name, 0) / max(scored_before, 1))] if before else []),
        ]
        for name in names[:MOST_LABELS]
    ]
    none = metrics["histograms"]["labels_per_row"][0]
    note = (
        f"{rows(none)} {'has' if none == 1 else 'have'} no label. {more(len(names), MOST_LABELS, 'labels')}"
    )
    head = ["predicted label", "rows", "of all", *(["before"] if before else [])]
    return Table(head, lines, note=note.strip())


def labels(metrics: Metrics, baseline: Metrics | None, links: Mapping[Group, str]) -> Table:
    """What was measured of each label; if there are many, those with most rows first.

    ``links``: where the rows are in which a label is missing or too many.
    """
    every, names = metrics["quality"]["per_label"], labels_in_order(metrics)
    places = {name: place for place, name in enumerate(metrics["labels"])}
    lines: list[list[str | Cell]] = []
    for name in names[:MOST_LABELS]:
        row = every[name]
        earlier = [percent(at(baseline, "quality", "per_label", name, "f1"))] if baseline else []
        lines.append(
            [
                shown(name),
                number(row["support"]),
                Cell(number(row["missing"]), link=links.get(LabelGroup(missing=places[name]), "")),
                Cell(number(row["extra"]), link=links.get(LabelGroup(extra=places[name]), "")),
                *(percent(row[key]) for key in LABEL_METRICS),
                *earlier,
                percent(at(row, "average_precision", "value")),
                percent(at(row, "roc_auc", "value")),
                percent(row["ece"]),
                f"{row['threshold']:g}",
            ]
        )
    head = ["label", "given", "missing", "too many", *LABEL_METRICS.values()]
    head += [
        *(["F1 before"] if baseline else []),
        "average precision",
        "ROC-AUC",
        "calibration error",
        "threshold",
    ]
    return Table(head, lines, note=more(len(names), MOST_LABELS, "labels"))


def pairs(metrics: Metrics, links: Mapping[Group, str]) -> Table | None:
    """Which label is missing where another one is too many; None if there are none."""
    places = {name: place for place, name in enumerate(metrics["labels"])}
    lines: list[list[str | Cell]] = []
    for pair in metrics["quality"]["taken_for"][:MOST_PAIRS]:
        group = LabelGroup(places[pair["missing"]], places[pair["extra"]])
        names = (shown(pair[key], MAX_HEADING) for key in ("missing", "extra"))
        lines.append([*names, Cell(number(pair["rows"]), link=links.get(group, ""))])
    return Table(["missing", "and too many", "rows"], lines, words=2) if lines else None


def labels_per_row(metrics: Metrics) -> Table:
    """Rows by how many labels are predicted."""
    counts = metrics["histograms"]["labels_per_row"]
    scored = max(sum(counts), 1)
    last = len(counts) - 1
    lines = [
        [f"{k} or more" if k == last else str(k), number(count), percent(count / scored)]
        for k, count in enumerate(counts)
        if count
    ]
    return Table(["labels predicted", "rows", "of all"], lines)


def accepted(metrics: Metrics) -> Table:
    """Rows whose least sure label is above each confidence, and how often all their labels are right."""
    has_labels = metrics["quality"] is not None
    lines = [
        [
            f"{row['threshold']:g}",
            number(row["rows"]),
            percent(row["share"]),
            *([percent(at(row, "accuracy", "value")), interval(row["accuracy"])] if has_labels else []),
        ]
        for row in metrics["coverage"]
    ]
    head = ["accept from", "rows", "of all", *(["all right", "95 % interval"] if has_labels else [])]
    return Table(head, lines, words=0)


def changes(metrics: Metrics) -> Table | None:
    """For each label, rows that got or lost it since the earlier run; None without a comparison."""
    compared = metrics.get("comparison")
    if not compared or not compared["rows"]:
        return None
    every: Mapping[str, Any] = compared["changes"]
    has_labels = bool(compared["evaluated"])
    names = sorted(every, key=lambda name: -(every[name]["added"] + every[name]["removed"]))
    keys = ["added", "removed", *(["fixed", "broken"] if has_labels else [])]
    lines: list[list[str | Cell]] = [
        [shown(name, MAX_HEADING), *(_changed(every[name][key], key) for key in keys)]
        for name in names[:MOST_LABELS]
    ]
    return Table(["label", *keys], lines, note=more(len(names), MOST_LABELS, "labels"))


def _changed(count: int, key: str) -> Cell:
    return Cell(number(count), "look" if key == "broken" and count else "")


def mismatch_lines(worst: Sequence[Metrics], with_text: bool) -> list[dict[str, Any]]:
    """The worst mismatches as the page shows them."""
    own = ("given_labels", "predicted_labels", "missing_labels", "extra_labels")
    return [
        {**{key: _names(row[key]) for key in own}, **place_of(row, own, with_text=with_text)} for row in worst
    ]


def _names(names: Sequence[str] | str | None) -> list[str]:
    """Labels as a page shows them."""
    listed = [name for name in names.split(";") if name] if isinstance(names, str) else list(names or [])
    return [shown(name, MAX_HEADING) for name in listed]
