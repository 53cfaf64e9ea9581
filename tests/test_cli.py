"""The command line: help, exit codes, what goes where."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from batchscore import cli

REFERENCE = (Path(cli.__file__).parent / "README.md").read_text(encoding="utf-8")


def run(*arguments: object, **options: Any) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments], **options)


@pytest.fixture
def sample(tmp_path: Path, reviews: pd.DataFrame) -> Path:
    path = tmp_path / "reviews.csv"
    reviews.head(12).to_csv(path, index=False)
    return path


def test_help_and_start_load_nothing_heavy() -> None:
    code = (
        "import sys, batchscore.cli, batchscore.cli.train;"
        "print([m for m in ('torch', 'transformers', 'pandas', 'pyarrow', 'datasets', 'ray', 'numpy') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def all_commands() -> list[tuple[str, click.Command]]:
    return sorted(cli.main.commands.items())


@pytest.mark.parametrize(("name", "command"), all_commands())
def test_every_command_and_option_has_help(name: str, command: click.Command) -> None:
    assert command.help
    assert [p.name for p in command.params if isinstance(p, click.Option) and not p.help] == []


@pytest.mark.parametrize("name", [name for name, _ in all_commands()])
def test_the_reference_names_every_command(name: str) -> None:
    assert f"batchscore {name}" in REFERENCE


def test_the_reference_names_every_option_of_score() -> None:
    options = {o for p in cli.main.commands["score"].params for o in p.opts if o.startswith("--")}
    assert {option for option in options if option not in REFERENCE} == set()


def test_success_talks_on_stdout_and_is_silent_when_quiet(
    sample: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    loud = run("score", sample, "--model", tiny_bundle, "--output", tmp_path / "a")
    assert loud.exit_code == 0, loud.output
    assert loud.stdout.startswith("12 rows read: ")
    quiet = run("score", sample, "--model", tiny_bundle, "--output", tmp_path / "b", "-q")
    assert (quiet.exit_code, quiet.output) == (0, "")


def test_the_json_summary_is_the_last_line_of_stdout(sample: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    result = run("score", sample, "--model", tiny_bundle, "--output", tmp_path / "run", "--json")
    summary = json.loads(result.stdout.splitlines()[-1])
    assert (summary["status"], summary["exit_code"], summary["rows"]) == ("scored", 0, 12)
    again = json.loads(
        run("score", sample, "--model", tiny_bundle, "--output", tmp_path / "run", "--json").stdout
    )
    assert again["status"] == "done"
    assert again["counts"] == summary["counts"]


def test_an_error_is_a_message_a_code_and_under_json_a_line(tiny_bundle: Path, tmp_path: Path) -> None:
    result = run(
        "score", tmp_path / "none.csv", "--model", tiny_bundle, "--output", tmp_path / "run", "--json"
    )
    assert result.exit_code == 66
    assert "No such input" in result.stderr
    assert json.loads(result.stdout)["exit_code"] == 66
    assert not (tmp_path / "run").exists()


def test_a_failed_gate_is_3_now_and_when_run_again(sample: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    command = (
        "score",
        sample,
        "--model",
        tiny_bundle,
        "--output",
        tmp_path / "run",
        "--fail-below",
        "accuracy=0.999",
    )
    for _ in range(2):
        result = run(*command)
        assert result.exit_code == 3, result.output
        assert "accuracy" in result.stderr
    assert (tmp_path / "run" / "_SUCCESS").exists()
    assert run("verify", tmp_path / "run").exit_code == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--max-batch-tokens", "many"], 2, "--max-batch-tokens"),
        (["--label-map", "pos"], 2, "GIVEN=LABEL"),
        (["--label-map", "pos=NICE"], 2, "NEGATIVE, POSITIVE"),
        (["--max-rejects", "some"], 2, "--max-rejects"),
        (["--fail-below", "acuracy=0.9"], 2, "accuracy"),
        (["--device", "cuda:0"], 2, "--device"),
        (["--engine", "spark"], 2, "local"),
        (["--text-column", "txt"], 65, "Did you mean text"),
        (["--model", "no/such"], 78, "--revision"),
        (["--model", "./no-such"], 78, "no model folder"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(
    sample: Path, tiny_bundle: Path, tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    result = run("score", sample, "--model", tiny_bundle, "--output", tmp_path / "run", *options)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_dry_run_plans_and_writes_nothing(sample: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    result = run("score", sample, "--model", tiny_bundle, "--output", tmp_path / "run", "--dry-run")
    assert result.exit_code == 0
    assert "12 rows in 1 parts" in result.stdout
    assert not (tmp_path / "run").exists()


def test_flag_beats_environment_beats_file(sample: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    config = tmp_path / "score.toml"
    config.write_text('prefix = "file_"\noutput-format = "jsonl"\nlimit = 3\n')
    environment = {"BATCHSCORE_PREFIX": "env_", "BATCHSCORE_LIMIT": "5"}
    base = (
        "score",
        sample,
        "--model",
        tiny_bundle,
        "--output",
        tmp_path / "run",
        "--config",
        config,
        "--limit",
        7,
    )
    assert run(*base, env=environment).exit_code == 0
    lines = (tmp_path / "run" / "predictions" / "reviews.jsonl").read_text().splitlines()
    assert len(lines) == 7
    assert "env_predicted_label" in json.loads(lines[0])


@pytest.mark.parametrize("gates", ['"accuracy=0.999"', '["accuracy=0.001", "accuracy=0.999"]'])
def test_the_config_may_name_one_gate_or_several(
    sample: Path, tiny_bundle: Path, tmp_path: Path, gates: str
) -> None:
    config = tmp_path / "score.toml"
    config.write_text(f"fail-below = {gates}\nno-text = true\nformat = 'csv'\n")
    done = run(
        "score", sample, "--model", tiny_bundle, "--output", tmp_path / "run", "--config", config, "--json"
    )
    assert done.exit_code == 3, done.output
    assert json.loads(done.stdout.splitlines()[0])["gates"] == {"accuracy": False}


GATES = ("--fail-below", "accuracy=0.999", "--fail-above", "ece=0.9")
OLD_GATES = 'fail-under = "accuracy=0.999"\nfail_over = ["ece=0.9"]\n'


@pytest.mark.parametrize(
    ("flags", "file", "environment"),
    [
        (("--fail-under", "accuracy=0.999", "--fail-over", "ece=0.9"), "", {}),
        ((), OLD_GATES, {}),
        ((), "", {"BATCHSCORE_FAIL_UNDER": "accuracy=0.999", "BATCHSCORE_FAIL_OVER": "ece=0.9"}),
        ((), "", {"BATCHSCORE_FAIL_BELOW": "accuracy=0.999", "BATCHSCORE_FAIL_ABOVE": "ece=0.9"}),
    ],
    ids=["flags", "file", "environment", "new names in the environment"],
)
def test_gates_under_their_old_names_give_the_same_bytes_and_code(
    sample: Path, tiny_bundle: Path, tmp_path: Path, flags: list[str], file: str, environment: dict[str, str]
) -> None:
    config = tmp_path / "score.toml"
    config.write_text(file)
    new = run("score", sample, "--model", tiny_bundle, "--output", tmp_path / "new", *GATES)
    base = ("score", sample, "--model", tiny_bundle, "--output", tmp_path / "old", "--config", config)
    old = run(*base, *flags, env=environment)
    assert new.exit_code == old.exit_code == 3, old.output
    assert new.stderr == old.stderr.replace(str(tmp_path / "old"), str(tmp_path / "new"))
    metrics = [(tmp_path / name / "metrics.json").read_bytes() for name in ("new", "old")]
    assert metrics[0] == metrics[1]
    assert len(json.loads(metrics[0])["gates"]) == 2
    options = [json.loads((tmp_path / name / "run.json").read_bytes())["options"] for name in ("new", "old")]
    assert options[0] == options[1]


def test_old_and_new_names_of_gates_add_up(tmp_path: Path) -> None:
    config = tmp_path / "score.toml"
    config.write_text('fail-under = "recall_A=0.1"\nfail-below = ["recall_B=0.1"]\nfail_over = "ece=0.1"\n')
    file = ("score", "--show-config", "--config", config)
    environment = {"BATCHSCORE_FAIL_UNDER": "accuracy=0.1 macro_f1=0.2", "BATCHSCORE_FAIL_BELOW": "f1_A=0.3"}
    flags = ("--fail-under", "accuracy=0.4", "--fail-below", "accuracy=0.5")
    assert shown_gates(*file) == (
        'fail-below = ["recall_A=0.1", "recall_B=0.1"]  (file)',
        'fail-above = ["ece=0.1"]  (file)',
    )
    assert shown_gates(*file, env=environment) == (
        'fail-below = ["f1_A=0.3", "accuracy=0.1", "macro_f1=0.2"]  (environment)',
        'fail-above = ["ece=0.1"]  (file)',
    )
    assert shown_gates(*file, *flags, env=environment) == (
        'fail-below = ["accuracy=0.4", "accuracy=0.5"]  (flag)',
        'fail-above = ["ece=0.1"]  (file)',
    )


def shown_gates(*arguments: object, **options: Any) -> tuple[str, ...]:
    """The lines of ``--show-config`` that are about gates."""
    lines = run(*arguments, **options).stdout.splitlines()
    return tuple(line for line in lines if line.startswith("fail-"))


def test_an_unknown_key_of_the_config_is_an_error_with_a_suggestion(sample: Path, tmp_path: Path) -> None:
    config = tmp_path / "score.toml"
    config.write_text("max-reject = 3\n")
    result = run("score", sample, "--config", config, "--model", "m", "--output", tmp_path / "run")
    assert result.exit_code == 78
    assert "max-rejects" in result.stderr


def test_rejects_beyond_the_allowance_stop_the_run_and_are_listed(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("id,text,label\n1,fine,pos\n2,too,many,fields\n3,good,neg\n")
    command = ("score", path, "--model", tiny_bundle, "--output", tmp_path / "run")
    result = run(*command)
    assert result.exit_code == 65
    assert "bad.csv, line 3" in result.stderr
    assert "--max-rejects" in result.stderr
    reject = json.loads((tmp_path / "run" / "rejects.jsonl").read_text())
    assert (reject["line"], reject["file"]) == (3, "bad.csv")
    allowed = run(*command, "--max-rejects", "1")
    assert allowed.exit_code == 0, allowed.output
    assert len(pd.read_csv(tmp_path / "run" / "predictions" / "bad.csv")) == 2
    assert run("verify", tmp_path / "run").exit_code == 0


def test_inspect_tells_files_runs_and_bundles_apart(sample: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    run("score", sample, "--model", tiny_bundle, "--output", tmp_path / "run")
    kinds = [
        json.loads(run("inspect", path, "--json").stdout)["kind"]
        for path in (sample, tmp_path / "run", tiny_bundle)
    ]
    assert kinds == ["file", "run", "bundle"]
