"""The numbers on a run's page that lead to their rows: which they are, and how many rows of each are listed.

A confusion, a label that is missing or too many, a range of given numbers: each is a group of mismatches with an anchor. All
groups together list a bounded number of rows, however many labels there are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from batchscore.evaluation.metrics import task_of
from batchscore.records import Task
from batchscore.reports.formats import shown, value_text
from batchscore.reports.run_tables import MAX_HEADING, MOST_LABELS

Metrics = Mapping[str, Any]
MATRIX_LABELS = 12
"""Up to so many labels are a matrix, in the order of the model; of more, the most frequent pairs are listed."""
MOST_CONFUSIONS = 30
MOST_PAIRS = 12
MOST_RANGES = 12
_MOST_ROWS, _LEAST_ROWS, _ALL_ROWS = 12, 2, 200
"""Rows that one group lists at most and, if there are as many, at least; what groups share in between."""


@dataclasses.dataclass(frozen=True, slots=True)
class LabelGroup:
    """Mismatches that lack one label, have another too many, or both; labels by their index."""

    missing: int | None = None
    extra: int | None = None

    @property
    def anchor(self) -> str:
        """The fragment that it has on a page."""
        return f"rows-{_or_any(self.missing)}-{_or_any(self.extra)}"


@dataclasses.dataclass(frozen=True, slots=True)
class ValueGroup:
    """Mismatches whose given number is at least ``low`` and under ``high``."""

    number: int
    low: float
    high: float

    @property
    def anchor(self) -> str:
        """The fragment that it has on a page."""
        return f"rows-given-{self.number}"


Group = LabelGroup | ValueGroup


def _or_any(label: int | None) -> str:
    return "any" if label is None else str(label)


@dataclasses.dataclass(frozen=True, slots=True)
class RowGroup:
    """One number of the page, and the rows that it leads to."""

    group: Group
    title: tuple[tuple[str, bool], ...]
    """Pieces of its name, and whether each is a name from outside."""
    rows: int
    """How many there are in the run."""
    back: str
    """The anchor of the table with the number."""
    most: int = 0
    """How many are listed at most."""

    @property
    def anchor(self) -> str:
        """The fragment that it has on a page."""
        return self.group.anchor

    def note(self, listed: int) -> str:
        """How many of its rows are listed, and where the others are."""
        if isinstance(self.group, ValueGroup):
            return f"The {listed:,} furthest off of {self.rows:,} shown; more in mismatches.csv."
        if listed >= self.rows:
            return f"All {self.rows:,} shown." if self.rows > 1 else "It is the only one."
        return f"{listed:,} of {self.rows:,} shown, those worth checking first; all are in mismatches.csv."


def groups_of(metrics: Metrics) -> list[RowGroup]:
    """The groups of a run's page, in its order; none without given labels."""
    if not metrics["quality"]:
        return []
    found = list(_GROUPS[task_of(metrics)](metrics))
    most = max(_LEAST_ROWS, min(_MOST_ROWS, _ALL_ROWS // max(len(found), 1)))
    return [dataclasses.replace(each, most=most) for each in found]


def confusions_of(metrics: Metrics) -> list[tuple[int, int, int]]:
    """Indices of given and predicted labels that differ, and the number of rows: most frequent first."""
    counts = metrics["quality"]["confusion_matrix"]["counts"]
    pairs = [
        (given, predicted, count)
        for given, line in enumerate(counts)
        for predicted, count in enumerate(line)
        if given != predicted and count
    ]
    return sorted(pairs, key=lambda pair: -pair[2])


def _confusions(metrics: Metrics) -> Iterator[RowGroup]:
    labels, found = metrics["quality"]["confusion_matrix"]["labels"], confusions_of(metrics)
    for given, predicted, count in found[:MOST_CONFUSIONS] if len(labels) > MATRIX_LABELS else found:
        title = ("Given ", False), _name(labels[given]), (", predicted ", False), _name(labels[predicted])
        yield RowGroup(LabelGroup(given, predicted), title, count, "confusion")


def labels_in_order(metrics: Metrics) -> list[str]:
    """The labels of the table by label: those with most rows first where there are many."""
    every = metrics["quality"]["per_label"]
    names = sorted(every, key=lambda name: -every[name]["support"]) if len(every) > MATRIX_LABELS else every
    return list(names)


def _label_sets(metrics: Metrics) -> Iterator[RowGroup]:
    quality, places = metrics["quality"], {name: place for place, name in enumerate(metrics["labels"])}
    for name in labels_in_order(metrics)[:MOST_LABELS]:
        counts = quality["per_label"][name]
        if counts["missing"]:
            group = LabelGroup(missing=places[name])
            yield RowGroup(
                group, (_name(name), (" given, not predicted", False)), counts["missing"], "labels"
            )
        if counts["extra"]:
            group = LabelGroup(extra=places[name])
            yield RowGroup(group, (_name(name), (" predicted, not given", False)), counts["extra"], "labels")
    for pair in quality["taken_for"][:MOST_PAIRS]:
        group = LabelGroup(places[pair["missing"]], places[pair["extra"]])
        title = _name(pair["missing"]), (" given, but ", False), _name(pair["extra"]), (" predicted", False)
        yield RowGroup(group, title, pair["rows"], "pairs")


def _name(label: str) -> tuple[str, bool]:
    return shown(label, MAX_HEADING), True


def _given_ranges(metrics: Metrics) -> Iterator[RowGroup]:
    joint = metrics["quality"]["predicted_vs_given"]
    edges, counts = joint["edges"][0], [sum(line) for line in joint["counts"]]
    step = math.ceil(len(counts) / MOST_RANGES) or 1
    starts = range(0, len(counts), step)
    for number, start in enumerate(starts):
        end = min(start + step, len(counts))
        rows = sum(counts[start:end])
        low = -math.inf if start == 0 else edges[start]
        high = math.inf if end == len(counts) else edges[end]
        if rows:
            title = ("Given ", False), (_range_name(edges[start : end + 1]), False)
            yield RowGroup(ValueGroup(number, low, high), title, rows, "ranges")


def _range_name(edges: Sequence[float]) -> str:
    """``3``, ``3 to 5`` of bins that hold a whole number each, else ``0.5 to 1``."""
    is_whole = all(edge % 1 == 0.5 for edge in edges) and edges[1] - edges[0] == 1
    low, high = (edges[0] + 0.5, edges[-1] - 0.5) if is_whole else (edges[0], edges[-1])
    return value_text(low) if low == high else f"{value_text(low)} to {value_text(high)}"


_GROUPS: Mapping[Task, Callable[[Metrics], Iterator[RowGroup]]] = {
    Task.SINGLE_LABEL: _confusions,
    Task.MULTI_LABEL: _label_sets,
    Task.REGRESSION: _given_ranges,
}
