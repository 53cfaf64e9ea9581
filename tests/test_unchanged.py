"""What was scored is what the SHA-256 in run.json says, whoever writes to the file meanwhile and hides it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import run_score
from flow import fake_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_values import COLUMNS

from batchscore.config import ReadSettings, ScoreSettings
from batchscore.errors import DataError, OutputError
from batchscore.formats import inputs
from batchscore.formats.digests import digest_of
from batchscore.formats.first_pass import Hashed
from batchscore.formats.inputs import FoundFile, find_files
from batchscore.records import Position, Reject, Rows
from batchscore.runs import run as runs
from batchscore.runs.planning import Plan, make_plan, read_parts
from batchscore.system.storage import MANIFEST, sha256_of

LINES = 40
READ = ReadSettings(part_rows=10)
CHANGED = "changed while it was being read"


def csv_bytes(word: str, at: int) -> bytes:
    return b"id,text\n" + b"".join(
        b"%03d,a %b film\n" % (k, (word if k == at else "good").encode()) for k in range(LINES)
    )


def jsonl_bytes(word: str, at: int) -> bytes:
    rows = ({"id": k, "text": f"a {word if k == at else 'good'} film"} for k in range(LINES))
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet_bytes(word: str, at: int) -> bytes:
    out = io.BytesIO()
    texts = [f"a {word if k == at else 'good'} film" for k in range(LINES)]
    pq.write_table(
        pa.table({"id": range(LINES), "text": texts}),
        out,
        compression="none",
        use_dictionary=False,
        row_group_size=15,
        write_statistics=False,
    )
    return out.getvalue()


MAKE: dict[str, Callable[[str, int], bytes]] = {
    "a.csv": csv_bytes,
    "a.jsonl": jsonl_bytes,
    "a.parquet": parquet_bytes,
    "a.csv.gz": lambda word, at: gzip.compress(csv_bytes(word, at), mtime=0),
    "a.jsonl.bz2": lambda word, at: bz2.compress(jsonl_bytes(word, at)),
    "a.csv.zst": lambda word, at: zstandard.compress(csv_bytes(word, at)),
}


def write_secretly(path: Path, content: bytes) -> None:
    """Write in place, and set the time of change to what it was."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def found_at(path: Path, *, is_old: bool = True) -> tuple[FoundFile, ScoreSettings]:
    """A file as it was found; an old one was written long before it was hashed."""
    settings = ScoreSettings((str(path),), "fake", path.parent / "run", read=READ)
    (file,) = find_files(settings.inputs, None, settings.output)
    if is_old:
        file.hashed = Hashed(file.sha256, file.noted.hashed.begun + 10**11)
    return file, settings


def planned(file: FoundFile, settings: ScoreSettings) -> Plan:
    plan = make_plan([file], fake_bundle(), settings, io.BytesIO())
    return Plan.from_json(json.loads(json.dumps(plan.to_json())))


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("at", [0, 17, LINES - 1])
def test_a_file_that_changed_between_plan_and_scoring_is_noticed_by_its_rows(
    name: str, at: int, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(MAKE[name]("good", 0))
    plan = planned(*found_at(path))
    write_secretly(path, MAKE[name]("poor", at))
    taken = []
    with pytest.raises(DataError, match=CHANGED):
        taken += [part.number for part, _ in read_parts(plan, plan.parts, READ)]
    for part in plan.parts[1::2]:  # as a resumed run reads them
        is_hit = part.start.row <= at < part.start.row + part.rows
        if is_hit:
            with pytest.raises(DataError, match=CHANGED):
                list(read_parts(plan, [part], READ))
        elif not name.endswith((".gz", ".bz2", ".zst")):
            assert len(list(read_parts(plan, [part], READ))) == 1


@pytest.mark.parametrize("name", MAKE)
def test_a_file_that_did_not_change_gives_the_rows_that_were_planned(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(MAKE[name]("poor", 3))
    for limit in (None, 7, 25):
        file, settings = found_at(tmp_path / name)
        settings = ScoreSettings(settings.inputs, "fake", settings.output, read=READ, limit=limit)
        plan = planned(file, settings)
        assert plan.rows == (limit or LINES)
        for wanted in (plan.parts, plan.parts[1:], plan.parts[::2]):
            assert len(list(read_parts(plan, wanted, READ))) == len(wanted)


@pytest.mark.parametrize("name", MAKE)
def test_a_file_that_changed_between_hash_and_plan_is_noticed(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(MAKE[name]("good", 0))
    file, settings = found_at(tmp_path / name)
    write_secretly(tmp_path / name, MAKE[name]("poor", 0))
    with pytest.raises(DataError, match=CHANGED):
        planned(file, settings)


def test_a_change_within_a_tick_of_the_clock_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system whose clock stands still between two writes, all that it says is the same."""
    path = tmp_path / "a.csv"
    path.write_bytes(csv_bytes("good", 0))
    file, settings = found_at(path, is_old=False)
    monkeypatch.setattr(inputs, "identity_of", lambda _: file.identity)
    planned(file, settings)
    write_secretly(path, csv_bytes("poor", 0))
    with pytest.raises(DataError, match=CHANGED):
        planned(file, settings)


def test_a_file_that_changed_after_it_was_hashed_is_noticed_although_its_time_was_set_back(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(csv_bytes("good", 0))
    file, _ = found_at(path)
    write_secretly(path, csv_bytes("poor", 0))
    with pytest.raises(DataError, match=CHANGED):
        file.assert_unchanged()


def test_a_change_within_a_tick_of_the_clock_is_noticed_later_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(csv_bytes("good", 0))
    file, settings = found_at(path, is_old=False)
    monkeypatch.setattr(inputs, "identity_of", lambda _: file.identity)
    planned(file, settings)
    write_secretly(path, csv_bytes("poor", 0))
    with pytest.raises(DataError, match=CHANGED):
        file.assert_unchanged()


def test_an_old_file_is_not_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_bytes(csv_bytes("good", 0))
    file, _ = found_at(tmp_path / "a.csv")
    monkeypatch.setattr(inputs, "sha256_of", lambda _: pytest.fail("it was"))
    file.assert_unchanged()


@pytest.mark.parametrize("touch", ["permissions", "link", "name"])
def test_a_change_that_is_none_of_the_content_is_no_error(touch: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(csv_bytes("good", 0))
    file, settings = found_at(path)
    before = path.stat().st_ctime_ns
    if touch == "permissions":
        path.chmod(0o640)
    elif touch == "link":
        (tmp_path / "b.csv").hardlink_to(path)
    else:
        path.rename(tmp_path / "b.csv").rename(path)
    assert path.stat().st_ctime_ns != before
    planned(file, settings)


def test_a_file_put_in_the_place_of_another_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(csv_bytes("good", 0))
    file, settings = found_at(tmp_path / "a.csv")
    before = (tmp_path / "a.csv").stat()
    (tmp_path / "b.csv").write_bytes(csv_bytes("poor", 0))
    os.utime(tmp_path / "b.csv", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / "b.csv").replace(tmp_path / "a.csv")
    with pytest.raises(DataError, match=CHANGED):
        planned(file, settings)


# ------------------------------------------------------------------------------------------------------- whole runs


def test_a_run_whose_input_changes_under_it_ends_and_goes_on_with_the_right_bytes(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, options = tmp_path / "a.csv", {"read": READ}
    path.write_bytes(csv_bytes("good", 0))
    run_score(path, tiny_model, tmp_path / "undisturbed", **options)

    def plan_and_change(*arguments: Any) -> Plan:
        made = make_plan(*arguments)
        write_secretly(path, csv_bytes("poor", 35))
        return made

    with monkeypatch.context() as patch:
        patch.setattr(runs, "make_plan", plan_and_change)
        with pytest.raises(DataError, match=CHANGED):
            run_score(path, tiny_model, tmp_path / "run", **options)
    assert not (tmp_path / "run" / MANIFEST).exists()
    with pytest.raises(OutputError, match="unfinished run of other inputs"):
        run_score(path, tiny_model, tmp_path / "run", **options)
    write_secretly(path, csv_bytes("good", 0))
    run_score(path, tiny_model, tmp_path / "run", **options)
    one, other = ((tmp_path / run / "predictions" / "a.csv").read_bytes() for run in ("undisturbed", "run"))
    assert one == other
    facts = json.loads((tmp_path / "run" / "run.json").read_bytes())
    assert facts["files"][0]["sha256"] == sha256_of(path)


# ----------------------------------------------------------------------------------------------------------- digests


def rows_of(table: pa.RecordBatch) -> Rows:
    return Rows(Position(), list(range(table.num_rows)), [], None, [], table=table)


def batch_of(columns: dict[str, pa.Array]) -> pa.RecordBatch:
    return pa.record_batch(list(columns.values()), list(columns))


def test_a_digest_does_not_depend_on_where_in_memory_values_lie() -> None:
    """Slices, copies, other dictionaries of the same values, and garbage under nulls."""
    batch = batch_of(COLUMNS)
    twice = pa.concat_batches([batch, batch])
    assert digest_of(rows_of(twice.slice(3))) == digest_of(rows_of(batch))
    assert digest_of(rows_of(twice.slice(3, 2))) == digest_of(rows_of(batch.slice(0, 2)))
    one = pa.array([7, 8], pa.int64()), pa.array([7, 9], pa.int64())
    masked = [pa.Array.from_buffers(pa.int64(), 2, [pa.py_buffer(b"\1"), each.buffers()[1]]) for each in one]
    assert digest_of(rows_of(batch_of({"x": masked[0]}))) == digest_of(rows_of(batch_of({"x": masked[1]})))
    indices = pa.array([1, 0, None]), pa.array([0, 1, None])
    words = pa.array(["b", "a", "unused"]), pa.array(["a", "b"])
    dictionaries = [pa.DictionaryArray.from_arrays(*pair) for pair in zip(indices, words, strict=True)]
    assert len({digest_of(rows_of(batch_of({"x": each}))) for each in dictionaries}) == 1


@pytest.mark.parametrize("name", COLUMNS)
def test_every_value_of_every_type_counts(name: str) -> None:
    column = COLUMNS[name]
    orders = [[0, 1, 2], [1, 0, 2], [0, 0, 2], [0, 1, 0], [2, 1, 0]]
    moved = [pa.concat_arrays([column.slice(at, 1) for at in order]) for order in orders]
    digests = [digest_of(rows_of(batch_of({"x": each}))) for each in moved]
    for one, digest in zip(moved, digests, strict=True):
        for other, its_digest in zip(moved, digests, strict=True):
            assert (digest == its_digest) == one.equals(other)


LISTS = st.lists(st.none() | st.lists(st.none() | st.text(max_size=3), max_size=3), max_size=5)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(LISTS, LISTS)
def test_two_digests_are_equal_where_the_values_are(one: list[Any], other: list[Any]) -> None:
    kind = pa.list_(pa.string())
    digests = [digest_of(rows_of(batch_of({"x": pa.array(values, kind)}))) for values in (one, other)]
    assert (digests[0] == digests[1]) == (one == other)


def test_the_places_of_rows_records_and_rejects_count() -> None:
    reject = Reject(1, 2, 7, "too few fields", "text", b"x\n")
    base = {
        "start": Position(),
        "row": [0, 2],
        "texts": [],
        "labels": None,
        "rejects": [reject],
        "raw": [b"ab", b"c"],
    }
    variants: list[dict[str, Any]] = [
        {},
        {"row": [0, 1]},
        {"raw": [b"a", b"bc"]},
        {"rejects": []},
        {"rejects": [Reject(1, 2, 7, "too few fields", "text", b"y\n")]},
        {"rejects": [Reject(1, 2, 8, "too few fields", "text", b"x\n")]},
    ]
    assert len({digest_of(Rows(**{**base, **variant})) for variant in variants}) == len(variants)


def test_a_digest_of_real_columns_is_quick(tmp_path: Path) -> None:
    """Some hundred megabytes a second at the least, so that reading is not noticed to be slower."""
    import time

    texts = ["x" * 1300] * 20_000
    rows = rows_of(batch_of({"text": pa.array(texts), "id": pa.array(np.arange(20_000))}))
    started = time.process_time()
    digest_of(rows)
    assert rows.table is not None
    assert rows.table.nbytes / (time.process_time() - started) > 50e6
