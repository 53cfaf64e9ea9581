"""Whole files or none, the journal, the lock, the manifest."""

from __future__ import annotations

import contextlib
import doctest
import errno
import json
import os
import random
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import BusyError, DataError, NotOursError, OutputError, StorageError
from batchscore.system import journal as journals
from batchscore.system import locks, storage
from batchscore.system.journal import Journal, read_checked, write_checked
from batchscore.system.locks import locked, note_holder
from batchscore.system.names import refuse_long_names
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import (
    MANIFEST,
    STAGING,
    atomic_write,
    damaged_files,
    failing,
    files_below,
    manifest,
    names_in_manifest,
    publish,
    read_manifest,
    remove_file,
    remove_tree,
    sha256_of,
    write_bytes,
)

HARD_NAMES = [
    "plain.csv",
    "two words.csv",
    "line\nbreak.csv",
    "carriage\rreturn.csv",
    "back\\slash.csv",
    "both\\n\n\\\\n.csv",
    " leading and trailing ",
    "…unicode ελληνικά 評論.csv",
    "bytes that are no text \udcff\udc80.csv",
    "x" * 255,
    "é" * 127,
    "folder/below/file",
    "..hidden",
    "*?[glob]",
]


def put(folder: Path, name: str, content: bytes = b"some bytes") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def seal(folder: Path) -> dict[str, str]:
    """Write the manifest of what is there."""
    hashes = {name: sha256_of(folder / name) for name in files_below(folder)}
    (folder / MANIFEST).write_bytes(manifest(hashes))
    return hashes


def test_the_examples_in_the_docstrings_hold() -> None:
    for module in (journals, storage):
        assert doctest.testmod(module).failed == 0
    assert doctest.testmod(journals).attempted > 0


# --- whole files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in HARD_NAMES if "/" not in name])
def test_a_file_appears_whole_under_any_name_the_disk_takes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with atomic_write(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == [name]


def write_half(path: Path, error: BaseException) -> None:
    with atomic_write(path) as file:
        file.write(b"half of it")
        raise error


class Killed(BaseException):
    """Nobody catches it."""


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.ENOSPC, "full"), Killed()])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = put(tmp_path, "file", b"old")
    expected = StorageError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        write_half(path, error)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_late_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = put(tmp_path, "file", b"old")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(StorageError, match="Input/output error") as caught:
        write_bytes(path, b"new")
    assert caught.value.exit_code == 74
    assert path.read_bytes() == b"old"


def test_what_a_kill_left_under_the_temporary_name_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    monkeypatch.setattr(os, "replace", lambda *_, **__: os._exit(9))
    if (child := os.fork()) == 0:
        write_bytes(path, b"x" * 1000)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    monkeypatch.undo()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".")
    write_bytes(path, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_link_under_the_temporary_name_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = put(tmp_path, "victim", b"mine")
    names: list[str] = []
    with atomic_write(tmp_path / "run"):
        names += [each.name for each in tmp_path.iterdir() if each.name.startswith(".")]
    (tmp_path / names[0]).symlink_to(victim)
    write_bytes(tmp_path / "run", b"new")
    assert victim.read_bytes() == b"mine"


def test_outputs_have_the_rights_that_the_user_gives_and_no_more(tmp_path: Path) -> None:
    for mask, expected in ((0o077, 0o600), (0o022, 0o644), (0o027, 0o640)):
        before = os.umask(mask)
        try:
            write_bytes(tmp_path / "file", b"")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == expected


def test_every_byte_and_the_name_are_synced_before_anybody_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_replace(*names: Any, **folders: Any) -> None:
        events.append("rename")
        replace(*names, **folders)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_bytes(tmp_path / "file", b"x")
    assert events == ["file", "rename", "folder"]
    events.clear()
    publish(put(tmp_path, "staged"), tmp_path / "final")
    assert events == ["file", "rename", "folder"]


def test_publish_makes_the_folders_it_needs_and_says_what_it_cannot_do(tmp_path: Path) -> None:
    publish(put(tmp_path, "staged", b"1"), tmp_path / "a" / "b" / "final")
    assert (tmp_path / "a" / "b" / "final").read_bytes() == b"1"
    with pytest.raises(StorageError, match=r"Putting in place .*gone failed: No such file"):
        publish(tmp_path / "missing", tmp_path / "gone")


def test_a_fault_of_the_disk_anywhere_in_a_run_is_74_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"secret.*Permission denied") as caught, failing(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "secret"))
    assert caught.value.exit_code == 74
    with pytest.raises(BrokenPipeError), failing(tmp_path):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "rubbish", "longer"])
def test_a_checked_value_is_read_as_it_was_written_or_not_at_all(tmp_path: Path, damage: str) -> None:
    path, value = tmp_path / "value.json", {"rows": [1, 2, 3], "name": "\udcff\nreview"}
    assert read_checked(path) is None
    write_checked(path, value)
    assert read_checked(path) == value
    content = path.read_bytes()
    damaged = {
        "flip": bytes([content[0] ^ 1]) + content[1:],
        "cut": content[:-1],
        "empty": b"",
        "rubbish": bytes(range(256)),
        "longer": content + b" ",
    }
    path.write_bytes(damaged[damage])
    assert read_checked(path) is None


@given(st.integers(0, 7), st.floats(0, 1, exclude_max=True))
def test_no_flipped_bit_of_a_checked_value_goes_unseen(bit: int, where: float) -> None:
    line = bytearray(
        journals.checked_line({"parts": [[0, 0, 12, 3456, 78, 999]], "sha256": "0123456789abcdef"})
    )
    line[int(where * len(line))] ^= 1 << bit
    assert bytes(line) != journals._journal_line(bytes(line[9:-1]))


def test_a_name_too_long_for_the_disk_is_refused_while_it_costs_nothing(tmp_path: Path) -> None:
    refuse_long_names(tmp_path, ["predictions/" + "x" * 255, "é" * 127, "a/b"])
    for name in ("predictions/" + "x" * 256, "é" * 128, "a/" * 2100):
        with pytest.raises(OutputError, match="too long") as caught:
            refuse_long_names(tmp_path, [name])
        assert caught.value.exit_code == 73


# --- the journal ------------------------------------------------------------------------------------------------------

ENTRIES: list[dict[str, Any]] = [
    {"compute": {"device": "cpu"}},
    {"part": 0, "sha256": "ab"},
    {"part": 1, "sha256": "cd"},
]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal.jsonl"
    with contextlib.closing(Journal(path)) as journal:
        for entry in ENTRIES:
            journal.append(entry)
    return path


def entries_of(path: Path) -> list[dict[str, Any]]:
    with contextlib.closing(Journal(path)) as journal:
        return list(journal.entries)


def test_a_journal_gives_back_its_entries_and_goes_on(journal: Path) -> None:
    assert entries_of(journal) == ENTRIES
    with contextlib.closing(Journal(journal)) as again:
        again.append({"part": 2})
        assert again.entries[-1] == {"part": 2}
    assert entries_of(journal) == [*ENTRIES, {"part": 2}]


def test_a_torn_last_line_is_cut_off_wherever_it_was_torn(journal: Path) -> None:
    content = journal.read_bytes()
    whole = content.rindex(b"\n", 0, -1) + 1
    for cut in range(whole, len(content)):
        journal.write_bytes(content[:cut])
        with contextlib.closing(Journal(journal)) as torn:
            assert torn.entries == ENTRIES[:-1]
            torn.append({"part": 7})
        assert entries_of(journal) == [*ENTRIES[:-1], {"part": 7}]


def test_a_flipped_bit_ends_the_journal_before_its_line(journal: Path) -> None:
    content = journal.read_bytes()
    starts = [0, *(place + 1 for place, byte in enumerate(content) if byte == 0x0A)]
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        journal.write_bytes(damaged)
        line = max(number for number, start in enumerate(starts) if start <= place)
        assert entries_of(journal) == ENTRIES[:line]


def test_rubbish_is_an_empty_journal(tmp_path: Path) -> None:
    path = put(tmp_path, "journal.jsonl", random.Random(0).randbytes(5000))
    assert entries_of(path) == []
    assert path.read_bytes() == b""


def test_an_entry_that_cannot_be_written_is_74_and_no_entry(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Journal(journal)

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StorageError, match="No space left") as caught:
            full.append({"part": 2})
    assert caught.value.exit_code == 74
    assert full.entries == ENTRIES
    full.close()
    assert entries_of(journal)[:3] == ENTRIES  # the line itself may have come through, whole


def test_a_journal_that_cannot_be_opened_is_74(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").mkdir()
    with pytest.raises(StorageError, match="Opening"):
        Journal(tmp_path / "journal.jsonl")


# --- the lock ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def held(folder: Path, *, noted: bool = True) -> Iterator[int]:
    """Another process holds the lock; gives its number."""
    ready, tell = os.pipe()
    if (child := os.fork()) == 0:
        with contextlib.suppress(BaseException), locked(folder):
            if noted:
                (folder / STAGING).mkdir()
                note_holder(folder)
            os.write(tell, b"x")
            time.sleep(60)
        os._exit(1)
    os.close(tell)
    try:
        assert os.read(ready, 1) == b"x"
        yield child
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def take(folder: Path) -> None:
    with locked(folder):
        pass


def test_the_second_is_turned_away_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    with held(tmp_path / "run") as holder:
        with pytest.raises(BusyError, match=rf"process {holder}\b") as caught:
            take(tmp_path / "run")
        assert caught.value.exit_code == 75
    take(tmp_path / "run")  # killed, it left no lock behind


def test_where_the_system_does_not_tell_the_note_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_text = Path.read_text

    def hide(path: Path, *args: Any, **kwargs: Any) -> str:
        if str(path) == "/proc/locks":
            raise FileNotFoundError(errno.ENOENT, "no such file", "/proc/locks")
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", hide)
    with held(tmp_path / "run") as holder, pytest.raises(BusyError, match=f"process {holder} on "):
        take(tmp_path / "run")
    with held(tmp_path / "other", noted=False), pytest.raises(BusyError, match="not told its number"):
        take(tmp_path / "other")
    put(tmp_path / "other" / STAGING, locks.HOLDER, b"{rubbish")
    with held(tmp_path / "other", noted=False), pytest.raises(BusyError, match="not told its number"):
        take(tmp_path / "other")


def test_a_folder_that_was_made_and_left_empty_goes_again(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    take(tmp_path / "mine" / "a" / "b")
    assert list((tmp_path / "mine").iterdir()) == []
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "mine" / "a" / "b"):
        raise ZeroDivisionError
    assert list((tmp_path / "mine").iterdir()) == []
    take(tmp_path / "mine")
    assert (tmp_path / "mine").exists()
    with locked(tmp_path / "mine" / "a" / "b"):
        put(tmp_path / "mine" / "a" / "b", "file")
    assert (tmp_path / "mine" / "a" / "b" / "file").exists()


def test_the_lock_leaves_no_file_and_can_be_taken_again_at_once(tmp_path: Path) -> None:
    for _ in range(3):
        with locked(tmp_path):
            assert list(tmp_path.iterdir()) == []
            with pytest.raises(BusyError, match=rf"process {os.getpid()}\b"):
                take(tmp_path)


def test_a_folder_that_cannot_be_made_is_73(tmp_path: Path) -> None:
    put(tmp_path, "file")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 256)):
        with pytest.raises(OutputError) as caught:
            take(folder)
        assert caught.value.exit_code == 73


# --- the manifest -----------------------------------------------------------------------------------------------------


def test_a_manifest_says_every_name_as_it_is(tmp_path: Path) -> None:
    for name in HARD_NAMES:
        put(tmp_path, name, os.fsencode(name))
    hashes = seal(tmp_path)
    assert set(hashes) == set(HARD_NAMES)
    assert read_manifest(tmp_path) == hashes
    assert names_in_manifest(tmp_path) == set(HARD_NAMES)
    assert damaged_files(tmp_path, hashes) == []


@given(
    st.lists(
        st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1), max_size=8
    )
)
def test_escaping_a_name_loses_nothing(names: list[str]) -> None:
    lines = manifest(dict.fromkeys(names, "0" * 64)).decode("utf-8", "surrogateescape").split("\n")[:-1]
    assert len(lines) == len(set(names))
    found = {entry[0] for line in lines if (entry := storage._manifest_entry(line))}
    safe = {name for name in names if not name.startswith("/") and ".." not in name.split("/")}
    assert found == safe


def test_sha256sum_reads_the_manifest(tmp_path: Path) -> None:
    for name in HARD_NAMES:
        if "\r" not in name:  # older ones do not know the escape
            put(tmp_path, name, os.fsencode(name))
    seal(tmp_path)
    result = subprocess.run(
        ["sha256sum", "-c", "--quiet", MANIFEST], cwd=tmp_path, capture_output=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "a/../../outside", ".."])
def test_a_manifest_cannot_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / MANIFEST).write_bytes(manifest({name: "0" * 64, "fine": "0" * 64}))
    assert names_in_manifest(tmp_path) == {"fine"}
    with pytest.raises(DataError, match="damaged"):
        read_manifest(tmp_path)


def test_every_kind_of_difference_is_told_with_its_file(tmp_path: Path) -> None:
    for name in ("same", "longer", "shorter", "flipped", "gone", "linked", "folder/below"):
        put(tmp_path, name, b"0123456789")
    hashes = seal(tmp_path)
    put(tmp_path, "longer", b"0123456789\n")
    put(tmp_path, "shorter", b"012345678")
    put(tmp_path, "flipped", b"0123456788")
    (tmp_path / "gone").unlink()
    (tmp_path / "linked").unlink()
    (tmp_path / "linked").symlink_to("same")
    put(tmp_path, "foreign\n", b"")
    (tmp_path / "linked folder").symlink_to("/")
    found = dict(problem.split(": ", 1) for problem in damaged_files(tmp_path, hashes))
    bytes_differ = "its bytes are not those that were written"
    assert found == {
        "longer": bytes_differ,
        "shorter": bytes_differ,
        "flipped": bytes_differ,
        "gone": "missing",
        "linked": "not a regular file",
        "foreign\\n": "not in the manifest",
        "linked folder": "not in the manifest",
    }


def test_no_cut_and_no_flipped_bit_of_the_manifest_itself_goes_unseen(tmp_path: Path) -> None:
    for name in ("a.csv", "line\nbreak", "folder/below"):
        put(tmp_path, name)
    seal(tmp_path)
    content = (tmp_path / MANIFEST).read_bytes()
    flips = [
        (at, content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        for at in range(len(content))
    ]
    for place, damaged in [*flips, *((cut, content[:cut]) for cut in range(len(content)))]:
        (tmp_path / MANIFEST).write_bytes(damaged)
        try:
            problems = damaged_files(tmp_path, read_manifest(tmp_path))
        except DataError:
            continue
        assert problems, place


# --- removing ---------------------------------------------------------------------------------------------------------


def test_a_stale_file_goes_with_the_folders_that_are_then_empty(tmp_path: Path) -> None:
    put(tmp_path, "run/predictions/a/b/stale")
    put(tmp_path, "run/predictions/kept")
    remove_file(tmp_path / "run", "predictions/a/b/stale")
    assert files_below(tmp_path / "run") == ["predictions/kept"]
    assert not (tmp_path / "run" / "predictions" / "a").exists()
    remove_file(tmp_path / "run", "predictions/kept")
    remove_file(tmp_path / "run", "predictions/never was/there")
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


def test_nothing_outside_of_the_folder_is_removed(tmp_path: Path) -> None:
    outside = put(tmp_path, "outside/file")
    run = tmp_path / "run"
    run.mkdir()
    (run / "linked").symlink_to(tmp_path / "outside")
    (run / "link").symlink_to(outside)
    remove_file(run, "../outside/file")
    remove_file(run, "linked/file")
    remove_file(run, str(outside))
    remove_file(run, "link")
    assert outside.exists()
    assert not (run / "link").is_symlink()
    (run / "tree").symlink_to(tmp_path / "outside")
    remove_tree(run / "tree")
    assert outside.exists()
    assert not (run / "tree").is_symlink()


def test_a_folder_where_a_stale_file_stood_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path, "name/file")
    remove_file(tmp_path, "name")
    assert (tmp_path / "name" / "file").exists()


def test_the_staging_folder_belongs_to_no_run(tmp_path: Path) -> None:
    put(tmp_path, f"{STAGING}/part")
    put(tmp_path, f"predictions/{STAGING}/file")
    put(tmp_path, MANIFEST)
    assert files_below(tmp_path) == [f"predictions/{STAGING}/file"]


def test_json_is_strict() -> None:
    assert json.loads(storage.to_json({"a": "\udcff"})) == {"a": "\udcff"}
    with pytest.raises(ValueError, match="JSON"):
        storage.to_json(float("nan"))


def test_below_a_folder_that_is_held_no_link_is_followed_either(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    folder = OwnPath(tmp_path) / "a"
    with folder.held():
        with (folder / "b/c").open_new() as file:
            file.write(b"ours")
        (tmp_path / "a/d").symlink_to(tmp_path / "out")
        with pytest.raises(NotOursError, match="a/d"):
            (folder / "d/e").open_new()
        assert (folder / "b/c").read_bytes() == b"ours"
        assert folder.names() == ["b", "d"]
        (tmp_path / "a").rename(tmp_path / "gone")
        (tmp_path / "a").mkdir()
        assert (folder / "b").names() == ["c"]  # the folder that is held, whatever has its name
    assert folder.names() == []
    assert list((tmp_path / "out").iterdir()) == []
