"""Completion in the shell, as the command reference tells people to set it up."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from batchscore.cli import main


def completed(words: str) -> list[str]:
    variables = {
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
        "_BATCHSCORE_COMPLETE": "bash_complete",
    }
    return CliRunner().invoke(main, prog_name="batchscore", env=variables).stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("batchscore sc", ["plain,score"]),
        ("batchscore score --prec", ["plain,--precision"]),
        ("batchscore score --precision b", ["plain,bf16"]),
        ("batchscore inbox --keep-d", ["plain,--keep-days"]),
    ],
)
def test_commands_options_and_values_are_completed(words: str, wanted: list[str]) -> None:
    assert completed(words) == wanted


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    done = CliRunner().invoke(main, prog_name="batchscore", env={"_BATCHSCORE_COMPLETE": f"{shell}_source"})
    assert done.exit_code == 0
    assert "_BATCHSCORE_COMPLETE" in done.stdout
