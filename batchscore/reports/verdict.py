"""The verdict on a run in words: one headline, and an answer to each question of the morning.

Did it run, is the model as good as before, what did it get wrong, and is it the model or the labels. Nothing is called good
without a reason: a quality gate that passed, or an earlier run that this one is at most two points behind. Without a limit
the numbers are stated neutrally, with how to set one.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
from collections.abc import Iterator, Mapping
from typing import Any

from batchscore.evaluation.drift import CLEAR, NOTHING_TO_COMPARE, VERDICTS
from batchscore.evaluation.gates import is_of_quality
from batchscore.evaluation.significance import Estimate, proportion_difference
from batchscore.evaluation.wrong_labels import LABELS, MODEL
from batchscore.reports.claims import model_or_labels
from batchscore.reports.formats import interval, percent, points, rows, shown
from batchscore.reports.gates import gate_sentence

Metrics = Mapping[str, Any]
_LEAST_MATCHED = 0.5
"""Least share of the labelled rows in both runs for which these rows represent all."""
_SIGNIFICANT = 0.05
"""A change is significant below this p-value."""
_MARGIN = 0.02
"""Accuracy is as good as before if the 95 % interval of its change excludes a loss larger than this."""
_WIDE_INTERVAL = 0.1
"""With an interval of accuracy wider than this, rows are too few to call anything good."""
_RELABELLED = 0.01
"""From this share of changed labels on, accuracy on the same rows is not comparable with the earlier run's."""
_NAMED_VALUES = 5
_DRIFTS = {VERDICTS[1]: "a small shift", VERDICTS[2]: "a clear shift"}
DISTRIBUTIONS = {
    "predicted_labels": "predicted labels",
    "probability": "probability",
    "n_tokens": "text length",
    "truncated": "truncation",
}
"""Names of drift measures, in words."""
SLICES = {"n_tokens": "tokens", "truncated": "truncated", "file": "file"}
"""Names on the page of the slice columns that every run has."""
_LEFT_OUT = {
    "null_text": "without a text",
    "empty_text": "with an empty text",
    "rejects": "not readable",
    "failed": "not scored for a fault",
}


class Level(enum.Enum):
    """How an answer is highlighted; the value is the CSS class."""

    GOOD = "good"
    PLAIN = "plain"
    """Neither good nor bad: information."""
    LOOK = "look"
    BAD = "bad"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One question of the morning with its answer."""

    question: str
    answer: str
    level: Level = Level.PLAIN


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """The headline of a page, and the answers below it."""

    level: Level
    headline: str
    answers: tuple[Answer, ...]


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
    loud = [_did_it_run(metrics), *_are_labels_known(metrics), quality]
    answers = [*loud, _what_is_wrong(metrics)]  # a weak slice occurs every night, and is not an alarm
    if metrics["quality"]:
        answers.append(_model_or_labels(metrics))
    levels = {answer.level for answer in loud}
    if _gate_line(metrics):
        levels.add(Level.BAD)
    level = next((each for each in (Level.BAD, Level.LOOK) if each in levels), quality.level)
    return Verdict(level, _headline(metrics, change), tuple(answers))


def change_of(metrics: Metrics, baseline: Metrics | None) -> Change | None:
    """Change of accuracy: on the same rows if compared, else between two samples, else of expected accuracy."""
    compared = metrics.get("comparison") or {}
    is_enough = compared.get("evaluated", 0) >= _LEAST_MATCHED * metrics["counts"]["evaluated"]
    if is_enough and compared.get("accuracy_before") and compared.get("accuracy_after"):
        before, after = compared["accuracy_before"]["value"], compared["accuracy_after"]["value"]
        interval = Estimate(**compared["accuracy_change"])
        return Change(
            "accuracy on the same rows", before, after, compared["p_value"] < _SIGNIFICANT, interval
        )
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


def _gate_line(metrics: Metrics) -> str:
    gates = metrics.get("gates") or []
    failed = [gate_sentence(gate) for gate in gates if not gate["passed"]]
    if not failed:
        return ""
    head = (
        "A quality gate failed" if len(failed) == 1 else f"{len(failed)} of {len(gates)} quality gates failed"
    )
    return f"{head}: {'; '.join(failed)}."


def _headline(metrics: Metrics, change: Change | None) -> str:
    counts = metrics["counts"]
    if line := _gate_line(metrics):
        return f"{line}{_left_out(counts)}"
    if counts.get("failed"):
        return f"{rows(counts['failed'])} of {counts['read']:,} could not be scored.{_left_out(counts)}"
    if not counts["scored"]:
        return f"It ran, but there was no row to score.{_left_out(counts)}"
    return f"{_quality_line(metrics, change)}{_left_out(counts)}"


def _left_out(counts: Metrics) -> str:
    """Rows that the headline's numbers leave out: unreadable ones, and those with unknown labels."""
    lines = []
    if rejects := counts.get("rejects"):
        lines.append(f" {rows(rejects)} could not be read.")
    if unknown := counts.get("unknown_label"):
        has = "has" if unknown == 1 else "have"
        lines.append(f" {rows(unknown)} {has} a label that the model does not know.")
    return "".join(lines)


def _quality_line(metrics: Metrics, change: Change | None) -> str:
    quality, expected = metrics["quality"], metrics["expected_accuracy"]
    passed = _passed_line(metrics)
    if change is not None:
        but = "with" if change.level is Level.LOOK else "but with"
        shifted = f", {but} {_drift_in_words(metrics)}" if _is_shifted(metrics) else ""
        others = (
            f", but {rows(_relabelled_rows(metrics))} have another label than then"
            if _is_relabelled(metrics)
            else ""
        )
        told = f"{change}: {percent(change.after)}, before {percent(change.before)}{shifted}{others}."
        if change.what.startswith("expected"):
            return f"It ran. No labels came along; {change.what}, an estimate, is {told}"
        return f"It ran, and {change.what} is {told}"
    if quality:
        told = f"accuracy {percent(quality['accuracy']['value'])} ({interval(quality['accuracy'])})"
        if _majority_warning(metrics):
            return f"It ran, but {told} is worse than always saying {shown(_most_common(metrics)[0], 40)}."
        return f"It ran: {told}. {passed or 'No gate says whether that is good enough.'}"
    told = f"expected accuracy {percent(expected['value'])} ({interval(expected)}), an estimate"
    return f"It ran. No labels came along; {told}.{f' {passed}' if passed else ''}"


def _quality_gates(metrics: Metrics) -> list[Mapping[str, Any]]:
    """The gates on the quality of predictions."""
    return [gate for gate in metrics.get("gates") or [] if is_of_quality(gate["metric"])]


def _passed_line(metrics: Metrics) -> str:
    gates = _quality_gates(metrics)
    if not gates or not all(gate["passed"] for gate in gates):
        return ""
    if len(gates) == 1:
        return f"Its gate passed: {gate_sentence(gates[0])}."
    return f"All {len(gates)} gates on quality passed."


def _did_it_run(metrics: Metrics) -> Answer:
    question, counts = "Did it run?", metrics["counts"]
    left_out = [f"{counts[name]:,} {words}" for name, words in _LEFT_OUT.items() if counts.get(name)]
    if counts.get("failed"):
        level = Level.BAD
    else:
        level = Level.LOOK if counts.get("rejects") or not counts["scored"] else Level.GOOD
    if not counts["read"]:
        return Answer(question, "Yes, but the input holds no row.", level)
    if not left_out:
        return Answer(question, f"Yes: all {rows(counts['read'])} were scored.", level)
    text = f"Yes: {counts['scored']:,} of {rows(counts['read'])} were scored; {', '.join(left_out)}."
    return Answer(question, text, level)


def _are_labels_known(metrics: Metrics) -> Iterator[Answer]:
    """Rows whose label the model does not know: which values, and what to do; nothing if all are known."""
    counts = metrics["counts"]
    if reason := metrics.get("unused_labels"):
        yield Answer("Does the model know the labels?", f"No: {reason}.", Level.LOOK)
    unknown = counts.get("unknown_label")
    if not unknown:
        return
    values: collections.Counter[str] = collections.Counter()
    for of_file in (metrics.get("unknown_labels") or {}).values():
        values.update(of_file)
    named = [f"{shown(value, 40)} ({count:,})" for value, count in values.most_common(_NAMED_VALUES)]
    more = f" and {len(values) - len(named):,} more values" if len(values) > len(named) else ""
    text = f"No: {unknown:,} of {rows(counts['read'])} have a value that is none of its labels"
    text += f": {', '.join(named)}{more}." if named else "."
    told = " Whatever is said of right and wrong leaves these rows out." if metrics["quality"] else ""
    yield Answer(
        "Does the model know the labels?",
        f"{text}{told} Say what they mean with --label-map GIVEN=LABEL, or name another --label-column.",
        Level.LOOK,
    )


def _is_it_as_good(metrics: Metrics, change: Change | None, baseline: Metrics | None) -> Answer:
    shift = _drift_in_words(metrics)
    seen = f" There is {shift}." if shift else ""
    gates = f" {line}" if (line := _passed_line(metrics)) else ""
    if change is None:
        text, level = _how_good(metrics), _gated_level(metrics)
        advice = "" if gates or not metrics["counts"]["scored"] else f" {_advice(metrics)}"
        return Answer("How good is it?", f"{text}{gates}{_majority_warning(metrics)}{advice}", level)
    text = f"{change.what.capitalize()} {percent(change.after)}, before {percent(change.before)}: {_change_in_words(change)}.{seen}"
    is_loud = _is_shifted(metrics) or _is_relabelled(metrics) or _majority_warning(metrics)
    level = Level.LOOK if is_loud else change.level
    if level is Level.PLAIN:
        level = _gated_level(metrics)
    answer = f"{text}{_relabelled(metrics, baseline)}{gates}{_majority_warning(metrics)}"
    return Answer("Is it as good as before?", answer, level)


def _relabelled_rows(metrics: Metrics) -> int:
    """Rows whose given label differs from the earlier run's, where known."""
    return int((metrics.get("comparison") or {}).get("relabelled") or 0)


def _is_relabelled(metrics: Metrics) -> bool:
    """Whether so many labels changed that accuracy with tonight's labels alone would mislead."""
    evaluated = int((metrics.get("comparison") or {}).get("evaluated", 0))
    return _relabelled_rows(metrics) >= max(1.0, _RELABELLED * evaluated)


def _relabelled(metrics: Metrics, baseline: Metrics | None) -> str:
    if not _relabelled_rows(metrics):
        return ""
    own = ((baseline or {}).get("quality") or {}).get("accuracy")
    was = f", which had an accuracy of {percent(own['value'])} under its own" if own else ""
    return f" Both are under tonight's labels: {rows(_relabelled_rows(metrics))} had another in the earlier run{was}."


def _advice(metrics: Metrics) -> str:
    """How to set a gate."""
    metric = "accuracy" if metrics["quality"] else "expected_accuracy"
    return (
        f"Nobody has said what is good enough: --fail-below {metric}=X sets a gate, and --baseline RUN_DIR compares with an "
        "earlier run."
    )


def _change_in_words(change: Change) -> str:
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
    if not _passed_line(metrics):
        return Level.PLAIN
    if metrics["quality"]:
        accuracy = metrics["quality"]["accuracy"]
        return Level.GOOD if accuracy["high"] - accuracy["low"] <= _WIDE_INTERVAL else Level.PLAIN
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


def _drift_in_words(metrics: Metrics) -> str:
    """The worst drift verdict and where: ``a clear shift in probability``; empty if nothing was compared."""
    report = metrics.get("drift") or {}
    verdict = report.get("verdict")
    if verdict in (None, NOTHING_TO_COMPARE):
        return ""
    if verdict == VERDICTS[0]:
        hides_any = any((each["noise"] or 0) > CLEAR for each in report["distributions"])
        return "no drift, as far as so few rows can show it" if hides_any else "no drift"
    names = [DISTRIBUTIONS[d["distribution"]] for d in report["distributions"] if d["verdict"] == verdict]
    return f"{_DRIFTS[verdict]} in {', '.join(names)}"


def _is_shifted(metrics: Metrics) -> bool:
    return (metrics.get("drift") or {}).get("verdict") == VERDICTS[-1]


def _how_good(metrics: Metrics) -> str:
    quality, expected, counts = metrics["quality"], metrics["expected_accuracy"], metrics["counts"]
    if quality:
        accuracy = quality["accuracy"]
        few = (
            ", too few to be sure of anything" if accuracy["high"] - accuracy["low"] > _WIDE_INTERVAL else ""
        )
        of_all = f" of {counts['scored']:,}" if counts["evaluated"] < counts["scored"] else ""
        evaluated = f"{counts['evaluated']:,}{of_all} rows" if of_all else rows(counts["evaluated"])
        return f"Accuracy {percent(accuracy['value'])} ({interval(accuracy)}) on {evaluated} with a known label{few}."
    if expected:
        measured = expected.get("calibration_error") is not None
        trust = "" if measured else " How honest that confidence is was never measured: it may be far off."
        return (
            f"Expected accuracy {percent(expected['value'])} ({interval(expected)}): an estimate from the model's own "
            f"confidence, since no labels came along.{trust}"
        )
    return "Nothing was scored."


def _what_is_wrong(metrics: Metrics) -> Answer:
    if not metrics["quality"]:
        return _what_is_unsure(metrics)
    confusions = confusions_of(metrics)
    wrong = metrics["counts"]["evaluated"] - metrics["counts"]["correct"]
    if not confusions:
        return Answer("What did it get wrong?", "Nothing: every prediction is the given label.")
    given, predicted, count = confusions[0]
    text = f"{rows(wrong)}, most often {shown(given, 40)} taken for {shown(predicted, 40)} ({count:,})."
    worse = [s for s in metrics["slices"] if s["worse"]]
    if worse:
        worst = min(worse, key=lambda s: s["accuracy"]["value"])
        where = f"{SLICES.get(worst['column'], shown(worst['column']))} {shown(worst['value'])}"
        text += f" Clearly worse than the rest: {where} ({percent(worst['accuracy']['value'])})"
        text += f" and {len(worse) - 1} more." if len(worse) > 1 else "."
    return Answer("What did it get wrong?", text, Level.LOOK if worse else Level.PLAIN)


def _what_is_unsure(metrics: Metrics) -> Answer:
    scored = metrics["counts"]["scored"]
    sure = {row["threshold"]: row["rows"] for row in metrics["coverage"]}
    unsure = scored - sure.get(0.8, scored)
    share = f" ({percent(unsure / scored)})" if scored else ""
    return Answer("Where is it unsure?", f"{rows(unsure)}{share} have a probability under 0.8.")


def confusions_of(metrics: Metrics) -> list[tuple[str, str, int]]:
    """Pairs of given and predicted label that differ, most frequent first."""
    matrix = metrics["quality"]["confusion_matrix"]
    labels = matrix["labels"]
    pairs = [
        (given, predicted, count)
        for given, line in zip(labels, matrix["counts"], strict=True)
        for predicted, count in zip(labels, line, strict=True)
        if given != predicted and count
    ]
    return sorted(pairs, key=lambda pair: -pair[2])


def _most_common(metrics: Metrics) -> tuple[str, float]:
    """The most common given label, and its share of the evaluated rows."""
    support = {label: row["support"] for label, row in metrics["quality"]["per_label"].items()}
    label = max(support, key=lambda name: support[name])
    return label, support[label] / max(sum(support.values()), 1)


def _model_or_labels(metrics: Metrics) -> Answer:
    claim = (metrics.get("label_issues") or {}).get("claim")
    level = Level.LOOK if claim and claim["verdict"] in {LABELS, MODEL} else Level.PLAIN
    return Answer("Is it the model or the labels?", model_or_labels(metrics), level)
