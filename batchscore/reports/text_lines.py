"""Plain text for a mail: at most 25 lines of at most 78 columns, ASCII but for names from outside, no control characters."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterator, Sequence

from batchscore.errors import printable
from batchscore.reports.tables import Table

WIDTH = 78
LINES = 25
_ASCII = str.maketrans({"−": "-", "–": "-", "…": "...", "²": "^2", "·": "|", "→": "->", "↓": "v"})  # noqa: RUF001
_GAP = 2
_CUT, _DOTS = " ...", "..."
_LEAST_COLUMN = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """Lines that belong together; where the mail is too long, it is cut to ``least`` of them."""

    lines: list[str]
    least: int = 1
    is_list: bool = False
    """Whether lines can be left out without a word."""


def letter(sections: Sequence[Section]) -> str:
    """The text, sections divided as they are given (a section ``[""]`` is a blank line); the longest are cut if need be."""
    kept = [list(section.lines) for section in sections]
    while sum(map(len, kept)) > LINES:
        spare = [len(lines) - max(section.least, 1) for lines, section in zip(kept, sections, strict=True)]
        longest = max(range(len(kept)), key=lambda k: spare[k])
        if spare[longest] <= 0:
            raise ValueError("the sections of a mail have too many lines that must stay")
        _shorten(kept[longest], is_list=sections[longest].is_list)
    return "".join(f"{line.rstrip()}\n" for lines in kept for line in lines)


def _shorten(lines: list[str], *, is_list: bool) -> None:
    lines.pop()
    if not is_list:
        lines[-1] = _cut(lines[-1].removesuffix(_CUT))


def paragraph(text: str, most: int = 3, indent: str = "") -> list[str]:
    """The text in lines, all but the first indented; what goes beyond ``most`` lines is cut."""
    lines = list(_wrapped(plain(text), indent))
    if len(lines) > most:
        lines = [*lines[: most - 1], _cut(lines[most - 1])]
    return lines


def _cut(line: str) -> str:
    """A line that goes on, cut between words if it has several.

    >>> _cut("a " * 38 + "longer")[-10:]
    ' a a a ...'
    """
    short = cropped(line, WIDTH - len(_CUT))
    if len(short) < len(line) and not line[len(short)].isspace():
        head = short.rpartition(" ")[0]
        short = head if head.strip() else short
    return f"{short.rstrip()}{_CUT}"


def columns(table: Table, most: int) -> list[str]:
    """The first rows of a table as columns, with a line of its head: words to the left, numbers to the right."""
    cells = [[plain(cell.text) for cell in row] for row in table.cells()[:most]]
    lines = [[plain(name) for name in table.head], *cells]
    widths = [max(width(line[k]) for line in lines) for k in range(len(table.head))]
    widest = widths.index(max(widths))
    others = sum(widths) - widths[widest] + _GAP * (len(widths) - 1)
    widths[widest] = max(_LEAST_COLUMN, min(widths[widest], WIDTH - others))
    return [cropped(_row(line, widths, table.words), WIDTH).rstrip() for line in lines]


def _row(cells: Sequence[str], widths: Sequence[int], words: int) -> str:
    padded = []
    for k, (cell, most) in enumerate(zip(cells, widths, strict=True)):
        text = cell if width(cell) <= most else f"{cropped(cell, most - len(_DOTS))}{_DOTS}"
        space = " " * (most - width(text))
        padded.append(f"{text}{space}" if k < words else f"{space}{text}")
    return (" " * _GAP).join(padded)


def plain(text: str) -> str:
    r"""Without control characters, and with signs of our own as ASCII.

    >>> plain("−1.5 … \x1b[31m")
    '-1.5 ... \\x1b[31m'
    """  # noqa: RUF002
    return printable(text.translate(_ASCII))


def width(text: str) -> int:
    """Columns that a text takes: two of a wide character, none of a combining mark.

    >>> width("abc"), width("日本"), width("e\u0301")
    (3, 4, 1)
    """
    return sum(map(_char_width, text))


def _char_width(char: str) -> int:
    if unicodedata.category(char) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def cropped(text: str, most: int) -> str:
    """As much of a text as ``most`` columns hold.

    >>> cropped("日本語", 5)
    '日本'
    """
    if width(text) <= most:
        return text
    used = 0
    for k, char in enumerate(text):
        used += _char_width(char)
        if used > most:
            return text[:k]
    return text


def _wrapped(text: str, indent: str) -> Iterator[str]:
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line.strip() else f"{line}{word}"
        while width(joined) > WIDTH:
            if line.strip() and width(indent + word) <= WIDTH:
                yield line
                line, joined = indent, f"{indent}{word}"
                continue
            head = cropped(joined, WIDTH)
            yield head
            line, joined = indent, f"{indent}{joined[len(head) :]}"
        line = joined
    if line.strip():
        yield line
