"""What texts without labels brought (:mod:`batchscore.training.self_training`), in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchscore.records import Task
from batchscore.reports.linear_baseline import change_in_words


def self_training_line(task: Task, facts: Mapping[str, Any]) -> str:
    """Which model was kept, and how the two differ."""
    kept = "this one" if facts["is_better"] else "the one without them, which is kept"
    said = change_in_words(task, facts, "of the model trained without them", "with them")
    return f"{facts['learned']} texts without labels: {said}. Better on the rows that choose: {kept}"
