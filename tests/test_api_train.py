"""The trainer from Python: tables, splits, what comes back, what is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

import batchscore
from batchscore import samples
from batchscore.cli.train import command
from batchscore.errors import DataError, OutputError, UsageError

QUICK: dict[str, Any] = {"recipe": "head", "epochs": 1, "max_length": 16, "precision": "fp32", "quiet": True}


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rows = pd.DataFrame(samples.load("train")).dropna().head(40)
    return rows[["text", "label"]].reset_index(drop=True)


def weights(bundle: Path) -> bytes:
    return (bundle / "model.safetensors").read_bytes()


def test_a_frame_trains_the_model_that_its_file_trains(
    data: pd.DataFrame, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    import datasets
    from transformers.utils import logging as transformers_logging

    base = make_model()
    verbosity = transformers_logging.get_verbosity()
    datasets.enable_progress_bars()  # a command in this process may have turned them off
    data.to_parquet(tmp_path / "data.parquet")
    model = batchscore.train(data, tmp_path / "ours", base_model=base, **QUICK)
    assert not datasets.are_progress_bars_disabled()
    assert transformers_logging.get_verbosity() == verbosity
    theirs = tmp_path / "theirs"
    flags = ["--recipe", "head", "--epochs", "1", "--max-length", "16", "--precision", "fp32", "-q"]
    given = ["--data", tmp_path / "data.parquet", "--output", theirs, "--base-model", base, *flags]
    assert CliRunner().invoke(command, [str(each) for each in given]).exit_code == 0
    assert weights(model.bundle) == weights(theirs)
    facts = json.loads((theirs / "batchscore.json").read_bytes())
    assert model.metrics == facts["metrics"]
    assert (model.labels, model.rows, model.status) == (("NEGATIVE", "POSITIVE"), 32, "trained")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.parquet", "ours", "theirs"]

    assert "accuracy" in repr(model)
    shown = model._repr_markdown_()
    assert shown == model.card._repr_markdown_()
    assert shown.startswith("#")
    assert Path(model) == model.bundle
    run = batchscore.score(data.head(4), model, precision="fp32", quiet=True)
    assert run.predictions.num_rows == 4

    with pytest.raises(OutputError, match="--force"):
        batchscore.train(data, tmp_path / "ours", base_model=base, **QUICK)
    again = batchscore.train(data, tmp_path / "ours", base_model=base, resume=True, **QUICK)
    assert (again.status, again.fingerprint) == ("done", model.fingerprint)


def test_tables_of_splits_are_splits(
    data: pd.DataFrame, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    splits = {"train": data.head(30), "test": data.tail(10)}
    model = batchscore.train(splits, tmp_path / "a", base_model=make_model(), **QUICK)
    assert (model.rows, model.metrics["rows"]) == (30, 10)
    other = batchscore.train(
        splits["train"], tmp_path / "b", base_model=make_model(), eval_data=splits["test"], **QUICK
    )
    assert weights(other.bundle) == weights(model.bundle)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"epochs": "few"}, UsageError, "epochs: 'few'"),
        ({"recipe": "all"}, UsageError, "recipe: 'all'"),
        ({"threshold": 2}, UsageError, "threshold: '2' is neither auto nor"),
        ({"label_name": {"a,b": "c"}}, UsageError, "no such label value"),
        ({"label_column": "none"}, DataError, "no column none"),
        ({"eval_data": [1]}, UsageError, "pandas.DataFrame"),
        ({"epoch": 1}, TypeError, "Did you mean 'epochs'?"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(
    options: dict[str, Any],
    kind: type[Exception],
    message: str,
    data: pd.DataFrame,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(kind) as caught:
        batchscore.train(data, tmp_path / "model", base_model=tiny_model, **{**QUICK, **options})
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []
