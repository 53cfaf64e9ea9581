"""``batchscore adopt``: any Hugging Face folder becomes a bundle with canaries, names and a temperature, or is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from test_probing import alone
from test_references import load
from test_scoring import rows_of

from batchscore.cli import main
from batchscore.evaluation import fit_temperature
from batchscore.model.bundle import open_bundle
from batchscore.model.exporting import _texts
from batchscore.model.scoring import score_part
from batchscore.runs.inspection import inspect, verify


def adopt(*arguments: Any) -> tuple[int, str]:
    """Exit code and everything said."""
    result = CliRunner().invoke(main, ["adopt", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture(scope="session")
def unnamed(make_model: Callable[..., Path]) -> Path:
    """A plain folder whose labels have no names, with files that do not belong into a bundle."""
    folder = make_model(("LABEL_0", "LABEL_1"), seed=3)
    (folder / "README.md").write_text("licence: mine\n", encoding="utf-8")
    (folder / "LICENSE").write_text("do as you like\n", encoding="utf-8")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04pickled")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"other weights")
    return folder


def labelled(path: Path, rows: int = 112) -> Path:
    """Texts whose labels have nothing to do with them, so that a sharp model is far too sure."""
    words = np.random.default_rng(0).choice(["good", "bad", "film", "plot", "never", "a"], size=(rows, 9))
    labels = np.random.default_rng(1).choice(["neg", "pos"], size=rows)
    table = pd.DataFrame({"text": [" ".join(row) for row in words], "sentiment": labels})
    table.loc[0, "text"] = None
    table.to_parquet(path)
    return path


@pytest.fixture(scope="session")
def adopted(unnamed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With names and a temperature."""
    folder = tmp_path_factory.mktemp("adopted")
    data = labelled(folder / "rows.parquet")
    names = ["--rename-label", "LABEL_0=NEGATIVE", "--rename-label", "LABEL_1=POSITIVE"]
    options = [*names, "--calibrate", data, "--label-column", "sentiment", "--json"]
    code, said = adopt(unnamed, "--output", folder / "bundle", *options)
    assert code == 0, said
    summary = json.loads(said.strip().splitlines()[-1])
    assert (summary["status"], summary["labels"]) == ("adopted", ["NEGATIVE", "POSITIVE"])
    assert (summary["evaluated"], summary["canaries"]) == (111, 32)
    return folder / "bundle"


def test_a_bundle_comes_out_that_verify_and_inspect_know(adopted: Path) -> None:
    assert verify(adopted)["kind"] == "bundle"
    facts = inspect(str(adopted))
    assert (facts["kind"], facts["canaries"], facts["labels"]) == ("bundle", 32, ["NEGATIVE", "POSITIVE"])
    assert facts["metrics"]["rows"] == 111
    result = CliRunner().invoke(main, ["inspect", str(adopted)])
    assert result.exit_code == 0, result.output


def test_what_is_copied_and_what_is_not(adopted: Path, unnamed: Path) -> None:
    names = {path.name for path in adopted.iterdir()}
    assert {"LICENSE", "README.md", "README.original.md", "model.safetensors", "tokenizer.json"} <= names
    assert not {"pytorch_model.bin", "onnx"} & names
    assert (adopted / "tokenizer.json").read_bytes() == (unnamed / "tokenizer.json").read_bytes()
    card = (adopted / "README.md").read_text(encoding="utf-8")
    assert "On 111 labelled rows (rows.parquet)" in card
    assert "README.original.md" in card


def test_plain_transformers_gives_the_calibrated_canaries(adopted: Path) -> None:
    bundle = open_bundle(str(adopted))
    assert bundle.canaries is not None
    expected = alone(adopted, [str(text) for text in bundle.canaries.texts], 512)
    np.testing.assert_allclose(bundle.canaries.probabilities, expected, rtol=0, atol=1e-6)


def test_the_temperature_is_the_one_that_fits_the_rows_and_in_the_weights(
    adopted: Path, unnamed: Path
) -> None:
    rows = pd.read_parquet(adopted.parent / "rows.parquet").dropna()
    logits = np.log(alone(unnamed, rows.text.tolist(), 512))
    given = np.array(rows.sentiment == "pos").astype(np.int64)
    wanted = fit_temperature(logits, given)
    bundle = open_bundle(str(adopted))

    def log_loss(temperature: float) -> float:
        scaled = logits / temperature
        each = np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(given)), given]
        return float(each.mean())

    # fitted in the device's fastest precision, and the minimum of a model that knows nothing is flat
    assert log_loss(bundle.calibration_temperature) == pytest.approx(log_loss(wanted), abs=1e-4)
    assert log_loss(wanted) < log_loss(1) - 1e-3
    assert bundle.temperature == 1


def test_its_rows_are_kept_for_an_export(adopted: Path) -> None:
    texts, held_out, source = _texts(open_bundle(str(adopted)))
    assert source == "training data"
    assert not {*texts} & {*held_out}
    assert min(len(texts), len(held_out)) > 20


def test_without_rows_canaries_are_texts_of_ours(tiny_model: Path, tmp_path: Path) -> None:
    code, said = adopt(tiny_model, "--output", tmp_path / "bundle")
    assert code == 0, said
    assert "2 labels (NEGATIVE, POSITIVE)" in said
    bundle = open_bundle(str(tmp_path / "bundle"))
    assert bundle.canaries is not None
    assert len(bundle.canaries.texts) > 20
    assert bundle.temperature == 1
    assert "Not measured" in (bundle.path / "README.md").read_text(encoding="utf-8")
    texts = [str(text) for text in bundle.canaries.texts]
    model, compute = load(bundle.path)
    assert compute["canaries"]["labels_changed"] == 0
    found = score_part(rows_of([*texts]), model).probabilities
    np.testing.assert_allclose(found, alone(tiny_model, texts, 512), rtol=0, atol=1e-5)


REFUSED: dict[str, tuple[list[str], int, str]] = {
    "no such label": (["--rename-label", "SOME=POSITIVE"], 2, "labels are LABEL_0, LABEL_1"),
    "one name for two": (["--rename-label", "LABEL_0=LABEL_1"], 2, "two labels would have one name"),
    "no pair": (["--rename-label", "LABEL_0"], 2, "is not OLD=NEW"),
    "a map without rows": (["--label-map", "neg=LABEL_0"], 2, "about the rows of --calibrate"),
    "no such data": (["--calibrate", "./nowhere.csv"], 66, "nowhere.csv"),
    "labels that it does not know": (["--calibrate", "DATA", "--label-column", "sentiment"], 65, "--label-map"),
    "too few rows": (["--calibrate", "FEW", "--label-column", "sentiment", "--label-map", "neg=LABEL_0 pos=LABEL_1"], 65, "needs 100"),
    "no column": (["--calibrate", "DATA", "--label-column", "star"], 65, "star"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_written(case: str, unnamed: Path, tmp_path: Path) -> None:
    options, code, words = REFUSED[case]
    given = {"DATA": labelled(tmp_path / "rows.parquet"), "FEW": labelled(tmp_path / "few.parquet", 90)}
    found, said = adopt(
        unnamed, "--output", tmp_path / "bundle", *(given.get(option, option) for option in options)
    )
    assert found == code, said
    assert words in said
    assert {path.name for path in tmp_path.iterdir()} == {"rows.parquet", "few.parquet"}


def test_a_bundle_is_not_adopted_again(tiny_bundle: Path, tmp_path: Path) -> None:
    code, said = adopt(tiny_bundle, "--output", tmp_path / "bundle")
    assert (code, "is a bundle already" in said) == (78, True)


def test_a_folder_that_is_not_scored_is_not_adopted(unnamed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(unnamed, folder)
    (folder / "modeling.py").write_text("import os\n", encoding="utf-8")
    code, said = adopt(folder, "--output", tmp_path / "bundle")
    assert (code, "code of its own" in said) == (78, True)
    assert adopt(unnamed, "--output", unnamed / "bundle")[0] == 2


def test_what_is_there_already_is_replaced_only_with_force(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "batchscore.json").write_bytes(b"{}")
    assert adopt(tiny_model, "--output", tmp_path / "bundle")[0] == 73
    code, said = adopt(tiny_model, "--output", tmp_path / "bundle", "--force", "-q")
    assert (code, said) == (0, "")
    assert verify(tmp_path / "bundle")["kind"] == "bundle"
