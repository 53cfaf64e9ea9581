"""From windows to records: ``csv.reader`` at C speed for well-formed data, our own scanner elsewhere."""

from __future__ import annotations

import contextlib
import csv
import gc
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import BinaryIO, NamedTuple, cast

from batchscore.formats.delimited.dialect import (
    Dialect,
    Limits,
    Position,
    csv_reader,
    decoded,
    encoding_hint,
    physical_lines,
)
from batchscore.formats.delimited.windows import KEPT_BYTES, Source, Window

_AHEAD_BYTES = 1 << 20
_AHEAD_LINES = 1000
_LONG_RECORD = 1 << 20
"""Characters."""
_RUN_LINES = 8
"""So many consecutive lines that each parse well are rows, whatever later quotes suggest."""
_OF_PROSE = frozenset(",;: ")
"""Delimiters that also occur in prose; a line with the right number of any other one is a row."""
_SWALLOWED_LINES = 4
"""So many lines of one record that all look like rows are rows; two, with a number in each, if prose lacks the delimiter."""


class Record(NamedTuple):
    """One row: its cells as text, and its exact bytes with their terminator.

    ``line`` is the physical line (from 1) in which it starts, ``offset`` its first byte in the decompressed stream.
    """

    fields: list[str]
    raw: bytes
    line: int
    offset: int


class Rejected(NamedTuple):
    """Bytes that are not a row: the reason, and the column if known.

    Either a record whose extent is certain, or one physical line of damage.

    ``raw`` is complete up to ``max_row_bytes``; beyond that only the first 64 KiB are kept, and ``reason`` says so.
    """

    line: int
    offset: int
    reason: str
    column: str | None
    raw: bytes


class UncertainError(Exception):
    """What a piece of a file holds depends on the bytes behind it."""


def next_position(record: Record | Rejected, dialect: Dialect) -> Position:
    """Return where the record after ``record`` starts; a :class:`Rejected` must have complete raw bytes."""
    lines = len(physical_lines(record.raw, dialect, final=True))
    return Position(record.offset + len(record.raw), record.line + lines)


def read_records(
    stream: BinaryIO,
    dialect: Dialect,
    n_fields: int,
    limits: Limits | None = None,
    *,
    offset: int,
    line: int,
    header: Sequence[str] = (),
) -> Iterator[list[Record | Rejected]]:
    """Yield lists of records and rejects, in file order, from a stream that stands at a record boundary.

    ``offset`` and ``line`` are its position (:func:`next_position`); the stream is read from where it is and never sought.
    ``header`` names the columns in rejects. Memory is a small multiple of ``limits.block_bytes`` for ordinary rows, and of
    ``limits.max_row_bytes`` if a row is that long.

    Raises:
        UncertainError: there is damage in a piece of a file (``limits.is_piece``): how far it goes may show behind it.
    """
    limits = limits or Limits()
    parser = _Parser(dialect, n_fields, limits, tuple(header))
    source = Source(stream, dialect, limits.block_bytes, limits.max_row_bytes + _AHEAD_BYTES + 8)
    position, is_final = Position(offset, line), False
    while not is_final:
        window = source.window(position)
        with _without_collections():
            items, used = parser.parse(window)
        source.consume(window.starts[used] - position.offset)
        is_final = window.is_final and used == len(window.raws)
        overflows = not window.raws and window.end - position.offset > limits.max_row_bytes
        following = Position(window.starts[used], position.line + used)
        del window  # before another one, or whoever gets the items, needs the memory
        if items:
            yield items
            del items
        if overflows:
            head, size = source.skip_line()
            yield [parser.overflow(head, size, position)]
            following = Position(position.offset + size, position.line + 1)
        position = following


def count_records(
    stream: BinaryIO, dialect: Dialect, n_fields: int, limits: Limits, *, offset: int, line: int
) -> int:
    """How many records :func:`read_records` finds. Windows whose rows are all sound, a line each, are counted without making any."""
    parser = _Parser(dialect, n_fields, limits, ())
    source = Source(stream, dialect, limits.block_bytes, limits.max_row_bytes + _AHEAD_BYTES + 8)
    position, is_final, found = Position(offset, line), False, 0
    while not is_final:
        window = source.window(position)
        with _without_collections():
            if parser.is_plain(window):
                used = len(window.raws)
                found += used
            else:
                items, used = parser.parse(window)
                found += sum(isinstance(item, Record) for item in items)
        source.consume(window.starts[used] - position.offset)
        is_final = window.is_final and used == len(window.raws)
        if not window.raws and window.end - position.offset > limits.max_row_bytes:
            size = source.skip_line()[1]
            position = Position(position.offset + size, position.line + 1)
        else:
            position = Position(window.starts[used], position.line + used)
    return found


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Within the block nothing is searched for cycles: a window of short rows is thousands of new objects, none of them in one.

    Each thousand of them would have all objects of the process looked at, which takes longer than to parse them.
    """
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_on:
            gc.enable()


@dataclass(slots=True)
class _Damage:
    """Lines that are not rows, until a credible record follows.

    ``end`` is the offset where it ends at the latest, if known: the end of a well-quoted record of several lines with the
    wrong number of fields, which may have swallowed others by an unclosed quote.
    """

    line: int
    end: int | None = None


class _Scan(NamedTuple):
    """The record at a line: ``complete``, ``broken``, still ``open``, or ``over`` the limit.

    ``n_fields`` are complete; ``end`` is the line after the scan; ``has_stray`` tells whether an unquoted field has a quote,
    ``odd`` in which field they are unpaired (-1: in none).
    """

    state: str
    n_fields: int
    end: int
    has_stray: bool = False
    odd: int = -1


_make_record = cast("Callable[[tuple[list[str], bytes, int, int]], Record]", partial(tuple.__new__, Record))
_Items = list[Record | Rejected]


class _Parser:
    """Turns windows into records and rejects; the only state between windows is whether it is within damage."""

    def __init__(self, dialect: Dialect, n_fields: int, limits: Limits, header: tuple[str, ...]) -> None:
        self.dialect = dialect
        self.n_fields = n_fields
        self.max_row_bytes = limits.max_row_bytes
        self.header = header
        self._is_piece = limits.is_piece
        self.damage: _Damage | None = None
        is_of_prose = dialect.delimiter[0] in _OF_PROSE
        self._run_lines = _RUN_LINES if is_of_prose else 1
        self._swallowed_lines = _SWALLOWED_LINES if is_of_prose else 2
        quote, delimiter = re.escape(dialect.quotechar), re.escape(dialect.separator)
        self._quoted = re.compile(
            f"{quote}[^{quote}]*+(?:{quote}{quote}[^{quote}]*+)*+{quote}" if quote else "(?!)"
        )
        self._plain = re.compile(rf"[^{delimiter}\r\n]*+")
        field = rf"(?:{self._quoted.pattern}|[^{quote}{delimiter}\r\n]*+)"
        record = rf"{field}(?:{delimiter}{field})*+"
        self._sound = re.compile(rf"(?:{record}[\r\n]++)*+(?:{record})?")

    def parse(self, window: Window) -> tuple[_Items, int]:
        """Return the records and rejects that are certain, and how many lines of the window they consumed."""
        items: _Items = []
        index, seen = 0, 0  # csv.reader has seen the lines before `seen`, and failed at the last of them
        following: int | None
        while index < len(window.raws):
            if self.damage is not None:
                following = self._pass_damage(self.damage, window, index, items)
            else:
                following, seen = self._read_run(window, index, seen, items)
                if following == index:
                    following = self._read_one(window, index, items)
            if following is None:
                break
            index = following
            if window.is_stretched and self.damage is None:
                break  # the rest is read block by block again: a long window holds many times its bytes
        return items, index

    def is_plain(self, window: Window) -> bool:
        """Whether each line of a window is a record beyond doubt, so that :meth:`parse` would give one record for each."""
        if self.damage is not None or window.is_stretched or window.is_suspect or window.is_coded:
            return False
        if window.starts[-1] - window.starts[0] > self.max_row_bytes:
            return False
        reader = csv_reader(window.texts, self.dialect)
        try:
            lengths = [*map(len, reader)]
        except csv.Error:
            return False
        if len(lengths) != len(window.raws) or set(lengths) - {self.n_fields}:
            return False
        return not self._has_quote(window.text) or self._sound.fullmatch(window.text) is not None

    def overflow(self, head: bytes, size: int, position: Position) -> Rejected:
        """Reject a single physical line over the limit, from its first bytes and its size in bytes."""
        if self.damage is not None and self.damage.end == position.offset:
            self.damage = None
        reason = self._amid(self.damage) if self.damage else self._reason(_Scan("over", 0, 0), position.line)
        self.damage = self.damage or self._damage(position.line)
        cut = f"; {len(head)} of its {size} bytes are kept" if len(head) < size else ""
        return Rejected(position.line, position.offset, reason + cut, None, head)

    def _read_run(self, window: Window, first: int, seen: int, items: _Items) -> tuple[int, int]:
        """Read records at C speed up to the end of the window or the first that csv.reader cannot finish.

        Returns the line after the accepted records (``first`` if there are none) and the line after all that csv.reader
        has seen. Lines before ``seen`` are not parsed by it again, except those without any quote; nor is a stretched
        window, whose first record is long or damaged.
        """
        plain = self._quote_free(window, first, seen)
        if plain > first:
            rows = list(self._cells(window, range(first, plain)))
            return first + self._take_rows(window, rows, range(first, plain + 1), items), seen
        if first < seen or window.is_stretched:
            return first, seen
        rows, ends = [], [first]
        reader = csv_reader(map(window.texts.__getitem__, range(first, len(window.texts))), self.dialect)
        try:
            for row in reader:
                rows.append(row)
                ends.append(first + reader.line_num)
        except csv.Error:  # broken quoting, or the window ends within quotes: _read_one finds out
            pass
        if window.is_coded:
            rows = [decoded(row, self.dialect) for row in rows]
        return ends[self._take_rows(window, rows, ends, items)], first + reader.line_num

    def _cells(self, window: Window, lines: range) -> Iterable[list[str]]:
        """The records in complete lines, as cells."""
        rows = csv_reader(window.texts[lines.start : lines.stop], self.dialect)
        return (decoded(row, self.dialect) for row in rows) if window.is_coded else rows

    def _row(self, window: Window, start: int, end: int) -> list[str]:
        """The cells of a complete record."""
        if window.chars[end] - window.chars[start] < _LONG_RECORD:
            return next(iter(self._cells(window, range(start, end))))
        cells, at, limit = [], window.chars[start], window.chars[end]
        quote, text = self.dialect.quotechar, window.text
        while True:  # as csv.reader would, which holds a cell at four bytes a character and copies it
            is_quoted = text.startswith(quote or "\n\n", at, limit)
            match = (self._quoted if is_quoted else self._plain).match(text, at, limit)
            assert match is not None  # noqa: S101 - it is complete
            first, at = match.span()
            cells.append(text[first + 1 : at - 1].replace(quote * 2, quote) if is_quoted else text[first:at])
            if at == limit or text[at] in "\r\n":
                return decoded(cells, self.dialect) if window.is_coded else cells
            at += 1

    def _quote_free(self, window: Window, index: int, seen: int) -> int:
        """Return the line up to which no quote occurs; searched only if there is none at all, or near damage."""
        if not self._has_quote(window.text):
            return len(window.raws)
        if index >= seen:
            return index
        at = window.text.find(self.dialect.quotechar, window.chars[index])
        return len(window.raws) if at < 0 else window.line_of(at)

    def _take_rows(self, window: Window, rows: list[list[str]], ends: Sequence[int], items: _Items) -> int:
        """Append the rows from line ``ends[k]`` to ``ends[k + 1]``; return how many were accepted."""
        fits = window.starts[-1] - window.starts[0] <= self.max_row_bytes
        upto = self._first_doubtful(rows, window, ends)
        if fits and not window.is_suspect and set(map(len, rows[:upto])) == {self.n_fields}:
            if ends[upto] - ends[0] == upto:
                raws = window.raws[ends[0] : ends[upto]]
            else:
                raws = [window.raw(start, end) for start, end in pairwise(ends[: upto + 1])]
            lines = map(window.line.__add__, ends)
            items.extend(
                map(_make_record, zip(rows, raws, lines, map(window.starts.__getitem__, ends), strict=False))
            )
            return upto
        for taken, (row, start, end) in enumerate(zip(rows[:upto], ends, ends[1:], strict=False)):
            ragged_lines = end - start > 1 and len(row) != self.n_fields
            too_long = not fits and window.starts[end] - window.starts[start] > self.max_row_bytes
            if ragged_lines or too_long:
                return taken
            self._judge(row, window, start, end, items)
        return upto

    def _first_doubtful(self, rows: list[list[str]], window: Window, ends: Sequence[int]) -> int:
        """The first row whose quotes are ambiguous; ``len(rows)`` if there is none.

        Either an unpaired quote in an unquoted field, so that a delimiter may have been meant as text, as in
        ``1"Fine, really",1``, which has three fields, none as its writer meant. Or a record that swallows rows.
        """
        if not self._has_quote(window.text) or not rows:
            return len(rows)
        chars = window.chars
        is_sound = self._sound.fullmatch(window.text, chars[ends[0]], chars[ends[len(rows)]]) is not None
        for place, row in enumerate(rows):
            start, end = ends[place], ends[place + 1]
            has_quote = not is_sound and self.dialect.quotechar in "".join(row)
            if has_quote and self._scan(window, start, len(window.raws)).odd >= 0:
                return place
            if end - start >= self._swallowed_lines and self._swallows(window, start, end):
                return place
        return len(rows)

    def _swallows(self, window: Window, start: int, end: int) -> bool:
        """Whether each line of a record looks like a row: then a stray quote opened it, and another closed it.

        A line looks like a row if it has the right number of fields, ignoring quotes, and a number wherever the first line
        has one.
        """
        separator, numeric = self.dialect.separator, [True] * self.n_fields
        if self.n_fields == 1:
            return False
        for line in range(start, end):
            if window.texts[line].count(separator) + 1 != self.n_fields:
                return False
            are = [cell.strip().isdecimal() for cell in window.texts[line].split(separator)]
            if line > start and are != numeric:
                return False
            numeric = are
        return any(numeric) or (self._run_lines == 1 and end - start >= _SWALLOWED_LINES)

    def _read_one(self, window: Window, index: int, items: _Items) -> int | None:
        """Read the record at one line, or begin damage; None if more lines are needed."""
        scan = self._probe(window, index)
        if scan is None:
            return None
        if scan.state == "complete" and (scan.end == index + 1 or scan.n_fields == self.n_fields):
            if scan.odd >= 0 and scan.end == index + 1:
                self._reject(window, index, _STRAY, self._column(scan.odd), items)
                return scan.end
            is_long = scan.end - index >= self._swallowed_lines
            if scan.odd < 0 and not (is_long and self._swallows(window, index, scan.end)):
                row = self._row(window, index, scan.end)
                self._judge(row, window, index, scan.end, items)
                return scan.end
            scan = scan._replace(state="broken")
        self.damage = self._damage(window.line + index)
        self.damage.end = window.starts[scan.end] if scan.state == "complete" else None
        column = self._column(scan.n_fields) if scan.state == "open" else None
        self._reject(window, index, self._reason(scan, window.line + scan.end - 1), column, items)
        return index + 1

    def _damage(self, line: int) -> _Damage:
        if self._is_piece:
            raise UncertainError
        return _Damage(line)

    def _pass_damage(self, damage: _Damage, window: Window, index: int, items: _Items) -> int | None:
        """Reject lines up to one that may start a record; None if more lines are needed."""
        resume = self._resume(window, index)
        if resume is None:
            return None
        if damage.end is not None:
            resume = min(resume, window.line_at(damage.end))
        for line in range(index, resume):
            self._reject(window, line, self._amid(damage), None, items)
        if resume == index:
            self.damage = None
        return resume

    def _reject(self, window: Window, line: int, reason: str, column: str | None, items: _Items) -> None:
        """Append one physical line as a reject, unless it is empty."""
        raw = window.raws[line]
        if window.texts[line].strip("\r\n") or len(raw) > self.max_row_bytes:
            if len(raw) > max(self.max_row_bytes, KEPT_BYTES):
                reason += f"; {KEPT_BYTES} of its {len(raw)} bytes are kept"
                raw = raw[:KEPT_BYTES]
            items.append(Rejected(window.line + line, window.starts[line], reason, column, raw))

    def _judge(self, row: list[str], window: Window, start: int, end: int, items: _Items) -> None:
        """Append a well-quoted row as a record, or as a reject if it has another problem; skip empty lines."""
        if not row:
            return
        raw, line, offset = window.raw(start, end), window.line + start, window.starts[start]
        is_sound = not window.is_suspect and len(row) == self.n_fields
        problem, culprit = ("", -1) if is_sound else self._problem(row, raw)
        if not problem:
            items.append(Record(row, raw, line, offset))
            return
        items.append(Rejected(line, offset, problem, self._column(culprit), raw))

    def _problem(self, row: list[str], raw: bytes) -> tuple[str, int]:
        """Return why a row is rejected (empty: it is not) and the index of the field, -1 if no single one."""
        encoding = self.dialect.encoding
        try:
            raw.decode(encoding)
        except UnicodeDecodeError as error:
            bad = raw[error.start : error.end].hex()
            found = f"0x{bad} at byte {error.start} of the row is not {encoding}"
            marked = (k for k, value in enumerate(row) if re.search("[\ud800-\udfff]", value))
            return found + encoding_hint(encoding), next(marked, -1)
        culprit = next((k for k, value in enumerate(row) if "\0" in value), -1)
        if culprit >= 0:
            return "a NUL character", culprit
        return ("" if len(row) == self.n_fields else self._ragged(len(row))), -1

    def _ragged(self, n_fields: int) -> str:
        return f"too {'few' if n_fields < self.n_fields else 'many'} fields: {n_fields}, not {self.n_fields}"

    def _reason(self, scan: _Scan, noticed: int) -> str:
        return {
            "broken": f"quotes do not pair up, seen in line {noticed}: one is missing, or one in a field is not doubled",
            "open": "a quoted field is never closed",
            "over": f"the row is longer than {self.max_row_bytes} bytes",
            "complete": self._ragged(scan.n_fields),
        }[scan.state]

    def _amid(self, damage: _Damage) -> str:
        return f"it belongs to the damage that begins in line {damage.line}"

    def _column(self, index: int) -> str | None:
        return self.header[index] if 0 <= index < len(self.header) else None

    # Where damage ends

    def _probe(self, window: Window, index: int, *, strict: bool = False) -> _Scan | None:
        """Scan the record at a line, within the byte limit; None if more lines are needed."""
        stop = window.line_at(window.starts[index] + self.max_row_bytes)
        if stop == index:
            return _Scan("over", 0, index + 1)
        if not self._has_quote(window.texts[index]):
            return _Scan("complete", window.texts[index].count(self.dialect.separator) + 1, index + 1)
        scan = self._scan(window, index, stop, strict=strict)
        if scan.state != "open":
            return scan
        if window.end - window.starts[index] > self.max_row_bytes:
            return scan._replace(state="over")
        return scan if window.is_final else None

    def _scan(self, window: Window, index: int, stop: int, *, strict: bool = False) -> _Scan:
        """Follow the quotes from line ``index`` to the end of its record, at most to line ``stop``.

        A record of several lines with a stray quote and the wrong number of fields counts as broken: its quote closed by
        accident. With ``strict``, so does anything that cannot become a record without stray quotes.
        """
        text, at, limit = window.text, window.chars[index], window.chars[stop]
        next_line, has_stray, odd, n_fields = window.chars[index + 1], False, -1, 0
        while True:
            is_quoted = text.startswith(self.dialect.quotechar, at, limit)
            match = (self._quoted if is_quoted else self._plain).match(text, at, limit)
            if match is None:
                return _Scan("open", n_fields, stop, has_stray, odd)
            strays = 0 if is_quoted or not self.dialect.quotechar else match[0].count(self.dialect.quotechar)
            has_stray, odd = has_stray or strays > 0, n_fields if strays % 2 and odd < 0 else odd
            at, n_fields = match.end(), n_fields + 1
            if at == limit or text[at] in "\r\n":
                break
            is_hopeless = has_stray if strict else has_stray and at > next_line
            is_hopeless = is_hopeless and (strict or n_fields > self.n_fields)
            if text[at] != self.dialect.separator or is_hopeless:
                return _Scan("broken", n_fields, window.line_of(at) + 1, has_stray, odd)
            at += 1
        is_broken = at > next_line and has_stray and n_fields != self.n_fields
        end = min(window.line_of(at) + 1, stop)
        return _Scan("broken" if is_broken else "complete", n_fields, end, has_stray, odd)

    def _has_quote(self, text: str) -> bool:
        return self.dialect.quotechar != "" and self.dialect.quotechar in text

    def _resume(self, window: Window, index: int) -> int | None:
        """Whether a record may start at a line after damage: return that line, or the next one to check.

        It may if it has the right number of fields and no stray quote, and if it begins a run of lines that parse well or
        the next quote after it agrees that the lines before are outside quotes. None if more lines are needed.
        """
        scan = self._probe(window, index, strict=True)
        if scan is None:
            return None
        if not self._is_credible(scan):
            return index + 1
        behind = scan.end
        begins_a_run = self._begins_a_run(window, index, behind)
        if begins_a_run is not False:
            return index if begins_a_run else None
        last = min(behind + _AHEAD_LINES, window.line_at(window.starts[behind] + _AHEAD_BYTES))
        at = window.text.find(self.dialect.quotechar or "\r\r\r", window.chars[behind], window.chars[last])
        if at >= 0:
            refuted = ("closing",) if self._has_quote(window.texts[index]) else ("closing", "within")
            return window.line_of(at) if self._first_quote(window, at) in refuted else index
        is_enough = last - behind == _AHEAD_LINES or window.end - window.starts[behind] > _AHEAD_BYTES
        if not is_enough and not window.is_final:
            return None
        is_quoted = self._has_quote(window.texts[index])
        return index if is_quoted or self._looks_tabular(window, index, last) else last

    def _is_credible(self, scan: _Scan) -> bool:
        return scan.state == "complete" and not scan.has_stray and scan.n_fields == self.n_fields

    def _begins_a_run(self, window: Window, index: int, behind: int) -> bool | None:
        """Whether this line and the following ones each parse well: prose within quotes does not, for long.

        False for a table of one column, where every line does, and for a record of several lines. None if more lines are
        needed.
        """
        if self.n_fields == 1 or behind > index + 1:
            return False
        stop = min(index + self._run_lines, window.line_at(window.starts[behind] + _AHEAD_BYTES))
        is_short = stop < index + self._run_lines
        if is_short and not window.is_final:
            return None if window.end - window.starts[behind] <= _AHEAD_BYTES else False
        if is_short and stop == index + 1:
            return False
        return all(self._reads_well(window, line) for line in range(index, stop))

    def _reads_well(self, window: Window, line: int) -> bool:
        if window.starts[line + 1] - window.starts[line] > self.max_row_bytes:
            return False
        return self._is_credible(self._scan(window, line, line + 1, strict=True))

    def _first_quote(self, window: Window, at: int) -> str:
        """Tell whether the first quote of a line is ``opening`` a field, ``closing`` one, or ``within`` one."""
        line = window.line_of(at)
        before = window.text[at - 1] if at > window.chars[line] else ""
        ends_field = window.text[at + 1 : at + 2] in ("", "\r", "\n", self.dialect.separator)
        if before != self.dialect.separator and (before or ends_field):
            return "closing" if ends_field else "within"
        is_doubled = window.text.startswith(self.dialect.quotechar * 2, at)
        if (not before or is_doubled) and self._scan(window, line, line + 1).state == "broken":
            return "within"  # prose like "Great!" he said, or a doubled quote that follows a comma
        return "opening"

    def _looks_tabular(self, window: Window, start: int, end: int) -> bool:
        """For lines without quotes: whether at least half of the non-empty ones have the right number of fields."""
        lines = [text for text in window.texts[start:end] if text.strip("\r\n")]
        right = sum(text.count(self.dialect.separator) + 1 == self.n_fields for text in lines)
        return 2 * right >= len(lines)


_STRAY = "a quote within an unquoted field has no partner there, so that what divides fields may be text"
