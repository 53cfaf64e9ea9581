"""Paths of our own: what lies behind a link, a pipe or another name of a file is neither written nor removed nor read."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from batchscore.errors import NotOursError, OutputError, storage_error
from batchscore.system import cache
from batchscore.system.journal import Journal, read_checked
from batchscore.system.locks import locked
from batchscore.system.own_paths import OwnPath, own
from batchscore.system.storage import (
    atomic_write,
    make_folder,
    publish,
    remove_file,
    remove_tree,
    sha256_of,
    sync_tree,
    write_bytes,
)

OURS = b"ours"
THEIRS = b"theirs"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder with a file of somebody else's."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "file").write_bytes(THEIRS)
    return folder


@pytest.fixture
def ours(tmp_path: Path, theirs: Path) -> OwnPath:
    """A folder of ours, which the user named by a link, with a link to theirs in it."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ours").symlink_to("elsewhere")
    (tmp_path / "elsewhere/link").symlink_to(theirs)
    (tmp_path / "elsewhere/file").write_bytes(OURS)
    return OwnPath(tmp_path / "ours")


def _rename_there(path: OwnPath) -> None:
    (OwnPath(path.root) / "file").replace(path)


STEPS: dict[str, Callable[[OwnPath], object]] = {
    "read": lambda path: path.read_bytes(),
    "hash": sha256_of,
    "map": lambda path: path.readable().__enter__(),
    "make": lambda path: path.with_name("new").open_new(),
    "make anew": lambda path: path.open_fresh(),
    "append": lambda path: path.open_append(),
    "journal": Journal,
    "checked": read_checked,
    "write": lambda path: write_bytes(path, OURS),
    "publish": lambda path: publish(OwnPath(path.root) / "file", path),
    "rename there": _rename_there,
    "rename away": lambda path: path.replace(OwnPath(path.root) / "new"),
    "remove": lambda path: path.unlink(),
    "remove a folder": lambda path: (path.parent / "folder").rmdir(),
    "remove a tree": lambda path: path.remove_tree(),
    "make a folder": lambda path: make_folder(path.parent / "new"),
    "lock": lambda path: locked(path.parent).__enter__(),
    "list": lambda path: path.parent.names(),
    "walk": lambda path: list(path.parent.walk()),
    "sync": lambda path: sync_tree(path.parent),
    "look": lambda path: path.stat(),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_no_step_goes_through_a_link_to_a_folder(
    ours: OwnPath, theirs: Path, step: Callable[[OwnPath], object]
) -> None:
    (theirs / "folder").mkdir()
    with pytest.raises((NotOursError, OutputError), match="link"):
        step(ours / "link/file")
    assert {path.name for path in theirs.iterdir()} == {"file", "folder"}
    assert (theirs / "file").read_bytes() == THEIRS
    assert (ours / "file").read_bytes() == OURS


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "socket", "hard link"])
def test_no_file_is_opened_through_anything_else_and_nothing_is_waited_for(
    ours: OwnPath, theirs: Path, kind: str
) -> None:
    path = (ours / "name").path
    with contextlib.ExitStack() as stack:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(os.path.relpath(path))
        elif kind == "hard link":
            path.hardlink_to(theirs / "file")
        else:
            path.symlink_to(theirs / ("file" if kind == "link" else "none"))
        what = kind.replace("dangling", "link")
        for step in [OwnPath.open_append] + [OwnPath.read_bytes, sha256_of, read_checked] * (
            kind != "hard link"
        ):
            with pytest.raises(NotOursError, match=f"it is a {what}"):
                step(ours / "name")
        with atomic_write(ours / "name") as out:  # puts another file in its place
            out.write(OURS)
    assert (ours / "name").read_bytes() == OURS
    assert [file.name for file in theirs.iterdir()] == ["file"]
    assert (theirs / "file").read_bytes() == THEIRS


def test_what_is_below_a_link_is_not_there_and_nothing_of_it_is_removed(ours: OwnPath, theirs: Path) -> None:
    assert not (ours / "link/file").exists()
    assert (ours / "link").exists()
    assert not (ours / "link").is_folder()
    remove_file(ours, "link/file")
    remove_tree(ours / "link")
    assert not (ours / "link").exists()
    assert (theirs / "file").read_bytes() == THEIRS


def test_a_tree_is_removed_without_what_its_links_lead_to(ours: OwnPath, theirs: Path) -> None:
    make_folder(ours / "tree/below")
    (ours / "tree/below/link").path.symlink_to(theirs)
    remove_tree(ours / "tree")
    assert not (ours / "tree").exists()
    assert (theirs / "file").read_bytes() == THEIRS


def test_a_journal_that_has_another_name_goes_on_as_one_of_its_own(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal")
    first.append({"part": 0})
    first.close()
    (tmp_path / "another").hardlink_to(tmp_path / "journal")
    before = (tmp_path / "another").read_bytes()
    again = Journal(tmp_path / "journal")
    again.append({"part": 1})
    again.close()
    assert (tmp_path / "another").read_bytes() == before
    assert [entry["part"] for entry in Journal(tmp_path / "journal").entries] == [0, 1]


def test_a_file_is_read_by_the_path_of_its_open_file_whatever_takes_its_place(
    ours: OwnPath, theirs: Path
) -> None:
    with (ours / "file").readable() as path:
        (ours / "file").unlink()
        (ours / "file").path.symlink_to(theirs / "file")
        assert path.read_bytes() == OURS


def test_a_name_that_leads_out_is_a_fault(ours: OwnPath) -> None:
    for name in ("../file", "/etc", "a/../../b"):
        with pytest.raises(ValueError, match="leads out"):
            _ = ours / name
    with pytest.raises(ValueError, match="begin"):
        _ = ours.parent


def test_the_message_names_the_place_and_what_helps(ours: OwnPath) -> None:
    with pytest.raises(NotOursError) as caught:
        (ours / "link/file").read_bytes()
    error = storage_error("Reading", "it", caught.value)
    assert (type(error), error.exit_code) == (OutputError, 73)
    assert str(error).startswith(f"{ours.path}/link: it is a link, where a file or folder")
    assert "remove it" in str(error)


def test_a_path_of_the_user_s_may_lead_through_links(ours: OwnPath, theirs: Path) -> None:
    write_bytes(ours.root / "link/new", OURS)
    assert (theirs / "new").read_bytes() == OURS
    assert own(Path("name")) == OwnPath(Path(), ("name",))


def test_nothing_is_kept_or_recalled_through_a_link_in_the_cache(
    tmp_path: Path, theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHSCORE_CACHE", str(tmp_path / "cache"))
    cache.keep("kind", "key", 1)
    assert cache.recall("kind", "key") == 1
    (tmp_path / "cache/kind").rename(theirs / "kind")
    (tmp_path / "cache/kind").symlink_to(theirs / "kind")
    cache.keep("kind", "other", 2)
    assert cache.recall("kind", "key") is None
    assert [path.name for path in (theirs / "kind").iterdir()] == ["key.json"]
