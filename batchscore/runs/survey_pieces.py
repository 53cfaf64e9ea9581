"""The survey of one large file in pieces, by several processes: the same as in sequence, byte for byte.

This process reads the file, hashes it, guesses where pieces begin (:mod:`batchscore.formats.pieces`) and hands out their bytes, so that
the file is read once. A process surveys its piece as if it began there. What it finds counts if the piece before it ended just
there. Where it did not, and where a process says nothing (damage, whose extent shows only further on; an error; rejects that are too
many; its death), the file is surveyed here from that place on, for a while, and then in pieces again.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from batchscore.errors import DataError
from batchscore.formats.delimited import UncertainError
from batchscore.formats.first_pass import FirstPass
from batchscore.formats.format import format_of
from batchscore.formats.pieces import Kept, Piece, PieceStream, RowEnds, pieces
from batchscore.formats.source import open_bytes, reading
from batchscore.model.labels import counted
from batchscore.records import Column, Position, Rows
from batchscore.runs.partitions import PartitionValues
from batchscore.runs.surveying import FoundPart, Look, Surveyed, Surveyor

if TYPE_CHECKING:
    from batchscore.config import ReadSettings
    from batchscore.formats.inputs import FoundFile
    from batchscore.model.labels import Meaning
    from batchscore.system.helpers import Helpers

_PIECE_BYTES = 4 << 20
"""A part more, and a piece is as large as this or larger."""
_AHEAD = 2
"""Pieces per process that may be done before an earlier one is."""
_FIRST_STRETCH = 2
"""So many pieces are surveyed here after a first wrong guess; twice as many after each further one."""


class PieceTask(NamedTuple):
    """A piece of a file to survey."""

    file: FoundFile
    look: Look
    piece: Piece


class FoundPiece(NamedTuple):
    """What a piece holds if it begins where it was thought to."""

    start: Position
    end: Position
    parts: list[FoundPart]
    rejects: int
    reject_lines: bytes
    columns: tuple[Column, ...]
    """Those that the head of the file does not have, as they come."""
    partitions: PartitionValues
    values: list[tuple[Any, int]]
    """The values of its label column, with the rows of each."""


class _Values:
    """Collects the values of a label column in place of a survey, which would have to know those before."""

    counts_from_0 = False

    def __init__(self) -> None:
        self.found: list[tuple[Any, int]] = []

    def update(self, values: Iterable[Any]) -> None:
        self.found += counted(values)

    def count(self, values: Iterable[tuple[Any, int]]) -> None:
        self.found += values

    def meaning(self, *, counts_from_0: bool = False) -> Meaning | None:  # noqa: ARG002
        return None

    def problem(self, column: str) -> str:  # noqa: ARG002
        raise UncertainError  # it is for the whole file to say


def survey_piece(
    surveyor: Surveyor, task: PieceTask, settings: ReadSettings, rejects: IO[bytes]
) -> FoundPiece:
    """Survey a piece, in one of the processes.

    Raises:
        UncertainError: the rows of the piece, or where its last part ends, depend on what lies outside it.
        DataError: as the survey of a file.
    """
    (file, look, piece), values = task, _Values()
    surveyed = surveyor.begun(file, look, values)
    source = file.source._replace(stream=PieceStream(piece), is_piece=not piece.is_last)
    for rows in surveyor.rows_of(source, look, piece.start):
        if piece.is_guessed and not surveyed.parts and _first_line(rows) != piece.start.line:
            raise UncertainError
        surveyor.add(surveyed, rows, rejects)
        del rows
    if not piece.is_last:
        is_full = surveyed.parts and surveyed.parts[-1].rows >= settings.part_rows
        if not is_full or not piece.data.endswith(b"\n"):
            raise UncertainError
    start = piece.start
    end = Position(
        start.row + surveyed.rows, start.offset + len(piece.data), start.line + piece.data.count(b"\n")
    )
    more = surveyed.layout.columns[len(look.layout.columns) :]
    rejects.seek(0)
    return FoundPiece(
        start, end, surveyed.parts, surveyed.rejects, rejects.read(), more, surveyed.partitions, values.found
    )


def _first_line(rows: Rows) -> int | None:
    """The line in which the first row of a part begins, which may be a reject."""
    assert rows.lines is not None  # noqa: S101 - as in all text formats
    begins_sound = rows.row and rows.row[0] == rows.start.row
    return rows.lines[0] if begins_sound else rows.rejects[0].line


def row_ends(file: FoundFile, look: Look) -> RowEnds | None:
    """How pieces of a file are guessed; None if it cannot be surveyed in pieces."""
    source = file.source
    return None if source.compression else format_of(source.format).row_ends(look.layout)


def _behind_blank_lines(kept: Kept, at: Position, blank: bytes) -> Position:
    """Where the next row begins: blank lines belong to no part."""
    with kept.view() as lines:
        lines.seek(at.offset)
        while (line := lines.readline()).endswith(b"\n") and not line.strip(blank):
            at = Position(at.row, at.offset + len(line), at.line + 1)
    return at


class PieceSurvey:
    """Surveys one file."""

    def __init__(
        self,
        surveyor: Surveyor,
        helpers: Helpers,
        settings: ReadSettings,
        file: FoundFile,
        look: Look,
        rejects: IO[bytes],
    ) -> None:
        """``helpers`` do :class:`PieceTask`."""
        self._surveyor, self._helpers, self._settings = surveyor, helpers, settings
        self._file, self._look, self._rejects = file, look, rejects
        self._surveyed = surveyor.begun(file, look)

    def survey(self, ends: RowEnds) -> Surveyed:
        """As :meth:`batchscore.runs.surveying.Surveyor.survey`."""
        first_pass = FirstPass(self._file.source.path)
        source = self._file.source._replace(first_pass=first_pass)
        with reading(source), open_bytes(source) as stream:
            stream.seek(ends.first.offset)
            kept = Kept(stream, ends.first.offset)
            at: Position | None = ends.first
            stretch = _FIRST_STRETCH * _PIECE_BYTES
            while at is not None:
                at = self._in_pieces(kept, ends, at)
                if at is not None:
                    at = self._in_sequence(kept, at, stretch)
                    stretch *= 2
        self._surveyor.finish(self._surveyed, first_pass)
        return self._surveyed

    def _in_pieces(self, kept: Kept, ends: RowEnds, at: Position) -> Position | None:
        """Survey from the part on that begins at ``at``; returns where that came to an end, None at the end of the file."""
        handed_out: collections.deque[bool] = collections.deque()
        has_failed = False

        def tasks() -> Iterator[PieceTask]:
            for piece in pieces(kept, ends, self._settings, at, _PIECE_BYTES):
                if has_failed:
                    return
                handed_out.append(piece.is_last)
                yield PieceTask(self._file, self._look, piece)

        came, is_whole = at, False
        for found in self._helpers.results(tasks(), _AHEAD) if self._helpers.count else ():
            is_last = handed_out.popleft()
            has_failed = has_failed or found is None or found.start != came or not self._join(found)
            if not has_failed:
                came, is_whole = found.end, is_last
                kept.forget(came.offset)
        if is_whole:
            return None
        return came if came == at else _behind_blank_lines(kept, came, ends.blank)

    def _join(self, found: FoundPiece) -> bool:
        """Add what a piece holds; nothing if it cannot be added, as the survey in sequence will tell."""
        surveyed, name = self._surveyed, self._surveyed.partitions.column
        columns = surveyed.layout.columns
        if found.columns:
            known = {column.name for column in columns}
            columns = (*columns, *(column for column in found.columns if column.name not in known))
            if len(columns) > self._settings.max_columns:
                return False
        partitions = PartitionValues(name)
        try:
            for each in (surveyed.partitions, found.partitions):
                partitions.add(each, self._file.source.path)
        except DataError:
            return False
        surveyed.layout = dataclasses.replace(surveyed.layout, columns=columns)
        surveyed.partitions = partitions
        surveyed.values.count(found.values)
        surveyed.parts += found.parts
        surveyed.rejects += found.rejects
        self._rejects.write(found.reject_lines)
        return True

    def _in_sequence(self, kept: Kept, at: Position, stretch: int) -> Position | None:
        """Survey from the part on that begins at ``at``, for so many bytes, and up to a part that begins where nothing is damaged.

        Returns where that is, None at the end of the file.
        """
        source = self._file.source._replace(stream=kept.view())
        ends_sound = False
        for rows in self._surveyor.rows_of(source, self._look, at):
            begins_sound = bool(rows.row) and rows.row[0] == rows.start.row
            if ends_sound and begins_sound and rows.start.offset - at.offset >= stretch:
                return rows.start
            ends_sound = bool(rows.row) and rows.row[-1] == rows.start.row + rows.rows_in - 1
            self._surveyor.add(self._surveyed, rows, self._rejects)
            kept.forget(rows.start.offset)
            del rows
        return None
