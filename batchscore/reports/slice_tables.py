"""Tables of a run's page by slice, for the tasks with labels and for numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from batchscore.evaluation.metrics import at
from batchscore.reports.answers import Metrics
from batchscore.reports.formats import UNKNOWN, number, percent, shown, signed, signed_value, value_text
from batchscore.reports.run_tables import more
from batchscore.reports.tables import Cell, Table

_COLUMNS = {"n_tokens": "text length, in tokens", "truncated": "truncated", "file": "file"}
_MOST_SLICES = 12


@dataclasses.dataclass(frozen=True, slots=True)
class Measure:
    """What is told of each slice."""

    key: str
    """Of {value, low, high} in a slice's entry, and before ``_change`` in that of the comparison."""
    words: str
    write: Callable[[float | None], str]
    write_change: Callable[[float | None], str]
    others: Mapping[str, str]
    """More numbers: key and words."""
    without: str = ""
    """The one of them that is only told without labels."""
    most: float | None = None
    """The end of the bar's scale, if it is the same for all."""


ACCURACY = Measure(
    "accuracy",
    "accuracy",
    percent,
    lambda change: signed(change, is_share=True),
    {"expected_accuracy": "expected"},
    most=1.0,
)
ALL_RIGHT = dataclasses.replace(
    ACCURACY, words="all right", others={"expected_right": "decisions expected right"}
)
ERROR = Measure(
    "mae",
    "mean absolute error",
    value_text,
    signed_value,
    {"bias": "bias", "mean_value": "mean value"},
    without="mean_value",
)


def slices(metrics: Metrics, measure: Measure) -> Iterator[tuple[str, Table]]:
    """One table per column: flagged slices first, then the largest."""
    changes = {(each["column"], each["value"]): each for each in at(metrics, "comparison", "slices") or []}
    for column, group in groupby(metrics["slices"], key=lambda entry: entry["column"]):
        entries = [{**entry, "change": changes.get((column, entry["value"]))} for entry in group]
        if len(entries) > 1:
            yield _COLUMNS.get(column, shown(column)), _slice_table(entries, measure)


def _slice_table(entries: Sequence[Mapping[str, Any]], measure: Measure) -> Table:
    chosen = _by_number(entries)
    if len(chosen) > _MOST_SLICES:
        chosen = sorted(chosen, key=lambda e: (not _is_flagged(e), -e["rows"]))[
            : max(_MOST_SLICES, sum(map(_is_flagged, chosen)))
        ]
    measured = [entry[measure.key] for entry in chosen if entry[measure.key]]
    least, most = _scale(measured, measure)
    changed = f"{measure.key}_change"
    has_changes = any(entry["change"] and entry["change"][changed] for entry in chosen)
    scale = f"{_short(least, measure)} to {_short(most, measure)}"
    head = ["", "rows", *([measure.words, scale] if measured else [])]
    others = {
        key: words
        for key, words in measure.others.items()
        if any(entry.get(key) is not None for entry in chosen) and not (measured and key == measure.without)
    }
    head += [*others.values(), *(["same rows"] if has_changes else [])]
    lines: list[list[str | Cell]] = [
        [
            Cell(_slice_name(entry["value"]), "look" if _is_flagged(entry) else ""),
            number(entry["rows"]),
            *(_slice_measure(entry, measure, (least, most)) if measured else []),
            *(measure.write(entry[key]) for key in others),
            *([_slice_change(entry["change"], measure)] if has_changes else []),
        ]
        for entry in chosen
    ]
    note = more(len(entries), len(chosen), "values")
    return Table(head, lines, note=note)


def _scale(measured: Sequence[Mapping[str, float]], measure: Measure) -> tuple[float, float]:
    """Both ends of the bars: from the lowest end of an interval, of an error from 0."""
    if measure.most is not None:
        return min((each["low"] for each in measured), default=0.0), measure.most
    return 0.0, max((each.get("high", each["value"]) for each in measured), default=1.0)


def _short(end: float, measure: Measure) -> str:
    return percent(end, 0).replace("100.0%", "100%") if measure.write is percent else measure.write(end)


def _by_number(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Sorted by value if all values are numbers, else unchanged."""
    try:
        return sorted(entries, key=lambda entry: float(entry["value"]))
    except ValueError:
        return list(entries)


def _slice_name(value: str) -> str:
    return shown(value) if value else "(empty)"


def _is_flagged(entry: Mapping[str, Any]) -> bool:
    """Whether a slice is clearly worse than the other rows, or than before."""
    return bool(entry["worse"] or (entry["change"] and entry["change"]["worse"]))


def _slice_change(change: Mapping[str, Any] | None, measure: Measure) -> Cell:
    """The change on the rows that both runs predicted; of a share, in points."""
    moved = change and change[f"{measure.key}_change"]
    if not change or not moved:
        return Cell(UNKNOWN)
    return Cell(measure.write_change(moved["value"]), "look" if change["worse"] else "")


def _slice_measure(entry: Mapping[str, Any], measure: Measure, scale: tuple[float, float]) -> list[Cell]:
    found = entry[measure.key]
    if found is None:
        return [Cell(UNKNOWN), Cell("")]
    ends = (found.get("low", found["value"]), found["value"], found.get("high", found["value"]))
    low, value, high = (100 * (end - scale[0]) / max(scale[1] - scale[0], 1e-300) for end in ends)
    mark = "look" if entry["worse"] else ""
    return [Cell(measure.write(found["value"]), mark), Cell("", mark, span=(low, value, high))]
