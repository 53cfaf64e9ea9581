"""The model card: Markdown with Hugging Face's metadata, from the facts of a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

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
    - {{type: accuracy, value: {accuracy:.6f}}}
    - {{type: f1, name: macro F1, value: {macro_f1:.6f}}}
---

# Text classifier: {labels}

Trained by batchscore {version} from `{base}`. Plain `transformers` loads it:
`pipeline("text-classification", model=FOLDER)`; `batchscore score --model FOLDER` also checks it against its canaries.

## Quality

On {rows} evaluation rows ({evaluation_from}), after the temperature:

| | value | 95 % interval |
| --- | --- | --- |
{quality}

| label | precision | recall | F1 | rows |
| --- | --- | --- | --- | --- |
{per_label}

Confusion, given label by predicted label ({labels}): `{confusion}`.

## Training

| | |
| --- | --- |
{training}

| epoch | training loss | loss | accuracy |
| --- | --- | --- | --- |
{curve}

Rows left out before training: {left_out}.

## Limits

It knows texts like those it was trained on, up to {max_length} tokens of each ({long_text}). Its probabilities were
calibrated on rows of the same source; elsewhere they promise less. `batchscore.json` holds {canaries} evaluation texts as
canaries: share the folder only with people who may read them.
"""


def card(facts: Mapping[str, Any], hub_id: str | None) -> str:
    """The text of ``README.md``; ``facts`` are those of ``batchscore.json``, ``hub_id`` that of the base model."""
    metrics, training = facts["metrics"], facts["training"]
    return _CARD.format(
        base_model=f"base_model: {_quoted(hub_id)}\n" if hub_id else "",
        name=_quoted(f"{training['base_model']['name']}-{training['settings']['recipe']}"),
        base=training["base_model"]["name"],
        data=_quoted(training["data"]["source"]),
        accuracy=metrics["accuracy"]["value"],
        macro_f1=metrics["macro_f1"]["value"],
        labels=", ".join(facts["labels"]),
        version=training["versions"]["batchscore"],
        rows=metrics["rows"],
        evaluation_from=training["data"]["evaluation_from"],
        quality=_quality(metrics),
        per_label=_per_label(metrics["per_label"]),
        confusion=metrics["confusion_matrix"]["counts"],
        training=_training(facts),
        curve="\n".join(_epoch(entry) for entry in training["curve"]),
        left_out=_left_out(training["data"]),
        max_length=facts["max_length"],
        long_text=facts["long_text"],
        canaries=len(facts["canaries"]["texts"]),
    )


def _quoted(text: object) -> str:
    """A JSON string is a YAML string."""
    return json.dumps(str(text))


def _quality(metrics: Mapping[str, Any]) -> str:
    held_out = metrics["accuracy_held_out"]
    rows = [("accuracy", metrics["accuracy"])]
    if held_out:
        rows.append((f"accuracy, the {held_out['rows']} rows that did not choose the epoch", held_out))
    rows.append(("macro F1", metrics["macro_f1"]))
    lines = [
        f"| {name} | {value['value']:.4f} | {value['low']:.4f} to {value['high']:.4f} |"
        for name, value in rows
    ]
    lines += [
        f"| {name.replace('_', ' ')} | {metrics[name]:.4f} | |" for name in ("log_loss", "calibration_error")
    ]
    return "\n".join(lines)


def _per_label(tables: Mapping[str, Mapping[str, Any]]) -> str:
    return "\n".join(
        f"| {_cell(label)} | "
        + " | ".join(
            "" if row[name] is None else f"{row[name]:.4f}" for name in ("precision", "recall", "f1")
        )
        + f" | {row['support']} |"
        for label, row in tables.items()
    )


def _training(facts: Mapping[str, Any]) -> str:
    training = facts["training"]
    data = training["data"]
    values = {
        "data": data["source"],
        "rows": f"{data['train']['rows']} (SHA-256 of texts and labels {data['train']['sha256']})",
        **training["settings"],
        "precision": training["precision"],
        "best epoch": training["best_epoch"],
        "temperature": f"{facts['temperature']:.4f}",
        "versions": ", ".join(f"{name} {version}" for name, version in training["versions"].items()),
    }
    return "\n".join(f"| {name.replace('_', ' ')} | {_cell(value)} |" for name, value in values.items())


def _epoch(entry: Mapping[str, float]) -> str:
    loss = f"{entry['loss']:.4f}" if "loss" in entry else ""
    return f"| {entry['epoch']:g} | {loss} | {entry['eval_loss']:.4f} | {entry['eval_accuracy']:.4f} |"


def _left_out(data: Mapping[str, Any]) -> str:
    reasons = [
        f"{count} {reason.replace('_', ' ')} ({split})"
        for split in ("train", "evaluation")
        for reason, count in data[split]["left_out"].items()
    ]
    return ", ".join(reasons) or "none"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
