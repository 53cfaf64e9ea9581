"""Files are surveyed in processes beside this one: the same plan, the same rejects and the same errors."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
from pathlib import Path

import pytest
from flow import fake_bundle

from batchscore.config import ScoreSettings
from batchscore.errors import DataError
from batchscore.formats.inputs import FoundFile, Identity, find_files
from batchscore.formats.source import Source
from batchscore.runs import survey_processes
from batchscore.runs.planning import make_plan
from batchscore.runs.survey_processes import large_files, processes_for
from batchscore.runs.surveying import Surveyor
from batchscore.system.helpers import Helpers

KINDS = {
    "a.csv": b"id,text,label\n" + b"".join(b"%d,fine %d,POSITIVE\n" % (k, k) for k in range(30)) + b"1,x\n",
    "b.jsonl": b'{"text": "good", "label": 1}\n{"text": "poor", "label": 0, "shop": 3}\n{"text": 4}\n',
    "c.csv": b"",
    "d.csv": b'text;stars\nfine;3\n"never closed;4\nfine;5\n',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number in range(12):
        for name, content in KINDS.items():
            (tmp_path / "in" / f"{number:02d}{name}").write_bytes(content)
    return tmp_path / "in"


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch, started_processes: list[int]) -> list[int]:
    """Two processes are worth it, with a few files a task; their numbers."""
    monkeypatch.setattr(survey_processes, "processes_for", lambda *_: 2)
    monkeypatch.setattr(survey_processes, "_TASK_SECONDS", 0.006)
    return started_processes


def settings_for(folder: Path) -> ScoreSettings:
    return ScoreSettings((str(folder),), "fake", folder.parent / "run", label_map={"1": "POSITIVE"})


def planned(folder: Path) -> tuple[str, bytes, list[str | None]]:
    """The plan, its rejects, and the hashes of the files."""
    asked, rejects = settings_for(folder), io.BytesIO()
    found = find_files(asked.inputs, None, asked.output)
    plan = make_plan(found, fake_bundle(), asked, rejects)
    return json.dumps(plan.to_json()), rejects.getvalue(), [f.hashed and f.hashed.sha256 for f in found]


def test_the_plan_is_the_same_even_if_a_process_is_killed(
    folder: Path, two: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(survey_processes, "processes_for", lambda *_: 0)
        expected = planned(folder)
    assert expected[1].count(b"\n") > 20
    assert None not in expected[2]
    assert not two
    plain, here = Surveyor.survey, []
    monkeypatch.setattr(
        Surveyor,
        "survey",
        lambda self, file, *rest: here.append(file.name) or plain(self, file, *rest),  # type: ignore[func-returns-value]
    )
    assert planned(folder) == expected
    assert (len(two), here) == (2, [])
    taken = Helpers._take

    def take(self: Helpers, at_work: object, done: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(two[-1], signal.SIGKILL)
        taken(self, at_work, done)  # type: ignore[arg-type]

    monkeypatch.setattr(Helpers, "_take", take)
    assert planned(folder) == expected


def test_the_error_is_that_of_the_first_file_with_one_and_says_the_same(folder: Path, two: list[int]) -> None:
    (folder / "05a.csv").write_bytes(KINDS["a.csv"] + b"id,review,label\n")
    (folder / "09a.csv").write_bytes(b"nothing,here\n1,2\n")
    with pytest.raises(DataError, match=r"09a.csv: 2 columns could be the text"):  # heads are looked at first
        planned(folder)
    (folder / "09a.csv").write_bytes(KINDS["a.csv"] + b"id,review,label\n")
    with pytest.raises(DataError, match=r"05a.csv, line 33: another header"):
        planned(folder)
    assert len(two) == 4


def test_rejects_that_are_too_many_are_not_sent() -> None:
    rejects = survey_processes._Rejects()
    rejects.write(b"x" * survey_processes._REJECT_BYTES)
    with pytest.raises(MemoryError):
        rejects.write(b"x")


def files(sizes: list[int]) -> list[FoundFile]:
    identity = Identity(0, 0, 0, 0, 0)
    return [FoundFile(Source(Path("a"), "csv", ""), "a", identity._replace(size=size)) for size in sizes]


@pytest.mark.parametrize(
    ("sizes", "limit", "cores", "count"),
    [
        ([10] * 20_000, None, 2, 2),
        ([10] * 20_000, None, 64, 16),
        ([10] * 20_000, None, 1, 0),
        ([10] * 20_000, 7, 2, 0),
        ([10] * 100, None, 2, 0),
        ([10**9], None, 1, 0),
        ([10**9], 7, 2, 0),
        ([10**9], None, 2, 2),
        ([10**9], None, 64, 16),
        ([10**9, 10], None, 2, 2),
        ([10**8], None, 2, 0),
        ([10**9, 10**9, 10], None, 2, 2),
    ],
)
def test_processes_are_started_where_they_are_worth_it(
    sizes: list[int], limit: int | None, cores: int, count: int
) -> None:
    asked = ScoreSettings(("a",), "fake", Path("run"), limit=limit)
    assert processes_for(files(sizes), asked, cores) == count


def test_only_a_large_file_of_plain_rows_that_would_be_waited_for_is_surveyed_in_pieces() -> None:
    def of(*sizes: int, cores: int = 2, kind: str = "csv", compression: str = "") -> set[int]:
        found = files(list(sizes))
        for file in found:
            file.source = Source(Path("a"), kind, compression)
        return large_files(found, cores)

    assert (of(10, 10**9, 10), of(10**9, 10**9), of(10**9, 10**9, cores=4)) == ({1}, set(), {0, 1})
    assert (of(10**9, kind="jsonl"), of(10**9, kind="parquet"), of(10**9, compression="gzip")) == (
        {0},
        set(),
        set(),
    )
    assert of(10**8) == set()
