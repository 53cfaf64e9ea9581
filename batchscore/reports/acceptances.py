"""What ``--accept`` decided, on the page of a run: how many rows nobody needs to look at, and whether the promise stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchscore.evaluation.gates import PROMISE
from batchscore.reports.answers import Answer, Level, Link, Metrics
from batchscore.reports.formats import interval, number, percent, rows, shown
from batchscore.reports.run_tables import MAX_HEADING, MOST_LABELS, more
from batchscore.reports.tables import Cell, Table

_QUESTION = "Which rows need nobody?"


def answer(metrics: Metrics) -> Answer:
    """How many rows were accepted, under which promise, and what tonight's labels say of it; there must be an ``acceptance``."""
    told = metrics["acceptance"]
    text = f"{told['accepted']:,} of {rows(told['rows'])} ({percent(told['share'])}) were accepted"
    text += f", promised to be right in {percent(told['precision'])} or more. {_retest(metrics)}"
    if never := [label for label, each in told["per_label"].items() if each["threshold"] is None]:
        named = ", ".join(shown(label, MAX_HEADING) for label in never[:3])
        others = f" and {len(never) - 3:,} more" if len(never) > 3 else ""
        text += f" Of {named}{others} nothing could be promised, so all of them are for review."
    level = Level.BAD if is_broken(metrics) else Level.PLAIN
    return Answer(_QUESTION, text, level, (Link("decisions", "See the thresholds"),))


def is_broken(metrics: Metrics) -> bool:
    """Whether tonight's labels say that the promise no longer stands."""
    return any(gate["metric"] == PROMISE and not gate["passed"] for gate in metrics.get("gates") or [])


def _retest(metrics: Metrics) -> str:
    told = metrics["acceptance"]
    precision = told["accepted_precision"]
    if precision is None:
        return "No accepted row has a label, so that was not tested tonight."
    found = f"{percent(precision['value'])} of the {told['evaluated']:,} with a label are right ({interval(precision)})"
    if is_broken(metrics):
        return f"It does not stand: {found}, and that few would not come by chance."
    return (
        f"Tonight {found}{'' if precision['value'] >= told['precision'] else ', which chance can explain'}."
    )


def note(metrics: Metrics) -> str:
    """What is promised, on what, and how sure."""
    told = metrics["acceptance"]
    chosen_on = told["calibration"]
    return (
        f"Promised with a confidence of {percent(told['confidence'])}: of the accepted rows of each label a share of "
        f"{percent(told['precision'])} or more is right, as long as rows come from where the {rows(chosen_on['rows'])} came from on "
        f"which this was chosen ({shown(chosen_on['from'], 200)}). Chosen by Learn then Test, with exact binomial tests."
    )


def table(metrics: Metrics) -> Table:
    """The threshold of each label, what it accepts, and what was right."""
    every: Mapping[str, Any] = metrics["acceptance"]["per_label"]
    lines = [_line(label, each) for label, each in list(every.items())[:MOST_LABELS]]
    head = [
        "label",
        "accepted from",
        "rows",
        "with a label",
        "right",
        "95 % interval",
        "chosen on",
        "right there",
    ]
    return Table(head, lines, note=more(len(every), MOST_LABELS, "labels"))


def _line(label: str, told: Mapping[str, Any]) -> list[str | Cell]:
    threshold, precision, before = told["threshold"], told["precision"], told["calibration"]
    there = percent(before["right"] / before["accepted"]) if before["accepted"] else ""
    return [
        shown(label),
        Cell("never", "look") if threshold is None else f"{threshold:.6g}",
        number(told["accepted"]),
        number(told["evaluated"]),
        percent(precision["value"]) if precision else "",
        interval(precision) if precision else "",
        f"{before['accepted']:,} of {before['rows']:,}",
        there,
    ]
