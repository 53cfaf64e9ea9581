"""What the README tells people to do is done here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from batchscore import samples
from batchscore.errors import BatchscoreError
from batchscore.runs.inspection import inspect, verify

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_command_reference_is_up_to_date() -> None:
    check = [sys.executable, "jobs/reference.py", "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_readme_points_to_the_command_reference() -> None:
    (link,) = re.findall(r"^Every option: \[.*\]\((.*)\)$", README, re.M)
    assert "### batchscore score" in (ROOT / link).read_text(encoding="utf-8")


def test_the_exit_codes_in_the_readme_are_those_of_the_errors() -> None:
    table = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", README, re.M) for code in row.split(",")}
    classes: list[type[BatchscoreError]] = [BatchscoreError, *BatchscoreError.__subclasses__()]
    codes = {error.exit_code for error in classes}
    assert codes | {0, 130, 143} == table


def test_readme_names_the_two_commands() -> None:
    assert "bash jobs/quickstart.sh" in README
    assert "bash tests/run.sh" in README


@pytest.mark.slow
def test_the_quickstart_ends_with_a_model_two_runs_and_a_page(tmp_path: Path) -> None:
    command = ["bash", "jobs/quickstart.sh", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    assert verify(tmp_path / "model")["kind"] == "bundle"
    for name in ("run-parquet", "run-csv"):
        assert verify(tmp_path / name)["kind"] == "run"
        assert (tmp_path / name / "report.html").stat().st_size > 1000
    scored = pd.read_parquet(tmp_path / "run-parquet" / "predictions" / "reviews.parquet")
    assert len(scored) == len(samples.load("test"))
    accuracy = inspect(str(tmp_path / "run-parquet"))["accuracy"]["value"]
    assert accuracy > 0.6  # far from chance: 140 rows, some of them with wrong labels


def test_the_samples_are_what_they_are_said_to_be() -> None:
    rows = samples.rows()
    tags = {tag for row in rows for tag in row["tags"]}
    assert len(rows) >= 600
    assert len({row["id"] for row in rows}) == len(rows)
    assert {
        "br",
        "quotes",
        "linebreak",
        "emoji",
        "accents",
        "negation",
        "mixed",
        "sarcasm",
        "long",
        "null",
        "empty",
    } <= tags
    texts = [row["text"] for row in rows if row["text"]]
    assert any("<br />" in text for text in texts)
    assert any("\r\n" in text for text in texts)
    assert 15 <= len(samples.wrong_label_ids()) <= 60
    assert {row["split"] for row in rows} == {"train", "test"}
