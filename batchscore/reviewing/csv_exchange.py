"""Verdicts as a CSV file, for spreadsheets and for the trainer: one line a row that has a verdict, or may get one.

No cell is a formula: an apostrophe stands before one that could be taken for it, as in ``mismatches.csv``. Texts are whole.
``text_hash`` says which text a row has, whatever a spreadsheet made of the text itself.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from batchscore.config import ReadSettings
from batchscore.errors import DataError, printable
from batchscore.formats.delimited import Dialect, encode_fields
from batchscore.formats.reading import describe, identify, texts_of_file
from batchscore.formats.text_keys import text_key
from batchscore.records import Text
from batchscore.reviewing.records import RunRow
from batchscore.reviewing.store import GIVEN, KINDS, OTHER, PREDICTION, Verdict
from batchscore.runs.mismatch_files import for_spreadsheet

_VISIBLE_NUL = "\u2400"
_FIRST = (
    "run",
    "file",
    "row",
    "id",
    "given_label",
    "predicted_label",
    "probability",
    "verdict",
    "label",
    "text_hash",
    "text",
)
_PAIR = "text_pair"
_NEEDED = frozenset(_FIRST) - {"probability", "id"}


class CsvRow(NamedTuple):
    """One line, read back."""

    run: str
    file: str
    row: int
    given: str | None
    verdict: str
    label: str | None
    text_hash: str
    text: Text | None
    """None if a spreadsheet changed it."""


def write(out: IO[bytes], run: str, rows: Iterable[tuple[RunRow, Verdict | None]], *, has_pairs: bool) -> int:
    """Write rows with their verdicts, empty where there is none yet; ``run`` is the fingerprint of theirs. Returns their number."""
    dialect, count = Dialect(), 0
    out.write(codecs.BOM_UTF8 + encode_fields([*_FIRST, *[_PAIR] * has_pairs], dialect) + b"\n")
    for row, verdict in rows:
        texts = (row.text,) if isinstance(row.text, str) else row.text
        sure = "" if row.probability is None else f"{row.probability:.6f}"
        cells = [row.id, row.given, row.predicted]
        line = [
            run,
            cell(row.file),
            str(row.row),
            *(cell(each or "") for each in cells),
            sure,
            "" if verdict is None else verdict.kind,
            cell((verdict and verdict.label) or ""),
            row.text_hash,
            *map(cell, texts),
        ]
        out.write(encode_fields(line, dialect) + b"\n")
        count += 1
    return count


def cell(text: str) -> str:
    """A text as a cell that no spreadsheet takes for a formula."""
    return for_spreadsheet(text.replace("\0", _VISIBLE_NUL))


def read(path: Path) -> Iterator[CsvRow]:
    """The lines with a verdict, or with a label, which says as much.

    Raises:
        DataError: it is no such file, or a line cannot be meant.
        StorageError: it cannot be read.
    """
    source, settings = identify(path), ReadSettings()
    names = [column.name for column in describe(source, settings).columns]
    _refuse_other(path, names)
    has_pairs = _PAIR in names
    wanted = [*_FIRST[:3], "given_label", "predicted_label", "verdict", "label", "text_hash", "text"]
    wanted += [_PAIR] * has_pairs
    line = 1
    for texts in texts_of_file(source, settings, wanted):
        for values in zip(*(texts[name] for name in wanted), strict=True):
            line += 1
            if values[5] or values[6]:
                yield _row(path, line, values)


def places(path: Path) -> Iterator[tuple[str, str, int]]:
    """Run, file and row of every line, whether it has a verdict or not.

    Raises:
        DataError: it is no such file, or a line cannot be meant.
        StorageError: it cannot be read.
    """
    source, settings = identify(path), ReadSettings()
    _refuse_other(path, [column.name for column in describe(source, settings).columns])
    line = 1
    for texts in texts_of_file(source, settings, list(_FIRST[:3])):
        for run, file, row in zip(*(texts[name] for name in _FIRST[:3]), strict=True):
            line += 1
            yield run or "", file or "", _number(path, line, row or "")


def _row(path: Path, line: int, values: Sequence[str | None]) -> CsvRow:
    run, file, row, given, predicted, verdict, label, text_hash, *texts = (value or "" for value in values)
    place, number = f"{printable(path)}, record {line}", _number(path, line, row)
    if not verdict:
        verdict = OTHER
    if verdict not in KINDS:
        raise DataError(f"{place}: verdict is none of {', '.join(KINDS)}.")
    right = plain(label)
    meant_by = {GIVEN: plain(given), PREDICTION: plain(predicted), OTHER: right}
    if right and right != meant_by.get(verdict):
        raise DataError(
            f"{place}: verdict is {verdict}, and label says something else. Empty label, or let verdict be {OTHER}."
        )
    return CsvRow(
        run,
        file,
        number,
        plain(given) or None,
        verdict,
        right or None,
        text_hash,
        _text(texts, text_hash),
    )


def plain(text: str) -> str:
    """The inverse of :func:`cell`, but for a NUL, and a text that begins with an apostrophe and white space."""
    bare = text.removeprefix("'")
    return bare if bare != text and cell(bare) == text else text


def _number(path: Path, line: int, row: str) -> int:
    if not row.isdecimal() or int(row) < 1:
        raise DataError(f"{printable(path)}, record {line}: row is no number from 1 on.")
    return int(row)


def _refuse_other(path: Path, names: Sequence[str]) -> None:
    if lacking := sorted(_NEEDED - set(names)):
        raise DataError(
            f"{printable(path)} is no export of batchscore review: it has no column {printable(lacking[0])}. Make one with "
            "batchscore review RUN_DIR --export, or with batchscore suggest RUN_DIR."
        )


def _text(cells: Sequence[str], text_hash: str) -> Text | None:
    """What the cells were made of, if its hash is the one that is told."""
    for made in (plain, str):
        for nul in (_VISIBLE_NUL, "\0"):
            texts = [made(each).replace(_VISIBLE_NUL, nul) for each in cells]
            text: Text = texts[0] if len(texts) == 1 else (texts[0], texts[1])
            if text_key(text).hex() == text_hash:
                return text
    return None


def meant(cells: Mapping[str, object], text: str) -> str | None:
    """Which of some known texts a cell means; None if it is none of them."""
    return next((each for each in cells if text in (each, cell(each))), None)
