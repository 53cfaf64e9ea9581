"""The package of a workbook: a ZIP archive of XML documents, its sheets, number formats and shared strings."""

from __future__ import annotations

import array
import contextlib
import functools
import os
import posixpath
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Generator, Iterator
from typing import IO, Any, NamedTuple
from xml.parsers import expat

from batchscore.errors import DataError, printable
from batchscore.formats.source import Source
from batchscore.formats.unfolding import allowed_bytes, unfolds_beyond

_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\x05\x06"
_LONGEST_COMMENT = 0xFFFF
_END_64 = 76
"""Bytes of the two records that a large archive has before its end."""
_ENCRYPTED = 1
CHUNK_BYTES = 64 * 1024
MOST_CHARS = 2**22
"""Characters of a value in a file that is read; Excel's longest cell has 32,767."""
_KINDS = {
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml": "",
    "application/vnd.ms-excel.sheet.macroEnabled.main+xml": "",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.template.main+xml": "",
    "application/vnd.ms-excel.template.macroEnabled.main+xml": "",
    "application/vnd.ms-excel.sheet.binary.macroEnabled.main": "a binary Excel workbook (.xlsb)",
}
"""Content type of the main part → what it is, if it is not read."""
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")


class Sheet(NamedTuple):
    """A worksheet: its name, the path of its part, and whether it is hidden."""

    name: str
    part: str
    is_hidden: bool


class Package:
    """An open workbook."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self._names = {name.lower(): name for name in archive.namelist()}
        main = _main_part(self)
        self.sheets: list[Sheet] = []
        self.counts_from_1904 = False
        """Whether serial dates count from 1904 instead of 1900."""
        self.is_uncalculated = False
        """Whether the workbook says that its formulas are still to be calculated."""
        self.formats: list[int | str] = []
        """By style: the number format, as the number of a built-in one or as its code."""
        self._strings: str | None = None
        self._read_workbook(main)

    def stream(self, part: str) -> Generator[bytes, None, None]:
        """The bytes of a part, at most :data:`CHUNK_BYTES` at a time; its checksum is verified at the end.

        Raises:
            EOFError: there is no such part, or it is damaged.
        """
        name = self._names.get(part.lower())
        if name is None:
            raise EOFError(f"it has no part {printable(part)}")
        with damage(), self.archive.open(name) as stream:
            while data := stream.read(CHUNK_BYTES):
                yield data

    def _read_workbook(self, main: str) -> None:
        targets = _relations(self, main)
        found: list[tuple[str, str, bool]] = []

        def start(name: str, facts: dict[str, str]) -> None:
            if name == "sheet":
                link = next((facts[key] for key in facts if local(key) == "id" and " " in key), "")
                found.append((facts.get("name", ""), link, facts.get("state", "visible") != "visible"))
            elif name == "workbookPr":
                self.counts_from_1904 = is_true(facts.get("date1904"))
            elif name == "calcPr":
                self.is_uncalculated = is_true(facts.get("fullCalcOnLoad"))

        parse(self, main, start)
        for name, link, is_hidden in found:
            kind, part = targets.get(link, ("", ""))
            if kind == "worksheet":  # a chart sheet has no cells
                self.sheets.append(Sheet(name, part, is_hidden))
        parts = dict(targets.values())
        self._strings = parts.get("sharedStrings")
        if "styles" in parts:
            self.formats = _formats(self, parts["styles"])

    @contextlib.contextmanager
    def strings(self) -> Iterator[SharedStrings]:
        """The shared strings, in a file of their own that is gone afterwards."""
        with tempfile.TemporaryFile() as spool:
            strings = SharedStrings(spool)
            if self._strings is not None:
                _spool(self, self._strings, strings)
            spool.flush()
            yield strings


@contextlib.contextmanager
def open_package(source: Source, max_expansion: int) -> Iterator[Package]:
    """Open a workbook, whole and bounded.

    Raises:
        DataError: it has a password, is no workbook of this kind, unfolds too far, or something follows its end.
        EOFError: it is damaged.
    """
    with source.path.open("rb") as file:
        with damage():
            package = _opened(source, file, max_expansion)
        with package.archive:
            yield package


def _opened(source: Source, file: IO[bytes], max_expansion: int) -> Package:
    _refuse_parts_of_archives(source, file)
    archive = zipfile.ZipFile(file)
    entries = archive.infolist()
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise DataError(f"{printable(source.path)} has a password. Save it without one.")
    if sum(entry.file_size for entry in entries) > allowed_bytes(source, max_expansion):
        raise unfolds_beyond(source, max_expansion)
    try:
        return Package(archive)
    except OtherKindError as error:
        raise DataError(f"{printable(source.path)} is {error}. Save it as .xlsx or CSV.") from error


class OtherKindError(Exception):
    """The package is of another kind; the message is what it is."""


@contextlib.contextmanager
def damage() -> Iterator[None]:
    """Turn what the libraries raise for malformed data into ``EOFError``, which readers of all formats raise.

    For a compression that it does not know :mod:`zipfile` raises ``NotImplementedError``.
    """
    try:
        yield
    except (zipfile.BadZipFile, expat.ExpatError, NotImplementedError, zlib.error, struct.error) as error:
        raise EOFError(str(error)) from error


def _refuse_parts_of_archives(source: Source, file: IO[bytes]) -> None:
    """Refuse an archive with something before or behind it: a reader of ZIP takes the last of several."""
    size = file.seek(0, os.SEEK_END)
    tail_at = max(size - _END.size - _LONGEST_COMMENT, 0)
    file.seek(tail_at)
    tail = file.read()
    at = tail.rfind(_END_MAGIC)
    if at < 0 or at + _END.size > len(tail):
        raise EOFError("it has no end")
    *_, length, offset, comment = _END.unpack_from(tail, at)
    is_large = offset == 0xFFFFFFFF or length == 0xFFFFFFFF
    before = tail_at + at - offset - length
    if at + _END.size + comment != len(tail) or (not is_large and before not in (0, _END_64)):
        raise DataError(
            f"{printable(source.path)}: something precedes or follows it. Where several files were joined, score the files "
            "themselves."
        )
    file.seek(0)


def _main_part(package: Package) -> str:
    """The path of the workbook's own part."""
    found = next((part for kind, part in _relations(package, "").values() if kind == "officeDocument"), "")
    kinds: dict[str, str] = {}

    def start(name: str, facts: dict[str, str]) -> None:
        if name == "Override":
            kinds[facts.get("PartName", "").lstrip("/").lower()] = facts.get("ContentType", "")
        elif name == "Default":
            kinds["." + facts.get("Extension", "").lower()] = facts.get("ContentType", "")

    parse(package, "[Content_Types].xml", start)
    kind = kinds.get(found.lower()) or kinds.get("." + found.lower().rpartition(".")[2], "")
    what = _KINDS.get(kind, "a Word, PowerPoint or other Office file")
    if what or not found:
        raise OtherKindError(what or "an archive without a workbook")
    return found


def _relations(package: Package, part: str) -> dict[str, tuple[str, str]]:
    """Id → last word of the type, and path, of what a part refers to."""
    folder, name = posixpath.split(part)
    found: dict[str, tuple[str, str]] = {}

    def start(name: str, facts: dict[str, str]) -> None:
        if name == "Relationship" and facts.get("TargetMode") != "External":
            target = facts.get("Target", "")
            path = target.lstrip("/") if target.startswith("/") else posixpath.join(folder, target)
            kind = facts.get("Type", "").rpartition("/")[2]
            found[facts.get("Id", "")] = kind, posixpath.normpath(path)

    parse(package, posixpath.join(folder, "_rels", f"{name}.rels"), start)
    return found


def _formats(package: Package, part: str) -> list[int | str]:
    codes: dict[str, str] = {}
    styles: list[str] = []
    inside: list[str] = []

    def start(name: str, facts: dict[str, str]) -> None:
        inside.append(name)
        if name == "numFmt":
            codes[facts.get("numFmtId", "")] = facts.get("formatCode", "")
        elif name == "xf" and "cellXfs" in inside:
            styles.append(facts.get("numFmtId", "0"))

    parse(package, part, start, lambda _: inside.pop())
    with _numbers():
        return [codes[number] if number in codes else int(number) for number in styles]


@contextlib.contextmanager
def _numbers() -> Iterator[None]:
    try:
        yield
    except (ValueError, OverflowError) as error:
        raise EOFError("a number in it is none") from error


def is_true(text: str | None) -> bool:
    """A boolean attribute."""
    return text in {"1", "true", "on"}


@functools.lru_cache(maxsize=1024)
def local(name: str) -> str:
    """A name without its namespace."""
    return name.rpartition(" ")[2]


def parser(start: Any, end: Any = None, text: Any = None) -> Any:
    """An XML parser without documents' own entities; names have their namespace before a space."""
    made = expat.ParserCreate(namespace_separator=" ")
    made.buffer_text, made.buffer_size = True, CHUNK_BYTES
    made.StartElementHandler, made.EndElementHandler, made.CharacterDataHandler = start, end, text

    def refuse(*_: Any) -> None:
        raise EOFError("its XML declares a document type")

    made.StartDoctypeDeclHandler = refuse
    return made


def parse(package: Package, part: str, start: Any, end: Any = None) -> None:
    """Parse a small part; ``start`` gets local names."""
    made = parser(lambda name, facts: start(local(name), facts), end)
    with damage():
        for data in package.stream(part):
            made.Parse(data)
        made.Parse(b"", True)


class SharedStrings:
    """The strings that cells refer to by their index, in a file: memory holds eight bytes for each."""

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool
        self._ends = array.array("Q", [0])

    def append(self, text: str) -> None:
        """Add a string."""
        written = self._spool.write(text.encode("utf-8", "surrogatepass"))
        self._ends.append(self._ends[-1] + written)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def get(self, index: int) -> str:
        """The string with an index.

        Raises:
            EOFError: there is none.
        """
        if not 0 <= index < len(self):
            raise EOFError("a cell refers to a string that is not there")
        start, end = self._ends[index], self._ends[index + 1]
        return os.pread(self._spool.fileno(), end - start, start).decode("utf-8", "surrogatepass")


def _spool(package: Package, part: str, strings: SharedStrings) -> None:
    """Write the shared strings; of a rich text the runs, without what says how it is pronounced."""
    collected = Text()

    def start(name: str, _: dict[str, str]) -> None:
        collected.start(local(name))

    def end(name: str) -> None:
        name = local(name)
        collected.end(name)
        if name == "si":
            strings.append(unescaped(collected.take()))

    made = parser(start, end, collected.add)
    with damage():
        for data in package.stream(part):
            made.Parse(data)
        made.Parse(b"", True)


class Text:
    """Collects the text of a string that may be made of runs (``t`` within ``r``), all but phonetic ones (``rPh``)."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._size = self._phonetic = 0
        self.is_open = False

    def start(self, name: str) -> None:
        """An element begins."""
        if name == "t":
            self.is_open = not self._phonetic
        elif name == "rPh":
            self._phonetic += 1

    def end(self, name: str) -> None:
        """An element ends."""
        if name == "t":
            self.is_open = False
        elif name == "rPh":
            self._phonetic -= 1

    def add(self, data: str) -> None:
        """Character data."""
        if self.is_open:
            self._size += len(data)
            if self._size > MOST_CHARS:
                raise EOFError(f"a value has more than {MOST_CHARS:,} characters")
            self._pieces.append(data)

    def take(self) -> str:
        """The text, once."""
        text = "".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return text


def unescaped(text: str) -> str:
    """A string with the characters that XML cannot hold: ``_x000D_`` is a carriage return (ST_Xstring)."""
    return _ESCAPED.sub(_character, text) if "_x" in text else text


def _character(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    return match[0] if 0xD800 <= code < 0xE000 else chr(code)
