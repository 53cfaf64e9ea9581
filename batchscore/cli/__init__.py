"""The command line, one module a command: each parses, builds one settings object, calls one function, shows what came back.

Nothing heavy is imported until a command runs, so that ``--help`` is immediate.
"""

from __future__ import annotations

import click

from batchscore.cli import adopt, bundles, evaluate, inbox, promote, report, review, score, signing, suggest
from batchscore.cli.output import TellsMachines
from batchscore.version import __version__

__all__ = ["main", "train_main"]


class _Commands(TellsMachines, click.Group):
    """Commands in the order of their definition."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own signature
        return list(self.commands)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="batchscore")
def main() -> None:
    """Score files of texts with a saved classifier: every row, in order, safe to kill, easy to trust."""


for _command in (
    score.command,
    inbox.command,
    evaluate.command,
    report.command,
    review.command,
    suggest.command,
    adopt.command,
    promote.command,
    signing.sign,
    bundles.verify,
    bundles.export,
    bundles.inspect,
):
    main.add_command(_command)


def train_main() -> None:
    """The ``batchscore-train`` command."""
    from batchscore.cli.train import train_main as run

    run()
