"""Every path that a command takes knows what an address is: it is supported, or refused by name; none becomes a local folder's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import batchscore
from batchscore import cli
from batchscore.addresses import Address, address_in, is_address
from batchscore.api.evaluating import evaluate
from batchscore.api.options import spellings, values_of
from batchscore.cli.declaring import LocalPath
from batchscore.cli.options import LocalName
from batchscore.cli.train import command as train_command
from batchscore.errors import UsageError

BUCKETS = ("s3", "gs", "az")
SUPPORTED: dict[str, tuple[str, ...]] = {
    "score inputs": (*BUCKETS, "hf"),
    "score output": BUCKETS,
    "score model": BUCKETS,
    "score baseline": BUCKETS,
    "inbox inbox": BUCKETS,
    "inbox output": BUCKETS,
    "inbox model": BUCKETS,
    "inbox baseline": BUCKETS,
    "report runs_dir": BUCKETS,
    "verify path": BUCKETS,
    "inspect path": BUCKETS,
}
"""Parameter → the schemes that it takes; of all other paths every address is refused."""
WORDS = {
    "accept", "accept_confidence", "audit", "backend", "delimiter", "encoding", "engine", "escapechar", "fail_above",
    "fail_below", "file_column", "group_column", "id_column", "label_column", "label_map", "label_names", "max_batch_tokens",
    "max_rejects", "partition_by", "prefix", "push_to_hub", "quotechar", "rename", "renamed", "revision", "row_column",
    "run_id_column", "sheet", "slice_column", "text_column", "text_pair_column", "threshold",
}  # fmt: skip
"""Parameters of any text that is no path: names, shares, ids."""
ADDRESSES = (
    "s3://bucket/run3",
    "gs://bucket/x",
    "az://box/x",
    "hf://datasets/a/b",
    "file:///tmp/run",
    "https://a.org/m",
    "s3:/b/x",
)


def parameters() -> Iterator[tuple[str, click.Parameter]]:
    for name, command in [*cli.main.commands.items(), ("train", train_command)]:
        assert not isinstance(command, click.Group), "its commands are to be listed too"
        for param in command.params:
            yield f"{name} {param.name}", param


def is_path(param: click.Parameter) -> bool:
    return isinstance(param.type, LocalPath | LocalName)


PATHS = {name: param for name, param in parameters() if is_path(param)}


def test_every_parameter_that_takes_any_text_is_a_path_or_is_known_to_be_none() -> None:
    free = {param.name for _, param in parameters() if isinstance(param.type, click.types.StringParamType)}
    assert free == WORDS, "a new option is a LocalPath, a LocalName, one that takes addresses, or a word"
    assert not [
        name for name, param in parameters() if isinstance(param.type, click.Path) and not is_path(param)
    ]
    assert len(PATHS) > 40
    assert set(SUPPORTED) <= set(PATHS)


def by_flag(param: click.Parameter, address: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    return _parsed(param, [*([param.opts[0]] if isinstance(param, click.Option) else []), address])


def by_environment(param: click.Parameter, address: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    if not param.envvar:
        pytest.skip("the environment does not set it")
    monkeypatch.setenv(param.envvar[0] if isinstance(param.envvar, list) else str(param.envvar), address)
    return _parsed(param, [])


def by_settings_file(param: click.Parameter, address: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    return _parsed(param, [], default_map={str(param.name): [address] if param.multiple else address})


def _parsed(param: click.Parameter, args: list[str], **more: Any) -> Any:
    return click.Command("x", params=[param]).make_context("x", args, **more).params.get(str(param.name))


@pytest.mark.parametrize("door", [by_flag, by_environment, by_settings_file])
@pytest.mark.parametrize("name", PATHS)
def test_an_address_is_supported_or_refused_by_name(
    name: str,
    door: Callable[[click.Parameter, str, pytest.MonkeyPatch], Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    for address in ADDRESSES:
        if door is by_environment and PATHS[name].multiple and "://" not in address:
            continue  # two paths with a colon between them
        if address.partition("://")[0] in SUPPORTED.get(name, ()):
            found = door(PATHS[name], address, monkeypatch)
            assert address in str(found), "it stays an address"
            assert not isinstance(found, Path)
        else:
            with pytest.raises(click.BadParameter) as caught:
                door(PATHS[name], address, monkeypatch)
            assert caught.value.exit_code == 2
            assert f"{address} is an address" in str(caught.value)
    assert not list(tmp_path.iterdir())


PYTHON = {"score": "inputs model output", "evaluate": "run_dir labels output", "train": "data output"}


@pytest.mark.parametrize("function", PYTHON)
def test_nor_from_python(function: str) -> None:
    command = train_command if function == "train" else cli.main.commands[function]
    for spelled, param in spellings(command).items():
        if is_path(param) and spelled != "config":
            address = next(
                each
                for each in ADDRESSES
                if each.partition("://")[0] not in SUPPORTED.get(f"{function} {param.name}", ())
            )
            required = dict.fromkeys(PYTHON[function].split(), "x")
            with pytest.raises(UsageError, match="is an address"):
                values_of(command, {**required, spelled: address}, {}, function)


@pytest.mark.parametrize(
    "call",
    [
        lambda: batchscore.open_run("https://bucket/run"),
        lambda: batchscore.open_run(Path("s3://bucket/run")),
        lambda: evaluate("https://bucket/run", "labels.csv"),
        lambda: batchscore.train("https://bucket/x.csv", "model"),
        lambda: batchscore.train("builtin", "s3://bucket/model"),
        lambda: batchscore.score("x.csv", "model", "https://bucket/run"),
    ],
)
def test_nor_by_a_function(call: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is an address"):
        call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("s3://bucket/runs/a", Address("s3", "bucket", "runs/a")),
        ("S3://bucket/runs/a/", Address("s3", "bucket", "runs/a")),
        ("gs://bucket", Address("gs", "bucket")),
        ("az://box/a=b/größe.csv", Address("az", "box", "a=b/größe.csv")),
        ("runs/a:b", None),
        ("C:x", None),
        ("./s3:/x", None),
        ("s3://bucket/year=202?/day=1/x@2.csv", Address("s3", "bucket", "year=202?/day=1/x@2.csv")),
    ],
)
def test_an_address_is_known(text: str, address: Address | None) -> None:
    assert address_in(text) == address
    assert is_address(text) == (address is not None)


@pytest.mark.parametrize(
    "text",
    [
        "s3://", "s3:///key", "s3://b", "s3:/bucket/x", " s3://bucket/x", "s3://bucket//x", "s3://bucket/../x", "s3://bucket/a\nb",
        "s3://AKIA:wJalr@bucket/x", "s3://AKIA:a/wJalr@bucket/x", "s3:/AKIA:a/wJalr@bucket/x", "https://AKIA:a/wJalr@host/x",
        "http://bucket/x", "s3+https://bucket/x", "az://box/x.csv\x00", "az://box/x.csv?sv=2026&sig=wJalr",
        "s3://bucket/x.csv?X-Amz-Date=1&X-Amz-Signature=wJalr", "s3://bucket/x.csv?AWSAccessKeyId=AKIA&Signature=wJalr",
    ],
)  # fmt: skip
def test_one_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is an address") as caught:
        address_in(text)
    assert "wJalr" not in str(caught.value)


def test_a_signature_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        address_in("https://box.blob.example/x.csv?sv=2026&sig=c2VjcmV0")
    assert "c2VjcmV0" not in str(caught.value)
