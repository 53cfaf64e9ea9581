"""What a run's numbers come to, in words: one headline, and an answer to each question of the morning.

Did it run, is the model as good as before, what did it get wrong, and is it the model or the labels.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from batchscore.evaluation.drift import NOTHING_TO_COMPARE, VERDICTS
from batchscore.evaluation.gates import METRICS
from batchscore.evaluation.significance import two_proportion_p
from batchscore.reports.formats import interval, number, percent, points, rows, shown

Metrics = Mapping[str, Any]
_LEAST_MATCHED = 0.5
"""Share of the labelled rows that must have been in the earlier run for the same rows to stand for all."""
_CLEAR = 0.05
"""A change is called one below this p-value."""
NOT_SHARES = ("log_loss", "brier", "drift")
_DRIFTS = {VERDICTS[1]: "a small shift", VERDICTS[2]: "a clear shift"}
DISTRIBUTIONS = {
    "predicted_labels": "predicted labels",
    "probability": "probability",
    "n_tokens": "text length",
    "truncated": "truncation",
}
"""What drift is measured on, in words."""
SLICES = {"n_tokens": "tokens", "truncated": "truncated", "file": "file"}
"""What the columns of slices that are always there are called on a page."""
_LEFT_OUT = {
    "null_text": "without a text",
    "empty_text": "with an empty text",
    "rejects": "not readable",
    "failed": "not scored for a fault",
}


class Level(enum.Enum):
    """How loud something is said; the value is the CSS class."""

    GOOD = "good"
    PLAIN = "plain"
    """Neither good nor bad: something to know."""
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
    """The first line of a page, and the answers below it."""

    level: Level
    headline: str
    answers: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """Accuracy, or what is expected of it, in two runs."""

    what: str
    before: float
    after: float
    is_clear: bool

    @property
    def difference(self) -> float:
        """Positive where this run is better."""
        return self.after - self.before

    @property
    def level(self) -> Level:
        """A clear loss deserves a look."""
        return Level.LOOK if self.is_clear and self.difference < 0 else Level.GOOD

    def __str__(self) -> str:
        if not self.is_clear:
            return "as good as in the earlier run"
        return f"{'better' if self.difference > 0 else 'worse'} than in the earlier run"


def judge(metrics: Metrics, baseline: Metrics | None = None) -> Verdict:
    """Read ``metrics.json`` (and that of the run it is compared with) as a person would."""
    change = change_of(metrics, baseline)
    answers = [_did_it_run(metrics), _is_it_as_good(metrics, change), _what_is_wrong(metrics)]
    if metrics["quality"]:
        answers.append(_model_or_labels(metrics))
    loud = {answer.level for answer in answers[:2]}  # a weak slice is there every night, and cries no wolf
    is_bad = bool(_gate_line(metrics)) or Level.BAD in loud
    level = Level.BAD if is_bad else Level.LOOK if Level.LOOK in loud else Level.GOOD
    return Verdict(level, _headline(metrics, change), tuple(answers))


def change_of(metrics: Metrics, baseline: Metrics | None) -> Change | None:
    """How accuracy changed: on the same rows if they were compared, else between two samples, else as expected."""
    compared = metrics.get("comparison") or {}
    is_enough = compared.get("evaluated", 0) >= _LEAST_MATCHED * metrics["counts"]["evaluated"]
    if is_enough and compared.get("accuracy_before") and compared.get("accuracy_after"):
        before, after = compared["accuracy_before"]["value"], compared["accuracy_after"]["value"]
        return Change("accuracy on the same rows", before, after, compared["p_value"] < _CLEAR)
    if baseline is None:
        return None
    before, after = ((run.get("quality") or {}).get("accuracy") for run in (baseline, metrics))
    if before and after:
        is_clear = _is_clear(baseline["counts"], metrics["counts"])
        return Change("accuracy", before["value"], after["value"], is_clear)
    before, after = (run.get("expected_accuracy") for run in (baseline, metrics))
    if before and after:
        is_apart = max(before["low"], after["low"]) > min(before["high"], after["high"])
        return Change("expected accuracy", before["value"], after["value"], is_apart)
    return None


def _is_clear(before: Metrics, after: Metrics) -> bool:
    """Whether two accuracies differ by more than chance, from the counts of different rows (two-sided)."""
    (n, right), (m, right_now) = ((counts["evaluated"], counts["correct"]) for counts in (before, after))
    p = two_proportion_p(n - right, n, m - right_now, m)
    return 2 * min(p, 1 - p) < _CLEAR


def gate_value(metric: str, value: float | None) -> str:
    """The value or limit of a gate as it is usually said."""
    is_share = not metric.startswith(NOT_SHARES)
    text = percent(value, 2) if is_share else number(value)
    return text.replace(".00%", "%")


def gate_sentence(gate: Mapping[str, Any]) -> str:
    """What became of one gate: ``accuracy is 83.10%, 1.9 points under its limit of 85%``."""
    metric, value, margin = gate["metric"], gate["value"], gate["margin"]
    if value is None or margin is None:
        return shown(gate["reason"], 300)
    is_share = not metric.startswith(NOT_SHARES)
    size = points(margin) if is_share else number(abs(margin))
    is_under = (gate["direction"] == "at least") != gate["passed"]
    name = metric.replace("_", " ") if metric in METRICS else shown(metric)
    return f"{name} is {gate_value(metric, value)}, {size} {'under' if is_under else 'over'} its limit of {gate_value(metric, gate['limit'])}"


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
    counts, quality, expected = metrics["counts"], metrics["quality"], metrics["expected_accuracy"]
    if line := _gate_line(metrics):
        return line
    if counts.get("failed"):
        return f"{rows(counts['failed'])} of {counts['read']:,} could not be scored."
    if not counts["scored"]:
        return "It ran, but there was no row to score."
    if change is not None:
        shifted = f", but with {_shift(metrics)}" if _is_shifted(metrics) else ""
        if change.what.startswith("expected"):
            return (
                f"It ran. No labels came along; by its own estimate the model is {change}: {change.what} "
                f"{percent(change.after)}, before {percent(change.before)}{shifted}."
            )
        return f"It ran, and the model is {change}: {change.what} {percent(change.after)}, before {percent(change.before)}{shifted}."
    if quality:
        return f"It ran: accuracy {percent(quality['accuracy']['value'])} ({interval(quality['accuracy'])})."
    return f"It ran. No labels came along; expected accuracy {percent(expected['value'])} ({interval(expected)}), an estimate."


def _did_it_run(metrics: Metrics) -> Answer:
    counts = metrics["counts"]
    left_out = [f"{counts[name]:,} {words}" for name, words in _LEFT_OUT.items() if counts.get(name)]
    level = Level.BAD if counts.get("failed") else Level.LOOK if counts.get("rejects") else Level.GOOD
    if not left_out:
        return Answer("Did it run?", f"Yes: all {rows(counts['read'])} were scored.", level)
    return Answer(
        "Did it run?",
        f"Yes: {counts['scored']:,} of {rows(counts['read'])} were scored; {', '.join(left_out)}.",
        level,
    )


def _is_it_as_good(metrics: Metrics, change: Change | None) -> Answer:
    question = "Is it as good as before?"
    shift = _shift(metrics)
    seen = f" There is {shift}." if shift else ""
    if change is None:
        return Answer(
            "How good is it?", f"{_how_good(metrics)} No earlier run was compared.{seen}", Level.GOOD
        )
    moved = (
        f"{points(change.difference)} {'up' if change.difference > 0 else 'down'}"
        if change.difference
        else "unchanged"
    )
    verdict = "more than chance explains" if change.is_clear else "which chance can explain"
    tail = f", {verdict}" if change.difference else ""
    estimate = " (estimates, without labels)" if change.what.startswith("expected") else ""
    text = f"{change.what.capitalize()} {percent(change.after)}, before {percent(change.before)}: {moved}{tail}{estimate}.{seen}"
    return Answer(question, text, Level.LOOK if _is_shifted(metrics) else change.level)


def _shift(metrics: Metrics) -> str:
    """What drifted, by the worst verdict: ``a clear shift in probability``; nothing where nothing could be compared."""
    report = metrics.get("drift") or {}
    verdict = report.get("verdict")
    if verdict in (None, NOTHING_TO_COMPARE):
        return ""
    if verdict == VERDICTS[0]:
        return "no drift"
    names = [DISTRIBUTIONS[d["distribution"]] for d in report["distributions"] if d["verdict"] == verdict]
    return f"{_DRIFTS[verdict]} in {', '.join(names)}"


def _is_shifted(metrics: Metrics) -> bool:
    return (metrics.get("drift") or {}).get("verdict") == VERDICTS[-1]


def _how_good(metrics: Metrics) -> str:
    quality, expected = metrics["quality"], metrics["expected_accuracy"]
    if quality:
        accuracy = quality["accuracy"]
        return f"Accuracy {percent(accuracy['value'])} ({interval(accuracy)}) on {rows(metrics['counts']['evaluated'])} with a label."
    if expected:
        return (
            f"Expected accuracy {percent(expected['value'])} ({interval(expected)}): an estimate from the model's own "
            "confidence, since no labels came along."
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


def _no_better_than(metrics: Metrics) -> str:
    """The commonest given label, if the model may well be no better than always saying it; else nothing."""
    support = {label: row["support"] for label, row in metrics["quality"]["per_label"].items()}
    label = max(support, key=lambda name: support[name])
    share = support[label] / max(sum(support.values()), 1)
    return label if metrics["quality"]["accuracy"]["low"] <= share < 1 else ""


def _model_or_labels(metrics: Metrics) -> Answer:
    question, issues = "Is it the model or the labels?", metrics.get("label_issues")
    if not issues:
        return Answer(question, "The labels were not looked at.")
    wrong, labelled = issues["estimated_wrong_labels"], issues["labelled"]
    if not wrong:
        return Answer(question, "The model: no given label looks wrong.")
    if commonest := _no_better_than(metrics):
        return Answer(
            question,
            f"It cannot be told: on these rows the model is no better than always saying {shown(commonest, 40)}.",
            Level.LOOK,
        )
    share = percent(wrong / labelled) if labelled else "–"  # noqa: RUF001
    without = percent(issues["accuracy_without_flagged"])
    text = f"About {wrong:,} given labels look wrong themselves ({share} of them, an estimate). Without the {issues['flagged']:,} most doubtful rows accuracy would be {without}."
    return Answer(question, text)
