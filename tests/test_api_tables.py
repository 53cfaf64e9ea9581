"""Tables from Python: the same predictions as of the same table in a file, in flat memory, and known again."""

from __future__ import annotations

import datetime
import decimal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_score

import batchscore
from batchscore.api.data import files_of, folder_of_tables, splits_of
from batchscore.config import ComputeSettings
from batchscore.errors import BusyError, DataError, NoInputError, StorageError, UsageError
from batchscore.system.storage import sha256_of

pytestmark = pytest.mark.usefixtures("quick_runs")
TEXTS = ["Good.", "Bad, really bad.", None, "Neither good nor bad.", "", "Wonderful!"]
LABELS = ["pos", "neg", "pos", "neg", "pos", None]


def frame(**more: Any) -> pd.DataFrame:
    return pd.DataFrame({"id": range(len(TEXTS)), "text": TEXTS, "label": LABELS, **more})


def odd_frame() -> pd.DataFrame:
    """A column of each kind that pandas has and Parquet holds."""
    return frame(
        objects=pd.Series([1, None, 2.5, 3, np.nan, 7], dtype=object),
        nothing=pd.Series([None] * 6, dtype=object),
        mixed_bytes=pd.Series([b"a", "b", None, "c", b"", "d"], dtype=object),
        lists=pd.Series([["a"], [], None, ["b", "c"], ["d"], []], dtype=object),
        money=pd.Series([decimal.Decimal("1.50"), None, *[decimal.Decimal("12.1")] * 4], dtype=object),
        day=pd.Series([datetime.date(2026, 11, 27)] * 6, dtype=object),
        kind=pd.Categorical(["a", "b", None, "a", "b", "a"], categories=["unused", "b", "a"], ordered=True),
        when=pd.date_range("2026-11-27", periods=6, tz="Europe/Berlin"),
        took=pd.to_timedelta(range(6), unit="s"),
        whole=pd.array([1, None, 3, 4, 5, 6], dtype="Int64"),
        truth=pd.array([True, None, False, True, True, False], dtype="boolean"),
        month=pd.period_range("2026-01", periods=6, freq="M"),
        span=pd.interval_range(0, 6),
        small=np.arange(6, dtype=np.float32),
        arrow=pd.Series([1] * 6, dtype="int8[pyarrow]"),
    )


def indexed(index: Any) -> pd.DataFrame:
    return frame().set_index(pd.Index(index) if not isinstance(index, pd.Index) else index)


FRAMES: dict[str, Callable[[], pd.DataFrame]] = {
    "plain": frame,
    "odd": odd_frame,
    "text_as_objects": lambda: frame().astype({"text": object, "label": object}),
    "filtered": lambda: frame()[[True, False, True, True, True, True]],
    "named_index": lambda: frame().set_index("id"),
    "text_index": lambda: indexed(pd.Index(["a", "b", "c", "d", "e", None], name="key", dtype=object)),
    "two_levels": lambda: frame().set_index(["id", "label"], drop=True),
    "from_ten": lambda: indexed(pd.RangeIndex(10, 22, 2, name="place")),
    "empty": lambda: frame().iloc[:0],
    "with_attributes": lambda: frame().pipe(lambda data: data.attrs.update(source="shop") or data),
}


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_a_frame_becomes_the_file_that_pandas_writes(
    make: Callable[[], pd.DataFrame], tmp_path: Path
) -> None:
    data = make()
    data.to_parquet(tmp_path / "theirs.parquet")
    with files_of(data, tmp_path / "data").there():
        ours = pq.read_table(tmp_path / "data" / "table.parquet")
    theirs = pq.read_table(tmp_path / "theirs.parquet")
    metadata = {**theirs.schema.metadata}
    metadata.pop(b"PANDAS_ATTRS", None)
    assert ours.equals(theirs)
    assert ours.schema.equals(theirs.schema.with_metadata(metadata), check_metadata=True)
    pd.testing.assert_frame_equal(ours.to_pandas(), theirs.to_pandas())
    assert not (tmp_path / "data").exists()


def arrow_table() -> pa.Table:
    """In chunks, with nested values, views and dictionaries of their own."""
    one = pa.table(
        {
            "text": TEXTS,
            "label": pa.array(LABELS).dictionary_encode(),
            "view": pa.array(["a"] * 6, pa.string_view()),
            "nested": [{"a": [1, 2], "b": None}] * 6,
            "time": pa.array([1] * 6, pa.time64("ns")),
        }
    )
    return pa.concat_tables([one, one.slice(1, 3)])


def write_arrow(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path)


def polars_frame() -> pl.DataFrame:
    return pl.DataFrame({"id": range(6), "text": TEXTS, "label": LABELS, "stars": [1, 5, None, 2, 3, 4]})


def class_labels() -> Any:
    """Numbers with names, the first of which is the model's second label, in an order of its own."""
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg"])}
    )
    given = {"text": ["Good.", "Bad.", "Fine.", "Awful."], "label": [0, 1, 0, 1]}
    return datasets.Dataset.from_dict(given, features=features).shuffle(seed=3).select([0, 1, 3])


TABLES: dict[str, tuple[Callable[[], Any], Callable[[Any, Path], object]]] = {
    "pandas": (odd_frame, lambda data, path: data.to_parquet(path)),
    "pandas_filtered": (FRAMES["filtered"], lambda data, path: data.to_parquet(path)),
    "arrow": (arrow_table, write_arrow),
    "record_batch": (
        lambda: arrow_table().to_batches()[0],
        lambda data, path: write_arrow(pa.table(data), path),
    ),
    "reader": (lambda: arrow_table().to_reader(), lambda data, path: write_arrow(arrow_table(), path)),
    "polars": (polars_frame, lambda data, path: data.write_parquet(path)),
    "polars_enums": (
        lambda: polars_frame().with_columns(pl.col("label").cast(pl.Categorical)),
        lambda data, path: write_arrow(data.to_arrow(), path),
    ),
    "datasets": (class_labels, lambda data, path: data.to_parquet(path)),
}


@pytest.mark.parametrize(("make", "write"), TABLES.values(), ids=TABLES)
def test_a_table_is_scored_to_the_bytes_of_the_same_table_in_a_file(
    make: Callable[[], Any], write: Callable[[Any, Path], object], tiny_bundle: Path, tmp_path: Path
) -> None:
    data = make()
    write(data, tmp_path / "table.parquet")
    run_score(
        tmp_path / "table.parquet",
        tiny_bundle,
        tmp_path / "theirs",
        compute=ComputeSettings(precision="fp32"),
    )
    run = batchscore.score(data, tiny_bundle, tmp_path / "ours", quiet=True)
    for name in ("predictions/table.parquet", "mismatches.parquet", "mismatches.csv", "metrics.json"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes(), name
    assert run.predictions.equals(pq.read_table(tmp_path / "theirs" / "predictions" / "table.parquet"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "table.parquet", "theirs"]


def test_numbers_of_a_data_set_mean_what_its_names_say(tiny_bundle: Path) -> None:
    run = batchscore.score(class_labels(), tiny_bundle, quiet=True)
    (file,) = run.facts["files"]
    assert file["label_values"] == {"0 (pos)": "POSITIVE", "1 (neg)": "NEGATIVE"}


def test_an_index_of_its_own_comes_back(tiny_bundle: Path) -> None:
    data = FRAMES["filtered"]()
    scored = batchscore.score(data, tiny_bundle, quiet=True).predictions.to_pandas()
    pd.testing.assert_index_equal(scored.index, data.index)
    pd.testing.assert_frame_equal(scored[list(data.columns)], data)


def test_how_a_table_is_cut_changes_no_byte_of_its_file(tmp_path: Path) -> None:
    whole = pa.table({"text": [f"text {row}" for row in range(10_000)], "n": range(10_000)})
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 7000), whole.slice(7001)])
    hashes = set()
    for data in (
        whole,
        pieces,
        pieces.to_reader(),
        pl.from_arrow(whole),
        pl.from_arrow(whole, rechunk=False),
    ):
        files = files_of(data, tmp_path / "data")
        with files.there():
            found = pq.read_table(*files.arguments)
            assert found.column("n").to_pylist() == list(range(10_000))
            if found.schema.field("text").type == pa.string():
                hashes.add(sha256_of(Path(*files.arguments)))
    assert len(hashes) == 1


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    data = pa.table({"text": pa.array(["so many words " * 100] * 100_000)})
    files, before = files_of(data, tmp_path / "data"), pa.total_allocated_bytes()
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.is_set():
            peak[0] = max(peak[0], pa.total_allocated_bytes() - before)
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    with files.there():
        ended.set()
        thread.join()
        assert Path(*files.arguments).stat().st_size > 100 * 2**20
    assert data.nbytes > 130 * 2**20
    assert peak[0] < 90 * 2**20  # a row group


def test_a_text_that_repeats_does_not_unfold_too_far(tiny_bundle: Path) -> None:
    data = pa.table({"text": pa.array(["the same words again and again " * 40] * 70_000)})
    plan = batchscore.score(data, tiny_bundle, dry_run=True)
    assert (plan.status, plan.rows) == ("planned", 70_000)
    with pytest.raises(UsageError, match="dry_run"):
        _ = plan.predictions


class Odd:
    """Has the interface, and no table."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return pa.chunked_array([[1, 2]]).__arrow_c_stream__(requested_schema)


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "numbers_for_names": (lambda: pd.DataFrame([["a"]]), DataError, "names that are no text"),
    "two_levels_of_names": (lambda: pd.DataFrame([["a"]], columns=[["a"], ["b"]]), DataError, "no text"),
    "one_name_twice": (
        lambda: pd.DataFrame([["a", "b"]], columns=["text", "text"]),
        DataError,
        "text more than once",
    ),
    "values_of_two_kinds": (
        lambda: frame(odd=pd.Series(["a", 1] * 3, dtype=object)),
        DataError,
        "column odd",
    ),
    "sparse": (lambda: frame(odd=pd.arrays.SparseArray([0, 0, 1, 0, 0, 0])), DataError, "cannot be written"),
    "complex": (lambda: frame(odd=np.zeros(6, np.complex64)), DataError, "cannot be written"),
    "a_type_that_parquet_lacks": (
        lambda: pa.table({"text": ["a"], "x": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}),
        DataError,
        "column x",
    ),
    "a_series": (lambda: pd.Series(["a"]), UsageError, "to_frame('text')"),
    "a_polars_series": (lambda: pl.Series(["a"]), UsageError, "to_frame('text')"),
    "lazy": (lambda: pl.DataFrame({"text": ["a"]}).lazy(), UsageError, "collect()"),
    "an_array": (lambda: pa.array(["a"]), UsageError, "pyarrow.table({'text': data})"),
    "no_table": (Odd, UsageError, "no table"),
    "columns": (lambda: {"text": ["a"]}, UsageError, "pandas.DataFrame(data)"),
    "rows": (lambda: [{"text": "a"}], UsageError, "pandas.DataFrame(data)"),
    "splits": (lambda: {"train": frame(), "test": frame()}, UsageError, "data[name]"),
    "texts": (lambda: ["I loved it.", "Not me."], NoInputError, "pandas.DataFrame({'text': data})"),
    "one_text": (lambda: ["I loved it."], NoInputError, "pandas.DataFrame({'text': data})"),
    "bytes": (lambda: b"reviews.csv", UsageError, "a bytes"),
    "nothing": (lambda: None, UsageError, "a NoneType"),
    "no_path": (list, NoInputError, "empty"),
    "paths_that_are_missing": (lambda: ["a.csv", "b.csv"], NoInputError, "No such input: a.csv"),
    "an_address": (lambda: ["ftp://bucket/a b.csv"], UsageError, "is an address"),
}


@pytest.mark.parametrize(("make", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_table_is_refused_and_told_how_it_becomes_one(
    make: Callable[[], Any], kind: type[Exception], message: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(kind) as caught:
        batchscore.score(make(), tiny_bundle, tmp_path / "runs" / "run", quiet=True)
    assert message in str(caught.value)
    assert "loved" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_stream_from_the_hub_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="without streaming"):
        batchscore.score(class_labels().to_iterable_dataset(), tiny_bundle)


def test_a_table_without_a_text_column_is_refused_as_a_file_is(tiny_bundle: Path) -> None:
    with pytest.raises(DataError, match="--text-column"):
        batchscore.score(frame().rename(columns={"text": "x", "label": "y"}), tiny_bundle)


def test_two_calls_for_one_output_do_not_meet(tiny_bundle: Path, tmp_path: Path) -> None:
    with (
        files_of(frame(), folder_of_tables(tmp_path / "run")).there(),
        pytest.raises(BusyError),
    ):
        batchscore.score(frame(), tiny_bundle, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_call_left_beside_its_output_goes(tiny_bundle: Path, tmp_path: Path) -> None:
    left = folder_of_tables(tmp_path / "run")
    left.mkdir()
    (left / "table.parquet").write_bytes(b"half")
    assert batchscore.score(frame(), tiny_bundle, tmp_path / "run", quiet=True).rows == len(TEXTS)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_full_disk_is_told(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("batchscore.formats.spooling.write_row_groups", full)
    with pytest.raises(StorageError, match=r"table\.parquet failed: No space left"):
        batchscore.score(pa.table({}), tiny_bundle, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_splits_become_a_folder(tmp_path: Path) -> None:
    import datasets

    data = datasets.DatasetDict({"train": class_labels(), "test": class_labels()})
    files = splits_of(data, tmp_path / "data")
    with files.there():
        (folder,) = map(Path, files.arguments)
        assert sorted(path.name for path in folder.iterdir()) == ["test.parquet", "train.parquet"]
    for wrong in ({"train": ["a"]}, {"../train": frame()}, {1: frame()}):
        with pytest.raises(UsageError, match="split names"):
            splits_of(wrong, tmp_path / "data")
    with pytest.raises(UsageError, match="one path"):
        splits_of(["a.csv", "b.csv"], tmp_path / "data")
