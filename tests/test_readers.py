"""Files in, rows out: parts that do not depend on where reading starts, damage told from data, memory within bounds."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from flow import flow

from batchscore.config import ReadSettings
from batchscore.errors import DataError, UsageError
from batchscore.formats.column_choice import choose_columns
from batchscore.formats.reading import describe, identify, read
from batchscore.records import Position, Rows

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
    ".bz2": bz2.compress,
}
ROWS = [
    {"text": f"row {k} " + 'é,\n"x" ' * (k % 7), "label": k % 2, "note": None if k % 5 == 0 else f"n{k % 3}"}
    for k in range(230)
]


def read_all(path: Path, *, start: Position | None = None, **options: Any) -> list[Rows]:
    settings = ReadSettings(**options)
    source = identify(path, settings.format)
    layout = describe(source, settings)
    columns = choose_columns(layout, settings, path)
    return list(read(source, layout, columns, settings, start))


def contents(rows: Rows) -> tuple[Any, ...]:
    inputs = rows.table.to_pylist() if rows.table is not None else rows.raw
    return rows.start, rows.row, rows.texts, rows.labels, rows.rejects, inputs


def write_csv(path: Path, pack: Callable[[bytes], bytes] = bytes) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    path.write_bytes(pack(path.read_bytes()))
    return path


def write_jsonl(path: Path, pack: Callable[[bytes], bytes] = bytes) -> Path:
    path.write_bytes(pack(b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)))
    return path


def write_parquet(path: Path, **options: Any) -> Path:
    table = pa.Table.from_pylist(ROWS)
    table = table.set_column(2, "note", table["note"].dictionary_encode())
    pq.write_table(table, path, write_page_checksum=True, **options)
    return path


# ---------------------------------------------------------------------------------------------------------- parts

FILES: dict[str, Callable[[Path], Path]] = {
    **{
        f"csv{end}": lambda folder, end=end, pack=pack: write_csv(folder / f"a.csv{end}", pack)  # type: ignore[misc]
        for end, pack in PACKERS.items()
    },
    **{
        f"jsonl{end}": lambda folder, end=end, pack=pack: write_jsonl(folder / f"a.jsonl{end}", pack)  # type: ignore[misc]
        for end, pack in PACKERS.items()
    },
    "one row group": lambda folder: write_parquet(folder / "a.parquet"),
    "small row groups": lambda folder: write_parquet(folder / "a.parquet", row_group_size=7),
    "odd row groups": lambda folder: write_parquet(
        folder / "a.parquet", row_group_size=150, use_dictionary=False
    ),
}


@pytest.mark.parametrize("limit", [{"part_rows": 50}, {"part_bytes": 700}], ids=["rows", "bytes"])
@pytest.mark.parametrize("make", FILES.values(), ids=FILES)
def test_from_any_parts_start_the_same_parts_follow(
    make: Callable[[Path], Path], limit: dict[str, Any], tmp_path: Path
) -> None:
    path = make(tmp_path)
    parts = read_all(path, **limit)
    assert [row for part in parts for row in part.row] == list(range(len(ROWS)))
    assert len(parts) > 1
    for number in range(0, len(parts), 3):
        again = read_all(path, start=parts[number].start, **limit)
        assert list(map(contents, again)) == list(map(contents, parts[number:]))


@pytest.mark.parametrize("name", ["jsonl", "one row group"])
def test_every_format_gives_the_rows_that_csv_gives(name: str, tmp_path: Path) -> None:
    one, other = (
        read_all(write_csv(tmp_path / "a.csv"), part_rows=64),
        read_all(FILES[name](tmp_path), part_rows=64),
    )
    for left, right in zip(one, other, strict=True):
        assert (left.row, left.texts) == (right.row, right.texts)
        assert list(map(int, left.labels or [])) == right.labels


def test_row_groups_with_dictionaries_of_their_own_are_joined(tmp_path: Path) -> None:
    values = [f"value {k}" for k in range(400)]
    column = pa.chunked_array(
        [pa.array(values[at : at + 100]).dictionary_encode() for at in range(0, 400, 100)]
    )
    pq.write_table(pa.table({"text": column, "d": column}), tmp_path / "a.parquet", row_group_size=100)
    (part,) = read_all(tmp_path / "a.parquet")
    assert part.table is not None
    assert part.texts == part.table.column(1).to_pylist() == values
    result = flow(tmp_path / "out", tmp_path / "a.parquet", read=ReadSettings(part_rows=30))
    after = pq.read_table(result.only)
    assert after["d"].type == pq.read_table(tmp_path / "a.parquet")["d"].type
    assert after["d"].to_pylist() == values


def test_a_part_holds_bytes_within_its_limit_or_one_row(tmp_path: Path) -> None:
    texts = ["x" * size for size in (10, 900, 10, 5000, 10, 10, 300, 300, 300, 300)]
    for name in ("a.csv", "a.jsonl"):
        lines = ["text", *texts] if name == "a.csv" else [json.dumps({"text": text}) for text in texts]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
        sizes = [
            (part.rows_in, sum(map(len, part.raw or [])))
            for part in read_all(tmp_path / name, part_bytes=1000)
        ]
        assert all(rows == 1 or size <= 1000 for rows, size in sizes)
        assert len(sizes) < len(texts)


# ------------------------------------------------------------------------------------------------------ encodings


@pytest.mark.parametrize(
    ("encoding", "mark", "given"),
    [
        ("utf-8", b"\xef\xbb\xbf", None),
        ("utf-16-le", b"\xff\xfe", None),
        ("utf-16-be", b"\xfe\xff", None),
        ("cp1252", b"", "cp1252"),
        ("latin-1", b"", "latin-1"),
    ],
)
def test_predictions_are_written_in_the_encoding_of_the_input(
    encoding: str, mark: bytes, given: str | None, tmp_path: Path
) -> None:
    text = 'text,id\r\n"naïve ""é""\r\nü",1\r\nplain,2\r\n'
    (tmp_path / "a.csv").write_bytes(mark + text.encode(encoding))
    result = flow(tmp_path / "out", tmp_path / "a.csv", read=ReadSettings(encoding=given))
    assert [row.texts for row in result.rows] == [['naïve "é"\r\nü', "plain"]]
    out = result.only.read_bytes()
    assert out.startswith(mark)
    lines = out[len(mark) :].decode(encoding)
    assert lines.startswith("text,id,predicted_label,")
    assert '"naïve ""é""\r\nü",1,NEGATIVE,0.5,' in lines
    assert lines.count("\r\n") == 4


def test_bytes_that_are_not_utf_8_are_rejected_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,id\nfine,1\nna\xefve,2\nfine,3\n")
    result = flow(tmp_path / "out", tmp_path / "a.csv")
    (reject,) = result.rejects
    assert (reject["row"], reject["line"], reject["byte_offset"], reject["column"]) == (1, 3, 15, "text")
    assert "--encoding cp1252" in reject["reason"]
    assert result.raw_rejects() == [b"na\xefve,2\n"]
    assert result.rows[0].row == [0, 2]


def test_labels_that_the_encoding_cannot_hold_are_refused_before_scoring(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text,id\nnaïve,1\n".encode("cp1252"))
    read_settings = ReadSettings(encoding="cp1252")
    with pytest.raises(
        DataError, match=r"a\.csv: U\+\w+ cannot be written in cp1252.*--output-format parquet"
    ):
        flow(tmp_path / "out", tmp_path / "a.csv", labels=("否", "是"), read=read_settings)
    flow(
        tmp_path / "pq", tmp_path / "a.csv", labels=("否", "是"), read=read_settings, output_format="parquet"
    )


def test_an_unknown_encoding_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text\na\n")
    with pytest.raises(UsageError, match="utf-99"):
        read_all(tmp_path / "a.csv", encoding="utf-99")


# ---------------------------------------------------------------------------------------------------- what it is


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.CSV", b"text\na\n", ("csv", "")),
        ("a.tsv", b"text\tid\na\t1\n", ("csv", "")),
        ("plain", b"text\na\n", ("csv", "")),
        ("lines", b' \n{"text": 1}\n', ("jsonl", "")),
        ("a.ndjson", b"", ("jsonl", "")),
        ("packed", gzip.compress(b'{"text": 1}\n', mtime=0), ("jsonl", "gzip")),
        ("a.csv", zstandard.ZstdCompressor().compress(b"text\n"), ("csv", "zstd")),
        ("a.csv", b"BZh,text\n1,a\n", ("csv", "")),
        ("a.csv.bz2", bz2.compress(b""), ("csv", "bz2")),
    ],
)
def test_a_file_is_what_its_bytes_and_then_its_name_say(
    name: str, content: bytes, expected: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    source = identify(tmp_path / name)
    assert (source.format, source.compression) == expected


def test_a_parquet_file_is_known_without_a_suffix(tmp_path: Path) -> None:
    assert identify(write_parquet(tmp_path / "data")).format == "parquet"


# ----------------------------------------------------------------------------------------- empty is not an error


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n\n"])
def test_csv_without_a_header_gives_a_header_of_added_names(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    result = flow(tmp_path / "out", tmp_path / "a.csv")
    assert result.plan.rows == 0
    expected = "predicted_label,probability,prob_NEGATIVE,prob_POSITIVE,n_tokens,truncated,status\n"
    assert result.only.read_text(encoding="utf-8") == expected


def test_a_header_alone_and_no_rows_keep_their_schema(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text;id\r\n")
    out = flow(tmp_path / "csv", tmp_path / "a.csv").only.read_bytes()
    assert out.startswith(b"text;id;predicted_label;")
    assert out.endswith(b";status\r\n")
    pq.write_table(pa.Table.from_pylist(ROWS).slice(0, 0), tmp_path / "a.parquet")
    table = pq.read_table(flow(tmp_path / "pq", tmp_path / "a.parquet").only)
    assert table.num_rows == 0
    assert table.schema.names[:4] == ["text", "label", "note", "predicted_label"]
    assert table.schema.types[1] == pa.int64()
    (tmp_path / "a.jsonl").write_bytes(b"")
    assert flow(tmp_path / "json", tmp_path / "a.jsonl").only.read_bytes() == b""


# --------------------------------------------------------------------------------------------------------- damage


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut in half": lambda data: data[: len(data) // 2],
    "cut by a byte": lambda data: data[:-1],
    "garbage": lambda data: data[:3] + b"garbage" * 10,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("end", [".gz", ".zst", ".bz2"])
def test_a_compressed_file_that_is_not_whole_is_bad_data(
    end: str, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = write_csv(tmp_path / f"a.csv{end}", PACKERS[end])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        read_all(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"text\na\n"])
@pytest.mark.parametrize("end", [".gz", ".zst", ".bz2"])
def test_what_only_its_name_calls_compressed_is_bad_data(end: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / f"a.csv{end}").write_bytes(content)
    with pytest.raises(DataError, match="not compressed as its name says, or damaged"):
        read_all(tmp_path / f"a.csv{end}")


@pytest.mark.parametrize("end", [".gz", ".zst", ".bz2"])
def test_streams_behind_each_other_are_one_file(end: str, tmp_path: Path) -> None:
    pack = PACKERS[end]
    (tmp_path / f"a.csv{end}").write_bytes(pack(b"text\na\n") + pack(b"b\n") + pack(b"") + pack(b"c\n"))
    assert [part.texts for part in read_all(tmp_path / f"a.csv{end}")] == [["a", "b", "c"]]


PARQUET_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut short": lambda data: data[: len(data) // 2],
    "without its last byte": lambda data: data[:-1],
    "without its magic": lambda data: b"XXXX" + data[4:-4] + b"XXXX",
    "of text": lambda data: b"text,label\na,1\n",
    "with a footer length beyond the file": lambda data: data[:-8] + b"\xff\xff\xff\x7f" + data[-4:],
    "with a flipped bit in its first page": lambda data: _flip(data, 200),
}


@pytest.mark.parametrize("damage", PARQUET_DAMAGE.values(), ids=PARQUET_DAMAGE)
def test_a_damaged_parquet_file_is_bad_data(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", compression="none", use_dictionary=False)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        read_all(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 65


def test_whatever_bit_of_a_parquet_file_flips_rows_are_right_or_it_is_bad_data(tmp_path: Path) -> None:
    """Page headers and the footer have no checksum: a damaged one drops pages without a word, or ends the process."""
    path = write_parquet(tmp_path / "a.parquet", row_group_size=60)
    data, whole = path.read_bytes(), [part.texts for part in read_all(path)]
    refused = 0
    for at in range(0, len(data), 7):
        path.write_bytes(_flip(data, at))
        try:
            assert [part.texts for part in read_all(path)] == whole, f"byte {at}"
        except DataError:
            refused += 1
    assert refused > len(data) / 7 / 2


def test_a_page_that_arrow_passes_over_is_missed(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", row_group_size=60)
    data = path.read_bytes()
    at = data.index(b"\x15\x00", 50)  # the type of a page: data
    path.write_bytes(data[:at] + b"\x15\x0e" + data[at + 2 :])
    with pytest.raises(DataError, match="damaged or cut short"):
        read_all(path)


# --------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("end", [".gz", ".zst", ".bz2"])
def test_a_thousand_to_one_is_refused(end: str, tmp_path: Path) -> None:
    line = b"x" * 999_999 + b"\n"
    (tmp_path / f"a.csv{end}").write_bytes(PACKERS[end](b"text\n" + line * 90))
    with pytest.raises(DataError, match=r"unfolds to more than 200 times its size.*--max-expansion"):
        read_all(tmp_path / f"a.csv{end}")
    assert sum(part.rows_in for part in read_all(tmp_path / f"a.csv{end}", max_expansion=10**6)) == 90


def _dictionary_bomb(path: Path, size: int, rows: int, *, nested: bool = False) -> Path:
    """A value that stands once in the file and many times in its rows."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * size]))
    columns = {"text": pa.array(["a"] * rows), "bomb": column} if nested else {"text": column}
    if nested:
        columns = {"text": pa.array(["a"]), "bomb": pa.ListArray.from_arrays([0, rows], column)}
    pq.write_table(pa.table(columns), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 100_000
    return path


def _list_bomb(path: Path, count: int) -> Path:
    zeros = pa.Array.from_buffers(pa.int8(), count, [None, pa.py_buffer(bytes(count))])
    lists = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), zeros)
    pq.write_table(pa.table({"text": ["a"], "bomb": lists}), path, compression="zstd")
    return path


BOMBS: dict[str, Callable[[Path], Path]] = {
    "1 MB x 2,000 rows": lambda path: _dictionary_bomb(path, 10**6, 2000),
    "50 MB x 2,000 rows": lambda path: _dictionary_bomb(path, 5 * 10**7, 2000),
    "1 MB x 2,000 in one row": lambda path: _dictionary_bomb(path, 10**6, 2000, nested=True),
    "40 million zeros in one row": lambda path: _list_bomb(path, 40_000_000),
}


@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS)
def test_a_small_parquet_file_that_unfolds_is_refused_in_bounded_memory(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make(tmp_path / "a.parquet")
    program = (
        "import resource, sys; from pathlib import Path; sys.path.insert(0, 'tests')\n"
        "from batchscore.errors import DataError; from test_readers import read_all\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_all(Path(sys.argv[1]))\n"
        "except DataError as error: assert '--max-expansion' in str(error), error\n"
        "else: sys.exit('not refused')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 400 * 1024  # KiB


def test_a_dictionary_that_a_file_may_have_is_no_bomb(tmp_path: Path) -> None:
    """Few values in many rows are decoded batch by batch; each batch carries the whole dictionary, which counts once."""
    values = pa.array([f"value {k} " + "x" * 100 for k in range(5000)])
    indices = pa.array([k % 5000 for k in range(60_000)], pa.int32())
    table = pa.table({"text": pa.array(["a"] * 60_000), "d": pa.DictionaryArray.from_arrays(indices, values)})
    pq.write_table(table, tmp_path / "a.parquet")
    parts = read_all(tmp_path / "a.parquet")
    assert [part.rows_in for part in parts[:-1]] == [2048] * (len(parts) - 1)


def test_too_many_columns_are_refused(tmp_path: Path) -> None:
    names = [f"c{k}" for k in range(30)]
    (tmp_path / "a.csv").write_text(",".join(["text", *names]) + "\n", encoding="utf-8")
    pq.write_table(pa.table({"text": ["a"], **{name: [1] for name in names}}), tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        with pytest.raises(DataError, match=f"{name}.*31 columns"):
            read_all(tmp_path / name, max_columns=30)


def test_a_header_longer_than_the_sniffed_head_is_read_whole(tmp_path: Path) -> None:
    names = ["text", *(f"column_{k}_{'x' * 60}" for k in range(6000))]
    (tmp_path / "a.csv").write_text(",".join(names) + "\n" + "a" + "," * 6000 + "\n", encoding="utf-8")
    (part,) = read_all(tmp_path / "a.csv")
    assert part.texts == ["a"]


def test_a_field_of_10_mb_is_fine_and_a_row_over_the_limit_a_reject(tmp_path: Path) -> None:
    long = "x" * 10_000_000
    (tmp_path / "a.csv").write_text(f'text,id\n"{long}",1\nb,2\n', encoding="utf-8")
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"text": long, "id": 1}) + "\n" + json.dumps({"text": "b", "id": 2}), encoding="utf-8"
    )
    pq.write_table(pa.table({"text": [long, "b"], "id": [1, 2]}), tmp_path / "a.parquet")
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        (part,) = read_all(tmp_path / name)
        assert part.texts == [long, "b"]
        (part,) = read_all(tmp_path / name, max_row_bytes=1_000_000)
        assert (part.texts, part.row, len(part.rejects)) == (["b"], [1], 1)
        assert len(part.rejects[0].raw) == 64 * 1024
        assert "1000000" in part.rejects[0].reason


# ----------------------------------------------------------------------------------------------------- JSON Lines


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a"', "not JSON"),
        (b"[1, 2]", "a JSON array, not an object"),
        (b'"text"', "a JSON string, not an object"),
        (b"null", "a JSON null, not an object"),
        (b'{"text": 5}', "a JSON number, not a string"),
        (b'{"text": ["a"]}', "a JSON array, not a string"),
        (b'{"text": "\\ud83d"}', "half of a surrogate pair"),
        (b'{"text": "a", "\\udfff": 1}', "half of a surrogate pair"),
        (b'{"text": "\xff"}', "not UTF-8"),
        (b'{"text": "a\0"}', "not JSON"),
        (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "not JSON that can be read"),
        (b'{"text": "a", "n": ' + b"[" * 300 + b"]" * 300 + b"}", "nested too deeply"),
        (b'{"text": "a", "n": ' + b"[" * 300_000 + b"]" * 300_000 + b"}", "nested too deeply"),
        (b'{"text": "a", "n": ' + b'{"a":' * 300_000, "nested too deeply"),
    ],
)
def test_a_line_that_is_no_record_is_explained_and_its_neighbours_do_not_notice(
    line: bytes, reason: str, tmp_path: Path
) -> None:
    before, after = b'{"text": "before"}\n', b'{"text": "after"}\n'
    (tmp_path / "a.jsonl").write_bytes(before + line + b"\n" + after)
    (part,) = read_all(tmp_path / "a.jsonl")
    assert part.texts == ["before", "after"]
    (reject,) = part.rejects
    assert reason in reject.reason
    assert (reject.row, reject.line, reject.offset, reject.raw) == (1, 2, len(before), line + b"\n")


def test_brackets_within_strings_are_no_nesting(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "[{" * 1000, "n": [[1]] * 500}), encoding="utf-8")
    assert read_all(tmp_path / "a.jsonl")[0].texts == ["[{" * 1000]


def test_the_first_line_may_be_longer_than_the_head(tmp_path: Path) -> None:
    long = "x" * 400_000
    (tmp_path / "a.jsonl").write_text("no json\n" + json.dumps({"text": long}) + "\n", encoding="utf-8")
    (part,) = read_all(tmp_path / "a.jsonl")
    assert part.texts == [long]
    assert len(part.rejects) == 1


def test_json_lines_in_another_encoding_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('{"text": "a"}\n'.encode("utf-16"))
    with pytest.raises(DataError, match="convert the file"):
        read_all(tmp_path / "a.jsonl")


def test_a_field_with_values_of_several_kinds_may_still_be_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": 1}\n{"text": null}\n', encoding="utf-8")
    (part,) = read_all(tmp_path / "a.jsonl")
    assert part.texts == ["a", None]
    assert len(part.rejects) == 1


# --------------------------------------------------------------------------------------------------------- Parquet


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary", "string_view"])
def test_a_text_that_is_not_utf_8_is_a_reject(kind: str, tmp_path: Path) -> None:
    offsets = pa.array([0, 2, 4, 6], pa.int32()).buffers()[1]
    column: Any = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"ok\xff\xfeab"))
    if kind == "large_string":
        column = pa.LargeStringArray.from_buffers(
            3, pa.array([0, 2, 4, 6], pa.int64()).buffers()[1], pa.py_buffer(b"ok\xff\xfeab")
        )
    if kind == "dictionary":
        column = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int32()), column)
    table = pa.table({"text": column, "view": pa.array(["a", "b", "c"], pa.string_view())})
    if kind == "string_view":
        table = table.cast(pa.schema([("text", pa.string_view()), ("view", pa.string_view())]), safe=False)
    pq.write_table(table, tmp_path / "a.parquet")
    (part,) = read_all(tmp_path / "a.parquet")
    assert (part.texts, part.row) == (["ok", "ab"], [0, 2])
    assert part.table is not None
    assert part.table.column(1).to_pylist() == ["a", "c"]
    (reject,) = part.rejects
    assert (reject.row, reject.column, reject.raw) == (1, "text", b"\xff\xfe")


def test_a_read_error_of_the_disk_is_not_called_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batchscore.errors import StorageError

    path = write_csv(tmp_path / "a.csv")

    def fail(self: Path, *args: Any, **options: Any) -> Any:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        identify(path)


@pytest.mark.parametrize("rows", [0, 2, 3000])
def test_parquet_files_that_were_joined_are_refused(rows: int, tmp_path: Path) -> None:
    names = ("a.parquet", "b.parquet")
    for name in names:
        texts = [f"{name} {k}" for k in range(rows)]
        pq.write_table(
            pa.table({"text": pa.array(texts, pa.string())}), tmp_path / name, write_page_index=True
        )
        assert flow(tmp_path / f"out-{name}", tmp_path / name).plan.rows == rows
    (tmp_path / "c.parquet").write_bytes(b"".join((tmp_path / name).read_bytes() for name in names))
    with pytest.raises(DataError, match="several Parquet files joined into one"):
        flow(tmp_path / "out", tmp_path / "c.parquet")
