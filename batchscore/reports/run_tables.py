"""The tables of a run's page, from ``metrics.json`` and ``run.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from batchscore.evaluation.metrics import LABEL_METRICS, Metric, Section, Value, at, in_section
from batchscore.reports.formats import (
    UNKNOWN,
    duration,
    interval,
    moment,
    number,
    percent,
    rows,
    shown,
    signed,
)
from batchscore.reports.gates import gate_name, gate_value, is_share
from batchscore.reports.tables import Cell, Table
from batchscore.reports.verdict import DISTRIBUTIONS, Metrics, confusions_of

_MOST_LABELS = 50
_MATRIX_LABELS = 12
_MOST_CONFUSIONS = 30
_MOST_SLICES = 12
_MOST_FAILURES = 20
_MAX_FILES = 100
_MAX_HEADING = 40
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
    ]


def quality(metrics: Metrics, baseline: Metrics | None) -> Table:
    """The metrics with their intervals, and the earlier run's beside them."""
    lines = [line for each in in_section(Section.QUALITY) if (line := _metric_line(each, metrics, baseline))]
    head = ["metric", "this run", *(["earlier run", "change"] if baseline else []), "95 % interval"]
    return Table(head, lines)


def _metric_line(metric: Metric, metrics: Metrics, baseline: Metrics | None) -> list[str | Cell] | None:
    here, words = metric.read(metrics, {}), metric.heading_on_page(metrics)
    if here is None or not words:
        return None
    write: Callable[[float | None], str] = percent if metric.is_share else number
    line: list[str | Cell] = [words, write(here.value)]
    if baseline:
        earlier = metric.read(baseline, {})
        change = None if earlier is None else here.value - earlier.value
        line += [
            write(None if earlier is None else earlier.value),
            Cell(
                signed(change, is_share=metric.is_share),
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
        margin = None if gate["margin"] is None else signed(gate["margin"], is_share=is_share(metric))
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


def predicted(metrics: Metrics, baseline: Metrics | None) -> Table:
    """How many rows got each label, most frequent first: the table for runs without given labels."""
    now = metrics["histograms"]["predicted_labels"]
    before = at(baseline, "histograms", "predicted_labels") or {}
    names = sorted(now, key=lambda name: -now[name])
    lines = [
        [
            shown(name),
            number(now[name]),
            *(percent(each.get(name, 0) / max(sum(each.values()), 1)) for each in (now, before) if each),
        ]
        for name in names[:_MOST_LABELS]
    ]
    head = ["predicted label", "rows", "share", *(["share before"] if before else [])]
    return Table(head, lines, note=_more(len(names), _MOST_LABELS, "labels"))


def labels(metrics: Metrics, baseline: Metrics | None) -> Table:
    """Precision, recall and F1 of each label; if there are many, those with most rows first."""
    every = metrics["quality"]["per_label"]
    names = (
        sorted(every, key=lambda name: -every[name]["support"])
        if len(every) > _MATRIX_LABELS
        else list(every)
    )
    lines: list[list[str | Cell]] = []
    for name in names[:_MOST_LABELS]:
        row = every[name]
        earlier = [percent(at(baseline, "quality", "per_label", name, "f1"))] if baseline else []
        lines.append(
            [
                shown(name),
                *(percent(row[key]) for key in LABEL_METRICS),
                *earlier,
                number(row["support"]),
            ]
        )
    head = ["label", *LABEL_METRICS.values(), *(["F1 before"] if baseline else []), "rows"]
    return Table(head, lines, note=_more(len(names), _MOST_LABELS, "labels"))


def _more(found: int, most: int, what: str) -> str:
    return f"{found - most:,} more {what} are in metrics.json." if found > most else ""


def confusion(metrics: Metrics) -> Table:
    """The confusion matrix, each cell coloured by its share of the given label; with many labels a list of pairs."""
    matrix = metrics["quality"]["confusion_matrix"]
    names = matrix["labels"]
    if len(names) > _MATRIX_LABELS:
        pairs = confusions_of(metrics)
        lines = [[shown(g), shown(p), number(n)] for g, p, n in pairs[:_MOST_CONFUSIONS]]
        return Table(
            ["given", "predicted", "rows"], lines, words=2, note=_more(len(pairs), _MOST_CONFUSIONS, "pairs")
        )
    return Table(
        ["given ↓ predicted →", *(shown(name, _MAX_HEADING) for name in names)],
        [
            [
                shown(name, _MAX_HEADING),
                *(_tinted(n, sum(line), row == column) for column, n in enumerate(line)),
            ]
            for row, (name, line) in enumerate(zip(names, matrix["counts"], strict=True))
        ],
    )


def _tinted(count: int, total: int, is_right: bool) -> Cell:
    share = count / total if total else 0.0
    return Cell(f"{count:,} · {percent(share, 0)}", "good" if is_right else "bad", round(45 * share))


def coverage(metrics: Metrics) -> Table:
    """Rows above each probability, and their accuracy."""
    has_labels = metrics["quality"] is not None
    lines = [
        [
            f"{row['threshold']:g}",
            number(row["rows"]),
            percent(row["share"]),
            percent(row.get("expected_accuracy")),
            *([percent(at(row, "accuracy", "value")), interval(row["accuracy"])] if has_labels else []),
        ]
        for row in metrics["coverage"]
    ]
    head = [
        "accept from",
        "rows",
        "of all",
        "expected accuracy",
        *(["accuracy", "95 % interval"] if has_labels else []),
    ]
    return Table(head, lines, words=0)


def slices(metrics: Metrics) -> Iterator[tuple[str, Table]]:
    """One table per column: flagged slices first, then the largest."""
    changes = {(each["column"], each["value"]): each for each in at(metrics, "comparison", "slices") or []}
    for column, group in groupby(metrics["slices"], key=lambda entry: entry["column"]):
        entries = [{**entry, "change": changes.get((column, entry["value"]))} for entry in group]
        if len(entries) > 1:
            yield _COLUMNS.get(column, shown(column)), _slice_table(entries)


def _slice_table(entries: Sequence[Mapping[str, Any]]) -> Table:
    chosen = _by_number(entries)
    if len(chosen) > _MOST_SLICES:
        chosen = sorted(chosen, key=lambda e: (not _is_flagged(e), -e["rows"]))[
            : max(_MOST_SLICES, sum(map(_is_flagged, chosen)))
        ]
    has_labels = any(entry["accuracy"] for entry in chosen)
    least = min((e["accuracy"]["low"] for e in chosen if e["accuracy"]), default=0.0)
    has_changes = any(entry["change"] and entry["change"]["accuracy_change"] for entry in chosen)
    head = ["", "rows", *(["accuracy", f"{percent(least, 0)} to 100%"] if has_labels else []), "expected"]
    head += ["same rows"] if has_changes else []
    lines: list[list[str | Cell]] = [
        [
            Cell(_slice_name(entry["value"]), "look" if _is_flagged(entry) else ""),
            number(entry["rows"]),
            *(_slice_accuracy(entry, least) if has_labels else []),
            percent(entry["expected_accuracy"]),
            *([_slice_change(entry["change"])] if has_changes else []),
        ]
        for entry in chosen
    ]
    note = _more(len(entries), len(chosen), "values")
    return Table(head, lines, note=note)


def _by_number(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Sorted by value if all values are numbers, else unchanged."""
    try:
        return sorted(entries, key=lambda entry: float(entry["value"]))
    except ValueError:
        return list(entries)


def _slice_name(value: str) -> str:
    return shown(value) if value else "(empty)"


def _is_flagged(entry: Mapping[str, Any]) -> bool:
    """Whether a slice is clearly worse than the other rows, or than before."""
    return bool(entry["worse"] or (entry["change"] and entry["change"]["worse"]))


def _slice_change(change: Mapping[str, Any] | None) -> Cell:
    """Change of accuracy on the rows that both runs predicted, in points."""
    if not change or not change["accuracy_change"]:
        return Cell(UNKNOWN)
    return Cell(signed(change["accuracy_change"]["value"], is_share=True), "look" if change["worse"] else "")


def _slice_accuracy(entry: Mapping[str, Any], least: float) -> list[Cell]:
    accuracy = entry["accuracy"]
    if accuracy is None:
        return [Cell(UNKNOWN), Cell("")]
    low, value, high = (
        100 * (accuracy[key] - least) / max(1 - least, 1e-9) for key in ("low", "value", "high")
    )
    text = percent(accuracy["value"])
    mark = "look" if entry["worse"] else ""
    return [Cell(text, mark), Cell("", mark, span=(low, value, high))]


def flips(metrics: Metrics) -> Table | None:
    """Changed predictions by earlier and present label; None without a comparison."""
    compared = metrics.get("comparison")
    if not compared or not compared["rows"] or len(compared["changes"]["labels"]) > _MATRIX_LABELS:
        return None
    names = compared["changes"]["labels"]
    lines: list[list[str | Cell]] = [
        [shown(name, _MAX_HEADING), *(_flip(n, row == column) for column, n in enumerate(line))]
        for row, (name, line) in enumerate(zip(names, compared["changes"]["counts"], strict=True))
    ]
    return Table(["before ↓ now →", *(shown(name, _MAX_HEADING) for name in names)], lines)


def _flip(count: int, is_same: bool) -> Cell:
    return Cell(number(count), "" if is_same or not count else "look")


def drift(metrics: Metrics) -> Table | None:
    """Drift of each distribution; None without a baseline."""
    report = metrics.get("drift")
    if not report:
        return None
    lines: list[list[str | Cell]] = [
        [
            DISTRIBUTIONS.get(each["distribution"], shown(each["distribution"])),
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
        f"{shown(value, _MAX_HEADING)} = {shown(name, _MAX_HEADING) if name else 'no label'}"
        for value, name in meanings[:5]
    ]
    said += [f"{len(meanings) - 5} more"] if len(meanings) > 5 else []
    meaning = f" ({', '.join(said)})" if said and label else ""
    return [
        " and ".join(shown(name, _MAX_HEADING) for name in (text or UNKNOWN, pair) if name),
        f"{shown(label or UNKNOWN, _MAX_HEADING)}{meaning}",
        shown(identifier or UNKNOWN, _MAX_HEADING),
    ]


def _values(unknown: Mapping[str, int]) -> str:
    most = sorted(unknown.items(), key=lambda item: -item[1])
    text = ", ".join(f"{shown(value, _MAX_HEADING)} ({count:,})" for value, count in most[:5])
    return f"{text}, {len(most) - 5} more" if len(most) > 5 else text


def failures(metrics: Metrics) -> Table | None:
    """Rows that could not be scored, with reasons; None if there are none."""
    failed = metrics.get("failed_rows") or []
    if not failed:
        return None
    lines = [[shown(f["file"]), shown(f["reason"], 200), number(f["row"])] for f in failed[:_MOST_FAILURES]]
    note = _more(metrics["counts"].get("failed", len(failed)), len(lines), "rows")
    return Table(["file", "reason", "row"], lines, words=2, note=note)


def run_facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Facts about the run, one line each."""
    model, compute = dict(facts.get("model") or {}), dict(facts.get("compute") or {})
    lines = [(key, moment(facts[key])) for key in ("started", "finished") if key in facts]
    lines += list(_pace(facts))
    if earlier := facts.get("baseline"):
        when = f", finished {moment(earlier['finished'])}" if earlier.get("finished") else ""
        lines += [("earlier run", f"{shown(earlier.get('path', UNKNOWN), 200)}{when}")]
    lines += [("model", shown(model.pop("path", UNKNOWN), 200))]
    lines += [(f"model: {_words(key)}", _plain(value)) for key, value in model.items()]
    lines += [(_words(key), _plain(value)) for key, value in compute.items()]
    lines += [
        ("batchscore", shown(facts.get("version", UNKNOWN))),
        ("Python", shown(facts.get("python", UNKNOWN))),
    ]
    lines += [(f"option: {_words(key)}", _plain(value)) for key, value in _given(facts.get("options") or {})]
    return lines


def _given(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The options that are set, those of a group one by one."""
    for key, value in options.items():
        if isinstance(value, dict) and key in {"read", "compute"}:
            yield from _given(value)
        elif value not in (None, "", [], {}, "auto") and key != "baseline":
            yield key, value


def _pace(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Duration and speed."""
    work = facts.get("work") or {}
    if facts.get("seconds") is not None:
        yield "took", duration(facts["seconds"])
    if work.get("rows_per_second"):
        yield "rows a second", f"{work['rows_per_second']:,.1f} from start to finish"
    if work.get("tokens_per_second"):
        yield "tokens a second", f"{round(work['tokens_per_second']):,} while scoring"
    if work.get("padding_share") is not None:
        yield "padding", f"{percent(work['padding_share'])} of what went through the model"


def _words(key: object) -> str:
    return shown(str(key).replace("_", " "), _MAX_HEADING)


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


def mismatch_lines(worst: Sequence[Mapping[str, Any]], with_text: bool) -> list[dict[str, Any]]:
    """The worst mismatches as the page shows them."""
    known = {
        "file", "row", "given_label", "predicted_label", "probability", "prob_given", "label_quality",
        "is_label_issue", "n_tokens", "truncated", "text", "text_pair",
    }  # fmt: skip
    return [
        {
            **{key: row[key] for key in ("given_label", "predicted_label", "probability", "prob_given")},
            "is_label_issue": row["is_label_issue"],
            "file": row["file"],
            "row": f"{row['row']:,}",
            "ids": [
                f"{shown(key, _MAX_HEADING)} {shown(value, _MAX_HEADING)}"
                for key, value in row.items()
                if key not in known
            ],
            "length": f"{number(row['n_tokens'])} tokens{', truncated' if row['truncated'] else ''}",
            "texts": [row[name] for name in ("text", "text_pair") if row.get(name)] if with_text else [],
        }
        for row in worst
    ]


def mismatch_note(metrics: Metrics, listed: int) -> str:
    """How many mismatches there are, and where the rest are listed."""
    total = metrics.get("mismatches", listed)
    return (
        f"The {listed:,} worth checking first of {rows(total)}: where the model is surest of another label, be it right or "
        "wrong. All are in mismatches.parquet and mismatches.csv."
    )
