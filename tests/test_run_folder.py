"""A run folder: its names are those that a run writes, its state is told by them, its facts are what the run said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import run_score

from batchscore.config import Allowance
from batchscore.errors import DataError
from batchscore.model.bundle import open_bundle
from batchscore.runs import folder as names
from batchscore.runs.folder import (
    RunState,
    Staging,
    check_run,
    foreign_names,
    prediction_names,
    read_run,
    staged_shards,
    state_of,
)
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import make_folder, sha256_of

ROWS = [{"id": 1, "text": "Good.", "label": "pos"}, {"id": 2, "text": "Bad.", "label": "pos"}]


@pytest.fixture(scope="module")
def run(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with labels and a reject; tests must not write into it."""
    folder = tmp_path_factory.mktemp("run")
    lines = [*map(json.dumps, ROWS), '{"id": 3, "text"', json.dumps({**ROWS[0], "label": "neg"})]
    (folder / "reviews.jsonl").write_text("\n".join(lines) + "\n")
    run_score(folder / "reviews.jsonl", tiny_bundle, folder / "out", max_rejects=Allowance(1))
    return folder / "out"


def test_the_names_are_those_that_a_run_writes(run: Path) -> None:
    files = {names.MISMATCHES, names.MISMATCHES_CSV, names.REJECTS, names.MANIFEST, names.TEXT}
    files |= names.ALWAYS_WRITTEN
    assert {path.name for path in run.iterdir()} == {names.PREDICTIONS, *files}
    assert [path.name for path in (run / names.PREDICTIONS).iterdir()] == prediction_names(
        ["reviews.jsonl"], "same"
    )


def test_a_run_says_what_it_was(run: Path, tiny_bundle: Path) -> None:
    read = read_run(run)
    (file,) = read.files
    assert file["sha256"] == sha256_of(run.parent / "reviews.jsonl")
    assert (read.counts["read"], read.counts["rejects"], read.counts["scored"]) == (4, 1, 3)
    assert read.model["fingerprint"] == open_bundle(str(tiny_bundle)).fingerprint
    assert read.options["output_format"] == "same"
    assert len(read.fingerprint) == 64
    assert read.finished == json.loads((run / "run.json").read_bytes())["finished"]


def test_files_are_held_against_the_manifest(run: Path, tmp_path: Path) -> None:
    hashes = check_run(run)
    assert hashes["metrics.json"] == sha256_of(run / "metrics.json")
    for name in hashes:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((run / name).read_bytes())
    with pytest.raises(DataError, match="has not finished"):
        check_run(tmp_path)
    (tmp_path / names.MANIFEST).write_bytes((run / names.MANIFEST).read_bytes())
    assert check_run(tmp_path) == hashes
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(DataError, match=r"metrics\.json: its bytes are not those that were written"):
        check_run(tmp_path)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        ([], RunState.NO_RUN),
        (["notes.txt", "report.html", "predictions"], RunState.NO_RUN),
        (["run.json"], RunState.UNFINISHED),
        (["rejects.jsonl"], RunState.UNFINISHED),
        ([".staging"], RunState.UNFINISHED),
        (["refused.json", "rejects.jsonl"], RunState.REFUSED),
        (["refused.json", ".staging"], RunState.REFUSED),
        (["_SUCCESS", "run.json", "metrics.json"], RunState.FINISHED),
        (["_SUCCESS", "refused.json", ".staging"], RunState.FINISHED),
    ],
    ids=lambda value: value.value if isinstance(value, RunState) else "+".join(value) or "empty",
)
def test_names_tell_the_state(found: list[str], state: RunState, tmp_path: Path) -> None:
    for name in found:
        (tmp_path / name).touch()
    assert state_of(tmp_path) is state


def test_a_folder_that_is_not_there_holds_no_run(tmp_path: Path) -> None:
    assert state_of(tmp_path / "none") is RunState.NO_RUN


def test_what_no_unfinished_run_leaves_is_foreign(tmp_path: Path) -> None:
    for name in (".staging", "refused.json", "rejects.jsonl", "run.json", "notes.txt"):
        (tmp_path / name).touch()
    assert foreign_names(tmp_path) == {"run.json", "notes.txt"}


def test_parts_are_found_whatever_run_they_are_of(tmp_path: Path) -> None:
    first, second = (Staging(OwnPath(tmp_path) / f".staging/{name}") for name in ("a" * 32, "b" * 32))
    make_folder(second.parts)
    assert not list(staged_shards(tmp_path))
    second.shard(7).open_fresh().close()
    assert list(staged_shards(tmp_path)) == [second.shard(7)]
    assert (first.holds_work, second.holds_work) == (False, True)


def test_a_damaged_run_raises_what_its_readers_expect(tmp_path: Path) -> None:
    for text in ("", "[]", "3", "{}", '{"files": 3, "model": []}'):
        (tmp_path / "run.json").write_text(text)
        (tmp_path / "metrics.json").write_text("[]")
        with pytest.raises(names.DAMAGE):
            _ = read_run(tmp_path).model["fingerprint"]
        with pytest.raises(names.DAMAGE):
            _ = read_run(tmp_path).counts["read"]
