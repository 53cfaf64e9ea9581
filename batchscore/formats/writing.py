"""Writing prediction files of any format from staged parts, and refusing what a format cannot hold before scoring."""

from __future__ import annotations

import bz2
import contextlib
import dataclasses
import gzip
import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

import zstandard

from batchscore.errors import DataError, printable
from batchscore.formats.answers import LIST_JOINT, Answers
from batchscore.formats.first_pass import FirstPass
from batchscore.formats.format import Format, Output, RecordFormat, Unheld, format_of
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.registry import ENTRIES
from batchscore.formats.source import Source, reading
from batchscore.formats.staged import StagedPart
from batchscore.records import InputFile, Layout, Rows
from batchscore.system.own_paths import AnyPath, OwnPath, readable
from batchscore.system.storage import open_file

__all__ = [
    "Output",
    "count_rows",
    "packed",
    "read_back",
    "refuse_unwritable",
    "refuse_unwritable_names",
    "write_predictions",
]


_SMALL_BYTES = 256 << 10
"""A file of records up to this size is read back at once, and counted in memory."""


@contextlib.contextmanager
def packed(out: IO[bytes], compression: str) -> Iterator[IO[bytes]]:
    """Compress what is written, without name or time, so that the same rows give the same bytes."""
    if not compression:
        yield out
    elif compression == "gzip":
        with gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0, compresslevel=6) as stream:
            yield stream  # type: ignore[misc]
    elif compression == "bz2":
        with bz2.BZ2File(out, "wb") as stream:
            yield stream
    else:
        with zstandard.ZstdCompressor().stream_writer(out, closefd=False) as stream:
            yield stream


def write_predictions(
    parts: Iterable[StagedPart], output: Output, output_format: str, out: IO[bytes]
) -> None:
    """Write one prediction file; ``output_format`` ``same`` keeps format and compression of the input."""
    with packed(out, _compression(output.file, output_format)) as stream:
        _target(output.file.format, output_format).write(parts, output, stream)


class ReadBack(NamedTuple):
    """What a finished prediction file was when it was read back."""

    rows: int
    sha256: str
    """Of the bytes in which the rows were counted."""
    found: os.stat_result
    """What the file system told of it before it was read."""


def read_back(path: AnyPath, output: Output, output_format: str) -> ReadBack:
    """Read a finished prediction file as anybody would: its rows are counted, and what is read is hashed as it is read.

    Raises:
        DataError: it cannot be read.
        StorageError: the disk fails.
    """
    target = _target(output.file.format, output_format)
    if isinstance(target, RecordFormat) and target.is_stream and (small := _small(path)) is not None:
        content, found = small
        source = Source(
            path.path if isinstance(path, OwnPath) else path,
            target.name,
            _compression(output.file, output_format),
            content=content,
        )
        with reading(source):
            return ReadBack(target.count_rows(source, output), hashlib.sha256(content).hexdigest(), found)
    with readable(path) as name:
        first_pass = FirstPass(name)
        source = Source(name, target.name, _compression(output.file, output_format), first_pass)
        with reading(source):
            found = name.stat()
            rows = target.count_rows(source, output)
            return ReadBack(rows, first_pass.finish().sha256, found)


def _small(path: AnyPath) -> tuple[bytes, os.stat_result] | None:
    """All bytes of a small file, and what the file system told of it before it was read; None of a larger one."""
    with open_file(path) as file:
        found = os.fstat(file.fileno())
        content = file.read(_SMALL_BYTES + 1)
    return (content, found) if len(content) <= _SMALL_BYTES else None


def count_rows(path: AnyPath, output: Output, output_format: str) -> int:
    """The rows of :func:`read_back`."""
    return read_back(path, output, output_format).rows


def _target(input_format: str, output_format: str) -> Format:
    return format_of(input_format if output_format == "same" else output_format)


def _compression(file: InputFile, output_format: str) -> str:
    return file.compression if output_format == "same" else ""


def refuse_unwritable_names(
    source: Source, layout: Layout, answers: Answers, columns: OutputColumns, output_format: str
) -> None:
    """Refuse names of columns and labels that predictions cannot hold, before anything is scored.

    Raises:
        DataError: the output format cannot hold one.
    """
    target = _target(source.format, output_format)
    new = [*columns.added(answers).values(), *columns.renames.values()]
    target.refuse_names(source, _held(layout, columns), [*answers.labels, *new])
    if not target.holds_lists and answers.unjoinable is not None:
        raise DataError(
            f"{printable(source.path)}: the label {printable(answers.unjoinable)} cannot stand in a list of labels with "
            f"{LIST_JOINT!r} between them, as {ENTRIES[target.name].title} has it. Choose --output-format parquet."
        )


def _held(layout: Layout, columns: OutputColumns) -> Layout:
    """The columns that predictions hold, under their names there."""
    held = (column for column in layout.columns if columns.holds(column.name))
    named = (each._replace(name=columns.renames.get(each.name, each.name)) for each in held)
    return dataclasses.replace(layout, columns=tuple(named))


def refuse_unwritable(
    source: Source, layout: Layout, rows: Rows, columns: OutputColumns, output_format: str
) -> None:
    """Refuse values that predictions cannot hold unchanged, before anything is scored.

    Raises:
        DataError: names the row and column of the first.
    """
    fmt, target = format_of(source.format), _target(source.format, output_format)
    if target is fmt:
        return
    held = rows if columns.are_whole else fmt.held_rows(rows, columns)
    found = fmt.first_unheld(held, target) or target.first_unwritable(held)
    found = found or _first_beyond(fmt, target, rows, _held(layout, columns))
    if found is not None:
        raise DataError(
            f"{printable(source.path)}, row {rows.row[found.row]}: the column {printable(found.column)} holds "
            f"{found.what}, which {ENTRIES[target.name].title} cannot hold. Choose --output-format parquet, or leave the "
            "column out with --drop-columns."
        )


def _first_beyond(fmt: Format, target: Format, rows: Rows, layout: Layout) -> Unheld | None:
    """The first row or text of some rows that is beyond what a file of ``target`` may have.

    ``layout`` has the columns that predictions hold.
    """
    names = [column.name for column in layout.columns]
    if target.most_rows is not None and rows.row and rows.row[-1] >= target.most_rows:
        at = next(at for at, row in enumerate(rows.row) if row >= target.most_rows)
        return Unheld(at, names[0], f"a row beyond the first {target.most_rows:,}")
    longest = target.longest_text
    if longest is None or (rows.raw is not None and max(map(len, rows.raw), default=0) <= longest):
        return None
    for name, texts in fmt.texts_of_rows(rows, layout, names).items():
        at = next((at for at, text in enumerate(texts) if len(text or "") > longest), -1)
        if at >= 0:
            return Unheld(at, name, f"a text of more than {longest:,} characters")
    return None
