"""Sample reviews, written for this project, for the quickstart and the tests.

``reviews.jsonl`` has one review per line: ``id``, ``text`` (a few are null or empty), ``label``, ``split`` (``train`` or
``test``) and ``tags`` (``wrong_label`` if the label is wrong on purpose, ``long`` beyond 512 tokens, ``emoji``, …).

``python -m batchscore.samples FOLDER`` writes them as files: ``train.parquet``, ``reviews.parquet``, ``reviews.csv``.
"""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from typing import Any

COLUMNS = ("id", "text", "label")


def rows() -> list[dict[str, Any]]:
    """Every sample review with all its fields, in file order."""
    text = importlib.resources.files(__name__).joinpath("reviews.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def load(split: str) -> list[dict[str, Any]]:
    """The reviews of ``train`` or ``test`` as ``id``, ``text`` and ``label``."""
    return [{name: row[name] for name in COLUMNS} for row in rows() if row["split"] == split]


def wrong_label_ids() -> frozenset[str]:
    """Ids of the reviews whose label is wrong on purpose."""
    return frozenset(row["id"] for row in rows() if "wrong_label" in row["tags"])


def write(folder: Path) -> list[Path]:
    """Write the reviews to train on and the reviews to score (as Parquet and as CSV) into ``folder``."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    train, test = pd.DataFrame(load("train")), pd.DataFrame(load("test"))
    paths = [folder / name for name in ("train.parquet", "reviews.parquet", "reviews.csv")]
    train.to_parquet(paths[0], index=False)
    test.to_parquet(paths[1], index=False)
    test.to_csv(paths[2], index=False)
    return paths
