"""CSV as it is in the world: the same cells back, damage contained, and no decision that hangs on a block's edge."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from typing import Literal

import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from batchscore.errors import DataError, UsageError
from batchscore.formats.delimited import (
    KEPT_BYTES,
    Dialect,
    Given,
    Limits,
    Position,
    Record,
    Rejected,
    append_fields,
    detect_encoding,
    encode_fields,
    encoding_hint,
    next_position,
    parse_record,
    read_header,
    read_records,
    sniff,
)
from batchscore.formats.delimited.dialect import text_lines

COMMA = Dialect()
START = Position(0, 1)
BLOCKS = (*range(1, 18), 1 << 18)

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def read(
    body: bytes,
    n_fields: int,
    dialect: Dialect = COMMA,
    *,
    block: int = 1 << 18,
    max_row_bytes: int = 32 << 20,
    start: Position = START,
) -> list[Record | Rejected]:
    stream = io.BytesIO(body)
    stream.seek(start.offset)
    limits = Limits(max_row_bytes=max_row_bytes, block_bytes=block)
    header = [f"column{k}" for k in range(n_fields)]
    blocks = read_records(
        stream, dialect, n_fields, limits, offset=start.offset, line=start.line, header=header
    )
    return list(chain.from_iterable(blocks))


def rows(items: Iterable[Record | Rejected]) -> list[list[str]]:
    return [item.fields for item in items if isinstance(item, Record)]


def rejects(items: Iterable[Record | Rejected]) -> list[Rejected]:
    return [item for item in items if isinstance(item, Rejected)]


def outline(items: Iterable[Record | Rejected]) -> list[str]:
    """Records by their first cell, rejects by their line: ``["1", "reject 3", "reject 4", "5"]``."""
    return [item.fields[0] if isinstance(item, Record) else f"reject {item.line}" for item in items]


# -------------------------------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize(
    ("head", "given_name", "expected"),
    [
        pytest.param(b"a,b\n", None, ("utf-8", b""), id="plain"),
        pytest.param(b"", None, ("utf-8", b""), id="empty"),
        pytest.param(b"\xef\xbb\xbfa", None, ("utf-8", b"\xef\xbb\xbf"), id="utf-8 mark"),
        pytest.param(b"\xff\xfea\0", None, ("utf-16-le", b"\xff\xfe"), id="utf-16-le mark"),
        pytest.param(b"\xfe\xff\0a", None, ("utf-16-be", b"\xfe\xff"), id="utf-16-be mark"),
        pytest.param(b"\xff\xfe\0\0a\0\0\0", None, ("utf-32-le", b"\xff\xfe\0\0"), id="utf-32-le mark"),
        pytest.param(b"\0\0\xfe\xff\0\0\0a", None, ("utf-32-be", b"\0\0\xfe\xff"), id="utf-32-be mark"),
        pytest.param("id,größe\n".encode("utf-16-le"), None, ("utf-16-le", b""), id="utf-16-le NULs"),
        pytest.param("id,größe\n".encode("utf-16-be"), None, ("utf-16-be", b""), id="utf-16-be NULs"),
        pytest.param("id,größe\n".encode("utf-32-le"), None, ("utf-32-le", b""), id="utf-32-le NULs"),
        pytest.param("id,größe\n".encode("utf-32-be"), None, ("utf-32-be", b""), id="utf-32-be NULs"),
        pytest.param(b"id,text\n1,a\0b\n" * 9, None, ("utf-8", b""), id="a NUL here and there is not utf-16"),
        pytest.param("größe\n".encode("cp1252"), None, ("utf-8", b""), id="latin-1 is never guessed"),
        pytest.param(b"a", "CP1252", ("cp1252", b""), id="given"),
        pytest.param(b"a", "ISO-8859-1", ("latin-1", b""), id="given latin-1"),
        pytest.param(b"\xef\xbb\xbfa", "utf-8-sig", ("utf-8", b"\xef\xbb\xbf"), id="given utf-8-sig"),
        pytest.param(b"\xfe\xff\0a", "utf-16", ("utf-16-be", b"\xfe\xff"), id="given utf-16, marked"),
        pytest.param(b"\x42\x4e", "utf-16", ("utf-16-le", b""), id="given utf-16, nothing to see"),
        pytest.param(b"\xef\xbb\xbfa", "cp1252", ("cp1252", b""), id="given beats the mark"),
    ],
)
def test_encoding_is_the_given_one_else_what_the_bytes_prove(
    head: bytes, given_name: str | None, expected: tuple[str, bytes]
) -> None:
    assert detect_encoding(head, given_name) == expected


@pytest.mark.parametrize(
    "name", ["klingon", "base64", "utf-7", "iso2022_jp", "unicode_escape", "cp037", "a\0b"]
)
def test_an_encoding_that_cannot_be_read_by_lines_is_wrong_usage(name: str) -> None:
    with pytest.raises(UsageError, match="encoding"):
        detect_encoding(b"", name)


def test_the_hint_is_for_utf_8_only() -> None:
    assert "--encoding cp1252" in encoding_hint("utf-8")
    assert encoding_hint("cp1252") == ""


# ------------------------------------------------------------------------------------------------ dialect and header


@pytest.mark.parametrize(
    ("head", "delimiter"),
    [
        pytest.param(b"id,text\n1,a;b\n2,c|d\n", ",", id="comma"),
        pytest.param(b"id;text\n1;a,b,c\n2;d,e,f\n", ";", id="semicolon with commas in the text"),
        pytest.param(b"id\ttext\n1\ta,b\n", "\t", id="tab"),
        pytest.param(b"id|text\n1|a,b\n", "|", id="bar"),
        pytest.param(b"text\na, b, c\nd; e\n", ",", id="one column"),
        pytest.param(b'"a;b;c","d"\n"1;2","3"\n', ",", id="delimiters in quoted names"),
        pytest.param(b"a,b;c\n1,5;2\n3;4\n", ";", id="the more consistent one"),
        pytest.param(b'id,text\n1,"cut in the mid', ",", id="cut within quotes"),
        pytest.param(b"", ",", id="empty"),
        pytest.param("id;text\n1;ä\n".encode("utf-16"), ";", id="utf-16"),
        pytest.param("id;größe\n1;ä".encode()[:-1], ";", id="cut within a character"),
    ],
)
def test_the_delimiter_is_the_one_that_makes_columns(head: bytes, delimiter: str) -> None:
    assert sniff(head).delimiter == delimiter


@pytest.mark.parametrize(
    ("head", "terminator"),
    [
        (b"a,b\n1,2\r\n", "\n"),
        (b"a,b\r\n1,2\n", "\r\n"),
        (b"a,b\r1,2\n", "\r"),
        (b'"a\nb",c\r\n1,2\n', "\r\n"),
        (b"\n\na,b\r1,2\n", "\r"),
        (b"a,b", "\n"),
        (b"a,b\r", "\r\n"),  # it may have been cut before the line feed
        ("a,b\r\n".encode("utf-16-be"), "\r\n"),
    ],
)
def test_the_line_terminator_is_the_headers_own(head: bytes, terminator: str) -> None:
    assert sniff(head).line_terminator == terminator


def test_what_is_given_is_not_sniffed() -> None:
    dialect = sniff(b"a,b;c\n", Given(";", "'", encoding="latin-1"))
    assert dialect == Dialect(";", "'", "latin-1", b"", "\n")


@pytest.mark.parametrize(
    "broken",
    [
        {"delimiter": ""},
        {"delimiter": "a" * 9},
        {"delimiter": "|\n"},
        {"delimiter": "\n"},
        {"quotechar": "''"},
        {"delimiter": '"'},
        {"line_terminator": "x"},
        {"escapechar": "\\\\"},
        {"escapechar": '"'},
        {"escapechar": ","},
        {"delimiter": "|\ufdd2"},
        {"quotechar": "\ufdd0"},
    ],
)
def test_a_dialect_that_cannot_be_meant_is_wrong_usage(broken: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        Dialect(**broken)  # type: ignore[arg-type]


def test_a_dialect_survives_json() -> None:
    dialect = Dialect("\t", "'", "utf-16-le", b"\xff\xfe", "\r\n")
    assert Dialect.from_json(json.loads(json.dumps(dialect.to_json()))) == dialect


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-32-be"])
@pytest.mark.parametrize(
    ("head", "rest", "fields"),
    [
        ("a,b\n", "1,2\n", ["a", "b"]),
        ("a,b\r\n", "1,2\r\n", ["a", "b"]),
        ("a,b\r", "1,2\r", ["a", "b"]),
        ('"a\r\nb\rc\n","d""e"\n', "1,2\n", ["a\r\nb\rc\n", 'd"e']),
        ("a,a,,a\n", "1,2,3,4\n", ["a", "a", "", "a"]),
        ('\ufdd0,"b\rc\ufdd5\ufdd6\nd"\n', "1,2\n", ["\ufdd0", "b\rc\ufdd5\ufdd6\nd"]),
        ("\n\na,b\n", "1,2\n", ["a", "b"]),
        ("a", "", ["a"]),
    ],
)
def test_the_header_is_read_and_not_one_byte_more(
    encoding: str, head: str, rest: str, fields: list[str]
) -> None:
    bom = b"BOM!"
    data = bom + (head + rest).encode(encoding)
    dialect = Dialect(
        encoding=encoding, bom=bom, line_terminator=sniff((head + rest).encode()).line_terminator
    )
    stream = io.BytesIO(data)
    header = read_header(stream, dialect)
    assert header is not None
    blank = len(head) - len(head.lstrip("\n"))
    assert header.fields == fields
    assert (header.line, header.offset) == (1 + blank, len(bom) + len("\n".encode(encoding)) * blank)
    assert header.raw == head[blank:].encode(encoding)
    assert stream.read() == rest.encode(encoding)
    assert next_position(header, dialect).offset == len(data) - len(rest.encode(encoding))


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"\n", b"\r\n\r\n"])
def test_a_file_without_a_record_has_no_header(data: bytes) -> None:
    dialect = sniff(data)
    assert read_header(io.BytesIO(data), dialect) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'"a"b,c\n', "line 1 cannot be parsed"),
        (b'a,"b\n' + b"x\n" * 700_000, "does not end within"),
        (b"caf\xe9,b\n", "--encoding cp1252"),
        (b"a\0,b\n", "NUL"),
        (b"a,b,c,d\n", "4 columns; at most 3"),
    ],
)
def test_a_header_that_cannot_be_read_is_bad_data(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_header(io.BytesIO(data), COMMA, Limits(max_columns=3))


# ----------------------------------------------------------------------------------------------------------- records


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"1,2\n3,4", [["1", "2"], ["3", "4"]], id="no last terminator"),
        pytest.param(b"1,2\r\n3,4\r\r\n5,6\n", [["1", "2"], ["3", "4"], ["5", "6"]], id="mixed terminators"),
        pytest.param(b'1,a\rb\n2,"c\rd"\n', [["1", "a\rb"], ["2", "c\rd"]], id="a lone return is text"),
        pytest.param(b'"a""b","c,d"\n', [['a"b', "c,d"]], id="doubled quote, delimiter in quotes"),
        pytest.param(b'"a\r\nb\rc\nd",""\n', [["a\r\nb\rc\nd", ""]], id="line breaks in quotes"),
        pytest.param(b'"x",a"b"c\n', [["x", 'a"b"c']], id="quotes that pair up within an unquoted field"),
        pytest.param(b'1, "x"\n', [["1", ' "x"']], id="a quote behind a space is text"),
        pytest.param(b"007,=1+1\n 1 ,NA\n", [["007", "=1+1"], [" 1 ", "NA"]], id="text stays text"),
        pytest.param(b"1,2\n\n\r\n3,4\n\n", [["1", "2"], ["3", "4"]], id="empty lines are no rows"),
        pytest.param(b'1,"a\n\nb"\n', [["1", "a\n\nb"]], id="empty lines in quotes are text"),
        pytest.param(
            "1,a\x0bb\x0c\x1c\x85\u2028c\n".encode(),
            [["1", "a\x0bb\x0c\x1c\x85\u2028c"]],
            id="unicode line ends",
        ),
        pytest.param(b"1,a\\\n2,b\n", [["1", "a\\"], ["2", "b"]], id="a backslash escapes nothing"),
        pytest.param(b"", [], id="nothing"),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 3, 1 << 18])
def test_records_follow_rfc_4180(body: bytes, expected: list[list[str]], block: int) -> None:
    items = read(body, 2, block=block)
    assert rows(items) == expected
    assert not rejects(items)


def test_an_empty_line_is_no_row_of_a_one_column_table_either() -> None:
    assert rows(read(b'a\n\n""\n\r\nb', 1)) == [["a"], [""], ["b"]]


def test_skipped_empty_lines_are_counted_in_lines_and_offsets() -> None:
    first, second = read(b"\n1,2\n\r\n\r\r\n3,4\n", 2)
    assert (first.line, first.offset) == (2, 1)
    assert (second.line, second.offset) == (5, 10)


@pytest.mark.parametrize("block", range(1, 24))
def test_a_quoted_crlf_survives_every_block_edge(block: int) -> None:
    for shift in range(1, 12):
        body = f'{"x" * shift},"one\r\ntwo"\r\n2,"three\r\n"\r\n'.encode()
        assert rows(read(body, 2, block=block)) == [["x" * shift, "one\r\ntwo"], ["2", "three\r\n"]]


def test_a_field_may_be_longer_than_the_csv_modules_own_limit() -> None:
    text = 'a ""review""\u2028\x0b \r\n' * 400_000
    body = f'1,"{text}"\n2,b\n'.encode()
    first, second = read(body, 2)
    assert rows([first, second]) == [["1", text.replace('""', '"')], ["2", "b"]]
    assert first.raw + second.raw == body
    assert second.line == 400_002


def test_without_a_quote_character_quotes_are_text() -> None:
    assert rows(read(b'"a,b"\n"c,d\n', 2, Dialect(quotechar=""))) == [['"a', 'b"'], ['"c', "d"]]


def test_another_quote_and_delimiter_are_taken_literally() -> None:
    assert rows(read(b"^a|^^b^|.c\n", 2, Dialect(delimiter=".", quotechar="|"))) == [["^a|^^b^|", "c"]]
    assert rows(read(b"^a|^^b^|c\n", 2, Dialect(delimiter="|", quotechar="^"))) == [["a|^b", "c"]]


# ----------------------------------------------------------------------------------------------------------- rejects


@pytest.mark.parametrize(
    ("bad", "reason", "column"),
    [
        pytest.param(b"2,x", "too few fields: 2, not 3", None, id="too few"),
        pytest.param(b"2,x,y,z", "too many fields: 4, not 3", None, id="too many"),
        pytest.param(b'2,"x\ny"', "too few fields: 2, not 3", None, id="too few in two lines"),
        pytest.param(b"2,a\0b,pos", "NUL", "column1", id="NUL"),
        pytest.param(b'2,"a\0b\n",pos', "NUL", "column1", id="NUL in quotes"),
        pytest.param(
            b"2,x,caf\xe9", "0xe9 at byte 7 of the row is not utf-8; .*cp1252", "column2", id="bad byte"
        ),
        pytest.param(b'2,"\xff\n",pos', "0xff at byte 3", "column1", id="bad byte in quotes"),
        pytest.param(b"2,\xed\xa0\x80,pos", "not utf-8", "column1", id="encoded surrogate"),
        pytest.param(
            b'2,"x"y,pos', r"quotes do not pair up, seen in line \d:", None, id="text after a quote"
        ),
        pytest.param(b'2,"never closed,pos', r"quotes do not pair up, seen in line \d:", None, id="unclosed"),
    ],
)
@pytest.mark.parametrize("block", [1, 5, 1 << 18])
@pytest.mark.parametrize("terminator", [b"\n", b"\r\n", b"\r"])
def test_one_bad_row_is_explained_and_its_neighbours_do_not_notice(
    bad: bytes, reason: str, column: str | None, block: int, terminator: bytes
) -> None:
    first, rest = b'1,"a, ""b""\n",pos' + terminator, b'3,"d",neg' + terminator + b"4,e,neg" + terminator
    dialect = Dialect(line_terminator=terminator.decode())
    items = read(first + bad + terminator + rest, 3, dialect, block=block)
    assert rows(items) == [["1", 'a, "b"\n', "pos"], ["3", "d", "neg"], ["4", "e", "neg"]]
    reject = rejects(items)[0]
    assert b"".join(each.raw for each in rejects(items)) == bad + terminator
    assert reject.offset == len(first)
    assert reject.column == column
    assert re.search(reason, reject.reason)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param('1,a\n2,"never\n3,"c"\n', ["1", "reject 2", "3"], id="unclosed, then quoted"),
        pytest.param(
            '1,a\n2,"never\n3,c\n4,"d"\n',
            ["1", "reject 2", "3", "4"],
            id="unclosed, then unquoted, then quoted",
        ),
        pytest.param(
            '1,a\n2,"never\n3,c\n4,d\n',
            ["1", "reject 2", "3", "4"],
            id="unclosed, then no quote to the end",
        ),
        pytest.param('1,a\n2,"never', ["1", "reject 2"], id="unclosed in the last line"),
        pytest.param(
            '1,a\n2,"x\n3,"y\n4,d\n', ["1", "reject 2", "reject 3", "4"], id="two unclosed in a row"
        ),
        pytest.param(
            '1,a\n2,"x\n3,c\n4,"y\n5,e\n',
            ["1", "reject 2", "3", "reject 4", "5"],
            id="a good row between unclosed ones",
        ),
        pytest.param(
            '1,"a\n2,", b"\n3,c\n', ["reject 1", "2", "3"], id="closed by accident, with a stray quote"
        ),
        pytest.param('"1,a\n2,"\nb"\n3,c\n', ["reject 1", "2", "3"], id="closed by accident, ragged"),
        pytest.param(
            '1,a\n2,"he said "hi" there\nthe end"\n3,c\n',
            ["1", "reject 2", "reject 3", "3"],
            id="stray quotes in two lines",
        ),
        pytest.param(
            '2,"he said "hi"\nand went, home\nthe end"\n3,"c"\n',
            ["reject 1", "reject 2", "reject 3", "3"],
            id="prose that looks like a row",
        ),
        pytest.param(
            '2,"he said "hi"\nwell, yes\nno, no\n\nthe end"\n3,c\n',
            ["reject 1", "reject 2", "reject 3", "reject 5", "3"],
            id="prose of two rows",
        ),
        pytest.param(
            '2,"he said "hi"\nwell, yes\n""no"", she\nok"\n3,c\n',
            ["reject 1", "reject 2", "reject 3", "reject 4", "3"],
            id="doubled quotes in the prose",
        ),
        pytest.param(
            '2,"he said "hi"\nwell, yes\nsaid,""no"" then\nok"\n3,c\n',
            ["reject 1", "reject 2", "reject 3", "reject 4", "3"],
            id="doubled quotes behind a comma in the prose",
        ),
        pytest.param(
            '2,"he said "hi"\nwell, yes\n"Great!" he said\nok"\n3,c\n',
            ["reject 1", "reject 2", "reject 3", "reject 4", "3"],
            id="prose that starts with a quotation",
        ),
        pytest.param(
            '2,"he said "hi"\n"Great", he said\nok"\n3,c\n',
            ["reject 1", "reject 2", "reject 3", "3"],
            id="a quotation that looks like a row",
        ),
        pytest.param(
            '2,"he said "hi"\nwell, yes\n"\n3,"c"\n',
            ["reject 1", "reject 2", "reject 3", "3"],
            id="a closing quote alone in its line",
        ),
        pytest.param(
            '2,"x "hi"\na, b\n5" disk\nend"\n3,c\n',
            ["reject 1", "reject 2", "reject 3", "reject 4", "3"],
            id="an inch in the prose",
        ),
        pytest.param(
            '1,"a\nb, c\nd",e\n2,f\n',
            ["reject 1", "reject 2", "reject 3", "2"],
            id="ragged in three lines, with a row in its prose",
        ),
    ],
)
def test_damage_ends_at_the_next_credible_row(body: str, expected: list[str]) -> None:
    for block in (1, 4, 7, 1 << 18):
        items = read(body.encode(), 2, block=block)
        assert outline(items) == expected
        assert b"".join(item.raw for item in items) == body.replace("\n\n", "\n").encode()


def test_without_any_quote_ahead_prose_is_told_from_rows_by_its_shape() -> None:
    prose = "".join(f"line {k} of a cut off review\n" for k in range(20))
    assert outline(read(b'1,a\n2,"cut\nwell, yes\n' + prose.encode(), 2)) == [
        "1",
        "reject 2",
        "reject 3",
        "reject 4",
        "reject 5",
        "reject 6",
        "reject 7",
        "reject 8",
        "reject 9",
        "reject 10",
        "reject 11",
        "reject 12",
        "reject 13",
        "reject 14",
        "reject 15",
        "reject 16",
        "reject 17",
        "reject 18",
        "reject 19",
        "reject 20",
        "reject 21",
        "reject 22",
        "reject 23",
    ]
    assert outline(read(b'1,a\n2,"cut\n3,b\n4,c\nragged\n5,d\n', 2)) == [
        "1",
        "reject 2",
        "3",
        "4",
        "reject 5",
        "5",
    ]


def test_utf_16_rejects_a_lone_surrogate_and_an_odd_last_byte() -> None:
    dialect = Dialect(encoding="utf-16-le")
    body = "1,a\n2,".encode("utf-16-le") + b"\x00\xd8" + "\n3,b\n4,c".encode("utf-16-le") + b"\n"
    for block in (1, 3, 1 << 18):
        items = read(body, 2, dialect, block=block)
        assert rows(items) == [["1", "a"], ["3", "b"]]
        assert [(bad.line, bad.column) for bad in rejects(items)] == [(2, "column1"), (4, "column1")]
        assert b"".join(item.raw for item in items) == body


def test_a_broken_multibyte_sequence_does_not_swallow_the_line_end() -> None:
    items = read(b"1,\x81\n2,b\n", 2, Dialect(encoding="gbk"))
    assert outline(items) == ["reject 1", "2"]


@pytest.mark.parametrize("block", [1, 10, 64, 1 << 18])
def test_a_noncharacter_is_text_whatever_is_near_it(block: int) -> None:
    items = read("1,a\rb\n2,\ufdd4\n3,\ufdd4\rc\n4\ufdd4\n5,\0\n".encode(), 2, block=block)
    assert rows(items) == [["1", "a\rb"], ["2", "\ufdd4"], ["3", "\ufdd4\rc"]]
    assert [item.reason.split()[1] for item in rejects(items)] == ["few", "NUL"]


@pytest.mark.parametrize("block", [1, 10, 64, 1 << 18])
def test_a_row_over_the_limit_is_rejected_and_its_neighbours_are_not(block: int) -> None:
    items = read(b"1,a\n2," + b"x" * 50 + b"\n3,b\n", 2, block=block, max_row_bytes=40)
    assert outline(items) == ["1", "reject 2", "3"]
    assert "longer than 40 bytes" in rejects(items)[0].reason


def test_a_row_at_the_limit_is_a_row() -> None:
    body = b"1,a\n2," + b"x" * 37 + b"\n"
    assert outline(read(body, 2, max_row_bytes=40)) == ["1", "2"]
    assert outline(read(body, 2, max_row_bytes=39)) == ["1", "reject 2"]


@pytest.mark.parametrize("block", [1 << 12, 1 << 20])
@pytest.mark.parametrize("end", [b"\n3,b\n", b"\r\n3,b\n", b"\r3,b\n"])
def test_of_a_very_long_row_the_first_64_kib_are_kept_and_the_place_stays_right(
    block: int, end: bytes
) -> None:
    body = b"1,a\n2," + b"x" * 300_000 + end
    dialect = Dialect(line_terminator=end[: end.index(b"3")].decode())
    _, bad, last = read(body, 2, dialect, block=block, max_row_bytes=100_000)
    assert isinstance(bad, Rejected)
    assert bad.raw == body[4 : 4 + KEPT_BYTES]
    assert f"{KEPT_BYTES} of its {300_002 + len(end) - 4} bytes are kept" in bad.reason
    assert (last.line, last.offset) == (3, len(body) - 4)


def test_a_quote_open_beyond_the_limit_costs_one_line() -> None:
    body = b'1,a\n2,"never\n' + b"3,b\n" * 1000 + b'4,"c"\n'
    items = read(body, 2, block=256, max_row_bytes=500)
    assert outline(items) == ["1", "reject 2", *["3"] * 1000, "4"]


def test_after_a_long_look_ahead_records_come_in_blocks_again() -> None:
    body = b'1,"never\n' + b"3,b\n" * 40_000
    limits = Limits(max_row_bytes=100_000, block_bytes=1 << 10)
    blocks = list(read_records(io.BytesIO(body), COMMA, 2, limits, offset=0, line=1))
    assert sum(map(len, blocks)) == 40_001
    assert max(map(len, blocks)) <= 256


class CountedStream(io.BytesIO):
    """Knows the most bytes that one read asked for."""

    largest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.largest = max(self.largest, size or 0)
        return super().read(size)


def test_no_more_is_held_than_the_limit_and_a_look_ahead() -> None:
    stream = CountedStream(b'1,"' + b"a line of a review\n" * 150_000)
    limits = Limits(max_row_bytes=1 << 20, block_bytes=1 << 14)
    items = list(chain.from_iterable(read_records(stream, COMMA, 2, limits, offset=0, line=1)))
    assert [item.line for item in rejects(items)] == list(range(1, 150_001))
    assert stream.largest <= 2 << 20


@pytest.mark.parametrize(
    "line",
    [
        b'1,"aaaa\n',
        b'a",b,"\n1,""\n',
        b'1,"a""\n',
        b'1,"a "b" c\nd,e\n"\n',
        b'1,"open\n2,fine\n',
        b'"\n',
        b'1,"a\nb",3\n',
    ],
)
def test_hostile_quotes_cost_time_in_proportion_to_their_number(
    line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned = 0
    original = csv.reader

    def counting(lines: Iterable[str], **dialect: object) -> object:
        def tally() -> Iterable[str]:
            nonlocal scanned
            for text in lines:
                scanned += 1
                yield text

        return original(tally(), **dialect)  # type: ignore[arg-type]

    monkeypatch.setattr(csv, "reader", counting)
    body = line * 20_000
    items = read(body, 2, block=1 << 16)
    assert b"".join(item.raw for item in items) == body
    assert scanned < 8 * body.count(b"\n")


# ------------------------------------------------------------------------------------------------ writing and parsing


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["pos", "0.5"], b"pos,0.5"),
        (["a,b", 'c"d', "e\nf", "g\rh"], b'"a,b","c""d","e\nf","g\rh"'),
        ([" x ", "", "007"], b" x ,,007"),
        ([""], b'""'),
        ([], b""),
    ],
)
def test_fields_are_quoted_where_needed(values: list[str], expected: bytes) -> None:
    assert encode_fields(values, COMMA) == expected


@pytest.mark.parametrize(
    ("values", "dialect"),
    [(["☃"], Dialect(encoding="cp1252")), (["\ud800"], COMMA), (["a,b"], Dialect(quotechar=""))],
)
def test_a_value_that_the_file_cannot_hold_names_the_way_out(values: list[str], dialect: Dialect) -> None:
    with pytest.raises(DataError, match="--output-format parquet"):
        encode_fields(values, dialect)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"1,a\n", b"1,a,pos,x\n"),
        (b"1,a\r\n", b"1,a,pos,x\r\n"),
        (b"1,a\r", b"1,a,pos,x\r"),
        (b"1,a", b"1,a,pos,x\r\n"),
        (b'1,"a\n"\n', b'1,"a\n",pos,x\n'),
        (b"\n", b",pos,x\n"),
    ],
)
def test_appended_fields_stand_before_the_records_own_terminator(raw: bytes, expected: bytes) -> None:
    assert append_fields(raw, ["pos", "x"], Dialect(line_terminator="\r\n")) == expected


def test_nothing_appended_changes_nothing() -> None:
    assert append_fields(b"1,a\n", [], COMMA) == b"1,a\n"


@pytest.mark.parametrize("raw", [b"", b"1\n2\n", b'"a"b\n', b'"a\n', b"\xff\n"])
def test_what_is_not_one_record_is_not_parsed(raw: bytes) -> None:
    with pytest.raises(DataError):
        parse_record(raw, COMMA)


# -------------------------------------------------------------------------------------------------------- properties

CELL_PIECES = (
    *(
        '"',
        '""',
        ",",
        ";",
        "\t",
        "\r",
        "\n",
        "\r\n",
        " ",
        "a",
        "=1+1",
        "007",
        "NA",
        "'",
        "\\",
        "é",
        "€",
        "中",
        "🎬",
    ),
    *("\u2028", "\x0b", "\x0c", "\x1c", "\x85", "\ufeff", "\ufffd"),
    *("\ufdd0", "\ufdd4", "\ufdd5\ufdd7", "\ufddb"),
)
HOSTILE = st.lists(st.sampled_from(CELL_PIECES), max_size=6).map("".join)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[str]], bytes, Dialect]:
    """Draw a table and its bytes, as ``csv.writer`` writes it."""
    encoding = draw(
        st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "cp1252", "latin-1", "gb18030"])
    )
    delimiter = draw(st.sampled_from(",;\t|"))
    width = draw(st.integers(1, 4))
    cell = HOSTILE.map(lambda text: text.encode(encoding, "ignore").decode(encoding))
    table = draw(st.lists(st.lists(cell, min_size=width, max_size=width), max_size=6))
    # csv.writer quotes a lone carriage return or line feed only if it is part of the terminator
    quoted, terminator = draw(st.sampled_from([(False, "\r\n"), (True, "\n"), (True, "\r"), (True, "\r\n")]))
    dialect = Dialect(delimiter=delimiter, encoding=encoding, line_terminator=terminator)
    text = io.StringIO(newline="")
    quoting: Literal[0, 1] = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    writer = csv.writer(text, delimiter=dialect.delimiter, quoting=quoting, lineterminator=terminator)
    writer.writerows(table)
    cut = draw(st.booleans()) and bool(table)
    written = text.getvalue().removesuffix(terminator) if cut else text.getvalue()
    return table, written.encode(encoding), dialect


@quick
@given(tables(), st.sampled_from(BLOCKS))
def test_what_csv_writer_wrote_comes_back_byte_for_byte(
    written: tuple[list[list[str]], bytes, Dialect], block: int
) -> None:
    table, body, dialect = written
    assume(table)
    items = read(body, len(table[0]), dialect, block=block)
    assert rows(items) == table
    assert not rejects(items)
    assert b"".join(item.raw for item in items) == body
    assert [item.offset for item in items] == [0, *accumulate(len(item.raw) for item in items)][:-1]
    ends = [item.raw.decode(dialect.encoding) for item in items]
    breaks = [len(text_lines(text + "x", dialect)) - 1 for text in ends]
    assert [item.line for item in items] == [1, *accumulate(breaks, initial=1)][1 : len(items) + 1]
    assert [parse_record(item.raw, dialect) for item in items] == table


@quick
@given(tables(), st.sampled_from(BLOCKS))
def test_from_any_record_boundary_the_same_records_follow(
    written: tuple[list[list[str]], bytes, Dialect], block: int
) -> None:
    table, body, dialect = written
    assume(table)
    whole = read(body, len(table[0]), dialect)
    for number, item in enumerate(whole):
        assert (
            read(body, len(table[0]), dialect, block=block, start=next_position(item, dialect))
            == whole[number + 1 :]
        )


@quick
@given(tables(), st.lists(HOSTILE, max_size=3))
def test_appended_fields_come_back_behind_the_record(
    written: tuple[list[list[str]], bytes, Dialect], extra: list[str]
) -> None:
    table, body, dialect = written
    assume(table)
    width = len(table[0])
    extra = [value.encode(dialect.encoding, "ignore").decode(dialect.encoding) for value in extra]
    appended = b"".join(append_fields(item.raw, extra, dialect) for item in read(body, width, dialect))
    assert rows(read(appended, width + len(extra), dialect)) == [[*row, *extra] for row in table]


@settings(quick, max_examples=25)
@given(st.lists(st.tuples(HOSTILE, HOSTILE), min_size=1, max_size=8))
def test_pandas_reads_the_same_cells(pairs: list[tuple[str, str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("x", "y"), *pairs])
    data = text.getvalue().encode()
    frame = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False, encoding="utf-8")
    stream = io.BytesIO(data)
    header = read_header(stream, COMMA)
    assert header is not None
    start = next_position(header, COMMA)
    assert rows(read(data, 2, start=start)) == frame.to_numpy().tolist()


BAD_LINES = st.sampled_from(
    [
        b"bad",
        b"bad,x,pos,more",
        b'bad,"x,pos',
        b'bad,"x"y,pos',
        b'bad,"x" y,"pos"',
        b"bad,\0,pos",
        b"bad,\xff,pos",
        b'bad,"\xc3(",pos',
    ]
)
GOOD_TEXT = st.sampled_from(
    ["fine", "two\nlines", 'a "quoted" word', "a, b, c", "well, yes\r\nno, no\n\nend", "ünï 🎬", ""]
)


@quick
@given(
    st.lists(st.tuples(BAD_LINES, GOOD_TEXT, GOOD_TEXT), min_size=1, max_size=8),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([1, 7, 64, 1 << 18]),
)
@example([(b'bad,"x,pos', "fine", "fine"), (b'bad,"x"y,pos', "fine", "fine")], False, "\n", 1)
def test_between_good_rows_exactly_the_bad_ones_are_rejected(
    story: Sequence[tuple[bytes, str, str]], quote_all: bool, terminator: str, block: int
) -> None:
    good: list[list[str]] = []
    bad: list[bytes] = []
    body = io.BytesIO()
    for line, *texts in story:
        body.write(line + terminator.encode())
        bad.append(line + terminator.encode())
        for text in texts:
            good.append([str(len(good)), text, "pos"])
            cells = [
                f'"{cell.replace(chr(34), chr(34) * 2)}"'
                if quote_all
                else encode_fields([cell, ""], COMMA).decode()[:-1]
                for cell in good[-1]
            ]
            body.write((",".join(cells) + terminator).encode())
    items = read(body.getvalue(), 3, block=block)
    assert rows(items) == good
    assert [reject.raw for reject in rejects(items)] == bad
    assert b"".join(item.raw for item in items) == body.getvalue()


TOKENS = st.sampled_from(
    [
        b"a",
        b",",
        b'"',
        b"\n",
        b"\r",
        b"\r\n",
        b'","',
        b'"\n"',
        b'""',
        b"\0",
        b"\xff",
        b"a,b\n",
        b'"a","b"\n',
        b'a",b,"\n',
    ]
)


@settings(quick, max_examples=150)
@given(
    st.lists(TOKENS, max_size=40).map(b"".join),
    st.integers(1, 3),
    st.sampled_from([5, 20, 1000]),
    st.sampled_from(["utf-8", "utf-16-be", "utf-32-le"]),
)
@example(b'"\n"\n"a","b"\na,b\n,\n', 3, 5, "utf-8")  # a line over the limit right behind a ragged record
@example(b"\r,a\r\n", 1, 5, "utf-32-le")  # a lone carriage return and half of the next character
def test_whatever_the_bytes_nothing_hangs_on_a_blocks_edge_and_nothing_is_lost(
    body: bytes, n_fields: int, max_row_bytes: int, encoding: str
) -> None:
    dialect = Dialect(encoding=encoding)
    body = body if encoding == "utf-8" else body.decode("latin-1").encode(encoding)
    whole = read(body, n_fields, dialect, max_row_bytes=max_row_bytes)
    end = 0
    for item in whole:
        assert not body[end : item.offset].strip(b"\r\n\0")
        assert body.startswith(item.raw, item.offset)
        assert isinstance(item, Rejected) or (len(item.fields) == n_fields and len(item.raw) <= max_row_bytes)
        end = item.offset + len(item.raw)
    assert not body[end:].strip(b"\r\n\0")
    for block in (1, 2, 3, 7, 16):
        assert read(body, n_fields, dialect, block=block, max_row_bytes=max_row_bytes) == whole


# ------------------------------------------------------------------------------- files that are not what they seem


@pytest.mark.parametrize(
    ("head", "delimiter"),
    [
        pytest.param(b"id^text^label\n1^A fine film, really^1\n", "^", id="caret"),
        pytest.param(b"id~text\n1~a; b, c\n", "~", id="tilde"),
        pytest.param(b"id#text\n1#a\n2#b\n", "#", id="hash"),
        pytest.param(b"id\x01text\n1\x01a, b\n", "\x01", id="Hive"),
        pytest.param(b"id||text||label\n1||a|b||1\n", "||", id="two bars"),
        pytest.param(b"id|text|label\n1|a|1\n2||0\n", "|", id="one bar, and an empty cell"),
        pytest.param(b"id::text\n1::a: b\n", "::", id="two colons"),
        pytest.param(b"text #1\na\nb\n", ",", id="a hash in the one column's name"),
        pytest.param(b"sep=;\nid;text\n1;a,b,c\n", ";", id="Excel's own line"),
        pytest.param(b"sep=|\nid;text;x\n", "|", id="Excel's own line wins"),
    ],
)
def test_rare_delimiters_are_found_where_they_divide_every_row(head: bytes, delimiter: str) -> None:
    assert sniff(head).delimiter == delimiter


SPARK = b'id,text,label\n1,"a \\"fine\\" film, really",1\n2,"bad",0\n'


@pytest.mark.parametrize(
    ("head", "escape"),
    [
        pytest.param(SPARK, "\\", id="it reads well with it, and not without"),
        pytest.param(b'id,text\n1,"a ""fine"" film C:\\"\n2,b\n', "", id="it reads well without"),
        pytest.param(b'id,text\n1,"a \\"fine\\" film"\n2,"x"y\n', "", id="it does not read well with it"),
        pytest.param(b"id,text\n1,a \\ b\n", "", id="a backslash before nothing"),
    ],
)
def test_a_backslash_escapes_where_that_is_certain(head: bytes, escape: str) -> None:
    assert sniff(head).escapechar == escape


def test_a_head_that_was_cut_within_quotes_is_no_evidence_against_an_escape() -> None:
    head = SPARK + b'3,"a long review\nof many\nlines'
    assert sniff(head, is_whole=False).escapechar == "\\"
    assert sniff(head, is_whole=True).escapechar == ""


@pytest.mark.parametrize(
    ("body", "dialect", "expected"),
    [
        (b'1,"a \\"b\\", c"\n', Dialect(escapechar="\\"), ["1", 'a "b", c']),
        (b"1,a\\, b\n", Dialect(escapechar="\\"), ["1", "a, b"]),
        (b'1,"C:\\\\"\n', Dialect(escapechar="\\"), ["1", "C:\\"]),
        (b"1,C:\\new\n", Dialect(escapechar="\\"), ["1", "C:\\new"]),
        (b'1,"a ""b"""\n', Dialect(escapechar="\\"), ["1", 'a "b"']),
        (b"1||a|b\n", Dialect("||"), ["1", "a|b"]),
        (b'1||"a||b"\n', Dialect("||"), ["1", "a||b"]),
        (b"1\\||x||a\n", Dialect("||", escapechar="\\"), ["1||x", "a"]),
        ("1,\ufdd0\r\ufdd5\ufdd9\n".encode(), Dialect(), ["1", "\ufdd0\r\ufdd5\ufdd9"]),
        ("1\ufdd0||\ufdd4\n".encode(), Dialect("||"), ["1\ufdd0", "\ufdd4"]),
    ],
)
def test_escapes_and_long_delimiters_mean_what_they_say(
    body: bytes, dialect: Dialect, expected: list[str]
) -> None:
    for block in (1, 3, 1 << 18):
        (record,) = read(body, 2, dialect, block=block)
        assert isinstance(record, Record)
        assert record.fields == expected
    assert parse_record(body, dialect) == expected


@quick
@given(
    st.lists(
        st.lists(st.text("ab|\\\",\n\r :'\ufdd0\ufdd3\ufdd5\ufdd9", max_size=6), min_size=2, max_size=2),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(
        [Dialect("||"), Dialect(escapechar="\\"), Dialect("::", escapechar="\\"), Dialect("|^|")]
    ),
    st.sampled_from([1, 5, 1 << 18]),
)
def test_what_is_written_in_any_dialect_comes_back(
    table: list[list[str]], dialect: Dialect, block: int
) -> None:
    body = b"".join(append_fields(encode_fields(row, dialect), ["x", "a|"], dialect) for row in table)
    assert rows(read(body, 4, dialect, block=block)) == [[*row, "x", "a|"] for row in table]


@pytest.mark.parametrize(
    ("body", "n_fields", "expected"),
    [
        pytest.param('1"A fine film, really",1\n2,Dull,0\n', 3, ["reject 1", "2"], id="a delimiter missing"),
        pytest.param('5" disk,a\n2,b\n', 2, ["reject 1", "2"], id="an inch"),
        pytest.param('1,the "best" film\n', 2, ["1"], id="a pair within a field"),
        pytest.param('1, "x", y\n2,a,b\n', 3, ["1", "2"], id="a pair behind a space"),
        pytest.param('1,a "b\n2,c" d\n3,e\n', 2, ["reject 1", "reject 2", "3"], id="a pair over two lines"),
    ],
)
def test_a_quote_without_a_partner_in_an_unquoted_field_costs_its_row(
    body: str, n_fields: int, expected: list[str]
) -> None:
    for block in (1, 4, 1 << 18):
        assert outline(read(body.encode(), n_fields, block=block)) == expected


def test_the_reject_of_a_shifted_row_names_the_column() -> None:
    (reject,) = rejects(read(b'1"A fine film, really",1\n', 3))
    assert (reject.column, reject.raw) == ("column0", b'1"A fine film, really",1\n')
    assert "no partner" in reject.reason


@pytest.mark.parametrize("block", [64, 1 << 10, 1 << 18])
def test_of_an_unquoted_table_a_quote_at_the_start_of_a_field_costs_its_line(block: int) -> None:
    quoted = {3: '"film number 3', 300: 'film number 300, "a joy"', 350: 'disk 5"'}
    lines = [f"{k}\t{quoted.get(k, f'film number {k}')}\n" for k in range(400)]
    items = read("".join(lines).encode(), 2, Dialect("\t"), block=block)
    assert [bad.line for bad in rejects(items)] == [4, 351]
    assert len(rows(items)) == 398


@pytest.mark.parametrize("delimiter", ["\t", ","])
def test_a_record_whose_lines_all_look_like_rows_has_swallowed_them(delimiter: str) -> None:
    lines = [f"{k}{delimiter}film number {k}\n" for k in range(40)]
    lines[3], lines[30] = f'3{delimiter}"film\n', f'30{delimiter}disk 5"\n'
    items = read("".join(lines).encode(), 2, Dialect(delimiter))
    assert [bad.line for bad in rejects(items)] == [4, 31]
    assert len(rows(items)) == 38


def test_a_review_of_many_lines_is_one_row_also_where_each_has_the_delimiter() -> None:
    body = b'17,"roses, red\nviolets, blue\nsugar, sweet\nand so, are you\n"\n18,b\n'
    assert outline(read(body, 2)) == ["17", "18"]


@pytest.mark.parametrize("lines", [10, 1000, 5000])
def test_a_reject_is_one_line_however_long_the_damage(lines: int) -> None:
    body = b'1,a\n2,"never closed\n' + b"prose without a delimiter\n" * lines + b'3,"c"\n4,d\n'
    items = read(body, 2)
    assert [bad.line for bad in rejects(items)] == list(range(2, lines + 3))
    assert "begins in line 2" in rejects(items)[-1].reason
    assert rows(items) == [["1", "a"], ["3", "c"], ["4", "d"]]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"text\r\r\nGood\r\r\nBad\r\r\n", ["Good", "Bad"], id="two returns and a feed"),
        pytest.param(b"text\n\nGood\n\n\nBad\n", ["Good", "Bad"], id="blank lines"),
        pytest.param(b"text\nGood\rfilm\nBad\n", ["Good\rfilm", "Bad"], id="a lone return in a line"),
        pytest.param(b"text\r\nGood\rfilm\r\nBad\r\n", ["Good\rfilm", "Bad"], id="one among CRLF"),
        pytest.param(b"text\rGood\rBad\r", ["Good", "Bad"], id="an old Mac"),
        pytest.param(b'text\n"Good\r\nfilm"\nBad\n', ["Good\r\nfilm", "Bad"], id="CRLF in quotes"),
    ],
)
def test_a_table_of_one_column_has_as_many_rows_as_texts(body: bytes, expected: list[str]) -> None:
    dialect = sniff(body)
    stream = io.BytesIO(body)
    header = read_header(stream, dialect)
    assert header is not None
    start = next_position(header, dialect)
    for block in (1, 3, 1 << 18):
        assert [row[0] for row in rows(read(body, 1, dialect, block=block, start=start))] == expected


@pytest.mark.parametrize("end", [b"\r\r\n", b"\r\n", b"\n"])
def test_fields_are_appended_before_whatever_ends_a_line(end: bytes) -> None:
    assert append_fields(b"Good" + end, ["x"], COMMA) == b"Good,x" + end


def test_lines_before_the_header_are_passed_over() -> None:
    data = b"Report of today, and more\nby me\n\nid;text\n1;a\n"
    dialect = sniff(data, Given(skip_lines=2))
    assert dialect.delimiter == ";"
    stream = io.BytesIO(data)
    header = read_header(stream, dialect, skip_lines=2)
    assert header is not None
    assert (header.fields, header.line) == (["id", "text"], 4)
    assert stream.read() == b"1;a\n"
