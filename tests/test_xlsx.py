"""Excel workbooks: what a cell shows is what is scored, held against the libraries for spreadsheets."""

from __future__ import annotations

import datetime
import io
import json
import logging
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlsxwriter
from flow import flow
from python_calamine import CalamineWorkbook

from batchscore.config import ReadSettings
from batchscore.errors import DataError, UsageError
from batchscore.formats.reading import describe, identify
from batchscore.formats.workbook.shown import shown

HEADER = ["id", "text", "label"]
ROW = ["a", "A fine film.", "POSITIVE"]


def book(path: Path, *rows: Sequence[Any], name: str = "Sheet") -> Path:
    """A workbook as openpyxl writes it."""
    made = openpyxl.Workbook()
    made.active.title = name
    for row in rows:
        made.active.append(row)
    made.save(path)
    return path


def changed(path: Path, part: str, change: Callable[[str], str]) -> Path:
    """The same workbook with the XML of a part changed."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts[part] = change(parts[part].decode()).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


SHEET = "xl/worksheets/sheet1.xml"


def read_as(path: Path, output_format: str, folder: Path, **read: Any) -> pd.DataFrame:
    """The input's columns in the predictions in some format, as text."""
    out = flow(folder, path, read=ReadSettings(**read), output_format=output_format).only
    frame = pd.read_parquet(out) if output_format == "parquet" else pd.read_csv(out, dtype=str)
    return frame.iloc[:, : list(frame.columns).index("predicted_label")]


# ---------------------------------------------------------------------------------------------------------- as shown


def test_values_are_what_they_are_shown_as(tmp_path: Path) -> None:
    when = datetime.datetime(2026, 11, 27, 10, 30)
    made = openpyxl.Workbook()
    sheet = made.active
    sheet.append(["text", "whole", "share", "day", "moment", "time", "flag", "zip", "id", "error", "empty"])
    sheet.append(["Good.", 7.0, 0.1, when.date(), when, when.time(), True, 123, "007", "#N/A", None])
    for place, code in {"C2": "0.00%", "H2": "00000"}.items():
        sheet[place].number_format = code
    made.save(tmp_path / "a.xlsx")
    frame = read_as(tmp_path / "a.xlsx", "parquet", tmp_path / "out")
    days = ["2026-11-27", "2026-11-27T10:30:00", "10:30:00"]
    assert frame.iloc[0].tolist()[:10] == ["Good.", "7", "0.1", *days, "TRUE", "00123", "007", "#N/A"]
    assert frame["empty"].isna().all()
    (theirs,) = CalamineWorkbook.from_path(str(tmp_path / "a.xlsx")).get_sheet_by_index(0).to_python()[1:]
    assert theirs[1:7] == [7.0, 0.1, when.date(), when, when.time(), True]


@pytest.mark.parametrize(
    ("raw", "code", "text"),
    [
        ("7", 0, "7"),
        ("7.0", 0, "7"),
        ("-0.0", 0, "0"),
        ("0.10000000000000001", 0, "0.1"),
        ("1.5E+3", 0, "1500"),
        ("1.23456789012345E+17", 0, "123456789012345000"),
        ("1234567890123456789", 0, "1234567890123456789"),
        ("1E-7", 0, "1e-07"),
        ("1E+30", 0, "1e+30"),
        ("0.25", 9, "0.25"),
        ("1234.5", "#,##0.00", "1234.5"),
        ("5", '0" kg"', "5"),
        ("123", "00000", "00123"),
        ("1234567", "00000", "1234567"),
        ("123456789", r"000\-00\-0000", "123-45-6789"),
        ("12", r"000\-00\-0000", "000-00-0012"),
        ("7", '"ID-"0000', "ID-0007"),
        ("1.5", "00000", "1.5"),
        ("46353", 14, "2026-11-27"),
        ("46353", "dd/mm/yyyy", "2026-11-27"),
        ("46353", "[$-F800]dddd, mmmm dd, yyyy", "2026-11-27"),
        ("46353", "yyyy-mm-dd hh:mm", "2026-11-27T00:00:00"),
        ("46353.75", "yyyy-mm-dd", "2026-11-27T18:00:00"),
        ("46353", 'General" days"', "46353"),
        ("46353", "[Red]0.00", "46353"),
        ("0.75", "h:mm AM/PM", "18:00:00"),
        ("0.75", "mm:ss", "18:00:00"),
        ("1.5", "[h]:mm:ss", "PT129600S"),
        ("1", 14, "1900-01-01"),
        ("59", 14, "1900-02-28"),
        ("60", 14, "60"),
        ("61", 14, "1900-03-01"),
        ("0", 14, "0"),
        ("-1", 14, "-1"),
        ("2958465", 14, "9999-12-31"),
        ("2958466", 14, "2958466"),
    ],
)
def test_a_number_is_shown_by_its_format(raw: str, code: int | str, text: str) -> None:
    assert shown(raw, code) == text


@pytest.mark.parametrize("raw", ["seven", "nan", "inf", "1_000", ""])
def test_what_is_no_number_is_damage(raw: str) -> None:
    with pytest.raises(EOFError):
        shown(raw, 0)


def test_days_from_1904_on(tmp_path: Path) -> None:
    made = xlsxwriter.Workbook(tmp_path / "a.xlsx", {"date_1904": True})
    sheet = made.add_worksheet()
    sheet.write_row(0, 0, ["text", "day"])
    sheet.write_string(1, 0, "Good.")
    sheet.write_datetime(1, 1, datetime.datetime(2026, 11, 27), made.add_format({"num_format": "d mmm yy"}))
    made.close()
    assert read_as(tmp_path / "a.xlsx", "csv", tmp_path / "out").iloc[0, 1] == "2026-11-27"
    out = flow(tmp_path / "same", tmp_path / "a.xlsx").only
    assert openpyxl.load_workbook(out).active["B2"].value == datetime.datetime(2026, 11, 27)


TEXTS = [
    *(
        "two\nlines",
        "tab\there",
        " spaces ",
        "_x000D_ as it is",
        "a\rb",
        "ünïcode 🎬",
        "<b>&amp;</b>",
        "=1+1",
    ),
    *("x" * 32_767, "'quoted", "\x01\x1f", "0", "TRUE", "\ufffe"),
]


@pytest.mark.parametrize("in_memory", [True, False], ids=["shared strings", "strings in cells"])
def test_texts_arrive_as_they_were_and_come_back(in_memory: bool, tmp_path: Path) -> None:
    made = xlsxwriter.Workbook(tmp_path / "a.xlsx", {"constant_memory": not in_memory})
    sheet = made.add_worksheet()
    for row, text in enumerate(["text", *TEXTS]):
        sheet.write_string(row, 0, text)
    made.close()
    result = flow(tmp_path / "out", tmp_path / "a.xlsx", read=ReadSettings(part_rows=3))
    assert [text for rows in result.rows for text in rows.texts] == TEXTS
    again = flow(tmp_path / "again", result.only, prefix="x_")
    assert [text for rows in again.rows for text in rows.texts] == TEXTS
    cells = CalamineWorkbook.from_path(str(result.only)).get_sheet_by_index(0).to_python()
    assert [row[0] for row in cells[1:4]] == TEXTS[:3]


def test_a_rich_text_is_its_runs_without_what_says_how_it_sounds(tmp_path: Path) -> None:
    path = book(tmp_path / "a.xlsx", ["text"], ["x"])
    rich = "<is><r><t>A </t></r><r><rPr><b/></rPr><t xml:space='preserve'>fine </t></r><r><t>film</t></r><rPh><t>no</t></rPh></is>"
    changed(path, SHEET, lambda xml: xml.replace("<is><t>x</t></is>", rich))
    with zipfile.ZipFile(path) as archive:
        assert b"rPh" in archive.read(SHEET)
    assert flow(tmp_path / "out", path).rows[0].texts == ["A fine film"]


def test_predictions_are_a_workbook_in_which_each_cell_is_what_it_was(tmp_path: Path) -> None:
    made = openpyxl.Workbook()
    made.active.append([*HEADER, "day", "n", "share", "flag", "long", "bad"])
    made.active.append([*ROW, datetime.date(2026, 11, 27), 7, 0.25, False, "1234567890123456789", "#DIV/0!"])
    made.active["F2"].number_format = "0.0%"
    made.save(tmp_path / "a.xlsx")
    out = flow(tmp_path / "out", tmp_path / "a.xlsx").only
    assert out.name == "a.xlsx"
    before, after = (openpyxl.load_workbook(path).active for path in (tmp_path / "a.xlsx", out))
    for old, new in zip(before[2], after[2][:9], strict=True):
        assert (old.value, old.data_type, old.number_format) == (new.value, new.data_type, new.number_format)
    added = dict(
        zip([cell.value for cell in after[1]][9:], [cell.value for cell in after[2]][9:], strict=True)
    )
    assert added["predicted_label"] in {"NEGATIVE", "POSITIVE"}
    assert isinstance(added["probability"], float)
    assert added["truncated"] is False
    assert after.freeze_panes == "A2"
    assert out.read_bytes() == flow(tmp_path / "again", tmp_path / "a.xlsx").only.read_bytes()


def test_another_format_as_a_workbook_keeps_numbers_that_excel_holds(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["Good.", "-1+1 is bad"],
            "n": pa.array([7, None], pa.int8()),
            "big": pa.array([2**62, 10**14], pa.int64()),
            "x": pa.array([0.1, float("nan")], pa.float32()),
            "tags": [["a"], []],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    out = flow(tmp_path / "out", tmp_path / "a.parquet", output_format="xlsx").only
    rows = [row[:5] for row in openpyxl.load_workbook(out).active.iter_rows(values_only=True)]
    assert rows[1:] == [("Good.", 7, str(2**62), 0.1, '["a"]'), ("-1+1 is bad", None, 10**14, "nan", "[]")]


def test_what_a_workbook_cannot_hold_is_refused_before_anything_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = json.dumps({"text": "a", "more": "x" * 32_768})
    (tmp_path / "a.jsonl").write_text(f'{{"text": "a", "more": ""}}\n{long}\n', encoding="utf-8")
    with pytest.raises(
        DataError, match=r"row 1: the column more holds a text of more than 32,767 characters, which Excel"
    ):
        flow(tmp_path / "out", tmp_path / "a.jsonl", output_format="xlsx")
    monkeypatch.setattr("batchscore.formats.xlsx.FORMAT.most_rows", 2, raising=False)
    (tmp_path / "b.csv").write_text("text,id\na,1\nb,2\nc,3\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 2: the column text holds a row beyond the first 2, which Excel"):
        flow(tmp_path / "out", tmp_path / "b.csv", output_format="xlsx")


# ------------------------------------------------------------------------------------------------- which cells are it


def several(path: Path, **sheets: Sequence[Sequence[Any]]) -> Path:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets.items():
        sheet = made.create_sheet(name.removesuffix("_hidden"))
        sheet.sheet_state = "hidden" if name.endswith("_hidden") else "visible"
        for row in rows:
            sheet.append(row)
    if not made.worksheets:
        made.create_sheet("a")
    made.save(path)
    return path


TABLE = [["text"], ["Good."]]
OTHER = [["text"], ["Bad."]]


def test_the_sheet_is_the_only_one_with_values_or_the_one_named(tmp_path: Path) -> None:
    path = several(tmp_path / "a.xlsx", empty=[], Reviews=TABLE, lists_hidden=OTHER)
    result = flow(tmp_path / "out", path)
    assert result.plan.files[0].layout.details["dialect"] == {"sheet": "Reviews"}
    assert flow(tmp_path / "b", path, read=ReadSettings(sheet="lists")).rows[0].texts == ["Bad."]
    assert flow(tmp_path / "c", path, read=ReadSettings(sheet="reviews")).rows[0].texts == ["Good."]
    with pytest.raises(DataError, match=r"no sheet Review \(--sheet\). Sheets: empty, Reviews, lists"):
        flow(tmp_path / "d", path, read=ReadSettings(sheet="Review"))


def test_several_sheets_with_values_are_named_and_refused(tmp_path: Path) -> None:
    path = several(tmp_path / "a.xlsx", May=TABLE, June=OTHER)
    with pytest.raises(DataError, match=r"2 of its sheets have values: May, June. Name one with --sheet"):
        flow(tmp_path / "out", path)
    several(path, May_hidden=TABLE, empty=[])
    with pytest.raises(DataError, match="are hidden: May"):
        flow(tmp_path / "out", path)


def test_an_empty_workbook_has_no_rows(tmp_path: Path) -> None:
    result = flow(tmp_path / "out", book(tmp_path / "a.xlsx"))
    assert result.plan.rows == 0
    assert openpyxl.load_workbook(result.only).active["A1"].value == "predicted_label"
    assert flow(tmp_path / "out2", book(tmp_path / "b.xlsx", HEADER)).plan.rows == 0


def test_empty_rows_and_columns_are_none_and_hidden_rows_are_rows(tmp_path: Path) -> None:
    made = openpyxl.Workbook()
    sheet = made.active
    rows: dict[int, Sequence[Any]] = {3: HEADER, 4: ROW, 6: ["b", "Bad.", "NEGATIVE"], 7: ["c", None, None]}
    for at, row in rows.items():
        for column, value in enumerate(row):
            sheet.cell(at, column + 2).value = value
    sheet["B900"].number_format = "0.00"
    sheet["Z1"].number_format = "0.00"
    sheet.row_dimensions[6].hidden = True
    made.save(tmp_path / "a.xlsx")
    result = flow(tmp_path / "out", tmp_path / "a.xlsx", read=ReadSettings(part_rows=1))
    assert [column.name for column in result.plan.files[0].layout.columns] == HEADER
    assert [text for rows in result.rows for text in rows.texts] == ["A fine film.", "Bad.", None]
    assert [part.start.line for part in result.plan.parts] == [1, 6, 7]


def test_the_header_may_stand_further_down_or_nowhere(tmp_path: Path) -> None:
    path = book(tmp_path / "a.xlsx", ["Reviews of May"], [], HEADER, ROW)
    with pytest.raises(
        DataError, match=r"row 1 was taken for the header, but column B has no name .* Row 3 .*--skip-lines 2"
    ):
        flow(tmp_path / "out", path)
    assert flow(tmp_path / "out", path, read=ReadSettings(skip_lines=2)).rows[0].texts == ["A fine film."]
    path = book(tmp_path / "b.xlsx", ["Reviews of May"], ["text"], ["Good."])
    with pytest.raises(DataError, match="Row 2 looks like the header: --skip-lines 1"):
        flow(tmp_path / "out", path)
    path = book(tmp_path / "c.xlsx", ROW)
    read = ReadSettings(has_no_header=True, column_names=tuple(HEADER))
    result = flow(tmp_path / "out", path, read=read)
    assert result.rows[0].texts == ["A fine film."]
    assert [cell.value for cell in openpyxl.load_workbook(result.only).active[1]][:3] == HEADER
    with pytest.raises(UsageError, match="2 names, but 3 columns"):
        flow(tmp_path / "out", path, read=ReadSettings(has_no_header=True, column_names=("a", "b")))
    with pytest.raises(DataError, match="its first row is a header"):
        flow(tmp_path / "out", book(tmp_path / "d.xlsx", HEADER, ROW), read=ReadSettings(has_no_header=True))


def test_more_lines_of_a_header_are_passed_over(tmp_path: Path) -> None:
    path = book(tmp_path / "a.xlsx", HEADER, ['{"ImportId": 1}', "x", "y"], ROW)
    with pytest.raises(DataError, match=r"row 2 seems to be no row but a second header .*--header-lines 2"):
        flow(tmp_path / "out", path)
    assert flow(tmp_path / "out", path, read=ReadSettings(header_lines=2)).rows[0].texts == ["A fine film."]


def test_an_index_without_a_name_is_a_column_and_a_note_beside_the_table_is_not(tmp_path: Path) -> None:
    pd.DataFrame([ROW], columns=HEADER).to_excel(tmp_path / "a.xlsx")
    result = flow(tmp_path / "out", tmp_path / "a.xlsx")
    assert [column.name for column in result.plan.files[0].layout.columns] == ["", *HEADER]
    path = book(tmp_path / "b.xlsx", HEADER, ROW, [*ROW, None, "look at this"])
    with pytest.raises(
        DataError, match="column E has no name there and values below, the first in E3"
    ) as caught:
        flow(tmp_path / "out", path)
    assert "look" not in str(caught.value)


def test_cells_merged_over_rows_are_refused_and_a_merged_title_is_not(tmp_path: Path) -> None:
    made = openpyxl.Workbook()
    for row in (["Reviews of May"], HEADER, ROW, ["b", "Bad.", None], ["c", "Fine.", None]):
        made.active.append(row)
    made.active.merge_cells("A1:C1")
    made.save(tmp_path / "a.xlsx")
    assert flow(tmp_path / "out", tmp_path / "a.xlsx", read=ReadSettings(skip_lines=1)).plan.rows == 3
    made.active.merge_cells("C3:C5")
    made.save(tmp_path / "a.xlsx")
    with pytest.raises(DataError, match="C3:C5 is merged into one cell"):
        flow(tmp_path / "out", tmp_path / "a.xlsx", read=ReadSettings(skip_lines=1))


def test_a_repeated_header_is_a_reject(tmp_path: Path) -> None:
    result = flow(tmp_path / "out", book(tmp_path / "a.xlsx", HEADER, ROW, HEADER, ROW))
    assert [(r["row"], r["line"], r["reason"]) for r in result.rejects] == [(1, 3, "a second header")]


# ----------------------------------------------------------------------------------------------- what cannot be told


def test_a_text_that_is_an_error_is_a_reject_with_its_cell(tmp_path: Path) -> None:
    path = book(tmp_path / "a.xlsx", HEADER, ROW, ["b", "#NAME?", "POSITIVE"], ROW)
    result = flow(tmp_path / "out", path)
    (reject,) = result.rejects
    assert (reject["row"], reject["line"], reject["column"]) == (1, 3, "text")
    assert reject["reason"] == "the text is the error #NAME? in cell B3"
    assert openpyxl.load_workbook(result.only).active.max_row == 3


def test_a_formula_without_its_result_is_refused_and_one_with_it_is_not(tmp_path: Path) -> None:
    path = book(tmp_path / "a.xlsx", HEADER, ROW, ["b", '="Fine"&"."', None])
    with pytest.raises(DataError, match="cell B3 of the sheet Sheet: a formula without its result"):
        flow(tmp_path / "out", path)

    def calculated(xml: str) -> str:
        return xml.replace(
            '<c r="B3"><f>"Fine"&amp;"."</f><v /></c>',
            '<c r="B3" t="str"><f>"Fine"&amp;"."</f><v>Fine.</v></c>',
        )

    changed(path, SHEET, calculated)
    with pytest.raises(DataError, match="cell B3"):  # the workbook says that it is still to be calculated
        flow(tmp_path / "out", path)
    changed(path, "xl/workbook.xml", lambda xml: xml.replace('fullCalcOnLoad="1"', ""))
    assert flow(tmp_path / "out", path).rows[0].texts == ["A fine film.", "Fine."]
    changed(path, SHEET, lambda xml: xml.replace("<v>Fine.</v>", "<v></v>"))
    assert flow(tmp_path / "out2", path).rows[0].texts == ["A fine film.", ""]


def test_a_formula_that_xlsxwriter_did_not_calculate_is_refused(tmp_path: Path) -> None:
    made = xlsxwriter.Workbook(tmp_path / "a.xlsx")
    sheet = made.add_worksheet()
    sheet.write_row(0, 0, ["text", "n"])
    sheet.write_string(1, 0, "Good.")
    sheet.write_formula(1, 1, "=1+1")
    made.close()
    with pytest.raises(DataError, match=r"cell B2 .* a formula without its result"):
        flow(tmp_path / "out", tmp_path / "a.xlsx")


def test_numbers_longer_than_excel_keeps_are_told_where_it_rounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = book(tmp_path / "a.xlsx", HEADER, [1, "a", None])
    changed(path, SHEET, lambda xml: xml.replace("<v>1</v>", "<v>1.23456789012345E+17</v>"))
    with caplog.at_level(logging.WARNING):
        assert read_as(path, "csv", tmp_path / "out")["id"].tolist() == ["123456789012345000"]
    assert "1 numbers in column A have more than 15 digits, the first in A2" in caplog.text
    caplog.clear()
    changed(path, SHEET, lambda xml: xml.replace("<v>1.23456789012345E+17</v>", "<v>1234567890123456789</v>"))
    assert read_as(path, "csv", tmp_path / "out2")["id"].tolist() == ["1234567890123456789"]
    assert caplog.text == ""
    out = flow(tmp_path / "out3", path).only
    with zipfile.ZipFile(out) as archive:
        assert b"<v>1234567890123456789</v>" in archive.read(SHEET)


def test_what_unfolds_beyond_reason_is_refused_before_it_is_unfolded(tmp_path: Path) -> None:
    path = book(tmp_path / "a.xlsx", ["text"], ["x"])
    changed(path, SHEET, lambda xml: xml.replace("</worksheet>", " " * 80_000_000 + "</worksheet>"))
    with pytest.raises(DataError, match="--max-expansion"):
        describe(identify(path), ReadSettings(max_expansion=2))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda xml: "<!DOCTYPE x [<!ENTITY a 'aaaa'>]>" + xml, id="entities"),
        pytest.param(lambda xml: xml.replace('r="A2"', 'r="A1"'), id="an address of another row"),
        pytest.param(lambda xml: xml.replace('<row r="2"', '<row r="1"'), id="a row twice"),
        pytest.param(lambda xml: xml.replace("</sheetData>", ""), id="not well-formed"),
        pytest.param(lambda xml: xml.replace('r="A2"', 'r="XFE2"'), id="a column beyond the last"),
        pytest.param(lambda xml: xml.replace('t="inlineStr"', 't="s"').replace("<is><t>x</t></is>", "<v>9</v>"), id="no such string"),
        pytest.param(lambda xml: xml.replace("<v>1</v>", "<v>one</v>"), id="no number"),
    ],
)  # fmt: skip
def test_a_damaged_sheet_is_refused(change: Callable[[str], str], tmp_path: Path) -> None:
    path = book(tmp_path / "a.xlsx", ["text", "n"], ["x", 1])
    before = path.read_bytes()
    changed(path, SHEET, change)
    assert path.read_bytes() != before
    with pytest.raises(DataError, match="damaged or cut short"):
        flow(tmp_path / "out", path)


def test_a_damaged_byte_anywhere_is_seen(tmp_path: Path) -> None:
    path = book(tmp_path / "a.xlsx", HEADER, *([ROW] * 200))
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(SHEET)
    path.write_bytes(whole[: entry.header_offset + 90] + b"\xff\xfe" + whole[entry.header_offset + 92 :])
    with pytest.raises(DataError, match="damaged"):
        flow(tmp_path / "out", path)


def _package(content_type: str, part: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "[Content_Types].xml",
            f'<Types><Override PartName="/{part}" ContentType="{content_type}"/></Types>',
        )
        link = (
            f'<Relationships><Relationship Id="a" Type="x/officeDocument" Target="{part}"/></Relationships>'
        )
        archive.writestr("_rels/.rels", link + " " * 20_000)
        archive.writestr("pad", bytes(range(256)) * 100)
        archive.writestr(part, "<x/>")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        pytest.param(_package("application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml", "word/document.xml"), "a Word", id="Word"),
        pytest.param(_package("application/vnd.ms-excel.sheet.binary.macroEnabled.main", "xl/workbook.bin"), "a binary Excel", id="xlsb"),
        pytest.param(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "one with a password", id="with a password"),
        pytest.param(b"id,text\n1,a\n", "is no Excel file", id="CSV"),
        pytest.param(b"<html><table></table></html>", "an HTML page", id="HTML"),
    ],
)  # fmt: skip
def test_what_only_is_called_a_workbook_is_said_so(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(content)
    with pytest.raises(DataError, match=what):
        flow(tmp_path / "out", tmp_path / "a.xlsx")


def test_a_workbook_under_another_name_is_said_so(tmp_path: Path) -> None:
    path = book(tmp_path / "a.xlsx", HEADER, ROW).rename(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"is Excel, but its name says CSV. Rename it, or say --format xlsx"):
        flow(tmp_path / "out", path)


def test_rows_of_many_kinds_are_as_pandas_reads_them(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "text": [f"review {k} ünï & <b>" for k in range(300)],
            "n": range(300),
            "x": [k / 7 for k in range(300)],
            "day": pd.date_range("2020-01-01", periods=300, freq="37h").round("s"),
            "flag": [k % 3 == 0 for k in range(300)],
        }
    )
    for engine in ("openpyxl", "xlsxwriter"):
        path = tmp_path / f"{engine}.xlsx"
        frame.to_excel(path, index=False, engine=engine)
        out = flow(tmp_path / engine, path, read=ReadSettings(part_rows=64)).only
        pd.testing.assert_frame_equal(
            pd.read_excel(out, engine="calamine")[list(frame)], frame, check_dtype=False
        )
        shown = read_as(path, "parquet", tmp_path / f"{engine}-shown")
        theirs = pd.read_excel(path, engine="calamine")  # xlsxwriter writes 16 digits of a number
        assert [float(x) for x in shown["x"]] == theirs["x"].tolist()
        assert pd.to_datetime(shown["day"], format="ISO8601").tolist() == frame["day"].tolist()
