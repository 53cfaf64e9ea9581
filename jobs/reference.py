"""Write the command reference in batchscore/cli/README.md from the commands' own ``--help``; ``--check`` only compares."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from batchscore.cli import main
from batchscore.cli.train import command as train_command

README = Path(__file__).parents[1] / "batchscore" / "cli" / "README.md"
START, END = "<!-- made by: python jobs/reference.py -->\n", "<!-- end -->"


def reference() -> str:
    """Every command's help as Markdown."""
    commands = [(f"batchscore {name}", command) for name, command in main.commands.items()]
    return "\n".join(
        _section(name, command) for name, command in [*commands, ("batchscore-train", train_command)]
    )


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
    return f"### {name}\n\n```text\n{command.get_help(context)}\n```\n"


def renewed(readme: str) -> str:
    """The README with today's reference."""
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{reference()}\n{END}{after}"


if __name__ == "__main__":
    old = README.read_text(encoding="utf-8")
    new = renewed(old)
    if "--check" in sys.argv:
        sys.exit(
            0
            if new == old
            else "batchscore/cli/README.md: the command reference is out of date; run: python jobs/reference.py"
        )
    README.write_text(new, encoding="utf-8")
