"""The tables of a run's page, from ``metrics.json`` and ``run.json``."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from batchscore.config import LATEST
from batchscore.evaluation.metrics import Metric, Section, Value, at, in_section, task_of
from batchscore.reports.answers import Metrics, distribution_name
from batchscore.reports.formats import (
    UNKNOWN,
    change_text,
    duration,
    moment,
    number,
    percent,
    rows,
    shown,
    text_of,
)
from batchscore.reports.gates import gate_name, gate_value, unit_of
from batchscore.reports.tables import Cell, Table

MOST_LABELS = 50
_MOST_FAILURES = 20
_MAX_FILES = 100
MAX_HEADING = 40
"""Maximum characters of a label as a column heading."""
_COLUMNS = {"n_tokens": "text length, in tokens", "truncated": "truncated", "file": "file"}


def counts(metrics: Metrics, baseline: Metrics | None) -> list[tuple[str, str, str, bool]]:
    """For each kind of row: name, count, the earlier run's count, and whether there are any."""
    kinds = {"read": "read", "scored": "scored"}
    kinds |= {metric.name: metric.heading_on_page(metrics) for metric in in_section(Section.ROWS)}
    return [
        (
            words,
            number(metrics["counts"].get(name, 0)),
            number(at(baseline, "counts", name)) if baseline else "",
            bool(metrics["counts"].get(name)),
        )
        for name, words in kinds.items()
        if words
    ]


def quality(metrics: Metrics, baseline: Metrics | None) -> Table:
    """The metrics with their intervals, and the earlier run's beside them."""
    lines = [
        line
        for each in in_section(Section.QUALITY, task_of(metrics))
        if (line := _metric_line(each, metrics, baseline))
    ]
    head = ["metric", "this run", *(["earlier run", "change"] if baseline else []), "95 % interval"]
    return Table(head, lines)


def _metric_line(metric: Metric, metrics: Metrics, baseline: Metrics | None) -> list[str | Cell] | None:
    here, words = metric.read(metrics, {}), metric.heading_on_page(metrics)
    if here is None or not words:
        return None
    write = functools.partial(text_of, metric.unit)
    line: list[str | Cell] = [words, write(here.value)]
    if baseline:
        earlier = metric.read(baseline, {})
        change = None if earlier is None else here.value - earlier.value
        line += [
            write(None if earlier is None else earlier.value),
            Cell(
                change_text(metric.unit, change),
                "look" if earlier is not None and _is_clearly_worse(metric, here, earlier) else "",
            ),
        ]
    is_known = here.low is not None and here.high is not None
    return [*line, f"{write(here.low)} to {write(here.high)}" if is_known else ""]


def _is_clearly_worse(metric: Metric, here: Value, earlier: Value) -> bool:
    """Whether the metric got worse, and its interval excludes the earlier value."""
    if here.low is None or here.high is None or here.low <= earlier.value <= here.high:
        return False
    return (here.value - earlier.value) * metric.better < 0


def gates(metrics: Metrics) -> Table:
    """The quality gates, failed ones first."""
    lines: list[list[str | Cell]] = []
    for gate in sorted(metrics.get("gates") or [], key=lambda gate: bool(gate["passed"])):
        metric, passed = gate["metric"], gate["passed"]
        margin = None if gate["margin"] is None else change_text(unit_of(metric), gate["margin"])
        lines.append(
            [
                gate_name(metric),
                Cell("passed" if passed else "FAILED", "good" if passed else "bad"),
                margin or UNKNOWN,
                gate_value(metric, gate["value"]),
                f"{gate['direction']} {gate_value(metric, gate['limit'])}",
            ]
        )
    return Table(["gate", "", "margin", "value", "limit"], lines, words=2)


def more(found: int, most: int, what: str) -> str:
    """How many are left out; empty if none are."""
    return f"{found - most:,} more {what} are in metrics.json." if found > most else ""


def drift(metrics: Metrics) -> Table | None:
    """Drift of each distribution; None without a baseline."""
    report = metrics.get("drift")
    if not report:
        return None
    lines: list[list[str | Cell]] = [
        [
            distribution_name(each),
            Cell(each["verdict"], "look" if each["verdict"].startswith("clear") else ""),
            number(each["psi"]),
            number(each["ks"]),
            number(each["js_distance"]),
        ]
        for each in report["distributions"]
    ]
    return Table(["distribution", "verdict", "PSI", "KS", "Jensen-Shannon"], lines, words=2)


def files(facts: Mapping[str, Any], metrics: Metrics) -> Table:
    """The inputs: their text, label and id columns, and what the label values mean."""
    listed = list(facts.get("files") or [])
    unknown = metrics.get("unknown_labels") or {}
    lines = [
        [
            shown(file["name"]),
            *_columns(file),
            _values(unknown.get(file["name"]) or {}),
            number(file["rows"]),
            number(file["rejects"]),
        ]
        for file in listed[:_MAX_FILES]
    ]
    note = f"{len(listed) - _MAX_FILES:,} more files are in run.json." if len(listed) > _MAX_FILES else ""
    head = ["file", "text in", "label in", "id in", "unknown labels", "rows", "rejected"]
    return Table(head, lines, words=5, note=note)


def _columns(file: Mapping[str, Any]) -> list[str]:
    """The text, label (with the meanings of its values) and id columns."""
    columns = file.get("columns") or {}
    text, pair, label, identifier = (columns.get(role) for role in ("text", "text_pair", "label", "id"))
    meanings = list((file.get("label_values") or {}).items())
    said = [
        f"{shown(value, MAX_HEADING)} = {shown(name, MAX_HEADING) if name else 'no label'}"
        for value, name in meanings[:5]
    ]
    said += [f"{len(meanings) - 5} more"] if len(meanings) > 5 else []
    meaning = f" ({', '.join(said)})" if said and label else ""
    return [
        " and ".join(shown(name, MAX_HEADING) for name in (text or UNKNOWN, pair) if name),
        f"{shown(label or UNKNOWN, MAX_HEADING)}{meaning}",
        shown(identifier or UNKNOWN, MAX_HEADING),
    ]


def _values(unknown: Mapping[str, int]) -> str:
    most = sorted(unknown.items(), key=lambda item: -item[1])
    text = ", ".join(f"{shown(value, MAX_HEADING)} ({count:,})" for value, count in most[:5])
    return f"{text}, {len(most) - 5} more" if len(most) > 5 else text


def failures(metrics: Metrics) -> Table | None:
    """Rows that could not be scored, with reasons; None if there are none."""
    failed = metrics.get("failed_rows") or []
    if not failed:
        return None
    lines = [[shown(f["file"]), shown(f["reason"], 200), number(f["row"])] for f in failed[:_MOST_FAILURES]]
    note = more(metrics["counts"].get("failed", len(failed)), len(lines), "rows")
    return Table(["file", "reason", "row"], lines, words=2, note=note)


def run_facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Facts about the run, one line each."""
    model, compute = dict(facts.get("model") or {}), dict(facts.get("compute") or {})
    lines = [(key, moment(facts[key])) for key in ("started", "finished") if facts.get(key)]
    lines += list(_pace(facts))
    lines += list(_later_labels(facts))
    if earlier := facts.get("baseline"):
        when = f", finished {moment(earlier['finished'])}" if earlier.get("finished") else ""
        lines += [("earlier run", f"{shown(earlier.get('path', UNKNOWN), 200)}{when}{_latest(facts)}")]
    elif _latest(facts):
        lines += [("earlier run", "none yet of these files and labels that could be compared (latest)")]
    if taken := facts.get("reuse"):
        lines += [("answers of earlier nights", _reused(taken))]
    lines += [("model", shown(model.pop("path", "") or UNKNOWN, 200))]
    lines += [
        (f"model: {_words(key)}", _plain(value)) for key, value in model.items() if _says_anything(value)
    ]
    lines += [(_words(key), _plain(value)) for key, value in compute.items() if _says_anything(value)]
    lines += [
        ("batchscore", shown(facts.get("version", UNKNOWN))),
        ("Python", shown(facts.get("python", UNKNOWN))),
    ]
    lines += [(f"option: {_words(key)}", _plain(value)) for key, value in _given(facts.get("options") or {})]
    return lines


def _later_labels(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Of an evaluation: the run, and what became of each file of labels."""
    if (run := facts.get("evaluates")) is None:
        return
    yield (
        "evaluation of the run",
        f"{shown(run.get('path', UNKNOWN), 200)}, finished {moment(run['finished'])}",
    )
    labels = facts.get("labels") or {}
    yield "labels by now", rows(labels.get("rows", 0))
    for file in (labels.get("files") or [])[:_MAX_FILES]:
        counts = [f"{number(file[name])} {words}" for name, words in LATER_LABELS.items() if file.get(name)]
        told = f"{rows(file.get('rows', 0))} by {shown(file.get('matched_by', UNKNOWN))}, {', '.join(counts)}"
        yield f"labels: {shown(file.get('path', UNKNOWN), 100)}", told


LATER_LABELS = {
    "new": "new labels",
    "equal": "known already",
    "corrected": "corrected (other than before)",
    "repeated": "twice the same",
    "conflicting": "in conflict with another of that call",
    "blank": "without a label",
    "unknown_label": "with a value that is no label of the model",
    "unknown_row": "of a row that the run does not have",
    "several_rows": "of an id that several rows of the run have, not used",
}
"""What may become of rows of labels that came later, by its key in ``run.json``, in words."""


def _latest(facts: Mapping[str, Any]) -> str:
    """That the earlier run was not named, but is the one that came last."""
    is_latest = (facts.get("options") or {}).get("baseline") == LATEST
    return ", the latest of these files and labels" if is_latest else ""


def _reused(taken: Mapping[str, Any]) -> str:
    """How many rows were not scored again, and what the audit of their answers found."""
    others = taken.get("audited_otherwise", 0)
    found = f"{others:,} differed in their last bits" if others else "all of them the same to the last bit"
    audit = (
        f"; {taken['audited']:,} texts with such an answer were scored again, {found}"
        if taken.get("audited")
        else ""
    )
    return f"{taken.get('rows', 0):,} rows, from {shown(taken.get('path', UNKNOWN), 200)}{audit}"


def _given(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The options that are set, those of a group one by one."""
    for key, value in options.items():
        if isinstance(value, dict) and key in {"read", "compute"}:
            yield from _given(value)
        elif _says_anything(value) and value != "auto" and key != "baseline":
            yield key, value


def _says_anything(value: Any) -> bool:
    """Whether a fact has a value: not None, and no empty text, list or mapping."""
    return value is not None and value not in ("", [], {})


def _pace(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Duration and speed."""
    work = facts.get("work") or {}
    if facts.get("seconds") is not None:
        yield "took", duration(facts["seconds"])
    if work.get("rows_per_second"):
        yield "rows a second", f"{work['rows_per_second']:,.1f} from start to finish"
    if work.get("tokens_per_second"):
        yield "tokens a second", f"{round(work['tokens_per_second']):,} while scoring"
    if work.get("device_waiting_seconds") is not None:
        yield "device waited", f"{duration(work['device_waiting_seconds'])} for texts"
    if work.get("padding_share") is not None:
        yield "padding", f"{percent(work['padding_share'])} of what went through the model"


def _words(key: object) -> str:
    return shown(str(key).replace("_", " "), MAX_HEADING)


def _plain(value: Any) -> str:
    return shown(_value_in_words(value), 200)


def _value_in_words(value: Any) -> str:
    """A JSON value in words: ``labels changed 0, largest change 0.001``."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{str(key).replace('_', ' ')} {_value_in_words(each)}" for key, each in value.items()
        )
    if isinstance(value, list):
        return ", ".join(map(_value_in_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def place_of(row: Mapping[str, Any], own: Collection[str], *, with_text: bool) -> dict[str, Any]:
    """Where a mismatch is, how long its text is, and the text; columns beyond the report's ``own`` ones are ids."""
    known = {
        *own,
        "file",
        "row",
        "label_quality",
        "is_label_issue",
        "n_tokens",
        "truncated",
        "text",
        "text_pair",
    }
    return {
        "is_label_issue": row.get("is_label_issue", False),
        "file": row["file"],
        "row": f"{row['row']:,}",
        "ids": [
            f"{shown(key, MAX_HEADING)} {shown(value, MAX_HEADING)}"
            for key, value in row.items()
            if key not in known
        ],
        "length": f"{number(row['n_tokens'])} tokens{', truncated' if row['truncated'] else ''}",
        "texts": [row[name] for name in ("text", "text_pair") if row.get(name)] if with_text else [],
    }


def mismatch_note(metrics: Metrics, listed: int) -> str:
    """How many mismatches there are, and where the rest are listed."""
    total = metrics.get("mismatches", listed)
    return (
        f"The {listed:,} worth checking first of {rows(total)}: where the model is surest of another label, be it right or "
        "wrong. All are in mismatches.parquet and mismatches.csv."
    )
