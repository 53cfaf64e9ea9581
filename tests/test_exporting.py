"""The int8 variant: made, judged, used and refused. Skipped in part where openvino or nncf are not installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import run_score
from crashing import KILLED, Fault, in_child
from test_workers import predictions_of

from batchscore import samples
from batchscore.config import ComputeSettings
from batchscore.errors import ModelError
from batchscore.model import exporting
from batchscore.model.backends import openvino_backend
from batchscore.model.bundle import INT8_LIMITS, open_bundle, seal
from batchscore.model.bundle_facts import FACTS, parity_problems
from batchscore.runs.inspection import verify
from batchscore.system.storage import files_below

needs_openvino = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("openvino", "nncf")),
    reason="openvino and nncf are not installed (extra: openvino)",
)
GOOD = {"texts": 200, "labels_changed": 1, "largest_change": 0.1, "mean_change": 0.004}


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        ({}, []),
        ({"labels_changed": 2}, []),
        ({"labels_changed": 3}, ["labels changed share 0.0150, allowed 0.01"]),
        ({"largest_change": 0.26}, ["largest change 0.2600, allowed 0.25"]),
        ({"mean_change": float("nan")}, ["mean change nan, allowed 0.01"]),
    ],
    ids=str,
)
def test_a_variant_is_held_against_its_limits(change: dict[str, Any], problems: list[str]) -> None:
    assert parity_problems({"parity": {**GOOD, **change}, "limits": INT8_LIMITS}) == problems


def test_a_bundle_without_a_variant_says_how_to_make_one(tiny_bundle: Path, tmp_path: Path) -> None:
    pd.DataFrame({"text": ["a film"]}).to_csv(tmp_path / "in.csv", index=False)
    with pytest.raises(ModelError, match=r"no int8 variant.*batchscore export"):
        run_score(
            tmp_path / "in.csv", tiny_bundle, tmp_path / "run", compute=ComputeSettings(precision="int8")
        )


def test_a_plain_folder_cannot_be_exported_into(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="no bundle"):
        exporting.export_int8(str(tiny_model))


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(ModelError, match=r"pip install 'batchscore\[openvino\]'"):
        openvino_backend.import_openvino()


def command(*arguments: object) -> str:
    """What the command says; in a process of its own, as one with OpenVINO in it cannot be forked any more."""
    program = (
        "from batchscore.model import exporting\n"
        "exporting.INT8_LIMITS = dict.fromkeys(exporting.INT8_LIMITS, 1.0)  # of a model with random weights\n"
        "from batchscore.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def calibrated(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that keeps a few calibration texts of its own."""
    folder = tmp_path_factory.mktemp("exporting") / "bundle"
    shutil.copytree(tiny_bundle, folder)
    texts = [row["text"] for row in samples.rows() if (row["text"] or "").strip()]
    facts = json.loads((folder / FACTS).read_bytes())
    kept = {"texts": texts[:12], "held_out": texts[12:24]}
    named = {key: value for key, value in facts.items() if key not in ("files", "sha256", "format_version")}
    seal(folder, {**named, "calibration": kept})
    return folder


@pytest.fixture(scope="module")
def exported(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an int8 variant, whose limits a model with random weights may exceed."""
    folder = tmp_path_factory.mktemp("exported") / "bundle"
    shutil.copytree(calibrated, folder)
    told = json.loads(command("export", folder, "--json").splitlines()[-1])
    assert told["parity"]["texts"] == 12
    assert told["problems"] == []
    return folder


@needs_openvino
@pytest.mark.slow
def test_an_exported_bundle_is_sound_and_keeps_what_it_was(calibrated: Path, exported: Path) -> None:
    assert verify(exported)["kind"] == "bundle"
    before, after = open_bundle(str(calibrated)), open_bundle(str(exported))
    variant = after.facts["variants"]["int8"]
    assert variant["calibration"] == {"source": "training data", "texts": 12}
    assert 0 < variant["parity"]["largest_change"] < 1
    assert {key: value for key, value in after.facts.items() if key in before.facts and key != "files"} | {
        "sha256": ""
    } == {key: value for key, value in before.facts.items() if key != "files"} | {"sha256": ""}
    assert before.fingerprint != after.fingerprint


@needs_openvino
def test_int8_scores_the_same_bits_whatever_the_workers(
    exported: Path, tmp_path: Path, reviews: pd.DataFrame
) -> None:
    reviews.head(50).to_parquet(tmp_path / "in.parquet")
    for name, precision, workers in (("one", "int8", 1), ("three", "int8", 3), ("plain", "fp32", 1)):
        options = ("--model", exported, "--output", tmp_path / name, "--precision", precision)
        command("score", tmp_path / "in.parquet", *options, "--workers", workers, "--max-batch-tokens", 512)
    assert predictions_of(tmp_path / "one") == predictions_of(tmp_path / "three")
    facts = json.loads((tmp_path / "one" / "run.json").read_bytes())
    assert (facts["compute"]["backend"], facts["compute"]["precision"]) == ("openvino", "int8")
    small, plain = (
        pd.read_parquet(tmp_path / run / "predictions" / "in.parquet") for run in ("one", "plain")
    )
    change = np.abs(small.prob_POSITIVE - plain.prob_POSITIVE)
    assert 0 < change.mean() < 0.2  # another precision, the same model


@needs_openvino
def test_a_variant_beyond_its_limits_is_refused_before_anything_is_scored(
    exported: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(exported, folder)
    facts = json.loads((folder / FACTS).read_bytes())
    facts["variants"]["int8"]["limits"] = dict.fromkeys(INT8_LIMITS, 0.0)
    seal(
        folder,
        {key: value for key, value in facts.items() if key not in ("files", "sha256", "format_version")},
    )
    pd.DataFrame({"text": ["a film"]}).to_csv(tmp_path / "in.csv", index=False)
    with pytest.raises(ModelError, match="too far from float32"):
        run_score(tmp_path / "in.csv", folder, tmp_path / "run", compute=ComputeSettings(precision="int8"))


@needs_openvino
def test_a_second_export_replaces_the_first(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(exported, folder)
    (folder / "openvino" / "int8-left-behind.bin").write_bytes(b"of a killed export")
    command("export", folder)
    assert len([name for name in files_below(folder) if name.startswith("openvino/")]) == 2
    assert verify(folder)["kind"] == "bundle"


def test_an_export_that_is_killed_leaves_the_bundle_as_it_was_or_as_it_is_to_be(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models, which only read the bundle, are made up: what is looked at is the order in which files change."""

    def quantise(_: Any, __: Any, path: Path) -> None:
        for suffix in (".xml", ".bin"):
            path.with_suffix(suffix).write_bytes(suffix.encode())

    def probabilities(_: Any, texts: list[str]) -> Any:
        return np.full((len(texts), 2), 0.5, dtype=np.float32)

    monkeypatch.setattr(exporting, "_quantise", quantise)
    monkeypatch.setattr(exporting, "_probabilities", probabilities)
    monkeypatch.setattr(exporting, "_model", lambda *_: None)
    for name in ("TorchBackend", "OpenVinoBackend", "_refuse_unpadded"):
        monkeypatch.setattr(exporting, name, lambda *_: None)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1")
    for step in range(1, 100):
        folder = tmp_path / str(step)
        shutil.copytree(calibrated, folder)
        code = in_child(lambda: exporting.export_int8(str(folder)), Fault(folder, step))  # noqa: B023
        is_exported = "variants" in open_bundle(str(folder)).facts
        assert verify(folder)["kind"] == "bundle"
        if code == 0:
            assert is_exported
            break
        assert code == KILLED
        shutil.rmtree(folder)
    assert step > 6, "the steps were not found"
