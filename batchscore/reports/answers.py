"""The questions of the morning and their answers, as far as they are the same for every task."""

from __future__ import annotations

import collections
import dataclasses
import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from batchscore.evaluation.drift import CLEAR, NOTHING_TO_COMPARE, VERDICTS
from batchscore.evaluation.gates import is_of_quality
from batchscore.evaluation.metrics import task_of
from batchscore.records import Task
from batchscore.reports.formats import rows, shown
from batchscore.reports.gates import gate_sentence

Metrics = Mapping[str, Any]
WIDE_INTERVAL = 0.1
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
    "labels_per_row": "labels in a row",
    "value": "values",
}
"""Names of drift measures, in words."""
SLICES = {"n_tokens": "tokens", "truncated": "truncated", "file": "file"}
"""Names on the page of the slice columns that every run has."""
LEFT_OUT = {
    "null_text": "without a text",
    "empty_text": "with an empty text",
    "rejects": "not readable",
    "failed": "not scored for a fault",
    "abstained": "left undecided, below their threshold",
}
"""Rows without a prediction, in words."""


class Level(enum.Enum):
    """How an answer is highlighted; the value is the CSS class."""

    GOOD = "good"
    PLAIN = "plain"
    """Neither good nor bad: information."""
    LOOK = "look"
    BAD = "bad"


class Link(NamedTuple):
    """A way from an answer to what it speaks of, drawn where the page has that."""

    anchor: str
    words: str


TO_REVIEWS = Link("reviews", "See the rows to check")
TO_FURTHEST = Link("reviews", "See the rows furthest off")
_TO_FILES = Link("files", "See the files")


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One question of the morning with its answer."""

    question: str
    answer: str
    level: Level = Level.PLAIN
    links: tuple[Link, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """The headline of a page, and the answers below it."""

    level: Level
    headline: str
    answers: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class GivenWords:
    """How a page speaks of what was given with a row."""

    have_unknown: str
    """Of rows whose label is unknown: ``has a label that ...`` without the verb."""
    question: str
    unknown: str
    hint: str


_ONE = GivenWords(
    "a label that the model does not know",
    "Does the model know the labels?",
    "have a value that is none of its labels",
    "Say what they mean with --label-map GIVEN=LABEL, or name another --label-column.",
)
_GIVEN = {
    Task.SINGLE_LABEL: _ONE,
    Task.MULTI_LABEL: dataclasses.replace(_ONE, unknown="have a value that is no set of its labels"),
    Task.REGRESSION: GivenWords(
        "a value where a number was expected",
        "Are the given values numbers?",
        "have a value that is no number",
        "Name another --label-column.",
    ),
}


def gate_line(metrics: Metrics) -> str:
    """The gates that failed; empty if none did."""
    gates = metrics.get("gates") or []
    failed = [gate_sentence(gate) for gate in gates if not gate["passed"]]
    if not failed:
        return ""
    head = (
        "A quality gate failed" if len(failed) == 1 else f"{len(failed)} of {len(gates)} quality gates failed"
    )
    return f"{head}: {'; '.join(failed)}."


def left_out(metrics: Metrics) -> str:
    """Rows that the headline's numbers leave out: unreadable ones, and those with unknown labels."""
    counts, lines = metrics["counts"], []
    if rejects := counts.get("rejects"):
        lines.append(f" {rows(rejects)} could not be read.")
    if unknown := counts.get("unknown_label"):
        has = "has" if unknown == 1 else "have"
        lines.append(f" {rows(unknown)} {has} {_GIVEN[task_of(metrics)].have_unknown}.")
    return "".join(lines)


def quality_gates(metrics: Metrics) -> list[Mapping[str, Any]]:
    """The gates on the quality of predictions."""
    return [gate for gate in metrics.get("gates") or [] if is_of_quality(gate["metric"])]


def lacks_gate(metrics: Metrics) -> bool:
    """Whether rows were scored and nobody has said what quality is good enough."""
    return bool(metrics["counts"]["scored"]) and not quality_gates(metrics)


def passed_line(metrics: Metrics) -> str:
    """The gates on quality, if there are any and all passed; else empty."""
    gates = quality_gates(metrics)
    if not gates or not all(gate["passed"] for gate in gates):
        return ""
    if len(gates) == 1:
        return f"Its gate passed: {gate_sentence(gates[0])}."
    return f"All {len(gates)} gates on quality passed."


def did_it_run(metrics: Metrics) -> Answer:
    """How many rows were scored, and which were not."""
    question, counts = "Did it run?", metrics["counts"]
    left_out = [f"{counts[name]:,} {words}" for name, words in LEFT_OUT.items() if counts.get(name)]
    if counts.get("failed"):
        level = Level.BAD
    else:
        level = Level.LOOK if counts.get("rejects") or not counts["scored"] else Level.GOOD
    if not counts["read"]:
        return Answer(question, "Yes, but the input holds no row.", level)
    if not left_out:
        return Answer(question, f"Yes: all {rows(counts['read'])} were scored.", level)
    text = f"Yes: {counts['scored']:,} of {rows(counts['read'])} were scored; {', '.join(left_out)}."
    return Answer(question, text, level, (_TO_FILES,) if counts.get("rejects") else ())


def are_labels_known(metrics: Metrics) -> Iterator[Answer]:
    """Rows whose label the model does not know: which values, and what to do; nothing if all are known."""
    counts, words = metrics["counts"], _GIVEN[task_of(metrics)]
    if reason := metrics.get("unused_labels"):
        yield Answer(words.question, f"No: {reason}.", Level.LOOK)
    unknown = counts.get("unknown_label")
    if not unknown:
        return
    values: collections.Counter[str] = collections.Counter()
    for of_file in (metrics.get("unknown_labels") or {}).values():
        values.update(of_file)
    named = [f"{shown(value, 40)} ({count:,})" for value, count in values.most_common(_NAMED_VALUES)]
    more = f" and {len(values) - len(named):,} more values" if len(values) > len(named) else ""
    text = f"No: {unknown:,} of {rows(counts['read'])} {words.unknown}"
    text += f": {', '.join(named)}{more}." if named else "."
    told = " Whatever is said of right and wrong leaves these rows out." if metrics["quality"] else ""
    yield Answer(
        words.question,
        f"{text}{told} {words.hint}",
        Level.LOOK,
        (_TO_FILES,),
    )


def relabelled_rows(metrics: Metrics) -> int:
    """Rows whose given label differs from the earlier run's, where known."""
    return int((metrics.get("comparison") or {}).get("relabelled") or 0)


def is_relabelled(metrics: Metrics) -> bool:
    """Whether so many labels changed that accuracy with tonight's labels alone would mislead."""
    evaluated = int((metrics.get("comparison") or {}).get("evaluated", 0))
    return relabelled_rows(metrics) >= max(1.0, _RELABELLED * evaluated)


def drift_in_words(metrics: Metrics) -> str:
    """The worst drift verdict and where: ``a clear shift in probability``; empty if nothing was compared."""
    report = metrics.get("drift") or {}
    verdict = report.get("verdict")
    if verdict in (None, NOTHING_TO_COMPARE):
        return ""
    if verdict == VERDICTS[0]:
        hides_any = any((each["noise"] or 0) > CLEAR for each in report["distributions"])
        return "no drift, as far as so few rows can show it" if hides_any else "no drift"
    names = [distribution_name(d) for d in report["distributions"] if d["verdict"] == verdict]
    return f"{_DRIFTS[verdict]} in {', '.join(names)}"


def is_shifted(metrics: Metrics) -> bool:
    """Whether a distribution clearly differs from the earlier run's."""
    return (metrics.get("drift") or {}).get("verdict") == VERDICTS[-1]


def distribution_name(drift: Metrics) -> str:
    """What drifted, in words: of several labels also which one."""
    name = DISTRIBUTIONS.get(drift["distribution"], shown(drift["distribution"]))
    return f"{name} of {shown(drift['label'], 40)}" if drift.get("label") else name


def worst_slice(metrics: Metrics, key: str, write: Callable[[float], str]) -> str:
    """The slice clearly worse than its rest that is worst in ``key``, in words; empty if there is none."""
    worse = [each for each in metrics["slices"] if each["worse"]]
    if not worse:
        return ""
    best_first = sorted(worse, key=lambda each: float(each[key]["value"]), reverse=key == "mae")
    worst = best_first[0]
    where = f"{SLICES.get(worst['column'], shown(worst['column']))} {shown(worst['value'])}"
    text = f" Clearly worse than the rest: {where} ({write(worst[key]['value'])})"
    return f"{text} and {len(worse) - 1} more." if len(worse) > 1 else f"{text}."


def verdict_of(
    metrics: Metrics, quality: Answer, others: Iterable[Answer], quality_line: Callable[[], str]
) -> Verdict:
    """The verdict: ``quality`` and what is asked of every run decide how it looks, ``others`` stand below.

    ``quality_line`` makes the headline of a run that scored rows and missed no gate.
    """
    loud = [did_it_run(metrics), *are_labels_known(metrics), quality]
    levels = {answer.level for answer in loud}
    if gate_line(metrics):
        levels.add(Level.BAD)
    level = next((each for each in (Level.BAD, Level.LOOK) if each in levels), quality.level)
    return Verdict(level, f"{_headline(metrics, quality_line)}{left_out(metrics)}", (*loud, *others))


def _headline(metrics: Metrics, quality_line: Callable[[], str]) -> str:
    counts = metrics["counts"]
    if line := gate_line(metrics):
        return line
    if counts.get("failed"):
        return f"{rows(counts['failed'])} of {counts['read']:,} could not be scored."
    if counts["scored"]:
        return quality_line()
    if abstained := counts.get("abstained"):
        return f"It ran, but decided nothing: {rows(abstained)} were below their threshold."
    return "It ran, but there was no row to score."
