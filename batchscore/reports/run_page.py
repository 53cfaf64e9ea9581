"""One run as one self-contained page: no script, no request, everything escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchscore.reports import run_charts, run_tables, verdict
from batchscore.reports.formats import moment, percent, rows, shown
from batchscore.reports.pages import render


def render_run(
    facts: Mapping[str, Any],
    metrics: Mapping[str, Any],
    worst: Sequence[Mapping[str, Any]],
    baseline: Mapping[str, Any] | None = None,
    *,
    with_text: bool = True,
) -> str:
    """The page of one run, from ``facts`` of ``run.json`` and ``metrics`` of ``metrics.json``.

    ``worst``: the mismatches to show, from :meth:`MismatchTable.head`. ``baseline``: the metrics of the run
    that this one is compared with. ``with_text=False`` leaves out the texts of reviews.
    """
    judged = verdict.judge(metrics, baseline)
    has_labels = metrics["quality"] is not None
    return render(
        "run_page.html",
        title=_title(facts),
        verdict=judged,
        subtitle=_subtitle(facts),
        counts=run_tables.counts(metrics, baseline),
        gates=run_tables.gates(metrics),
        quality=run_tables.quality(metrics, baseline),
        estimate=_estimate(metrics, baseline),
        has_labels=has_labels,
        predicted=run_tables.predicted(metrics, baseline) if metrics["counts"]["scored"] else None,
        labels=run_tables.labels(metrics, baseline) if has_labels else None,
        confusion=run_tables.confusion(metrics) if has_labels else None,
        figures=list(run_charts.confidence(metrics)),
        coverage_figure=run_charts.coverage(metrics),
        coverage=run_tables.coverage(metrics),
        slices=list(run_tables.slices(metrics)),
        flips=run_tables.flips(metrics),
        compared=_compared(metrics),
        drift=run_tables.drift(metrics),
        worst=run_tables.mismatch_lines(worst, with_text),
        worst_note=run_tables.mismatch_note(metrics, len(worst)),
        with_text=with_text,
        files=run_tables.files(facts, metrics),
        failures=run_tables.failures(metrics),
        facts=run_tables.run_facts(facts),
    )


def _title(facts: Mapping[str, Any]) -> str:
    files = facts.get("files") or []
    first = shown(files[0]["name"], 60) if files else "no file"
    return f"{first} and {len(files) - 1} more" if len(files) > 1 else first


def _subtitle(facts: Mapping[str, Any]) -> str:
    compute, model = facts.get("compute") or {}, facts.get("model") or {}
    where = ", ".join(shown(compute[key]) for key in ("device", "precision") if compute.get(key))
    return " · ".join(
        text for text in (moment(facts.get("finished", "")), shown(model.get("path", "")), where) if text
    )


def _estimate(metrics: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> str:
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


def _compared(metrics: Mapping[str, Any]) -> str:
    """The row-by-row comparison in words."""
    both = metrics.get("comparison")
    if not both:
        return ""
    way = {"id": "by their id"}.get(both.get("matched_by"), "by file and row")
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
        text += _flips(both) if both["evaluated"] else ""
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


def _flips(both: Mapping[str, Any]) -> str:
    """Changed predictions on labelled rows: how many got right or wrong."""
    text = f" Where a label is known, {both['fixed']:,} are fixed and {both['broken']:,} broken"
    if both["fixed"] != both["broken"]:
        chance = "more than chance explains" if both["p_value"] < 0.05 else "which chance can explain"
        text += f" ({chance}: McNemar's p = {both['p_value']:.2g})"
    return (
        f"{text}; {both['both_wrong_changed']:,} are wrong in another way."
        if both["both_wrong_changed"]
        else f"{text}."
    )
