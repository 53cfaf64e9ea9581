"""What is said: which column is scored and as what, what is wrong before anything is scored, and never a piece of a review."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from batchscore import cli
from batchscore.cli import train as train_command
from batchscore.cli.options import with_each_mapping

MARKER = "Zyzzyva"
REVIEW = f"{MARKER} is a warm and funny film, I loved it"
CUT = '"' + REVIEW
"""A review whose quote is never closed."""


def call(*arguments: object, command: Any = cli.main) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def score(path: Path, model: Path, *options: object) -> Result:
    return call("score", path, "--model", model, "--output", path.parent / "run", *options)


# --------------------------------------------------------------------------------------------- what was chosen


def test_what_was_chosen_is_said_on_stderr(tmp_path: Path, tiny_bundle: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("review_id,Review Body,label,lang\n1,Good.,1,en\n2,Bad.,0,en\n", encoding="utf-8")
    done = score(path, tiny_bundle)
    assert done.exit_code == 0
    said = "reviews.csv: text in Review Body, label in label (0 = NEGATIVE, 1 = POSITIVE), id in review_id\n"
    assert said in done.stderr
    assert said not in score(path, tiny_bundle, "--quiet", "--force").stderr
    (file,) = json.loads((tmp_path / "run" / "run.json").read_bytes())["files"]
    wanted: dict[str, object] = {
        "text": "Review Body",
        "text_pair": None,
        "label": "label",
        "labels": [],
        "id": "review_id",
    }
    assert file["columns"] == wanted
    assert file["label_values"] == {"0": "NEGATIVE", "1": "POSITIVE"}


def test_a_dry_run_says_it_too(tmp_path: Path, tiny_bundle: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("text,stars\nGood.,5\nBad.,1\nSo so.,3\n", encoding="utf-8")
    mapping = ("--label-column", "stars", "--label-map", "1..2=NEGATIVE", "4..5=POSITIVE", "3=")
    done = score(path, tiny_bundle, "--dry-run", *mapping)
    assert (
        "3 rows, text in text, label in stars (1 = NEGATIVE, 3 = no label, 5 = POSITIVE), no id"
        in done.stdout
    )
    assert not (tmp_path / "run").exists()


def test_unknown_labels_are_a_warning_with_the_way_out(tmp_path: Path, tiny_bundle: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text(f"text,label\nGood.,pos\nBad.,meh\nBad.,meh\nBad.,{REVIEW[:31]}\n", encoding="utf-8")
    done = score(path, tiny_bundle)
    assert done.exit_code == 0
    assert "warning: reviews.csv: 3 rows have a label that the model does not know: meh (2)" in done.stderr
    assert "--label-map GIVEN=LABEL" in done.stderr
    assert MARKER not in done.stderr


def test_labels_for_label_0_are_not_ignored_without_a_word(tmp_path: Path, make_model: Any) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\nGood.,1\n", encoding="utf-8")
    done = score(path, make_model(("LABEL_0", "LABEL_1")))
    assert done.exit_code == 0
    assert "given labels are not looked at" in done.stderr
    assert "--label-map 1=LABEL_1" in done.stderr


def test_mappings_that_follow_a_label_map_belong_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a=b.csv").touch()
    given = [
        "in.csv",
        "--label-map",
        "-1=NEGATIVE",
        "1=POSITIVE",
        "a=b.csv",
        "day=1/x.csv",
        "--output",
        "x=y",
    ]
    assert with_each_mapping(given) == [
        "in.csv", "--label-map", "-1=NEGATIVE", "--label-map", "1=POSITIVE", "a=b.csv", "day=1/x.csv", "--output", "x=y",
    ]  # fmt: skip


# ------------------------------------------------------------------------------- known before anything is scored

ADDRESSES = (
    "ftp://bucket/run3",
    "file:///tmp/run",
    "https://example.org/model",
    "s3:/bucket/run3",
)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    "arguments",
    [
        ("score", "{}", "--model", "m", "--output", "run"),
        ("score", "in.csv", "--model", "{}", "--output", "run"),
        ("score", "in.csv", "--model", "m", "--output", "{}"),
        ("score", "in.csv", "--model", "m", "--output", "run", "--baseline", "{}"),
        ("score", "in.csv", "--model", "m", "--output", "run", "--metrics-file", "{}"),
        ("score", "in.csv", "--model", "m", "--output", "run", "--config", "{}"),
        ("inbox", "{}", "--model", "m", "--output", "out"),
        ("inbox", "in", "--model", "m", "--output", "{}"),
        ("report", "{}"),
        ("report", "runs", "--output", "{}"),
        ("verify", "{}"),
        ("inspect", "{}"),
        ("export", "{}"),
    ],
    ids=" ".join,
)
def test_an_address_is_never_taken_for_a_folders_name(
    arguments: tuple[str, ...], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*(each.format(address) for each in arguments))
    assert done.exit_code == 2
    assert "is an address" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--data", "--output", "--eval-data", "--base-model"])
def test_nor_does_the_trainer_take_one(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"--data": "builtin", "--output": "model", option: "s3://bucket/x"}
    done = call(*(each for pair in options.items() for each in pair), command=train_command.command)
    assert done.exit_code == 2
    assert "is an address" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["gpu", "CUDA", "cuda:x", "mps", "0", ""])
def test_a_device_that_does_not_exist_is_wrong_usage(device: str, tmp_path: Path) -> None:
    done = score(tmp_path / "in.csv", tmp_path, "--device", device)
    assert done.exit_code == 2
    assert "there are auto, cpu, cuda and cuda:N" in done.stderr


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere/x.prom", "cannot be written into"), ("folder", "is a folder")]
)
def test_a_metrics_file_that_cannot_be_is_known_before_anything_is_scored(
    name: str, message: str, tmp_path: Path, tiny_bundle: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "in.csv").write_text("text\nGood.\n", encoding="utf-8")
    done = score(tmp_path / "in.csv", tiny_bundle, "--metrics-file", tmp_path / name)
    assert done.exit_code == 73
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("score", "--json"),
        ("score", "in.csv", "--model", "m", "--output", "o", "--workers", "none", "--json"),
        ("score", "in.csv", "--model", "m", "--output", "o", "--json", "--nonsense"),
        ("inbox", "in", "--json", "--settle", "soon"),
        ("report", "--json"),
        ("nonsense", "--json"),
    ],
    ids=" ".join,
)
def test_errors_of_usage_are_json_too(arguments: tuple[str, ...]) -> None:
    done = call(*arguments)
    assert done.exit_code == 2
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["status"], summary["exit_code"]) == ("error", 2)
    assert summary["error"] in done.stderr


def test_a_settings_file_that_cannot_be_read_is_json_too(tmp_path: Path) -> None:
    done = call("score", "in.csv", "--config", tmp_path / "nowhere.toml", "--json")
    assert (done.exit_code, json.loads(done.stdout.splitlines()[-1])["exit_code"]) == (78, 78)


# --------------------------------------------------------------------------------------------------- the drop folder


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def emptied(inbox: Path, *options: object) -> Result:
    return call("inbox", inbox, "--model", inbox, "--output", inbox.parent / "out", *options)


def test_an_inbox_says_what_still_settles(inbox: Path) -> None:
    assert "nothing new in" in emptied(inbox).stdout
    (inbox / "a.csv").write_text("text\nGood.\n", encoding="utf-8")
    assert "a.csv left for a later call: not unchanged for 60 s yet" in emptied(inbox).stdout
    (inbox / "b.csv").write_text("text\nGood.\n", encoding="utf-8")
    done = emptied(inbox, "--require-done")
    assert "2 files, a.csv the first, left for a later call: no .done lies beside it" in done.stdout
    assert json.loads(emptied(inbox, "--json").stdout)["settling"] == ["a.csv", "b.csv"]
    assert not emptied(inbox, "--quiet").output
    done = emptied(inbox, "--skip-empty")
    assert done.exit_code == 99
    assert "left for a later call" in done.stderr


@pytest.mark.parametrize(
    "name",
    ["Thumbs.db", "THUMBS.DB", "desktop.ini", ".DS_Store", "._a.csv", "~$a.xlsx", ".~lock.a.csv#", "Icon\r"],
)
def test_what_a_desktop_leaves_in_an_inbox_is_no_failure(name: str, inbox: Path) -> None:
    (inbox / name).write_bytes(b"x")
    os.utime(inbox / name, (time.time() - 999, time.time() - 999))
    done = emptied(inbox)
    assert done.exit_code == 0
    assert [path.name for path in inbox.iterdir()] == [name]


# ------------------------------------------------------------------------------------------- no piece of a review

FILES: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
    "no header": ("a.csv", f"{REVIEW}\nDull.\n".encode(), ()),
    "no header, several columns": ("a.csv", f"1,{REVIEW[:20]},pos\n2,Dull,neg\n".encode(), ()),
    "no header, one long line": ("a.csv", (REVIEW * 2000).encode(), ()),
    "a header of reviews": ("a.csv", f'"{REVIEW}","{REVIEW}!"\n1,2\n'.encode(), ()),
    "an open quote in the header": ("a.csv", f"id,{CUT}\n1,a\n".encode(), ()),
    "no such column": ("a.csv", f"{REVIEW}\nDull.\n".encode(), ("--text-column", "text")),
    "too few cells": ("a.csv", f"id,text\n{REVIEW[:20]}\n".encode(), ()),
    "an open quote": ("a.csv", f"id,text\n1,{CUT}\n".encode(), ()),
    "a shifted row": ("a.csv", f'id,text,label\n1"{REVIEW}",1\n'.encode(), ()),
    "a byte that is none": (
        "a.csv",
        f"id,text\n1,{REVIEW.split(',', maxsplit=1)[0]}\xe9\n".encode("latin-1"),
        (),
    ),
    "a NUL": ("a.csv", f"id,text\n1,{REVIEW.split(',', maxsplit=1)[0]}\0\n".encode(), ()),
    "texts as labels": ("a.csv", f'text,label\nx,"{REVIEW}"\n'.encode(), ()),
    "a text that is named the label": (
        "a.csv",
        f'text,note\nx,"{REVIEW}"\n'.encode(),
        ("--label-column", "note"),
    ),
    "joined with another": ("a.csv", f'id,text\n1,"{REVIEW}"\ntext,id\n'.encode(), ()),
    "a taken name": ("a.csv", f'text,status\n"{REVIEW}",x\n'.encode(), ()),
    "what an encoding cannot hold": ("a.csv", f'text\n"{REVIEW}"\n'.encode(), ("--encoding", "klingon")),
    "no JSON": ("a.jsonl", f'{{"text": "{REVIEW}\n'.encode(), ()),
    "JSON that is no object": ("a.jsonl", json.dumps([REVIEW]).encode(), ()),
    "a text that is a list": ("a.jsonl", json.dumps({"text": [REVIEW], "n": 1}).encode(), ()),
    "a field that is a review": ("a.jsonl", json.dumps({REVIEW: 1}).encode(), ()),
    "half a pair": ("a.jsonl", json.dumps({"text": REVIEW + "\ud800"}).encode(), ()),
    "an open array": ("a.json", json.dumps([{"text": REVIEW}])[:-1].encode(), ()),
    "an array with rubbish": ("a.json", f'[{{"text": "{REVIEW}"}} {REVIEW}]'.encode(), ()),
    "an HTML page": ("a.csv", f"<html>{REVIEW}".encode(), ()),
    "damaged Parquet": ("a.parquet", b"PAR1" + REVIEW.encode() + b"PAR1", ()),
    "text as Parquet": ("a.parquet", REVIEW.encode(), ()),
    "damaged gzip": ("a.csv.gz", b"\x1f\x8b\x08" + REVIEW.encode(), ()),
}


@pytest.mark.parametrize(("name", "content", "options"), FILES.values(), ids=FILES)
@pytest.mark.parametrize("talk", [(), ("--json",), ("--log-format", "json"), ("-vv",)], ids=" ".join)
def test_no_message_holds_a_piece_of_a_review(
    name: str,
    content: bytes,
    options: tuple[str, ...],
    talk: tuple[str, ...],
    tmp_path: Path,
    tiny_bundle: Path,
) -> None:
    (tmp_path / name).write_bytes(content)
    done = score(tmp_path / name, tiny_bundle, *options, *talk)
    assert done.exit_code in {2, 65}, done.output
    assert MARKER not in done.output
    assert len(done.output) < 6000


def test_nor_does_the_note_beside_a_failed_file(inbox: Path, tiny_bundle: Path) -> None:
    for number, (name, content, options) in enumerate(FILES.values()):
        if not options:
            (inbox / f"{number}-{name}").write_bytes(content)
    done = call("inbox", inbox, "--model", tiny_bundle, "--output", inbox.parent / "out", "--settle", 0)
    notes = [path.read_text(encoding="utf-8") for path in (inbox / "failed").glob("*.error.txt")]
    assert len(notes) == sum(not options for *_, options in FILES.values())
    assert not [note for note in [*notes, done.output] if MARKER in note]
    assert max(map(len, notes)) < 3000


def test_nor_does_the_trainer(tmp_path: Path) -> None:
    for name, content, options in FILES.values():
        (tmp_path / name).write_bytes(content)
        done = call(
            "--data", tmp_path / name, "--output", tmp_path / "m", *options, command=train_command.command
        )
        assert done.exit_code in {2, 65}, (name, done.output)
        assert MARKER not in done.output
        (tmp_path / name).unlink()


def test_encrypted_parquet_is_said_to_be_encrypted(tmp_path: Path, tiny_bundle: Path) -> None:
    import base64

    from pyarrow.parquet import encryption

    class Keys(encryption.KmsClient):  # type: ignore[misc]
        def __init__(self, _: Any) -> None:
            encryption.KmsClient.__init__(self)

        def wrap_key(self, key: bytes, _: str) -> bytes:
            return base64.b64encode(key)

        def unwrap_key(self, key: bytes, _: str) -> bytes:
            return base64.b64decode(key)

    factory = encryption.CryptoFactory(Keys)
    for is_plain in (False, True):
        how = encryption.EncryptionConfiguration(
            footer_key="f", column_keys={"c": ["text"]}, plaintext_footer=is_plain
        )
        keys = factory.file_encryption_properties(encryption.KmsConnectionConfig(), how)
        schema = pa.schema([("text", pa.string())])
        with pq.ParquetWriter(tmp_path / "a.parquet", schema, encryption_properties=keys) as writer:
            writer.write_table(pa.table({"text": [REVIEW]}))
        done = score(tmp_path / "a.parquet", tiny_bundle)
        assert done.exit_code == 65
        assert "encrypted" in done.stderr
        assert "damaged" not in done.stderr


def test_rejects_for_quotes_offer_the_option_that_reads_the_file(tmp_path: Path, tiny_bundle: Path) -> None:
    quoted = {3: '"film number 3', 300: 'film number 300, "a joy"'}
    lines = [f"{k}\t{quoted.get(k, f'film number {k}')}\n" for k in range(400)]
    (tmp_path / "a.tsv").write_text("id\ttext\n" + "".join(lines), encoding="utf-8")
    done = score(tmp_path / "a.tsv", tiny_bundle, "--dry-run")
    assert "400 rows in 1 parts, 1 rejects" in done.stdout
    done = score(tmp_path / "a.tsv", tiny_bundle)
    assert done.exit_code == 65
    assert "1 of 400 rows cannot be read" in done.stderr
    assert "--quotechar ''" in done.stderr
    done = score(tmp_path / "a.tsv", tiny_bundle, "--dry-run", "--quotechar", "")
    assert "400 rows in 1 parts, 0 rejects" in done.stdout


def test_rejects_with_a_backslash_before_a_quote_offer_the_other(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text\n1,"a \\"fine\\" film"\n2,"x"y\n', encoding="utf-8")
    done = score(tmp_path / "a.csv", tiny_bundle)
    assert done.exit_code == 65
    assert "--escapechar '\\'" in done.stderr
