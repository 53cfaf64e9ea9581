"""What is known before the first row is scored: columns, labels, rejects, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flow import flow

from batchscore.config import ReadSettings
from batchscore.errors import BatchscoreError, DataError
from batchscore.formats.column_choice import choose_columns
from batchscore.records import Column, Layout
from batchscore.runs.planning import Plan, read_parts


def choose(columns: str, **settings: Any) -> tuple[str, str | None, str | None]:
    """``columns`` are ``name:kind`` with ``s`` for string, ``i`` for integer and so on."""
    kinds = {
        "s": "string",
        "i": "integer",
        "b": "boolean",
        "n": "null",
        "o": "object",
        "m": "mixed",
        "l": "list",
    }
    pairs = [each.rpartition(":") for each in columns.split("|")]
    layout = Layout(tuple(Column(name, kinds[kind]) for name, _, kind in pairs))
    choice = choose_columns(layout, ReadSettings(**settings), Path("in.csv"))
    return choice.text, choice.label, choice.id


@pytest.mark.parametrize(
    ("columns", "settings", "expected"),
    [
        ("text:s|label:i", {}, ("text", "label", None)),
        ("ID:i| Review :s|Sentiment:s", {}, (" Review ", "Sentiment", "ID")),
        ("text:n|label:n", {}, ("text", "label", None)),
        ("text:m", {}, ("text", None, None)),
        ("reviewBody:s|review-id:i|Given Label:s", {}, ("reviewBody", "Given Label", "review-id")),
        ("COMMENT_TEXT:s|lang:s", {}, ("COMMENT_TEXT", None, None)),
        ("tweet:s|lang:s", {}, ("tweet", None, None)),
        ("description:s|shop:s", {}, ("description", None, None)),
        ("text:s|note:s", {}, ("text", None, None)),
        ("text:s|description:s", {}, ("text", None, None)),
        ("content:i|body:s", {}, ("body", None, None)),
        ("words:s|n:i", {"text_column": "words"}, ("words", None, None)),
        ("text:o|body:s", {"text_column": "body"}, ("body", None, None)),
        ("a:s|b:s", {"text_column": "b"}, ("b", None, None)),
        ("text:s|label:s", {"text_column": "label"}, ("label", None, None)),
        ("text:s|label:s|sentiment:s", {"label_column": "sentiment"}, ("text", "sentiment", None)),
        ("text:s|label:s", {"label_column": ""}, ("text", None, None)),
        ("text:s|when:o", {"id_column": "when"}, ("text", None, "when")),
    ],
)
def test_columns_are_found_by_name_and_type(
    columns: str, settings: dict[str, str], expected: tuple[str, str | None, str | None]
) -> None:
    assert choose(columns, **settings) == expected


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        (
            "a:i|b:o",
            {},
            r"no text column by name\. Name it with --text-column\. Columns: a \(integer\), b \(object\)",
        ),
        (
            "a:s|b:s",
            {},
            r"2 columns could be the text \(a, b\), none by its name\. Name it with --text-column",
        ),
        ("words:s|n:i", {}, r"no text column by name \(the only one of strings is words\)\. Name it"),
        ("words:s|label:s|id:s", {}, r"the only one of strings is words"),
        ("text:o|lang:s", {}, r"no text column: text is an object\. Name it"),
        ("review:l|lang:s", {}, r"no text column: review is a list"),
        ("text:i|lang:s", {}, r"no text column: text is a number"),
        ("text:o|body:s", {}, r"2 columns could be the text \(text, body\)\. Choose one with --text-column"),
        ("description:s|post:s", {}, r"2 columns could be the text \(description, post\)"),
        (
            "text:s|review:s",
            {},
            r"2 columns could be the text \(text, review\)\. Choose one with --text-column",
        ),
        ("text:s|label:s|class:i", {}, r"2 columns could be the label \(label, class\)"),
        ("text:s|id:s|uuid:s", {}, r"2 columns could be the id \(id, uuid\)"),
        (
            "texts:s|b:s",
            {"text_column": "text"},
            r"has no column text \(--text-column\)\. Did you mean texts\?",
        ),
        ("text:s", {"label_column": "lable"}, r"has no column lable \(--label-column\).*Columns: text"),
        ("text:s|n:i", {"text_column": "n"}, r"the column n \(--text-column\) is a number"),
        ("a:s|a:s|b:s", {"text_column": "a"}, r"has 2 columns named a\. Rename one"),
        ("te\nxt:s|b:s", {}, r"te\\nxt"),
    ],
)
def test_columns_that_cannot_be_told_are_an_error_that_lists_them(
    columns: str, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        choose(columns, **settings)
    assert caught.value.exit_code == 65
    assert "in.csv" in str(caught.value)


def test_of_very_many_columns_the_first_are_listed() -> None:
    with pytest.raises(DataError, match=r"c39 \(integer\) and 60 more\."):
        choose("|".join(f"c{k}:i" for k in range(100)))


# ---------------------------------------------------------------------------------------------------- label values


def test_unknown_values_are_counted_and_listed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,pos\nb,meh\nc,meh\nd,\x1b[0m\ne,\n", encoding="utf-8")
    (file,) = flow(tmp_path / "out", tmp_path / "a.csv").plan.files
    assert file.labelled == 1
    assert file.unknown_labels == {"\\x1b[0m": 1, "meh": 2}


def test_very_many_unknown_values_are_listed_in_part(tmp_path: Path) -> None:
    lines = ["text,label", "a,pos", *(f"a,value {k}" for k in range(300))]
    (tmp_path / "a.csv").write_text("\n".join(lines), encoding="utf-8")
    unknown = flow(tmp_path / "out", tmp_path / "a.csv").plan.files[0].unknown_labels
    assert (len(unknown), unknown["(other)"], sum(unknown.values())) == (101, 200, 300)


def test_a_file_without_a_label_column_is_scored_without_mismatches(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\na\n", encoding="utf-8")
    plan = flow(tmp_path / "out", tmp_path / "a.csv").plan
    assert (plan.has_labels, plan.rows) == (False, 1)


def test_generic_labels_need_a_label_map_before_given_labels_count(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,good\nb,1\n", encoding="utf-8")
    labels = ("LABEL_0", "LABEL_1")
    assert not flow(tmp_path / "out", tmp_path / "a.csv", labels=labels).plan.has_labels
    (file,) = flow(
        tmp_path / "map", tmp_path / "a.csv", labels=labels, label_map={"good": "LABEL_1"}
    ).plan.files
    assert (file.columns.label, file.labelled, file.unknown_labels) == ("label", 1, {"1": 1})


# ------------------------------------------------------------------------------------------- refused before scoring

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "all labels unknown": ("text,label\na,good\nb,bad\n", {}, r"label \(bad, good\) is a label of the model"),
    "a taken name": ("text,status\na,b\n", {}, r"already has status, .*--prefix"),
    "two taken names": ("text,prob_POSITIVE,n_tokens\na,b,c\n", {}, "already has n_tokens, prob_POSITIVE"),
    "a taken name with a prefix": ("text,x_status\na,b\n", {"prefix": "x_"}, "already has x_status"),
}


@pytest.mark.parametrize(("content", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_scored_is_refused(
    content: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        flow(tmp_path / "out", tmp_path / "a.csv", **options)


def test_a_prefix_makes_room_and_a_label_map_gives_meaning(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,status,label\na,b,good\n", encoding="utf-8")
    result = flow(tmp_path / "out", tmp_path / "a.csv", prefix="bs_", label_map={"good": "POSITIVE"})
    assert result.only.read_text(encoding="utf-8").startswith("text,status,label,bs_predicted_label,")
    assert result.plan.files[0].labelled == 1


def test_a_taken_name_deep_in_json_lines_is_found(tmp_path: Path) -> None:
    lines = ['{"text": "a"}'] * 3000 + ['{"text": "a", "n_tokens": 1}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match="already has n_tokens"):
        flow(tmp_path / "out", tmp_path / "a.jsonl")


def test_json_lines_with_ever_new_names_are_bounded(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "a", f"key {k}": 1}) for k in range(500)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"more than 400 fields.*--max-columns"):
        flow(tmp_path / "out", tmp_path / "a.jsonl", read=ReadSettings(max_columns=400))


def test_the_file_among_many_that_lacks_the_text_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"n": [1], "m": [2]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: no text column.*n \(integer\), m \(integer\)"):
        flow(tmp_path / "out", tmp_path)


# -------------------------------------------------------------------------------------------------------- the plan


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 7, 100])
def test_a_limit_counts_rows_over_all_files_rejects_included(limit: int, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("text,id\n0,a\ntoo,many,cells\n2,c\n3,d\n", encoding="utf-8")
    result = flow(
        tmp_path / "out", tmp_path / "a.csv", tmp_path / "b.csv", read=ReadSettings(part_rows=3), limit=limit
    )
    assert result.plan.rows == min(limit, 8)
    assert result.plan.rejects == len(result.rejects) == (limit > 1) + (limit > 5)
    kept = [text for rows in result.rows for text in rows.texts]
    assert kept == ["0", "2", "3", "0", "2", "3"][: result.plan.rows - result.plan.rejects]


def test_a_plan_survives_json(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes('text;label\n"ä\r\n";1\n'.encode())
    (tmp_path / "b.jsonl").write_text('{"text": "a", "x": [1]}', encoding="utf-8")
    plan = flow(tmp_path / "out", tmp_path / "a.csv", tmp_path / "b.jsonl").plan
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.mark.parametrize("change", [b"text\na\n", b"text\na\nbb\nc\n", b"text\na\nb,b\nc\n"])
def test_a_file_that_is_not_as_planned_is_noticed(change: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text\na\nb\nc\n")
    read = ReadSettings(part_rows=2)
    plan = flow(tmp_path / "out", tmp_path / "a.csv", read=read).plan
    (tmp_path / "a.csv").write_bytes(change)
    with pytest.raises(BatchscoreError, match="changed while it was being read"):
        list(read_parts(plan, plan.parts, read))


def test_columns_of_one_name_are_all_counted_in_the_plan(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,x,x,\na,1,2,3\n", encoding="utf-8")
    result = flow(tmp_path / "out", tmp_path / "a.csv")
    assert [column.name for column in result.plan.files[0].layout.columns] == ["text", "x", "x", ""]
    assert [rows.texts for rows in result.rows] == [["a"]]


def test_rejects_are_lines_of_json_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'text,id\na,1\nb\n"c\n')
    first, second = flow(tmp_path / "out", tmp_path / "a.csv").rejects
    assert first == {
        "file": "a.csv",
        "row": 1,
        "line": 3,
        "byte_offset": 12,
        "reason": "too few fields: 1, not 2",
        "column": None,
        "raw": "Ygo=",
    }
    assert (second["row"], second["line"], second["column"]) == (2, 4, "text")
    assert "never closed" in second["reason"]
