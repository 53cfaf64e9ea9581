"""``jobs/gpu_check.py`` where there is no GPU: its pure parts, the time boxes, and a dry run of every step."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

JOBS = Path(__file__).parents[1] / "jobs"
sys.path.insert(0, str(JOBS))

import gpu_check  # noqa: E402
from gpu_steps import STEPS, Place, busy_share, reviews  # noqa: E402


def never_ends() -> None:
    subprocess.run(["sleep", "600"], check=True)


def breaks() -> None:
    raise ValueError("so it is")


def ends() -> None:
    return


def place(folder: Path) -> Place:
    return Place(folder, "a-step", dry=True, data=None)


def test_the_device_is_busy_where_any_span_is_and_only_within_the_window() -> None:
    assert busy_share([(0, 2), (1, 3), (4, 5), (9, 20), (-5, 0.5)], 0, 10) == pytest.approx(0.5)
    assert busy_share([(-9, 99)], 0, 10) == 1
    assert busy_share([], 0, 10) == 0


def test_made_reviews_have_the_lengths_of_real_ones_and_differ() -> None:
    found = reviews(2000)
    words = np.array([len(text.split()) for text in found])
    assert 160 < np.median(words) < 190
    assert 215 < words.mean() < 250
    assert len(set(found)) == len(found)
    assert reviews(10) == found[:10] or len(reviews(10)) == 10


def test_a_number_beyond_its_limit_or_none_at_all_fails(tmp_path: Path) -> None:
    here = place(tmp_path)
    for value in (0.5, 2, math.nan):
        here.check("at most 1", value, at_most=1)
        here.check("at least 1", value, at_least=1)
    here.goal("a goal", 1, 2)
    here.skip("a thing", "no reason")
    written = json.loads((tmp_path / "steps" / "a-step.json").read_text("utf-8"))
    assert [each.get("ok") for each in written] == [True, False, False, True, False, False, None, None]
    assert len(gpu_check.failed(written)) == 4
    shown = gpu_check.table(written)
    assert shown.count("FAILED") == 4
    assert "| no reason |" in shown


def test_a_missed_goal_fails_nothing(tmp_path: Path) -> None:
    here = Place(tmp_path, "a-step", dry=False, data=None)
    here.goal("reviews/s", 10, 5000)
    assert "missed" in gpu_check.table(here.found)
    assert not gpu_check.failed(here.found)


@pytest.mark.parametrize(
    ("run", "expected"),
    [(never_ends, "stopped after 1 s"), (breaks, "broke: ValueError: so it is"), (ends, "done")],
)
def test_a_step_is_stopped_with_what_it_started_or_says_how_it_ended(
    run: object, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import multiprocessing

    monkeypatch.setattr(gpu_check, "_CONTEXT", multiprocessing.get_context("fork"))
    started = time.monotonic()
    assert gpu_check.boxed(run, (), 1 if run is never_ends else 30, tmp_path / "log") == expected  # type: ignore[arg-type]
    assert time.monotonic() - started < 20


def test_a_step_without_time_is_not_begun_and_fails_the_check(tmp_path: Path) -> None:
    import argparse

    (tmp_path / "steps").mkdir()
    given = argparse.Namespace(output=tmp_path, dry=True, data=None)
    found = gpu_check.run_steps(["memory", "busy"], given, deadline=time.monotonic() - 1)
    assert [each["value"] for each in gpu_check.failed(found)] == ["not begun: no time left"] * 2


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(JOBS / "gpu_check.py"), "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert "has no CUDA GPU; --dry" in done.stderr


def test_what_is_imported_before_the_fork_does_not_start_cuda() -> None:
    look = (
        "import torch\n"
        "def no(*_): raise SystemExit('CUDA would start')\n"
        "torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = no\n"
        "torch._C._cuda_getDeviceCount = torch._C._cuda_init = no\n"
        "import transformers, gpu_steps\n"
    )
    done = subprocess.run([sys.executable, "-c", look], cwd=JOBS, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_every_step_runs_on_a_cpu_with_tiny_models(tmp_path: Path) -> None:
    steps = [step for step in STEPS if not step.startswith("throughput")]  # the bench has tests of its own
    command = ["bash", str(JOBS / "gpu_check.sh"), "--python", sys.executable, "--dry", "--output", "out"]
    done = subprocess.run(
        [*command, "--steps", ",".join(steps)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads((tmp_path / "out" / "gpu_check.json").read_text("utf-8"))
    found = facts["found"]
    assert {each["step"]: each["value"] for each in found if each["kind"] == "step"} == dict.fromkeys(
        steps, "done"
    )
    assert {each["step"] for each in found if each["kind"] == "check"} >= {"answers", "memory", "precisions"}
    (halvings,) = (each["value"] for each in found if each["what"] == "halvings of the budget")
    assert halvings == 3  # from 16,384 tokens to 2,048
    assert {each["step"] for each in found if each["kind"] == "skipped"} == {"experiments"}
    assert all(each["what"] in done.stdout for each in found)
