"""What a student got of its teachers (:mod:`batchscore.training.teaching`), in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchscore.records import Task
from batchscore.reports.linear_baseline import change_in_words


def teaching_lines(task: Task, facts: Mapping[str, Any]) -> list[str]:
    """A line on what was learned, on agreement, on who is right more often, and on speed."""
    return [
        _learned(task, facts),
        _agreement(task, facts),
        _accuracy(task, facts),
        _speed(facts),
    ]


def _learned(task: Task, facts: Mapping[str, Any]) -> str:
    names = " and ".join(teacher["name"] for teacher in facts["teachers"])
    several = ", the mean of their answers" if len(facts["teachers"]) > 1 else ""
    texts = []
    if facts["labelled"]:
        what = "number" if task == Task.REGRESSION else "label"
        texts.append(
            f"{facts['labelled']} labelled rows ({1 - facts['share']:.0%} of each target is the given {what})"
        )
    if facts["without_label"]:
        texts.append(f"{facts['without_label']} rows of the data, which has no labels")
    if facts["unlabelled"] is not None:
        texts.append(f"{facts['unlabelled']['learned']} other texts")
    heat = "" if facts["temperature"] is None else f", at a temperature of {facts['temperature']:g}"
    return f"taught by {names}{several}, on {' and '.join(texts)}{heat}"


def _agreement(task: Task, facts: Mapping[str, Any]) -> str:
    found, teacher = facts["agreement"], _teacher(facts)
    within = f" ({found['low']:.4f} to {found['high']:.4f}, 95 % interval)" if "low" in found else ""
    rows = "rows that chose nothing" if facts["is_held_out"] else "rows, which training watched too"
    what = "mean absolute difference from" if task == Task.REGRESSION else "agreement with"
    return f"{what} {teacher}: {found['value']:.4f}{within} on {found['rows']} {rows}"


def _accuracy(task: Task, facts: Mapping[str, Any]) -> str:
    if facts["comparison"] is None:
        return (
            "accuracy was not measured: the evaluation rows have no labels. Labelled rows are given with --eval-data, and "
            "batchscore score measures any"
        )
    return change_in_words(task, facts["comparison"], f"of {_teacher(facts)}", "of this one")


def _speed(facts: Mapping[str, Any]) -> str:
    speed = facts["speed"]
    seconds = f"{speed['student_seconds']:.3g} against {speed['teacher_seconds']:.3g}"
    return f"{speed['times']:.1f} times as fast as {_teacher(facts)}: {seconds} {speed['clock']} seconds for {speed['rows']} evaluation rows"


def _teacher(facts: Mapping[str, Any]) -> str:
    return "the teachers together" if len(facts["teachers"]) > 1 else "the teacher"
