"""The header of a CSV file: recognised, refused, or said not to be there; and headers in the middle of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flow import Flow, flow

from batchscore.config import ReadSettings
from batchscore.errors import BatchscoreError, DataError, UsageError


def scored(folder: Path, content: str, **settings: Any) -> Flow:
    (folder / "a.csv").write_bytes(content.encode())
    return flow(folder / "out", folder / "a.csv", read=ReadSettings(**settings))


def texts(result: Flow) -> list[str | None]:
    return [text for rows in result.rows for text in rows.texts]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("A warm film.\nA dull film.\n", id="one column"),
        pytest.param("A warm film, loved it.\nA dull film, a waste.\n", id="one column with commas"),
        pytest.param("1,A warm film,pos\n2,Dull,neg\n", id="several columns"),
        pytest.param("worker-17\n", id="a host's name"),
        pytest.param("1|A warm film|1\n", id="bars"),
    ],
)
def test_a_file_without_a_header_is_refused_and_nothing_of_it_said(content: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--no-header") as caught:
        scored(tmp_path, content)
    assert caught.value.exit_code == 65
    assert "warm" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "settings", "expected"),
    [
        ("Good film\nBad film\n", {"has_no_header": True}, ["Good film", "Bad film"]),
        ('"Good, film"\nBad film\n', {"has_no_header": True}, ["Good, film", "Bad film"]),
        (
            "Good, film\nBad, film\n",
            {"has_no_header": True, "delimiter": "none"},
            ["Good, film", "Bad, film"],
        ),
        (
            'Good "film"\nBad, 5" x\n',
            {"has_no_header": True, "delimiter": "none"},
            ['Good "film"', 'Bad, 5" x'],
        ),
        (
            "Good, film\nBad, film\n",
            {"has_no_header": True, "column_names": ("review",)},
            ["Good, film", "Bad, film"],
        ),
        ("1,Good\n2,Bad\n", {"has_no_header": True, "column_names": ("id", "text")}, ["Good", "Bad"]),
        ("1,Good\n2,Bad\n", {"has_no_header": True, "text_column": "column_2"}, ["Good", "Bad"]),
        ("\n\n1,Good\n", {"has_no_header": True, "column_names": ("id", "text")}, ["Good"]),
        ("text\nGood, film\n", {"delimiter": "none"}, ["Good, film"]),
    ],
)
def test_with_no_header_the_first_line_is_a_row(
    content: str, settings: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    result = scored(tmp_path, content, **settings)
    assert texts(result) == expected
    header, *lines = result.only.read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(expected)
    assert header.split(",")[0] in {"text", "review", "id", "column_1"}


@pytest.mark.parametrize(
    ("content", "settings", "error", "message"),
    [
        ("1,Good\n", {}, DataError, "none by its name"),
        ("1,Good\n", {"column_names": ("a", "b", "c")}, UsageError, "3 names, but the first row has 2 cells"),
        ("id,text\n1,Good\n", {}, DataError, "its first line is a header"),
        ("id,text\n1,Good\n", {"column_names": ("id", "text")}, DataError, "its first line is a header"),
    ],
)
def test_no_header_is_refused_where_it_cannot_be_meant(
    content: str, settings: dict[str, Any], error: type[BatchscoreError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        scored(tmp_path, content, has_no_header=True, **settings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Report of 3 May\nby me\n\nid,text\n1,a\n", "Line 4 looks like the header: --skip-lines 3"),
        ("Report, of 3 May\nid;text\n1;a\n", "Line 2 looks like the header: --skip-lines 1"),
        (",,Sentiment\nid,text,label\n1,a,pos\n", "Line 2 looks like the header: --skip-lines 1"),
        ("id§text\n1§a\n", "Perhaps its columns are divided by '§': --delimiter '§'"),
        (
            "id,text\nint,string\n1,a\n",
            "line 2 seems to be no row but the types of the columns.*--header-lines 2",
        ),
        ("id,text\nBIGINT,varchar(255)\n1,a\n", "the types of the columns"),
        ("id|text\n----|-----\n1|a\n", "a rule.*--header-lines 2"),
        (
            'Q1,text\n"{""ImportId"":""Q1""}","{""ImportId"":""Q2""}"\n1,a\n',
            "a survey tool.*--header-lines 2",
        ),
    ],
)
def test_what_stands_around_a_header_is_refused_with_the_option(
    content: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        scored(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "settings"),
    [
        ("Report of 3 May\nby me\n\nid,text\n1,a\n", {"skip_lines": 3}),
        ("Report of 3 May\nby me\n\nid,text\n1,a\n", {"skip_lines": 2}),
        ("id,text\nint,string\n1,a\n", {"header_lines": 2}),
        ('id,text\nwhich,"what\nthey said"\nint,string\n1,a\n', {"header_lines": 3}),
        ("x\nid;text\nint;string\n1;a\n", {"skip_lines": 1, "header_lines": 2}),
    ],
)
def test_with_the_option_the_rows_begin_where_they_should(
    content: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    result = scored(tmp_path, content, **settings)
    assert texts(result) == ["a"]
    assert result.only.read_text(encoding="utf-8").startswith(("id,text,predicted", "id;text;predicted"))


def test_excels_own_line_is_understood_and_kept(tmp_path: Path) -> None:
    result = scored(tmp_path, "sep=;\r\nid;text\r\n1;a,b\r\n")
    assert texts(result) == ["a,b"]
    assert result.only.read_bytes().startswith(b"sep=;\r\nid;text;predicted_label;")


@pytest.mark.parametrize(
    "second",
    ["id,text\n", '"id","text"\n', "\ufeffid,text\n", "id,text\r\n"],
    ids=["plain", "quoted", "marked", "CRLF"],
)
def test_a_header_that_comes_again_is_a_reject(second: str, tmp_path: Path) -> None:
    result = scored(tmp_path, f"id,text\n1,a\n{second}2,b\n")
    assert texts(result) == ["a", "b"]
    (reject,) = result.rejects
    assert (reject["reason"], reject["row"], reject["line"]) == ("a second header", 1, 3)


@pytest.mark.parametrize("second", ["text,id\nb,2\n", "key,review\n2,b\n", "review_id,body\n2,b\n"])
def test_another_header_in_the_middle_ends_the_file(second: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 3: another header"):
        scored(tmp_path, f"id,text\n1,a\n{second}")


def test_short_reviews_are_not_taken_for_headers(tmp_path: Path) -> None:
    content = "id,text,label\n1,review,pos\n2,Text,neg\n3,comment,\nid4,fine,pos\n"
    assert texts(scored(tmp_path, content)) == ["review", "Text", "comment", "fine"]


def test_a_null_of_a_database_is_no_text_and_no_label(tmp_path: Path) -> None:
    result = scored(tmp_path, "id\ttext\tlabel\n1\t\\N\t1\n2\tgood\t\\N\n3\tbad\t0\n")
    assert texts(result) == [None, "good", "bad"]
    assert [list(rows.labels or ()) for rows in result.rows] == [["1", None, "0"]]
    assert result.plan.files[0].labelled == 2


def test_the_file_in_two_ways_of_escaping(tmp_path: Path) -> None:
    body = 'id,text\n1,"a \\"fine\\" film, really"\n2,"C:\\\\"\n'
    assert texts(scored(tmp_path, body)) == ['a "fine" film, really', "C:\\"]
    broken = 'id,text\n1,"a \\"fine\\" film"\n2,"x"y\n3,z\n'
    result = scored(tmp_path, broken, escapechar="\\")
    assert (texts(result), [each["line"] for each in result.rejects]) == (['a "fine" film', "z"], [3])
