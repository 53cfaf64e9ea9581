"""Every part of a plan is read again by itself, in any order."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from flow import fake_bundle

from batchscore.config import ReadSettings, ScoreSettings
from batchscore.errors import DataError
from batchscore.formats.inputs import find_files
from batchscore.runs.part_reading import PartReader
from batchscore.runs.planning import make_plan

ROWS = b"id,text,label\n1,fine,1\n"
PROSE = b"".join(b"prose, with, many, commas %d\n" % k for k in range(7))


def test_a_part_that_begins_amid_damage_is_read_by_itself(tmp_path: Path) -> None:
    """As where a run was stopped before it, or where several processes share a file."""
    path = tmp_path / "a.csv"
    path.write_bytes(ROWS + b'2,"never closed,1\n' + PROSE + b"3,fine,1\n" * 20)
    asked = ScoreSettings((str(path),), "fake", tmp_path / "run", read=ReadSettings(part_rows=4))
    plan = make_plan(find_files(asked.inputs, None, asked.output), fake_bundle(), asked, io.BytesIO())
    assert plan.rejects == 8
    for part in reversed(plan.parts):
        assert PartReader(plan.files, asked.read).read(part).rows_in == part.rows
    reader = PartReader(plan.files, asked.read)
    for part in (plan.parts[1], plan.parts[2], plan.parts[4]):
        assert reader.read(part).start == part.start
    path.write_bytes(path.read_bytes().replace(b"commas", b"Commas"))
    with pytest.raises(DataError, match="changed while it was being read"):
        PartReader(plan.files, asked.read).read(plan.parts[1])
