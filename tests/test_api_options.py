"""Options from Python are those of the commands: names, types, defaults, environment, settings file."""

from __future__ import annotations

import datetime
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import batchscore
from batchscore.api.options import (
    COMMAND_ONLY,
    EvaluateOptions,
    ScoreOptions,
    TrainOptions,
    spellings,
    values_of,
)
from batchscore.cli.evaluate import command as evaluate_command
from batchscore.cli.output_options import Names
from batchscore.cli.score import command as score_command
from batchscore.cli.train import command as train_command
from batchscore.errors import ModelError, UsageError

COMMANDS = {
    "evaluate": (evaluate_command, EvaluateOptions, {"run_dir", "labels", "output"}),
    "score": (score_command, ScoreOptions, {"inputs", "model", "output"}),
    "train": (train_command, TrainOptions, {"data", "output"}),
}


def values(**options: Any) -> dict[str, Any]:
    taken = {"inputs": ("reviews.csv",), "model": "model", "output": "run"}
    return values_of(score_command, taken, options, "score")


@pytest.mark.parametrize(("command", "options", "arguments"), COMMANDS.values(), ids=COMMANDS)
def test_every_option_of_a_command_has_its_name_in_python(
    command: click.Command, options: type, arguments: set[str]
) -> None:
    assert set(spellings(command)) - set(COMMAND_ONLY) - arguments == set(options.__annotations__)


@pytest.mark.parametrize(("command", "options", "arguments"), COMMANDS.values(), ids=COMMANDS)
def test_the_types_are_those_of_the_command(
    command: click.Command, options: type, arguments: set[str]
) -> None:
    for name, kind in typing.get_type_hints(options).items():
        param, kinds = spellings(command)[name], typing.get_args(kind) or (kind,)
        literals = {
            text
            for each in kinds
            if typing.get_origin(each) is typing.Literal
            for text in typing.get_args(each)
        }
        if isinstance(param.type, click.Choice) and literals:
            assert literals == set(param.type.choices), name
        if isinstance(param.type, click.IntRange):
            assert set(kinds) == {int, type(None)}, name
        if isinstance(param.type, click.FloatRange):
            assert set(kinds) == {float, type(None)}, name
        assert (kinds == (bool,)) == (isinstance(param, click.Option) and param.is_flag), name
        takes_names = "NAME,NAME" in (param.metavar or "")
        assert takes_names == isinstance(param.type, Names), (
            f"{name}: options that take several names are of one type"
        )


@pytest.mark.parametrize("function", [batchscore.score, batchscore.train, batchscore.evaluate])
def test_help_and_completion_know_every_option(function: Callable[..., Any]) -> None:
    options = COMMANDS[function.__name__][1].__annotations__
    assert set(options) <= set(inspect.signature(function).parameters)
    told = function.__doc__ or ""
    assert [name for name in options if f"    {name}: " not in told] == []
    assert "Raises:\n    BatchscoreError" in told


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("limit", 10, 10),
        ("limit", np.int64(10), 10),
        ("max_rejects", 10, "10"),
        ("max_rejects", "0.1%", "0.1%"),
        ("max_batch_tokens", 8192, "8192"),
        ("tolerance", 0.5, 0.5),
        ("date", datetime.date(2026, 11, 23), datetime.date(2026, 11, 23)),
        ("date", "2026-11-23", datetime.date(2026, 11, 23)),
        ("fail_below", {"accuracy": 0.85, "macro_f1": np.float64(0.8)}, ("accuracy=0.85", "macro_f1=0.8")),
        ("fail_below", "accuracy=0.85", ("accuracy=0.85",)),
        ("fail_below", ["accuracy=0.85"], ("accuracy=0.85",)),
        (
            "label_map",
            {"pos": "positive", 3: None, True: "positive"},
            ("pos=positive", "3=", "True=positive"),
        ),
        ("threshold", 0.4, ("0.4",)),
        ("threshold", {"toxic": 0.3}, ("toxic=0.3",)),
        ("slice_column", "author", ("author",)),
        ("slice_column", ("author", "day"), ("author", "day")),
        ("label_columns", "a, b", ("a", "b")),
        ("label_columns", ["a,b", "c"], ("a,b", "c")),
        ("baseline", Path("earlier"), Path("earlier")),
        ("baseline", "~/earlier", Path.home() / "earlier"),
        ("quotechar", "", ""),
        ("prefix", "-x", "-x"),
        ("force", True, True),
        ("force", np.True_, True),
        ("label_column", None, None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_value_is_what_the_command_makes_of_it(option: str, value: object, expected: object) -> None:
    found = values(**{option: value})[str(spellings(score_command)[option].name)]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": "many"}, "limit: 'many' is not a valid integer"),
        ({"limit": -1}, "limit: -1 is not in the range"),
        ({"limit": 1.5}, "limit: '1.5' is not a valid integer"),
        ({"limit": True}, "limit is True, and takes a value"),
        ({"limit": [1]}, "limit takes one value, not a list"),
        ({"force": "maybe"}, "force is True or False, not a str"),
        ({"precision": "half"}, "precision: 'half' is not one of"),
        ({"output_format": "xls"}, "output_format: 'xls' is not one of"),
        ({"reuse": "s3://bucket/run"}, "reuse: A path is wanted"),
        ({"text_column": ["a", "b"]}, "text_column takes one value"),
        ({"text_column": b"a"}, "text_column takes one value, not a bytes"),
        ({"slice_column": {"a": "b"}}, "slice_column takes no dictionary"),
        ({"label_map": {(1, 2): "c"}}, "label_map takes one value, not a tuple"),
        ({"label_map": {None: "c"}}, "label_map takes one value"),
        ({"label_columns": ["a", "a"]}, "all different"),
        ({"label_columns": []}, "all different"),
        ({"date": datetime.datetime(2026, 11, 23, 5)}, "date: "),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        values(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("labl_column", "Did you mean 'label_column'?"),
        ("label-column", "Did you mean 'label_column'?"),
        ("fail_under", "Did you mean 'fail_below'?"),
        ("show_config", "it prints and ends the command"),
        ("verbose", "logging.getLogger('batchscore')"),
        ("zzz", "There are: "),
    ],
)
def test_an_option_that_does_not_exist_is_a_type_error_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(TypeError, match=name) as caught:
        values(**{name: "x"})
    assert message in str(caught.value)


def test_a_value_beats_the_environment_and_that_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "score.toml"
    config.write_text('prefix = "file_"\nlimit = 3\nno-text = true\nlog-format = "json"\n', encoding="utf-8")
    monkeypatch.setenv("BATCHSCORE_PREFIX", "env_")
    monkeypatch.setenv("BATCHSCORE_NO_LABELS", "1")
    found = values(config=config)
    assert (found["prefix"], found["limit"], found["no_text"], found["no_labels"]) == ("env_", 3, True, True)
    found = values(config=config, prefix="", limit=5, no_text=False, no_labels=False)
    assert (found["prefix"], found["limit"], found["no_text"], found["no_labels"]) == ("", 5, False, False)


def test_what_stands_elsewhere_is_said_to_stand_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "score.toml"
    config.write_text('limit = "many"\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"limit \(from the settings file\)"):
        values(config=config)
    config.write_text("max-reject = 3\n", encoding="utf-8")
    with pytest.raises(ModelError, match="max-rejects"):
        values(config=config)
    monkeypatch.setenv("BATCHSCORE_WORKERS", "all")
    with pytest.raises(UsageError, match=r"workers \(from the environment\)"):
        values()


def test_data_model_and_output_are_never_taken_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHSCORE_MODEL", "other")
    monkeypatch.setenv("BATCHSCORE_OUTPUT", "elsewhere")
    found = values()
    assert (found["inputs"], found["model"], found["output"]) == (("reviews.csv",), "model", Path("run"))
