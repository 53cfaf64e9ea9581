"""Writing a workbook of one sheet as a stream, the same bytes for the same cells."""

from __future__ import annotations

import contextlib
import re
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO
from xml.sax.saxutils import escape, quoteattr

from batchscore.formats.workbook.sheet import BOOLEAN, ERROR, MOST_ROWS, NUMBER, Cell, letters

LONGEST_CELL = 32_767
"""Characters that Excel takes in a cell."""
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x0d\x0e-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
"""What XML cannot hold or would change, and what would read as an escape."""
_MADE = (1980, 1, 1, 0, 0, 0)
_FIRST_OWN_FORMAT = 164
_DECLARATION = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPE}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_TYPE}.worksheet+xml"/>'
    f'<Override PartName="/xl/styles.xml" ContentType="{_TYPE}.styles+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/>'
    f'<Relationship Id="rId2" Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>',
}


class Sheet:
    """A sheet that is being written, under its header."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out, self._row = out, 0
        self._styles: dict[int | str, int] = {0: 0}
        """Number format → style."""

    @property
    def formats(self) -> list[int | str]:
        """The number formats in the order of their styles."""
        return list(self._styles)

    def write(self, rows: Iterable[Iterable[Cell | None]]) -> None:
        """Add rows below those that are there.

        Raises:
            ValueError: they are more than a sheet has.
        """
        for cells in rows:
            self._row += 1
            if self._row > MOST_ROWS:
                raise ValueError(f"a sheet has at most {MOST_ROWS:,} rows")
            found = "".join(
                self._cell(f"{letters(column)}{self._row}", cell)
                for column, cell in enumerate(cells)
                if cell is not None
            )
            self._out.write(f'<row r="{self._row}">{found}</row>'.encode())

    def _cell(self, place: str, cell: Cell) -> str:
        if cell.kind == NUMBER:
            style = self._styles.setdefault(cell.format, len(self._styles))
            shown = f' s="{style}"' if style else ""
            return f'<c r="{place}"{shown}><v>{cell.raw}</v></c>'
        if cell.kind in {BOOLEAN, ERROR}:
            return f'<c r="{place}" t="{cell.kind}"><v>{escape(cell.raw)}</v></c>'
        text = escape(_FORBIDDEN.sub(_as_escape, cell.text))
        return f'<c r="{place}" t="inlineStr"><is><t xml:space="preserve">{text}</t></is></c>'


def _as_escape(match: re.Match[str]) -> str:
    return f"_x{ord(match[0]):04X}_"


@contextlib.contextmanager
def new_workbook(out: IO[bytes], name: str, *, counts_from_1904: bool, is_large: bool) -> Iterator[Sheet]:
    """Write a workbook with one sheet, whose first row stays in view; ``is_large``: its XML may have 2 GiB or more."""
    with zipfile.ZipFile(out, "w") as archive:
        for part, text in _PARTS.items():
            archive.writestr(_entry(part), _DECLARATION + text)
        archive.writestr(_entry("xl/workbook.xml"), _DECLARATION + _workbook(name, counts_from_1904))
        with archive.open(_entry("xl/worksheets/sheet1.xml"), "w", force_zip64=is_large) as stream:
            stream.write(
                f'{_DECLARATION}<worksheet xmlns="{_MAIN}"><sheetViews><sheetView workbookViewId="0"><pane ySplit="1" '
                'topLeftCell="A2" activePane="bottomLeft" state="frozen"/></sheetView></sheetViews><sheetData>'.encode()
            )
            sheet = Sheet(stream)
            yield sheet
            stream.write(b"</sheetData></worksheet>")
        archive.writestr(_entry("xl/styles.xml"), _DECLARATION + _styles(sheet.formats))


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _MADE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    return entry


def _workbook(name: str, counts_from_1904: bool) -> str:
    facts = '<workbookPr date1904="1"/>' if counts_from_1904 else ""
    return (
        f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}">{facts}<sheets><sheet name={quoteattr(name)} sheetId="1" r:id="rId1"/>'
        "</sheets></workbook>"
    )


def _styles(formats: list[int | str]) -> str:
    numbers = {code: _FIRST_OWN_FORMAT + at for at, code in enumerate(formats) if isinstance(code, str)}
    own = "".join(
        f'<numFmt numFmtId="{number}" formatCode={quoteattr(code)}/>' for code, number in numbers.items()
    )
    own = f'<numFmts count="{len(numbers)}">{own}</numFmts>' if own else ""
    styles = "".join(
        f'<xf numFmtId="{numbers[code] if isinstance(code, str) else code}" fontId="0" fillId="0" borderId="0" xfId="0" '
        f'applyNumberFormat="{int(bool(code))}"/>'
        for code in formats
    )
    return (
        f'<styleSheet xmlns="{_MAIN}">{own}<fonts count="1"><font><sz val="11"/><name val="Calibri"/></font></fonts>'
        '<fills count="2"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/></fill>'
        '</fills><borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>'
        '<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs>'
        f'<cellXfs count="{len(formats)}">{styles}</cellXfs><cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/>'
        "</cellStyles></styleSheet>"
    )
