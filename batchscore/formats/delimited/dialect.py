r"""The dialect of one CSV file: its special characters, encoding and line ends, and how its text is prepared for parsing.

``csv.reader`` supports delimiters of one character, no escape character together with doubled quotes, and no carriage
return inside an unquoted cell. All three are replaced by *stand-ins*, characters that Unicode reserves for internal use
(U+FDD0 to U+FDD4), line by line, and restored in the cells. A text that has such characters itself keeps them: each is
written as U+FDD5 and another one (U+FDD6 to U+FDDB) there.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from batchscore.errors import UsageError, printable

if TYPE_CHECKING:
    from _csv import Reader

    from numpy.typing import NDArray

TERMINATORS = ("\r\r\n", "\r\n", "\n", "\r")
"""Line ends, the longer ones first."""
MARK = "batchscore.mark"
"""The error handler that decodes an invalid byte as a lone surrogate."""
_FIELD_LIMIT = 2**31 - 1
_LONG_TEXT = 4 << 20
_AT_ONCE = 1 << 20
"""Characters that are searched at a time."""
_LINE = re.compile(r"[^\r\n]*+(?:\r\n?|\n)|[^\r\n]++")
_FEED_LINE = re.compile(r"[^\n]*+\n|[^\n]++")
_BARE_RETURN = re.compile(r"\r(?!\r*+(?:\n|\Z))")
_BOMS = (
    ("utf-8", codecs.BOM_UTF8),
    ("utf-32-le", codecs.BOM_UTF32_LE),  # before UTF-16: its mark begins with the same two bytes
    ("utf-32-be", codecs.BOM_UTF32_BE),
    ("utf-16-le", codecs.BOM_UTF16_LE),
    ("utf-16-be", codecs.BOM_UTF16_BE),
)
_NUL_LANES: dict[tuple[bool, ...], str] = {
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}
_CODEC_NAMES = {"utf-8-sig": "utf-8", "iso8859-1": "latin-1"}
_UNIT_TYPES = {"utf-16-le": "<u2", "utf-16-be": ">u2", "utf-32-le": "<u4", "utf-32-be": ">u4"}
_ESCAPING_CODECS = frozenset(
    {"utf-7", "unicode-escape", "raw-unicode-escape", "punycode", "idna", "hz", "undefined"}
)
_SEPARATOR, _DELIMITER, _QUOTE, _ESCAPE, _RETURN = map(chr, range(0xFDD0, 0xFDD5))
"""Stand-ins: for an active delimiter of several characters, and for four characters meant literally."""
_LITERAL = "\ufdd5"
"""Says that the next character stands for one of these six that was in the text."""
_STAND_INS = re.compile("\ufdd5[\ufdd6-\ufddb]|[\ufdd0-\ufdd4]")
_OWN = {chr(code): _LITERAL + chr(code + 6) for code in range(0xFDD0, 0xFDD6)}
_OWN_STAND_INS = re.compile("[\ufdd0-\ufdd5]")


@dataclass(frozen=True, slots=True)
class Dialect:
    r"""The dialect of one file.

    ``delimiter`` is one character or a short string (``||``). ``quotechar`` may be empty: then nothing is quoted.
    ``escapechar``, usually empty, makes a following quote, delimiter or itself literal; before anything else it is text (as
    in Spark and MySQL). ``encoding`` is a Python codec name that neither reads nor writes a byte order mark; the mark
    itself is ``bom``. ``line_terminator`` is the header's own: ``\n``, ``\r\n``, ``\r\r\n`` or ``\r``. Raises
    :class:`UsageError` for invalid characters.
    """

    delimiter: str = ","
    quotechar: str = '"'
    encoding: str = "utf-8"
    bom: bytes = b""
    line_terminator: str = "\n"
    escapechar: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.delimiter) <= 8 or set(self.delimiter) & set("\r\n\0"):
            raise UsageError(f"the delimiter must be one to eight characters, not {self._said('delimiter')}")
        for name in ("quotechar", "escapechar"):
            value = getattr(self, name)
            if len(value) > 1 or (value and value in "\r\n\0"):
                raise UsageError(
                    f"the {name.removesuffix('char')} must be one character or none, not {self._said(name)}"
                )
        if {self.quotechar, self.escapechar} & set(self.delimiter) or (
            self.quotechar and self.quotechar == self.escapechar
        ):
            raise UsageError(
                f"delimiter {self._said('delimiter')}, quote {self._said('quotechar')} and escape "
                f"{self._said('escapechar')} must differ"
            )
        for name in ("delimiter", "quotechar", "escapechar"):
            if _OWN_STAND_INS.search(getattr(self, name)):
                raise UsageError(f"U+FDD0 to U+FDD5 are no characters of a text: {self._said(name)}")
        if self.line_terminator not in TERMINATORS:
            raise UsageError(f"a line cannot end with {self.line_terminator!r}")

    def _said(self, name: str) -> str:
        return f"{printable(getattr(self, name))!r} (see --{name})"

    @property
    def has_lone_returns(self) -> bool:
        """Whether a lone carriage return ends a line, as on old Macs; elsewhere it is text."""
        return self.line_terminator == "\r"

    @property
    def separator(self) -> str:
        """The delimiter in a line prepared by :func:`coded`."""
        return self.delimiter if len(self.delimiter) == 1 else _SEPARATOR

    def to_json(self) -> dict[str, str]:
        """Return what :meth:`from_json` takes; the byte order mark as hexadecimal digits."""
        return {
            "delimiter": self.delimiter,
            "quotechar": self.quotechar,
            "escapechar": self.escapechar,
            "encoding": self.encoding,
            "bom": self.bom.hex(),
            "line_terminator": self.line_terminator,
        }

    @classmethod
    def from_json(cls, data: dict[str, str]) -> Dialect:
        """Return the dialect that :meth:`to_json` described."""
        return cls(**{**data, "bom": bytes.fromhex(data["bom"])})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Limits:
    """Maximum bytes of a record and columns of the table; and how many bytes are read at a time.

    ``is_piece``: the stream ends between two lines of a file, before the file does.
    """

    max_row_bytes: int = 32 << 20
    max_columns: int = 10_000
    block_bytes: int = 1 << 18
    is_piece: bool = False


class Position(NamedTuple):
    """A record boundary: byte offset and physical line (from 1)."""

    offset: int
    line: int


# ------------------------------------------------------------------------------------------------------- encodings


def _mark_undecodable(error: UnicodeError) -> tuple[str, int]:
    """Replace each undecodable byte by a lone surrogate, so that its field can be found.

    Strictly decoded text has no lone surrogate. No accepted codec consumes a delimiter, quote or line end in a broken
    sequence (tested for all multibyte codecs of CPython 3.11).
    """
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(MARK, _mark_undecodable)


def detect_encoding(head: bytes, given: str | None = None) -> tuple[str, bytes]:
    """Return the codec name and the byte order mark of a file that begins with ``head``.

    ``given`` wins. Without it the mark decides, then the NUL pattern of UTF-16 and UTF-32, else UTF-8: no other encoding is
    ever guessed. Raises :class:`UsageError` for a ``given`` that is unknown or cannot be read by lines.
    """
    marked = next(((name, bom) for name, bom in _BOMS if head.startswith(bom)), None)
    patterned = _NUL_LANES.get(
        tuple(head[lane:1024:4].count(0) * 5 > len(head[lane:1024:4]) for lane in range(4))
    )
    found, bom = marked or (patterned or "utf-8", b"")
    if given is None:
        return found, bom
    name = _codec_name(given)
    if name in ("utf-16", "utf-32"):
        name = found if found.startswith(name) else f"{name}-le"
    return name, bom if name == found else b""


def _codec_name(given: str) -> str:
    try:
        name = codecs.lookup(given).name
        readable = name in ("utf-16", "utf-32", *_UNIT_TYPES) or '\r\n",;a0'.encode(name)[-7:] == b'\r\n",;a0'
    except (LookupError, ValueError) as error:
        raise UsageError(f"unknown encoding {given!r}; try --encoding utf-8, cp1252 or latin-1") from error
    if not readable or name in _ESCAPING_CODECS or name.startswith("iso2022"):
        raise UsageError(f"encoding {given!r} cannot be read line by line; convert the file to UTF-8 first")
    return _CODEC_NAMES.get(name, name)


def encoding_hint(encoding: str) -> str:
    """What to try if bytes are not ``encoding``; empty if there is nothing to suggest."""
    return (
        "; if the file comes from Windows, --encoding cp1252 may be the answer" if encoding == "utf-8" else ""
    )


def unit_bytes(encoding: str) -> int:
    """Bytes of the smallest unit that can be a line feed: 1, 2 for UTF-16, 4 for UTF-32."""
    return int(_UNIT_TYPES.get(encoding, "|u1")[-1])


# -------------------------------------------------------------------------------------------------- physical lines


def physical_lines(data: bytes, dialect: Dialect, *, final: bool) -> list[bytes]:
    """Split at line ends, which are kept. Unless ``final``, leave out a last line without an end, which may continue."""
    if dialect.encoding in _UNIT_TYPES:
        return _wide_lines(data, dialect, final=final)
    if not dialect.has_lone_returns:
        return io.BytesIO(data if final else data[: data.rfind(b"\n") + 1]).readlines()
    if not final:  # a carriage return in the last byte may be half of a CRLF
        newline = data.rfind(b"\n") + 1
        data = data[: max(newline, data.rfind(b"\r", newline, len(data) - 1) + 1)]
    return data.splitlines(keepends=True)


def _wide_lines(data: bytes, dialect: Dialect, *, final: bool) -> list[bytes]:
    unit_type = _UNIT_TYPES[dialect.encoding]
    width = int(unit_type[-1])
    units = np.frombuffer(data, dtype=unit_type, count=len(data) // width)
    ends_line = feeds = units == ord("\n")
    if dialect.has_lone_returns:
        before_feed = np.append(feeds[1:], not final)[: len(units)]
        ends_line = feeds | ((units == ord("\r")) & ~before_feed)
    ends = (np.flatnonzero(ends_line) + 1) * width
    lines = [data[start:end] for start, end in pairwise([0, *ends.tolist()])]
    tail = data[sum(map(len, lines)) :]
    return [*lines, tail] if final and tail else lines


def ends_at_feeds(dialect: Dialect) -> bool:
    """Whether a line ends where there is a byte for a line feed, and nowhere else."""
    return not dialect.has_lone_returns and dialect.encoding not in _UNIT_TYPES


def quote_byte(dialect: Dialect) -> bytes | None:
    """The byte that is a quote and nothing else, none where nothing is quoted; None if lines and quotes are not told by bytes."""
    quote = dialect.quotechar.encode(dialect.encoding, "replace")
    return quote if ends_at_feeds(dialect) and not dialect.escapechar and len(quote) < 2 else None


def feeds_in_bytes(data: memoryview) -> array[int]:
    """Where each line of some bytes begins, and the end; a last line may lack its line feed."""
    return _bounds([np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))], len(data))


def feeds_in_text(text: str) -> array[int]:
    """The same of a text."""
    found = []
    for start in range(0, len(text), _AT_ONCE):
        units = text[start : start + _AT_ONCE].encode("utf-32-le", "surrogatepass")
        found.append(np.flatnonzero(np.frombuffer(units, "<u4") == ord("\n")) + start)
    return _bounds(found, len(text))


def _bounds(feeds: Sequence[NDArray[np.int64]], size: int) -> array[int]:
    ends = np.concatenate([np.zeros(1, np.int64), *(some + 1 for some in feeds)])
    return array("q", (ends if ends[-1] == size else np.append(ends, size)).astype(np.int64).tobytes())


def text_lines(text: str, dialect: Dialect) -> list[str]:
    """Split as :func:`physical_lines` does; ``str.splitlines`` would split at more characters."""
    if len(text) > _LONG_TEXT:  # StringIO is faster, but copies the text at four bytes a character
        return (_LINE if dialect.has_lone_returns else _FEED_LINE).findall(text)
    return list(io.StringIO(text, newline="" if dialect.has_lone_returns else "\n"))


# ------------------------------------------------------------------------------------------------------- stand-ins


@lru_cache(maxsize=64)
def _codes(dialect: Dialect) -> tuple[re.Pattern[str] | None, dict[str, str]]:
    """Pattern of what to replace in a file's text, and the stand-in for each match."""
    delimiter, quote, escape = dialect.delimiter, dialect.quotechar, dialect.escapechar
    table: dict[str, str] = {}
    if escape:
        table |= {escape + escape: _ESCAPE, escape + delimiter: _DELIMITER}
        table |= {escape + quote: _QUOTE} if quote else {}
    if len(delimiter) > 1:
        table[delimiter] = _SEPARATOR
    if not table:
        return None, {}
    pieces = sorted(table, key=lambda piece: (-len(piece), not piece.startswith(escape)))
    return re.compile("|".join(map(re.escape, pieces))), table


def coded(text: str, dialect: Dialect) -> str:
    """``text`` with stand-ins for what ``csv.reader`` would misread; the same object if there is none."""
    replaced = _replaced(text, dialect)
    return replaced if replaced is text else to_decode(text, dialect)


def to_decode(text: str, dialect: Dialect) -> str:
    """``text`` as :func:`decoded` takes it, also where there is nothing to replace but stand-ins of its own."""
    if not text.isascii() and _OWN_STAND_INS.search(text):
        text = _OWN_STAND_INS.sub(lambda match: _OWN[match[0]], text)
    return _replaced(text, dialect)


def _replaced(text: str, dialect: Dialect) -> str:
    pattern, table = _codes(dialect)
    if pattern is not None:
        text = pattern.sub(lambda match: table[match[0]], text)
    if "\r" in text and not dialect.has_lone_returns:
        text = _BARE_RETURN.sub(_RETURN, text)
    return text


def decoded(cells: list[str], dialect: Dialect) -> list[str]:
    """Cells of a coded text with stand-ins restored."""
    return [_plain(cell, dialect) if _STAND_INS.search(cell) else cell for cell in cells]


def _plain(cell: str, dialect: Dialect) -> str:
    meant = {_SEPARATOR: dialect.delimiter, _DELIMITER: dialect.delimiter, _RETURN: "\r"}
    meant |= {_QUOTE: dialect.quotechar, _ESCAPE: dialect.escapechar}
    meant |= {code: own for own, code in _OWN.items()}
    return _STAND_INS.sub(lambda match: meant[match[0]], cell)


def csv_reader(lines: Iterable[str], dialect: Dialect) -> Reader:
    """The standard library's reader, strict, over lines prepared by :func:`coded`."""
    # The field size limit is global, 131,072 characters by default, and a review may be longer. Ours is max_row_bytes, so
    # it is only raised, and on every call, since another library may have lowered it.
    if csv.field_size_limit() < _FIELD_LIMIT:
        csv.field_size_limit(_FIELD_LIMIT)
    if dialect.quotechar:
        return csv.reader(lines, delimiter=dialect.separator, quotechar=dialect.quotechar, strict=True)
    return csv.reader(lines, delimiter=dialect.separator, quoting=csv.QUOTE_NONE, strict=True)


def rows_of(text: str, dialect: Dialect) -> Iterator[list[str]]:
    """The records of some text as cells; raises ``csv.Error`` if one cannot be parsed."""
    ready = coded(text, dialect)
    rows = csv_reader(text_lines(ready, dialect), dialect)
    return iter(rows) if ready is text else (decoded(row, dialect) for row in rows)
