"""What changed since the earlier run, row by row, in words."""

from __future__ import annotations

from collections.abc import Callable

from batchscore.reports.answers import Metrics
from batchscore.reports.formats import chance_text, rows, value_text


def compared(metrics: Metrics, changed: Callable[[Metrics], str]) -> str:
    """The row-by-row comparison in words, with what ``changed`` says of it; empty without one."""
    both = metrics.get("comparison")
    if not both:
        return ""
    way = {"id": "by their id"}.get(both.get("matched_by"), "by file and row")
    if not both["rows"] and both["not_compared"]:
        return (
            f"{rows(both['not_compared'])} were in the earlier run too (matched {way}), but none has a prediction in both, so the two "
            "are compared as two samples."
        )
    if not both["rows"]:
        hint = " If ids should be the same, look at how both runs write them." if "id" in way else ""
        return f"No row of this run was in the earlier one (matched {way}), so the two are compared as two samples.{hint}"
    matched = f"rows matched {way}"
    if not both["changed"]:
        text = f"None of {both['rows']:,} predictions differs from the earlier run's, {matched}."
    else:
        text = (
            f"{both['changed']:,} of {both['rows']:,} predictions differ from the earlier run's, {matched}."
        )
        text += changed(both)
    if both["not_compared"]:
        text += f" {rows(both['not_compared'])} had no prediction in one of the runs or in both."
    if both.get("unmatched"):
        text += f" {rows(both['unmatched'])} of this run had no counterpart"
        text += (
            f" ({both['ambiguous']:,} for an id that was there more than once)."
            if both.get("ambiguous")
            else "."
        )
    return text


def flips(both: Metrics) -> str:
    """Changed predictions on labelled rows: how many got right or wrong."""
    if not both["evaluated"]:
        return ""
    text = f" Where a label is known, {both['fixed']:,} are fixed and {both['broken']:,} broken"
    if both["fixed"] != both["broken"]:
        chance = "more than chance explains" if both["p_value"] < 0.05 else "which chance can explain"
        text += f" ({chance}: McNemar's {chance_text(both['p_value'])})"
    return (
        f"{text}; {both['both_wrong_changed']:,} are wrong in another way."
        if both["both_wrong_changed"]
        else f"{text}."
    )


def moves(both: Metrics) -> str:
    """How far values moved, and whether they came closer to the given numbers."""
    text = (
        f" They moved by {value_text(both['mean_absolute_change'])} on average, {value_text(abs(both['mean_change']))} "
        f"{'up' if both['mean_change'] >= 0 else 'down'} taken together."
    )
    if not both["evaluated"]:
        return text
    text += (
        f" Where a number is given, {both['closer']:,} are closer to it and {both['further']:,} further off"
    )
    if both["p_value"] is None:
        return f"{text}."
    chance = "more than chance explains" if both["p_value"] < 0.05 else "which chance can explain"
    growth = both["mae_change"]["value"]
    moved = f"{value_text(abs(growth))} {'larger' if growth > 0 else 'smaller'}" if growth else "the same"
    return f"{text}; the mean error is {moved} ({chance}: paired t test, {chance_text(both['p_value'])})."
