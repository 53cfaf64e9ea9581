"""Data checks before training: duplicates, conflicting labels, leakage, rare labels. Reported only; no row is dropped. Pure.

Texts are compared ignoring case, runs of white space and ``<br />``.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.errors import printable
from batchscore.formats.text_keys import text_key
from batchscore.training.splits import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.training.splits import Goal, Split, TrainingData

_LISTED = 20
_RARE = 10
"""A label with fewer training rows than this is reported."""
_SKEWED = 0.1
"""So is one with less than this share of what balanced labels would have."""


def hygiene_of(
    data: TrainingData, n_tokens: Mapping[str, NDArray[np.int32]], max_length: int
) -> dict[str, Any]:
    """Counts by split, as JSON values; ``n_tokens`` are the lengths of the texts of each split before any cut.

    ``duplicates`` are rows that repeat an earlier text; ``conflicting`` are rows whose text occurs with several labels;
    ``too_long`` are rows beyond ``max_length`` tokens. Places (``reviews.csv:17``) are listed for the first 20.
    """
    keys = {"train": _keys(data.train), "evaluation": _keys(data.evaluation)}
    splits = {"train": data.train, "evaluation": data.evaluation}
    facts = {
        name: _split_facts(split, keys[name], n_tokens[name], data.goal, max_length)
        for name, split in splits.items()
    }
    facts["evaluation"] |= _overlap(splits, keys)
    return facts


def _split_facts(
    split: Split, keys: Sequence[bytes], n_tokens: NDArray[np.int32], goal: Goal, max_length: int
) -> dict[str, Any]:
    labels_of: dict[bytes, set[Any]] = collections.defaultdict(set)
    for key, label in zip(keys, split.labels, strict=True):
        labels_of[key].add(label)
    conflicting = [row for row, key in enumerate(keys) if len(labels_of[key]) > 1]
    too_long = int((n_tokens > max_length).sum())
    return {
        "duplicates": len(keys) - len(labels_of),
        "conflicting": len(conflicting),
        "conflicting_at": _places(split, conflicting),
        "too_long": too_long,
        "too_long_share": too_long / max(len(split), 1),
        "longest": int(n_tokens.max(initial=0)),
        "shares": {
            name: count / max(len(split), 1) for name, count in counted(goal, split.labels)["labels"].items()
        },
    }


def _overlap(splits: Mapping[str, Split], keys: Mapping[str, Sequence[bytes]]) -> dict[str, Any]:
    """The overlap of the evaluation rows with the training rows."""
    trained = set(keys["train"])
    shared = [row for row, key in enumerate(keys["evaluation"]) if key in trained]
    groups = {group for group in splits["train"].groups if group is not None}
    return {
        "also_in_train": len(shared),
        "also_in_train_at": _places(splits["evaluation"], shared),
        "groups_also_in_train": len(groups & set(splits["evaluation"].groups)),
    }


def _keys(split: Split) -> list[bytes]:
    return [text_key(text) for text in split.texts]


def _places(split: Split, rows: Sequence[int]) -> list[str]:
    return [split.places[row] for row in rows[:_LISTED]] if split.places else []


def hygiene_lines(facts: Mapping[str, Any], rows: Mapping[str, int]) -> list[str]:
    """The findings for people, one sentence a line; none if all is well."""
    lines = []
    for name, each in facts.items():
        total, others = rows[name], len(each["shares"])
        if each["duplicates"]:
            lines.append(f"{each['duplicates']} of {total} {name} rows repeat the text of another one")
        if each["conflicting"]:
            where = _first(each["conflicting_at"])
            lines.append(
                f"{each['conflicting']} of {total} {name} rows have texts that come with several labels{where}"
            )
        if each["too_long"]:
            lines.append(
                f"{each['too_long']} of {total} {name} rows ({each['too_long_share']:.1%}) are too long, up to "
                f"{each['longest']} tokens; see --long-text"
            )
        if name == "train":
            lines += _rare(each["shares"], total, others)
    shared = facts["evaluation"]
    if shared["also_in_train"]:
        lines.append(
            f"{shared['also_in_train']} of {rows['evaluation']} evaluation rows have a text that is also trained on"
            f"{_first(shared['also_in_train_at'])}; the accuracy flatters"
        )
    if shared["groups_also_in_train"]:
        lines.append(f"{shared['groups_also_in_train']} groups are in both splits; the accuracy flatters")
    return lines


def _rare(shares: Mapping[str, float], total: int, n_labels: int) -> list[str]:
    rare = {name: round(share * total) for name, share in shares.items() if share * total < _RARE}
    skewed = {
        name: round(share * total)
        for name, share in shares.items()
        if name not in rare and share * n_labels < _SKEWED
    }
    lines = []
    if rare:
        lines.append(f"labels with few training rows: {_counted(rare)}")
    if skewed:
        lines.append(
            f"labels with a small share of the training rows: {_counted(skewed)}; see --class-weights"
        )
    return lines


def _counted(rows: Mapping[str, int]) -> str:
    listed = ", ".join(f"{printable(name)} {count}" for name, count in list(rows.items())[:_LISTED])
    return listed + (f" and {len(rows) - _LISTED} more" if len(rows) > _LISTED else "")


def _first(places: Sequence[str]) -> str:
    return f" (the first: {printable(places[0])})" if places else ""
