"""What is printed: nothing in it that a terminal obeys, and good text of all scripts as it is."""

from __future__ import annotations

import ast
import json
import logging
import shutil
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import batchscore
from batchscore.cli import main
from batchscore.cli.train import command as train
from batchscore.errors import printable, printable_json, printable_lines
from batchscore.model.bundle import open_bundle
from batchscore.system.terminal import Logs, set_up_logs

EVIL = "a\x9b31mb\x7fc\u202ed\u2066e\u2028f\u200bg\U000e0041h\x1b[2Ji"
"""C1, DEL, marks of direction, a separator of lines, no width, a tag, C0."""
BAD = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def bad_in(text: str) -> set[str]:
    return {char for char in text if unicodedata.category(char) in BAD and char not in "\n\u200c\u200d"}


def test_no_character_that_a_terminal_obeys_or_nobody_sees_stays() -> None:
    every = map(chr, (*range(0x3000), *range(0xD700, 0x10000, 7), *range(0x10000, sys.maxunicode, 97)))
    some = "".join([*every, *map(chr, range(0xE0000, 0xE0080))])
    assert not bad_in(printable(some))
    assert not bad_in(printable_lines(some))


@pytest.mark.parametrize(
    "text",
    [
        "Größe",
        "漢字 かな",
        "중앙",
        "فيلم جيد",
        "סרט טוב",
        "фильм",
        "हिन्दी",
        "👩\u200d🚀👍🏽❤️",
        "नमस्\u200dते",
        "全角\u3000空白",
    ],
)
def test_good_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text
    assert json.loads(printable_json(text)) == text


@pytest.mark.parametrize("text", ["a\u200db", "\u200d", "ab\u200c", "漢\u200da"])
def test_a_joiner_that_joins_nothing_is_shown(text: str) -> None:
    assert "\\u200" in printable(text)


def test_json_reads_back_the_same() -> None:
    value = {EVIL: [EVIL, 1.5, None, "\ud800", "\U0001f600"]}
    line = printable_json(value)
    assert not bad_in(line)
    assert "\n" not in line
    assert json.loads(line) == value


def test_only_the_terminal_prints() -> None:
    folder = Path(batchscore.__file__).parent
    printing = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func)
        in {"click.echo", "click.secho", "print", "sys.stdout.write", "sys.stderr.write"}
    }
    assert printing == {"system/terminal.py", "samples/__main__.py"}  # the samples are below the terminal


@pytest.fixture(scope="module")
def folder(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, a file, a run's folder and a settings file that have such names and contents."""
    folder = tmp_path_factory.mktemp("evil")
    shutil.copytree(tiny_bundle, folder / EVIL)
    (folder / f"{EVIL}.csv").write_text(f"text,{EVIL}\na good film,1\n", encoding="utf-8")
    (folder / "runs" / EVIL).mkdir(parents=True)
    (folder / "runs" / EVIL / "run.json").write_text(json.dumps({"finished": EVIL, "files": EVIL}))
    (folder / "settings.toml").write_text(f'"{EVIL[:3]}" = 1'.replace("\x9b", "\\u009b"))
    plain = shutil.copytree(tiny_bundle, folder / "plain")
    config = json.loads((plain / "config.json").read_bytes())
    (plain / "config.json").write_text(
        json.dumps(config | {"architectures": [EVIL], "id2label": {"0": EVIL, "1": "b"}})
    )
    (plain / "batchscore.json").unlink()
    return folder


CALLS: dict[str, list[str]] = {
    "inspect a file": ["inspect", f"{EVIL}.csv"],
    "inspect a file as JSON": ["inspect", f"{EVIL}.csv", "--json"],
    "inspect a bundle": ["inspect", EVIL],
    "inspect a run": ["inspect", f"runs/{EVIL}"],
    "inspect a folder": ["inspect", "plain"],
    "inspect nothing": ["inspect", f"no{EVIL}", "--json"],
    "verify": ["verify", EVIL],
    "verify as JSON": ["verify", f"runs/{EVIL}", "--json"],
    "sign": ["sign", EVIL, "--key", EVIL],
    "export": ["export", f"no{EVIL}"],
    "adopt": ["adopt", "plain", "--output", f"out{EVIL}"],
    "adopt and rename": ["adopt", "plain", "--output", "out", "--rename-label", EVIL],
    "report": ["report", "runs"],
    "report of nothing": ["report", f"no{EVIL}"],
    "plan": ["score", f"{EVIL}.csv", "--model", EVIL, "--output", f"out{EVIL}", "--dry-run"],
    "plan as JSON": [
        "score",
        f"{EVIL}.csv",
        "--model",
        EVIL,
        "--output",
        f"out{EVIL}",
        "--dry-run",
        "--json",
    ],
    "an unknown option": ["score", f"--{EVIL}"],
    "an unknown command": [EVIL],
    "an unknown choice": ["score", "x", "--model", "m", "--output", "o", "--below", EVIL, "--json"],
    "no number": ["score", "x", "--model", "m", "--output", "o", "--limit", EVIL],
    "a date": ["score", "x", "--model", "m", "--output", "o", "--date", EVIL],
    "a device": ["score", "x", "--model", "m", "--output", "o", "--device", EVIL],
    "rejects": ["score", "x", "--model", "m", "--output", "o", "--max-rejects", EVIL],
    "a budget": ["score", "x", "--model", "m", "--output", "o", "--max-batch-tokens", EVIL],
    "an address": ["score", "x", "--model", "m", "--output", f"s3:/{EVIL}"],
    "a text column": ["score", f"{EVIL}.csv", "--model", EVIL, "--output", "o", "--text-column", EVIL],
    "a baseline": ["score", f"{EVIL}.csv", "--model", EVIL, "--output", "o", "--baseline", EVIL],
    "an encoding": ["score", f"{EVIL}.csv", "--model", EVIL, "--output", "o", "--encoding", EVIL],
    "a gate": ["score", f"{EVIL}.csv", "--model", EVIL, "--output", "o", "--fail-below", EVIL],
    "settings": ["score", "x", "--model", EVIL, "--output", EVIL, "--show-config"],
    "a settings file": ["score", "x", "--model", "m", "--output", "o", "--config", "settings.toml"],
    "logs as JSON": ["score", f"{EVIL}.csv", "--model", f"no{EVIL}", "--output", "o", "--log-format", "json"],
    "an inbox": ["inbox", f"no{EVIL}", "--model", EVIL, "--output", "o"],
}


@pytest.mark.parametrize("args", CALLS.values(), ids=CALLS)
def test_no_command_prints_what_a_terminal_obeys(
    args: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(main, args)
    assert isinstance(done.exception, SystemExit | None), done.exception
    assert done.output
    assert not bad_in(done.output), [*map(hex, map(ord, bad_in(done.output)))]
    if "--json" in args and done.stdout:
        json.loads(done.stdout.splitlines()[-1])


def test_nor_does_the_trainer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for args in (
        ["--data", f"no{EVIL}", "--output", EVIL],
        ["--recipe", EVIL],
        ["--data", "x", "--output", "y", "--label-name", EVIL],
    ):
        done = CliRunner().invoke(train, args)
        assert isinstance(done.exception, SystemExit | None), done.exception
        assert done.output
        assert not bad_in(done.output)


@pytest.mark.parametrize("kind", ["text", "json"])
def test_nor_do_logs(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs(Logs(1, kind))
    try:
        logging.getLogger("batchscore.test").warning("%s", EVIL)
        try:
            raise ValueError(EVIL)
        except ValueError:
            logging.getLogger("batchscore.test").exception("%s", EVIL)
        said = capsys.readouterr().err
    finally:
        set_up_logs(Logs())
    assert "31m" in said
    assert not bad_in(said)


def test_the_library_does_not_print_names_of_tensors(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers.utils import logging as transformers_logging

    from batchscore.model.backends.plain import load_plain

    plain = shutil.copytree(tiny_model, tmp_path / "plain")
    tensors: Any = load_file(plain / "model.safetensors")
    more = {EVIL: tensors["classifier.bias"].clone()}
    save_file({**tensors, **more}, plain / "model.safetensors", {"format": "pt"})
    transformers_logging.set_verbosity_warning()  # type: ignore[no-untyped-call]
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", said.append)
    logging.getLogger("transformers").addHandler(handler)
    try:
        load_plain(open_bundle(str(plain)), torch.float32)
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert not [record.getMessage() for record in said]
