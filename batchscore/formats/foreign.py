"""Files that look like a table by name but are something else: recognised by their first bytes or by files beside them."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

HEAD_BYTES = 4096


class Kind(NamedTuple):
    """A kind of file that is not read."""

    what: str
    """A noun phrase with its article."""
    start: re.Pattern[bytes]
    """Pattern of its first bytes."""
    advice: str = "Get the table itself."


def _kind(what: str, start: bytes, advice: str = "Get the table itself.") -> Kind:
    return Kind(what, re.compile(start, re.DOTALL), advice)


_MARK = rb"(?:\xef\xbb\xbf)?\s*"
_SAVE = "Save it as .xlsx or CSV."
_OFFICE = rb"(?:\[Content_Types\]\.xml|_rels/|docProps/|xl/|customXml/)"
"""How the first entry of an Office file is called."""
_UNPACK = "Unpack it first."
_CONVERT = "Convert it to Parquet first."
_LOGGED = "What was to write the table wrote this instead."
_KINDS = (
    _kind("a Git LFS pointer, not the data", rb"version https://(?:git-lfs|hawser)\.", "Run: git lfs pull"),
    _kind("a git-annex pointer, not the data", rb"\S{0,200}/annex/objects/", "Run: git annex get"),
    _kind(
        "an HTML page",
        _MARK + rb"(?:<!--.*?-->\s*)*<(?i:!doctype\s+html|html|head|body|script|meta|title)\b",
        "Perhaps it is a login or an error page: download the table again.",
    ),
    _kind(
        "an error document of an object store",
        _MARK + rb"(?:<\?xml.*?\?>\s*)?<Error>",
        "Check the address and the permission, then download the table again.",
    ),
    _kind("an XML document", _MARK + rb"<(?:\?xml|!DOCTYPE|rss|svg|feed)\b", _CONVERT),
    _kind("a binary Excel workbook", rb"(?=PK\x03\x04).*PK\x03\x04.{26}xl/workbook\.bin", _SAVE),
    _kind("a Word or PowerPoint file", rb"(?=PK\x03\x04).*PK\x03\x04.{26}(?:word|ppt)/"),
    _kind("an OpenDocument file", rb"PK\x03\x04.{26,40}mimetypeapplication/vnd\.oasis", _SAVE),
    _kind("a ZIP archive", rb"PK(?:\x03\x04(?!.{26}" + _OFFICE + rb")|\x05\x06)", _UNPACK),
    _kind(
        "an old Excel workbook, one with a password, or another Office file",
        rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "Save it as .xlsx without a password, or as CSV.",
    ),
    _kind("a PDF", rb"%PDF-"),
    _kind("a 7z archive", rb"7z\xbc\xaf\x27\x1c", _UNPACK),
    _kind("a RAR archive", rb"Rar!\x1a\x07", _UNPACK),
    _kind("compressed by xz", rb"\xfd7zXZ\x00", "Unpack it, or compress it by gzip, zstd or bzip2."),
    _kind("compressed by LZ4", rb"\x04\x22\x4d\x18", "Unpack it, or compress it by gzip, zstd or bzip2."),
    _kind(
        "compressed by Snappy",
        rb"\xff\x06\x00\x00sNaPpY",
        "Unpack it, or compress it by gzip, zstd or bzip2.",
    ),
    _kind("a tar archive", rb".{257}ustar[\x00 ]", _UNPACK),
    _kind("an SQLite database", rb"SQLite format 3\x00", "Export the table as CSV or Parquet."),
    _kind("a DuckDB database", rb".{8}DUCK.\x00{7}", "Export the table as CSV or Parquet."),
    _kind("a Feather file of version 1", rb"FEA1\x00\x00", "Write it again: Feather is version 2 today."),
    _kind("an Avro file", rb"Obj\x01", _CONVERT),
    _kind("an HDF5 file", rb"\x89HDF\r\n", _CONVERT),
    _kind("a NumPy array", rb"\x93NUMPY", _CONVERT),
    _kind("a pickle, which is never opened", rb"\x80[\x02-\x05](?:\x95|c|}|\])", _CONVERT),
    _kind("a picture", rb"\x89PNG|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP"),
    _kind("a program", rb"\x7fELF|MZ\x90"),
    _kind("an encrypted Parquet file", rb"PARE", "Decrypt it first; it is read without keys."),
    _kind("a Python traceback", _MARK + rb"Traceback \(most recent call last\):", _LOGGED),
    _kind(
        "an error message of a database",
        _MARK + rb"(?:psql: ?)?(?:ERROR|FATAL|PANIC|error)(?:: {1,2}| \d{4} \()|" + _MARK + rb"ORA-\d{5}:",
        _LOGGED,
    ),
    _kind(
        "an error message of a command",
        _MARK + rb"(?:/[\w/]+/)?(?:curl|wget|aws|gsutil|bash|sh|ssh|scp): ",
        _LOGGED,
    ),
    _kind(
        "a table drawn with lines",
        _MARK + rb"\+-{2,}[-+]*\+\r?\n\|",
        "Export it as CSV (mysql --batch, psql --csv).",
    ),
)


def recognised(head: bytes) -> Kind | None:
    """The kind of a file that begins with ``head`` (4 KiB suffice); None if it is not a foreign one."""
    return next((kind for kind in _KINDS if kind.start.match(head)), None)


_TABLES = (
    ("a Delta table", ("_delta_log",)),
    ("an Iceberg table", ("metadata/*.metadata.json", "metadata/version-hint.text")),
    ("a Hudi table", (".hoodie",)),
    ("a Hive table with transactions", ("delete_delta_*", f"delta_{'[0-9]' * 7}_*")),
    ("a Paimon table", ("snapshot/LATEST", "manifest/manifest-list-*")),
    ("the output of a Spark stream", ("_spark_metadata",)),
)
"""Folders whose files form a table only with the log beside them: the kind of table, and names that show it."""


def table_folder(folder: Path) -> str:
    """The kind of table with its own log that ``folder`` is; empty for a plain folder."""
    return next((what for what, marks in _TABLES if _holds(folder, marks)), "")


def is_mark(name: str) -> bool:
    """Whether a file with this POSIX path shows that a folder above it is such a table.

    >>> is_mark("shop/_delta_log/0.json"), is_mark("shop/metadata/v1.metadata.json"), is_mark("shop/day=1/x.parquet")
    (True, True, False)
    """
    path = PurePosixPath(name)
    return any(each.match(mark) for each in (path, *path.parents) for _, marks in _TABLES for mark in marks)


MARKS = tuple(
    sorted(
        {
            mark.partition("/")[0]
            for _, marks in _TABLES
            for mark in marks
            if "*" not in mark.partition("/")[0]
        }
    )
)
"""Names beside the files of such a table, or of folders there."""


def _holds(folder: Path, marks: tuple[str, ...]) -> bool:
    return any(next(iter(folder.glob(mark)), None) is not None for mark in marks)
