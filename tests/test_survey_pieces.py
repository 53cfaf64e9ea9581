"""One large file is surveyed in pieces by several processes: the same plan, rejects, hash and errors as in sequence."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flow import fake_bundle
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchscore.config import ReadSettings, ScoreSettings
from batchscore.errors import BatchscoreError
from batchscore.formats import pieces
from batchscore.formats.first_pass import FirstPass
from batchscore.formats.inputs import find_files
from batchscore.formats.pieces import Kept, Piece
from batchscore.records import Position
from batchscore.runs import survey_pieces, survey_processes
from batchscore.runs.planning import make_plan
from batchscore.runs.survey_pieces import PieceSurvey
from batchscore.runs.surveying import Surveyor
from batchscore.system.helpers import Helpers


class Here:
    """Helpers that are in this process; a few tasks are made before the first is taken."""

    def __init__(self, count: int, make: Callable[..., Callable[[Any], Any]], *told: Any) -> None:
        self.count, self._work = count, make(*told)

    def results(self, tasks: Iterable[Any], ahead: int | None = None) -> Iterator[Any]:
        """What is sent to and fro is pickled."""
        given, done = iter(tasks), []
        for task in itertools.chain(given, [None] * 3):
            done += [self._done(task)] if task is not None else []
            if done and (len(done) > 3 or task is None):
                yield done.pop(0)

    def _done(self, task: Any) -> Any:
        return pickle.loads(pickle.dumps(self._work(pickle.loads(pickle.dumps(task)))))

    def close(self) -> None:
        """Nothing to end."""


Result = tuple[str, bytes, list[str | None]]


def planned(path: Path, read: ReadSettings, **options: Any) -> Result:
    """The plan or the error, the rejects, and the hash."""
    asked, rejects = (
        ScoreSettings((str(path),), "fake", path.parent / "run", read=read, **options),
        io.BytesIO(),
    )
    found = find_files(asked.inputs, None, asked.output)
    try:
        told = json.dumps(make_plan(found, fake_bundle(), asked, rejects).to_json())
    except BatchscoreError as error:
        return f"{type(error).__name__}: {error}", b"", []
    return told, rejects.getvalue(), [file.hashed and file.hashed.sha256 for file in found]


def in_pieces(path: Path, size: int, at_once: int, read: ReadSettings, **options: Any) -> Result:
    """The same in pieces of some bytes, without processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey_processes, "Helpers", Here)
        patch.setattr(survey_processes, "processes_for", lambda *_: 1)
        patch.setattr(survey_processes, "large_files", lambda found, *_: set(range(len(found))))
        patch.setattr(survey_pieces, "_PIECE_BYTES", size)
        patch.setattr(pieces, "AT_ONCE", at_once)
        return planned(path, read, **options)


CSV = st.sampled_from(
    [
        *(
            b"1,fine,POSITIVE\n",
            b'2,"a\nb",neg\n',
            b'3,"""oh"", said\r\n\r\nI",\n',
            b"4,poor,1\r\n",
            b"5,x,meh\r\r\n",
        ),
        *(
            "6,größer 😀,neg\n".encode(),
            b"7,x\n",
            b"8,a,b,c\n",
            b"\n",
            b"\r\n",
            b" \n",
            b"\r",
            b"id,text,label\n",
        ),
        *(
            b'9,"never closed,1\n',
            b'5" disk,x,0\n',
            b'1"Fine, really",1\n',
            b'"a"b,c,1\n',
            b'"',
            b'""',
            b"\n\n\n",
        ),
        *(
            "\ufdd0,x,1\n".encode(),
            b"\xff,x,1\n",
            b"\xc3",
            b"\0,x,1\n",
            b'1,a\\"b,1\n',
            b"'1\n',x,1\n",
            b"\\\n",
            b",",
        ),
        *(
            b"1,'it''s',pos\n",
            b"\xef\xbb\xbfid,text,label\n",
            b"1,fine\rodd,pos\n",
            b"1,2,3\n" * 5,
            b"1," + b"x" * 60,
        ),
        *(b"id,review,label\n", b'\n1,"x', b'y",1\n', b"\\N,\\N,\\N\n"),
    ]
)
JSON = st.sampled_from(
    [
        *(
            b'{"text": "good", "label": 1}\n',
            b'{"text": "poor", "label": true, "shop": 3}\r\n',
            b"\n",
            b" \t\x0b\n",
        ),
        *(
            b'{"text": 4}\n',
            b'{"text": "a\\nb", "z": {"y": 1}}\n',
            '{"text": "größer 😀", "a": 1}\n'.encode(),
            b"[]\n",
        ),
        *(
            b'{"text": "\xff"}\n',
            b'{"text": "never closed\n',
            b'{"text": "' + b"x" * 60 + b'"}\n',
            b"nothing\n",
            b" ",
        ),
        *(
            b'{"text": "x", "label": 1.0}\n',
            b'{"text": "x", "label": [1]}\n',
            b'{"text": "' + b"y" * 200 + b'"}\n',
        ),
        *(
            b"\0\n",
            b'{"b": 1}\n',
            b'{"text": null, "label": null, "c": 1, "b": 2}\n',
            b'{"text": "\\ud800"}\n',
        ),
    ]
)
SIZES = st.tuples(st.integers(1, 100), st.integers(1, 80), st.integers(1, 4), st.sampled_from([1, 30, 10**6]))
"""Bytes of a piece, and searched at a time; rows and bytes of a part."""


OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "other quotes": {"quotechar": "'"},
    "no quotes": {"quotechar": ""},
    "escapes": {"escapechar": "\\"},
    "one byte a character": {"encoding": "cp1252"},
    "UTF-16": {"encoding": "utf-16"},
    "GB 18030": {"encoding": "gb18030"},
    "undivided": {"delimiter": "none", "has_no_header": True},
    "no header": {"has_no_header": True},
    "short rows": {"max_row_bytes": 50},
}


@pytest.mark.parametrize("kind", OPTIONS)
@settings(max_examples=60, deadline=None)
@given(st.lists(CSV, max_size=25), SIZES)
@example([b"1,2,3\n"] * 9, (1, 1, 1, 10**6))
@example([b'1,"2\n2",3\n'] * 4 + [b'9,"never closed,1\n'] + [b'1,"2\n2",3\n'] * 9, (1, 9, 2, 10**6))
@example([b"\xef\xbb\xbf1,2,3\n"] * 9 + [b"1,2,3"], (1, 9, 2, 10**6))
def test_csv_in_pieces_is_planned_as_in_sequence(
    kind: str, tmp_path_factory: pytest.TempPathFactory, rows: list[bytes], sizes: tuple[int, ...]
) -> None:
    content = (b"" if kind == "no header" else b"id,text,label\n") + b"".join(rows)
    path = tmp_path_factory.getbasetemp() / "pieces.csv"
    path.write_bytes(content.decode("latin-1").encode("utf-16") if kind == "UTF-16" else content)
    size, at_once, part_rows, part_bytes = sizes
    read = ReadSettings(part_rows=part_rows, part_bytes=part_bytes, **OPTIONS[kind])
    assert in_pieces(path, size, at_once, read) == planned(path, read)


@settings(max_examples=200, deadline=None)
@given(st.lists(JSON, max_size=25), SIZES, st.sampled_from([100, 10**6]), st.booleans())
@example([b'{"b": 1}\n', b'{"text": "x", "c": 1}\n', b'{"a": 1, "d": 2}\n'] * 3, (1, 1, 1, 10**6), 100, False)
def test_json_lines_in_pieces_are_planned_as_in_sequence(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[bytes],
    sizes: tuple[int, ...],
    longest: int,
    has_mark: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / "pieces.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" * has_mark + b'{"text": "first"}\n' + b"".join(rows))
    size, at_once, part_rows, part_bytes = sizes
    read = ReadSettings(part_rows=part_rows, part_bytes=part_bytes, max_row_bytes=longest, max_columns=6)
    assert in_pieces(path, size, at_once, read) == planned(path, read)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(CSV, min_size=5, max_size=25),
    st.lists(st.tuples(st.integers(1, 40), st.integers(-1, 1), st.integers(-1, 1)), min_size=1, max_size=6),
    st.integers(1, 3),
)
def test_wherever_pieces_are_thought_to_begin_the_plan_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: list[bytes], wrong: list[tuple[int, int, int]], most: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "pieces.csv"
    path.write_bytes(b"id,text,label\n" + b"".join(rows))
    read = ReadSettings(part_rows=most)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey_pieces, "pieces", guessing(wrong))
        assert in_pieces(path, 1, 64, read) == planned(path, read)


def guessing(wrong: list[tuple[int, int, int]]) -> Callable[..., Iterator[Piece]]:
    """Pieces of some lines each, of as many rows as lines; both are told wrong."""

    def guess(kept: Kept, ends: Any, read: Any, start: Position, size: int) -> Iterator[Piece]:
        while kept.read(kept.end, 1000):
            pass
        lines = kept.between(start.offset, kept.end).splitlines(keepends=True)
        begun, cycle = start, itertools.cycle(wrong)
        while lines:
            count, more_rows, more_lines = next(cycle)
            data, lines = b"".join(lines[:count]), lines[count:]
            yield Piece(begun, data, not lines, begun != start)
            row, offset, line = begun.row + count + more_rows, begun.offset + len(data), begun.line + count
            begun = Position(row, offset, line + more_lines)

    return guess


ROWS = b"".join(b'%d,"fine\n%d",POSITIVE\n' % (k, k) for k in range(2000))


def test_what_is_damaged_is_read_in_sequence_and_the_rest_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,text,label\n" + ROWS + b'1,"never closed,0\n' + ROWS + b"1,ragged\n" + ROWS)
    read = ReadSettings(part_rows=7)
    expected = planned(path, read)
    here: list[Position] = []
    plain = PieceSurvey._in_sequence
    monkeypatch.setattr(
        PieceSurvey,
        "_in_sequence",
        lambda self, kept, at, stretch: here.append(at) or plain(self, kept, at, stretch),  # type: ignore[func-returns-value]
    )
    monkeypatch.setattr(Surveyor, "survey", lambda *_: pytest.fail("in sequence"))
    assert in_pieces(path, 1000, 4096, read) == expected
    assert [1900 < at.row <= 2000 for at in here] == [True]
    assert expected[1].count(b"\n") == 2
    assert expected[2] == [hashlib.sha256(path.read_bytes()).hexdigest()]


def test_whatever_is_read_again_comes_from_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,text,label\n" + ROWS + b'1,"never closed,0\n' + ROWS)
    read = ReadSettings(part_rows=7)
    expected = planned(path, read)
    sizes: list[int] = []
    plain = FirstPass.take
    monkeypatch.setattr(
        FirstPass,
        "take",
        lambda self, offset, data: sizes.append(len(data)) or plain(self, offset, data),  # type: ignore[func-returns-value]
    )
    assert in_pieces(path, 1000, 4096, read) == expected
    assert sum(sizes) == path.stat().st_size - len(b"id,text,label\n")


def test_partitions_of_all_pieces_are_refused_where_they_are_too_many(tmp_path: Path) -> None:
    path, read = tmp_path / "a.csv", ReadSettings(part_rows=7)
    for rows in (900, 1500):
        path.write_bytes(b"id,text,label\n" + ROWS[: ROWS.index(b"\n%d," % rows) + 1])
        expected = planned(path, read, partition_by="id")
        assert ("more than 1,000 values" in expected[0]) is (rows > 1000)
        assert in_pieces(path, 1000, 4096, read, partition_by="id") == expected


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch, started_processes: list[int]) -> list[int]:
    """Two processes are worth it, for pieces of some rows; their numbers."""
    monkeypatch.setattr(survey_processes, "processes_for", lambda *_: 2)
    monkeypatch.setattr(survey_processes, "large_files", lambda *_: {0})
    monkeypatch.setattr(survey_pieces, "_PIECE_BYTES", 4000)
    return started_processes


@pytest.mark.parametrize("killed", [(), (3,), (0, 1), (5, 6)])
def test_processes_that_are_killed_cost_time_only(
    killed: tuple[int, ...], tmp_path: Path, two: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,text,label\n" + ROWS + b"1,ragged\n")
    read = ReadSettings(part_rows=50)
    with monkeypatch.context() as patch:
        patch.setattr(survey_processes, "processes_for", lambda *_: 0)
        expected = planned(path, read)
    assert not two
    plain, taken = Helpers._take, itertools.count()

    def take(self: Helpers, at_work: dict[Any, int], done: dict[int, Any]) -> None:
        if next(taken) in killed:
            victim = self._running[next(iter(at_work))]
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()
        plain(self, at_work, done)

    monkeypatch.setattr(Helpers, "_take", take)
    assert planned(path, read) == expected
    assert len(two) == 2
