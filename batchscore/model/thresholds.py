"""The probability from which a label is predicted: as asked for; of a multi-label model else the bundle's, or 0.5."""

from __future__ import annotations

import decimal
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


def parse_accept(text: str | None) -> float | None:
    """Parse ``precision=X``, X a share or a percentage; None for None.

    >>> parse_accept("precision=98%")
    0.98

    Raises:
        UsageError: anything else, or no share between 0 and 1.
    """
    if text is None:
        return None
    name, _, number = text.partition("=")
    value = _share(number)
    if name.strip() != "precision" or value is None:
        raise UsageError(
            f"--accept {printable(text)!r} is not precision=X, with X above 0 and below 1; try precision=0.98"
        )
    return value


def parse_confidence(text: str) -> float:
    """Parse a share or a percentage; raises :class:`UsageError` unless it is between 0 and 1.

    >>> parse_confidence("95%")
    0.95
    """
    value = _share(text)
    if value is None:
        raise UsageError(
            f"--accept-confidence {printable(text)!r} is no number above 0 and below 1; try 0.95"
        )
    return value


def _share(text: str) -> float | None:
    percent = text.strip().endswith("%")
    try:
        number = decimal.Decimal(text.strip().removesuffix("%"))
    except decimal.InvalidOperation:
        return None
    value = float(number / 100 if percent else number)
    return value if 0 < value < 1 else None


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
