"""Excel workbooks: one sheet is the table, each cell as it is shown; see :mod:`batchscore.formats.workbook`.

A row is kept as a JSON list of its cells: a text as a string, no value as null, anything else as what is shown, its kind, what
it holds and its number format, so that predictions hold it as it was.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from batchscore.errors import DataError, printable
from batchscore.formats.answers import LIST_JOINT
from batchscore.formats.arrow_values import plain_values
from batchscore.formats.cutting import Item, cut
from batchscore.formats.format import (
    NUL,
    Output,
    RecordFormat,
    Texts,
    format_of,
    is_input_format,
)
from batchscore.formats.known_names import Headers, is_known
from batchscore.formats.source import Source
from batchscore.formats.text_values import as_text
from batchscore.formats.workbook import survey
from batchscore.formats.workbook.package import Package, Sheet, open_package
from batchscore.formats.workbook.sheet import (
    BOOLEAN,
    ERROR,
    MOST_COLUMNS,
    MOST_ROWS,
    NUMBER,
    Cell,
    Merge,
    Row,
    UncalculatedError,
    address,
    has_values,
    rows_of,
)
from batchscore.formats.workbook.shown import PRECISE
from batchscore.formats.workbook.writing import LONGEST_CELL, new_workbook
from batchscore.records import Column, ColumnChoice, Layout, Position, Reject, Rows

if TYPE_CHECKING:
    from batchscore.config import ReadSettings
    from batchscore.formats.staged import StagedPart
    from batchscore.records import InputFile

_LOG = logging.getLogger(__name__)
_BEGINS = re.compile(rb"PK\x03\x04.{26}(?:\[Content_Types\]\.xml|_rels/|docProps/|xl/|customXml/)", re.DOTALL)
_LISTED = 30
_KEPT_BYTES = 64 * 1024
"""Maximum bytes of a row in a reject."""
_NO_LIMIT = 2**40
_LARGE = 16 * 2**20
"""Bytes of an input whose predictions may be more than 2 GiB as XML."""
_SHEET = "scored"


def describe(source: Source, settings: ReadSettings) -> Layout:
    """Choose the sheet, read it once, and name its columns; every column is text.

    Raises:
        DataError: several sheets could be the table; a column with values has no name; a formula has no result; cells are
            merged over several rows.
    """
    with open_package(source, settings.max_expansion) as package:
        sheet = _chosen(source, package, settings.sheet)
        if sheet is None:
            return Layout(columns=(), details={"dialect": {"sheet": None}, "from_1904": False})
        merges: list[Merge] = []
        found = survey.Survey(
            settings.skip_lines, settings.header_lines, has_header=not settings.has_no_header
        )
        for row in _rows(source, package, sheet, merges):
            found.add(row)
        try:
            names = found.names(settings.column_names)
            found.refuse_merged(merges)
        except DataError as error:
            raise DataError(f"{printable(source.path)}: {error}") from error
        if len(names) > settings.max_columns:
            raise DataError(
                f"{printable(source.path)}: {len(names)} columns. Raise --max-columns if they are meant."
            )
        found.warn_of_rounded(source)
    has_certain_names = settings.has_no_header or (len(names) > 1 and any(map(is_known, names.values())))
    details = {
        "dialect": {"sheet": sheet.name},
        "from_1904": package.counts_from_1904,
        "columns": list(names),
        "first": found.first_row,
        "has_certain_names": has_certain_names,
    }
    return Layout(columns=tuple(Column(name, "string") for name in names.values()), details=details)


def _chosen(source: Source, package: Package, wanted: str | None) -> Sheet | None:
    """The sheet that is the table: as wanted, else the only visible one with values; ``None`` if there are none at all."""
    if wanted is not None:
        named = [sheet for sheet in package.sheets if sheet.name == wanted]
        named = named or [sheet for sheet in package.sheets if sheet.name.casefold() == wanted.casefold()]
        if not named:
            raise DataError(
                f"{printable(source.path)} has no sheet {printable(wanted)} (--sheet). Sheets: {_listed(package.sheets)}."
            )
        return named[0]
    filled = [sheet for sheet in package.sheets if has_values(package, sheet)]
    visible = [sheet for sheet in filled if not sheet.is_hidden]
    if len(visible) > 1:
        raise DataError(
            f"{printable(source.path)}: {len(visible)} of its sheets have values: {_listed(visible)}. Name one with --sheet, or "
            "leave one in the workbook."
        )
    if filled and not visible:
        raise DataError(
            f"{printable(source.path)}: the sheets that have values are hidden: {_listed(filled)}. Name one with --sheet."
        )
    return visible[0] if visible else None


def _listed(sheets: Sequence[Sheet]) -> str:
    return ", ".join(printable(sheet.name) for sheet in sheets[:_LISTED])


def _rows(
    source: Source, package: Package, sheet: Sheet, merges: list[Merge] | None = None
) -> Generator[Row, None, None]:
    try:
        yield from rows_of(package, sheet, merges)
    except UncalculatedError as error:
        raise DataError(
            f"{printable(source.path)}, cell {error} of the sheet {printable(sheet.name)}: a formula without its result. What "
            "wrote the workbook does not calculate: open it in Excel or LibreOffice and save it, or write values."
        ) from error


def header_advice(source: Source, layout: Layout, settings: ReadSettings) -> str:
    """What may be wrong with a header without a text column: it is further down, or missing. No cell is shown."""
    with open_package(source, settings.max_expansion) as package:
        sheet = _named(package, layout)
        head: list[Row] = []
        with contextlib.closing(_rows(source, package, sheet)) as rows:
            for row in rows:
                head.append(row)
                if len(head) == survey.HEADER_SEARCH_ROWS:
                    break
    if advice := survey.header_advice(head):
        return advice
    if settings.has_no_header:
        return ""
    return "If its first row is a row and no header: --no-header, with --column-names where there are several columns."


def _named(package: Package, layout: Layout) -> Sheet:
    name = layout.details["dialect"]["sheet"]
    found = next((sheet for sheet in package.sheets if sheet.name == name), None)
    if found is None:
        raise EOFError("its sheet is gone")
    return found


def read(
    source: Source, layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
) -> Iterator[Rows]:
    """Yield the rows as parts; one whose text is an error, or that is too long, is a reject."""
    if not layout.columns:
        return
    with open_package(source, settings.max_expansion) as package:
        rows = _rows(source, package, _named(package, layout))
        first = max(layout.details["first"], start.line)
        items = _items((row for row in rows if row.number >= first), source, layout, columns, settings)
        yield from cut(items, columns, settings, start)


def _items(
    rows: Iterable[Row], source: Source, layout: Layout, columns: ColumnChoice, settings: ReadSettings
) -> Iterator[Item | Reject]:
    names, places = [column.name for column in layout.columns], layout.details["columns"]
    texts_at = [names.index(name) for name in columns.texts]
    label_at = names.index(columns.label) if columns.label is not None else None
    headers = Headers(names, texts_at[0])
    for row in rows:
        cells = [row.cells.get(place) for place in places]
        raw = _record(cells)
        shown = [cell.text if cell is not None else None for cell in cells]
        reason, column = _problem(row, cells, layout, texts_at, settings.max_row_bytes, len(raw))
        if not reason and shown == names:
            reason = "a second header"
        elif not reason and headers.has([text or "" for text in shown]):
            raise DataError(
                f"{printable(source.path)}, row {row.number}: another header. Put each table on a sheet of its own."
            )
        if reason:
            yield Reject(0, row.number, None, reason, column, raw[:_KEPT_BYTES])
            continue
        label = shown[label_at] if label_at is not None else None
        pair = shown[texts_at[1]] if len(texts_at) > 1 else None
        yield Item(raw, row.number, 0, shown[texts_at[0]], label, pair=pair)


def _problem(
    row: Row, cells: Sequence[Cell | None], layout: Layout, texts_at: Sequence[int], max_bytes: int, size: int
) -> tuple[str, str | None]:
    """Why a row cannot be scored, and its column; empty if it can."""
    if size > max_bytes:
        return f"{size} bytes; the longest row allowed has {max_bytes} (--max-row-bytes)", None
    for at in texts_at:
        cell = cells[at]
        if cell is not None and cell.kind == ERROR:
            place = address(layout.details["columns"][at], row.number)
            return f"the text is the error {printable(cell.text)} in cell {place}", layout.columns[at].name
        if cell is not None and "\0" in cell.text:
            return NUL, layout.columns[at].name
    return "", None


def _record(cells: Sequence[Cell | None]) -> bytes:
    values = [None if cell is None else list(cell) if cell.kind else cell.text for cell in cells]
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _cells(record: bytes) -> list[Cell | None]:
    values = json.loads(record.decode("utf-8", "surrogatepass"))
    return [
        None if value is None else Cell(value) if isinstance(value, str) else Cell(*value) for value in values
    ]


# ------------------------------------------------------------------------------------------------------- the format


class Xlsx(RecordFormat):
    """A sheet of an Excel workbook; predictions are a workbook with one sheet."""

    name = "xlsx"
    is_stream = False
    is_for_people = True
    has_magic = True
    can_be_compressed = False
    holds_lists = False
    holds_nul = False
    longest_text = LONGEST_CELL
    most_rows = MOST_ROWS - 1
    rows_read_on = math.inf

    def begins(self, head: bytes) -> bool:
        """True for a ZIP archive that begins like those of Office; :meth:`describe` sees what it is."""
        return _BEGINS.match(head) is not None

    def describe(self, source: Source, settings: ReadSettings) -> Layout:
        """See :func:`describe`."""
        return describe(source, settings)

    def read(
        self, source: Source, layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
    ) -> Iterator[Rows]:
        """See :func:`read`."""
        return read(source, layout, columns, settings, start)

    def header_advice(self, source: Source, layout: Layout, settings: ReadSettings) -> str:
        """See :func:`header_advice`."""
        return header_advice(source, layout, settings)

    def cells(self, records: Sequence[bytes], layout: Layout) -> Iterator[Sequence[str | None]]:
        """Each cell as it is shown."""
        for record in records:
            yield [None if cell is None else cell.text for cell in _cells(record)]

    def texts_of_records(self, records: Sequence[bytes], layout: Layout, names: Sequence[str]) -> Texts:
        """Each cell as it is shown."""
        columns: Texts = {name: [None] * len(records) for name in names}
        places = {column.name: place for place, column in enumerate(layout.columns) if column.name in columns}
        for row, cells in enumerate(self.cells(records, layout)):
            for name, place in places.items():
                columns[name][row] = cells[place]
        return columns

    def refuse_names(self, source: Source, layout: Layout, added: Sequence[str]) -> None:
        """Refuse more columns than a sheet has, and names that a cell cannot hold."""
        names = [*(column.name for column in layout.columns), *added]
        if len(names) > MOST_COLUMNS:
            raise DataError(
                f"{printable(source.path)}: {len(names)} columns; a sheet has {MOST_COLUMNS:,}. Choose --output-format parquet."
            )
        if any("\0" in name or len(name) > LONGEST_CELL for name in names):
            raise DataError(
                f"{printable(source.path)}: a name has {NUL} or more than {LONGEST_CELL:,} characters, which Excel cannot hold. "
                "Choose --output-format parquet."
            )

    def write(self, parts: Iterable[StagedPart], output: Output, out: IO[bytes]) -> None:
        """From Excel the cells as they were; from another format numbers as numbers, all else as text."""
        file, details = output.file, output.file.layout.details
        own = is_input_format(self, file)
        sheet_name = (details["dialect"]["sheet"] if own else None) or _SHEET
        from_1904 = own and bool(details["from_1904"])
        header, held = [*output.input_names, *output.added_names], output.held
        with new_workbook(out, sheet_name, counts_from_1904=from_1904, is_large=file.size > _LARGE) as sheet:
            sheet.write([[Cell(name) if name else None for name in header]])
            for part in parts:
                inputs = map(_cells, part.inputs[0].to_pylist()) if own else _converted(part, file)
                arrays = output.added(part)
                added = zip(*(map(_added_cell, plain_values(array)) for array in arrays), strict=True)
                rows = zip(inputs, added if arrays else itertools.repeat(()), strict=bool(arrays))
                sheet.write([*(cells[place] for place in held), *more] for cells, more in rows)

    def count_rows(self, source: Source, output: Output) -> int:
        """Rows below the header."""
        with open_package(source, _NO_LIMIT) as package:
            return sum(1 for _ in rows_of(package, package.sheets[0])) - 1


FORMAT = Xlsx()


def _converted(part: StagedPart, file: InputFile) -> Iterator[Sequence[Cell | None]]:
    """The cells of the rows of another format."""
    columns = format_of(file.format).columns(part, file)
    if not columns:
        return iter([()] * part.batch.num_rows)
    return zip(*(map(_cell, plain_values(column)) for column in columns), strict=True)


def _cell(value: Any) -> Cell | None:
    """A value as a cell: a number that Excel holds as it is, else a text."""
    if value is None:
        return None
    if isinstance(value, bool):
        return Cell(str(value).upper(), BOOLEAN, str(int(value)))
    text = as_text(value)
    is_held = isinstance(value, int) and len(text.lstrip("-")) <= PRECISE
    if is_held or (isinstance(value, float) and math.isfinite(value)):
        return Cell(text, NUMBER, text)
    return Cell(text)


def _added_cell(value: Any) -> Cell | None:
    return Cell(LIST_JOINT.join(value)) if isinstance(value, list) else _cell(value)
