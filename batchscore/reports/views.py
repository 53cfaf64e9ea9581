"""What the page of a run has of its own by task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchscore.reports.answers import Metrics, Verdict
from batchscore.reports.row_groups import Group


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """A template that extends ``run_page.html``, and what it is filled with."""

    template: str
    row: str
    """The template of one mismatch in words."""
    verdict: Verdict
    changed: Callable[[Metrics], str]
    """From ``comparison``, in words, what the changed predictions mean; empty without labels."""
    lines: Callable[[Sequence[Metrics], bool], list[dict[str, Any]]]
    """Mismatches as the page shows them, with or without their texts."""
    parts: Mapping[str, Any]
    """``estimate``, ``slices`` with its title and note, ``changes`` with its title, ``worst`` with its title and note, and whatever the
    template names besides."""


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """What the page of a run is made of."""

    metrics: Metrics
    baseline: Metrics | None
    listed: int
    """How many of the mismatches worth checking first are on the page."""
    links: Mapping[Group, str]
    """Where the rows of a group are on the page."""
