"""INPUT arguments in, files out: folders, globs, links, odd names; each file once and named safely."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from batchscore.errors import DataError, NoInputError, printable
from batchscore.formats.inputs import find_files, output_names


def names(*inputs: object, output: Path = Path("/nowhere")) -> list[str]:
    return [file.name for file in find_files([str(each) for each in inputs], None, output)]


def fill(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"text\na\n")
    return folder


def test_a_folder_gives_its_data_files_sorted_and_no_markers(tmp_path: Path) -> None:
    fill(tmp_path, "b.CSV", "a.tsv", "sub/c.csv", "_SUCCESS.csv", ".hidden.csv", "_logs/d.csv", ".git/e.csv")
    fill(tmp_path, "readme.txt", "f")
    assert names(tmp_path) == ["a.tsv", "b.CSV", "sub/c.csv"]


def test_order_is_as_given_and_each_file_comes_once(tmp_path: Path) -> None:
    fill(tmp_path, "a.csv", "b.csv", "c.csv")
    (tmp_path / "link.csv").symlink_to(tmp_path / "b.csv")
    dotted = tmp_path / "sub" / ".." / "a.csv"
    (tmp_path / "sub").mkdir()
    assert names(tmp_path / "b.csv", tmp_path, tmp_path / "b.csv", dotted) == ["b.csv", "a.csv", "c.csv"]


def test_a_file_is_found_once_however_its_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.csv").write_text("text\na\n")
    (tmp_path / "way").symlink_to("real")
    (tmp_path / "real" / "again.csv").symlink_to("a.csv")
    monkeypatch.chdir(tmp_path / "real")
    given = ["a.csv", "../way/a.csv", "../real/../way/a.csv", str(tmp_path / "way"), "."]
    (found,) = find_files(given, None, tmp_path / "run")
    assert found.source.path == Path("a.csv")
    with pytest.raises(NoInputError, match="lies in the run folder"):
        find_files(["../way/a.csv"], None, tmp_path / "real")


def test_equal_names_in_two_folders_keep_their_path_below_the_common_one(tmp_path: Path) -> None:
    fill(tmp_path, "x/one/a.csv", "x/two/a.csv")
    found = names(tmp_path / "x" / "one", tmp_path / "x" / "two" / "a.csv")
    assert found == ["one/a.csv", "two/a.csv"]


def test_a_glob_matches_files_also_in_folders_below(tmp_path: Path) -> None:
    fill(tmp_path, "a1.csv", "a2.csv", "b/a3.csv", "a[1].csv")
    assert names(tmp_path / "a?.csv") == ["a1.csv", "a2.csv"]
    assert names(tmp_path / "**" / "a3*") == ["a3.csv"]
    assert names(tmp_path / "a[1].csv") == ["a[1].csv"]  # a file of that name comes before a glob


@pytest.mark.parametrize(
    "argument", ["", "missing.csv", "empty", "*.csv", "empty/*", "markers", "loop.csv", "dangling.csv"]
)
def test_what_names_nothing_is_no_input(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "markers", "_a.csv", "notes.md")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    (tmp_path / "dangling.csv").symlink_to("nowhere.csv")
    if argument == "*.csv":
        (tmp_path / "loop.csv").unlink()
        (tmp_path / "dangling.csv").unlink()
    with pytest.raises(NoInputError) as caught:
        names(argument)
    assert caught.value.exit_code == 66
    assert argument in str(caught.value)


@pytest.mark.parametrize("argument", [".", "*.csv"])
def test_links_that_lead_to_each_other_are_named(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, "a.csv")
    (tmp_path / "x.csv").symlink_to("y.csv")
    (tmp_path / "y.csv").symlink_to("x.csv")
    (tmp_path / "circle").symlink_to(tmp_path)
    with pytest.raises(NoInputError, match=r"x\.csv"):
        names(argument)


MAKE: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("in_folder", [False, True])
@pytest.mark.parametrize("kind", MAKE)
def test_pipes_and_devices_are_refused_unopened(kind: str, in_folder: bool, tmp_path: Path) -> None:
    MAKE[kind](tmp_path / "a.csv")
    with pytest.raises(NoInputError, match="not a regular file"):
        names(tmp_path if in_folder else tmp_path / "a.csv")


def test_the_run_folder_is_no_input(tmp_path: Path) -> None:
    fill(tmp_path, "a.csv", "out/predictions/a.csv")
    output = tmp_path / "out"
    assert names(tmp_path, output=output) == ["a.csv"]
    assert names(tmp_path / "**" / "*.csv", output=output) == ["a.csv"]
    with pytest.raises(NoInputError, match="lies in the run folder"):
        names(tmp_path / "a.csv", output / "predictions" / "a.csv", output=output)


def test_odd_file_names_are_kept_and_shown_escaped(tmp_path: Path) -> None:
    odd = [
        "a\nb.csv",
        "a...csv",
        "esc\x1b[31m.csv",
        "emoji 😀.csv",
        "-n.csv",
        "a\\b.csv",
        os.fsdecode(b"\xff.csv"),
    ]
    fill(tmp_path, *odd)
    assert sorted(names(tmp_path)) == sorted(odd)
    for name in odd:
        (tmp_path / name).unlink()
    (tmp_path / "bad\n\x1b.csv.gz").write_bytes(b"text\n")
    with pytest.raises(DataError) as caught:
        names(tmp_path)
    assert "bad\\n\\x1b.csv.gz" in str(caught.value)
    assert printable(str(caught.value)) == str(caught.value)


@pytest.mark.parametrize("climbing", ["../a.csv", "./../x/a.csv", "b/../../x/../a.csv"])
def test_no_name_leads_out_of_the_predictions(
    climbing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a.csv", "x/a.csv", "x/b/c.csv")
    monkeypatch.chdir(tmp_path / "x")
    for name in names(climbing, "b"):
        assert not Path(name).is_absolute()
        assert ".." not in Path(name).parts


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    (file,) = find_files([str(fill(tmp_path, "a.csv"))], None, tmp_path / "out")
    file.assert_unchanged()
    (tmp_path / "a.csv").write_bytes(b"text\nabc\n")
    with pytest.raises(DataError, match="changed while it was being read"):
        file.assert_unchanged()


def test_a_folder_that_cannot_be_listed_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a.csv", "closed/b.csv")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(NoInputError, match=r"closed cannot be read: Permission denied"):
        names(tmp_path)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a.csv"], ["a.parquet"]),
        (["a.csv.gz", "b"], ["a.parquet", "b.parquet"]),
        (["a.csv", "a.jsonl"], ["a.csv.parquet", "a.jsonl.parquet"]),
        (
            ["a.csv", "a.jsonl", "a.csv.parquet"],
            ["a.csv.parquet", "a.jsonl.parquet", "a.csv.parquet.parquet"],
        ),
        (["x/a.csv", "y/a.csv"], ["x/a.parquet", "y/a.parquet"]),
        ([".csv"], [".csv.parquet"]),
    ],
)
def test_names_in_another_format_are_all_different(given: list[str], expected: list[str]) -> None:
    assert output_names(given, ".parquet") == expected
