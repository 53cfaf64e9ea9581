"""The verdict on a run of a model with several labels a text, in words.

The figure is micro F1: of all label decisions together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from batchscore.evaluation.significance import Estimate
from batchscore.reports.answers import (
    TO_REVIEWS,
    WIDE_INTERVAL,
    Answer,
    Level,
    Link,
    Metrics,
    Verdict,
    drift_in_words,
    is_shifted,
    lacks_gate,
    passed_line,
    relabelled_rows,
    verdict_of,
    worst_slice,
)
from batchscore.reports.formats import interval, percent, rows, shown
from batchscore.reports.row_groups import LabelGroup
from batchscore.reports.verdict import Change, change_in_words, is_matched


def judge(metrics: Metrics, baseline: Metrics | None = None) -> Verdict:
    """The verdict from ``metrics.json`` and, if compared, that of the earlier run."""
    change = change_of(metrics, baseline)
    quality = _is_it_as_good(metrics, change)
    others = [_what_is_wrong(metrics) if metrics["quality"] else _what_is_unsure(metrics)]
    if metrics["quality"]:
        told = _model_or_labels(metrics)
        others.append(Answer("Is it the model or the labels?", told, links=(TO_REVIEWS,)))
    return verdict_of(metrics, quality, others, lambda: _quality_line(metrics, change))


def change_of(metrics: Metrics, baseline: Metrics | None) -> Change | None:
    """Change of micro F1: on the same rows if compared, else between two samples, else of the expected share of right decisions."""
    compared = metrics.get("comparison") or {}
    if is_matched(metrics) and compared.get("micro_f1_change"):
        difference = Estimate(**compared["micro_f1_change"])
        is_clear = not difference.low <= 0 <= difference.high
        before, after = compared["micro_f1_before"], compared["micro_f1_after"]
        return Change("micro F1 on the same rows", before, after, is_clear, difference)
    if baseline is None:
        return None
    old, new = ((run.get("quality") or {}).get("micro_f1") for run in (baseline, metrics))
    if old and new:
        difference = _difference(old, new)
        is_clear = not difference.low <= 0 <= difference.high
        return Change("micro F1", old["value"], new["value"], is_clear, difference)
    old, new = (run.get("expected_hamming_loss") for run in (baseline, metrics))
    if old and new:
        is_apart = max(old["low"], new["low"]) > min(old["high"], new["high"])
        what = "the expected share of right label decisions"
        return Change(what, 1 - old["value"], 1 - new["value"], is_apart)
    return None


def _difference(before: dict[str, float], after: dict[str, float]) -> Estimate:
    """Difference of two independent estimates, from their intervals (Newcombe's hybrid)."""
    change = after["value"] - before["value"]
    low = change - math.hypot(after["value"] - after["low"], before["high"] - before["value"])
    high = change + math.hypot(after["high"] - after["value"], before["value"] - before["low"])
    return Estimate(change, low, high)


def _quality_line(metrics: Metrics, change: Change | None) -> str:
    passed = passed_line(metrics)
    if change is not None:
        but = "with" if change.level is Level.LOOK else "but with"
        shifted = f", {but} {drift_in_words(metrics)}" if is_shifted(metrics) else ""
        told = f"{change}: {percent(change.after)}, before {percent(change.before)}{shifted}."
        if metrics["quality"]:
            return f"It ran, and {change.what} is {told}"
        return f"It ran. No labels came along; {change.what}, an estimate, is {told}"
    if metrics["quality"]:
        told = _figures(metrics)
        if _warning(metrics):
            return f"It ran, but {told}: worse than an answer that never looks at the text."
        return f"It ran: {told}. {passed or 'No gate says whether that is good enough.'}"
    expected = metrics["expected_hamming_loss"]
    told = f"about {percent(expected['value'])} of the label decisions are expected to be wrong ({interval(expected)}), an estimate"
    return f"It ran. No labels came along; {told}.{f' {passed}' if passed else ''}"


def _figures(metrics: Metrics) -> str:
    """Micro F1 and subset accuracy: ``micro F1 67.4% (66.6% to 68.3%), all labels right in 33.4% of the rows``."""
    quality = metrics["quality"]
    subset = f"all labels right in {percent(quality['subset_accuracy']['value'])} of the rows"
    micro = quality["micro_f1"]
    if micro is None:
        return f"no label was given or predicted, {subset}"
    return f"micro F1 {percent(micro['value'])} ({interval(micro)}), {subset}"


def _is_it_as_good(metrics: Metrics, change: Change | None) -> Answer:
    gates = f" {line}" if (line := passed_line(metrics)) else ""
    if change is None:
        advice = f" {_advice(metrics)}" if lacks_gate(metrics) else ""
        text = f"{_how_good(metrics)}{gates}{_warning(metrics)}{advice}"
        return Answer("How good is it?", text, _gated_level(metrics))
    shift = drift_in_words(metrics)
    seen = f" There is {shift}." if shift else ""
    what = change.what[0].upper() + change.what[1:]
    text = f"{what} is {percent(change.after)}, before {percent(change.before)}: {change_in_words(change)}.{seen}"
    if relabelled := relabelled_rows(metrics):
        text += f" Both are under tonight's labels: {rows(relabelled)} had others in the earlier run."
    level = Level.LOOK if is_shifted(metrics) or _warning(metrics) else change.level
    level = _gated_level(metrics) if level is Level.PLAIN else level
    return Answer("Is it as good as before?", f"{text}{gates}{_warning(metrics)}", level)


def _how_good(metrics: Metrics) -> str:
    counts, quality, expected = metrics["counts"], metrics["quality"], metrics["expected_hamming_loss"]
    if quality:
        of_all = f"{counts['evaluated']:,} of " if counts["evaluated"] < counts["scored"] else ""
        told = _figures(metrics)
        few = ", too few to be sure of anything" if _is_wide(metrics) else ""
        return (
            f"{told[0].upper()}{told[1:]}, and {percent(quality['hamming_loss'])} of the single label decisions wrong, on "
            f"{of_all}{rows(counts['scored'])} with known labels{few}."
        )
    if expected:
        is_measured = expected.get("calibration_error") is not None
        trust = "" if is_measured else " How honest that confidence is was never measured: it may be far off."
        return (
            f"About {percent(expected['value'])} of the label decisions are expected to be wrong ({interval(expected)}): an estimate "
            f"from the model's own confidence, since no labels came along.{trust}"
        )
    return "Nothing was scored."


def _is_wide(metrics: Metrics) -> bool:
    subset = metrics["quality"]["subset_accuracy"]
    return bool(subset["high"] - subset["low"] > WIDE_INTERVAL)


def _advice(metrics: Metrics) -> str:
    gate = "--fail-below micro_f1=X" if metrics["quality"] else "--fail-above expected_hamming_loss=X"
    return f"Nobody has said what is good enough: {gate} sets a gate, and --baseline RUN_DIR compares with an earlier run."


def _gated_level(metrics: Metrics) -> Level:
    if _warning(metrics):
        return Level.LOOK
    if not passed_line(metrics):
        return Level.PLAIN
    if metrics["quality"]:
        return Level.PLAIN if _is_wide(metrics) else Level.GOOD
    is_measured = (metrics["expected_hamming_loss"] or {}).get("calibration_error") is not None
    return Level.GOOD if is_measured else Level.PLAIN


def _warning(metrics: Metrics) -> str:
    """A warning if the model is clearly worse than always giving the most common label; else empty."""
    quality = metrics["quality"]
    if not quality or quality["micro_f1"] is None:
        return ""
    evaluated = metrics["counts"]["evaluated"]
    support = {label: row["support"] for label, row in quality["per_label"].items()}
    label = max(support, key=lambda name: support[name])
    always = 2 * support[label] / max(evaluated + sum(support.values()), 1)
    if quality["micro_f1"]["high"] >= always:
        return ""
    return (
        f" That is worse than always giving {shown(label, 40)} alone, which has a micro F1 of {percent(always)}: perhaps the given "
        "labels mean something else to the model (see --label-map), or the thresholds do not suit it (--threshold)."
    )


def _what_is_wrong(metrics: Metrics) -> Answer:
    question, quality, counts = "What did it get wrong?", metrics["quality"], metrics["counts"]
    wrong = counts["evaluated"] - counts["correct"]
    if not wrong:
        return Answer(question, "Nothing: every row has exactly the labels that were given.")
    text = (
        f"{rows(wrong)} of {counts['evaluated']:,} have a label too few or too many. {_worst_labels(quality)}"
    )
    if pairs := quality["taken_for"]:
        pair = pairs[0]
        text += (
            f" Where one is missing and another is there instead, it is most often {shown(pair['extra'], 40)} for "
            f"{shown(pair['missing'], 40)} ({pair['rows']:,})."
        )
    worst = worst_slice(metrics, "accuracy", percent)
    level = Level.LOOK if worst else Level.PLAIN
    return Answer(question, text + worst, level, tuple(_links_to_worst(metrics)))


def _worst_label(quality: Metrics, key: str) -> str:
    """The label that is most often ``missing`` or ``extra``."""
    labels: dict[str, Any] = quality["per_label"]
    return max(labels, key=lambda label: int(labels[label][key]))


def _links_to_worst(metrics: Metrics) -> Iterator[Link]:
    """To the rows of what is told of the worst labels."""
    for key, words in (("missing", "See where one is missing"), ("extra", "See where one is too many")):
        group = LabelGroup(**{key: metrics["labels"].index(_worst_label(metrics["quality"], key))})
        yield Link(group.anchor, words)
    yield Link("labels", "All labels")


def _worst_labels(quality: Metrics) -> str:
    """The labels that are most often missing and most often too many."""
    told = []
    for key, words in (("missing", "missing"), ("extra", "there without being given")):
        name = _worst_label(quality, key)
        if count := quality["per_label"][name][key]:
            told.append(f"most often {words} is {shown(name, 40)} ({count:,})")
    sentence = ", ".join(told)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _what_is_unsure(metrics: Metrics) -> Answer:
    scored = metrics["counts"]["scored"]
    sure = {row["threshold"]: row["rows"] for row in metrics["coverage"]}
    unsure = scored - sure.get(0.8, scored)
    share = f" ({percent(unsure / scored)})" if scored else ""
    text = f"{rows(unsure)}{share} have at least one label of which it is less than 80 % sure, either way."
    return Answer("Where is it unsure?", text)


def _model_or_labels(metrics: Metrics) -> str:
    issues = metrics.get("label_issues")
    if not issues:
        return "It was not looked at."
    if not issues["flagged"]:
        return "In no row is the model confident of other labels than the given ones."
    return (
        f"It cannot be told for several labels at once. In {rows(issues['flagged'])} the model is confident of other labels than the "
        "given ones: they are the first of the page's list."
    )
