"""The verdict on a run of a model with one label a text, in words: one headline, and an answer to each question of the morning.

Did it run, is the model as good as before, what did it get wrong, and is it the model or the labels. Nothing is called good
without a reason: a quality gate that passed, or an earlier run that this one is at most two points behind. Without a limit
the numbers are stated neutrally, with how to set one.
"""

from __future__ import annotations

import dataclasses

from batchscore.evaluation.metrics import answered_share
from batchscore.evaluation.significance import Estimate, proportion_difference
from batchscore.evaluation.wrong_labels import LABELS, MODEL
from batchscore.reports import acceptances
from batchscore.reports.answers import (
    TO_REVIEWS,
    WIDE_INTERVAL,
    Answer,
    Level,
    Link,
    Metrics,
    Verdict,
    drift_in_words,
    is_relabelled,
    is_shifted,
    lacks_gate,
    passed_line,
    relabelled_rows,
    verdict_of,
    worst_slice,
)
from batchscore.reports.claims import model_or_labels
from batchscore.reports.formats import interval, percent, points, rows, shown
from batchscore.reports.row_groups import LabelGroup, confusions_of

_LEAST_MATCHED = 0.5
"""Least share of the labelled rows in both runs for which these rows represent all."""
SIGNIFICANT = 0.05
"""A change is significant below this p-value."""
_MARGIN = 0.02
"""Accuracy is as good as before if the 95 % interval of its change excludes a loss larger than this."""


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """Accuracy, actual or expected, in two runs."""

    what: str
    before: float
    after: float
    is_clear: bool
    interval: Estimate | None = None
    """Interval of the difference, positive if this run is better; None for expected accuracy, whose errors may correlate."""

    @property
    def difference(self) -> float:
        """Positive if this run is better."""
        return self.after - self.before

    @property
    def is_as_good(self) -> bool:
        """Whether a relevant loss can be ruled out; seeing none on three rows does not suffice."""
        return self.interval is not None and self.interval.low > -_MARGIN

    @property
    def level(self) -> Level:
        """A clear loss deserves a look; good needs evidence."""
        if self.is_clear and self.difference < 0:
            return Level.LOOK
        is_shown = self.is_as_good or (self.is_clear and self.interval is not None)
        return Level.GOOD if is_shown else Level.PLAIN

    def __str__(self) -> str:
        if self.is_clear:
            return f"{'better' if self.difference > 0 else 'worse'} than in the earlier run"
        if self.interval is None:
            return "not clearly another than in the earlier run"
        return (
            "as good as in the earlier run"
            if self.is_as_good
            else "neither clearly better nor worse than in the earlier run"
        )


def judge(metrics: Metrics, baseline: Metrics | None = None) -> Verdict:
    """The verdict from ``metrics.json`` and, if compared, that of the earlier run."""
    change = change_of(metrics, baseline)
    quality = _is_it_as_good(metrics, change, baseline)
    others = [_what_is_wrong(metrics)]  # a weak slice occurs every night, and is not an alarm
    if metrics["quality"]:
        others.append(_model_or_labels(metrics))
    if metrics.get("acceptance"):
        others.append(acceptances.answer(metrics))
    return verdict_of(metrics, quality, others, lambda: _quality_line(metrics, change))


def is_matched(metrics: Metrics) -> bool:
    """Whether enough of the labelled rows were in the earlier run to stand for all."""
    compared = metrics.get("comparison") or {}
    return bool(compared.get("evaluated", 0) >= _LEAST_MATCHED * metrics["counts"]["evaluated"])


def change_of(metrics: Metrics, baseline: Metrics | None) -> Change | None:
    """Change of accuracy: on the same rows if compared, else between two samples, else of expected accuracy."""
    compared = metrics.get("comparison") or {}
    if is_matched(metrics) and compared.get("accuracy_before") and compared.get("accuracy_after"):
        before, after = compared["accuracy_before"]["value"], compared["accuracy_after"]["value"]
        interval = Estimate(**compared["accuracy_change"])
        return Change("accuracy on the same rows", before, after, compared["p_value"] < SIGNIFICANT, interval)
    if baseline is None:
        return None
    before, after = ((run.get("quality") or {}).get("accuracy") for run in (baseline, metrics))
    if before and after:
        difference = _difference(baseline["counts"], metrics["counts"])
        is_clear = difference is not None and not difference.low <= 0 <= difference.high
        return Change("accuracy", before["value"], after["value"], is_clear, difference)
    before, after = (run.get("expected_accuracy") for run in (baseline, metrics))
    if before and after:
        is_apart = max(before["low"], after["low"]) > min(before["high"], after["high"])
        return Change("expected accuracy", before["value"], after["value"], is_apart)
    return None


def _difference(before: Metrics, after: Metrics) -> Estimate | None:
    """Difference of accuracy between two samples, from their counts."""
    (n, right), (m, right_now) = ((counts["evaluated"], counts["correct"]) for counts in (before, after))
    return proportion_difference(right, n, right_now, m)


def _quality_line(metrics: Metrics, change: Change | None) -> str:
    quality, expected = metrics["quality"], metrics["expected_accuracy"]
    passed = passed_line(metrics)
    if change is not None:
        but = "with" if change.level is Level.LOOK else "but with"
        shifted = f", {but} {drift_in_words(metrics)}" if is_shifted(metrics) else ""
        others = (
            f", but {rows(relabelled_rows(metrics))} have another label than then"
            if is_relabelled(metrics)
            else ""
        )
        told = f"{change}: {percent(change.after)}{_of_answered(metrics)}, before {percent(change.before)}{shifted}{others}."
        if change.what.startswith("expected"):
            return f"It ran. No labels came along; {change.what}, an estimate, is {told}"
        return f"It ran, and {change.what} is {told}"
    if quality:
        told = f"accuracy {percent(quality['accuracy']['value'])} ({interval(quality['accuracy'])}){_of_answered(metrics)}"
        if _majority_warning(metrics):
            return f"It ran, but {told} is worse than always saying {shown(_most_common(metrics)[0], 40)}."
        return f"It ran: {told}. {passed or 'No gate says whether that is good enough.'}"
    told = f"expected accuracy {percent(expected['value'])} ({interval(expected)}), an estimate"
    return f"It ran. No labels came along; {told}.{f' {passed}' if passed else ''}"


def _is_it_as_good(metrics: Metrics, change: Change | None, baseline: Metrics | None) -> Answer:
    shift = drift_in_words(metrics)
    seen = f" There is {shift}." if shift else ""
    gates = f" {line}" if (line := passed_line(metrics)) else ""
    if change is None:
        text, level = _how_good(metrics), _gated_level(metrics)
        advice = f" {_advice(metrics)}" if lacks_gate(metrics) else ""
        return Answer("How good is it?", f"{text}{gates}{_majority_warning(metrics)}{advice}", level)
    text = f"{change.what.capitalize()} {percent(change.after)}, before {percent(change.before)}: {change_in_words(change)}.{seen}"
    is_loud = is_shifted(metrics) or is_relabelled(metrics) or _majority_warning(metrics)
    level = Level.LOOK if is_loud else change.level
    if level is Level.PLAIN:
        level = _gated_level(metrics)
    answer = f"{text}{_relabelled(metrics, baseline)}{gates}{_majority_warning(metrics)}"
    return Answer("Is it as good as before?", answer, level)


def _relabelled(metrics: Metrics, baseline: Metrics | None) -> str:
    if not relabelled_rows(metrics):
        return ""
    own = ((baseline or {}).get("quality") or {}).get("accuracy")
    was = f", which had an accuracy of {percent(own['value'])} under its own" if own else ""
    return f" Both are under tonight's labels: {rows(relabelled_rows(metrics))} had another in the earlier run{was}."


def _advice(metrics: Metrics) -> str:
    """How to set a gate."""
    metric = "accuracy" if metrics["quality"] else "expected_accuracy"
    return (
        f"Nobody has said what is good enough: --fail-below {metric}=X sets a gate, and --baseline RUN_DIR compares with an "
        "earlier run."
    )


def change_in_words(change: Change) -> str:
    """How far accuracy moved, and whether that is significant."""
    estimate = " (estimates, without labels)" if change.interval is None else ""
    if not change.difference:
        moved = "unchanged"
    else:
        moved = f"{points(change.difference)} {'up' if change.difference > 0 else 'down'}"
        moved += ", more than chance explains" if change.is_clear else ", which chance can explain"
    if change.interval is None or change.is_clear or change.is_as_good:
        return f"{moved}{estimate}"
    return f"{moved}, and so it can a loss of up to {points(change.interval.low)}"


def _gated_level(metrics: Metrics) -> Level:
    """Good if a quality gate passed on enough rows, "look" if worse than the most common label; else plain."""
    if _majority_warning(metrics):
        return Level.LOOK
    if not passed_line(metrics):
        return Level.PLAIN
    if metrics["quality"]:
        accuracy = metrics["quality"]["accuracy"]
        return Level.GOOD if accuracy["high"] - accuracy["low"] <= WIDE_INTERVAL else Level.PLAIN
    expected = metrics["expected_accuracy"] or {}
    return Level.GOOD if expected.get("calibration_error") is not None else Level.PLAIN


def _majority_warning(metrics: Metrics) -> str:
    """A warning if the model is clearly worse than always answering the most common label; else empty."""
    if not metrics["quality"]:
        return ""
    label, share = _most_common(metrics)
    if metrics["quality"]["accuracy"]["high"] >= share or share == 1:
        return ""
    return (
        f" That is worse than always saying {shown(label, 40)}, which is right for {percent(share)}: perhaps the given labels "
        "mean something else to the model (see --label-map)."
    )


def _how_good(metrics: Metrics) -> str:
    quality, expected, counts = metrics["quality"], metrics["expected_accuracy"], metrics["counts"]
    if quality:
        accuracy = quality["accuracy"]
        few = ", too few to be sure of anything" if accuracy["high"] - accuracy["low"] > WIDE_INTERVAL else ""
        of_all = f" of {counts['scored']:,}" if counts["evaluated"] < counts["scored"] else ""
        evaluated = f"{counts['evaluated']:,}{of_all} rows" if of_all else rows(counts["evaluated"])
        return f"Accuracy {percent(accuracy['value'])} ({interval(accuracy)}) on {evaluated} with a known label{few}.{_of_those(metrics)}"
    if expected:
        measured = expected.get("calibration_error") is not None
        trust = "" if measured else " How honest that confidence is was never measured: it may be far off."
        return (
            f"Expected accuracy {percent(expected['value'])} ({interval(expected)}): an estimate from the model's own "
            f"confidence, since no labels came along.{trust}"
        )
    return "Nothing was scored."


def _of_answered(metrics: Metrics) -> str:
    """Of how many rows a figure is, where some abstained."""
    share = answered_share(metrics)
    return "" if share is None else f" on the {percent(share)} that were answered"


def _of_those(metrics: Metrics) -> str:
    share = answered_share(metrics)
    return (
        ""
        if share is None
        else f" These are {percent(share)} of those that have one; the others were left undecided."
    )


def _what_is_wrong(metrics: Metrics) -> Answer:
    if not metrics["quality"]:
        return _what_is_unsure(metrics)
    confusions = confusions_of(metrics)
    wrong = metrics["counts"]["evaluated"] - metrics["counts"]["correct"]
    if not confusions:
        return Answer("What did it get wrong?", "Nothing: every prediction is the given label.")
    given, predicted, count = confusions[0]
    labels = metrics["quality"]["confusion_matrix"]["labels"]
    text = f"{rows(wrong)}, most often {shown(labels[given], 40)} taken for {shown(labels[predicted], 40)} ({count:,})."
    worst = worst_slice(metrics, "accuracy", percent)
    links = Link(LabelGroup(given, predicted).anchor, "See those rows"), Link("confusion", "All confusions")
    return Answer("What did it get wrong?", text + worst, Level.LOOK if worst else Level.PLAIN, links)


def _what_is_unsure(metrics: Metrics) -> Answer:
    scored = metrics["counts"]["scored"]
    sure = {row["threshold"]: row["rows"] for row in metrics["coverage"]}
    unsure = scored - sure.get(0.8, scored)
    share = f" ({percent(unsure / scored)})" if scored else ""
    return Answer("Where is it unsure?", f"{rows(unsure)}{share} have a probability under 0.8.")


def _most_common(metrics: Metrics) -> tuple[str, float]:
    """The most common given label, and its share of the evaluated rows."""
    support = {label: row["support"] for label, row in metrics["quality"]["per_label"].items()}
    label = max(support, key=lambda name: support[name])
    return label, support[label] / max(sum(support.values()), 1)


def _model_or_labels(metrics: Metrics) -> Answer:
    claim = (metrics.get("label_issues") or {}).get("claim")
    level = Level.LOOK if claim and claim["verdict"] in {LABELS, MODEL} else Level.PLAIN
    return Answer("Is it the model or the labels?", model_or_labels(metrics), level, (TO_REVIEWS,))
