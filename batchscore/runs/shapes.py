"""The shapes of a run's documents, as far as they are read again: held against each when it is read.

What is missing is for the reader to say: earlier versions wrote less. What is read deeper than this (a metric's own figures) is
read by one place each, which says what it makes of damage.
"""

from __future__ import annotations

from typing import Any

from batchscore.system.documents import Shape

_COLUMNS: dict[str, Any] = {"text": str, "label?": str, "id?": str, "text_pair?": str, "labels?": [str]}
_FILE = {
    "name?": str,
    "path?": str,
    "format?": str,
    "compression?": str,
    "sha256?": str,
    "rows?": int,
    "rejects?": int,
    "columns?": _COLUMNS,
    "dialect?": {str: str},
    "label_values?": {str: str},
    "label_reading?": str,
    "class_names?": [str],
}
FACTS: Shape = {
    "fingerprint?": str,
    "date?": str,
    "finished?": str,
    "files?": [_FILE],
    "model?": {"path?": str, "fingerprint?": str, "labels?": [str], "task?": str},
    "baseline?": {"path?": str, "content?": str},
    "measured_by?": {
        "calibration_error?": int | float,
        "temperature?": int | float,
        "trained": {str: object},
    },
    "evaluates?": {"name": str, "manifest": str, "path": str},
    "labels?": {"files": [{"key": str, "sha256": str}], "rows": int},
    "options?": {
        "output_format?": str,
        "baseline?": str,
        "partition_by?": str,
        "prefix?": str,
        "renames?": {str: str},
    },
    "deciding?": str,
}
"""Of ``run.json``."""
_GATE = {"metric?": str, "passed?": bool, "limit?": int | float}
METRICS: Shape = {
    "counts?": {str: int},
    "task?": str,
    "gates?": [_GATE],
    "quality?": {str: object},
    "mismatches?": int,
}
"""Of ``metrics.json``."""
CHOSEN: Shape = {"path?": str, "content?": str, "names": [str], "labels": [str]}
"""Of ``.staging/baseline.json``."""
ACCEPTING: Shape = {"model": str, "accepting": {str: object}}
"""Of ``.staging/accepting.json``."""
NOTE: Shape = {"exit_code": int, "reason": str, "at": str, "date": str}
"""Of ``refused.json``."""
PLAN: Shape = {
    "plan": {
        "files": [
            {
                **dict.fromkeys(
                    ("path", "name", "format", "compression", "sha256", "label_reading", "given_as"), str
                ),
                **dict.fromkeys(("size", "rows", "rejects", "labelled"), int),
                "layout": {"columns": [[str]], "details": {str: object}},
                "columns": _COLUMNS,
                "unknown_labels": {str: int},
                "label_values": {str: str},
                "has_label_column": bool,
            }
        ],
        "parts": [[int | str]],
    },
    "rejects": str,
}
"""Of ``plan.json``, beside what its parts and columns are made of."""
REJECT: Shape = {"file": str, "row": int}
"""Of a line of ``rejects.jsonl``."""
JOURNAL: Shape = {
    "shard?": int,
    "parts?": int,
    "sha256?": str,
    "work?": {str: int | float},
    "reused_from?": str,
    "deciding?": str,
    "compute?": {
        "backend?": str,
        "device?": str,
        "precision?": str,
        "padding?": str,
        "max_batch_tokens?": int,
        "long_text?": str,
        "canaries?": {str: object},
        "references?": {str: object},
    },
}
"""Of an entry of a run's journal: a staged shard, of so many parts, and where some of its answers were taken from; how it is computed; or by what a
start's answers are known."""
MICRO_BATCH: Shape = {
    "budget": int,
    "number": int,
    "seconds": int | float,
    "sequence": str,
    "logits": str,
    "work": {str: int | float},
}
"""Of an entry of a shard's journal: a micro-batch that is done."""
