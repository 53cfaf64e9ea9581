"""What a run is called at the head of its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchscore.reports.formats import moment, shown


def title(facts: Mapping[str, Any]) -> str:
    """The first input, and how many more there are."""
    files = facts.get("files") or []
    first = shown(files[0]["name"], 60) if files else "no file"
    return f"{first} and {len(files) - 1} more" if len(files) > 1 else first


def subtitle(facts: Mapping[str, Any]) -> str:
    """When the run finished, its model, and where it computed."""
    compute, model = facts.get("compute") or {}, facts.get("model") or {}
    where = ", ".join(shown(compute[key]) for key in ("device", "precision") if compute.get(key))
    finished = moment(facts["finished"]) if facts.get("finished") else ""
    path = shown(model["path"]) if model.get("path") else ""
    labels = facts.get("labels") or {}
    later = f"with {labels['rows']:,} labels, some of which came later" if labels.get("files") else ""
    return " · ".join(text for text in (finished, path, where, later) if text)
