"""The one reader of JSON documents, and that every document of a run or a bundle goes through it."""

from __future__ import annotations

import ast
import datetime
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import batchscore
from batchscore.errors import BatchscoreError, DataError, ModelError, NotOursError
from batchscore.model.bundle import open_bundle
from batchscore.runs.baselines import open_baseline
from batchscore.runs.folder import FACTS, METRICS, NOTE, check_run
from batchscore.runs.inspection import inspect
from batchscore.runs.nights import read_nights
from batchscore.runs.refusals import read_refusal
from batchscore.system import documents
from batchscore.system.documents import DocumentError, checked, parse_json, read_json, read_regular
from batchscore.system.journal import Journal, read_checked, write_checked
from batchscore.system.storage import MANIFEST, manifest, sha256_of

NIGHT = datetime.date(2026, 11, 20)
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "Expecting value"),
    "no JSON": (b"{", "Expecting"),
    "deep": (b"[" * 100_000, "nested too deeply"),
    "deep and closed": (b"[" * 900 + b"]" * 900, "nested too deeply"),
    "deep objects": (b'{"a":' * 200 + b"1" + b"}" * 200, "nested too deeply"),
    "NaN": (b'{"a": NaN}', "not finite"),
    "infinite": (b"[-Infinity]", "not finite"),
    "beyond a double": (b"[1e400]", "not finite"),
    "400 digits": (b"[" + b"9" * 400 + b"]", "more than 40 digits"),
    "5000 digits": (b"[" + b"9" * 5000 + b"]", "digits"),
    "twice": (b'{"a": {"b": 1, "b": 2}}', "b twice"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "BOM"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    "no UTF-8": (b'["\xff"]', "not UTF-8 .byte 2."),
    "many values": (b"[" + b"0," * 8_000_001, "more than 8000000 values"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_what_no_document_of_ours_is_is_told(content: bytes, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        parse_json(content)


def test_settings_of_other_programs_may_have_numbers_that_are_not_finite() -> None:
    assert parse_json(b"[Infinity, 1e30, 1000000000000000019884624838656]", is_finite=False)[1] == 1e30


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


def as_folder(path: Path) -> None:
    path.mkdir()


def as_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def as_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(documents.MOST_BYTES + 1)


def as_text(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


INSTEAD: dict[str, Callable[[Path], Any]] = {
    "a pipe": as_pipe,
    "a folder": as_folder,
    "a device": as_device,
    "a huge file": as_large,
    "a list": as_text(b"[]"),
    "a number": as_text(b"1"),
    **{name: as_text(BAD[name][0]) for name in ("empty", "deep", "NaN", "400 digits", "twice", "no UTF-8")},
}


@pytest.mark.parametrize("put", [as_pipe, as_folder, as_device, as_large])
def test_only_a_regular_file_of_a_bounded_size_is_read(put: Callable[[Path], Any], tmp_path: Path) -> None:
    put(tmp_path / "x")
    with pytest.raises(DocumentError, match=r"no regular file|larger than 128 MiB"):
        read_regular(tmp_path / "x")


SHAPES: list[tuple[Any, Any, str]] = [
    ([], {"a": int}, "it is a list, not an object"),
    ({}, {"a": int}, "a is missing"),
    ({"a": True}, {"a": int}, "a is true, not a whole number"),
    ({"a": 2**63}, {"a": int}, "not a whole number"),
    ({"a": [{"b": 1}, {"b": "x"}]}, {"a": [{"b": int}]}, r"a\[1\].b is x, not a whole number"),
    ({"a": {"x": None}}, {"a": {str: str}}, "a.x is null, not a text"),
    ({"a": "1"}, {"a": int | float}, "a is 1, not a number"),
    ({"a\x9b": 1}, {str: str}, r"a\\x9b is 1, not a text"),
]


@pytest.mark.parametrize(("value", "shape", "message"), SHAPES)
def test_another_shape_is_told_with_its_place(value: Any, shape: Any, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        checked(value, shape)


def test_what_may_be_missing_may() -> None:
    for value in ({}, {"a": None}, {"a": 1, "more": "x"}):
        assert checked(value, {"a?": int}) == value


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run as far as its documents go."""
    folder = tmp_path / "runs" / "2026-11-20"
    folder.mkdir(parents=True)
    facts = {
        "fingerprint": "0",
        "finished": "2026-11-20T03:00:00+00:00",
        "files": [],
        "model": {"path": "m", "fingerprint": "1", "labels": ["a", "b"]},
        "options": {"output_format": "same"},
        "compute": {},
    }
    metrics = {"counts": {"read": 1, "scored": 1, "rejects": 0, "evaluated": 0}, "quality": None}
    (folder / FACTS).write_text(json.dumps(facts))
    (folder / METRICS).write_text(json.dumps(metrics))
    sealed(folder)
    return folder


def sealed(folder: Path) -> None:
    (folder / MANIFEST).unlink(missing_ok=True)
    names = [path.name for path in folder.iterdir() if path.is_file() and path.name != MANIFEST]
    small = [
        name for name in names if (folder / name).stat().st_size < 2**20 and not (folder / name).is_symlink()
    ]
    (folder / MANIFEST).write_bytes(manifest({name: sha256_of(folder / name) for name in small}))


@pytest.mark.parametrize("name", [FACTS, METRICS])
@pytest.mark.parametrize("put", INSTEAD.values(), ids=INSTEAD)
def test_a_run_whose_documents_cannot_be_meant_is_bad_data(
    put: Callable[[Path], Any], name: str, run: Path
) -> None:
    assert inspect(str(run))["kind"] == "run"
    (run / name).unlink()
    put(run / name)
    sealed(run)
    with pytest.raises(DataError) as caught:
        inspect(str(run))
    assert str(run) in str(caught.value)
    with pytest.raises(DataError, match="--baseline"):
        open_baseline(run, ["a", "b"])
    (night,) = read_nights(run.parent, NIGHT, NIGHT).shown
    assert night.problem


@pytest.mark.parametrize("put", INSTEAD.values(), ids=INSTEAD)
def test_a_manifest_or_a_note_that_cannot_be_meant_is_bad_data(put: Callable[[Path], Any], run: Path) -> None:
    (run / MANIFEST).unlink()
    put(run / MANIFEST)
    with pytest.raises(DataError):
        check_run(run)
    shutil.rmtree(run)
    run.mkdir()
    put(run / NOTE)
    with pytest.raises((OSError, ValueError)):
        read_refusal(run)
    assert read_nights(run.parent)


@pytest.mark.parametrize("name", ["config.json", "batchscore.json", "tokenizer_config.json"])
@pytest.mark.parametrize("put", INSTEAD.values(), ids=INSTEAD)
def test_a_bundle_whose_documents_cannot_be_meant_is_unusable(
    put: Callable[[Path], Any], name: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (folder / name).unlink()
    put(folder / name)
    with pytest.raises(ModelError):
        open_bundle(str(folder))


FACTS_THAT_CANNOT_BE: list[dict[str, Any]] = [
    {"labels": [{}, "b"]},
    {"labels": ["a", ["b"]]},
    {"thresholds": "x"},
    {"thresholds": [[]]},
    {"canaries": {"texts": ["\ud800"], "probabilities": [[0.5, 0.5]]}},
    {"canaries": {"texts": ["x"], "probabilities": [[10**30, 0.5]]}},
    {"variants": {"int8": {"file": [], "parity": {}, "limits": {}, "canaries": []}}},
    {"training": "x"},
    {"max_length": 10**30},
]


@pytest.mark.parametrize("changes", FACTS_THAT_CANNOT_BE, ids=str)
def test_facts_of_other_types_are_refused_though_sealed(
    changes: dict[str, Any], tiny_bundle: Path, tmp_path: Path
) -> None:
    from batchscore.model.bundle_facts import read_facts, sealed_bytes

    facts = read_facts(tiny_bundle)
    del facts["sha256"]
    content = sealed_bytes({**facts, **changes})
    with pytest.raises(ModelError, match=r"cannot be meant|not readable JSON|changed after"):
        read_facts(tmp_path, content)


def test_entries_of_another_shape_end_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    first = Journal(path)
    for entry in ({"part": 0}, {"part": "x"}, {"part": 1}):
        first.append(entry)
    first.close()
    again = Journal(path, {"part": int})
    again.close()
    assert again.entries == [{"part": 0}]
    write_checked(tmp_path / "note", {"a": 1})
    assert read_checked(tmp_path / "note") == {"a": 1}
    (tmp_path / "note").unlink()
    as_pipe(tmp_path / "note")
    with pytest.raises(NotOursError, match="it is a pipe"):  # it does not wait for somebody to write
        read_checked(tmp_path / "note")


def test_no_other_module_reads_json_from_files() -> None:
    folder = Path(batchscore.__file__).parent
    reading = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"json.loads", "json.load"}
        if any(word in ast.unparse(node) for word in ("read_bytes", "read_text", "readline", "line)", "file"))
    }
    assert reading <= {"samples/__init__.py", "runs/rejects.py", "training/head_fitting.py"}


def test_errors_of_the_reader_are_no_faults() -> None:
    assert not issubclass(DocumentError, BatchscoreError)
    with pytest.raises(FileNotFoundError):
        read_json(Path("no such file"))
