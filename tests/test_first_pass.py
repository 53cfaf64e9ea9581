"""A file is hashed while it is read for the first time, and not at all where it has certainly not changed since."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import run_score
from flow import fake_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from test_unchanged import MAKE, csv_bytes, write_secretly

from batchscore.config import ReadSettings, ScoreSettings
from batchscore.errors import DataError, TakenError
from batchscore.formats import inputs
from batchscore.formats.first_pass import MOST_BLOCKS, BlockFile, FirstPass, Hashed, open_passed
from batchscore.formats.inputs import FoundFile, Identity, Noted, find_files, recognise
from batchscore.formats.source import Source
from batchscore.runs import run as runs
from batchscore.runs.folder import UNNAMED
from batchscore.runs.planning import make_plan
from batchscore.system.storage import sha256_of

READ = ReadSettings(part_rows=10)
AN_HOUR = 3600 * 10**9


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 220), st.integers(-1, 90)), max_size=8))
def test_whatever_a_reader_reads_the_hash_is_that_of_all_bytes(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, looks: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("pass") / "file"
    path.write_bytes(content)
    first_pass = FirstPass(path)
    with open_passed(path, first_pass) as file:
        for offset, size in looks:
            file.seek(offset)
            assert file.read(size) == content[offset : None if size < 0 else offset + size]
    assert first_pass.finish().sha256 == hashlib.sha256(content).hexdigest()


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=90), st.lists(st.tuples(st.integers(0, 100), st.integers(-1, 50)), max_size=8))
def test_a_file_that_is_read_by_blocks_reads_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, looks: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "file"
    path.write_bytes(content)
    first_pass = FirstPass(path)
    first_pass.seek_bytes(b"\0\0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchscore.formats.first_pass.BLOCK", 5)
        patch.setattr("batchscore.formats.first_pass.MOST_BLOCKS", 4)
        with contextlib.closing(BlockFile(path, first_pass)) as file:
            for offset, wanted in looks:
                assert file.seek(offset) == offset
                assert file.read(wanted) == content[offset : None if wanted < 0 else offset + wanted]
            assert file.seek(-1 if content else 0, 2) == max(len(content) - 1, 0) == file.tell()
            assert len(file._blocks) <= 4
    assert first_pass.finish().sha256 == hashlib.sha256(content).hexdigest()
    assert first_pass.found == [at for at in range(len(content)) if content.startswith(b"\0\0", at)]


@pytest.mark.parametrize("most", [MOST_BLOCKS, 8])
def test_a_parquet_file_is_read_once_for_its_hash_and_its_plan(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a row group fits into memory, or its longest column alone is read in order."""
    path, texts = tmp_path / "a.parquet", [os.urandom(500).hex() for _ in range(8000)]
    table = pa.table({"id": range(8000), "text": texts, "shop": range(8000)})
    pq.write_table(table, path, compression="none", use_dictionary=False)
    monkeypatch.setattr("batchscore.formats.first_pass.MOST_BLOCKS", most)
    asked = ScoreSettings((str(path),), "fake", tmp_path / "run")
    shares = []
    for _ in range(2):  # the first time modules are read as well
        (file,) = find_files(asked.inputs, None, asked.output)
        before = read_so_far()
        plan = make_plan([file], fake_bundle(), asked, io.BytesIO())
        shares.append((read_so_far() - before) / path.stat().st_size)
        assert plan.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert shares[1] < (1.2 if most > 8 else 1.6)  # footers are read several times


def test_joined_parquet_files_are_refused_in_that_pass(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(2 * MAKE["a.parquet"]("good", 3))
    asked = ScoreSettings((str(path),), "fake", tmp_path / "run")
    found_files = find_files(asked.inputs, None, asked.output)
    with pytest.raises(DataError, match="several Parquet files joined"):
        make_plan(found_files, fake_bundle(), asked, io.BytesIO())


def read_so_far() -> int:
    """Bytes that this process has read."""
    try:
        return int(Path("/proc/self/io").read_text().split()[1])
    except OSError:
        pytest.skip("this system does not count the bytes that are read")


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.compress,
}


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("limit", [None, 5])
def test_a_plan_hashes_a_text_file_without_reading_it_again(
    suffix: str, limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = b"".join(b"%d,%s\n" % (k, os.urandom(600).hex().encode()) for k in range(1000))
    content = PACKED[suffix](b"id,text\n" + rows)
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(content)
    monkeypatch.setattr(inputs, "_CLOCK_TICK_NS", -AN_HOUR)  # as if it had been written long ago
    monkeypatch.setattr(inputs, "sha256_of", lambda _: pytest.fail("it was read only to be hashed"))
    leapt: list[int] = []
    monkeypatch.setattr(FirstPass, "_read_up_to", counted(leapt))
    asked = ScoreSettings((str(path),), "fake", tmp_path / "run", read=READ, limit=limit)
    (file,) = find_files(asked.inputs, None, asked.output)
    plan = make_plan([file], fake_bundle(), asked, io.BytesIO())
    assert plan.files[0].sha256 == hashlib.sha256(content).hexdigest()
    assert limit or sum(leapt) <= len("id,text\n")


def counted(sizes: list[int]) -> Callable[[FirstPass, int | None], None]:
    """The reading of bytes that no reader asked for, which notes how many they are."""
    plain = FirstPass._read_up_to

    def read_up_to(self: FirstPass, end: int | None) -> None:
        before = self.position
        plain(self, end)
        sizes.append(self.position - before)

    return read_up_to


@pytest.mark.parametrize("name", MAKE)
def test_every_format_is_hashed_when_it_is_planned(name: str, tmp_path: Path) -> None:
    content = MAKE[name]("good", 3)
    (tmp_path / name).write_bytes(content)
    asked = ScoreSettings((str(tmp_path / name),), "fake", tmp_path / "run", read=READ)
    (file,) = find_files(asked.inputs, None, asked.output)
    assert file.hashed is None
    plan = make_plan([file], fake_bundle(), asked, io.BytesIO())
    assert plan.files[0].sha256 == hashlib.sha256(content).hexdigest() == file.sha256


# ------------------------------------------------------------------------------------------------- what was noted


def found(identity: Identity, path: Path) -> FoundFile:
    return FoundFile(Source(path, "csv", ""), "a.csv", identity)


@pytest.mark.parametrize("field", Identity._fields)
def test_a_file_is_recognised_only_if_all_that_the_file_system_tells_is_the_same(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = Identity(10, 2, 3, AN_HOUR, AN_HOUR)
    noted = Noted(identity, Hashed("aa", 2 * AN_HOUR))
    monkeypatch.setattr(inputs, "identity_of", lambda _: identity)
    same, other = found(identity, tmp_path), found(identity._replace(**{field: 7}), tmp_path)
    recognise([same, other], [noted])
    assert (same.hashed, other.hashed) == (noted.hashed, None)


def test_a_file_is_recognised_only_if_that_is_the_same_after_it_was_opened_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network share tells what it told last, until a file is opened."""
    identity = Identity(10, 2, 3, AN_HOUR, AN_HOUR)
    monkeypatch.setattr(inputs, "identity_of", lambda _: identity._replace(changed=AN_HOUR + 1))
    file = found(identity, tmp_path)
    recognise([file], [Noted(identity, Hashed("aa", 2 * AN_HOUR))])
    assert file.hashed is None


def test_a_file_that_was_hashed_within_a_tick_of_its_last_change_is_not_recognised(tmp_path: Path) -> None:
    identity = Identity(10, 2, 3, AN_HOUR, AN_HOUR)
    file = found(identity, tmp_path)
    recognise([file], [Noted(identity, Hashed("aa", AN_HOUR + 10**9))])
    assert file.hashed is None


def test_what_is_noted_is_read_back() -> None:
    noted = Noted(Identity(1, 2, 3, 4, 5), Hashed("aa", 6))
    assert Noted.from_json(json.loads(json.dumps(noted.to_json())), "aa") == noted
    for damaged in ([], [1, 2, 3], [1, 2, 3, 4, 5, "6"], [1, 2, 3, 4, 5, 6, 7]):
        with pytest.raises((TypeError, ValueError)):
            Noted.from_json(damaged, "aa")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------ whole runs


def test_a_finished_run_is_told_without_hashing_its_inputs(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, hashed = tmp_path / "a.csv", []
    path.write_bytes(csv_bytes("good", 0))
    monkeypatch.setattr(inputs, "_CLOCK_TICK_NS", 0)
    run_score(path, tiny_model, tmp_path / "run")

    def hashing(path: Path) -> str:
        hashed.append(path)
        return sha256_of(path)

    monkeypatch.setattr(inputs, "sha256_of", hashing)
    assert run_score(path, tiny_model, tmp_path / "run").status == "done"
    assert not hashed
    assert run_score(path, tiny_model, tmp_path / "run", verify_inputs=True).status == "done"
    assert hashed == [path]
    path.chmod(0o640)  # its ctime is another one now
    assert run_score(path, tiny_model, tmp_path / "run").status == "done"
    assert hashed == [path] * 2
    write_secretly(path, csv_bytes("poor", 0))
    with pytest.raises(TakenError, match="other inputs"):
        run_score(path, tiny_model, tmp_path / "run")


def test_a_stopped_run_goes_on_without_hashing_its_inputs_or_planning_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(csv_bytes("good", 0))
    monkeypatch.setattr(inputs, "_CLOCK_TICK_NS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "Finish", lambda *_: pytest.fail("stopped"))
        with pytest.raises(pytest.fail.Exception, match="stopped"):
            run_score(path, tiny_model, tmp_path / "run")
    (staged,) = (tmp_path / "run" / ".staging").glob("*/plan.json")
    assert staged.parent.name != UNNAMED
    monkeypatch.setattr(inputs, "sha256_of", lambda _: pytest.fail("it was hashed"))
    monkeypatch.setattr(runs, "make_plan", lambda *_: pytest.fail("it was planned anew"))
    assert run_score(path, tiny_model, tmp_path / "run").status == "scored"


def test_what_was_read_to_its_end_is_not_opened_again_unless_it_grew(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"some bytes")
    first_pass = FirstPass(path)
    with open_passed(path, first_pass) as file:
        assert file.read(4) == b"some"
        assert file.read() == b" bytes"
        path.unlink()
        assert first_pass.finish().sha256 == hashlib.sha256(b"some bytes").hexdigest()
        assert first_pass.finish().sha256 == hashlib.sha256(b"some bytes").hexdigest()
    path.write_bytes(b"some bytes")
    first_pass = FirstPass(path)
    with open_passed(path, first_pass) as file:
        file.seek(3)
        assert file.read(0) == b""
        assert file.read() == b"e bytes"
        file.seek(100)
        assert file.read() == b""
    assert first_pass.finish().sha256 == hashlib.sha256(b"some bytes").hexdigest()
