"""The probability from which a label is predicted: as asked for; of a multi-label model else the bundle's, or 0.5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from batchscore.errors import UsageError, printable
from batchscore.records import THRESHOLD, Task

if TYPE_CHECKING:
    from batchscore.model.bundle import Bundle

ALL_LABELS = ""
"""The key of a threshold for every label."""


def parse_thresholds(texts: Sequence[str]) -> dict[str, float]:
    """Parse ``LABEL=X``, or ``X`` for every label.

    >>> parse_thresholds(["0.4", "insult=0.7"])
    {'': 0.4, 'insult': 0.7}

    Raises:
        UsageError: no number from 0 to 1, or two thresholds for one label.
    """
    found: dict[str, float] = {}
    for text in texts:
        label, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not 0 <= value <= 1 or (equals and not label.strip()):
            raise UsageError(
                f"--threshold {printable(text)!r} is neither LABEL=X nor X, with X from 0 to 1; try 0.4 or insult=0.7"
            )
        if found.setdefault(label.strip(), value) != value:
            raise UsageError(f"--threshold has two values for {printable(label.strip() or 'all labels')}.")
    return found


def thresholds_of(bundle: Bundle, asked: Mapping[str, float]) -> tuple[float, ...]:
    """The threshold of each label: as asked for it, as asked for all, of a multi-label model else the bundle's, or 0.5.

    None at all for a model with one label a row if nothing was asked for; a label of it without a threshold has 0.

    Raises:
        UsageError: a label that the model does not have, or a model that has no use for thresholds.
    """
    if bundle.task == Task.REGRESSION and asked:
        raise UsageError("--threshold is for models that give labels, and this one gives a number.")
    if bundle.task == Task.REGRESSION or (bundle.task == Task.SINGLE_LABEL and not asked):
        return ()
    by_key = {label.casefold(): label for label in bundle.labels}
    given = {
        label if label in bundle.labels else by_key.get(label.casefold(), label): x
        for label, x in asked.items()
    }
    if strange := [label for label in given if label not in {*bundle.labels, ALL_LABELS}]:
        raise UsageError(
            f"--threshold {printable(strange[0])}=...: the model's labels are {printable(', '.join(bundle.labels))}."
        )
    own, least = (
        (bundle.facts.get("thresholds") or {}, THRESHOLD) if bundle.task == Task.MULTI_LABEL else ({}, 0.0)
    )
    usual = {label: asked.get(ALL_LABELS, own.get(label, least)) for label in bundle.labels}
    return tuple(float(given.get(label, usual[label])) for label in bundle.labels)
