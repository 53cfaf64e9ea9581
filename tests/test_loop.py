"""The loop, small, as a user does it with the installed commands, on real reviews."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import browser
import pytest

SMALL = {"train": 120, "night": 120, "flipped": 12, "reviewed": 24, "held-out": 60}
TRAINING = "recipe head pooling mean epochs 30 learning-rate 5e-3 max-length 96"


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on this machine")
def test_mismatches_are_reviewed_corrected_trained_on_and_judged(imdb: Path, tmp_path: Path) -> None:
    program = [sys.executable, str(Path(__file__).with_name("loop.py")), "--reviews", str(imdb)]
    sizes = [part for name, rows in SMALL.items() for part in (f"--{name}", str(rows))]
    work = ["--work", str(tmp_path / "work"), *sizes, "--training", *TRAINING.split()]
    done = subprocess.run([*program, *work], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert sum(found["keys"].values()) == SMALL["reviewed"]
    assert found["flips found"] == found["keys"].get("2", 0) > 0  # labels of IMDB are taken to be right
    assert found["champion"] == {0: "second", 3: "first"}[found["promote"]]
    facts = json.loads((tmp_path / "work" / "second" / "batchscore.json").read_bytes())
    assert json.dumps(facts).count("corrections")
