"""Every format there is, into every other: the rows stay, their order stays, and each is read back as it was written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flow import flow

from batchscore.config import ReadSettings
from batchscore.errors import DataError
from batchscore.formats.answers import answers_of
from batchscore.formats.format import Format, format_of
from batchscore.formats.reading import describe, identify, read, texts_of_file
from batchscore.formats.registry import ENTRIES, NAMES, format_of_name, suffix_of
from batchscore.formats.source import Source
from batchscore.formats.writing import Output, read_back
from batchscore.records import ColumnChoice
from batchscore.system.storage import sha256_of

ROWS = [
    {"id": f"{k:03}", "text": text, "label": "POSITIVE" if k % 2 else "NEGATIVE"}
    for k, text in enumerate(
        ["Good, really.", 'A "fine" film\nof two lines', "", None, "ünïcode 🎬", "x" * 3000] * 4
    )
]


def _csv(path: Path) -> None:
    pd.DataFrame(ROWS).to_csv(path, index=False)


def _parquet(path: Path) -> None:
    pd.DataFrame(ROWS).to_parquet(path, index=False, row_group_size=7)


def _jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")


def _json(path: Path) -> None:
    path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8")


def _arrow(path: Path) -> None:
    pd.DataFrame(ROWS).to_feather(path)


def _orc(path: Path) -> None:
    pd.DataFrame(ROWS).to_orc(path, index=False)


def _xlsx(path: Path) -> None:
    pd.DataFrame(ROWS).to_excel(path, index=False)


Read = Callable[[Path], Any]
FORMATS: Mapping[str, tuple[Callable[[Path], None], Read]] = {
    "csv": (_csv, partial(pd.read_csv, dtype=str, keep_default_na=False)),
    "parquet": (_parquet, pd.read_parquet),
    "jsonl": (_jsonl, partial(pd.read_json, lines=True, dtype=False)),
    "json": (_json, partial(pd.read_json, dtype=False)),
    "arrow": (_arrow, pd.read_feather),
    "orc": (_orc, pd.read_orc),
    "xlsx": (_xlsx, partial(pd.read_excel, dtype=str, keep_default_na=False, engine="calamine")),
}
"""By name: what writes :data:`ROWS` as a file of the format, and what reads it, neither of them ours."""
EMPTY = {"csv": "", "xlsx": None}
"""What both null and the empty text become where the writer above makes no difference."""


def test_every_format_is_here() -> None:
    assert set(FORMATS) == set(NAMES)
    suffixes = [suffix for entry in ENTRIES.values() for suffix in entry.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    for name in NAMES:
        fmt = format_of(name)
        assert isinstance(fmt, Format)
        assert fmt.name == name
        assert all(format_of_name(f"a{suffix}") == name for suffix in ENTRIES[name].suffixes)


@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("given", NAMES)
def test_rows_of_every_format_can_be_written_in_every_other(given: str, target: str, tmp_path: Path) -> None:
    path = tmp_path / f"reviews{suffix_of(given)}"
    FORMATS[given][0](path)
    read = ReadSettings(part_rows=5)
    result = flow(tmp_path / "out", path, read=read, output_format="same" if given == target else target)
    assert result.only.suffix == suffix_of(target)
    frame = FORMATS[target][1](result.only)
    assert frame["id"].tolist() == [row["id"] for row in ROWS]
    texts = [row["text"] or "" for row in ROWS]
    assert [text if isinstance(text, str) else "" for text in frame["text"]] == texts
    assert len(frame.predicted_label) == len(ROWS)
    assert identify(result.only).format == target
    output = Output(result.plan.files[0], answers_of(result.bundle.task, result.bundle.labels))
    back = read_back(result.only, output, target)
    assert (back.rows, back.sha256) == (len(ROWS), sha256_of(result.only))
    source = Source(result.only, target, "")
    found = [text for texts in texts_of_file(source, ReadSettings(), ["id"]) for text in texts["id"]]
    assert found == [row["id"] for row in ROWS]


@pytest.mark.parametrize("name", NAMES)
def test_reading_from_any_part_gives_the_same_parts(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"reviews{suffix_of(name)}"
    FORMATS[name][0](path)
    settings, source = ReadSettings(part_rows=5), identify(path)
    fmt, layout = format_of(name), describe(source, ReadSettings())
    plan = flow(tmp_path / "out", path, read=settings).plan
    columns = plan.files[0].columns
    for part in plan.parts:
        rows = next(fmt.read(source, layout, columns, settings, part.start))
        assert (rows.start, rows.rows_in) == (part.start, part.rows)
        given = [row["text"] or EMPTY.get(name, row["text"]) for row in ROWS]
        assert rows.texts == given[rows.row[0] : rows.row[-1] + 1]


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "cut in the middle": lambda data: data[: len(data) // 2],
    "cut at its end": lambda data: data[:-8],
    "joined with itself": lambda data: data + data,
    "followed by something": lambda data: data + b"\0" * 8,
}
WHOLE = [name for name in NAMES if name not in {"csv", "jsonl"}]
"""Formats whose files tell where they end."""


@pytest.mark.parametrize("damage", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", [*WHOLE, "arrow stream"])
def test_a_file_that_is_not_one_whole_table_is_refused(
    name: str, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / f"a{suffix_of(name.split(maxsplit=1)[0])}"
    if name == "arrow stream":
        arrow(path, kind="stream")
    else:
        FORMATS[name][0](path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"[/ ]a\.\w+"):
        flow(tmp_path / "out", path)


# ----------------------------------------------------------------------------------------------------------- Arrow IPC

TABLE = pa.table(
    {
        "id": pa.array(range(1000), pa.int16()),
        "text": [f"review {k}" for k in range(1000)],
        "shop": pa.array(["eu", "us", None, "asia"] * 250).dictionary_encode(),
        "when": pa.array(range(1000), pa.timestamp("ns", "Europe/Berlin")),
        "tags": [["a", "b"], None] * 500,
    },
    metadata={"made": "by hand"},
)


def arrow(path: Path, table: pa.Table = TABLE, kind: str = "file", rows: int = 300, **options: Any) -> Path:
    make = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with make(str(path), table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
@pytest.mark.parametrize("kind", ["file", "stream"])
def test_arrow_keeps_types_kind_and_compression(kind: str, codec: str | None, tmp_path: Path) -> None:
    path = arrow(tmp_path / "a.arrow", kind=kind, compression=codec)
    result = flow(tmp_path / "out", path, read=ReadSettings(part_rows=170))
    assert result.plan.files[0].layout.details["codec"] == (codec or "")
    with pa.memory_map(str(result.only)) as file:
        reader = pa.ipc.open_file(file) if kind == "file" else pa.ipc.open_stream(file)
        table = reader.read_all()
    assert table.schema.metadata == TABLE.schema.metadata
    own = table.select(TABLE.column_names)
    assert own.schema.equals(TABLE.schema)
    assert own.to_pylist() == TABLE.to_pylist()
    assert describe(identify(result.only), ReadSettings()).details["codec"] == (codec or "")


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_dictionaries_that_grow_from_batch_to_batch_are_kept(kind: str, tmp_path: Path) -> None:
    batches = [
        pa.record_batch(
            {
                "text": ["a"] * 3,
                "shop": pa.DictionaryArray.from_arrays([0, 1, k], ["x", "y", "z", "w"][: k + 1]),
            }
        )
        for k in (1, 2, 3)
    ]
    with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(
        str(tmp_path / "a.arrow"),
        batches[0].schema,
        options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True),
    ) as writer:
        for batch in batches:
            writer.write_batch(batch)
    for target in ("same", "parquet", "csv"):
        out = flow(
            tmp_path / target, tmp_path / "a.arrow", read=ReadSettings(part_rows=4), output_format=target
        ).only
        if target == "same":
            shops = (
                (pa.ipc.open_file if kind == "file" else pa.ipc.open_stream)(str(out))
                .read_all()["shop"]
                .to_pylist()
            )
        else:
            shops = (pd.read_parquet if target == "parquet" else pd.read_csv)(out)["shop"].tolist()
        assert shops == ["x", "y", "y", "x", "y", "z", "x", "y", "w"]


def test_class_names_of_a_saved_data_set_are_read(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["positive", "negative"])})
    data = Dataset.from_dict({"text": ["fine", "bad"], "label": [0, 1]}, features=features)
    data.save_to_disk(str(tmp_path / "saved"))
    result = flow(tmp_path / "out", tmp_path / "saved")  # with state.json and dataset_info.json beside it
    (file,) = result.plan.files
    assert file.format == "arrow"
    assert file.label_values == {"0 (positive)": "POSITIVE", "1 (negative)": "NEGATIVE"}


def test_arrow_that_unfolds_beyond_reason_is_refused_before_it_is_unfolded(tmp_path: Path) -> None:
    table = pa.table({"text": ["a" * 2**20] * 300})
    path = arrow(tmp_path / "a.arrow", table, compression="zstd")
    with pytest.raises(DataError, match="--max-expansion"):
        describe(identify(path), ReadSettings(max_expansion=2))


def test_a_type_that_parquet_cannot_hold_is_refused_by_its_name(tmp_path: Path) -> None:
    table = pa.table({"text": ["a"], "odd": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    with pytest.raises(DataError, match="the column odd has the type month_day_nano_interval"):
        flow(tmp_path / "out", arrow(tmp_path / "a.arrow", table))
    text = pa.array([b"a", b"\xff\xfe"], pa.binary()).view(pa.string())
    with pytest.raises(DataError, match="damaged"):
        flow(tmp_path / "out", arrow(tmp_path / "b.arrow", pa.table({"text": text})))


def test_strings_that_are_not_utf8_are_refused_for_arrow_which_would_not_read_them_back(
    tmp_path: Path,
) -> None:
    odd = pa.array([b"fine", b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": ["a", "b"], "odd": odd}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"row 1: the column odd holds a string that is not UTF-8"):
        flow(tmp_path / "out", tmp_path / "a.parquet", output_format="arrow")


def test_rows_of_nulls_cannot_be_more_than_a_file_may_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kilobyte can say that it has any number of them."""
    source = identify(arrow(tmp_path / "a.arrow", pa.table({"text": pa.nulls(5000)}), rows=5000))
    layout = describe(source, ReadSettings())
    monkeypatch.setattr("batchscore.formats.columnar.allowed_bytes", lambda *_: 4999)
    with pytest.raises(DataError, match="--max-expansion"):
        list(read(source, layout, ColumnChoice(text="text"), ReadSettings()))


def test_a_long_run_of_spaces_in_an_array_costs_no_square(tmp_path: Path) -> None:
    text = "a" + " " * 2_000_000 + "b"
    (tmp_path / "a.json").write_text(json.dumps([{"text": text}], indent=1), encoding="utf-8")
    out = flow(tmp_path / "out", tmp_path / "a.json", output_format="jsonl").only
    (line,) = out.read_bytes().splitlines()
    assert json.loads(line)["text"] == text
