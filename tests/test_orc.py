"""ORC: what pyarrow writes comes back in its types, a few rows at a time."""

from __future__ import annotations

import datetime
import decimal
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from flow import flow
from pyarrow import orc

from batchscore.config import ReadSettings
from batchscore.errors import DataError
from batchscore.formats import orc_types
from batchscore.formats.identification import identify
from batchscore.formats.orc_types import decimal_precisions
from batchscore.formats.reading import describe

N = 1000
TABLE = pa.table(
    {
        "id": pa.array(range(N), pa.int16()),
        "text": [f"review {k}" for k in range(N)],
        "price": pa.array([decimal.Decimal("1.50"), None] * 500, pa.decimal128(9, 2)),
        "when": pa.array(range(N), pa.timestamp("ns")),
        "moment": pa.array(range(N), pa.timestamp("ns", "UTC")),
        "day": pa.array(range(N), pa.date32()),
        "tags": [["a", "b"], None] * 500,
        "shop": [{"city": "Ulm", "n": k} for k in range(N)],
        "counts": pa.array([[("a", 1)], []] * 500, pa.map_(pa.string(), pa.int32())),
        "raw": [b"\x00\xff", None] * 500,
        "flag": [True, False, None, True] * 250,
        "share": pa.array([0.1, None] * 500, pa.float32()),
        "a.b": ["dotted"] * N,
    }
)


@pytest.mark.parametrize("codec", ["uncompressed", "zlib", "snappy", "lz4", "zstd"])
def test_types_and_compression_are_kept(codec: str, tmp_path: Path) -> None:
    orc.write_table(TABLE, tmp_path / "a.orc", compression=codec, stripe_size=4096)
    result = flow(tmp_path / "out", tmp_path / "a.orc", read=ReadSettings(part_rows=170))
    found = orc.ORCFile(result.only)
    assert found.compression.lower() == codec
    own = found.read().select(TABLE.column_names)
    assert own.schema.equals(orc.ORCFile(tmp_path / "a.orc").schema)
    assert own.to_pylist() == orc.read_table(tmp_path / "a.orc").to_pylist() == TABLE.to_pylist()
    again = flow(tmp_path / "again", tmp_path / "a.orc", read=ReadSettings(part_rows=170)).only
    assert again.read_bytes() == result.only.read_bytes()


def test_what_orc_has_no_type_for_is_text_that_can_be_read_back(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(["fine", None], pa.string_view()),
            "big": pa.array([2**64 - 1, None], pa.uint64()),
            "time": pa.array([datetime.time(10, 30), None]),
            "shop": pa.array(["eu", None]).dictionary_encode(),
            "span": pa.array([1500, None], pa.duration("ms")),
            "half": pa.array([0.5, None], pa.float16()),
            "when": pa.array([0, None], pa.timestamp("s", "Europe/Berlin")),
            "whens": pa.array([[0], None], pa.list_(pa.timestamp("s"))),
        }
    )
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    out = flow(tmp_path / "out", tmp_path / "a.arrow", output_format="orc").only
    first, second = orc.read_table(out).select(table.column_names).to_pylist()
    assert first == {
        "text": "fine",
        "big": str(2**64 - 1),
        "time": "10:30:00",
        "shop": "eu",
        "span": "PT1.5S",
        "half": "0.5",
        "when": datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC),
        "whens": '["1970-01-01T00:00:00"]',
    }
    assert set(second.values()) == {None}


def test_times_that_would_not_be_read_back_are_refused(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "when": pa.array([0, -62135596800], pa.timestamp("s"))})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(
        DataError, match=r"row 1: the column when holds a time beyond the years 1677 to 2262, which ORC"
    ):
        flow(tmp_path / "out", tmp_path / "a.parquet", output_format="orc")
    orc.write_table(table, tmp_path / "a.orc")
    with pytest.raises(DataError, match="beyond the years 1677 to 2262, which is not read from ORC"):
        flow(tmp_path / "out", tmp_path / "a.orc")


def test_a_text_that_is_not_utf8_is_a_reject(tmp_path: Path) -> None:
    text = pa.array([b"fine", b"\xff\xfe"], pa.binary()).view(pa.string())
    orc.write_table(pa.table({"text": text}), tmp_path / "a.orc")
    result = flow(tmp_path / "out", tmp_path / "a.orc")
    assert [reject["reason"] for reject in result.rejects] == ["the text is not UTF-8"]


def test_a_file_that_unfolds_beyond_reason_is_refused(tmp_path: Path) -> None:
    with orc.ORCWriter(tmp_path / "a.orc", compression="zstd", dictionary_key_size_threshold=1.0) as writer:
        for _ in range(20):
            writer.write(pa.table({"text": ["a" * 1_000_000] * 10}))
    assert (tmp_path / "a.orc").stat().st_size < 10_000
    with pytest.raises(DataError, match="--max-expansion"):
        flow(tmp_path / "out", tmp_path / "a.orc")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["text", "x", "x"])
    orc.write_table(table, tmp_path / "a.orc")
    with pytest.raises(DataError, match="two columns have one name"):
        flow(tmp_path / "out", tmp_path / "a.orc")


def test_names_and_first_bytes(tmp_path: Path) -> None:
    orc.write_table(TABLE, tmp_path / "a.orc")
    (tmp_path / "a.csv").write_bytes((tmp_path / "a.orc").read_bytes())
    with pytest.raises(DataError, match="is ORC, but its name says CSV"):
        identify(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("ORC\nfine\n")
    assert identify(tmp_path / "b.csv").format == "csv"
    (tmp_path / "b.orc").write_text("text\nfine\n")
    with pytest.raises(DataError, match="is no ORC file"):
        identify(tmp_path / "b.orc")
    assert describe(identify(tmp_path / "a.orc"), ReadSettings()).details["codec"] == "uncompressed"


@pytest.mark.parametrize("compression", ["uncompressed", "zlib", "snappy", "zstd", "lz4"])
def test_a_decimal_that_arrow_would_end_the_process_for_is_refused(compression: str, tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["Good."],
            "price": pa.array([1], pa.decimal128(20, 2)),
            "parts": pa.array([[2]], pa.list_(pa.decimal128(7, 0))),
        }
    )
    path = tmp_path / "in.orc"
    orc.write_table(table, str(path), compression=compression)
    assert decimal_precisions(path) == [20, 7]
    data = path.read_bytes()
    if compression == "uncompressed":
        assert data.count(b"\x28\x14\x30\x02") == 1  # precision and scale
        path.write_bytes(data.replace(b"\x28\x14\x30\x02", b"\x28\x34\x30\x02"))
        with pytest.raises(DataError, match="a decimal column of 52 digits"):
            flow(tmp_path / "run", path)
    for end in (0, 1, 2, 5, *range(len(data) - 60, len(data))):
        path.write_bytes(data[:end])
        assert max(decimal_precisions(path), default=0) <= 38  # whatever is left of it, no error


def footer(path: Path, content: bytes, kind: int, *, is_packed: bool) -> Path:
    """A file of nothing but a footer in one chunk, and its postscript."""
    head = (len(content) << 1 | (not is_packed)).to_bytes(3, "little")
    whole = head + content if kind else content
    length = bytes([len(whole) & 0x7F | 0x80, len(whole) >> 7 & 0x7F | 0x80, len(whole) >> 14])
    postscript = b"\x08" + length + b"\x10" + bytes([kind])
    path.write_bytes(b"ORC" + whole + postscript + bytes([len(postscript)]))
    return path


def test_a_hand_made_footer_is_left_to_arrow_and_unfolds_to_no_more_than_a_footer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decimal_type = b"\x22\x04\x08\x0e\x28\x34"  # field 4, a message: kind 14, precision 52
    path = tmp_path / "in.orc"
    assert decimal_precisions(footer(path, decimal_type, 0, is_packed=False)) == [52]
    assert decimal_precisions(footer(path, decimal_type, 1, is_packed=False)) == [52]
    as_bytes = b"\x22\x05\x08\x0e\x2a\x01\xff"  # the precision is no number
    endless = b"\x22\xb4\x10\x08\x0e\x28" + b"\xff" * 2096 + b"\x01"  # or one of 5,000 digits
    for content in (as_bytes, endless, b"\x22", b"\x23"):
        assert decimal_precisions(footer(path, content, 0, is_packed=False)) == []
    monkeypatch.setattr(orc_types, "_MOST_BYTES", 1000)
    for kind, pack in ((1, lambda data: zlib.compress(data, wbits=-15)), (5, zstandard.compress)):
        bomb = pack(decimal_type + bytes([0x22, 0]) * 50_000)
        assert len(bomb) < 1000
        assert decimal_precisions(footer(path, bomb, kind, is_packed=True)) == []
        assert decimal_precisions(footer(path, pack(decimal_type), kind, is_packed=True)) == [52]
