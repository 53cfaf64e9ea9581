"""One run as plain text for a mail: the verdict, its figures, what changed, its gates, and where to look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from batchscore.evaluation.metrics import task_of
from batchscore.records import Task
from batchscore.reports import label_set_verdict, run_tables, value_verdict, verdict
from batchscore.reports.answers import Metrics, Verdict, drift_in_words
from batchscore.reports.comparisons import compared, flips, moves
from batchscore.reports.gates import gate_sentence
from batchscore.reports.text_lines import Section, columns, letter, paragraph
from batchscore.reports.titles import subtitle, title

_FIGURES, _GATES = 5, 3


class _Words(NamedTuple):
    """How a task is spoken of."""

    judge: Callable[[Metrics, Metrics | None], Verdict]
    changed: Callable[[Metrics], str]


_TASKS: Mapping[Task, _Words] = {
    Task.SINGLE_LABEL: _Words(verdict.judge, flips),
    Task.MULTI_LABEL: _Words(label_set_verdict.judge, flips),
    Task.REGRESSION: _Words(value_verdict.judge, moves),
}


def run_text(
    facts: Mapping[str, Any],
    metrics: Metrics,
    baseline: Metrics | None = None,
    *,
    place: str = "",
    names: Sequence[str] = (),
) -> str:
    """At most 25 lines of at most 78 columns, none of them with a review's text.

    ``facts``, ``metrics`` and ``baseline`` as in :func:`render_run`; ``place``: the run folder, ``names``: what to look at there.
    """
    words = _TASKS[task_of(metrics)]
    told, quality = words.judge(metrics, baseline), run_tables.quality(metrics, baseline)
    sections = [
        Section(paragraph(told.headline)),
        Section(paragraph(f"{title(facts)} · {subtitle(facts)}", 2)),
        Section([""]),
    ]
    if quality.rows:
        sections += [Section(columns(quality, _FIGURES), least=3, is_list=True), Section([""])]
    sections += [Section(paragraph(f"{each.question} {each.answer}", 3, "  ")) for each in told.answers]
    sections += _changes(metrics, words.changed)
    if gates := _gates(metrics):
        sections += [Section([""]), Section(gates, least=len(gates))]
    return letter([*sections, *_where(place, names)])


def _changes(metrics: Metrics, changed: Callable[[Metrics], str]) -> list[Section]:
    text, drift = compared(metrics, changed), drift_in_words(metrics)
    if drift:
        text = f"{text} There is {drift}.".strip()
    return [Section(paragraph(f"What changed? {text}", 3, "  "))] if text else []


def _gates(metrics: Metrics) -> list[str]:
    """The gates, failed ones first, one a line."""
    gates = sorted(metrics.get("gates") or [], key=lambda gate: bool(gate["passed"]))
    lines = [
        paragraph(f"gate {'passed' if gate['passed'] else 'FAILED'}: {gate_sentence(gate)}", 1)[0]
        for gate in gates[:_GATES]
    ]
    more = len(gates) - len(lines)
    failed = sum(not gate["passed"] for gate in gates[_GATES:])
    return [*lines, f"and {more:,} more, {failed:,} of them failed"] if more > 0 else lines


def _where(place: str, names: Sequence[str]) -> list[Section]:
    if not place:
        return []
    listed = f" has {', '.join(names)}" if names else ""
    return [Section([""]), Section(paragraph(f"Where to look: {place}{listed}", 4, "  "), least=4)]
