"""``datasets`` writes the names of label numbers into a Parquet file's metadata: they win over the numbers everywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flow import flow

from batchscore.config import ReadSettings
from batchscore.errors import DataError
from batchscore.training.data import load_data
from batchscore.training.settings import TrainSettings

TEXTS = ["A dull film.", "A warm film.", "So so.", "A waste."]


def written(path: Path, labels: Sequence[int | None], names: Sequence[str], column: str = "label") -> Path:
    """A file as ``datasets`` itself writes it."""
    features = datasets.Features(
        {"text": datasets.Value("string"), column: datasets.ClassLabel(names=list(names))}
    )
    rows = {"text": TEXTS[: len(labels)], column: list(labels)}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(path))
    return path


def given(path: Path, folder: Path, **options: Any) -> list[int]:
    """The index of the label of each row, by a model of NEGATIVE and POSITIVE."""
    return [int(index) for part in flow(folder, path, **options).staged for index in part.given]


def test_names_win_over_numbers(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", [1, 0], ["positive", "negative"])
    assert given(path, tmp_path / "out") == [0, 1]
    (file,) = flow(tmp_path / "again", path).plan.files
    assert file.label_values == {"0 (positive)": "POSITIVE", "1 (negative)": "NEGATIVE"}


def test_minus_one_is_no_label_as_datasets_has_it(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", [-1, 1, 0, None], ["neg", "pos"])
    assert given(path, tmp_path / "out") == [-1, 1, 0, -1]


def test_names_that_are_numbers_are_ids(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", [0, 1], ["0", "1"])
    assert given(path, tmp_path / "out") == [0, 1]


def test_names_that_the_model_does_not_have_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", [0, 1], ["bad", "good"])
    with pytest.raises(DataError, match=r"0 \(bad\), 1 \(good\).*--label-map"):
        flow(tmp_path / "out", path)
    assert given(path, tmp_path / "map", label_map={"bad": "NEGATIVE", "good": "POSITIVE"}) == [0, 1]
    assert given(path, tmp_path / "numbers", label_map={"0": "POSITIVE", "1": "NEGATIVE"}) == [1, 0]


def test_names_of_a_field_within_a_column_count_too(tmp_path: Path) -> None:
    label = {"names": ["positive", "negative"], "_type": "ClassLabel"}
    info = {"info": {"features": {"meta": {"label": label}, "text": {"dtype": "string", "_type": "Value"}}}}
    table = pa.table({"text": TEXTS[:2], "meta": [{"label": 1}, {"label": 0}]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), tmp_path / "a.parquet")
    read = ReadSettings(label_column="meta.label")
    assert given(tmp_path / "a.parquet", tmp_path / "out", read=read) == [0, 1]


@pytest.mark.parametrize(
    "metadata", [b"no JSON", b"[]", b'{"info": {"features": [1]}}', b'{"info": {}}', b"\xff"]
)
def test_metadata_that_says_nothing_is_passed_over(metadata: bytes, tmp_path: Path) -> None:
    table = pa.table({"text": TEXTS[:2], "label": [1, 0]}).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, tmp_path / "a.parquet")
    assert given(tmp_path / "a.parquet", tmp_path / "out") == [1, 0]


def test_the_trainer_takes_names_and_their_order_from_the_file(tmp_path: Path) -> None:
    written(tmp_path / "train.parquet", [1, 0, 0, 1], ["positive", "negative"])
    written(tmp_path / "test.parquet", [1, -1, 0], ["positive", "negative"])
    data = load_data(TrainSettings(data=str(tmp_path), output=tmp_path / "model"))
    assert data.labels == ("positive", "negative")
    rows = dict(zip(data.train.texts, data.train.labels, strict=True))
    assert rows == {TEXTS[0]: 1, TEXTS[1]: 0, TEXTS[2]: 0, TEXTS[3]: 1}
    assert dict(zip(data.evaluation.texts, data.evaluation.labels, strict=True)) == {TEXTS[0]: 1, TEXTS[2]: 0}


def test_the_trainer_refuses_files_whose_numbers_mean_different_things(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", [1, 0], ["positive", "negative"])
    written(tmp_path / "b.parquet", [1, 0], ["negative", "positive"])
    with pytest.raises(DataError, match=r"b\.parquet: its label numbers have other names"):
        load_data(TrainSettings(data=str(tmp_path), output=tmp_path / "model"))


def test_evaluation_rows_are_named_by_their_own_file(tmp_path: Path) -> None:
    train = written(tmp_path / "a.parquet", [1, 0, 1, 0], ["positive", "negative"])
    other = written(tmp_path / "b.parquet", [1, 0], ["negative", "positive"])
    data = load_data(TrainSettings(data=str(train), output=tmp_path / "model", eval_data=str(other)))
    assert data.labels == ("positive", "negative")
    assert dict(zip(data.evaluation.texts, data.evaluation.labels, strict=True)) == {TEXTS[0]: 0, TEXTS[1]: 1}
