"""The model card: Markdown with Hugging Face metadata, from a bundle's facts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from batchscore.records import Task
from batchscore.reports.learning_curve import curve_lines
from batchscore.reports.linear_baseline import linear_line
from batchscore.reports.self_training import self_training_line
from batchscore.reports.teaching import teaching_lines
from batchscore.training.corrections import lines_of
from batchscore.training.figures import Figure, figures, headlines
from batchscore.training.outcome import MEASURES, measure_of, score_of

_TITLES: Mapping[str, str] = {
    Task.SINGLE_LABEL: "Text classifier: {}",
    Task.MULTI_LABEL: "Text classifier, any number of labels a text: {}",
    Task.REGRESSION: "A number for each text: {}",
}
_HUB_METRICS = {
    "micro_f1": "f1",
    "macro_f1": "f1",
    "subset_accuracy": "accuracy",
    "r2": "r_squared",
    "spearman": "spearmanr",
}
_BAR = 20
_WIDE, _WORST = 12, 20
_LEFT_OUT = {"empty": "empty", "labelled": "that are among the labelled rows", "again": "that came again"}
"""Of texts without labels."""
_CARD = """\
---
library_name: transformers
pipeline_tag: text-classification
tags: [text-classification, batchscore]
{base_model}model-index:
- name: {name}
  results:
  - task: {{type: text-classification}}
    dataset: {{type: {data}, name: {data}, split: evaluation}}
    metrics:
{index}
---

# {title}

Trained by batchscore {version} from `{base}`. Plain `transformers` loads it:
`pipeline("text-classification", model=FOLDER)`; `batchscore score --model FOLDER` also checks it against its canaries.
{pairs}
## Quality

On {rows} evaluation rows ({evaluation_from}){calibrated}{of_teacher}:

| | value | 95 % interval |
| --- | --- | --- |
{quality}
{per_label}{confusion}{linear}{teaching}
## Training

| | |
| --- | --- |
{training}

The curve, on the evaluation rows that were watched:

| epoch | training loss | loss | {measure} | |
| --- | --- | --- | --- | --- |
{curve}
{more_labels}{tuning}
## Data

| | training | evaluation |
| --- | --- | --- |
{hygiene}

Rows left out before training: {left_out}. All others were used as they were.

## Limits

It knows texts like those it was trained on, up to {max_length} tokens of each ({long_text}). Its answers were
measured on rows of the same source; elsewhere they promise less. `batchscore.json` holds {canaries} evaluation texts as
canaries: share the folder only with people who may read them.
"""
_OF_TEACHER = (
    ", which have no labels: against what the teacher predicts of them. **Accuracy was not measured**"
)
_PAIRS = """
Each row is two texts: `pipeline(...)({{"text": ..., "text_pair": ...}})`, or `--text-pair-column`; a row without its
second one: {missing}.
"""


def card(facts: Mapping[str, Any], hub_id: str | None) -> str:
    """The text of ``README.md``; ``facts`` as in ``batchscore.json``, ``hub_id`` of the base model."""
    metrics, training = facts["metrics"], facts["training"]
    return _CARD.format(
        base_model=f"base_model: {_quoted(hub_id)}\n" if hub_id else "",
        name=_quoted(f"{training['base_model']['name']}-{training['settings']['recipe']}"),
        base=training["base_model"]["name"],
        data=_quoted(training["data"]["source"]),
        index="\n".join(_indexed(figure) for figure in headlines(metrics)),
        title=_title(facts),
        calibrated=", after the temperature" if "calibration_error" in metrics else "",
        of_teacher=_OF_TEACHER if _is_told(facts) else "",
        teaching=_teaching(facts, training.get("teaching")),
        pairs=_PAIRS.format(missing=facts["missing_pair"]) if facts.get("takes_pairs") else "",
        version=training["versions"]["batchscore"],
        rows=metrics["rows"],
        evaluation_from=training["data"]["evaluation_from"],
        quality=_quality(metrics),
        per_label=_per_label(metrics["per_label"]) if "per_label" in metrics else "",
        confusion=_confused(facts["labels"], metrics) if "confusion_matrix" in metrics else "",
        linear=_linear(facts, training.get("linear_baseline"))
        + _self_training(facts, training.get("self_training")),
        measure=next((MEASURES[key] for entry in training["curve"] if (key := measure_of(entry))), "")
        + (" against the teacher's labels" if _is_told(facts) else ""),
        training=_training(facts),
        curve="\n".join(_epoch(entry) for entry in training["curve"]),
        more_labels=_more_labels(facts, training.get("learning_curve")),
        tuning=_tuning(training["tuning"]),
        hygiene=_hygiene(training["data"]),
        left_out=_left_out(training["data"]),
        max_length=facts["max_length"],
        long_text=facts["long_text"],
        canaries=len(facts["canaries"]["texts"]),
    )


def _quoted(text: object) -> str:
    """A JSON string is a YAML string."""
    return json.dumps(str(text))


def _title(facts: Mapping[str, Any]) -> str:
    labels = ", ".join(facts["labels"])
    return _TITLES[facts.get("task", Task.SINGLE_LABEL)].format(labels)


def _indexed(figure: Figure) -> str:
    kind = _HUB_METRICS.get(figure.key, figure.key)
    name = "" if kind == figure.key else f", name: {figure.name}"
    return f"    - {{type: {kind}{name}, value: {figure.value:.6f}}}"


def _quality(metrics: Mapping[str, Any]) -> str:
    return "\n".join(
        f"| {name} | {value['value']:.4f} | {_interval(value)} |".replace("|  |", "| |")
        for name, value in figures(metrics)
    )


def _interval(value: Mapping[str, float]) -> str:
    return f"{value['low']:.4f} to {value['high']:.4f}" if "low" in value else ""


def _per_label(tables: Mapping[str, Mapping[str, Any]]) -> str:
    has_thresholds = any("threshold" in row for row in tables.values())
    names = ["precision", "recall", "f1", *["average_precision", "threshold"] * has_thresholds]
    titles = {"f1": "F1", "average_precision": "average precision", "threshold": "from a probability of"}
    head = ["label", *(titles.get(name, name) for name in names), "rows"]
    rows = [
        [_cell(label), *(_number(row[name]) for name in names), str(row["support"])]
        for label, row in tables.items()
    ]
    table = [_table_row(row) for row in [head, ["---"] * len(head), *rows]]
    return "\n" + "\n".join(row.replace("|  |", "| |") for row in table) + "\n"


def _linear(facts: Mapping[str, Any], compared: Mapping[str, Any] | None) -> str:
    """What the same rows say of a model that knows words alone."""
    if compared is None:
        return ""
    said = linear_line(Task(facts.get("task", Task.SINGLE_LABEL)), compared)
    return f"\nAgainst TF-IDF of words and pairs of words with a linear model, fitted on the same rows: {said}.\n"


def _is_told(facts: Mapping[str, Any]) -> bool:
    """Whether the evaluation rows have no labels but what a teacher predicts."""
    return "evaluation" in facts["training"]["data"].get("labels_of_teacher", ())


def _teaching(facts: Mapping[str, Any], taught: Mapping[str, Any] | None) -> str:
    """What was learned of teachers, and how the student compares with them."""
    if taught is None:
        return ""
    lines = teaching_lines(Task(facts.get("task", Task.SINGLE_LABEL)), taught)
    listed = "\n".join(f"- {line}" for line in lines)
    return f"\nHeld against the teacher, which is flattered where it was trained on the evaluation rows:\n\n{listed}\n"


def _self_training(facts: Mapping[str, Any], found: Mapping[str, Any] | None) -> str:
    """What texts without labels brought."""
    if found is None:
        return ""
    said = self_training_line(Task(facts.get("task", Task.SINGLE_LABEL)), found)
    left_out = ", ".join(f"{found[key]} {words}" for key, words in _LEFT_OUT.items() if found[key])
    return f"\n{said}.{f' Left out of the texts: {left_out}.' if left_out else ''}\n"


def _number(found: Any) -> str:
    value = found["value"] if isinstance(found, Mapping) else found
    return "" if value is None else f"{value:.4f}"


def _training(facts: Mapping[str, Any]) -> str:
    training = facts["training"]
    data = training["data"]
    values = {
        "data": data["source"],
        "rows": f"{data['train']['rows']} (SHA-256 of texts and labels {data['train']['sha256']})",
        **({"corrections": "; ".join(lines_of(data["corrections"]))} if "corrections" in data else {}),
        **training["settings"],
        **({"layers kept": _layers(training["student"])} if "student" in training else {}),
        "precision": training["precision"],
        "best epoch": training["best_epoch"],
        "temperature": f"{facts['calibration_temperature']:.4f}{_where(facts)}",
        "versions": ", ".join(f"{name} {version}" for name, version in training["versions"].items()),
    }
    return "\n".join(f"| {name.replace('_', ' ')} | {_cell(value)} |" for name, value in values.items())


def _layers(student: Mapping[str, Any]) -> str:
    return f"{', '.join(map(str, student['kept']))} of {student['of']} of the base model"


def _where(facts: Mapping[str, Any]) -> str:
    """Whether plain ``transformers`` gives calibrated probabilities."""
    return "" if facts["temperature"] == 1 else " (not in the weights: plain transformers does not apply it)"


def _epoch(entry: Mapping[str, float]) -> str:
    loss = f"{entry['loss']:.4f}" if "loss" in entry else ""
    score = score_of(entry)
    bar = "█" * round(max(score, 0.0) * _BAR)
    return f"| {entry['epoch']:g} | {loss} | {entry['eval_loss']:.4f} | {score:.4f} | {bar} |"


def _confused(labels: Sequence[str], metrics: Mapping[str, Any]) -> str:
    table = _confusion(labels, metrics["confusion_matrix"]["counts"])
    return f"\nConfusion, a row for each given label, a column for each predicted one:\n\n{table}\n"


def _confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A table; with many labels, the most confused pairs."""
    if len(labels) <= _WIDE:
        head = ["", *(_cell(label) for label in labels)]
        rows = [[_cell(label), *map(str, row)] for label, row in zip(labels, counts, strict=True)]
        return "\n".join(_table_row(row) for row in [head, ["---"] * len(head), *rows])
    pairs = [
        (count, given, predicted)
        for given, row in enumerate(counts)
        for predicted, count in enumerate(row)
        if given != predicted and count
    ]
    worst = sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:_WORST]
    rows = [[_cell(labels[given]), _cell(labels[predicted]), str(count)] for count, given, predicted in worst]
    return "\n".join(
        _table_row(row) for row in [["given", "predicted", "rows (most first)"], ["---"] * 3, *rows]
    )


def _table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _more_labels(facts: Mapping[str, Any], curve: Mapping[str, Any] | None) -> str:
    """What more labels would bring, if smaller trainings told it."""
    if curve is None:
        return ""
    lines = curve_lines(Task(facts.get("task", Task.SINGLE_LABEL)), curve)
    return (
        "\nWhat more labels would bring, by a power law through these trainings:\n\n"
        + "\n".join(f"- {line}" for line in lines)
        + "\n"
    )


def _tuning(trials: Sequence[Mapping[str, Any]]) -> str:
    """The table of the search, if there was one."""
    if not trials:
        return ""
    head = ["pooling", "learning rate", "epochs", "accuracy", "loss"]
    rows = [
        [
            trial["pooling"],
            f"{trial['learning_rate']:g}",
            f"{trial['epochs']:g}",
            f"{trial['accuracy']:.4f}",
            f"{trial['loss']:.4f}",
        ]
        for trial in trials
    ]
    table = "\n".join(_table_row(row) for row in [head, ["---"] * len(head), *rows])
    return f"\nSettings that were tried, on a held-out part of the training rows:\n\n{table}\n"


def _hygiene(data: Mapping[str, Any]) -> str:
    splits = [data["train"], data["evaluation"]]
    facts = [data["hygiene"][name] for name in ("train", "evaluation")]
    labels = [
        ", ".join(f"{name} {count:.6g}" for name, count in (split.get("values") or split["labels"]).items())
        for split in splits
    ]
    rows = {
        "rows": [str(split["rows"]) for split in splits],
        "numbers" if "values" in splits[0] else "labels": [_cell(each) for each in labels],
        "texts that occurred before": [str(each["duplicates"]) for each in facts],
        "texts with several labels": [str(each["conflicting"]) for each in facts],
        "longer than the model takes": [
            f"{each['too_long']} ({each['too_long_share']:.1%})" for each in facts
        ],
        "also in the training rows": ["", str(facts[1]["also_in_train"])],
    }
    if told := data.get("labels_of_teacher"):
        rows["whose labels"] = [
            "the teacher's" if name in told else "given" for name in ("train", "evaluation")
        ]
    if suspects := data.get("suspects"):
        rows["labels worth checking"] = [str(suspects["flagged"]), ""]
    return "\n".join(_table_row([name, *cells]) for name, cells in rows.items())


def _left_out(data: Mapping[str, Any]) -> str:
    reasons = [
        f"{count} {reason.replace('_', ' ')} ({split})"
        for split in ("train", "evaluation")
        for reason, count in data[split]["left_out"].items()
    ]
    return ", ".join(reasons) or "none"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


_ADOPTED = """\
---
library_name: transformers
pipeline_tag: text-classification
tags: [text-classification, batchscore]
---

# Text classifier: {labels}

Adopted by batchscore {version} from `{origin}`{revision}: weights and tokenizer are those of that model{named}{divided}. What its own
card says is in `README.original.md`, if it had one, and its licence holds here too. Plain `transformers` loads it:
`pipeline("text-classification", model=FOLDER)`; `batchscore score --model FOLDER` also checks it against its canaries.

## Quality

{quality}
## Limits

Texts of up to {max_length} tokens are read whole ({long_text}). `batchscore.json` holds {canaries} texts with the answers of plain
`transformers` as canaries{of_whom}.
"""
_CALIBRATED = """\
On {rows} labelled rows ({data}), which also fitted the temperature, {temperature}:

| | value | 95 % interval |
| --- | --- | --- |
{quality}

| label | precision | recall | F1 | rows |
| --- | --- | --- | --- | --- |
{per_label}

Confusion, a row for each given label, a column for each predicted one:

{confusion}
"""


def adopted_card(facts: Mapping[str, Any]) -> str:
    """The text of ``README.md`` for a model that was adopted; ``facts`` as in ``batchscore.json``."""
    adopted, metrics = facts["adopted"], facts["metrics"]
    return _ADOPTED.format(
        labels=", ".join(facts["labels"]),
        version=adopted["versions"]["batchscore"],
        origin=adopted["from"],
        revision=f" at {adopted['revision']}" if adopted["revision"] else "",
        named=", its labels were named here" if adopted["label_names"] else "",
        divided=", its last layer is divided by the temperature" if _is_divided(facts) else "",
        quality=_calibrated(facts) if metrics else "Not measured: no labelled rows were given.\n",
        max_length=facts["max_length"],
        long_text=facts["long_text"],
        canaries=len(facts["canaries"]["texts"]),
        of_whom=": share the folder only with people who may read them" if metrics else "; none is of a user",
    )


def _is_divided(facts: Mapping[str, Any]) -> bool:
    return bool(facts.get("calibration_temperature", 1) != 1 and facts["temperature"] == 1)


def _calibrated(facts: Mapping[str, Any]) -> str:
    metrics, calibration = facts["metrics"], facts["calibration"]
    return _CALIBRATED.format(
        rows=calibration["rows"],
        data=calibration["data"],
        temperature=f"{facts['calibration_temperature']:.4f}{_where(facts)}",
        quality=_quality({**metrics, "accuracy_held_out": None}),
        per_label=_per_label(metrics["per_label"]),
        confusion=_confusion(facts["labels"], metrics["confusion_matrix"]["counts"]),
    )
