"""Small runs to review, scored by a model that answers at once, and their reviews."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from conftest import run_score
from task_models import answering_at_once, without_page

from batchscore.reviewing.session import Review, ReviewSettings, opened

LABELS = ("NEGATIVE", "POSITIVE")
WORDS = ("good", "bad", "film", "plot", "dull", "great", "actor", "scene", "long", "short")


def table(rows: int, labels: tuple[str, ...] = LABELS) -> pd.DataFrame:
    """Rows that all differ, with an id, a label, and a shop to slice by."""
    numbers = range(rows)
    words = [" ".join(WORDS[(k // 10**place) % 10] for place in range(5)) for k in numbers]
    return pd.DataFrame(
        {
            "id": [f"r{k}" for k in numbers],
            "text": [f"{text} number {k}" for k, text in enumerate(words)],
            "label": [labels[k % len(labels)] for k in numbers],
            "shop": [("north", "south")[k % 3 == 0] for k in numbers],
        }
    )


def scored(model: Path, folder: Path, rows: pd.DataFrame, name: str = "r.csv", **options: Any) -> Path:
    """The run folder of a table, written as CSV or Parquet."""
    path = folder / name
    rows.to_csv(path, index=False) if name.endswith(".csv") else rows.to_parquet(path)
    with answering_at_once(model), without_page():
        run_score(path, model, folder / "run", **options)
    return folder / "run"


def copied(run: Path, folder: Path) -> Path:
    """A run of its own, whose review begins anew."""
    shutil.copytree(run, folder / "run")
    return folder / "run"


@contextlib.contextmanager
def reviewed(run: Path, **settings: Any) -> Iterator[Review]:
    """A review of a run, open."""
    with opened(ReviewSettings(run, **{"unsure_below": 0.6, "n_drawn": 20, **settings})) as review:
        yield review
