"""Lines of CSV predictions made many at once are those that are made one by one."""

from __future__ import annotations

import dataclasses
import random

import pyarrow as pa
import pytest

from batchscore.formats import csv_lines, delimited
from batchscore.formats.arrow_values import texts_of_values
from batchscore.formats.csv_lines import appended, lines_of

PLAIN = delimited.Dialect()
ENDS = [b"\n", b"\r\n", b"\r\r\n", b"\r", b""]


def one_by_one(records: list[bytes], added: list[pa.Array], dialect: delimited.Dialect) -> bytes:
    extra = zip(*map(texts_of_values, added), strict=True)
    return b"".join(
        delimited.append_fields(record, cells, dialect) for record, cells in zip(records, extra, strict=True)
    )


def columns(rows: int, labels: list[str | None]) -> list[pa.Array]:
    rng = random.Random(rows)
    odd = [None, 0.0, 1.0, 1e-7, 0.5, float("nan"), 0.1]
    floats = [rng.choice(odd) if rng.random() < 0.1 else rng.random() for _ in range(rows)]
    return [
        pa.array([rng.choice(labels) for _ in range(rows)], pa.string()),
        pa.array(floats, pa.float32()),
        pa.array([rng.choice([None, 1, 512]) for _ in range(rows)], pa.int32()),
        pa.array([rng.choice([None, True, False]) for _ in range(rows)], pa.bool_()),
    ]


@pytest.mark.parametrize("labels", [["pos", None], ["gut", "schön"], ["a,b"], ['a"b', "c"], ["\ufeffx", ""]])
@pytest.mark.parametrize(
    "dialect",
    [
        PLAIN,
        dataclasses.replace(PLAIN, delimiter=";", encoding="latin-1"),
        dataclasses.replace(PLAIN, delimiter=".", quotechar="'"),
        dataclasses.replace(PLAIN, delimiter="||"),
        dataclasses.replace(PLAIN, quotechar="", delimiter="|"),
        dataclasses.replace(PLAIN, escapechar="\\"),
        dataclasses.replace(PLAIN, encoding="utf-16-le"),
        dataclasses.replace(PLAIN, quotechar="'", delimiter="\t", encoding="shift_jis"),
    ],
)
def test_they_are_the_same_bytes_or_none(labels: list[str | None], dialect: delimited.Dialect) -> None:
    made = 0
    for end in ENDS:
        for start, rows in ((0, 200), (3, 100), (0, 40)):
            records = [b"r%d,%s%s" % (k, b"x" * (k % 7), end) for k in range(start + rows)]
            whole = pa.array(records, pa.large_binary())
            added = columns(start + rows, labels)
            part, cells = whole.slice(start), [each.slice(start) for each in added]
            pieces = appended(part, cells, dialect)
            if pieces:
                made += 1
                assert b"".join(map(bytes, pieces)) == one_by_one(records[start:], cells, dialect)
                lines = lines_of(part, cells, dialect)
                assert lines is not None
                for first, end_ in (
                    (0, 1),
                    (0, rows),
                    (7, 7),
                    (7, 8),
                    (30, rows),
                    (rows - 1, rows),
                ):  # as files of a shard
                    some = b"".join(map(bytes, lines.between(first, end_)))
                    of_file = [each.slice(first, end_ - first) for each in cells]
                    assert some == one_by_one(records[start + first : start + end_], of_file, dialect)
    usual = dialect.delimiter in ",;\t|" and not dialect.escapechar and dialect.encoding != "utf-16-le"
    is_plain = labels == ["pos", None] or (labels == ["gut", "schön"] and dialect.encoding == "utf-8")
    is_plain = (
        is_plain
        or (labels == ["a,b"] and dialect.delimiter != ",")
        or (labels[0] == 'a"b' and not dialect.quotechar)
    )
    is_plain = is_plain or (labels[0] == 'a"b' and dialect.quotechar == "'")
    assert made == (4 if usual and is_plain else 0)


def test_mixed_line_ends_and_large_records_are_made_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [b"abc\n"] * 99 + [b"abc\r\n"]
    added = columns(100, ["x"])
    assert appended(pa.array(records, pa.large_binary()), added, PLAIN) == []
    assert appended(pa.array(records[:99], pa.large_binary()), [a.slice(0, 99) for a in added], PLAIN)
    assert appended(pa.array([*records[:99], b"abc"], pa.large_binary()), added, PLAIN) == []
    monkeypatch.setattr(csv_lines, "_LARGE", 10)
    assert appended(pa.array(records[:99], pa.large_binary()), [a.slice(0, 99) for a in added], PLAIN) == []
