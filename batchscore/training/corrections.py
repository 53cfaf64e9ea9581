"""Labels that people put right after a run, applied to the rows of a training.

A correction is of a text, whatever file it stands in: every row with that text gets the label that was found right, in the training
rows and in those of the evaluation. A reviewed text that the data lack is one more training row, unless it is held out. It is never
one to evaluate on: what is reviewed first was chosen for looking wrong, and would make any model look worse than it is.

A row that nobody could tell is left out of the training rows, and kept with its label in the evaluation, which would be easier
than life without the hard ones. One that has none of the labels is left out of both.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from batchscore.errors import DataError, UsageError, printable
from batchscore.formats.text_keys import text_key
from batchscore.model.labels import label_key
from batchscore.records import Task, Text
from batchscore.training.splits import Split, TrainingData

ADDED = "reviewed"
"""Where a row comes from that the data lack."""
_LISTED = 20


class Correction(NamedTuple):
    """What was found of one text."""

    text_hash: str
    """:func:`batchscore.formats.text_keys.text_key`, hexadecimal."""
    text: Text | None
    """None if it is not known any more; such a text is corrected where it stands in the data, and cannot be added."""
    label: str | None
    """The right label; None if there is none, or nobody could tell."""
    is_unsure: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Corrections:
    """All that was found in one review."""

    source: str
    rows: tuple[Correction, ...]

    @property
    def sha256(self) -> str:
        """Over texts and labels in order, hexadecimal."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(json.dumps([row.text_hash, row.label, row.is_unsure]).encode() + b"\n")
        return digest.hexdigest()


@dataclasses.dataclass(slots=True)
class Changes:
    """What corrections changed, counted."""

    changed: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    """Rows by the label that they had and the one that they have now."""
    evaluation: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    """The same of rows to evaluate on."""
    confirmed: int = 0
    """Rows, of either kind, whose label was found right."""
    added: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Training rows that the data lack, by label."""
    left_out: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Rows and texts without use, by reason."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        pairs = {"changed": self.changed, "evaluation_changed": self.evaluation}
        told = {
            name: [{"from": old, "to": new, "rows": rows} for (old, new), rows in sorted(each.items())]
            for name, each in pairs.items()
        }
        return {
            **told,
            "confirmed": self.confirmed,
            "added": dict(sorted(self.added.items())),
            "left_out": dict(sorted(self.left_out.items())),
        }


def corrected(data: TrainingData, corrections: Corrections, held_out: Iterable[Text]) -> TrainingData:
    """The data with their labels put right, and what changed.

    ``held_out``: texts that may not be trained on, besides those of the evaluation rows. Where rows have groups nothing is added, as
    it is not known which group a reviewed text is of.

    Raises:
        DataError: a label that the data have not.
        UsageError: texts have no label each, but several, or a number.
    """
    if data.goal.task != Task.SINGLE_LABEL:
        raise UsageError("--corrections is for one label a text. Leave it out.")
    labels, changes = data.labels, Changes()
    found = _by_text(corrections, labels, changes)
    train = _applied(data.train, found, labels, changes, changes.changed, unsure_stays=False)
    evaluation = _applied(data.evaluation, found, labels, changes, changes.evaluation, unsure_stays=True)
    known = {
        text_key(text).hex() for text in itertools.chain(data.train.texts, data.evaluation.texts, held_out)
    }
    added = _useful([row for key, row in found.items() if key not in known], changes, bool(data.train.groups))
    facts = {"source": corrections.source, "sha256": corrections.sha256, **changes.to_json()}
    return dataclasses.replace(
        data, train=_with(train, added, labels), evaluation=evaluation, corrections=facts
    )


def _useful(rows: Sequence[Correction], changes: Changes, has_groups: bool) -> list[tuple[Text, str]]:
    """Text and label of each reviewed text that the data lack, and that can be trained on."""
    found: list[tuple[Text, str]] = []
    for row in rows:
        if row.label is None:
            changes.left_out["unsure" if row.is_unsure else "none_of_the_labels"] += 1
        elif row.text is None:
            changes.left_out["text_changed_by_a_spreadsheet"] += 1
        elif has_groups:
            changes.left_out["group_unknown"] += 1
        else:
            changes.added[row.label] += 1
            found.append((row.text, row.label))
    return found


def _with(train: Split, added: Sequence[tuple[Text, str]], labels: Sequence[str]) -> Split:
    """The training rows and those that are added."""
    index = {name: place for place, name in enumerate(labels)}
    return dataclasses.replace(
        train,
        texts=[*train.texts, *(text for text, _ in added)],
        labels=[*train.labels, *(index[label] for _, label in added)],
        places=[*train.places, *[ADDED] * len(added)] if train.places else [],
    )


def _by_text(corrections: Corrections, labels: Sequence[str], changes: Changes) -> dict[str, Correction]:
    """One correction for each text, with the labels of the training; texts of which different things were found are left out."""
    names = {label_key(name): name for name in labels}
    found: dict[str, Correction] = {}
    differing: set[str] = set()
    for row in corrections.rows:
        if row.label is not None and label_key(row.label) not in names:
            raise DataError(
                f"{printable(corrections.source)}: a row was found to be {printable(row.label)[:40]}, and the data have no such label "
                f"({printable(', '.join(labels[:_LISTED]))}). Name their labels as the run does with --label-name."
            )
        named = row._replace(label=None if row.label is None else names[label_key(row.label)])
        before = found.setdefault(row.text_hash, named)
        if (before.label, before.is_unsure) != (named.label, named.is_unsure):
            differing.add(row.text_hash)
        elif before.text is None:
            found[row.text_hash] = named
    changes.left_out["found_differently"] += len(differing)
    changes.left_out += collections.Counter()  # without those of which there are none
    return {key: row for key, row in found.items() if key not in differing}


def _applied(
    split: Split,
    found: Mapping[str, Correction],
    labels: Sequence[str],
    changes: Changes,
    counted: collections.Counter[tuple[str, str]],
    *,
    unsure_stays: bool,
) -> Split:
    """A split with its labels put right."""
    kept, now = [], list(split.labels)
    index = {name: place for place, name in enumerate(labels)}
    for row, text in enumerate(split.texts):
        correction = found.get(text_key(text).hex())
        if correction is None or (correction.is_unsure and unsure_stays):
            kept.append(row)
        elif correction.label is None:
            changes.left_out["unsure" if correction.is_unsure else "none_of_the_labels"] += 1
        else:
            old, new = labels[now[row]], correction.label
            if old == new:
                changes.confirmed += 1
            else:
                counted[old, new] += 1
            now[row] = index[new]
            kept.append(row)
    return dataclasses.replace(split, labels=now).select(kept)


def lines_of(facts: Mapping[str, Any]) -> list[str]:
    """What changed, a sentence a line, and never a text; nothing without corrections."""
    if not facts:
        return []
    lines = [f"corrections from {printable(facts['source'])}: {facts['confirmed']} labels were found right"]
    for name, what in (("changed", "training"), ("evaluation_changed", "evaluation")):
        lines += [
            f"corrected: {pair['rows']} {what} rows from {printable(pair['from'])} to {printable(pair['to'])}"
            for pair in facts[name][:_LISTED]
        ]
    if facts["added"]:
        added = ", ".join(f"{printable(name)} {rows}" for name, rows in facts["added"].items())
        lines.append(f"added to the training rows: {added}, which the data lack")
    lines += [
        f"without use: {rows} reviewed rows, {reason.replace('_', ' ')}"
        for reason, rows in facts["left_out"].items()
    ]
    return lines
