"""Freed memory is kept between operations and given back after each part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import run_score

from batchscore.config import ReadSettings

_HOLES = """
from pathlib import Path
from batchscore.system.allocator import give_back_freed_memory, keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

keep_freed_memory()
pieces = [bytes(1 << 16) for _ in range(4096)]
before = resident()
del pieces[1::2], pieces[::3]
held = resident()
give_back_freed_memory()
print(before, held, resident())
"""


def test_holes_between_what_is_in_use_go_back_to_the_kernel() -> None:
    done = subprocess.run([sys.executable, "-c", _HOLES], capture_output=True, text=True, check=True)
    before, held, after = map(int, done.stdout.split())
    assert before - held < 50  # of 256 MB
    assert held - after > 100


def test_a_run_gives_memory_back_after_its_plan_and_each_part(
    tiny_bundle: Path, reviews: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    for module in ("run", "scoring_parts"):
        monkeypatch.setattr(f"batchscore.runs.{module}.give_back_freed_memory", lambda: given.append(1))
    reviews.head(60).to_parquet(tmp_path / "in.parquet")
    run_score(tmp_path / "in.parquet", tiny_bundle, tmp_path / "run", read=ReadSettings(part_rows=20))
    assert len(given) == 1 + 3 + 1  # the plan, the parts, and what the last part left
