"""What the page of a run has of its own by task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from batchscore.reports.answers import Metrics, Verdict


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """A template that extends ``run_page.html``, and what it is filled with."""

    template: str
    verdict: Verdict
    changed: Callable[[Metrics], str]
    """From ``comparison``, in words, what the changed predictions mean; empty without labels."""
    parts: Mapping[str, Any]
    """``estimate``, ``slices`` with its title and note, ``changes`` with its title, ``worst`` with its title and note, and whatever the
    template names besides."""
