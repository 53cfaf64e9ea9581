"""CSV: the dialect is detected from the head, each record keeps its bytes; see :mod:`batchscore.formats.delimited`."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from batchscore.errors import DataError, UsageError, printable
from batchscore.formats import delimited
from batchscore.formats.arrow_values import plain_values, records_of
from batchscore.formats.csv_lines import lines_of
from batchscore.formats.cutting import Item, cut
from batchscore.formats.format import (
    NUL,
    Output,
    RecordFormat,
    Texts,
    format_of,
    is_input_format,
)
from batchscore.formats.headers import refuse_more_header
from batchscore.formats.known_names import TEXT, Headers, is_identifier, is_known, name_key
from batchscore.formats.source import HEAD_BYTES, Source, head_of, open_bytes, seek_to
from batchscore.formats.text_values import as_text
from batchscore.records import Column, ColumnChoice, Layout, Position, Reject, Rows

if TYPE_CHECKING:
    import pyarrow as pa

    from batchscore.config import ReadSettings
    from batchscore.formats.staged import StagedPart

UNDIVIDED = "none"
"""The ``delimiter`` setting for a file whose lines are not split: each is a text."""
_NOWHERE = "\x1f"
NULL = r"\N"
"""A null cell as MySQL, PostgreSQL and Hive write it."""
_HEADER_SEARCH_LINES = 30
"""Lines searched for a header, for advice."""


def describe(source: Source, settings: ReadSettings) -> Layout:
    """Detect the dialect and the header; every column is text. An empty file has no columns and no rows.

    Raises:
        DataError: the header cannot be parsed, or seems to have more lines than ``header_lines``.
    """
    head = head_of(source, settings.max_expansion)
    try:
        dialect = _dialect(head, settings)
        is_whole = len(head) < HEAD_BYTES  # otherwise the header may be longer than the head
        with io.BytesIO(head) if is_whole else open_bytes(source, settings.max_expansion) as stream:
            header = _header(stream, dialect, settings)
            lead = _separator_line(head, header, dialect) if header and not settings.skip_lines else b""
            if header is not None:
                header = header._replace(raw=lead + header.raw)
    except DataError as error:
        raise DataError(f"{printable(source.path)}: {error}") from error
    written = _output_dialect(dialect)
    details: dict[str, Any] = {"dialect": written.to_json(), "header": ""}
    if header is None:
        return Layout(columns=(), details=details)
    if written != dialect:
        names = delimited.encode_fields(header.names, written)
        header, lead = header._replace(raw=delimited.append_fields(names, [], written)), b""
    details |= {
        "read": dialect.to_json(),
        "header": (dialect.bom + header.raw).hex(),
        "lead": (dialect.bom + lead).hex(),
        "offset": header.start.offset,
        "line": header.start.line,
        "has_header": not settings.has_no_header,
        "has_certain_names": settings.has_no_header
        or (len(header.names) > 1 and any(map(is_known, header.names))),
    }
    return Layout(columns=tuple(Column(name, "string") for name in header.names), details=details)


def _dialect(head: bytes, settings: ReadSettings) -> delimited.Dialect:
    """The dialect for reading; lines are not split if the settings say so, or if the lone column has a known name."""
    delimiter = None if settings.delimiter == UNDIVIDED else settings.delimiter
    given = delimited.Given(
        delimiter, settings.quotechar, settings.escapechar, settings.encoding, settings.skip_lines
    )
    dialect = delimited.sniff(head, given, is_whole=len(head) < HEAD_BYTES)
    is_undivided = settings.delimiter == UNDIVIDED
    if len(settings.column_names) == 1 and settings.delimiter is None:
        is_undivided = any(
            len(cells) != 1 for _, cells in delimited.peek(head, dialect, _HEADER_SEARCH_LINES)
        )
    return (
        dataclasses.replace(dialect, delimiter=_NOWHERE, quotechar="", escapechar="")
        if is_undivided
        else dialect
    )


def _output_dialect(dialect: delimited.Dialect) -> delimited.Dialect:
    """The dialect of predictions: the file's own, or plain CSV if its lines are not split."""
    if dialect.delimiter != _NOWHERE:
        return dialect
    return dataclasses.replace(dialect, delimiter=",", quotechar='"')


class _Header(NamedTuple):
    """Column names, the header's bytes for predictions, and where header and rows start."""

    names: list[str]
    raw: bytes
    offset: int
    start: delimited.Position


def _separator_line(head: bytes, header: _Header, dialect: delimited.Dialect) -> bytes:
    """A line ``sep=;`` before the header, which Excel needs."""
    before = head[len(dialect.bom) : header.offset]
    return before if before.strip(b"\r\n\0") else b""


def _header(stream: IO[bytes], dialect: delimited.Dialect, settings: ReadSettings) -> _Header | None:
    limits = _limits(settings)
    record = delimited.read_header(stream, dialect, limits, skip_lines=settings.skip_lines)  # type: ignore[arg-type]
    if record is None:
        return None
    if settings.has_no_header:
        return _without_header(record, dialect, settings.column_names)
    start = delimited.next_position(record, dialect)
    start = delimited.pass_records(stream, dialect, start, settings.header_lines - 1)  # type: ignore[arg-type]
    following: delimited.Record | None = None
    with contextlib.suppress(DataError):  # a damaged first row becomes a reject
        following = delimited.read_header(stream, dialect, limits, position=start)  # type: ignore[arg-type]
    if following is not None:
        refuse_more_header(
            following.fields, f"line {following.line}", len(record.fields), settings.header_lines
        )
    return _Header(record.fields, record.raw, record.offset, start)


def _without_header(first: delimited.Record, dialect: delimited.Dialect, names: Sequence[str]) -> _Header:
    """Column names for a file without a header; its first record is a row."""
    count = len(first.fields)
    if names and len(names) != count:
        raise UsageError(f"--column-names has {len(names)} names, but the first row has {count} cells.")
    if any(name_key(cell) in TEXT for cell in first.fields) and all(map(is_identifier, first.fields)):
        raise DataError("its first line is a header. Leave --no-header out.")
    names = names or (["text"] if count == 1 else [f"column_{k + 1}" for k in range(count)])
    raw = delimited.append_fields(delimited.encode_fields(names, dialect), [], dialect)
    return _Header(list(names), raw, first.offset, delimited.Position(first.offset, first.line))


def _limits(settings: ReadSettings) -> delimited.Limits:
    return delimited.Limits(max_row_bytes=settings.max_row_bytes, max_columns=settings.max_columns)


def dialect_of(layout: Layout) -> delimited.Dialect:
    """The dialect of staged rows and of predictions."""
    return delimited.Dialect.from_json(layout.details["dialect"])


def header_advice(source: Source, layout: Layout, settings: ReadSettings) -> str:
    """What may be wrong with a header without a text column: it is further down, missing, or not split.

    No cell is shown, since the header may be a row.
    """
    dialect = dialect_of(layout)
    head = head_of(source, settings.max_expansion)
    for line, cells in delimited.peek(head, dialect, _HEADER_SEARCH_LINES, delimited.DELIMITERS):
        if (
            line > 1
            and any(name_key(cell) in TEXT for cell in cells)
            and all(map(is_identifier, filter(None, cells)))
        ):
            return f"Line {line} looks like the header: --skip-lines {line - 1}"
    names = [column.name for column in layout.columns]
    divides = delimited.likely_delimiters(names[0]) if len(names) == 1 else []
    if len(divides) == 1:
        return f"Perhaps its columns are divided by {printable(divides[0])!r}: --delimiter {printable(divides[0])!r}"
    if layout.details.get("has_header", True):
        return (
            "If its first line is a row and no header: --no-header, with --column-names where there are several columns; if "
            f"each line is a text: --no-header --delimiter {UNDIVIDED}"
        )
    return ""


def read(
    source: Source, layout: Layout, columns: ColumnChoice, settings: ReadSettings, start: Position
) -> Iterator[Rows]:
    """Yield the records as parts; a ragged, unclosed, undecodable or oversized one is a reject."""
    if not layout.columns:
        return
    if start == Position():
        start = Position(0, layout.details["offset"], layout.details["line"])
    with open_bytes(source, settings.max_expansion) as stream:
        seek_to(stream, source, start.offset)
        items = _items(stream, source, layout, columns, settings, start)
        yield from cut(items, columns, settings, start)


def _items(
    stream: IO[bytes],
    source: Source,
    layout: Layout,
    columns: ColumnChoice,
    settings: ReadSettings,
    start: Position,
) -> Iterator[Item | Reject]:
    names = [column.name for column in layout.columns]
    text_at = names.index(columns.text)
    label_at = names.index(columns.label) if columns.label is not None else None
    pair_at = names.index(columns.text_pair) if columns.text_pair is not None else None
    is_repeated = _repeated_header(names, text_at, source)
    written, dialect = dialect_of(layout), delimited.Dialect.from_json(layout.details["read"])
    blocks = delimited.read_records(
        stream,  # type: ignore[arg-type]
        dialect,
        len(names),
        _limits(settings),
        offset=start.offset,
        line=start.line,
        header=names,
    )
    for block in blocks:
        for record in block:
            if isinstance(record, delimited.Rejected):
                yield Reject(0, record.line, record.offset, record.reason, record.column, record.raw)
            elif is_repeated(record):
                yield Reject(0, record.line, record.offset, "a second header", None, record.raw)
            else:
                label = _value(record.fields[label_at]) if label_at is not None else None
                text = _value(record.fields[text_at])
                pair = _value(record.fields[pair_at]) if pair_at is not None else None
                raw = record.raw if written == dialect else _rewritten(record, written)
                yield Item(raw, record.line, record.offset, text, label, pair=pair)


def _rewritten(record: delimited.Record, dialect: delimited.Dialect) -> bytes:
    return delimited.append_fields(delimited.encode_fields(record.fields, dialect), [], dialect)


def _value(cell: str) -> str | None:
    return None if cell == NULL else cell


def _repeated_header(names: list[str], text_at: int, source: Source) -> Callable[[delimited.Record], bool]:
    """A function that recognises the header repeated in joined files; raises for a different header, as later rows differ."""
    headers = Headers(names, text_at)

    def is_repeated(record: delimited.Record) -> bool:
        cells = record.fields
        if cells == names or (cells[0][:1] == "\ufeff" and [cells[0][1:], *cells[1:]] == names):
            return True
        if headers.has(cells):
            raise DataError(
                f"{printable(source.path)}, line {record.line}: another header. Files with other columns were joined; take "
                "them apart."
            )
        return False

    return is_repeated


# ------------------------------------------------------------------------------------------------------- the format

_DEFAULT_DIALECT = delimited.Dialect()
"""The dialect of CSV made from another format: UTF-8 with commas."""
_NO_LIMIT = 2**40
_NO_LIMITS = delimited.Limits(max_row_bytes=2**40, max_columns=2**31)
"""No limits for a file that the run itself wrote."""


class Csv(RecordFormat):
    """CSV with any delimiter: comma, tab, semicolon and others."""

    name = "csv"
    is_for_people = True
    holds_lists = False
    holds_nul = False

    def begins(self, head: bytes) -> bool:
        """False: CSV has no magic bytes."""
        return False

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

    def settings_like(self, details: Mapping[str, Any]) -> dict[str, Any]:
        """The dialect."""
        return {key: details.get(key) for key in ("delimiter", "quotechar", "escapechar", "encoding")}

    def cells(self, records: Sequence[bytes], layout: Layout) -> Iterator[Sequence[str | None]]:
        """Each cell as it is."""
        dialect = dialect_of(layout)
        return (delimited.parse_record(record, dialect) for record in records)

    def texts_of_records(self, records: Sequence[bytes], layout: Layout, names: Sequence[str]) -> Texts:
        """Each cell as it is."""
        columns: Texts = {name: [None] * len(records) for name in names}
        places = {column.name: place for place, column in enumerate(layout.columns) if column.name in columns}
        for row, cells in enumerate(self.cells(records, layout)):
            for name, place in places.items():
                columns[name][row] = cells[place]
        return columns

    def refuse_names(self, source: Source, layout: Layout, added: Sequence[str]) -> None:
        """Refuse a NUL in a name, one that the encoding of a CSV input cannot represent, and a header that is too long to read."""
        is_csv = format_of(source.format) is self
        for name in (*([] if is_csv else [column.name for column in layout.columns]), *added):
            if "\0" in name:
                raise DataError(
                    f"{printable(source.path)}: the name {printable(name)} has {NUL}, which CSV cannot hold. Choose "
                    "--output-format parquet."
                )
        dialect = dialect_of(layout) if is_csv else _DEFAULT_DIALECT
        names = [column.name for column in layout.columns]
        try:
            new = delimited.encode_fields([*added, "0.5", "true"], dialect)
            held = (
                bytes.fromhex(layout.details["header"]) if is_csv else delimited.encode_fields(names, dialect)
            )
        except DataError as error:
            raise DataError(f"{printable(source.path)}: {error}") from error
        if len(held) + len(new) > delimited.MOST_HEADER_BYTES:
            raise DataError(
                f"{printable(source.path)}: the names of its columns have {len(held) + len(new):,} bytes, and a header of CSV may have "
                f"{delimited.MOST_HEADER_BYTES:,}. Choose --output-format parquet, or leave columns out with --drop-columns."
            )

    def write(self, parts: Iterable[StagedPart], output: Output, out: IO[bytes]) -> None:
        """From CSV the records' own bytes, or the cells that are held; from another format UTF-8 with commas, null as empty."""
        dialect = dialect_of(output.file.layout) if is_input_format(self, output.file) else _DEFAULT_DIALECT
        has_inputs = bool(output.held)
        out.write(self._header(output, dialect))
        is_as_read = is_input_format(self, output.file) and has_inputs and output.columns.are_whole
        for part in parts:
            if is_as_read and (pieces := _lines(part, output, dialect)):
                out.writelines(pieces)
                continue
            extra = zip(*output.added_texts(part), strict=True)
            for record, fields in zip(self._records(part, output, dialect), extra, strict=True):
                if has_inputs:
                    out.write(delimited.append_fields(record, fields, dialect))
                else:
                    out.write(delimited.append_fields(delimited.encode_fields(fields, dialect), [], dialect))

    def _header(self, output: Output, dialect: delimited.Dialect) -> bytes:
        """The header, as it was read where nothing in it changes."""
        details, names = output.file.layout.details, output.added_names
        if not is_input_format(self, output.file) or not details["header"]:
            names, lead = [*output.input_names, *names], b""
        elif output.has_own_header:
            return delimited.append_fields(bytes.fromhex(details["header"]), names, dialect)
        else:
            names, lead = [*output.input_names, *names], bytes.fromhex(details.get("lead", ""))
        return lead + delimited.append_fields(delimited.encode_fields(names, dialect), [], dialect)

    def _records(self, part: StagedPart, output: Output, dialect: delimited.Dialect) -> Iterator[bytes]:
        held = output.held
        if not is_input_format(self, output.file):
            columns = output.inputs(part)
            rows = zip(*map(plain_values, columns), strict=True) if columns else [()] * part.batch.num_rows
            for values in rows:
                yield delimited.encode_fields([as_text(value) for value in values], dialect)
        elif output.columns.are_whole:
            yield from records_of(part.inputs[0])
        else:
            for record in records_of(part.inputs[0]):
                cells = delimited.parse_record(record, dialect)
                yield delimited.encode_fields([cells[place] for place in held], dialect)

    def count_rows(self, source: Source, output: Output) -> int:
        """Records after the header."""
        dialect = dialect_of(output.file.layout) if is_input_format(self, output.file) else _DEFAULT_DIALECT
        with open_bytes(source, _NO_LIMIT) as stream:
            header = delimited.read_header(stream, dialect, _NO_LIMITS)  # type: ignore[arg-type]
            if header is None:
                return 0
            start = delimited.next_position(header, dialect)
            return delimited.count_records(
                stream,  # type: ignore[arg-type]
                dialect,
                len(header.fields),
                _NO_LIMITS,
                offset=start.offset,
                line=start.line,
            )


def _lines(part: StagedPart, output: Output, dialect: delimited.Dialect) -> list[bytes | pa.Buffer]:
    """The lines of a part as pieces of bytes, if they can be made together with those of all parts around it."""
    name = ("lines", dialect, *output.columns.places(output.answers))
    made = part.together(name, lambda whole: lines_of(whole.inputs[0], output.added(whole), dialect))
    return [] if made is None else made.between(part.start, part.start + part.batch.num_rows)


FORMAT = Csv()
