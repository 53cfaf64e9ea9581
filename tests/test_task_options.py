"""The command line of models with several labels and with one number: options, and what is printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from task_models import answering_at_once, one_number, several_labels, without_page

from batchscore.cli.score import command
from batchscore.errors import UsageError
from batchscore.model.thresholds import parse_thresholds


@pytest.fixture(scope="module", autouse=True)
def no_page() -> Iterator[None]:
    with without_page():
        yield


def run(model: Path, path: Path, output: Path, *args: str) -> tuple[int, str]:
    with answering_at_once(model):
        arguments = [str(path), "--model", str(model), "--output", str(output), *args]
        result = CliRunner().invoke(command, arguments)
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    texts = ["a film", "the plot", "never boring", "wonderful music"]
    sets = pd.DataFrame({"text": texts, "a": [0, 1, 0, 1], "b": [1, 1, 0, 0], "threat": [0, 0, 0, 1]})
    sets.to_csv(folder / "sets.csv", index=False)
    pd.DataFrame({"text": texts, "score": [0.5, 1.5, -1.0, 0.25]}).to_csv(folder / "numbers.csv", index=False)
    models = {"several": several_labels(folder / "several"), "number": one_number(folder / "number")}
    return {"sets": folder / "sets.csv", "numbers": folder / "numbers.csv", **models}


def test_several_labels_from_the_command_line(files: dict[str, Path], tmp_path: Path) -> None:
    code, said = run(
        files["several"], files["sets"], tmp_path / "run",
        *("--label-columns", "a,b,threat", "--label-map", "a=toxic", "b=insult"),
        *("--threshold", "0.4", "--threshold", "Toxic=0.6", "--json"),
    )  # fmt: skip
    assert code == 0, said
    summary = json.loads(said.splitlines()[-1])
    metrics: dict[str, Any] = json.loads((tmp_path / "run/metrics.json").read_bytes())
    assert summary["micro_f1"] == metrics["quality"]["micro_f1"]["value"]
    assert "accuracy" not in summary
    assert metrics["counts"]["labelled"] == 4
    facts = json.loads((tmp_path / "run/run.json").read_bytes())
    assert facts["model"]["thresholds"] == [0.6, 0.4, 0.4]
    assert facts["files"][0]["columns"]["labels"] == ["a", "b", "threat"]


def test_a_number_from_the_command_line(files: dict[str, Path], tmp_path: Path) -> None:
    code, said = run(files["number"], files["numbers"], tmp_path / "run")
    assert code == 0, said
    assert "mean absolute error" in said
    assert "those furthest off are in mismatches.parquet" in said
    code, said = run(files["number"], files["numbers"], tmp_path / "other", "--tolerance", "0.1", "--json")
    assert json.loads(said.splitlines()[-1])["mismatches"] is not None
    code, said = run(files["number"], files["numbers"], tmp_path / "planned", "--dry-run")
    assert "label in score" in said


@pytest.mark.parametrize("text", ["x", "1.5", "-0.1", "nan", "=0.5", "a=", "a=b"])
def test_a_threshold_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--threshold"):
        parse_thresholds([text])


def test_two_thresholds_for_one_label_are_refused() -> None:
    with pytest.raises(UsageError, match="two values for all labels"):
        parse_thresholds(["0.5", "0.6"])
